"""Trouble of the machine: told, outlived, and blamed on nobody's data."""

import errno
import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from daemon import logs
from daemon.config import load
from daemon.engine import WorkersDoNotStart, compiled
from daemon.engine.local import LocalEngine
from daemon.model.publication import PublishPlan
from daemon.upkeep import schedule
from daemon.work import diskguard, moving
from daemon.work.diskguard import DiskGuard
from pipeline.errors import ConfigError
from pipeline.files import disk, places
from tests.night import FakeEngine, frame


@pytest.fixture(autouse=True)
def plain_logs(monkeypatch):
    monkeypatch.setattr("daemon.engine.local.RESTART_SECONDS", (0.05, 0.1))
    yield
    structlog.reset_defaults()


# -- workers -------------------------------------------------------------------------------------


def test_a_worker_that_cannot_start_is_told_with_its_last_words():
    told = []
    engine = LocalEngine(1, runner="no.such.module:run", on_change=told.append)
    engine.start()
    until = time.monotonic() + 20
    while not told and time.monotonic() < until:
        engine.poll()
        time.sleep(0.01)
    engine.stop()
    assert "no worker can start" in told[0]
    assert "ModuleNotFoundError" in told[0]


def poll_for_seconds(engine):
    for _ in range(2000):
        engine.poll()
        time.sleep(0.01)


def test_a_batch_does_not_wait_for_workers_that_do_not_come():
    engine = LocalEngine(1, runner="no.such.module:run", most_failed_starts=2)
    engine.start()
    try:
        with pytest.raises(WorkersDoNotStart, match="ModuleNotFoundError"):
            poll_for_seconds(engine)
    finally:
        engine.stop()


def test_what_a_worker_prints_is_one_object_a_line_of_the_log(capfd):
    logs.configure(format="json")
    from daemon.engine.words import Words

    into, out = os.pipe()
    words = Words(into)
    words.start(7)
    os.write(out, b'Fatal error\n\xff\xfe not text\n{"not": "ours"\n')
    os.write(
        out, b'{"time": "2016-01-02T00:00:00Z", "level": "error", "event": "job_odd", "job": 3}\n\nthe end'
    )
    os.close(out)
    assert words.last(5) == "the end"
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["worker_said"] * 3 + ["job_odd", "worker_said"]
    assert (lines[3]["time"], lines[3]["job"], lines[3]["level"]) == ("2016-01-02T00:00:00Z", 3, "error")
    assert "log_failed" not in str(lines)


# -- compiled loops ------------------------------------------------------------------------------


def raised(file, function, error):
    """An error raised in a function of this name in a file of this name."""
    scope = {"error": error}
    exec(compile(f"def {function}():\n    raise error\n", file, "exec"), scope)
    try:
        scope[function]()
    except Exception as caught:
        return caught


def test_an_error_in_reading_compiled_code_is_known_from_one_of_the_data():
    reader = os.path.join(sys.prefix, "numba", "core", "caching.py")
    cut = raised(reader, "_load_data", EOFError("Ran out of input"))
    assert compiled.is_damaged(cut)
    wrapped = ValueError("later")
    wrapped.__cause__ = cut
    assert compiled.is_damaged(wrapped)
    assert not compiled.is_damaged(raised("pipeline/files/read.py", "_load_data", EOFError()))
    assert not compiled.is_damaged(raised(reader, "_load_data", MemoryError()))
    assert not compiled.is_damaged(ValueError())


def test_a_cache_without_loops_is_none_whatever_a_marker_says(tmp_path):
    (tmp_path / "warm-0123").touch()
    assert not compiled.is_there(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.nbi").touch()
    (tmp_path / "deep" / "mine.txt").touch()
    assert compiled.is_there(tmp_path)
    compiled.empty(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "mine.txt"]


def test_a_job_that_met_damaged_code_is_tried_again_and_counts_for_nothing(apart):
    daemon = apart(engine=FakeEngine(endings={"N20160102S0001_dark": ["cache"] * 5}))
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3, 4, 5)))
    daemon.run(600)
    assert list(daemon.current()) == ["N20160102S0001_dark"]
    assert daemon.rows("SELECT deaths, interruptions FROM job") == [{"deaths": 0, "interruptions": 0}]


def test_after_a_worker_was_killed_jobs_run_one_at_a_time(apart):
    engine = FakeEngine(workers=3, endings={"N20160102S0001_dark": ["killed"]})
    daemon = apart(engine=engine)
    most = []
    run, engine.held = engine.submit, False
    engine.submit = lambda *job: (run(*job), most.append(len(engine.running)))
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.run(200)
    del most[:]
    for k in range(3):
        exposure = 30.0 + k
        daemon.land(
            *(
                frame("dark", n, 9000 + 30 * n, exposure_time=exposure)
                for n in range(10 * k + 11, 10 * k + 14)
            )
        )
    daemon.run(200)
    assert most
    assert max(most) == 1


# -- the log -------------------------------------------------------------------------------------


def test_a_log_that_nobody_reads_stops_nothing_and_its_losses_are_told(monkeypatch):
    monkeypatch.setattr(logs, "MOST_WAITING", 50)
    into, out = os.pipe()
    with open(out, "w") as stream:
        logs.configure(format="json", stream=stream, wait=False)
        before, began = logs.lost_lines, time.monotonic()
        for n in range(2000):
            logs.get().info("line", n=n, padding="x" * 200)
        assert time.monotonic() - began < 5
        assert logs.lost_lines > before
        heard = []
        reader = threading.Thread(target=lambda: heard.append(read_all(into)), daemon=True)
        reader.start()
        until = time.monotonic() + 5
        while time.monotonic() < until and b"log_lines_lost" not in b"".join(pieces):
            time.sleep(0.01)
        assert b"log_lines_lost" in b"".join(pieces)


pieces: list[bytes] = []


def read_all(fd):
    while chunk := os.read(fd, 65536):
        pieces.append(chunk)


# -- folders, disks, homes, clocks ------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["HST10", "Pacific/Nowhere", ":nonsense", ""])
def test_the_calendar_runs_whatever_the_time_zone(tmp_path, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    (tmp_path / "state").mkdir()
    settings = load.load(
        None, {"state.folder": str(tmp_path / "state"), "watch.folders": [str(tmp_path / "d")]}
    )
    scheduler = schedule.start(settings, None)
    assert all(job.next_run_time for job in scheduler.get_jobs())
    assert scheduler.get_jobs()
    scheduler.shutdown(wait=False)


def plan_of(tmp_path):
    staged, final = tmp_path / "staging" / "a.fits", tmp_path / "night" / "b.fits"
    staged.parent.mkdir()
    staged.write_bytes(b"new")
    staged.with_suffix(".png").write_bytes(b"picture")
    sha = disk.hash_of(staged)
    return PublishPlan(1, 1, "b", "night", str(staged), str(final), sha, 1, (), {}), final


def test_a_night_on_another_file_system_is_published_by_a_copy(tmp_path, monkeypatch):
    plan, final = plan_of(tmp_path)
    replace_ = os.replace

    def apart_(source, target):
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace_(source, target)

    monkeypatch.setattr(os, "replace", apart_)
    moving.move_files(plan)
    moving.move_files(plan)
    assert (final.read_bytes(), final.with_suffix(".png").read_bytes()) == (b"new", b"picture")
    assert not list((tmp_path / "staging").iterdir())
    assert sorted(p.name for p in final.parent.iterdir()) == ["b.fits", "b.png"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF])
def test_a_file_system_that_cannot_sync_folders_is_told_of_once(tmp_path, monkeypatch, number):
    plan, final = plan_of(tmp_path)
    fsync = os.fsync

    def odd(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", odd)
    monkeypatch.setattr(disk, "_unsynced", [])
    moving.move_files(plan)
    assert final.exists()
    assert len(disk._unsynced) == 1


def test_a_products_folder_that_may_not_be_written_is_a_pause_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    guard = DiskGuard({"products": tmp_path}, 0, 0, look=diskguard.room_to_write)
    assert "may not be written: Permission denied" in guard.check(0.0)
    monkeypatch.undo()
    assert guard.check(100.0) == ""


def test_a_file_system_that_tells_nothing_of_its_room_has_enough(monkeypatch, tmp_path):
    nothing = os.statvfs_result((4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: nothing)
    assert DiskGuard({"products": tmp_path}, 1e12, 1000).check(0.0) == ""


def test_what_the_system_kept_from_being_done_is_told_at_the_end(apart):
    daemon = apart(engine=FakeEngine(endings={"N20160102S0001_dark": ["io"] * 9}))
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.until_idle()
    assert daemon.dispatcher.left_undone() == ["job 1: io!"]


def test_a_job_that_was_planned_anew_is_nothing_left_undone(apart):
    """Its first version could not read a calibration that was damaged; the second has made the product."""
    daemon = apart(engine=FakeEngine(endings={"N20160102S0001_dark": ["io"]}))
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    while not daemon.dispatcher.left_undone():
        daemon.main_loop.tick(daemon.now)
        daemon.now += 1
    daemon.ledger.write(lambda tx: tx.run("UPDATE job SET state = 'dropped'"))
    assert daemon.dispatcher.left_undone() == []


def test_of_a_crash_its_name_is_told_and_not_the_list_that_follows():
    from daemon.engine.words import Words

    into, out = os.pipe()
    words = Words(into)
    words.start(7)
    os.write(
        out, b"Fatal Python error: Segmentation fault\n" + b"  File x\n" * 50 + b"Extension modules: a\n"
    )
    os.close(out)
    assert words.last(5) == "Fatal Python error: Segmentation fault"


def test_no_home_is_one_line_and_workers_get_one(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no such user"):
        places.expanded("~nobodysuch/x")
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    assert places.home() is None
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(ConfigError, match="set HOME"):
        places.expanded("~/x")
    engine = LocalEngine(1, shared={"cache": str(tmp_path / "cache")})
    assert Path(engine._homes()["HOME"]).is_dir()
    assert replace(engine, shared={})._homes() == {}


def test_a_home_that_is_closed_or_not_there_is_replaced_for_this_process(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    places.make_sure_of_a_home()
    assert os.environ["HOME"] == str(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    places.make_sure_of_a_home()
    assert os.environ["HOME"] != str(tmp_path / "none")
    assert os.listdir(os.environ["HOME"]) == []


def test_without_a_home_and_a_place_to_make_one_the_root_must_do(tmp_path, monkeypatch):
    def none(**how):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setenv("HOME", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.TemporaryDirectory", none)
    places.make_sure_of_a_home()
    assert os.environ["HOME"] == "/"


def test_compiled_code_goes_where_it_may_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    compiled.settle(tmp_path / "spare")
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "mine")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    compiled.settle(tmp_path / "spare")
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "spare" / "compiled")
