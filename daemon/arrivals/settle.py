"""Candidate paths -> files that have stopped changing, with an injected clock and stat.

    tracker = Tracker(settle=2.0, grace=900.0)
    tracker.offer(path, now)                 # from a hint, any number of times; moved=True after a rename
    tracker.offer(path, now, signature)      # from a sweep
    looked = tracker.tick(now)               # stats what is due; touches nothing else
    for due in looked.due:                   # unchanged for the settle time: hand to ingest
        record = ingest.ingest(due.path, patience=due.patience)
        tracker.conclude(due, record.state, record.reason, now, watch=record.watch)
        # or tracker.retry(due, str(error), now) after an OSError

`now` is monotonic seconds. A file handed over stays here, busy, until it is concluded; one that is
concluded "incomplete" is watched with back-off, handed over again when it changes, and a last time
with patience="overdue" when it has not changed for the grace time. Not thread-safe: one thread
owns a tracker; that thread may hang with a network folder, so it should not be the main_loop.

A rename, a hard link and a copy that keeps its times show in the stat, where the last change of the inode
is later than the last write. Of all events only a rename counts, and only for how long to wait: a file
written and renamed within a few milliseconds has one time for both.
"""

from __future__ import annotations

import os
import stat as statmod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from daemon.model.files import Patience, Signature, signature_of

FIRST_LOOK = 1.0  # s between looks at an incomplete file, doubled up to LONGEST_LOOK
LONGEST_LOOK = 30.0
FIRST_RETRY = 1.0  # s after an error of the file system, doubled up to LONGEST_RETRY
LONGEST_RETRY = 300.0
CHANGING = "waiting until it stops changing"
RENAMED_NS = 20_000_000  # inode changed this much after the last write: renamed, linked or copied whole


class Due(NamedTuple):
    """A file to read now. patience: "live", or "overdue" when its time is over."""

    path: str
    signature: Signature
    patience: Patience = "live"


class Pending(NamedTuple):
    """A file that is watched: state "seen" or "incomplete", why, since when (monotonic seconds)."""

    path: str
    state: str
    reason: str
    since: float


class Looked(NamedTuple):
    """What one tick found: files to read, paths where there is no file (any more), paths that cannot be
    looked at."""

    due: list[Due]
    vanished: list[str]
    blocked: list[tuple[str, str]]


@dataclass(slots=True)
class _Candidate:
    look_at: float  # monotonic time of the next stat
    since: float  # unchanged since
    signature: Signature | None = None
    state: Literal["seen", "incomplete", "done"] = "seen"
    reason: str = CHANGING
    moved: bool = False  # an event said that it came by rename, and nothing has changed since
    busy: bool = False  # handed over, not concluded
    again: bool = False  # offered while busy
    delay: float = 0.0  # present back-off
    watch: float | None = None  # grace of this file, when not the tracker's


@dataclass(slots=True)
class Tracker:
    """settle : s unchanged before a file is read; fast : the same for one that came in one piece;
    grace : s unchanged before an incomplete file is given up; stat : os.lstat or a test's."""

    settle: float = 2.0
    fast: float = 0.3
    grace: float = 900.0
    stat: Callable[[str], os.stat_result] = os.lstat
    _candidates: dict[str, _Candidate] = field(default_factory=dict)

    def offer(
        self, path: str, now: float, signature: Signature | None = None, *, moved: bool = False
    ) -> bool:
        """Watch a path, or look at it at once if it is watched already; True when it is new.

        signature : what a sweep saw; a known one changes nothing
        moved : it came by rename; within a tick of the file system's clock its times do not tell
        """
        known = self._candidates.get(path)
        if known is None:
            self._candidates[path] = _Candidate(look_at=now, since=now, moved=moved)
            return True
        if moved and not known.busy:
            known.signature, known.moved = None, True
        if signature is None or signature != known.signature:
            known.again = known.busy
            known.look_at = min(known.look_at, now)
        return False

    def tick(self, now: float) -> Looked:
        """Look at every candidate whose time has come."""
        looked = Looked([], [], [])
        for path, candidate in [
            (p, c) for p, c in self._candidates.items() if c.look_at <= now and not c.busy
        ]:
            self._look(path, candidate, now, looked)
        return looked

    def _look(self, path: str, candidate: _Candidate, now: float, looked: Looked) -> None:
        try:
            st = self.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            del self._candidates[path]
            looked.vanished.append(path)
            return
        except OSError as error:
            self._back_off(candidate, error.strerror or str(error), now)
            looked.blocked.append((path, candidate.reason))
            return
        if not statmod.S_ISREG(st.st_mode):  # a folder, a link, a pipe: no file of ours; the sweep counts it
            del self._candidates[path]
            looked.vanished.append(path)
            return
        signature = signature_of(st)
        if signature != candidate.signature:
            # else it is still being written
            candidate.moved = candidate.moved and candidate.signature is None
            candidate.signature, candidate.since, candidate.delay = signature, now, 0.0
            candidate.state, candidate.reason, candidate.watch = (
                "seen",
                "waiting until it stops changing",
                None,
            )
        elif candidate.state == "done":
            del self._candidates[path]
            return
        quiet = now - candidate.since
        if candidate.state == "incomplete":
            grace = self.grace if candidate.watch is None else candidate.watch
            if quiet >= grace:
                self._hand_over(path, candidate, "overdue", looked)
            else:
                candidate.delay = min(max(2 * candidate.delay, FIRST_LOOK), LONGEST_LOOK)
                candidate.look_at = min(now + candidate.delay, candidate.since + grace)
            return
        settle = min(self.fast, self.settle) if candidate.moved or _came_whole(st) else self.settle
        if quiet >= settle:
            self._hand_over(path, candidate, "live", looked)
        else:
            candidate.look_at = candidate.since + settle

    @staticmethod
    def _hand_over(path: str, candidate: _Candidate, patience: Patience, looked: Looked) -> None:
        assert candidate.signature is not None
        candidate.busy = True
        looked.due.append(Due(path, candidate.signature, patience))

    def conclude(self, due: Due, state: str, reason: str, now: float, *, watch: float | None = None) -> None:
        """Ingest's verdict: "incomplete" is watched on (for `watch` seconds instead of the grace time, if
        given), any other state is final until the file changes."""
        candidate = self._candidates.get(due.path)
        if candidate is None:
            return
        candidate.busy = False
        if state == "incomplete":
            candidate.state, candidate.reason, candidate.watch = "incomplete", reason, watch
            candidate.look_at = now if candidate.again else now + FIRST_LOOK
            candidate.again = False
        elif candidate.again:  # offered while it was read: look whether it has changed since
            candidate.state, candidate.look_at, candidate.again = "done", now, False
        else:
            del self._candidates[due.path]

    def retry(self, due: Due, reason: str, now: float) -> None:
        """It could not be read (permission, I/O, changed meanwhile): again later, for ever, visibly."""
        candidate = self._candidates.get(due.path)
        if candidate is not None:
            candidate.busy = candidate.again = False
            self._back_off(candidate, reason, now)

    @staticmethod
    def _back_off(candidate: _Candidate, reason: str, now: float) -> None:
        candidate.delay = min(max(2 * candidate.delay, FIRST_RETRY), LONGEST_RETRY)
        candidate.look_at = now + candidate.delay
        candidate.reason = reason

    def next_look(self) -> float | None:
        """When `tick` next has something to do; None when nothing is watched or all of it is being read."""
        return min((c.look_at for c in self._candidates.values() if not c.busy), default=None)

    def pending(self) -> list[Pending]:
        """Everything that is watched, for status and audit."""
        return [Pending(p, c.state, c.reason, c.since) for p, c in self._candidates.items()]

    def unsettled(self) -> int:
        """How many files still wait for their first verdict: 0 means that a batch run has seen all."""
        return sum(1 for c in self._candidates.values() if c.busy or c.state == "seen")


def _came_whole(st: os.stat_result) -> bool:
    """True for a file that came by rename, link, or a copy that set its times when it was done."""
    return st.st_nlink > 1 or st.st_ctime_ns - st.st_mtime_ns > RENAMED_NS
