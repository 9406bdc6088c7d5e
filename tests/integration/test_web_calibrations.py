"""The page of the calibrations: what is in use, what is held and why, and curves of the numbers of trend."""

import json
import math

import pytest
from click.testing import CliRunner

from daemon.cli import Settings, caldb, verdict
from daemon.config.options import Change, Config, Products, State
from daemon.judgement import drift
from daemon.judgement.drift import Past
from daemon.ledger.guarding import setup_of
from daemon.people import calibrations
from daemon.web import app
from tests.asgi import ask
from tests.integration.test_web import HOSTILE
from tests.night import NIGHT, FakeEngine, frame, static_bpm
from tests.schemas import wrong
from tests.unit.service.test_markup import parsed

NIGHTS = 7
NOISES = ("read_noise", *(f"read_noise_q{k}" for k in range(1, 5)))
HELD = "N20160107S0301_dark"


class Measuring(FakeEngine):
    """Darks have a read noise that differs a little by night, and a dark rate; the last one is loud."""

    def run(self, job_id, attempt, spec):
        outcome = super().run(job_id, attempt, spec)
        if spec.recipe == "makeProcessedDark":
            noise = 12.3 * math.sqrt(2) * (2.0 if spec.name == HELD else 1.0 + 0.001 * (job_id % 5))
            figures = dict.fromkeys(NOISES, (noise, 0.01, "electron"))
            outcome.result["quality"] = {
                "measures": {**figures, "rate": (0.2 + 0.001 * job_id, 0.01, "e-/s")}
            }
        return outcome


@pytest.fixture
def daemon(daemons):
    """Seven nights of darks of two exposures, the last of the longer ones held, and a mask from outside."""
    made = daemons(engine=Measuring())
    for k in range(NIGHTS):
        day, start = f"2016010{k + 1}", 86400 * (k - 1)
        made.land(*[frame("dark", 301 + n, start + 30 * n, day=day) for n in range(10)])
        short = {"exposure_time": 5.0}
        made.land(*[frame("dark", 401 + n, start + 900 + 9 * n, day=day, **short) for n in range(10)])
    made.land(static_bpm())
    made.until_idle()
    return made


def config_of(daemon, **more):
    folder = {"state": State(str(daemon.ledger.path.parent)), "products": Products(str(daemon.products))}
    return Config(**folder, base=str(daemon.folder), **more)


def answered(daemon, path="/api/v1/calibrations", **more):
    answer = ask(app.build(config_of(daemon, **more)).app, path)
    assert answer.status == 200
    return answer.json()


def asked(daemon, command, *words):
    """What a command answers about this ledger."""
    folder = daemon.ledger.path.parent
    (folder / "nirid.toml").write_text(f'[state]\nfolder = "{folder}"\n')
    done = CliRunner().invoke(command, [*words, "--json"], obj=Settings(config=str(folder / "nirid.toml")))
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def row_of(answer, seconds="20.002 s"):
    (row,) = [row for row in answer["rows"] if seconds in row["what"]]
    return row


def test_what_is_in_use_is_what_the_store_has(daemon):
    """`nirid caldb list` and the page name the same; what is held is in no store."""
    daemon.decide("reject", "N20160103S0401_dark", reason="the cold head was off")
    daemon.run(600)
    told = answered(daemon)
    assert wrong("calibrations", told) == []
    listed = asked(daemon, caldb.list_, "--database", str(daemon.ledger.path))
    for row in told["rows"]:
        row["latest"] = answered(daemon, f"/api/v1/calibrations?key={row['key']}")
    shown = [one for row in told["rows"] for each in row["latest"]["rows"] for one in each["latest"]]
    used = {(one["path"], one["sha256"]) for one in shown if one["state"] != "held"}
    assert used == {(one["path"], one["sha256"]) for one in listed}
    assert len(used) == 2 * NIGHTS - 2 + 1  # one is held, one rejected, and there is a mask
    assert {one["name"] for one in shown if one["state"] == "held"} == {HELD}


def test_points_are_those_of_trend_by_command_and_by_address(daemon):
    newest = row_of(answered(daemon))
    row = row_of(answered(daemon, f"/api/v1/calibrations?key={newest['key']}"))
    for metric in ("rate", "read_noise"):
        by_command = asked(daemon, verdict.trend, metric, "--key", row["key"])
        by_address = answered(daemon, f"/api/v1/trend?metric={metric}&key={row['key']}")["rows"]
        assert by_command == by_address
        numbers = {one["product"] for one in row["latest"]}
        (figure,) = [figure for figure in row["figures"] if figure["metric"] == metric]
        assert figure["points"] == [point for point in by_command if point["number"] in numbers]
        assert len(figure["points"]) == NIGHTS
        assert figure in newest["figures"]
        assert len(by_command) == 2 * NIGHTS
    names = asked(daemon, verdict.trend)
    assert answered(daemon, "/api/v1/trend")["rows"] == names


def test_exposures_are_told_apart(daemon):
    rows = [row for row in answered(daemon)["rows"] if row["kind"] == "dark"]
    assert len({row["key"] for row in rows}) == 1
    assert sorted(row["what"].split(",")[0] for row in rows) == ["dark 20.002 s × 2", "dark 5 s × 2"]
    assert [row["masters"] for row in rows] == [NIGHTS, NIGHTS]


def test_what_is_held_says_why_and_what_to_do(daemon):
    (held,) = [one for one in row_of(answered(daemon))["latest"] if one["state"] == "held"]
    assert held["name"] == HELD
    assert "read noise" in held["reason"]
    assert "nirid accept or nirid reject" in held["do"]
    text = parsed(ask(app.build(config_of(daemon)).app, "/calibrations").text).data
    assert "1 is held back" in text
    assert held["reason"] in text


def test_a_master_in_the_band_is_accepted_and_one_outside_of_it_is_not(daemon):
    """The band is that of the judgement itself: its ends, a little in or out, decide what is said."""
    row = row_of(answered(daemon))
    (figure,) = [figure for figure in row["figures"] if figure["metric"] == "read_noise"]
    band = figure["band"]
    assert band["from"] == "accepted masters"
    held = next(one["product"] for one in row["latest"] if one["state"] == "held")
    values = [point["value"] for point in figure["points"] if point["number"] != held]
    line = [Past({"read_noise": (value, 0.01)}, NIGHT) for value in values]
    facts = {"read_mode": "Low Background", "coadds": 2, "exposure_time": 20.002}
    reach = band["high"] - band["usual"]
    for part, state in ((0.99, "accepted"), (1.01, "warning"), (-0.99, "accepted"), (-1.01, "warning")):
        value = band["usual"] + part * reach
        said = drift.judged("DARK", setup_of(facts), {"read_noise": (value, 0.01)}, line)
        assert said.state == state


def test_with_few_masters_the_band_is_what_can_be(daemons):
    daemon = daemons(engine=Measuring())
    daemon.land(*[frame("dark", 301 + n, 30 * n) for n in range(10)])
    daemon.until_idle()
    (row,) = answered(daemon)["rows"]
    by_name = {figure["metric"]: figure["band"] for figure in row["figures"]}
    assert by_name["rate"] is None
    assert by_name["read_noise"]["from"] == "what can be"
    assert "can be" in ask(app.build(config_of(daemon)).app, "/calibrations").text


def test_breakpoints_are_on_the_page_with_their_reason(daemon):
    change = Change(NIGHT, ("dark",), "the array was warm <b>")
    told = answered(daemon, breakpoint=(change,))
    assert wrong("calibrations", told) == []
    assert told["breakpoints"] == [
        {"at": "2016-01-02T05:00:00+00:00", "kinds": ["processed_dark"], "reason": "the array was warm <b>"}
    ]
    text = ask(app.build(config_of(daemon, breakpoint=(change,))).app, "/calibrations").text
    assert "the array was warm &lt;b&gt;" in text


def test_the_page_is_whole_without_a_script(daemon):
    page = app.build(config_of(daemon))
    text = ask(page.app, "/calibrations").text
    seen = parsed(text)
    assert text.count("<svg") == 4  # rate and read noise of two exposures
    links = {a["href"] for name, a in seen.tags if name == "a" and a.get("href")}
    assert f"/thing/{HELD}" in links
    for link in links:
        assert ask(page.app, link).status in (200, 303), link
    assert not [a for _, a in seen.tags if any(k.startswith("on") or k == "style" for k in a)]


def test_a_key_has_all_its_figures_and_calibrations(daemon, monkeypatch):
    monkeypatch.setattr(calibrations, "LATEST", 3)
    short = row_of(answered(daemon))
    assert len(short["latest"]) == 3
    assert "and 4 older" in ask(app.build(config_of(daemon)).app, "/calibrations").text
    row = row_of(answered(daemon, f"/api/v1/calibrations?key={short['key']}"))
    assert len(row["latest"]) == row["masters"] == NIGHTS
    assert len(row["figures"]) > len(short["figures"])


def test_what_is_old_has_its_names_and_its_curves_when_it_is_asked_for(daemon, monkeypatch):
    """So that a page of twenty years is made as fast as one of a night."""
    monkeypatch.setattr(calibrations, "DRAWN", 0)
    rows = [row for row in answered(daemon)["rows"] if row["kind"] == "dark"]
    assert [row["figures"] for row in rows] == [[]] * len(rows)
    assert sum(len(row["latest"]) for row in rows) == calibrations.LATEST + 1  # and the one that is held
    assert row_of(answered(daemon, f"/api/v1/calibrations?key={rows[0]['key']}"))["figures"]


def test_an_empty_ledger_has_words(daemons):
    daemon = daemons()
    assert answered(daemon) == {"version": 1, "rows": [], "breakpoints": [], "more": False}
    text = ask(app.build(config_of(daemon)).app, "/calibrations").text
    assert "No calibration is known yet" in text


def test_hostile_names_are_text(daemons):
    daemon = daemons(engine=Measuring())
    daemon.land(*[frame("dark", 301 + n, 30 * n, well_depth=HOSTILE) for n in range(10)])
    daemon.until_idle()
    text = ask(app.build(config_of(daemon)).app, "/calibrations").text
    assert "<img src=x" not in text
    assert not [a for _, a in parsed(text).tags if "onerror" in a]
