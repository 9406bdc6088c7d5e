"""The main loop: plan, dispatch, publish, on the monotonic clock.

    main_loop = MainLoop(ledger, dispatcher, setting, config.parameters)
    main_loop.recover(products)          # once, before anything else
    main_loop.run(stop)                  # live, in a thread of its own
    main_loop.until_idle(landing.take_all)

`tick(now)` does everything that can be done at a time and says when to come back; the loop only calls
it, woken early by `wake()` (a frame was registered) or by a worker.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path

from daemon.ledger import marks, planning
from daemon.ledger.store import Ledger, LedgerBusy, Log, Tx
from daemon.ledger.world import Clocks, note_running_hours, running_hours
from daemon.model.groups import Overrides, Setting
from daemon.model.rules import MOVED_ON
from daemon.people.missing import Watch
from daemon.people.requests import Requests
from daemon.work import rounds
from daemon.work.dispatch import Dispatcher
from daemon.work.previews import Looks
from daemon.work.rounds import Planned
from pipeline.errors import NiridError

LONGEST_SLEEP = 1.0  # s; the health check expects progress at least this often
LONGEST_PLANNING = 2.0  # s; of thousands of groups, jobs are handed out and collected in between
SAVE_CLOCK = 60.0  # s between notes of the running clock: what a crash may lose of it


@dataclass
class _Open:
    """A group that is not quiet: how many arrivals it had, when the last was noticed, when to look again."""

    arrivals: int
    since: float
    due: float


@dataclass
class MainLoop:
    """overrides : (recipe, descriptors as JSON) -> the operator's parameters, as `Config.parameters`
    requests : where people's decisions come from
    watch : tells what calibrations tonight still needs
    progress_at : monotonic time of the last tick, for the health check"""

    ledger: Ledger
    dispatcher: Dispatcher
    setting: Setting
    overrides: Overrides = lambda recipe, descriptors: {}
    clock: Callable[[], float] = time.monotonic
    log: Log = lambda event, **fields: None
    requests: Requests | None = None
    watch: Watch | None = None
    progress_at: float = 0.0
    _open: dict[int, _Open] = field(default_factory=dict)
    _lost: dict[int, float] = field(default_factory=dict)  # groups that wait for files: until when
    _running: tuple[float, float] | None = None  # (hours in the ledger, monotonic time when they were read)
    _saved_at: float = 0.0
    _delayed: str = ""

    def __post_init__(self) -> None:
        self._write_end, self._read_end = socket.socketpair()
        self._write_end.setblocking(False)
        self._read_end.setblocking(False)

    @property
    def looks(self) -> Looks | None:
        return self.dispatcher.looks

    def wake(self) -> None:
        """Something changed: tick now. From any thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._write_end.send(b"!")

    def close(self) -> None:
        self._write_end.close()
        self._read_end.close()

    def recover(self, products: Path) -> int:
        """After a start: finish what was being published, take up what was running."""
        return self.dispatcher.recover(products)

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set. Running jobs are left to `dispatcher.stop`."""
        while not stop.is_set():
            self._sleep(self.tick(self.clock()))
        with contextlib.suppress(LedgerBusy):
            self._save_clock(self.clock())

    def tick(self, now: float) -> float:
        """Everything that can be done at `now`; returns the seconds until there may be more."""
        self.progress_at = now
        try:
            touched = self._decide() > 0
            if self.dispatcher.collect() and self.looks is not None:
                for group in self._open.values():  # a calibration that its running stack lacked may have come
                    group.due = min(group.due, now)
            planned = self._plan(now)
            touched = touched or planned.looked_at > 0
            while planned.more and self.clock() < now + LONGEST_PLANNING:
                planned = self._plan(now)
            self.dispatcher.dispatch()
            if self.watch is not None:
                self.watch.look(touched=touched)
            if now - self._saved_at >= SAVE_CLOCK:
                self._save_clock(now)
        except LedgerBusy as error:
            self.dispatcher.full(str(error))
            self.log("ledger_busy", error=str(error))
            return LONGEST_SLEEP
        if planned.more:
            return 0.0
        dues = [
            until - now for until in (*(group.due for group in self._open.values()), *self._lost.values())
        ]
        back = self.dispatcher.next_due()
        return max(0.0, min([LONGEST_SLEEP, *dues, *([back] if back is not None else [])]))

    def until_idle(
        self,
        take_all: Callable[[], int],
        stop: threading.Event | None = None,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what is there, and work until neither a job nor a new file results. look : called all the
        while, to show how far it is"""
        self.setting = replace(self.setting, batch=True)
        self.dispatcher.until_idle()
        take_all()
        while not (stop and stop.is_set()):
            now = self.progress_at = self.clock()
            changed = self._decide() + self.dispatcher.collect()
            while (planned := self._plan(now)).more:
                changed += planned.changed
            changed += self.dispatcher.dispatch()
            look()
            if changed:
                continue
            if self.dispatcher.paused and not self.dispatcher.engine.busy():
                raise NiridError(f"work is paused, run it again when there is room: {self.dispatcher.paused}")
            if self.dispatcher.busy() or self._startable():
                self._sleep(LONGEST_SLEEP)
            elif not take_all():
                break
        self._save_clock(self.clock())

    def _decide(self) -> int:
        """Apply what people have decided. What cannot be applied now keeps its file and waits."""
        if self.requests is None:
            return 0
        try:
            done, self._delayed = self.requests.apply(), ""
        except LedgerBusy:
            raise
        except OSError as error:
            if str(error) != self._delayed:
                self.log("requests_delayed", error=str(error))
            done, self._delayed = 0, str(error)
        return done

    # -- planning -----------------------------------------------------------------------------

    def _plan(self, now: float) -> Planned:
        if over := [group for group, until in self._lost.items() if until <= now]:
            self.ledger.write(lambda tx: marks.touch(tx, *over))
            self._lost = {group: until for group, until in self._lost.items() if group not in over}
        skip = self._not_due(now)
        if skip is None:
            return Planned(0, 0, {})
        clocks = Clocks(self.running(now), lambda group, arrivals: self._quiet_for(group, arrivals, now))

        def round_(tx: Tx) -> Planned:
            on_open = self.looks.consider if self.looks is not None else None
            return rounds.round_of_planning(tx, self.setting, clocks, self.overrides, skip, on_open)

        planned = self.ledger.write(round_)
        self._lost |= {group: now + seconds for group, seconds in planned.lost.items()}
        for group in [g for g in self._open if g not in skip and g not in planned.due]:
            del self._open[group]  # planned: quiet from now on
            if self.looks is not None:
                self.looks.settled(group)
        for group, seconds in planned.due.items():
            if group in self._open:
                self._open[group].due = now + seconds
        return planned

    def _not_due(self, now: float) -> list[int] | None:
        """Groups that need not be looked at now; None when no other group needs it either.

        Only reads: an idle daemon writes nothing.
        """
        until = rounds.waited_until(self.setting, self.running(now))
        with self.ledger.read() as db:
            marked = planning.marked(db)
            waited = planning.has_waited(db, until)
        skip = [group.id for group in marked if self._sleeps(group, now)]
        return skip if waited or len(skip) < len(marked) else None

    def _sleeps(self, group: planning.Marked, now: float) -> bool:
        known = self._open.get(group.id)
        still = known is not None and known.due > now and known.arrivals == group.arrivals
        return still and group.moved_on <= MOVED_ON

    def _quiet_for(self, group: int, arrivals: int, now: float) -> float:
        """Since the last arrival was noticed; after a restart the quiet of open groups starts anew."""
        known = self._open.get(group)
        if known is None or known.arrivals != arrivals:
            known = self._open[group] = _Open(arrivals, now, now)
        return now - known.since

    # -- clocks -------------------------------------------------------------------------------

    def running(self, now: float) -> float:
        """Hours that the daemon has run in its life."""
        if self._running is None:
            with self.ledger.read() as db:
                self._running = (running_hours(db), now)
            self._saved_at = now
        hours, since = self._running
        return hours + (now - since) / 3600.0

    def _save_clock(self, now: float) -> None:
        hours = self.running(now)
        self.ledger.write(lambda tx: note_running_hours(tx, hours))
        self._saved_at = now

    def _startable(self) -> bool:
        """True while a planned job could still be started (workers may be warming up)."""
        return self.dispatcher.startable()

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            wait([self._read_end, *self.dispatcher.engine.waitables()], timeout=min(seconds, LONGEST_SLEEP))
        with contextlib.suppress(BlockingIOError):
            while self._read_end.recv(4096):
                pass
