"""The report of a night as a page to print: its numbers are the ledger's; it is small, whole and harmless."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from daemon.cli import nightreport as command
from daemon.ledger import nightly
from daemon.people import nightfacts, nightreport, nightsheet, verdicts
from daemon.upkeep import reports
from tests.asgi import ask
from tests.beside import Settings
from tests.integration.test_guard import Measuring
from tests.integration.test_web import HOSTILE, Engine, landed, page_of
from tests.night import example1, frame
from tests.unit.service.test_markup import parsed

NIGHT = "20160102"
LATER = datetime(2016, 1, 3, 2, tzinfo=UTC)


class Both(Measuring, Engine):
    """Darks with figures, images with stars, all with pictures."""


@pytest.fixture
def night(daemons):
    """With masters of the night before, a frame that a person took out, and a loud dark that is held."""
    engine = Both()
    engine.loud = ()
    daemon = daemons(engine=engine, looks=True)
    daemon.land(*[frame("dark", n, -86400 + 30 * n, day="20160101") for n in range(5, 15)])
    daemon.run(600)
    engine.loud = ("N20160102S0423_dark",)
    daemon.land(*example1())
    daemon.run(600)
    daemon.decide("reject", "N20160102S0425.fits", reason="trailed")
    daemon.run(600)
    return daemon


def config_of(daemon):
    return page_of(daemon).config


def built(daemon, night=NIGHT, now=LATER):
    config = config_of(daemon)
    return daemon.ask(lambda db: reports.build(db, config, daemon.setting, night, now))


def tables(page):
    """{heading: rows of cells} of a page."""
    found = {}
    for title, table in re.findall(r"<h2>([^<]*)</h2><table>(.*?)</table>", page, re.DOTALL):
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", table, re.DOTALL)
        found[title.split(":")[0]] = [
            [parsed(cell).data for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)]
            for row in rows[1:]
        ]
    return found


def test_every_number_of_the_page_is_that_of_the_report_and_of_the_ledger(night):
    made = built(night)
    rules = night.setting.rules
    said = night.ask(lambda db: nightreport.answer(db, rules, (), NIGHT, LATER))
    data = json.loads(made.data)
    assert data.pop("made_by") == "nirid report"
    assert data == json.loads(json.dumps(said, default=str))
    low, high = 1451692800.0, 1451692800.0 + 86400
    assert night.rows("SELECT COUNT(*) AS n FROM frame WHERE ut >= ? AND ut < ?", low, high)[0]["n"] == 45
    assert "45 frames (+35), 10 science frames (+10)" in parsed(made.page).data
    shown = tables(made.page)
    (science,) = [row for row in shown["Programmes"] if row[0] == "GN-2015B-Q-1"]
    assert science[1] == "15"  # with the standard, which is of the same programme here
    by_row = {row[3]: row for row in shown["Sequences"] if len(row) > 3}
    for row in said["sequences"]:
        cells = by_row[row["product"]]
        assert cells[2] == str(row["frames"])
        assert cells[4] == f"{row['depth']['seeing']:.2f}" == "0.90"
        assert cells[5] == f"{row['depth']['zero_point']:.2f}" == "26.30"
    current = {p["name"] for p in night.rows("SELECT name FROM product WHERE current AND night = ?", NIGHT)}
    assert {one["name"] for one in said["product_list"]} == current
    assert all(name in parsed(made.page).data for name in current)
    assert made.page.count("data:image/jpeg;base64,") == len(current)
    assert f"Products: {len(current)}" in made.page


def test_time_in_and_out_of_what_was_asked_is_that_of_the_frames(night):
    said = json.loads(built(night).data)
    (row,) = [r for r in said["sequences"] if r["role"] == "science"]
    each = night.ask(lambda db: verdicts.of_group(db, row["group"], (), frames=True))["each"]
    assert len(each) == 10
    assert sum(row["seconds"].values()) == pytest.approx(10 * 20.002 * 2, abs=0.2)
    counted = {}
    for one in each:
        counted[one["IQ"]["state"]] = counted.get(one["IQ"]["state"], 0.0) + 20.002 * 2
    assert row["seconds"] == {state: pytest.approx(seconds, abs=0.1) for state, seconds in counted.items()}
    assert said["programme_seconds"] == {"GN-2015B-Q-1": row["seconds"]}


@pytest.mark.parametrize(
    ("quality", "cloud", "both"),
    [
        ("met", None, "met"),
        ("met", "not measured", "met"),
        ("met", "not met", "not met"),
        ("not asked", "borderline", "borderline"),
        ("not asked", "met", "met"),
        ("not measured", "met", "not measured"),
        ("not met", "met", "not met"),
    ],
)
def test_a_frame_is_as_good_as_the_worse_of_what_is_known(quality, cloud, both):
    assert nightfacts.worse(quality, cloud) == both


def test_a_programme_that_asks_for_what_it_did_not_get_is_told_the_minutes(daemons):
    """Stars of 0.9 arcsec in K: more than 20 % of the nights, less than 85 %."""
    asked = [replace(r, descriptors=replace(r.descriptors, req_iq=20)) for r in example1()]
    daemon = landed(daemons, records=asked)
    page = built(daemon).page
    (science,) = tables(page)["Programmes"]
    measured = daemon.rows("""SELECT COUNT(*) AS n FROM measure m JOIN frame f ON f.id = m.number
        WHERE m.subject = 'frame' AND m.name = 'fwhm' AND f.role = 'science'""")[0]["n"]  # fmt: skip
    assert 5 < measured < 10
    assert science[4] == f"{measured * 20.002 * 2 / 60:.1f}", science
    assert science[5] == f"{(10 - measured) * 20.002 * 2 / 60:.1f}", science
    said = daemon.ask(lambda db: nightreport.answer(db, daemon.setting.rules, (), NIGHT, LATER))
    assert f"not met {measured * 20.002 * 2 / 60:.0f} min" in "\n".join(nightreport.lines(said))


def test_a_master_is_held_against_the_last_accepted_one(night):
    said = json.loads(built(night).data)
    (dark,) = [m for m in said["masters"] if m["name"] == "N20160102S0423_dark"]
    assert dark["before"] == {"name": "N20160101S0005_dark", "night": "20160101"}
    figures = {
        row["name"]: json.loads(row["quality"])["measures"]
        for row in night.rows("SELECT name, quality FROM product WHERE current AND name LIKE '%_dark'")
    }
    old, new = (figures[name]["read_noise"] for name in (dark["before"]["name"], dark["name"]))
    noise = dark["figures"]["read_noise"]
    assert (noise["value"], noise["before"]) == (new[0], old[0])
    assert noise["difference"] == pytest.approx(new[0] - old[0])
    assert noise["sigma"] == pytest.approx((new[0] - old[0]) / (2**0.5 * 0.01), abs=0.01)
    (held,) = said["held"]
    assert held["name"] == dark["name"]
    page = built(night).page
    assert [r[1] for r in tables(page)["Held, rejected, quarantined, without a product"]][:2] == [
        "held",
        "excluded",
    ]
    assert re.search(r"rejected by .*: trailed", page)


def test_a_master_that_somebody_rejected_is_no_measure_of_the_next(night):
    night.decide("reject", "N20160101S0005_dark", reason="light leak")
    night.run(600)
    (dark,) = [m for m in json.loads(built(night).data)["masters"] if m["name"] == "N20160102S0423_dark"]
    assert dark["before"] is None
    assert dark["figures"]["read_noise"]["difference"] is None


def test_a_master_that_is_held_is_passed_over(night):
    night.land(*[frame("dark", n, 86400 + 30 * n, day="20160103") for n in range(705, 715)])
    night.run(600)
    (dark,) = [
        m for m in json.loads(built(night, "20160103").data)["masters"] if m["name"] == "N20160103S0705_dark"
    ]
    assert dark["before"] == {"name": "N20160101S0005_dark", "night": "20160101"}
    night.decide("accept", "N20160102S0423_dark")
    night.run(600)
    (dark,) = [m for m in json.loads(built(night, "20160103").data)["masters"] if m["name"] == dark["name"]]
    assert dark["before"]["name"] == "N20160102S0423_dark"


def test_percentiles_are_those_of_the_times():
    told = nightfacts.spread([float(n) for n in range(100, 0, -1)], "looks")
    assert told == {"looks": 100, "median": 50.5, "p95": 95.0, "longest": 100.0}
    assert nightfacts.spread([-5.0], "looks") == {"looks": 0, "median": None, "p95": None, "longest": None}


def test_damaged_files_are_told_of_their_night_only(night):
    def damage(tx):
        for name in ("N20160102S0900.fits", "N20151231S0901.fits"):
            tx.insert("content", sha256=name, state="quarantined", reason="cut short", first_seen=tx.now,
                      changed=tx.now, name=name, kind="", facts="", tags="[]", descriptors="{}")  # fmt: skip

    night.ledger.write(damage)
    told = {row["name"]: row["reason"] for row in json.loads(built(night).data)["rejected"]}
    assert told["N20160102S0900.fits"] == "cut short"
    assert "N20151231S0901.fits" not in told
    assert "N20160102S0900.fits" in built(night).page


def test_an_empty_night_has_a_page(night):
    page = built(night, "20150101").page
    assert "no frames were taken" in page
    assert tables(page) == {}
    assert "nirid" in page.partition("<footer>")[2]


def test_a_large_night_stays_small(daemons):
    """Hundreds of frames and products, with headers as long as they can be: 300 kB, and what is left out is
    counted."""
    records = []
    for n in range(240):
        one = {"object": f"{n}{HOSTILE}", "observation_id": f"GN-2015B-Q-1-{n // 3}", "req_iq": 20}
        records.append(frame("science", n, 40 * n, program_id=f"{n // 3}{HOSTILE}", **one))
    daemon = daemons(engine=Engine())
    daemon.land(*records, *[r for r in example1() if "FLAT" in r.tags])
    daemon.until_idle()
    made = built(daemon)
    assert len(json.loads(made.data)["sequences"]) == 80
    assert 30_000 < len(made.page.encode()) <= nightsheet.LIMIT == 300_000
    assert "and 20 more" in made.page or "and 50 more" in made.page
    big = dict.fromkeys((p["name"] for p in json.loads(made.data)["product_list"]), b"\xff\xd8" + bytes(5000))
    said = daemon.ask(lambda db: nightreport.answer(db, daemon.setting.rules, (), NIGHT, LATER))
    page = nightsheet.page(said, big)
    assert 100_000 < len(page.encode()) <= 300_000
    assert 5 < page.count("data:image/jpeg;base64,") < 80
    worst = '"' * 1000
    rows = [{**row, "program": worst, "object": worst, "left_out": [worst]} for row in said["sequences"]]
    out = [{"name": worst, "state": "excluded", "reason": worst}] * 500
    page = nightsheet.page({**said, "sequences": rows, "rejected": out}, big)
    assert 50_000 < len(page.encode()) <= 300_000
    assert re.search(r"and 4[4-9]\d more", page)


@pytest.mark.parametrize("field", ["object", "program_id", "filter_name"])
def test_a_hostile_header_is_text(daemons, field):
    records = [replace(r, descriptors=replace(r.descriptors, **{field: HOSTILE})) for r in example1()]
    page = built(landed(daemons, records=records)).page
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert not [a for _, a in parsed(page).tags if any(k.startswith("on") for k in a)]


def test_it_stands_alone_and_does_nothing(night):
    """No script, no attribute of style, no address: what it shows is in it, by its own policy, too."""
    page = built(night).page
    seen = parsed(page)
    assert not [a for n, a in seen.tags if n in ("script", "link", "a") or "style" in a or "href" in a]
    assert all(a["src"].startswith("data:image/jpeg;base64,") for n, a in seen.tags if n == "img")
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", page, re.I)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [a["content"] for n, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "'unsafe" not in policy


def test_the_web_gives_it_with_a_policy_of_its_own(night):
    web = page_of(night)
    answer = ask(web.app, f"/night/{NIGHT}/print")
    assert answer.status == 200
    assert answer.headers["content-security-policy"] == f"{nightsheet.POLICY}; frame-ancestors 'none'"
    assert "script-src 'self'" in ask(web.app, f"/night/{NIGHT}").headers["content-security-policy"]
    assert f"/night/{NIGHT}/print" in ask(web.app, f"/night/{NIGHT}").text
    assert ask(web.app, "/night/20161399/print").status == 404
    assert ask(web.app, "/night/../print").status == 404


def test_the_command_writes_both_files_and_nothing_of_a_person(night, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def nirid_report(*words):
        return CliRunner().invoke(command.report, [NIGHT, *words], obj=Settings(night.folder))

    done = nirid_report("--html")
    assert done.exit_code == 0, done.output
    page = (tmp_path / f"nirid-{NIGHT}.html").read_text()
    assert "N20160102S0271_image" in parsed(page).data
    assert json.loads((tmp_path / f"nirid-{NIGHT}.json").read_text())["frames"] == 45
    assert nirid_report("--html").exit_code == 0  # ours is replaced
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    refused = nirid_report("--html", "mine.html")
    assert "mine.json is there already" in str(refused.exception)
    assert (mine.read_text(), (tmp_path / "mine.html").exists()) == ("{}", False)
    assert nirid_report("--html", "mine.html", "--overwrite").exit_code == 0
    assert nirid_report("--html", "mine.json").exit_code == 2
    gone = nirid_report("--html", "no/such/folder.html")
    assert str(gone.exception) == f"{tmp_path}/no/such: no such folder"


def test_what_was_missing_is_told_with_when_it_came(night):
    def tell(at, night_, what, state):
        def write(tx):
            tx.now = at
            fields = {"night": night_, "what": what, "frames": 9, "programs": [], "have": "", "how": ""}
            tx.event("calibration_need", key=what, state=state, warnings=[], before="", **fields)

        night.ledger.write(write)

    tell(1451710800.0, NIGHT, "10 darks 20 s", "wanted")
    tell(1451714400.0, NIGHT, "10 darks 20 s", "there")
    tell(1451718000.0, NIGHT, "flats J", "missing")
    tell(1451718000.0, "20160103", "flats K", "missing")
    said = json.loads(built(night).data)
    assert [(row["what"], row["state"], row["came"]) for row in said["told"]] == [
        ("10 darks 20 s", "there", "2016-01-02T06:00:00+00:00"),
        ("flats J", "missing", None),
    ]
    rows = {row[0]: row for row in tables(built(night).page)["Calibrations"]}
    assert rows["10 darks 20 s"][3:5] == ["2016-01-02 05:00", "2016-01-02 06:00"]
    assert rows["flats J"][3:5] == ["2016-01-02 07:00", ""]


def test_outages_and_latency_are_those_of_the_ledger(night):
    for at, note in ((1451700000.0, nightly.note_stop), (1451703600.0, nightly.note_start)):

        def write(tx, at=at, note=note):
            tx.now = at
            note(tx)

        night.ledger.write(write)
    said = json.loads(built(night).data)
    assert {
        "from": "2016-01-02T02:00:00+00:00",
        "until": "2016-01-02T03:00:00+00:00",
        "stopped": True,
    } in said["outages"]
    page = built(night).page
    assert "from 2016-01-02 02:00 until 2016-01-02 03:00 UT (stopped)" in page
    first = night.rows("""SELECT p.published - g.last_arrival AS s FROM product p JOIN frame_group g
        ON g.id = p.group_id WHERE p.current AND p.version = 1 AND p.night = ?""", NIGHT)  # fmt: skip
    times = sorted(row["s"] for row in first)
    assert said["latency"]["products"] == len(times)
    assert said["latency"]["longest"] == round(times[-1], 1)
    (row, *_) = tables(page)["Latency"]
    assert row[1:] == [str(len(times)), *(f"{said['latency'][n]:.1f}" for n in ("median", "p95", "longest"))]
