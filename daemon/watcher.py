"""Drop folders -> candidate paths: events are hints, the sweep is the truth.

    watcher = Watcher(["drop"], observer="auto", wake=event.set)
    watcher.load(ledger.signatures())          # what is settled already: (path, Signature)
    watcher.start()                            # arm first, then sweep
    sweep = watcher.sweep()                    # new or changed files, what is gone, what was odd
    hints = watcher.drain()                    # paths named by events since the last call
    watcher.settle(path, signature)            # after a final verdict; the sweep is silent about it until it changes
    problems = watcher.supervise()             # re-arms what died; sweep() calls it too

`start`, `stop`, `sweep`, `drain`, `settle` belong to one thread (it may hang with a network folder); the observer's
threads only add paths to a bounded set. `wake` is called from them when there is something to drain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from daemon.stability import Signature

ObserverKind = Literal["auto", "native", "polling"]


class Hints(NamedTuple):
    """paths : files named by events, ours by name; rescan : events were lost or a folder came: sweep now."""

    paths: list[str]
    rescan: bool


class Sweep(NamedTuple):
    """candidates : new or changed files; gone : settled paths that are no longer there (never from a
    folder that is empty, missing or unreadable); files : all files of ours seen; ignored : counts by why;
    suspect : folder -> why its absence of files is not believed; errors : path -> what the system said;
    seconds : how long it took (`next_sweep` turns this into a polite interval)."""

    candidates: list[tuple[str, Signature]]
    gone: list[str]
    files: int
    ignored: dict[str, int]
    suspect: dict[str, str]
    errors: dict[str, str]
    seconds: float


class Watcher:
    def __init__(
        self,
        folders: Sequence[str],
        *,
        observer: ObserverKind = "auto",
        wake: Callable[[], None] = lambda: None,
        hint_limit: int = 10_000,
        poll_seconds: float = 1.0,
    ) -> None:
        self.found_only_by_sweep = 0  # files that no event had named: the leak detector
        self.rearmed = 0
        self.overflows = 0
        self.modes: dict[str, str] = {}  # folder -> "native", "polling" or "sweep only: why"

    def load(self, known: Iterable[tuple[str, Signature]]) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def drain(self) -> Hints: ...
    def sweep(self) -> Sweep: ...
    def settle(self, path: str, signature: Signature) -> None: ...
    def forget(self, path: str) -> None: ...
    def supervise(self) -> list[str]: ...
    def healthy(self) -> tuple[bool, str]: ...


def is_ours(name: str) -> bool:
    """True for *.fits, .fits.gz, .fits.bz2, .fits.fz in any case; never for dot-files or temporary names."""
    ...


def next_sweep(sweep_seconds: float, took: float) -> float:
    """Seconds to wait before the next sweep: at most one per cent of the time goes into sweeping."""
    return max(sweep_seconds, 100.0 * took)
