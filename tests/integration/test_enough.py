"""Enough yet, from the ledger: of running stack and product, against a goal, in commands."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from daemon.cli import enough as commands
from daemon.cli import explain, status
from daemon.config.options import DepthGoal
from daemon.people import enough
from tests.beside import Settings
from tests.night import NIGHT, FakeEngine, example1, frame, static_bpm

FIRST = "N20160102S0270.fits"
STACKS = ("_image", "_running")
NOW = NIGHT.timestamp() + 600.0  # while the science is taken; dawn is eleven hours away
AFTER = datetime(2016, 3, 1, tzinfo=UTC).timestamp()


class Engine(FakeEngine):
    """Stacks whose noise falls with the number of frames, frames of 0.5 arcsec under 30,000 e- of sky."""

    without = ()

    def stage(self, spec):
        result = super().stage(spec)
        if spec.name.endswith("_firstlook"):
            result["quality"] = {"MEANFWHM": 0.5, "MFWHMERR": 0.01, "BGRATE": 1500.0}
        elif spec.name.endswith(STACKS):
            n = max(len(spec.inputs) - 1, 1)
            pixel = 200.0 / n**0.5
            measures = {
                "frame_noise": (200.0, None, "electron"), "sky_noise": (70.0, None, "electron"),
                "stack_noise": (pixel, None, "electron"), "skies": (max(n - 1.0, 1.0), None, ""),
                "light": (1.0, None, ""), "circle_noise": (5.5 * pixel, 3.0, "electron"),
                "circle_light": (0.6, 0.01, ""), "zero_here": (26.4, 0.03, "mag"),
                "target_light": (60000.0, 300.0, "electron"), "depth": (21.0, 0.05, "mag"),
            }  # fmt: skip
            measures = {name: value for name, value in measures.items() if name not in self.without}
            result["quality"] = {
                "NCOMBINE": n, "MEANFWHM": 0.5, "MFWHMERR": 0.01, "NSTARS": 12, "MAGZPT": 26.4,
                "MAGZERR": 0.03, "measures": measures,
            }  # fmt: skip
        return result


@pytest.fixture
def daemon(daemons):
    return daemons(engine=Engine(), looks=True)


def of_science(daemon, *goals, now=NOW, magnitude=None):
    rows = daemon.ask(enough.answer, "20160102", goals, now, magnitude)["sequences"]
    return next(row for row in rows if row["first"] == FIRST)


def goal(deeper, daemon, **more):
    return DepthGoal("GN-2015B-*", depth=of_science(daemon)["depth"]["value"] + deeper, **more)


def test_it_grows_with_each_running_stack_and_ends_with_the_product(daemon):
    assert daemon.ask(enough.answer, None, (), NOW) == {"night": "", "sequences": []}
    daemon.land(*example1()[:1])
    daemon.run(5, step=1)
    assert of_science(daemon)["words"] == "not measured: nothing is stacked yet"
    depths = []
    for record in example1()[1:10]:
        daemon.land(record)
        daemon.run(5, step=1)
        row = of_science(daemon)
        if row["depth"]:
            assert row["stack"]["of"] == "look"
            depths.append((row["stack"]["frames"], row["depth"]["value"]))
    assert [n for n, _ in depths] == sorted({n for n, _ in depths})
    assert [deep for _, deep in depths] == sorted(deep for _, deep in depths)
    assert len(depths) >= 4
    daemon.land(*example1()[10:], static_bpm())
    daemon.run(3600)
    row = of_science(daemon)
    assert (row["stack"]["of"], row["stack"]["frames"]) == ("product", 9)
    assert row["depth"]["value"] >= depths[-1][1]


@pytest.fixture
def reduced(daemon):
    daemon.land(*example1(), static_bpm())
    daemon.run(3600)
    return daemon


def test_a_goal_is_told_in_frames_and_minutes_by_the_pace_of_the_sequence(reduced):
    assert of_science(reduced)["state"] == "no goal"
    row = of_science(reduced, goal(0.15, reduced))
    assert row["state"] == "more"
    assert row["pace"]["seen"]
    assert row["pace"]["seconds"] == pytest.approx(30.0)  # as the night of the tests is taken
    assert row["minutes"] == pytest.approx(0.5 * row["more"])
    assert row["words"] == f"{row['more']} more frames ({-(-row['more'] // 2)} min)"
    assert of_science(reduced, goal(-0.2, reduced))["words"] == "enough"
    assert of_science(reduced, goal(9.0, reduced))["state"] == "not reachable"
    assert of_science(reduced, goal(0.15, reduced), now=AFTER)["state"] == "not reached"


def test_the_last_goal_that_fits_counts(reduced):
    deep = goal(0.5, reduced)
    for other in ({"program": "GN-1999A-Q-1"}, {"filter": "J"}, {"target": "M 82"}):
        fields = {"program": "GN-*", "depth": 1.0, **other}
        assert of_science(reduced, deep, DepthGoal(**fields))["state"] == "more"
    found = of_science(reduced, deep, DepthGoal("*", target="sn 2014j", filter="K(prime)", depth=1.0))
    assert found["state"] == "enough"
    assert found["goal"]["depth"] == 1.0


def test_signal_to_noise_is_of_the_target_or_at_a_magnitude(reduced):
    row = of_science(reduced, magnitude=21.0)
    target = row["target"]
    assert target["snr"] == pytest.approx(60000.0 / (5.5**2 * 200.0**2 / 9 + 60000.0 / 9) ** 0.5, rel=1e-3)
    assert row["at"]["snr"] < target["snr"]
    twice = of_science(reduced, DepthGoal("*", snr=2 * target["snr"]))
    assert 22 <= twice["more"] <= 27
    same = of_science(reduced, DepthGoal("*", snr=2 * target["snr"], magnitude=target["magnitude"]))
    assert same["more"] == twice["more"]


def test_frames_that_came_and_are_not_in_the_stack_count(reduced):
    wanted = goal(0.15, reduced)
    most = of_science(reduced, wanted)["more"]
    reduced.engine.held = True
    reduced.land(*(frame("science", n, 30 * (n - 270)) for n in range(280, 282)))
    reduced.run(5, step=1)
    row = of_science(reduced, wanted)
    assert row["stack"]["not_stacked"] == 2
    assert row["words"].startswith(f"{most - 2} more frame")
    assert row["words"].endswith("with 2 frames that wait to be stacked")


def test_a_running_stack_with_more_frames_than_the_product_counts(reduced):
    reduced.land(*(frame("science", n, 30 * (n - 270)) for n in range(280, 282)))
    reduced.run(0.6, step=0.2)
    assert of_science(reduced)["stack"] == {"of": "look", "frames": 11, "not_stacked": 0}


@pytest.mark.parametrize(
    ("without", "why"),
    [
        (("zero_here",), "no zero point is known in this filter and camera"),
        (("circle_noise", "circle_light", "zero_here"), "which kept no figures of it"),
    ],
)
def test_what_is_not_known_is_said(daemons, without, why):
    engine = Engine()
    engine.without = without
    made = daemons(engine=engine)
    made.land(*example1(), static_bpm())
    made.run(3600)
    row = of_science(made, DepthGoal("*", depth=20.0))
    assert row["state"] == "not measured"
    assert why in row["words"]


def test_a_goal_of_a_target_that_is_not_seen_asks_for_a_magnitude(daemons):
    engine = Engine()
    engine.without = ("target_light",)
    made = daemons(engine=engine)
    made.land(*example1(), static_bpm())
    made.run(3600)
    assert "give the goal a magnitude" in of_science(made, DepthGoal("*", snr=20.0))["words"]


def test_each_question_goes_by_index(reduced):
    sql = "SELECT id, frames FROM look WHERE group_id = 1 AND kind = 'running' AND state = 'done' ORDER BY id"
    plan = reduced.ask(lambda db: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")])
    assert "USING INDEX" in plan[0]


def test_the_commands_say_it(reduced, tmp_path):
    wanted = goal(0.15, reduced)
    settings = Settings(tmp_path)
    settings.config = replace(settings.config, goal=(wanted,))

    def said(command, *words):
        done = CliRunner().invoke(command, words, obj=settings, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    text = said(commands.enough, "--night", "20160102", "--magnitude", "19.5")
    assert f"mag, goal {round(wanted.depth, 2):g}\n" in text
    assert "2 more frames (1 min):" in text
    assert "S/N" in text
    assert "by a standard" in text
    one = json.loads(said(commands.enough, FIRST, "--json"))
    assert one["state"] == "not reached"  # that night is over
    assert one["words"] in said(status.status, "--night", "20160102")
    assert one["words"] in " ".join(said(explain.explain, FIRST).split())
    assert json.loads(said(explain.explain, f"group:{one['group']}", "--json"))["enough"]
    assert "measures" not in said(explain.explain, "N20160102S0271_image")
