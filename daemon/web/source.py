"""What the page knows: the night, made anew when the database has changed, and shared by all viewers.

    source = Source(config)
    source.is_old()            # cheap, ten times a second: has anything changed?
    now = source.look()        # the Snapshot, made anew if it is old

The database is opened for each answer, read on one snapshot, and closed before anything is sent: no reader
is held over a socket. Errors become words: of a night whose database cannot be read there is a page, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daemon import instance
from daemon.config.options import Config
from daemon.config.setting import setting_of
from daemon.instance import with_last_run
from daemon.ledger import decisions, events, questions
from daemon.ledger.reading import one_snapshot
from daemon.ledger.store import Reader
from daemon.markup import short
from daemon.model.groups import Setting
from daemon.people import board
from daemon.web import alerts, pictures
from daemon.web.alerts import SILENT, Alert
from pipeline.errors import ConfigError, NiridError

LOCK_SECONDS = 1.0  # that a lock of another program is waited for before the page says so
RETRY = 2.0  # s after which a database that could not be read is tried again
AGAIN = 0.4  # s after a change at which it is looked at once more: two commits may share one time stamp
HOLD = 30.0  # s that an alert of the machine stays after its reason has gone
DEAR = 200.0  # times what a look at the whole ledger costs, between two of them

Signature = tuple[Any, ...]


@dataclass(frozen=True)
class Heart:
    """state : live, starting, silent, paused or stopped; words : for people; moved : seconds since 1970"""

    state: str
    words: str
    moved: float | None = None
    pid: int = 0


@dataclass(frozen=True)
class Snapshot:
    """night : as `people.board` answers; {}, or the last, where the database cannot be read; error : why not

    event : number of the last event in it; made : when, seconds since the epoch
    """

    night: dict[str, Any] = field(default_factory=dict)
    alerts: tuple[Alert, ...] = ()
    heart: Heart = Heart("stopped", "nothing is known yet")
    event: int = 0
    made: float = 0.0
    error: str = "the page has just started"
    kind: str = "starting"  # ok, absent, newer or unreadable
    watched: tuple[str, ...] = ()  # drop folders


@dataclass
class Source:
    """clock : seconds since the epoch"""

    config: Config
    clock: Callable[[], float] = time.time
    now: Snapshot = field(default_factory=Snapshot)
    _seen: Signature = ()
    _dirty_until: float = 0.0
    _old: bool = True
    _problems: tuple[Alert, ...] = ()
    _of_ledger: tuple[Alert, ...] = ()
    _lately: dict[str, tuple[Alert, float]] = field(default_factory=dict)
    _jobs: dict[str, int] = field(default_factory=dict)
    _checked: Signature | None = None
    _check_due: float = 0.0
    _counted: tuple[int, tuple[dict[str, int], dict[str, int]]] | None = None
    _count_due: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.config = with_last_run(self.config)
        self.setting: Setting = setting_of(self.config)

    def is_old(self) -> bool:
        """True when somebody has written since the last look: by the files alone, in microseconds."""
        if not self._old:
            self._old = self._has_changed()
        return self._old

    def _has_changed(self) -> bool:
        found = tuple(_of_file(f"{self.config.database}{suffix}") for suffix in ("", "-wal"))
        now = self.clock()
        if found != self._seen:
            self._seen, self._dirty_until = found, now + AGAIN
            return True
        if self._dirty_until and now >= self._dirty_until:
            self._dirty_until = 0.0
            return True
        return False

    def check(self) -> None:
        """What changes without the database, and what is too dear for every change.

        A hung folder takes seconds: no reader is held meanwhile. What looks at the whole ledger may take a
        two-hundredth of the time.
        """
        now = self.clock()
        if self._seen != self._checked and now >= self._check_due:
            began = time.process_time()
            with contextlib.suppress(NiridError), self.read() as db:  # the error of the snapshot says it
                self._checked = self._seen
                self._jobs, self._of_ledger = questions.job_counts(db), tuple(alerts.of_ledger(db, now))
            self._check_due = now + DEAR * (time.process_time() - began)
        before = {alert.key for alert in self._problems}
        goal = self.config.alert.look_seconds
        found = (*alerts.of_machine(self.config, self._jobs, now), *alerts.nearly_full(self.config, before))
        paced = tuple(alerts.of_pace(self.now.night, goal, before, now))
        problems = (*self._steady((*found, *self._of_ledger), now), *paced)
        if problems != self._problems:
            self._problems, self._dirty_until = problems, self.clock()

    def _steady(self, found: tuple[Alert, ...], now: float) -> tuple[Alert, ...]:
        """With those that have gone less than HOLD seconds ago: what comes and goes is told once."""
        for alert in found:
            self._lately[alert.key] = (alert, now)
        self._lately = {key: (alert, at) for key, (alert, at) in self._lately.items() if now - at < HOLD}
        return tuple(alert for alert, _ in self._lately.values())

    def counted(self, db: Reader) -> tuple[dict[str, int], dict[str, int]]:
        """({state: jobs}, {state: files}), counted anew at most a two-hundredth of the time."""
        event, now = events.last_number(db), self.clock()
        if self._counted is None or (event != self._counted[0] and now >= self._count_due):
            began = time.process_time()
            self._counted = event, (questions.job_counts(db), questions.counts(db, "files")["files"])
            self._count_due = now + DEAR * (time.process_time() - began)
        return self._counted[1]

    def look(self) -> Snapshot:
        """Make the snapshot anew if it may be old. From any thread; one at a time."""
        with self._lock:
            if self.is_old():
                self._old = False
                self.now = self._made()
            return self.now

    def heart(self) -> Heart:
        """Whether the daemon lives, as its own note says."""
        if why := _cannot_be_seen(self.config.state_folder):
            return Heart("silent", f"whether the daemon runs cannot be seen: {why}")
        return heart_of(instance.running(self.config), instance.was_stopped(self.config), self.clock())

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        """The database for one answer. Raises NiridError when it cannot be read."""
        database = self.config.database
        if why := _cannot_be_seen(database):
            raise NiridError(f"{database}: {why}")
        if not database.exists():
            raise Absent(f"{database}: no database; no daemon has run with this state folder yet")
        with one_snapshot(database, LOCK_SECONDS) as db:
            yield db

    def _made(self) -> Snapshot:
        now = self.clock()
        try:
            with self.read() as db:
                event = events.last_number(db)
                night = board.board(db, self.setting, self.config, now)
                some = [*self._problems, *alerts.quick(db), *alerts.of_night(night)]
                found = alerts.in_order(some, decisions.known_alerts(db, now))
        except NiridError as error:
            kind = (
                "absent"
                if isinstance(error, Absent)
                else "newer"
                if isinstance(error, ConfigError)
                else "unreadable"
            )
            self._dirty_until = now + RETRY  # who mends it, or lets go of it, need not write
            return replace(self.now, error=str(error), kind=kind, heart=self.heart(), made=now)
        _add_sky(night)
        watched = tuple(short(folder) for folder in self.config.drop_folders)
        return Snapshot(night, found, self.heart(), event, now, "", "ok", watched)


class Absent(NiridError):
    """There is no database yet."""


def heart_of(running: dict[str, Any] | None, was_stopped: bool, now: float) -> Heart:
    """running : as `instance.running` answers"""
    if running is None:
        words = "the daemon is not running" if was_stopped else "the daemon has ended by accident"
        return Heart("stopped", words)
    moved, pid = running["moved"], running["pid"]
    if moved is None:
        return Heart("starting", "the daemon is starting", None, pid)
    if now - moved > SILENT:
        return Heart("silent", f"the daemon has not moved for {now - moved:.0f} s", moved, pid)
    if why := running["paused"] or running["engine"] or running["stalled"]:
        return Heart("paused", str(why), moved, pid)
    return Heart("live", "the daemon runs", moved, pid)


def _add_sky(night: dict[str, Any]) -> None:
    """Where pictures lie on the sky: it stands in the pictures."""
    sequence = night["sequence"] or {}
    for one in (night["newest"], sequence.get("stack"), sequence.get("look")):
        if one:
            one["sky"] = pictures.known(one["path"], one["picture"])


def _cannot_be_seen(path: Path) -> str:
    """Why nothing can be said of a file or folder; "" where it can, also that it is not there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return error.strerror or str(error)
    return "" if os.access(path, os.R_OK, effective_ids=True) else os.strerror(errno.EACCES)


def _of_file(path: str) -> Signature:
    try:
        facts = os.stat(path)
    except OSError:
        return ()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
