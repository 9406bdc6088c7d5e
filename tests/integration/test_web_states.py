"""The page in every state of its daemon and database: the right words and status, and back by itself."""

import contextlib
import os
import shutil
import sqlite3
import time
from dataclasses import dataclass

import pytest

from daemon import instance
from daemon.config.options import Config, Products, State, Watch
from daemon.web import app
from daemon.web.source import RETRY
from pipeline.errors import NiridError
from tests.asgi import ask
from tests.integration.test_web import Engine
from tests.night import Daemon, example1, static_bpm
from tests.schemas import wrong


@pytest.fixture(scope="module")
def reduced(tmp_path_factory):
    """The database of a night that was reduced, alone in a folder."""
    folder = tmp_path_factory.mktemp("reduced")
    daemon = Daemon(folder, engine=Engine(), looks=True)
    daemon.land(*example1(), static_bpm())
    daemon.run(600)
    kept = folder / "kept.db"
    with contextlib.closing(sqlite3.connect(kept)) as copy, daemon.ledger.read() as db:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode = wal")
    daemon.close()
    return kept


@dataclass
class Place:
    """A state folder, its page, and the time by the clock of the page."""

    config: Config
    page: app.Page
    now: float

    def ask(self, path, seconds=10.0):
        """Some time later."""
        self.now += seconds
        return ask(self.page.app, path)

    @property
    def database(self):
        return self.config.database


@pytest.fixture
def place(reduced, tmp_path):
    """The night's database in a folder whose daemon runs."""
    for name in ("state", "drop", "products"):
        (tmp_path / name).mkdir()
    shutil.copy(reduced, tmp_path / "state" / "nirid.db")
    config = Config(
        state=State(str(tmp_path / "state")),
        products=Products(str(tmp_path / "products")),
        watch=Watch(folders=(str(tmp_path / "drop"),)),
        base=str(tmp_path),
    )
    with instance.only_one(config):
        instance.tell(config, ready=True)
        made = Place(config, app.build(config), time.time())
        made.page.source.clock = lambda: made.now
        beat(made)
        yield made


def beat(place):
    """The daemon's heart beats, and goes on to."""
    later = place.now + 3600
    os.utime(place.config.state_folder / instance.NOTE, (later, later))


# -- what goes wrong, until the end of the block ---------------------------------------------------


@contextlib.contextmanager
def nothing(place):
    yield


@contextlib.contextmanager
def other_bytes(place, at, length):
    kept = place.database.read_bytes()
    broken = bytearray(kept)
    broken[at : at + length] = os.urandom(length)
    place.database.write_bytes(broken)
    yield
    place.database.write_bytes(kept)


def damaged_head(place):
    return other_bytes(place, 0, 100)


def damaged_middle(place):
    size = place.database.stat().st_size
    return other_bytes(place, 4096, size - 2 * 4096)


@contextlib.contextmanager
def locked(place):
    """By a writer that lets nobody read meanwhile."""
    with contextlib.closing(sqlite3.connect(place.database, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = exclusive")
        other.execute("CREATE TABLE other (n)")
        yield
        other.execute("DROP TABLE other")


@contextlib.contextmanager
def absent(place):
    kept = place.database.rename(place.database.with_name("elsewhere"))
    yield
    kept.rename(place.database)


@contextlib.contextmanager
def newer(place):
    def set_version(version):
        with contextlib.closing(sqlite3.connect(place.database)) as db, db:
            db.execute("UPDATE schema SET version = ? WHERE component = 'ledger'", (version,))

    with contextlib.closing(sqlite3.connect(place.database)) as db:
        (before,) = db.execute("SELECT version FROM schema WHERE component = 'ledger'").fetchone()
    set_version(99)
    yield
    set_version(before)


@contextlib.contextmanager
def unreadable(place):
    """The state folder may not be entered: also for root, who becomes somebody else meanwhile."""
    folder, was_root = place.config.state_folder, os.geteuid() == 0
    app.build(place.config).source.look()  # what is imported late may not be readable for somebody else
    os.chmod(folder, 0)
    if was_root:
        for path in folder.parents:  # those that pytest has made for root alone
            if not os.stat(path).st_mode & 0o001:
                os.chmod(path, 0o755)
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
        os.chmod(folder, 0o750)


@contextlib.contextmanager
def daemon_down(place):
    lock = place.config.state_folder / "lock"
    kept = lock.rename(lock.with_name("of the daemon"))
    yield
    kept.rename(lock)


@contextlib.contextmanager
def daemon_silent(place):
    note = place.config.state_folder / instance.NOTE
    os.utime(note, (place.now - 300, place.now - 300))
    yield
    beat(place)


@contextlib.contextmanager
def disk_full(place):
    instance.tell(place.config, ready=True, paused="0.3 GB free for products, 2 GB wanted")
    beat(place)
    yield
    instance.tell(place.config, ready=True)
    beat(place)


# state : (words of the page, of the API whether the ledger answers, readyz, its words)
LOCKED = "another program holds it"
STATES = {
    nothing: (["is over", "the daemon runs"], True, 200, "ready"),
    daemon_down: (["the daemon has ended by accident"], True, 503, "the daemon has ended by accident"),
    daemon_silent: (["the daemon has not moved for"], True, 503, "the daemon has not moved for"),
    disk_full: (["0.3 GB free for products, 2 GB wanted"], True, 200, "ready"),
    locked: ([LOCKED, "it is tried again all the time"], False, 503, LOCKED),
    damaged_head: (["is not a database", "nirid doctor"], False, 503, "is not a database"),
    damaged_middle: (["malformed", "nirid doctor"], False, 503, "malformed"),
    absent: (["no database", "as soon as the daemon has started"], False, 503, "no database"),
    newer: (["schema 99", "start nirid web of that release"], False, 503, "schema 99"),
    unreadable: (["Permission denied", "whether the daemon runs cannot be seen"], False, 503, "Permission"),
}


@pytest.mark.parametrize("known", [True, False], ids=["that was seen before", "at its start"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_each_state_has_its_words_and_goes_by_itself(place, state, known):
    """known : the page has shown the night before, and goes on to show it."""
    words, answers, ready, why = STATES[state]
    if known:
        assert place.ask("/").status == 200
    with state(place):
        page = place.ask("/")
        assert page.status == 200
        for word in words:
            assert word in page.text
        told = place.ask("/api/v1/tonight")
        assert (told.status, wrong("tonight", told.json())) == (200, [])
        assert bool(told.json()["error"]) == (not answers)
        assert ("frames" in told.json()) == (answers or known)
        assert ("SN2014J" in page.text) == (answers or known)
        for path in ("/api/v1/nights", "/api/v1/thing/group:1", "/api/v1/calibrations"):
            other = place.ask(path)
            assert other.status == (200 if answers else 503), path
            assert answers or wrong("error", other.json()) == []
        assert place.ask("/night/20160102").status == (200 if answers else 503)
        health = place.ask("/health")
        assert health.status == 200
        assert ("Nothing is to be done" in health.text) == answers
        assert ("What is to be done cannot be seen" in health.text) == (not answers)
        assert place.ask("/healthz").status == 200
        readyz = place.ask("/readyz")
        assert readyz.status == ready
        assert why in readyz.text
        assert place.ask("/metrics").status == 200
        place.page.source.check()  # folders and disks: nothing of it may end the page
    assert place.ask("/api/v1/tonight", RETRY + 1).json()["error"] == ""
    assert place.ask("/readyz").status == 200
    assert place.ask("/api/v1/nights").status == 200
    assert "SN2014J" in place.ask("/").text


def test_health_says_what_the_machine_is_doing(place):
    """How folders are watched, what is to be done, room, versions."""
    watched = str(place.config.drop_folders[0])
    instance.tell(place.config, ready=True, watched={watched: "native"})
    beat(place)
    place.ask("/")
    text = place.ask("/health").text
    for word in (watched, "native", "files ready", ">55<", "GB free", "work pauses below", "starlette"):
        assert word in text, word
    assert "landing to first look" in text


def test_what_passes_without_a_trace_in_the_files_passes_on_the_page(place, monkeypatch):
    """As a descriptor that could not be had: nobody writes when there is one again."""
    for _ in range(3):
        assert place.ask("/api/v1/tonight").json()["error"] == ""

    @contextlib.contextmanager
    def fails():
        raise NiridError("too many open files")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(place.page.source, "read", fails)
        place.page.source._old = True
        assert place.ask("/api/v1/tonight").json()["error"] == "too many open files"
    assert place.ask("/api/v1/tonight", RETRY / 2).json()["error"] != ""
    assert place.ask("/api/v1/tonight", RETRY).json()["error"] == ""


def test_a_lock_is_not_waited_for_long(place):
    with locked(place):
        began = time.monotonic()
        assert place.ask("/").status == 200
        assert time.monotonic() - began < 5


def test_no_frame_at_all_says_what_is_watched(place, daemons):
    empty = daemons()
    place.database.unlink()
    with contextlib.closing(sqlite3.connect(place.database)) as copy, empty.ledger.read() as db:
        db.backup(copy)
    text = place.ask("/").text
    assert "no frame has landed yet" in text
    assert str(place.config.drop_folders[0]) in text
    assert place.ask("/readyz").status == 200
