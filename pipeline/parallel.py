"""One job by several threads: frame by frame, or band by band of rows.

    with threads(2):
        frames = run_all(read, sources)

Compiled loops, numpy's, hashing and reading release the interpreter lock, so one job can use a core that no
other job wants. Results do not depend on the number of threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")

MOST_THREADS = 4  # of a job; a science job can use only one thread for half of its time
_pool: ContextVar[tuple[ThreadPoolExecutor, int] | None] = ContextVar("pool", default=None)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads(number: int) -> Iterator[None]:
    """`run_all` uses so many threads inside, at most MOST_THREADS; one is none besides the caller's own."""
    number = min(number, MOST_THREADS)
    if number < 2:
        yield
        return
    with ThreadPoolExecutor(number, "of-a-job") as pool:
        token = _pool.set((pool, number))
        try:
            yield
        finally:
            _pool.reset(token)


def run_all(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What the function makes of each, in order, several at a time where there are threads for it.

    What is called from one of these threads uses no others. The first failure, in the order of the items, is
    raised when no call is under way any more. RuntimeError when no thread can be started.
    """
    ours, todo = _pool.get(), list(items)
    if ours is None or len(todo) < 2:
        return [function(item) for item in todo]

    def alone(item: T) -> R:
        _pool.set(None)
        return function(item)

    calls: list[Future[R]] = []
    try:
        for item in todo:
            calls.append(ours[0].submit(copy_context().run, alone, item))
        return list(map(Future.result, calls))
    except BaseException:
        list(map(Future.cancel, calls))
        wait(calls)
        raise
    finally:
        # The error knows this frame: if this frame knew the calls, the error among them, and the planes that
        # they have made, would stay until the collector comes.
        calls.clear()


def run_both(one: Callable[[], T], other: Callable[[], R]) -> tuple[T, R]:
    """What two functions make, at the same time where there are threads for it; fails as `run_all`."""
    made: list[Any] = run_all(lambda make: make(), (one, other))
    return made[0], made[1]


def shares(items: Sequence[T]) -> list[Sequence[T]]:
    """The items in as many runs as there are threads, for what is best done a run at a time."""
    ours = _pool.get()
    number = min(ours[1] if ours else 1, len(items))
    return [items[len(items) * k // number : len(items) * (k + 1) // number] for k in range(number)]


@dataclass
class Memo(Generic[K, T]):
    """Results by key, each worked out once. most : how many are kept; the oldest goes first"""

    most: int | None = None
    _known: dict[K, T] = field(default_factory=dict)
    _locks: dict[K, Lock] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: K, make: Callable[[], T]) -> T:
        """The stored result, else what `make` returns: the first thread that asks makes it, the
        others wait."""
        with self._lock:
            own = self._locks.setdefault(key, Lock())
        with own:
            with self._lock:
                if key in self._known:
                    return self._known[key]
                while self.most is not None and len(self._known) >= self.most:
                    del self._known[next(iter(self._known))]
            made = make()
            with self._lock:
                self._known[key] = made
            return made
