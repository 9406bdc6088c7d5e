"""SIGTERM and SIGINT as a flag that can be waited for."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable


class Signals:
    """SIGTERM and SIGINT as a flag that can be waited for; SIGHUP is taken and changes nothing.

    A threading.Event may not be set in a handler of the thread that waits for it (its lock may be
    held), so the handler writes to a pipe.
    """

    also: Callable[[], None] | None = None

    def __enter__(self) -> Signals:
        self.caught = False
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {
            number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)
        }
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda number, frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read_end)
        os.close(self._write_end)

    def _handle(self, number: int, frame: object) -> None:
        self.caught = True
        self.ring()
        if self.also is not None:
            self.also()

    def ring(self) -> None:
        """End the present wait. From any thread, or a handler."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_end, b"!")

    def wait(self, seconds: float) -> bool:
        """Wait so many seconds, or until something rings; True when a signal has come."""
        if not self.caught:
            select.select([self._read_end], [], [], seconds)
            with contextlib.suppress(BlockingIOError):
                os.read(self._read_end, 1024)
        return self.caught
