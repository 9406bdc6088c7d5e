"""Publishing: stopped at every point and taken up again, never torn, never doubled, never lost."""

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.ledger import files, publications, questions
from daemon.ledger.store import LedgerBusy
from daemon.model.jobs import Outcome
from daemon.model.names import STAGING, staging_path
from daemon.work import moving
from tests.night import FakeEngine, frame


class Killed(BaseException):
    """Stands for kill -9: nothing after it is done, and nobody catches it."""


def killer(point, nth=1):
    count = 0

    def at(here):
        nonlocal count
        count += here == point
        if here == point and count == nth:
            raise Killed(point)

    return at


def whole(daemon):
    """Every product on record is on disk with its hash, and nothing else is."""
    rows = daemon.ask(questions.products, current=False)
    assert rows
    for row in rows:
        assert hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest() == row["sha256"]
    on_disk = {str(p) for p in daemon.products.rglob("*.fits") if STAGING not in p.parts}
    assert on_disk == {row["path"] for row in rows}
    assert all(Path(path).with_suffix(".png").exists() for path in on_disk)
    assert not list((daemon.products / STAGING).iterdir())
    assert len({row["group"] for row in rows if row["current"]}) == len([r for r in rows if r["current"]])
    cals = daemon.rows("SELECT path FROM calibration WHERE removed IS NULL")
    assert {os.fsdecode(c["path"]) for c in cals} == {r["path"] for r in rows if r["current"]}
    assert daemon.rows("SELECT COUNT(*) AS n FROM intent") == [{"n": 0}]
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]


POINTS = ["intended", "kept", "preview", "renamed", "unlinked", "synced", "committed"]


@pytest.mark.parametrize(
    ("point", "renamed"),
    [(p, r) for p in POINTS for r in (False, True) if r or p != "unlinked"],  # the same name: no unlink
)
def test_a_kill_at_any_point_of_a_publication(daemons, point, renamed):
    daemon = daemons()
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0002_dark"}
    daemon.dispatcher.publisher.at = killer(point)
    daemon.land(frame("dark", 1 if renamed else 5, 1 if renamed else 5))
    with pytest.raises(Killed):
        daemon.run(300)
    name = "N20160102S0001_dark" if renamed else "N20160102S0002_dark"
    seen = list(daemon.products.glob("2016*/*.fits"))
    assert seen, "at no time is there no product"
    assert all(json.loads(path.read_text()) for path in seen)  # and none is torn
    daemon.ledger.close()
    again = daemons()
    again.main_loop.recover(again.products)
    again.run(300)
    assert set(again.current()) == {name}
    assert len(again.ask(questions.jobs, ["done"])) == 2
    assert [a["outcome"] for a in again.rows("SELECT outcome FROM attempt ORDER BY id")] == ["done", "done"]
    assert len(again.engine.ran) == 0  # the work itself was not lost
    whole(again)


def test_a_kill_while_a_job_runs_uses_one_attempt(daemons):
    daemon = daemons()
    daemon.engine.held = True
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    half = daemon.products / STAGING / "half.fits"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"torn")
    daemon.ledger.close()
    again = daemons()
    again.main_loop.recover(again.products)
    again.run(10)
    assert [a["outcome"] for a in again.rows("SELECT outcome FROM attempt ORDER BY id")] == [
        "interrupted",
        "done",
    ]
    whole(again)


def test_a_staged_file_that_is_lost_is_made_again(daemons):
    daemon = daemons()
    daemon.dispatcher.publisher.at = killer("intended")
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    with pytest.raises(Killed):
        daemon.run(300)
    for staged in (daemon.products / STAGING).iterdir():
        staged.unlink()
    daemon.ledger.close()
    again = daemons()
    again.main_loop.recover(again.products)
    again.run(300, step=1)
    assert len(again.engine.ran) == 1
    whole(again)


def test_a_full_disk_delays_a_publication_and_loses_nothing(daemons, monkeypatch):
    daemon = daemons()
    full = True
    rename = os.replace

    def replace(source, target):
        if full and str(target).endswith(".fits"):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(publications.os, "replace", replace)
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(600, step=1)
    assert daemon.current() == {}
    assert [e for e, _ in daemon.events].count("publish_delayed") == 1
    full = False
    daemon.run(600, step=1)
    assert set(daemon.current()) == {"N20160102S0002_dark"}
    assert len(daemon.engine.ran) == 1
    whole(daemon)


def test_an_attempt_that_lost_its_job_publishes_nothing(daemons):
    daemon = daemons()
    daemon.engine.held = True
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    job, attempt, spec = daemon.engine.running[0]
    result = FakeEngine().stage(spec)
    late = Outcome(job, attempt - 1, "done", 1.0, result=result)
    daemon.dispatcher.finish(late)
    assert daemon.current() == {}
    daemon.dispatcher.finish(Outcome(job, attempt, "done", 1.0, result=result))
    daemon.dispatcher.finish(Outcome(job, attempt, "failed", 1.0, error="too late"))
    assert set(daemon.current()) == {"N20160102S0002_dark"}
    assert daemon.ask(questions.counts)["jobs"] == {"done": 1}


@pytest.mark.parametrize("name", ["../../evil", ".hidden", "a/b", "x" * 65, "a\nb"])
def test_a_name_that_leads_elsewhere_fails_the_job(daemons, name):
    daemon = daemons()
    daemon.engine.held = True
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    job, attempt, spec = daemon.engine.running[0]
    daemon.dispatcher.finish(
        Outcome(job, attempt, "done", 1.0, result={**FakeEngine().stage(spec), "name": name})
    )
    assert daemon.ask(questions.counts)["jobs"] == {"failed": 1}
    assert "cannot be called" in daemon.ask(questions.jobs)[0]["reason"]


def test_a_file_that_nobody_knows_is_kept_not_overwritten(daemons):
    daemon = daemons()
    stranger = daemon.products / "20160102" / "N20160102S0002_dark.fits"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"somebody's")
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    assert (stranger.parent / "superseded" / "N20160102S0002_dark.v0001.fits").read_bytes() == b"somebody's"
    assert stranger.read_bytes() != b"somebody's"


def test_two_groups_with_one_name_get_two(daemons):
    daemon = daemons()
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    twins = [frame("dark", n, n, folder="/drop/b", coadds=1, exposure_time=9.0) for n in (2, 3, 4)]
    twins = [
        t.__class__(**{**{f: getattr(t, f) for f in t.__slots__}, "data_sha": t.file_sha}) for t in twins
    ]
    daemon.land(*twins)
    daemon.run(300)
    names = sorted(daemon.current())
    group = daemon.engine.ran[1].group
    assert names == [f"N20160102S0002-{group[:8]}_dark", "N20160102S0002_dark"]


def test_a_calibration_replaced_while_a_job_reads_it_is_not_trusted(daemons):
    daemon = daemons()
    lamps = {"exposure_time": 42.0, "coadds": 1}
    daemon.land(*(frame("lampoff", n, 20_000 + n, **lamps) for n in range(11, 14)))
    daemon.land(*(frame("lampon", n, 20_100 + n, **lamps) for n in range(21, 24)))
    daemon.run(300)
    daemon.land(*(frame("standard", n, n) for n in range(31, 36)))
    daemon.engine.held = True
    daemon.run(300)
    reading = list(daemon.engine.running)
    assert [spec.name for _, _, spec in reading] == ["N20160102S0032_image"]
    daemon.engine.running.clear()
    daemon.engine.held = False
    daemon.land(frame("lampon", 24, 20_150, **lamps))  # the flat is made again meanwhile
    daemon.run(300)
    job, attempt, spec = reading[0]
    daemon.dispatcher.finish(Outcome(job, attempt, "done", 1.0, result=FakeEngine().stage(spec)))
    daemon.run(300)
    outcomes = [a["outcome"] for a in daemon.rows("SELECT outcome FROM attempt ORDER BY id")]
    assert outcomes.count("stopped") == 1
    flat = next(p for p in daemon.ask(questions.products) if p["name"].endswith("_flat"))
    assert flat["sha256"] in daemon.current()["N20160102S0032_image"]


def test_links_that_are_refused_become_copies(daemons, monkeypatch):
    def refuse(*args, **more):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(publications.os, "link", refuse)
    daemon = daemons()
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    daemon.land(frame("dark", 5, 5))
    daemon.run(300)
    whole(daemon)
    assert len(daemon.ask(questions.products, current=False)) == 2


def test_stopping_returns_running_jobs_uncounted(daemons):
    daemon = daemons()
    daemon.engine.held = True
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    daemon.dispatcher.stop(1.0)
    state = daemon.rows("SELECT state, deaths, interruptions FROM job")
    assert state == [{"state": "planned", "deaths": 0, "interruptions": 0}]


def test_an_ending_that_cannot_be_written_down_now_is_not_forgotten(daemons, monkeypatch):
    daemon = daemons()
    daemon.engine.held = True
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    write, refusals = daemon.ledger.write, iter(range(5))

    def busy(fn):
        if next(refusals, None) is not None:
            raise LedgerBusy("database: locked")
        return write(fn)

    monkeypatch.setattr(daemon.ledger, "write", busy)
    daemon.engine.held = False
    daemon.run(30, step=1)
    assert len(daemon.engine.ran) == 1
    whole(daemon)


def test_a_staged_file_that_goes_when_the_database_is_busy_is_made_again(daemons, monkeypatch):
    daemon = daemons()
    write = daemon.ledger.write
    lost = []

    def gone(plan, at):
        if not lost:
            lost.append(plan)
            for staged in (daemon.products / STAGING).iterdir():
                staged.unlink()
            refusals = iter(range(3))
            monkeypatch.setattr(daemon.ledger, "write", lambda fn: busy(refusals, fn))
        return moving.move_files(plan, at)

    def busy(refusals, fn):
        if next(refusals, None) is not None:
            raise LedgerBusy("database: locked")
        return write(fn)

    monkeypatch.setattr("daemon.work.publishing.move_files", gone)
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300, step=1)
    assert len(lost) == 1
    assert len(daemon.engine.ran) == 2
    whole(daemon)


def test_a_start_is_not_kept_from_work_by_what_cannot_be_tidied(daemons):
    daemon = daemons()
    (daemon.products / STAGING / "a folder").mkdir(parents=True)
    daemon.main_loop.recover(daemon.products)
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0002_dark"}


def flats(lamp, numbers, start):
    return [frame(lamp, n, start + n, exposure_time=42.0, coadds=1) for n in numbers]


def excluded(record):
    values = {name: getattr(record, name) for name in record.__slots__}
    failed = {"state": "excluded", "reason": "the QA state in the header is Fail", "file_sha": "f" * 64}
    return record.__class__(**{**values, **failed})


@pytest.mark.parametrize("point", ["nothing", "withdrawn"])
def test_a_product_that_holds_a_frame_which_is_out_and_cannot_be_made_without_it_is_withdrawn(daemons, point):
    daemon = daemons()
    off, on = flats("lampoff", (11, 12, 13), 20_000), flats("lampon", (21, 22, 23), 20_100)
    short = [frame("dark", n, 30_000 + n, exposure_time=1.0, coadds=1) for n in (41, 42, 43)]
    daemon.land(*off, *on, *short)
    daemon.run(600)
    assert set(daemon.current()) == {"N20160102S0021_flat", "N20160102S0021_bpm"}
    daemon.dispatcher.publisher.at = killer(point)
    daemon.land(excluded(short[1]))
    try:
        daemon.run(13 * 3600, step=600)
    except Killed:
        daemon.ledger.close()
        daemon = daemons()
        daemon.main_loop.recover(daemon.products)
        daemon.run(13 * 3600, step=600)
    assert set(daemon.current()) == {"N20160102S0021_flat"}
    assert "N20160102S0021_bpm" not in daemon.current()["N20160102S0021_flat"]
    whole(daemon)
    daemon.land(short[1])  # its QA state is edited back
    daemon.run(13 * 3600, step=600)
    assert set(daemon.current()) == {"N20160102S0021_flat", "N20160102S0021_bpm"}
    whole(daemon)


def all_out(daemon, darks):
    daemon.land(*map(excluded_as, darks))


def one_out_and_one_gone(daemon, darks):
    daemon.ledger.write(lambda tx: files.gone(tx, darks[0].path, daemon.setting))
    daemon.land(excluded(darks[1]))


def one_out_and_the_rest_cannot_be_reduced(daemon, darks):
    daemon.engine.endings["N20160102S0002_dark"] = ["failed"]
    daemon.land(excluded(darks[1]))


def excluded_as(record):
    return replace(excluded(record), file_sha=hashlib.sha256(record.path.encode()).hexdigest())


@pytest.mark.parametrize("why", [all_out, one_out_and_one_gone, one_out_and_the_rest_cannot_be_reduced])
def test_no_product_keeps_a_frame_that_is_out_whatever_keeps_a_new_one_from_being_made(daemons, why):
    daemon = daemons()
    darks = [frame("dark", n, n) for n in (2, 3, 4)]
    daemon.land(*darks)
    daemon.run(300)
    assert set(daemon.current()) == {"N20160102S0002_dark"}
    why(daemon, darks)
    daemon.run(300)
    assert daemon.current() == {}
    whole(daemon)


def test_the_product_of_a_group_without_frames_is_withdrawn(daemons):
    daemon = daemons()
    darks = [frame("dark", n, n) for n in (2, 3, 4)]
    daemon.land(*darks)
    daemon.run(300)
    for n, dark in zip((2, 3, 4), darks, strict=True):
        edited = frame("dark", n, n, exposure_time=50.0)
        daemon.land(
            edited.__class__(
                **{f: getattr(edited, f) for f in edited.__slots__ if f != "path"}, path=dark.path
            )
        )
    daemon.run(600)
    rows = daemon.ask(questions.products, current=False)
    assert [(row["name"], row["current"]) for row in rows if row["current"]] == [
        ("N20160102S0002_dark", True)
    ]
    assert len(rows) == 2
    whole(daemon)


def test_a_mask_waits_for_a_dark_that_is_gone_and_is_made_when_it_is_back(daemons):
    daemon = daemons()
    short = [frame("dark", n, 30_000 + n, exposure_time=1.0, coadds=1) for n in (41, 42, 43)]
    daemon.land(*short)
    daemon.ledger.write(lambda tx: files.gone(tx, short[1].path, daemon.setting))
    daemon.land(*flats("lampoff", (11, 12, 13), 20_000), *flats("lampon", (21, 22, 23), 20_100))
    daemon.run(600)
    assert set(daemon.current()) == {"N20160102S0021_flat"}
    reason = daemon.ask(questions.jobs, ["waiting"])[0]["reason"]
    assert reason.startswith("N20160102S0042.fits is no longer on disk: goes on without 15 min after ")
    daemon.land(short[1])
    daemon.run(600)
    assert set(daemon.current()) == {"N20160102S0021_flat", "N20160102S0021_bpm"}


def test_what_was_staged_for_nothing_goes(daemons):
    daemon = daemons()
    daemon.engine.held = True
    daemon.land(*(frame("dark", n, n) for n in (2, 3, 4)))
    daemon.run(300)
    job, attempt, spec = daemon.engine.running[0]
    stem = staging_path(spec, attempt - 1)
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".fits", ".png"):
        Path(f"{stem}{suffix}").touch()
    daemon.dispatcher.finish(Outcome(job, attempt - 1, "done", 1.0, result={"sha256": "0"}))
    assert list(Path(stem).parent.iterdir()) == []
