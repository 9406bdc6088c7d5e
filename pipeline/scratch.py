"""Room for the planes of large groups: a file of our own, mapped, which costs no private memory.

    with planes_on_disk(folder):
        product = run_recipe(...)

Every plane of every frame that is made meanwhile is moved into the file, whose name is gone from the
start; its room is used again when no array looks at it any more. The file grows by whole segments that the
file system has promised to hold: a full disk is an OSError here, never a bus error later.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.frame import keeping_planes

SEGMENT = 256 << 20  # bytes; a process may have some thousand maps, and descriptors of them
PAGE = mmap.ALLOCATIONGRANULARITY


@contextmanager
def planes_on_disk(folder: Path) -> Iterator[None]:
    """Planes of frames that are made inside go into a file in this folder. Raises OSError without room."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file, keeping_planes(Scratch(file.fileno()).keep):
        yield


@dataclass
class Scratch:
    """The file behind a descriptor, as room for arrays."""

    fd: int
    _segments: list[mmap.mmap] = field(default_factory=list)
    _left: int = 0  # bytes of the last segment that nothing was ever in
    _free: defaultdict[int, list[tuple[mmap.mmap, int]]] = field(default_factory=lambda: defaultdict(list))

    def keep(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The plane, in the file; one that is there already, or takes no memory, as it is."""
        if self._is_ours(plane) or 0 in plane.strides or not plane.size:
            return plane
        size = -(-plane.nbytes // PAGE) * PAGE
        segment, offset = place = self._free[size].pop() if self._free[size] else self._new(size)
        kept: npt.NDArray[Any] = np.ndarray(plane.shape, plane.dtype, segment, offset)
        weakref.finalize(kept, self._free[size].append, place).atexit = False
        kept[...] = plane
        return kept

    def _is_ours(self, plane: npt.NDArray[Any]) -> bool:
        owner: Any = plane
        while isinstance(owner, np.ndarray):
            owner = owner.base
        return isinstance(owner, mmap.mmap)

    def _new(self, size: int) -> tuple[mmap.mmap, int]:
        if size > self._left:
            start, length = sum(len(s) for s in self._segments), max(SEGMENT, size)
            os.posix_fallocate(self.fd, start, length)
            self._segments.append(mmap.mmap(self.fd, length, offset=start))
            self._left = length
        self._left -= size
        return self._segments[-1], len(self._segments[-1]) - self._left - size
