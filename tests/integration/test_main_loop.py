"""From registered frames to published products, with an engine that makes no pixels."""

import json
import random
from dataclasses import replace

import pytest

from daemon.ledger import contents, files, questions
from daemon.model.rules import Policy
from daemon.model.states import FileState
from daemon.plan import planner
from daemon.plan.planner import plan
from daemon.work import rounds
from pipeline.association import CalKind
from tests.night import FINAL, FakeEngine, busy_night, example1, frame, many_nights, sha, static_bpm


@pytest.fixture
def daemons(apart):
    return apart


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


def test_science_without_a_dark_waits_for_its_hours_and_heals_within_days_only(daemons):
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
    far = [frame("dark", n, 5 * 86400 + 30 * n, day="20160107") for n in range(1, 5)]
    daemon.land(*far)
    daemon.run(600)
    assert "processed_dark" not in str(json.loads(daemon.current()["N20160102S0271_image"])["cals"])
    group = next(g for g in daemon.ask(questions.groups) if g["rule"] == "science")
    assert group["better"] == "processed_dark N20160107S0001_dark"
    near = [frame("dark", n, 86400 + 30 * n, day="20160103") for n in range(1, 5)]
    daemon.land(*near)
    daemon.run(600)
    assert "N20160103S0001_dark" in daemon.current()["N20160102S0271_image"]


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


def test_short_darks_make_a_master_only_if_somebody_needs_it(daemons):
    daemon = daemons()
    short = {"exposure_time": 1.0, "coadds": 1}
    daemon.land(*(frame("dark", n, 30 * n, **short) for n in range(1, 5)))
    daemon.run(300)
    assert daemon.current() == {}
    daemon.land(*(frame("science", n, 30 * n, **short) for n in range(11, 15)))
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0001_dark"}


def test_a_qa_state_of_fail_takes_the_frame_out_and_remakes_what_used_it(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 6)]
    daemon.land(*darks)
    daemon.run(300)
    edited = darks[2].__class__(
        **{
            **{f: getattr(darks[2], f) for f in darks[2].__slots__},
            "state": "excluded",
            "reason": "the QA state in the header is Fail",
            "file_sha": "f" * 64,
        }
    )
    daemon.land(edited)
    daemon.run(300)
    assert "N20160102S0003.fits" not in json.loads(daemon.current()["N20160102S0001_dark"])["inputs"]
    states = {row["sha256"][:4]: row["state"] for row in daemon.ask(lambda db: list(contents.everything(db)))}
    assert states["ffff"] == "excluded"
    assert states[darks[2].file_sha[:4]] == "superseded"


def test_the_same_bytes_under_another_name_change_nothing(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 5)]
    daemon.land(*darks)
    daemon.run(300)
    daemon.land(
        *(
            d.__class__(**{**{f: getattr(d, f) for f in d.__slots__}, "path": f"/drop/b{i}.fits"})
            for i, d in enumerate(darks)
        )
    )
    daemon.run(300)
    assert len(daemon.engine.ran) == 1
    assert len(list(daemon.ask(lambda db: list(contents.everything(db))))) == 4


def test_an_idle_main_loop_writes_nothing_and_old_groups_cost_nothing(daemons):
    daemon = daemons()
    daemon.land(*example1())
    daemon.run(3600, step=60)
    wrote = daemon.ledger.wrote_at
    for _ in range(20):
        daemon.main_loop.tick(daemon.now)
    assert daemon.ledger.wrote_at == wrote


def test_sky_that_comes_later_is_borrowed_and_remakes(daemons):
    daemon = daemons()
    night = example1()
    daemon.land(*night[15:35], *night[35:45])
    daemon.land(*(frame("science", n, 30 * n, ra=148.0) for n in range(1, 7)))
    daemon.run(600)
    assert "separateSky:ref_sky" not in daemon.current()["N20160102S0002_image"]
    sky = {"ra": 148.0, "dec": 10.05, "observation_id": "GN-2015B-Q-1-sky"}
    daemon.land(frame("science", 11, 330, **sky))
    daemon.run(600)
    made = dict(json.loads(daemon.current()["N20160102S0002_image"])["parameters"])
    assert made["separateSky:ref_sky"] == "N20160102S0011.fits"


def test_sky_is_borrowed_from_as_far_as_the_policy_says_whichever_comes_first(daemons):
    """It once was 900 s for sky that came later, whatever the policy said."""
    night = example1()
    science = [frame("science", n, 30 * n, ra=148.0) for n in range(1, 7)]
    sky = frame("science", 200, 6000, ra=148.0, dec=10.05, observation_id="GN-2015B-Q-1-sky")
    made = []
    for landing in ([sky], science), (science, [sky]):
        daemon = daemons(policy=Policy(borrow_sky_seconds=7200.0))
        daemon.land(*night[15:45])
        for frames in landing:
            daemon.land(*frames)
            daemon.run(600)
        product = json.loads(daemon.current()["N20160102S0002_image"])
        made.append(dict(product["parameters"]).get("separateSky:ref_sky"))
    assert made == ["N20160102S0200.fits"] * 2


def test_a_producer_that_fails_lets_its_waiters_go_on(daemons):
    daemon = daemons(engine=FakeEngine(endings={"N20160102S0373_bpm": ["failed"]}))
    daemon.land(*example1())
    daemon.until_idle()
    assert set(daemon.current()) == FINAL - {"N20160102S0373_bpm"}


class SlowScience(FakeEngine):
    """Science takes as long as `slow` is set."""

    slow = True

    def poll(self):
        done = [job for job in self.running if not (self.slow and job[2].name == "N20160102S0271_image")]
        self.running = [job for job in self.running if job not in done]
        return [self.run(*job) for job in done]


def test_a_job_whose_calibration_is_replaced_while_it_runs_gives_way_to_its_successor(daemons):
    """Mask and new flat are made while the science runs with the old flat: it is made again, no more."""
    daemon = daemons(engine=SlowScience())
    daemon.land(*example1()[:45])
    daemon.run(600)
    assert [spec.name for _, _, spec in daemon.engine.running] == ["N20160102S0271_image"]
    daemon.land(*example1()[45:])
    daemon.run(600)
    assert "N20160102S0373_bpm" in daemon.current()
    daemon.engine.slow = False
    daemon.run(3600)
    assert daemon.ask(questions.counts)["jobs"].keys() <= {"done", "dropped"}
    at_once = daemons()
    at_once.land(*example1())
    at_once.until_idle()
    assert daemon.current() == at_once.current()


def test_what_was_right_before_is_brought_back_not_made_again(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 6)]
    daemon.land(*darks)
    daemon.run(300)
    first = daemon.current()
    for state, reason in (("EXCLUDED", "rejected"), ("READY", "accepted"), ("EXCLUDED", "rejected")):
        daemon.ledger.write(
            lambda tx, s=state, r=reason: files.set_state(tx, 5, FileState[s], r, daemon.setting)
        )
        daemon.run(300)
        assert (daemon.current() == first) == (state == "READY")
    assert len(daemon.engine.ran) == 2
    on_disk = {p.name for p in daemon.products.rglob("N*.fits")}
    assert on_disk == {"N20160102S0001_dark.fits", "N20160102S0001_dark.v0001.fits"}
    assert len(list(daemon.products.rglob("N*.png"))) == 2
    kept = next(daemon.products.rglob("*.v0001.fits"))
    kept.unlink()  # as retention does
    daemon.ledger.write(lambda tx: files.set_state(tx, 5, FileState.READY, "accepted", daemon.setting))
    daemon.run(300)
    assert len(daemon.engine.ran) == 3
    assert daemon.engine.ran[2].key != daemon.engine.ran[0].key
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]


def zero_point_of(daemon, name="N20160102S0271_image"):
    roles = {role: key for role, _, key in json.loads(daemon.current()[name])["cals"]}
    return roles.get("zero_point")


def test_science_takes_the_zero_point_of_the_nearest_standard_whenever_that_comes(daemons):
    night = example1()
    near, science = night[10:15], night[:10] + night[15:]
    far = [frame("standard", n, 5000 + 10 * (n - 305), exposure_time=3.0, coadds=1) for n in range(305, 310)]
    daemon = daemons()
    for records, expected in ((science, None), (far, "N20160102S0306_image"), (near, "N20160102S0296_image")):
        daemon.land(*records)
        daemon.run(600)
        assert zero_point_of(daemon) == expected
    assert [s.name for s in daemon.engine.ran].count("N20160102S0271_image") == 3
    assert zero_point_of(daemon, "N20160102S0296_image") is None
    at_once = daemons()
    at_once.land(*far, *night)
    at_once.until_idle()
    assert at_once.current() == daemon.current()
    assert len(at_once.engine.ran) == len(at_once.current())


def test_one_set_of_lamp_off_frames_serves_two_lamps_whatever_comes_first(daemons):
    def flats(kind, first, lamp):
        return [frame(kind, n, 20 * n, gcal_lamp_raw=lamp) for n in range(first, first + 4)]

    quartz, off, grey = flats("lampon", 1, "QH"), flats("lampoff", 5, "IRhigh"), flats("lampon", 9, "IRhigh")
    made = []
    for order in ((quartz, off, grey), (off, grey, quartz), (grey, quartz, off)):
        daemon = daemons()
        for records in order:
            daemon.land(*records)
            daemon.run(600)
        made.append(daemon.current())
        assert set(made[0]) == {"N20160102S0001_flat", "N20160102S0009_flat"}
        assert made[-1] == made[0]
    used = {name: json.loads(text)["inputs"] for name, text in made[0].items()}
    assert [int(name[10:14]) for name in used["N20160102S0001_flat"]] == list(range(1, 9))
    assert [int(name[10:14]) for name in used["N20160102S0009_flat"]] == list(range(5, 13))


def test_a_standard_that_gives_no_zero_point_after_all_takes_back_what_it_gave(daemons):
    night = example1()
    late = frame("standard", 300, 960, exposure_time=3.0, coadds=1)
    first, last = daemons(), daemons()
    first.land(*night)
    first.until_idle()
    assert zero_point_of(first) == "N20160102S0296_image"
    for daemon in (first, last):
        daemon.engine.cloudy = ("N20160102S0296_image",)
    first.land(late)
    first.until_idle()
    last.land(late, *night)
    last.until_idle()
    assert zero_point_of(first) is None
    assert first.current() == last.current()
    assert len(last.engine.ran) == len(last.current())
    # Rejected by a person, it takes it back too.
    other = daemons()
    other.land(*night)
    other.until_idle()
    other.decide("reject", "N20160102S0296_image", reason="a satellite crossed it", user="ada", said="")
    other.until_idle()
    assert zero_point_of(other) is None


@pytest.mark.parametrize("turned", [False, True])
def test_copies_of_calibrations_from_outside_serve_alike_in_any_order(daemons, turned):
    """Two copies of one mask, and a dark from elsewhere of the same time as our own."""
    copies = [
        replace(static_bpm(), path=f"/drop/{name}", file_sha=sha(name)) for name in ("a.fits", "b.fits.gz")
    ]
    ours = next(r for r in example1() if r.path.endswith("S0423.fits"))
    foreign = replace(
        static_bpm(), path="/drop/other_dark.fits", file_sha=sha("other"), data_sha=sha("other data"),
        facts=sha("other facts"), descriptors=ours.descriptors, kind=CalKind.DARK.value,
        tags=frozenset({"DARK", "CAL", "PROCESSED", "NIRI"}), reason="a processed dark from outside",
    )  # fmt: skip
    daemon = daemons()
    outside = [*copies, foreign]
    first, last = (outside[::-1], []) if turned else ([], outside)
    daemon.land(*first, *example1())
    daemon.until_idle()
    daemon.land(*last)
    daemon.until_idle()
    science = json.loads(daemon.current()["N20160102S0271_image"])
    names = {role: name for role, _, name in science["cals"]}
    assert names["processed_dark"] == "N20160102S0423_dark", "our own comes before a copy of the same time"
    assert names["static_bpm"] == "a"
