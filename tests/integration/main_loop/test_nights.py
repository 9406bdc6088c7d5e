"""Nights through the main loop: each product once, in any order of arrival."""

import json
import random
from functools import partial

import pytest

from daemon.ledger import questions
from daemon.plan import planner
from daemon.plan.planner import plan
from daemon.work import rounds
from tests.night import FINAL, FakeEngine, busy_night, example1, frame, many_nights, static_bpm


def test_a_night_at_once_makes_each_product_once(daemons):
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    assert set(daemon.current()) == FINAL
    assert sorted(spec.name for spec in daemon.engine.ran) == sorted(FINAL)  # nothing is made twice
    jobs = daemon.ask(questions.counts)["jobs"]
    assert jobs == {"done": 5}
    science = json.loads(daemon.current()["N20160102S0271_image"])
    roles = {role: name for role, _, name in science["cals"]}
    assert roles == {
        "processed_bpm": "N20160102S0373_bpm",
        "processed_dark": "N20160102S0423_dark",
        "processed_flat": "N20160102S0373_flat",
        "static_bpm": "bpm_20010317_niri_niri_11_full_1amp",
        "zero_point": "N20160102S0296_image",
    }
    standard = json.loads(daemon.current()["N20160102S0296_image"])
    assert "processed_dark" not in {role for role, _, _ in standard["cals"]}
    assert ["darkCorrect:do_cal", "skip"] in standard["parameters"]
    assert any("processed_dark not applied" in note for note in standard["notes"])


def test_jobs_are_handed_out_while_thousands_of_groups_are_planned(daemons, monkeypatch):
    """A tick ends, so that the health check sees progress, a stop is heard and workers are not idle."""
    daemon = daemons()
    daemon.land(*example1())
    main_loop = daemon.main_loop
    main_loop.tick(daemon.now)  # all is noticed
    daemon.now += 7200
    now = daemon.now
    monkeypatch.setattr(rounds, "AT_ONCE", 1)
    monkeypatch.setattr(main_loop, "clock", lambda: now + 3600)  # each round takes an hour
    assert main_loop.tick(now) == 0.0
    with daemon.ledger.read() as db:
        left = db.execute("SELECT COUNT(*) FROM frame_group WHERE touched > 0 AND NOT closed").fetchone()[0]
        jobs = db.execute("SELECT COUNT(*) FROM job").fetchone()[0]
    assert left > 1
    assert jobs == len(daemon.engine.running) + len(daemon.engine.ran) == 1
    monkeypatch.undo()
    daemon.run(3600)
    assert set(daemon.current()) == FINAL


def test_a_night_in_its_order_waits_says_so_and_heals(daemons):
    daemon = daemons()
    night = example1()
    for record in night[:15]:
        daemon.land(record)
        daemon.run(5)
    daemon.run(300)
    waiting = daemon.ask(questions.jobs, ["waiting"])
    assert {w["rule"] for w in waiting} == {"science", "standard"}
    assert all("no processed_flat for" in w["reason"] for w in waiting)
    for record in night[15:45]:
        daemon.land(record)
        daemon.run(5)
    daemon.run(600)
    assert set(daemon.current()) == FINAL - {"N20160102S0373_bpm"}
    before = daemon.current()
    for record in night[45:]:
        daemon.land(record)
        daemon.run(5)
    daemon.run(600)
    after = daemon.current()
    assert set(after) == FINAL
    changed = {name for name in before if before[name] != after[name]}
    assert changed == FINAL - {"N20160102S0373_bpm", "N20160102S0423_dark"}
    kept = {p.name for p in (daemon.products / "20160102" / "superseded").glob("*.fits")}
    assert kept == {f"{name}.v0001.fits" for name in changed}
    made = [spec.name for spec in daemon.engine.ran]
    assert max(made.count(name) for name in FINAL) == 2  # each heals once
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]


@pytest.mark.parametrize(
    ("night_of", "seed"),
    [
        (example1, 0),
        (example1, 1),
        (example1, 2),
        (busy_night, 3),
        (busy_night, 107),  # needs a restoration
        (many_nights, 4),
        (many_nights, 5),
        (partial(many_nights, 4, days=5), 6),  # what is missing comes from other nights, of level 1
    ],
)
def test_final_products_do_not_depend_on_the_order_of_arrival(daemons, night_of, seed):
    chance = random.Random(seed)
    night = night_of()
    chance.shuffle(night)
    at_once = daemons()
    at_once.land(*night)
    at_once.until_idle()
    assert len(at_once.engine.ran) == len(at_once.current())  # nothing is made twice
    daemon = daemons()
    chance.shuffle(night)
    for record in night:
        daemon.land(record)
        if chance.random() < 0.3:
            daemon.land(record)
        daemon.run(chance.choice([0, 0, 1, 30, 400, 5000]), step=60)
    daemon.run(13 * 3600, step=600)
    assert daemon.current() == at_once.current()
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting")[0]["n"] == 1
    assert daemon.ask(questions.counts)["jobs"].keys() <= {"done", "dropped"}
    if seed == 107:  # its darks are cut one way, another way, and the first way again
        assert "product_restored" in {event for event, _ in daemon.events}


def test_a_calibration_costs_no_more_where_many_nights_wait_for_theirs(daemons, monkeypatch):
    """What has chosen a nearer one is not decided on again; most others are too far for that here."""
    looked_at = []
    monkeypatch.setattr(
        planner, "plan", lambda groups, *more: looked_at.append(len(groups)) or plan(groups, *more)
    )
    a_job = []
    for count in (5, 20):
        daemon = daemons()
        daemon.land(*many_nights(count, days=3))
        looked_at.clear()
        daemon.until_idle()
        a_job.append(len(looked_at) / len(daemon.engine.ran))
    assert a_job[1] < 1.3 * a_job[0]
    assert a_job[1] < 8


def test_a_frame_that_comes_late_remakes_its_group_under_its_new_name(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 7)]
    daemon.land(*darks[1:])
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0002_dark"}
    daemon.land(darks[0])
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0001_dark"}
    night = daemon.products / "20160102"
    assert {p.name for p in night.glob("*.fits")} == {"N20160102S0001_dark.fits"}
    assert {p.name for p in night.glob("*.png")} == {"N20160102S0001_dark.png"}
    assert {p.name for p in (night / "superseded").glob("*.fits")} == {"N20160102S0002_dark.v0001.fits"}
    assert daemon.rows("SELECT COUNT(*) AS n FROM calibration WHERE removed IS NULL") == [{"n": 1}]


def test_a_frame_that_bridges_two_groups_merges_their_products(daemons):
    daemon = daemons()
    early = [frame("dark", n, 30 * n) for n in range(1, 4)]
    late = [frame("dark", n, 5000 + 30 * n) for n in range(11, 14)]
    daemon.land(*late, *early)
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0001_dark", "N20160102S0011_dark"}
    daemon.land(frame("dark", 5, 2500))
    daemon.run(20_000, step=200)  # the gaps are long, and so is the quiet time
    assert set(daemon.current()) == {"N20160102S0001_dark"}
    assert len(json.loads(daemon.current()["N20160102S0001_dark"])["inputs"]) == 7
    kept = {p.name for p in (daemon.products / "20160102" / "superseded").glob("*.fits")}
    assert kept == {"N20160102S0001_dark.v0001.fits", "N20160102S0011_dark.v0001.fits"}
    assert daemon.rows("SELECT COUNT(*) AS n FROM calibration WHERE removed IS NULL") == [{"n": 1}]


def test_what_is_short_waits_for_its_hours_and_is_then_made_with_a_warning(daemons):
    daemon = daemons()
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2)))
    daemon.run(11 * 3600, step=600)
    assert daemon.current() == {}
    assert [g["reason"] for g in daemon.ask(questions.groups)] == ["incomplete: 2 of 3"]
    daemon.run(1.5 * 3600, step=600)
    assert "fewer frames than wanted: 2 of 3" in daemon.current()["N20160102S0001_dark"]


def test_science_without_a_dark_waits_for_its_hours_and_takes_what_comes_then(daemons):
    daemon = daemons()
    night = example1()
    science, flats = night[:10], night[15:35]
    daemon.land(*science, *flats)
    daemon.run(11 * 3600, step=600)
    assert set(daemon.current()) == {"N20160102S0373_flat"}
    daemon.run(2 * 3600, step=600)
    assert ["darkCorrect:do_cal", "skip"] in json.loads(daemon.current()["N20160102S0271_image"])[
        "parameters"
    ]
    far = [frame("dark", n, 100 * 86400 + 30 * n, day="20160411") for n in range(1, 5)]
    daemon.land(*far)
    daemon.run(600)
    assert "N20160411S0001_dark" in daemon.current()["N20160102S0271_image"]  # a risk, and better than none


def test_a_programme_that_has_moved_on_ends_the_wait(daemons):
    daemon = daemons()
    daemon.land(*(frame("science", n, 30 * n, exposure_time=300.0) for n in range(1, 5)))
    daemon.run(60)
    assert [g["state"] for g in daemon.ask(questions.groups)] == ["open"]
    daemon.land(frame("science", 9, 1000, filter_name="J_G0202"))
    daemon.run(1)
    group = next(g for g in daemon.ask(questions.groups) if g["frames"] == 4)
    assert (group["state"], group["settled"]) == ("waiting", True)


def test_endings_are_handled_by_their_class(daemons):
    endings = {
        "N20160102S0001_dark": ["io"] * 6,
        "N20160102S0011_dark": ["died", "timeout", "memory", "killed", "timeout", "died", "died"],
        "N20160102S0021_dark": ["failed"],
        "N20160102S0031_dark": ["died", "died"],
    }
    daemon = daemons(engine=FakeEngine(endings=endings))
    for start in (1, 11, 21, 31):
        daemon.land(
            *(frame("dark", n, 30 * n, exposure_time=float(start + 10)) for n in range(start, start + 3))
        )
    daemon.run(600, step=1)
    assert set(daemon.current()) == {"N20160102S0001_dark", "N20160102S0031_dark"}
    failed = {j["name"]: j for j in daemon.ask(questions.jobs, ["failed"])}
    assert set(failed) == {"N20160102S0011_dark", "N20160102S0021_dark"}
    assert failed["N20160102S0011_dark"]["reason"] == "died! (3 times)"
    tries = [spec.name for spec in daemon.engine.ran]
    assert [tries.count(name) for name in endings] == [7, 7, 1, 3]
    daemon.land(frame("dark", 24, 720, exposure_time=31.0))  # the group is another one: a new key
    daemon.run(200)
    assert "N20160102S0021_dark" in daemon.current()


def test_batch_ends_with_jobs_that_wait_and_files_that_cannot_be_read(daemons):
    daemon = daemons(engine=FakeEngine(endings={"N20160102S0423_dark": ["io"] * 9}))
    night = example1()
    daemon.land(*night[:10], *night[35:45])  # no flats
    daemon.until_idle()
    assert daemon.current() == {}
    jobs = {j["rule"]: j for j in daemon.ask(questions.jobs)}
    assert "no processed_flat" in jobs["science"]["reason"]
    assert jobs["makeProcessedDark"]["state"] == "planned"
