"""From a real folder into the ledger, with a reader that knows what each file is."""

import errno
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.arrivals.intake import Landing
from daemon.arrivals.read import ingest
from daemon.arrivals.settle import Tracker
from daemon.arrivals.watcher import Watcher
from daemon.ledger import questions
from daemon.ledger.store import Ledger, LedgerBusy
from daemon.model.files import FileRecord, signature_of
from pipeline.simulate import simulate_night
from tests.night import Daemon, frame, setting, sha


class Reader:
    """Stands for ingest. `errors`: file name -> what to raise, in turn."""

    def __init__(self):
        self.errors, self.calls = {}, []

    def __call__(self, path, *, patience):
        name = os.path.basename(path)
        self.calls.append((name, patience))
        if self.errors.get(name):
            raise self.errors[name].pop(0)
        signature, content = signature_of(os.lstat(path)), Path(path).read_bytes()
        if content == b"half":
            return FileRecord(path, "incomplete", "half of it is there", signature)
        number = int(name[10:14])
        record = frame("dark", number, 30 * number)
        return replace(record, path=path, signature=signature, file_sha=sha(content), data_sha=sha(content))


@pytest.fixture
def landing(tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    ledger = Ledger(tmp_path / "nirid.db")
    made = Landing(
        ledger,
        Watcher([str(drop)], observer="polling"),
        Tracker(settle=0.0, fast=0.0),
        setting(),
        read=Reader(),
    )
    made.drop = drop
    yield made
    made.stop()
    ledger.close()


def states(landing):
    with landing.ledger.read() as db:
        return {os.path.basename(r["path"]): r["state"] for r in questions.files_on_record(db)}


def drop(landing, number, content=None):
    (landing.drop / f"N20160102S{number:04d}.fits").write_bytes(content or f"frame {number}".encode())


def until(landing, wanted, *, seconds=10.0):
    """Step, on a clock that runs ahead of the real one, until the states are so."""
    pause = threading.Event()
    now = 0.0
    while states(landing) != wanted and now < 1000 * seconds:
        landing.step(now)
        now += 10.0
        pause.wait(0.01)
    assert states(landing) == wanted


def test_batch_takes_what_is_there_once(landing):
    for n in (1, 2, 3):
        drop(landing, n)
    drop(landing, 4, b"half")
    landing.start()
    assert landing.take_all() == 4
    assert landing.take_all() == 0
    names = [f"N20160102S000{n}.fits" for n in (1, 2, 3, 4)]
    assert states(landing) == dict(zip(names, ["ready", "ready", "ready", "incomplete"], strict=True))
    assert sorted(landing.read.calls) == [(name, "batch") for name in names]
    drop(landing, 4)
    assert landing.take_all() == 1
    assert states(landing)[names[3]] == "ready"


def test_batch_tries_again_and_goes_on(landing):
    drop(landing, 1)
    drop(landing, 2)
    drop(landing, 3)
    landing.read.errors["N20160102S0001.fits"] = [OSError("busy"), OSError("busy")]
    landing.read.errors["N20160102S0002.fits"] = [OSError("gone bad")] * 9
    landing.read.errors["N20160102S0003.fits"] = [ZeroDivisionError("a bug")]
    landing.start()
    landing.take_all()
    assert states(landing) == {
        "N20160102S0001.fits": "ready",
        "N20160102S0002.fits": "seen",
        "N20160102S0003.fits": "quarantined",
    }
    with landing.ledger.read() as db:
        reasons = {os.path.basename(r["path"]): r["reason"] for r in questions.files_on_record(db)}
    assert reasons["N20160102S0002.fits"] == "cannot be read now: gone bad"
    assert reasons["N20160102S0003.fits"] == "could not be read: ZeroDivisionError: a bug"


def test_live_files_are_seen_read_and_settled(landing):
    landing.start()
    drop(landing, 1)
    until(landing, {"N20160102S0001.fits": "ready"})
    drop(landing, 2, b"half")
    until(landing, {"N20160102S0001.fits": "ready", "N20160102S0002.fits": "incomplete"})
    drop(landing, 2)
    until(landing, {"N20160102S0001.fits": "ready", "N20160102S0002.fits": "ready"})
    assert [name for name, _ in landing.read.calls].count("N20160102S0001.fits") == 1


def test_what_is_settled_is_not_read_again_after_a_restart(landing):
    drop(landing, 1)
    landing.start()
    landing.take_all()
    landing.stop()
    again = Landing(landing.ledger, Watcher([str(landing.drop)]), Tracker(), setting(), read=Reader())
    again.start()
    assert again.take_all() == 0
    again.stop()
    assert again.read.calls == []


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_leaves_no_trace(landing, make):
    landing.start()
    path = landing.drop / "N20160102S0009.fits"
    make(path)
    landing.watcher.hint(str(path))  # as the event of its creation does
    drop(landing, 1)
    until(landing, {"N20160102S0001.fits": "ready"})
    assert path.name not in states(landing)


def test_what_went_unread_while_the_daemon_was_down_has_vanished(landing):
    landing.start()
    drop(landing, 1, b"half")
    until(landing, {"N20160102S0001.fits": "incomplete"})
    landing.stop()
    (landing.drop / "N20160102S0001.fits").unlink()
    again = Landing(landing.ledger, Watcher([str(landing.drop)]), Tracker(), setting(), read=Reader())
    again.start()
    again.take_all()
    again.stop()
    assert states(landing) == {"N20160102S0001.fits": "vanished"}


def test_what_was_read_and_went_while_the_daemon_was_down_is_not_there_any_more(landing):
    drop(landing, 1)
    drop(landing, 2)
    landing.start()
    landing.take_all()
    landing.stop()
    (landing.drop / "N20160102S0001.fits").unlink()
    again = Landing(landing.ledger, Watcher([str(landing.drop)]), Tracker(), setting(), read=Reader())
    again.start()
    again.take_all()
    again.stop()
    with landing.ledger.read() as db:
        there = {os.path.basename(r["path"]): r["present"] for r in questions.files_on_record(db)}
    assert there == {"N20160102S0001.fits": False, "N20160102S0002.fits": True}


def test_a_busy_ledger_loses_nothing(landing, monkeypatch):
    landing.start()
    drop(landing, 1)
    write, refusals = landing.ledger.write, iter(range(5))

    def busy(fn):
        if next(refusals, None) is not None:
            raise LedgerBusy("database: locked")
        return write(fn)

    monkeypatch.setattr(landing.ledger, "write", busy)
    until(landing, {"N20160102S0001.fits": "ready"})
    assert len(landing.read.calls) == 1


def test_batch_and_live_agree_on_a_sequence_whose_first_frame_is_cut_short(tmp_path):
    """What is short is incomplete in a batch, quarantined in the end live: the second is never the first."""
    simulate_night(tmp_path / "night", "tiny")
    night = sorted((tmp_path / "night").glob("N20160102S0[23]*.fits"))
    drop = tmp_path / "drop"
    drop.mkdir()
    for path in night:
        shutil.copy(path, drop)
    first = drop / night[0].name
    first.write_bytes(night[0].read_bytes()[:-2880])
    made = {}
    for patience in ("overdue", "batch"):
        (tmp_path / patience).mkdir()
        daemon = Daemon(tmp_path / patience)
        daemon.land(*(ingest(str(path), patience=patience) for path in sorted(drop.iterdir())))
        daemon.until_idle()
        made[patience] = daemon.current()
        if patience == "batch":
            shutil.copy(night[0], first)
            daemon.land(ingest(str(first)))
            daemon.until_idle()
            healed = daemon.current()
        daemon.close()
    image = next(name for name in healed if name.endswith("_image"))
    assert made["batch"] == made["overdue"]
    assert '"removeFirstFrame:remove_first", false' in made["batch"][image]
    assert '"removeFirstFrame:remove_first", true' in healed[image]


def test_folders_that_cannot_be_listed_are_told_and_lost_and_found_is_not(landing, monkeypatch):
    scandir = os.scandir

    def some(path):
        if os.path.basename(path) in ("lost+found", "private", "secret"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", some)
    (landing.drop / "lost+found").mkdir()
    landing.start()
    assert landing.closed() == ""
    for name in ("private", "secret"):
        (landing.drop / name).mkdir()
    landing._sweep(0.0)
    assert landing.closed() == f"{landing.drop}/private cannot be listed: Permission denied (and 1 more)"
