"""From the drop folders into the ledger: watches, waits until a file is whole, reads it, records it.

    landing = Landing(ledger, watcher, tracker, setting, wake=main_loop.wake)
    landing.start()                      # arm the watches, then list the folders once
    landing.run(stop)                    # in a thread of its own
    landing.take_all()                   # instead, for --until-idle: everything that is there, now

A hung network folder stalls this thread and the readers, not the main_loop. Reading and hashing go to a
small pool; the ledger is written here.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from daemon.arrivals.read import ingest
from daemon.arrivals.settle import Due, Tracker
from daemon.arrivals.sweep import Sweep, is_file, next_sweep
from daemon.arrivals.watcher import Watcher
from daemon.ledger import files, questions
from daemon.ledger.files import NOT_STABLE
from daemon.ledger.store import Ledger, LedgerBusy, Log, Tx
from daemon.model.files import FileRecord, Patience, Signature
from daemon.model.groups import Setting

Read = Callable[..., FileRecord]

AT_ONCE = 50  # records in one transaction
SUSPECT_SECONDS = 5.0  # between two sweeps while a folder is missing, empty all at once, or cannot be listed
FIRST_TRIES = 3  # of a file that changes while a batch run reads it


@dataclass
class Landing:
    """wake : called after something was written that may be planned
    on_read : told by `take_all`, after each file, how many of how many are read
    progress_at : monotonic time of the last step, for the health check"""

    ledger: Ledger
    watcher: Watcher
    tracker: Tracker
    setting: Setting
    wake: Callable[[], None] = lambda: None
    sweep_seconds: float = 30.0
    readers: int = 2
    read: Read = ingest
    clock: Callable[[], float] = time.monotonic
    log: Log = lambda event, **fields: None
    as_of: Callable[[FileRecord], float | None] | None = None  # when a file came, if that was not just now
    on_read: Callable[[int, int], None] = lambda done, total: None
    progress_at: float = 0.0
    sweep_at: float = 0.0
    unlisted: dict[str, str] = field(default_factory=dict)  # by `take_all`: folder -> why
    _pool: ThreadPoolExecutor | None = None
    _done: queue.SimpleQueue[tuple[Due, FileRecord | OSError]] = field(default_factory=queue.SimpleQueue)
    _unwritten: list[tuple[Due, FileRecord]] = field(default_factory=list)
    _unseen: dict[str, str] = field(default_factory=dict)  # path -> what to say of it
    _gone: set[str] = field(default_factory=set)
    _called: threading.Event = field(default_factory=threading.Event)
    _taken: dict[str, Signature] = field(default_factory=dict)
    _suspect: dict[str, str] = field(default_factory=dict)  # what was odd in the last sweep
    blocked: dict[str, str] = field(default_factory=dict)  # by `take_all`: files that could not be read
    ignored: Mapping[str, int] = field(default_factory=dict)  # what the last sweep passed over, by why

    def start(self) -> Sweep:
        """Load what is settled, arm the watches, then list the folders. Returns what the sweep found."""
        with self.ledger.read() as db:
            self.watcher.load(questions.settled_files(db))
            unread = questions.unread_files(db)
        self._pool = ThreadPoolExecutor(self.readers, thread_name_prefix="ingest")
        self.watcher.start()
        self._gone |= {path for path in unread if not is_file(path)}  # removed while no daemon ran
        return self._sweep(self.clock())

    def stop(self) -> None:
        self.watcher.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def call(self) -> None:
        """There is something to do: for the watcher's `wake`, from any thread."""
        self._called.set()

    def run(self, stop: threading.Event) -> None:
        """Step until `stop` is set."""
        while not stop.is_set():
            self._called.wait(min(1.0, self.step(self.clock())))
            self._called.clear()

    def step(self, now: float) -> float:
        """Everything that can be done now; returns the seconds until there may be more."""
        self.progress_at = now
        hints = self.watcher.drain()
        self._offer(hints.paths, now, moved=hints.moved)
        if hints.rescan or now >= self.sweep_at:
            self._sweep(now)
        looked = self.tracker.tick(now)
        self._gone |= set(looked.vanished)
        for path, reason in looked.blocked:
            self._unseen[path] = f"cannot be read now: {reason}"
            self.log("file_blocked", path=path, reason=reason)
        for due in looked.due:
            self._hand_over(due)
        self._take_results(now)
        self._write(now)
        look = self.tracker.next_look()
        return max(0.0, min(self.sweep_at, look if look is not None else self.sweep_at) - now)

    # -- live ---------------------------------------------------------------------------------

    def _offer(
        self,
        paths: Iterable[str],
        now: float,
        signatures: dict[str, Signature] | None = None,
        moved: Container[str] = (),
    ) -> None:
        for path in paths:
            if self.tracker.offer(path, now, (signatures or {}).get(path), moved=path in moved):
                self._unseen[path] = NOT_STABLE

    def _sweep(self, now: float) -> Sweep:
        found = self.watcher.sweep()
        self.ignored = found.ignored
        signatures = dict(found.candidates)
        self._offer(signatures, now, signatures)
        self._gone |= set(found.gone)
        suspect = {**found.suspect, **found.errors}
        for path in suspect.keys() - self._suspect.keys():
            self.log("folder_suspect", path=path, reason=suspect[path])
        for path in self._suspect.keys() - suspect.keys():
            self.log("folder_well", path=path)
        self._suspect = suspect
        pause = min(self.sweep_seconds, SUSPECT_SECONDS) if suspect else self.sweep_seconds
        self.sweep_at = now + next_sweep(pause, found.seconds)
        return found

    def _hand_over(self, due: Due) -> None:
        assert self._pool is not None
        future = self._pool.submit(self.read, due.path, patience=due.patience)
        future.add_done_callback(partial(self._finished, due))

    def _finished(self, due: Due, future: Future[FileRecord]) -> None:
        """In a thread of the pool. A bug in reading one file quarantines only that file."""
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._done.put((due, future.result()))
        elif isinstance(error, OSError):
            self._done.put((due, error))
        else:
            reason = f"could not be read: {type(error).__name__}: {error}"
            self._done.put((due, FileRecord(due.path, "quarantined", reason, due.signature)))
        self._called.set()

    def _take_results(self, now: float) -> None:
        while not self._done.empty():
            due, result = self._done.get_nowait()
            if isinstance(result, OSError):
                reason = result.strerror or str(result)
                self._unseen[due.path] = f"cannot be read now: {reason}"
                self.log("file_blocked", path=due.path, reason=reason)
                self.tracker.retry(due, reason, now)
            else:
                self._unwritten.append((due, result))

    def _write(self, now: float) -> None:
        """Write what is known; when the database cannot be written now, keep it for the next step."""
        try:
            if self._unseen or self._gone:
                unseen, gone = self._unseen, self._gone
                self.ledger.write(lambda tx: self._note(tx, unseen, gone))
                self._unseen, self._gone = {}, set()
            while self._unwritten:
                some = self._unwritten[:AT_ONCE]
                self.ledger.write(partial(self._record, records=[record for _, record in some]))
                self._unwritten = self._unwritten[AT_ONCE:]
                for due, record in some:
                    self.tracker.conclude(due, record.state, record.reason, now, watch=record.watch)
                    if record.signature is not None and record.state != "incomplete":
                        self.watcher.settle(record.path, record.signature)
                self.wake()
        except LedgerBusy as error:
            self.log("ledger_busy", error=str(error))

    def _note(self, tx: Tx, unseen: dict[str, str], gone: set[str]) -> None:
        for path in sorted(set(unseen) - gone):
            files.seen(tx, path, unseen[path])
        for path in sorted(gone):
            files.gone(tx, path, self.setting)

    def _record(self, tx: Tx, records: list[FileRecord]) -> None:
        now = tx.now
        for record in records:
            tx.now = (self.as_of(record) if self.as_of else None) or now
            files.record(tx, record, self.setting)
        tx.now = now

    # -- batch --------------------------------------------------------------------------------

    def take_all(self) -> int:
        """Sweep once, read everything that is new, write it down. Returns how many files were new.

        Nothing is waited for: a file whose stat is the same before and after reading is taken as it is.
        """
        assert self._pool is not None
        found = self.watcher.sweep()
        self.unlisted = {**found.suspect, **found.errors}
        self.ignored = found.ignored
        new = {p: s for p, s in found.candidates if self._taken.get(p) != s}
        self._taken |= new
        self._unseen = {}  # said here for all, and below for those that cannot be read
        gone, self._gone = self._gone | set(found.gone), set()
        self.ledger.write(lambda tx: self._note(tx, dict.fromkeys(new, NOT_STABLE), gone))
        records = self._pool.map(self._read_now, new.items())
        batch: list[FileRecord] = []
        for number, record in enumerate(records, start=1):
            self.on_read(number, len(new))
            if record is not None:
                batch.append(record)
            if len(batch) == AT_ONCE:
                self._record_batch(batch)
                batch = []
        self._record_batch(batch)
        blocked, self._unseen = self._unseen, {}
        self.blocked = {p: why for p, why in self.blocked.items() if p not in new and is_file(p)} | blocked
        self.ledger.write(lambda tx: self._note(tx, blocked, set()))
        return len(new)

    def closed(self) -> str:
        """Folders below the drop folders that the last sweep could not list, in words; "" without any."""
        found = sorted((p, why) for p, why in self._suspect.items() if p not in self.watcher.folders)
        if not found:
            return ""
        path, why = found[0]
        return f"{path} cannot be listed: {why}" + (f" (and {len(found) - 1} more)" if found[1:] else "")

    def in_the_way(self) -> list[str]:
        """What the system has kept `take_all` from reading, in words."""
        folders = [f"{folder} {why}" for folder, why in self.unlisted.items()]
        few = [f"{path}: {why}" for path, why in list(self.blocked.items())[:3]]
        more = len(self.blocked) - len(few)
        return folders + few + ([f"{more} more files cannot be read"] if more > 0 else [])

    def _record_batch(self, batch: list[FileRecord]) -> None:
        if batch:
            self.ledger.write(lambda tx: self._record(tx, batch))
        for record in batch:
            if record.signature is not None and record.state != "incomplete":
                self.watcher.settle(record.path, record.signature)

    def _read_now(self, item: tuple[str, Signature]) -> FileRecord | None:
        path, patience = item[0], "batch"
        for attempt in range(1, FIRST_TRIES + 1):
            try:
                return self._read(path, patience)
            except OSError as error:
                if attempt == FIRST_TRIES:
                    reason = error.strerror or str(error)
                    self._unseen[path] = f"cannot be read now: {reason}"
                    self.log("file_blocked", path=path, reason=reason)
        return None

    def _read(self, path: str, patience: Patience | str) -> FileRecord:
        try:
            return self.read(path, patience=patience)
        except OSError:
            raise
        except Exception as error:
            return FileRecord(path, "quarantined", f"could not be read: {type(error).__name__}: {error}")
