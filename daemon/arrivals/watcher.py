"""Drop folders -> candidate paths: events are hints, the sweep is the truth.

    watcher = Watcher(["drop"], observer="auto", wake=event.set)
    watcher.load(ledger.signatures())       # what is settled already: (path, Signature)
    watcher.start()                         # arms first ...
    sweep = watcher.sweep()                 # ... then lists: new or changed files, what is gone, what is odd
    hints = watcher.drain()                 # paths that events named since the last call
    watcher.settle(path, signature)         # after a final state: nothing more until the file changes
    alive, how = watcher.healthy()          # for the service's watchdog

It is a long module: arming, hearing and supervising share one state and one lock.

All of these belong to one thread (which may hang with a network folder). The observer's threads only
add a path to a bounded set and call `wake`: an exception in a handler would kill the observer for good,
and the kernel drops events without telling handlers. `sweep` supervises: it re-arms what is dead or
watches a folder that is no longer there. Paths are absolute, undecodable bytes are surrogates.

Network file systems send no events; there, and where the kernel has no watches left, a thread of our
own looks at the times of the folders once a second and asks for a sweep when one has changed. (The
polling observer of watchdog keeps the stat of every file twice and looks at all of them each time.)
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from daemon import filesystems
from daemon.arrivals.sweep import Index, Sweep, is_passed_over
from daemon.model.files import Signature, signature_of
from pipeline.names import is_fits

__all__ = ["Hints", "Signature", "Sweep", "Watcher"]

ObserverKind = Literal["auto", "native", "polling"]
EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
_OBSERVER_LOGS = [logging.getLogger(f"watchdog.observers.{name}") for name in ("inotify", "inotify_c")]


class Hints(NamedTuple):
    """paths : files that events named and that are not settled as they are
    rescan : events were lost, or a folder came or changed: sweep now
    moved : those of the paths that came by rename"""

    paths: list[str]
    rescan: bool
    moved: frozenset[str] = frozenset()


class _Handler(FileSystemEventHandler):
    """Adds the path to the set, whatever the kind of event; never raises."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def on_any_event(self, event: FileSystemEvent) -> None:
        try:
            path = os.fsdecode(event.dest_path or event.src_path)
            self._watcher.hint(path, folder=event.is_directory, moved=bool(event.dest_path))
        except Exception:  # it would end the observer's thread; the sweep finds what this missed
            self._watcher.lost()


class _OverflowListener(logging.Handler):
    """The kernel dropped events: the observer's log is the only place that says so."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(logging.WARNING)
        self._watcher = watcher

    def emit(self, record: logging.LogRecord) -> None:
        self._watcher.lost()


class Watcher:
    """See the module. folders : drop folders; hint_limit : paths kept between two drains, beyond it a
    sweep is asked for instead; poll_seconds : between two looks at the times of the folders."""

    def __init__(
        self,
        folders: Sequence[str],
        *,
        observer: ObserverKind = "auto",
        wake: Callable[[], None] = lambda: None,
        hint_limit: int = 10_000,
        poll_seconds: float = 1.0,
    ) -> None:
        self.folders = [os.path.abspath(folder) for folder in folders]
        self.modes: dict[str, str] = {}  # folder -> "native", "polling", "polling: why", "missing: why"
        self.found_only_by_sweep = 0  # files that only a sweep found: events are being lost
        self.rearmed = 0
        self.overflows = 0
        self._kind, self._wake = observer, wake
        self._limit, self._poll_seconds = hint_limit, poll_seconds
        self._index = Index()
        self._lock = threading.Lock()
        self._hints: set[str] = set()
        self._moved: set[str] = set()  # of the hints
        self._rescan = False
        self._recent: tuple[set[str], set[str]] = (set(), set())  # hinted since the last sweep, and before it
        self._unhinted: set[str] = set()  # found by the last sweep, not hinted yet
        self._noted: dict[str, Signature] = {}  # candidates of earlier sweeps, without a verdict yet
        self._swept = False
        self._observer: Any = None
        self._armed: dict[str, tuple[int, int]] = {}  # folder -> (dev, ino) when its watch was set
        self._real: dict[str, str] = {}  # folder -> where it leads, which is what the kernel watches
        self._poller: threading.Thread | None = None
        self._stop_polling = threading.Event()
        self._listener = _OverflowListener(self)

    # ------------------------------------------------------------------ called by the observer's threads

    def hint(self, path: str, *, folder: bool = False, moved: bool = False) -> None:
        """An event named this path. Thread-safe. What a sweep passes over is passed over here as well."""
        path = self._as_swept(path)
        if not path or (not folder and not is_fits(os.path.basename(path))):
            return
        with self._lock:
            if folder:
                self._rescan = True
            else:
                self._hints.add(path)
                (self._moved.add if moved else self._moved.discard)(path)  # what was said last
                self._recent[0].add(path)
                if len(self._recent[0]) > self._limit:
                    self._hints.clear()
                    self._moved.clear()
                    self._recent[0].clear()
                    self._rescan = True
                    self.overflows += 1
        self._wake()

    def _as_swept(self, path: str) -> str:
        """The path as sweeps call it: below the drop folder as it was given, however that is reached. "" for
        what is in a hidden folder, behind a link, or not below a drop folder."""
        for folder, real in list(self._real.items()):
            for top in (real, folder):
                if path == top or path.startswith(top.rstrip("/") + "/"):
                    inside = path[len(top.rstrip("/")) :]
                    names = inside.split("/")[1:]
                    if any(map(is_passed_over, names)):
                        return ""
                    links = (os.path.join(top, *names[: n + 1]) for n in range(len(names)))
                    return "" if any(map(os.path.islink, links)) else folder.rstrip("/") + inside
        return path

    def lost(self) -> None:
        """Events were lost. Thread-safe."""
        with self._lock:
            self._rescan = True
            self.overflows += 1
        self._wake()

    # -------------------------------------------------------------------------- called by the owner

    def load(self, known: Iterable[tuple[str, Signature]]) -> None:
        """What had its final verdict in an earlier run."""
        self._index.load(known)

    def settle(self, path: str, signature: Signature) -> None:
        """This path had its final verdict; sweeps and hints are silent about it until it changes."""
        self._index.settle(path, signature)
        self._noted.pop(path, None)

    def forget(self, path: str) -> None:
        """Bring a settled path up again."""
        self._index.forget(path)

    def start(self) -> None:
        """Watch all folders; a folder that is missing is watched when it appears."""
        for logger in _OBSERVER_LOGS:
            logger.addHandler(self._listener)
            logger.setLevel(logging.WARNING)  # whatever the level of our own log
        self._arm()

    def stop(self) -> None:
        """End the threads; waits for at most a few seconds."""
        for logger in _OBSERVER_LOGS:
            logger.removeHandler(self._listener)
        self._disarm()
        self._stop_polling.set()
        if self._poller is not None:
            self._poller.join(timeout=5)
            self._poller = None

    def drain(self) -> Hints:
        """What events have named since the last call, without what is settled as it is."""
        with self._lock:
            paths, self._hints = sorted(self._hints), set()
            moved, self._moved = frozenset(self._moved), set()
            rescan, self._rescan = self._rescan, False
        return Hints([path for path in paths if not self._is_settled(path)], rescan, moved)

    def sweep(self) -> Sweep:
        """Supervise the watches, then list all folders."""
        self.supervise()
        with self._lock:
            hinted = self._recent[0] | self._recent[1]
            self._recent = (set(), self._recent[0])
        leaked = self._unhinted - hinted
        self.found_only_by_sweep += len(leaked)
        found = self._index.sweep(self.folders)
        with self._lock:
            hinted |= self._recent[0]
        new = {p: s for p, s in found.candidates if self._noted.get(p) != s}
        self._unhinted = {p for p in new if p not in hinted and self._is_native(p)} if self._swept else set()
        self._noted = dict(found.candidates)
        self._swept = True
        return found

    def supervise(self) -> list[str]:
        """Set up again what is dead or watches something else by now; what was wrong, in words."""
        problems = self._problems()
        if problems:
            self.rearmed += 1
            self._disarm()
            self._arm()
            with self._lock:
                self._rescan = True
        return problems

    def healthy(self) -> tuple[bool, str]:
        """True when every folder is there and watched; and how each is watched."""
        words = ", ".join(f"{folder}: {mode}" for folder, mode in self.modes.items())
        return not self.missing() and not self._problems(), words

    def missing(self) -> list[str]:
        """Drop folders that were not there at the last look."""
        return [folder for folder, mode in self.modes.items() if mode.startswith("missing")]

    # ----------------------------------------------------------------------------------------- inside

    def _is_settled(self, path: str) -> bool:
        try:
            return self._index.is_settled(path, signature_of(os.lstat(path)))
        except OSError:
            return False

    def _is_native(self, path: str) -> bool:
        return any(self.modes.get(f) == "native" and path.startswith(f + os.sep) for f in self.folders)

    def _arm(self) -> None:
        self._armed.clear()
        for folder in self.folders:
            try:
                st = os.stat(folder)
            except OSError as error:
                self.modes[folder] = f"missing: {error.strerror}"
                continue
            self._armed[folder] = (st.st_dev, st.st_ino)
            self._real[folder] = os.path.realpath(folder)
            self.modes[folder] = self._watch(folder)
        polled = any(mode.startswith("polling") for mode in self.modes.values())
        if polled and not (self._poller and self._poller.is_alive()):
            self._stop_polling.clear()
            self._poller = threading.Thread(
                target=self._poll, args=(self._times(),), name="poller", daemon=True
            )
            self._poller.start()

    def _watch(self, folder: str) -> str:
        """Try events for one folder; the mode that it has now."""
        filesystem = filesystems.filesystem_of(folder)
        if self._kind == "polling":
            return "polling"
        if self._kind == "auto" and filesystem.startswith(filesystems.NETWORK):
            return f"polling: {filesystem} sends no events"
        try:
            if self._observer is None:
                self._observer = Observer()
                self._observer.start()
            # Of a link the kernel is told not to follow it, and would watch the link itself.
            self._observer.schedule(_Handler(self), self._real[folder], recursive=True, event_filter=EVENTS)
        except (OSError, RuntimeError) as error:  # no inotify instances, watches or threads left
            return f"polling: events cannot be had: {error}"
        return "native"

    def _disarm(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            with contextlib.suppress(Exception):  # whatever its state, drop it
                observer.stop()
                observer.join(timeout=5)

    def _problems(self) -> list[str]:
        problems = []
        for folder in self.folders:
            try:
                st = os.stat(folder)
            except OSError:
                if folder in self._armed:
                    problems.append(f"{folder} is gone")
                continue
            if folder not in self._armed:
                problems.append(f"{folder} has appeared")
            elif self._armed[folder] != (st.st_dev, st.st_ino):
                problems.append(f"{folder} was replaced by another folder")
        if any(mode == "native" for mode in self.modes.values()):
            observer = self._observer
            reader = getattr(observer, "_inotify_fd", observer)  # the thread that reads the kernel's queue
            if not (observer.is_alive() and reader.is_alive()):
                problems.append("the observer is dead")
            elif not all(emitter.is_alive() for emitter in observer.emitters):
                problems.append("a watch is dead")
        if any(mode.startswith("polling") for mode in self.modes.values()) and not (
            self._poller and self._poller.is_alive()
        ):
            problems.append("the poller is dead")
        return problems

    def _poll(self, seen: dict[str, tuple[int, int]]) -> None:
        """List a folder when its time has changed, and once more at the next look: two changes within
        one tick of the file system's clock leave one time."""
        before = set(seen)
        while not self._stop_polling.wait(self._poll_seconds):
            now = self._times()
            changed = {folder for folder, times in now.items() if seen.get(folder) != times}
            for folder in changed | before:
                with contextlib.suppress(OSError):
                    self._list(folder, known=now.keys())
            seen, before = now, changed

    def _times(self) -> dict[str, tuple[int, int]]:
        """Inode and time of every folder that is polled."""
        polled = [f for f, mode in self.modes.items() if mode.startswith("polling")]
        times = {}
        for folder in {*polled, *(f for f in self._index.folders if f.startswith(tuple(polled)))}:
            with contextlib.suppress(OSError):
                st = os.stat(folder)
                times[folder] = (st.st_ino, st.st_mtime_ns)
        return times

    def _list(self, folder: str, known: Container[str]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_fits(entry.name):
                    if not self._is_settled(entry.path):
                        self.hint(entry.path)
                elif (
                    entry.is_dir(follow_symlinks=False)
                    and not is_passed_over(entry.name)
                    and entry.path not in known
                ):
                    self.hint(entry.path, folder=True)
