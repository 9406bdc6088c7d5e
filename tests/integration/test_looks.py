"""What there is to see before a sequence is complete, with an engine that makes no pixels."""

import errno
import json
import os
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from daemon.ledger import questions, targets
from daemon.ledger.store import LedgerBusy, on_paper
from daemon.ledger.targets import UnknownTarget
from daemon.people import explain
from tests.night import FINAL, FakeEngine, busy_night, example1, frame


@pytest.fixture
def daemons(apart):
    return partial(apart, looks=True)


def seen(daemon):
    """Names of what lies in the quicklook folders, each with its preview."""
    fits = {path.stem for path in daemon.products.glob("*/quicklook/*.fits")}
    assert fits == {path.stem for path in daemon.products.glob("*/quicklook/*.png")}
    return fits


def until_stacking(daemon):
    for _ in range(20):
        daemon.now += 0.5
        daemon.main_loop.tick(daemon.now)
        if any(spec.name.endswith("_image") for _, _, spec in daemon.engine.running):
            return
    pytest.fail("no running stack")


def adopt_a_stack(daemon):
    """The group turns quiet while its stack, with all frames and calibrations, is being made."""
    daemon.land(*example1()[15:])
    daemon.run(300)
    daemon.land(*example1()[:10])
    until_stacking(daemon)
    daemon.engine.held = True
    daemon.now += 300
    daemon.main_loop.tick(daemon.now)


def test_each_frame_has_its_look_and_the_stack_grows_until_the_product_is_there(daemons):
    daemon = daemons()
    daemon.land(*example1()[15:])
    daemon.run(300)
    for count, record in enumerate(example1()[:10], 1):
        daemon.land(record)
        daemon.run(10, step=1)
        looks = {name for name in seen(daemon) if name.endswith("firstlook")}
        assert looks == {f"N20160102S{270 + n:04d}_firstlook" for n in range(count)}
        stacks = seen(daemon) - looks
        # Three make a stack; of five the first is left out, and the name goes by the first one used.
        first = "N20160102S0271_running" if count >= 5 else "N20160102S0270_running"
        assert stacks == ({first} if count >= 3 else set())
    running = next(daemon.products.glob("20160102/quicklook/*_running.fits")).read_bytes()
    ran = len(daemon.engine.ran)
    daemon.run(300)
    product = daemon.products / "20160102" / "N20160102S0271_image.fits"
    assert product.read_bytes() == running
    assert len(daemon.engine.ran) == ran, "the product is the running stack of all frames"
    assert seen(daemon) == set()
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]
    assert not [path for path in (daemon.products / ".staging").iterdir() if ".look" in path.name]


def test_what_is_not_there_yet_is_done_without(daemons):
    daemon = daemons()
    daemon.land(*example1()[:4])
    daemon.run(10)
    stack = daemon.engine.ran[-1]
    assert stack.calibrations == ()
    assert stack.parameters["darkCorrect:do_cal"] == stack.parameters["flatCorrect:do_cal"] == "skip"
    assert any("processed_flat not applied" in note for note in stack.notes)
    daemon.run(300)
    assert daemon.current() == {}, "no product without a flat"
    assert "N20160102S0270_running" in seen(daemon)
    with on_paper(daemon.ledger.path) as tx:
        target = targets.find(tx.reader, "N20160102S0271.fits")
        (group,) = explain.explain(tx, target, daemon.setting, daemon.main_loop.overrides)["groups"]
    assert {Path(path).stem for path in group["looks"]} == seen(daemon)
    daemon.land(*example1()[15:])
    daemon.run(13 * 3600, step=600)
    assert "N20160102S0270_image" in daemon.current()
    assert seen(daemon) == set()


def test_a_stack_under_way_when_the_group_turns_quiet_is_the_job(daemons):
    daemon = daemons()
    adopt_a_stack(daemon)
    assert daemon.ask(questions.counts)["jobs"]["running"] == 1
    assert daemon.engine.busy() == 1
    daemon.engine.held = False
    daemon.run(0)
    assert "N20160102S0271_image" in daemon.current()
    assert [spec.name for spec in daemon.engine.ran].count("N20160102S0271_image") == 1
    assert seen(daemon) == set()


def test_the_end_of_an_adopted_stack_is_written_down_when_the_ledger_is_free_again(daemons, monkeypatch):
    daemon = daemons()
    adopt_a_stack(daemon)
    daemon.engine.held = False

    def busy(*args):
        raise LedgerBusy("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr("daemon.ledger.publications.intend", busy)
        for _ in range(3):
            daemon.main_loop.tick(daemon.now)
    assert daemon.current().keys().isdisjoint({"N20160102S0271_image"})
    daemon.run(0)
    assert "N20160102S0271_image" in daemon.current()
    assert [spec.name for spec in daemon.engine.ran].count("N20160102S0271_image") == 1
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]


def test_an_adopted_stack_that_is_stopped_with_the_daemon_counts_for_nothing(daemons):
    daemon = daemons()
    adopt_a_stack(daemon)
    assert daemon.ask(questions.counts)["jobs"]["running"] == 1
    daemon.dispatcher.stop(1.0)
    assert "running" not in daemon.ask(questions.counts)["jobs"]
    assert daemon.rows("SELECT SUM(interruptions + deaths) AS n FROM job") == [{"n": 0}]


def test_fresh_frames_are_looked_at_before_all_else(daemons):
    daemon = daemons(engine=FakeEngine(workers=1))
    daemon.land(*example1()[15:45])
    daemon.main_loop.tick(daemon.now)
    daemon.now += 300
    daemon.land(*example1()[:2])
    daemon.main_loop.tick(daemon.now)
    assert [spec.name for _, _, spec in daemon.engine.running] == ["N20160102S0271_firstlook"]


def test_many_fresh_frames_hold_up_no_job_for_ever(daemons):
    daemon = daemons(engine=FakeEngine(workers=1))
    groups = [
        [frame("dark", 10 * k + n, 30 * n, exposure_time=3.0 + k, coadds=1) for n in range(1, 4)]
        for k in range(8)
    ]
    daemon.land(*(record for group in groups for record in group))
    daemon.main_loop.tick(daemon.now)
    daemon.now += 200
    for n in range(1, 20):  # faster than they can be looked at
        daemon.land(*(frame("science", 100 + 2 * n + k, 900 + 10 * n + 5 * k) for k in range(2)))
        daemon.main_loop.tick(daemon.now)
        daemon.now += 0.1
    ran = [spec.recipe for spec in daemon.engine.ran]
    assert ran[:16] == ["firstLook", "makeProcessedDark"] * 8
    assert set(ran[16:]) == {"firstLook"}


def test_of_many_that_wait_the_newest_are_looked_at(daemons):
    daemon = daemons()
    daemon.land(*(frame("science", n, 30 * n) for n in range(1, 40)))
    daemon.run(10)
    looked = {spec.name for spec in daemon.engine.ran if spec.recipe == "firstLook"}
    assert looked == {f"N20160102S{n:04d}_firstlook" for n in range(32, 40)}


def test_a_running_stack_makes_room_for_a_fresh_frame(daemons):
    daemon = daemons(engine=FakeEngine(workers=1))
    daemon.land(*example1()[:4])
    until_stacking(daemon)
    daemon.engine.held = True
    stack = daemon.engine.running[0][0]
    daemon.land(example1()[4])
    daemon.main_loop.tick(daemon.now)
    assert set(daemon.engine.cancelled) == {stack}


def test_a_running_stack_makes_room_for_a_product(daemons):
    daemon = daemons(engine=FakeEngine(workers=1))
    daemon.land(*example1()[15:45])
    daemon.run(300)
    daemon.land(*(frame("standard", n, -300 + 10 * n, exposure_time=3.0, coadds=1) for n in range(1, 6)))
    daemon.engine.endings = {"N20160102S0002_image": ["failed"]}  # as a running stack: the job has to be run
    daemon.run(50)
    daemon.land(*example1()[:4])
    until_stacking(daemon)
    daemon.engine.held = True
    stack = daemon.engine.running[0][0]
    daemon.now += 5
    daemon.main_loop.tick(daemon.now)
    assert not daemon.engine.cancelled, "the standard's group is not quiet yet"
    daemon.now += 15
    daemon.main_loop.tick(daemon.now)
    assert set(daemon.engine.cancelled) == {stack}


def test_frames_that_land_together_make_one_stack(daemons):
    daemon = daemons()
    for record in example1()[:6]:
        daemon.land(record)
        daemon.run(0.2, step=0.05)
    daemon.run(5, step=0.1)
    stacks = [spec for spec in daemon.engine.ran if spec.recipe == "reduce"]
    assert [len(spec.inputs) for spec in stacks] == [6]


def test_each_look_is_an_event_of_the_ledger_with_its_worth_once_it_can_be_seen(daemons):
    daemon, there = daemons(), []
    log = daemon.log

    def at_once(event, **fields):
        if event == "look_made":
            there.append(Path(fields["product"]).exists())
        log(event, **fields)

    daemon.ledger._log = at_once
    daemon.land(*example1()[:4])
    daemon.run(2, step=0.1)
    rows = daemon.rows("SELECT job, fields FROM event WHERE event = 'look_made' ORDER BY id")
    told = [json.loads(row["fields"]) for row in rows]
    assert [each["kind"] for each in told].count("firstlook") == 4
    assert told[-1] | {"seconds": 0} == {
        "job": rows[-1]["job"],
        "kind": "running",
        "group": 1,
        "product": str(daemon.products / "20160102/quicklook/N20160102S0270_running.fits"),
        "frames": 4,
        "seconds": 0,
        "quality": {"MAGZPT": 26.3, "BPMLEV": 3},
    }
    assert all(there)
    assert len(there) == len(rows)


def test_a_look_that_fails_is_said_and_nothing_else_suffers(daemons):
    engine = FakeEngine(endings={"N20160102S0271_firstlook": ["died"], "N20160102S0270_image": ["failed"]})
    daemon = daemons(engine=engine)
    daemon.land(*example1()[15:])
    daemon.run(300)
    daemon.land(*example1()[:4])
    daemon.run(300)
    failed = [fields["name"] for event, fields in daemon.events if event == "look_failed"]
    assert sorted(failed) == ["N20160102S0270_running", "N20160102S0271_firstlook"]
    assert "N20160102S0270_image" in daemon.current()
    assert seen(daemon) == set()


def test_a_quicklook_folder_that_cannot_be_read_stops_nothing(daemons, monkeypatch):
    daemon, stat = daemons(), os.stat

    def stale(path, *arguments, **more):
        if "/quicklook" in str(path):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return stat(path, *arguments, **more)

    monkeypatch.setattr(os, "stat", stale)
    daemon.land(*example1())
    daemon.run(13 * 3600, step=600)
    assert set(daemon.current()) == FINAL
    assert "look_failed" in {event for event, _ in daemon.events}


def test_a_look_goes_with_the_product_though_its_frame_was_renamed(daemons):
    daemon = daemons()
    daemon.land(*example1()[15:])
    daemon.run(300)
    first = example1()[0]
    daemon.land(replace(first, path=first.path.replace("N20160102S0270", "was it")), *example1()[1:6])
    daemon.run(10)
    assert "was_it_firstlook" in seen(daemon)
    daemon.land(first)
    daemon.run(300)
    assert "N20160102S0271_image" in daemon.current()
    assert seen(daemon) == set()


def test_what_a_crash_leaves_goes_at_the_next_start(daemons):
    daemon = daemons()
    daemon.land(*example1())
    daemon.run(13 * 3600, step=600)
    folder = daemon.products / "20160102" / "quicklook"
    daemon.land(frame("science", 900, 9e5))  # no product yet
    left = ("N20160102S0271_running", "N20160102S0275_firstlook", "N20160102S0900_firstlook", "a_running")
    for name in left:
        (folder / f"{name}.fits").write_bytes(b"left")
        (folder / f"{name}.png").write_bytes(b"left")
    daemon.main_loop.looks.tidy(daemon.ledger)
    assert seen(daemon) == {"N20160102S0900_firstlook"}, "of a frame that is in no product"


@pytest.mark.parametrize(("night_of_frames", "seed"), [(example1, 0), (busy_night, 3), (busy_night, 107)])
def test_looks_change_nothing_in_what_is_made_in_the_end(daemons, night_of_frames, seed):
    chance = random.Random(seed)
    night = night_of_frames()
    at_once = daemons()
    at_once.land(*night)
    at_once.until_idle()
    assert not any(".look" in spec.staging for spec in at_once.engine.ran)
    chance.shuffle(night)
    daemon = daemons()
    for record in night:
        daemon.land(record)
        daemon.run(chance.choice([0, 0, 1, 30, 400, 5000]), step=60)
    daemon.run(13 * 3600, step=600)
    assert daemon.current() == at_once.current()
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting")[0]["n"] == 1
    assert daemon.ask(questions.counts)["jobs"].keys() <= {"done", "dropped"}
    assert seen(daemon) == set()
    if night_of_frames is example1:
        assert set(daemon.current()) == FINAL


def test_a_look_that_cannot_be_removed_is_tried_again(daemons, monkeypatch):
    daemon = daemons()
    daemon.land(*example1()[15:])
    daemon.run(300)
    daemon.land(*example1()[:4])
    daemon.run(20)
    assert seen(daemon)
    unlink = Path.unlink

    def fails(path, missing_ok=False):
        if "quicklook" in path.parts:
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fails)
        daemon.run(300)
        assert "N20160102S0270_image" in daemon.current()
        assert seen(daemon)
    daemon.run(0)
    assert seen(daemon) == set()


def told(daemon, said):
    with on_paper(daemon.folder / "nirid.db") as tx:
        found = targets.find(tx.reader, said, looks=True)
        return explain.explain(tx, found, daemon.setting, lambda recipe, facts: {})


def test_explain_knows_them_by_the_names_and_numbers_that_people_see(daemons):
    daemon = daemons()
    daemon.land(*example1()[15:])
    daemon.run(300)
    daemon.land(*example1()[:5])
    daemon.run(10, step=1)
    stack = told(daemon, "N20160102S0271_running")
    assert (stack["kind"], stack["state"], stack["name"]) == ("look", "there", "N20160102S0271_running")
    assert stack["frames"] == [f"N20160102S{n:04d}.fits" for n in range(270, 275)]
    assert stack["calibrations"]["processed_flat"] == "N20160102S0373_flat"
    assert stack["group"]["rule"] == "science"
    number = str(stack["number"])
    path = next(daemon.products.glob("*/quicklook/*_running.png"))
    for said in (number, f"job:{number}", "N20160102S0271_running.png", str(path), path.name):
        assert told(daemon, said)["number"] == stack["number"]
    first = told(daemon, "N20160102S0272_firstlook.fits")
    assert (first["kind_of_look"], first["frames"]) == ("firstlook", ["N20160102S0272.fits"])
    daemon.run(300)
    stack = told(daemon, number)
    assert (stack["state"], stack["there"]) == ("gone", False)
    assert stack["reason"].startswith("N20160102S0271_image, version 1, is there")
    assert stack["job"] == next(
        p["job"] for p in daemon.ask(questions.products) if p["group"] == stack["group"]["group"]
    )


def test_of_a_look_nothing_is_decided_and_numbers_go_on_after_a_restart(daemons, tmp_path):
    daemon = daemons()
    daemon.land(*example1()[:4])
    daemon.run(10)
    numbers = [row["id"] for row in daemon.rows("SELECT id FROM look")]
    assert len(numbers) == len(set(numbers)) >= 5
    with pytest.raises(UnknownTarget, match="nothing can be decided of a look"):
        daemon.ledger.write(lambda tx: targets.find(tx.reader, "N20160102S0270_running"))
    daemon.ledger.write(lambda tx: tx.run("UPDATE look SET state = 'running' WHERE id = ?", numbers[-1]))
    daemon.dispatcher.recover(daemon.products)  # as at a start
    assert daemon.rows("SELECT state, error FROM look WHERE id = ?", numbers[-1]) == [
        {"state": "stopped", "error": "the daemon ended"}
    ]
    daemon.land(example1()[4])
    daemon.run(10)
    assert min(row["id"] for row in daemon.rows("SELECT id FROM look")[len(numbers) :]) > max(numbers)
    assert told(daemon, "N20160102S0271_running")["state"] == "there"
