"""The doctor finds what is wrong, disturbs nothing, and says what would be chosen."""

import errno
import json
import os
import platform
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from watchdog.observers import Observer

from daemon import filesystems
from daemon.config import load
from daemon.engine import software
from daemon.ledger.store import Ledger
from daemon.upkeep import doctor, trial


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    monkeypatch.setattr("daemon.upkeep.trial.start_one", lambda config: ("ok", "one was started"))
    for name in ("drop", "products", "state"):
        (tmp_path / name).mkdir()
    Ledger(tmp_path / "state" / "nirid.db").close()
    (tmp_path / "drop" / "N20160102S0001.fits").write_bytes(b"raw")
    return tmp_path


def examine(place, **more):
    given = {
        "watch.folders": [str(place / "drop")],
        "products.folder": str(place / "products"),
        "state.folder": str(place / "state"),
        "disk.low_water_mb": 1,
        "disk.low_water_inodes": 0,
    }
    return doctor.examine(load.load(None, given | more))


def wrong(found):
    return {f.check.split(" /")[0]: f.text for f in found if f.level == "wrong"}


def test_a_good_place(place):
    before = {*place.rglob("*"), *(place / "state" / f"nirid.db-{side}" for side in ("wal", "shm"))}
    found = examine(place)
    assert wrong(found) == {}
    said = " ".join(f.text for f in found)
    assert "an event arrives" in said
    assert "events, chosen by itself" in said
    assert set(place.rglob("*")) <= before, "something was left behind"


def test_what_the_bits_depend_on_is_told(place):
    """For a product that comes out otherwise on another machine."""
    said = {f.check: f.text for f in examine(place)}
    assert f"numpy {np.__version__}" in said["software"]
    assert said["processor features"] == software.processor()
    assert platform.machine() in said["processor features"]


def test_where_no_events_are_to_be_had_it_would_poll(place, monkeypatch):
    def none(*args, **more):
        raise OSError(errno.ENOSPC, "inotify watch limit reached")

    monkeypatch.setattr(Observer, "schedule", none)
    found = examine(place)
    assert wrong(found) == {}
    assert any("polling, chosen by itself" in f.text for f in found)
    assert any("watch limit reached" in f.text for f in found)
    assert "no event arrives" in wrong(examine(place, **{"watch.observer": "native"}))["drop folder"]


def test_on_a_network_folder_an_event_of_our_own_proves_nothing(place, monkeypatch):
    drop = str(place / "drop")
    monkeypatch.setattr(filesystems, "filesystem_of", lambda path: "nfs4" if path == drop else "ext4")
    assert any("polling, chosen by itself" in f.text for f in examine(place))
    said = wrong(examine(place, **{"watch.observer": "native"}))["drop folder"]
    assert "nfs4 tells nothing of what other hosts write" in said


def test_a_read_only_drop_folder_is_not_written_to(place, monkeypatch):
    drop, access = place / "drop", os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (Path(path) == drop and mode == os.W_OK) and access(path, mode)
    )
    before = drop.stat().st_mtime_ns
    found = examine(place)
    assert wrong(found) == {}
    assert any("may not write there, as it should be" in f.text for f in found)
    assert drop.stat().st_mtime_ns == before


def test_a_drop_folder_that_is_not_there(place):
    assert "is missing" in wrong(examine(place, **{"watch.folders": [str(place / "nfs")]}))["drop folder"]


def test_products_that_cannot_be_written(place, monkeypatch):
    def full(source, target):
        raise OSError(errno.EROFS, "Read-only file system", source)

    monkeypatch.setattr(os, "link", full)
    found = wrong(examine(place))
    assert "Read-only file system" in found["products folder"]


def test_too_little_room(place):
    found = wrong(examine(place, **{"disk.low_water_mb": 10**12}))
    assert {"space for products", "space for state"} <= set(found)


def test_a_state_folder_on_the_network(place, monkeypatch):
    state = str(place / "state")
    monkeypatch.setattr(filesystems, "filesystem_of", lambda path: "nfs" if path == state else "ext4")
    assert "locks cannot be trusted" in wrong(examine(place))["state folder"]


@pytest.mark.parametrize("damage", ["torn", "no database"])
def test_a_damaged_database(place, damage):
    path = place / "state" / "nirid.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE filler (x)")
        db.executemany("INSERT INTO filler VALUES (?)", [("x" * 500,)] * 500)
    db.close()
    with path.open("r+b") as file:
        file.seek(0 if damage == "no database" else path.stat().st_size - 150_000)
        file.write(b"\x55" * 40_000)
    assert "database" in wrong(examine(place))


def test_clocks(place, monkeypatch):
    class Boot(doctor.datetime):
        @classmethod
        def now(cls, zone):
            return cls(1970, 1, 1, tzinfo=zone)

    monkeypatch.setattr(doctor, "datetime", Boot)
    monkeypatch.setattr(doctor, "_some_files", lambda config: iter(()))
    assert "1970-01-01 00:00:00 UTC cannot be" in wrong(examine(place))["clock"]


def test_a_probe_that_fails_is_a_finding(place, monkeypatch):
    def broken(path):
        raise RuntimeError("odd")

    monkeypatch.setattr(doctor.diskguard, "room", broken)
    assert "RuntimeError: odd" in " ".join(wrong(examine(place)).values())


def test_the_command_exits_with_1_when_something_is_wrong(place):
    def run(*words):
        command = [sys.executable, "-P", "-m", "daemon", "--state", str(place / "state"), "doctor", "--json"]
        folders = ["--products", str(place / "products"), *words]
        return subprocess.run([*command, *folders], capture_output=True, text=True, cwd=place)

    bad = run("--drop", str(place / "nothing"))
    assert bad.returncode == 1
    answer = json.loads(bad.stdout)
    assert not answer["ok"]
    assert next(c["check"] for c in answer["checks"] if c["level"] == "wrong").startswith("drop folder")


RUNNERS = {
    "well": "def run(job, should_stop): return {}",
    "fails": "def run(job, should_stop): raise ValueError('odd')",
    "dies": "import os\ndef run(job, should_stop): os.abort()",
    "mute": "import os\nos._exit(3)",
    "slow": "import time\ndef run(job, should_stop): time.sleep(60)",
    "damaged": "code = compile('def _load_data(): return {}[1]', '/x/numba/core/caching.py', 'exec')\n"
    "exec(code)\ndef run(job, should_stop): return _load_data()",
}


@pytest.mark.parametrize(
    ("runner", "level", "says"),
    [
        ("well", "ok", "did every recipe once"),
        ("fails", "wrong", "cannot do a job: ValueError: odd"),
        ("dies", "wrong", "cannot do a job: the worker died (SIGABRT)"),
        ("mute", "wrong", "no worker can start (1 tried; the last one: exit 3"),
        ("slow", "wrong", "was not done after"),
        ("damaged", "note", "thrown away"),
    ],
)
def test_a_worker_is_started_whatever_a_marker_says(tmp_path, monkeypatch, runner, level, says):
    (tmp_path / f"{runner}.py").write_text(RUNNERS[runner])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    settings = load.load(None, {"state.folder": str(tmp_path / "state")})
    patience = 3.0 if runner == "slow" else 30.0
    got = trial.start_one(settings, f"{runner}:run", patience)
    assert got[0] == level
    assert says in got[1]


def test_what_root_would_compile_for_another_is_not_compiled(tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 54321, 54321) if not os.geteuid() else pytest.skip("needs root")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    level, text = trial.start_one(load.load(None, {"state.folder": str(tmp_path / "state")}), "no:run")
    assert (level, "run this as uid 54321" in text) == ("note", True)


def test_a_state_folder_that_cannot_be_locked(place, monkeypatch):
    def none(fd, how):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", none)
    assert "cannot be locked" in wrong(examine(place))["state folder"]


def test_limits_that_are_too_low_are_noted(place, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda kind: (32, 32))
    said = [f.text for f in examine(place) if f.check == "limits"]
    assert any("only 32 files may be open" in text for text in said)
    assert any("a worker may have 0 MB (ulimit -d)" in text for text in said)


def test_folders_below_the_drop_folder_that_may_not_be_listed(place, monkeypatch):
    for name in ("lost+found", "private", "open"):
        (place / "drop" / name).mkdir()
    access = os.access
    shut = ("lost+found", "private")
    monkeypatch.setattr(os, "access", lambda p, mode: not str(p).endswith(shut) and access(p, mode))
    notes = [f.text for f in examine(place) if f.check.startswith("drop") and f.level == "note"]
    assert len(notes) == 1
    assert "may not list private: " in notes[0]


@pytest.mark.parametrize(
    ("call", "number", "says"),
    [
        ("link", errno.EPERM, "no hard links"),
        ("fsync", errno.EINVAL, "cannot flush the names"),
        ("fsync", errno.ENOSYS, "cannot flush the names"),
    ],
)
def test_what_a_file_system_lacks_and_we_can_do_without_is_a_note(place, monkeypatch, call, number, says):
    real = getattr(os, call)

    def lacks(what, *more):
        if call == "link" or os.path.isdir(f"/proc/self/fd/{what}"):
            raise OSError(number, os.strerror(number))
        return real(what, *more)

    monkeypatch.setattr(os, call, lacks)
    found = examine(place)
    assert wrong(found) == {}
    notes = [f.check.split()[0] for f in found if f.level == "note" and says in f.text]
    assert notes == ["products", "state"]
