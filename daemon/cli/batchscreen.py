"""What a run until nothing is left shows at a terminal: how far it is, and how long it will take.

Elsewhere than at a terminal there is a log line now and then, and no bar.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from daemon import logs

if TYPE_CHECKING:
    from daemon.ledger.batchwork import Work

EVERY = 30.0  # s between log lines where there is no terminal
SURE = 5.0  # s of work before a time is told
PER_JOB = 3.0  # frames that a job costs whatever is in it


def time_left(work: Work, seconds: float) -> float | None:
    """Seconds until it is done, by what was done in `seconds`; None while nobody can tell."""
    done = work.frames_done + PER_JOB * (work.done + work.failed)
    left = work.frames_left + PER_JOB * work.left
    return None if seconds < SURE or done <= 0 else seconds * left / done


def in_words(seconds: float | None) -> str:
    """about 3 min left"""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(5, round(seconds / 5) * 5)} s left"
    return f"about {round(seconds / 60)} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"


class Screen:
    """`reading(done, total)` and `working(work)` may be called as often as one likes."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bar: Any = None
        self._task: Any = None
        self._said = clock()
        self._began: float | None = None  # the work

    def __enter__(self) -> Screen:
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[left]}"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("looking", total=None, left="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def at_a_terminal(self) -> bool:
        return self._bar is not None

    @property
    def beside(self) -> TextIO:
        """Where log lines go meanwhile: above the bar, which they would break otherwise."""
        return cast(TextIO, _Above(self._bar.console))

    def reading(self, done: int, total: int) -> None:
        self._show("reading files", done, total, "")

    def working(self, work: Work) -> None:
        now = self._clock()
        self._began = now if self._began is None else self._began
        over = work.done + work.failed
        left = in_words(time_left(work, now - self._began)) if work.left else ""
        failed = f", {work.failed} failed" if work.failed else ""
        self._show(f"reducing{failed}", over, over + work.left, left)

    def _show(self, doing: str, done: int, total: int, left: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=doing, completed=done, total=total or None, left=left)
            return
        now = self._clock()
        if now - self._said >= EVERY:
            self._said = now
            logs.get().info("progress", doing=doing, done=done, of=total, left=left or None)


class _Above:
    """As much of a text file as a log needs; what is written appears above the bar. It has no descriptor, so
    that the log does not write past it."""

    closed = False

    def __init__(self, console: Any) -> None:
        self._console = console

    def write(self, text: str) -> int:
        from rich.text import Text

        self._console.print(Text.from_ansi(text.rstrip("\n")), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True
