"""Room on the disks: work pauses before they are full, and goes on when there is room again.

    guard = of(config)
    why = guard.check(now)        # "" when work may go on, else why it pauses
    guard.full("No space left")   # a write failed for want of room: pause at once

Hysteresis: below low water it pauses, above 1.5 times that it goes on, and it changes at most once a
minute, however often the level changes. Low water is the larger of the configured
value and three times the biggest job. Inodes count like bytes. New frames are registered all the while.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from daemon import filesystems

if TYPE_CHECKING:
    from daemon.config.options import Config


RESUME = 1.5  # times low water
JOBS = 3  # biggest jobs that must find room
PAUSE_SECONDS = 60.0  # between two changes of the answer
LOOK_SECONDS = 5.0  # between two looks: on a network folder a look may take long
UNKNOWN = 1 << 62  # bytes: the room on a file system that does not tell
_NOT_TOLD = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL)
FULL = ("Errno 28", "Errno 122", "No space left", "quota exceeded", "disk is full")


class Room(NamedTuple):
    """inodes : None where the file system has no fixed number of them"""

    bytes: int
    inodes: int | None


def room(folder: Path) -> Room:
    """What an ordinary user may still write. OSError."""
    try:
        st = os.statvfs(folder)
    except OSError as error:
        if error.errno not in _NOT_TOLD:
            raise
        return Room(UNKNOWN, None)
    if not st.f_blocks or not st.f_frsize:  # a file system that does not tell
        return Room(UNKNOWN, None)
    return Room(st.f_bavail * st.f_frsize, st.f_favail if st.f_files else None)


def room_to_write(folder: Path) -> Room:
    """The same, for whoever has to write there. OSError also when that may not be: it is a pause as well."""
    found = room(folder)
    if not os.access(folder, os.W_OK):
        number = errno.EROFS if filesystems.is_read_only(folder) else errno.EACCES
        raise OSError(number, f"it may not be written: {os.strerror(number)}", str(folder))
    return found


def tells_of_full_disk(error: str) -> bool:
    """True for the message of an error that more room would cure."""
    return any(words.lower() in error.lower() for words in FULL)


@dataclass
class DiskGuard:
    """folders : {"products": path, ...}; low, inodes : configured low water, bytes and number of files"""

    folders: Mapping[str, Path]
    low: float
    inodes: int
    look: Callable[[Path], Room] = room
    biggest_job: int = 0  # bytes
    paused: str = ""  # why; "" when work goes on
    _changed: float = field(default=float("-inf"))
    _looked: float = field(default=float("-inf"))

    @property
    def low_bytes(self) -> float:
        return max(self.low, JOBS * self.biggest_job)

    def check(self, now: float) -> str:
        """Look, if it is time to, and say why work pauses; "" when it may go on."""
        if now - self._looked < LOOK_SECONDS:
            return self.paused
        self._looked = now
        times = RESUME if self.paused else 1.0
        problem = self._first_problem(times)
        if bool(problem) != bool(self.paused):
            if now - self._changed >= PAUSE_SECONDS:
                self.paused, self._changed = problem, now
        elif problem:
            self.paused = problem
        return self.paused

    def full(self, error: str, now: float) -> None:
        """A write has failed for want of room, whatever the numbers say."""
        self.paused, self._changed, self._looked = f"a disk is full: {error}", now, now

    def lacking(self, name: str, found: Room, times: float = 1.0) -> str:
        """Why there is too little room; "" when there is enough."""
        if found.bytes < times * self.low_bytes:
            wanted = times * self.low_bytes / 1e9
            return f"{found.bytes / 1e9:.2f} GB free for {name}, {wanted:.2f} GB wanted"
        if found.inodes is not None and found.inodes < times * self.inodes:
            return f"{found.inodes} inodes free for {name}, {times * self.inodes:.0f} wanted"
        return ""

    def _first_problem(self, times: float) -> str:
        return next(filter(None, (self._problem(name, times) for name in self.folders)), "")

    def _problem(self, name: str, times: float) -> str:
        try:
            return self.lacking(name, self.look(self.folders[name]), times)
        except OSError as error:
            return f"the folder for {name}, {self.folders[name]}: {error.strerror}"


def of(config: Config, *, writes: bool = False) -> DiskGuard:
    """writes : for the daemon itself, which must be able to write there; a command that only asks need not"""
    folders = {"products": config.product_folder, "state": config.state_folder}
    return DiskGuard(
        folders,
        config.disk.low_water_mb * 1e6,
        config.disk.low_water_inodes,
        room_to_write if writes else room,
    )
