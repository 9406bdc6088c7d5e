"""A drop folder and its watcher."""

import os
import threading
import time
from pathlib import Path

from daemon.arrivals.watcher import Watcher
from daemon.model.files import signature_of

PATIENCE = 5.0  # s; only a failure takes this long


class Drop:
    """A drop folder, its watcher, and the event that the watcher sets."""

    def __init__(self, folder: Path, **options) -> None:
        self.folder = folder
        self.woken = threading.Event()
        self.seen: set[str] = set()  # all that was ever hinted
        self.moved: set[str] = set()  # of these, what came by rename
        self.watcher = Watcher([str(folder)], wake=self.woken.set, **{"poll_seconds": 0.02, **options})

    def hinted(self, *names: str) -> bool:
        """True as soon as events have named all of these."""
        missing, until = set(names), time.monotonic() + PATIENCE
        while missing and time.monotonic() < until:
            self.woken.clear()
            hints = self.watcher.drain()
            self.seen |= {os.path.relpath(path, self.folder) for path in hints.paths}
            self.moved |= {os.path.relpath(path, self.folder) for path in hints.moved}
            missing -= self.seen
            if missing:
                self.woken.wait(0.2)
        return not missing

    def asked_to_sweep(self) -> bool:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            self.woken.clear()
            if self.watcher.drain().rescan:
                return True
            self.woken.wait(0.2)
        return False

    def put(self, name: str, data: bytes = b"x") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def swept(self) -> list[str]:
        return [os.path.relpath(path, self.folder) for path, _ in self.watcher.sweep().candidates]

    def settle(self, *names: str) -> None:
        for name in names:
            path = str(self.folder / name)
            self.watcher.settle(path, signature_of(os.lstat(path)))
