"""Calibrated frames on disk, by a key of all that went into them: a file each, shared by all workers.

Only a cache: what is missing, damaged, of another release, or cannot be written is made again, and no
error of the file system comes out of here. Nothing is unpickled: a file is a line of JSON, then planes.

    MAGIC, length of the JSON (8 digits), sum of what follows (16 hex digits), JSON, blanks, planes
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"nirid frame 1\n"
HEAD = len(MAGIC) + 8 + 16
ALIGNED = 64
SUFFIX, PART = ".frame", ".part"
DTYPES = ("float32", "uint16", "int32")
MOST_PIXELS = 1 << 28  # of a plane: no file says how much memory we take

Planes = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class FrameCache:
    """A folder of entries, the least recently used of which go when they take more than `limit_mb`."""

    folder: Path
    limit_mb: int

    def get(self, key: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]] | None:
        """What was put under this key: plain data and planes; None when it is not there."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                os.utime(file.fileno())  # used now
                return _read(file, key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def put(self, key: str, data: Mapping[str, Any], planes: Planes) -> None:
        """Keep plain data and planes; where that cannot be, nothing happens."""
        part = self._path(key).with_suffix(f".{os.getpid()}{PART}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(_head(key, data, planes))
                for plane in planes.values():
                    file.write(np.ascontiguousarray(plane).data)
            os.replace(part, self._path(key))
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()

    def trim(self) -> None:
        """Remove what was used longest ago, until the rest is within the limit."""
        with contextlib.suppress(OSError):
            found = []
            for entry in os.scandir(self.folder):
                if entry.name.endswith((SUFFIX, PART)):
                    with contextlib.suppress(FileNotFoundError):  # another worker trims as well
                        found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
            room = self.limit_mb << 20
            for _, size, path in sorted(found, reverse=True):
                room -= size
                if room < 0:
                    with contextlib.suppress(OSError):
                        os.unlink(path)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"


def _head(key: str, data: Mapping[str, Any], planes: Planes) -> bytes:
    about = {name: [plane.dtype.name, list(plane.shape)] for name, plane in planes.items()}
    text = json.dumps({"key": key, "data": data, "planes": about}).encode()
    text += b" " * (-(HEAD + len(text)) % ALIGNED)
    total = (_sum(np.frombuffer(text, np.uint8)) + sum(_sum(plane) for plane in planes.values())) % 2**64
    return MAGIC + b"%08d%016x" % (len(text), total) + text


def _read(file: Any, key: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Raises ValueError, KeyError or TypeError for what `put` has not written so under this key."""
    head = file.read(HEAD)
    if len(head) != HEAD or not head.startswith(MAGIC):
        raise ValueError("not an entry")
    length, total = int(head[len(MAGIC) : len(MAGIC) + 8]), int(head[-16:], 16)
    text = file.read(length)
    entry = json.loads(text)
    if entry["key"] != key:
        raise ValueError("another entry")
    if not isinstance(entry["data"], dict):
        raise TypeError("not plain data")
    planes, found = {}, _sum(np.frombuffer(text, np.uint8))
    for name, (dtype, shape) in entry["planes"].items():
        count = int(np.prod(shape))
        if dtype not in DTYPES or not 0 <= count <= MOST_PIXELS:
            raise ValueError("not a plane")
        planes[name] = np.fromfile(file, dtype, count).reshape(shape)
        found += _sum(planes[name])
    if found % 2**64 != total or file.read(1):
        raise ValueError("damaged")
    return entry["data"], planes


def _sum(plane: npt.NDArray[Any]) -> int:
    """Of the bytes as 64-bit words: no digest, but it tells torn and rotten files at the speed of memory."""
    flat = np.ascontiguousarray(plane).reshape(-1).view(np.uint8)
    whole = flat.size - flat.size % 8
    return int(flat[:whole].view(np.uint64).sum(dtype=np.uint64)) + int(flat[whole:].sum(dtype=np.uint64))
