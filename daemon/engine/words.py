"""What a worker prints: each line goes into the daemon's log, and the last ones are kept.

A worker's own log lines are JSON and are passed on; what a library, the compiler or Python itself prints
becomes the event `worker_said`. When a worker dies, its last words tell why.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque

from daemon import logs
from daemon.model.plain import clean

KEPT, LONGEST = 12, 500  # lines, letters of each


class Words:
    """Reads the other end of `fd` in a thread of its own until it is closed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._last: deque[str] = deque(maxlen=KEPT)
        self._fatal = ""  # of a crash: a list of every thread and module follows
        self.pid = 0
        self._thread = threading.Thread(target=self._read, name="worker-words", daemon=True)

    def start(self, pid: int) -> None:
        self.pid = pid
        self._thread.start()

    def last(self, wait: float = 0.0) -> str:
        """The last line that was no log line, as of an error the one that names it; "" when there is none.

        wait : seconds to give the thread to read the rest of a worker that has died
        """
        self._thread.join(wait)
        lines = [line for line in list(self._last) if line.strip()]
        return self._fatal or (lines[-1].strip() if lines else "")

    def _read(self) -> None:
        rest = b""
        try:
            while chunk := os.read(self._fd, 1 << 16):
                *lines, rest = (rest + chunk[-(1 << 20) :]).split(b"\n")
                for line in lines:
                    self._tell(line)
                if len(rest) > 1 << 20:  # a line without end
                    self._tell(rest)
                    rest = b""
        except OSError:
            pass  # closed: the worker is gone
        finally:
            os.close(self._fd)
        if rest:
            self._tell(rest)

    def _tell(self, line: bytes) -> None:
        text = clean(line.decode("utf-8", "surrogateescape")).rstrip("\r")
        if text.startswith('{"time"'):
            try:
                logs.relay(json.loads(text))
                return
            except (ValueError, RecursionError):
                pass  # not one of our log lines after all
        if text.strip():
            self._last.append(text[:LONGEST])
            if text.startswith("Fatal Python error"):
                self._fatal = text[:LONGEST]
            logs.get().warning("worker_said", pid=self.pid, text=text[:LONGEST])
