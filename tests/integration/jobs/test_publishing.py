"""A publication under kills, full disks, lost files and foreign names."""

import errno
import json
import os

import pytest

from daemon.ledger import publications, questions
from daemon.ledger.store import LedgerBusy
from daemon.model.jobs import Outcome
from daemon.model.names import STAGING
from daemon.work import moving
from tests.integration.jobs.helpers import Killed, killer, whole
from tests.night import FakeEngine, frame

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
