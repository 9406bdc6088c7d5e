"""Room for the planes of large groups: a file of our own, mapped, which costs no private memory.

    with planes_on_disk(folder) as keep:
        product = run_recipe(..., keep=keep)

What `keep` is given is moved into the file, whose name is gone from the start; its room is used again when
no array looks at it any more. The file grows by whole segments that the file system has promised to hold: a
full disk is an OSError here, never a bus error later.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.frame import Keep

SEGMENT = 256 << 20  # bytes; a process may have some thousand maps, and descriptors of them
PAGE = mmap.ALLOCATIONGRANULARITY


@contextmanager
def planes_on_disk(folder: Path) -> Iterator[Keep]:
    """Moves planes into a file in this folder. Raises OSError without room, `keep` too."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Scratch(file.fileno()).keep


@dataclass
class _Segment:
    room: mmap.mmap
    holes: list[tuple[int, int]]  # (start, stop), ascending, none beside another


@dataclass
class Scratch:
    """The file behind a descriptor, as room for arrays."""

    fd: int
    _segments: list[_Segment] = field(default_factory=list)
    _left: list[tuple[_Segment, int, int]] = field(default_factory=list)  # by arrays that are gone
    _lock: Lock = field(default_factory=Lock)  # one thread at a time looks for room

    def keep(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The plane, in the file; one that is there already, or takes no memory, as it is."""
        if _is_mapped(plane) or 0 in plane.strides or not plane.size:
            return plane
        size = -(-plane.nbytes // PAGE) * PAGE
        with self._lock:
            segment, start = self._take(size)
        kept: npt.NDArray[Any] = np.ndarray(plane.shape, plane.dtype, segment.room, start)
        # Arrays may be deleted at any moment, even during a search for holes: so this only notes the place.
        weakref.finalize(kept, self._left.append, (segment, start, start + size)).atexit = False
        kept[...] = plane
        return kept

    def _take(self, size: int) -> tuple[_Segment, int]:
        """The first hole that is large enough; a new segment where there is none."""
        while self._left:
            _fill_up(*self._left.pop())
        for segment in self._segments:
            for place, (start, stop) in enumerate(segment.holes):
                if stop - start >= size:
                    segment.holes[place : place + 1] = [(start + size, stop)] if stop - start > size else []
                    return segment, start
        offset, length = sum(len(segment.room) for segment in self._segments), max(SEGMENT, size)
        os.posix_fallocate(self.fd, offset, length)
        self._segments.append(_Segment(mmap.mmap(self.fd, length, offset=offset), [(0, length)]))
        return self._take(size)


def _fill_up(segment: _Segment, start: int, stop: int) -> None:
    """One more hole, as one with those beside it."""
    at = bisect(segment.holes, (start, stop))
    if at < len(segment.holes) and segment.holes[at][0] == stop:
        stop = segment.holes.pop(at)[1]
    if at and segment.holes[at - 1][1] == start:
        at -= 1
        start = segment.holes.pop(at)[0]
    segment.holes.insert(at, (start, stop))


def _is_mapped(plane: npt.NDArray[Any]) -> bool:
    owner: Any = plane
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return isinstance(owner, mmap.mmap)
