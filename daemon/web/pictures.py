"""Pictures and FITS files of looks and products: by number and key from the ledger, never by a path.

found = find(db, "look", 12, "18f3a0b2c1")      # what is meant, or None
read(source.read, found, products, 256)         # (bytes, type) of its picture, or None
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import Any

from daemon.ledger import board
from daemon.ledger.board import Shown
from daemon.ledger.store import Reader
from pipeline.errors import NiridError
from pipeline.files import disk, thumbnails
from pipeline.files.structure import structure_of

FULL = 0
SIZES = {"96": 96, "256": 256, "512": 512, "fixed": thumbnails.FIXED, "full": FULL}
CACHE_BYTES = 64 << 20
MOST_BYTES = 64 << 20  # of a picture
MOST_KNOWN = 200  # pictures of which it is remembered what they say


class Cache:
    """The pictures that were asked for last, up to a number of bytes."""

    def __init__(self, most: int = CACHE_BYTES) -> None:
        self._most, self._size, self._lock = most, 0, Lock()
        self._kept: OrderedDict[Any, bytes] = OrderedDict()

    def get(self, key: Any) -> bytes | None:
        with self._lock:
            if (found := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: Any, content: bytes) -> None:
        if len(content) > self._most // 4:
            return
        with self._lock:
            self._size += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self._size > self._most:
                self._size -= len(self._kept.popitem(last=False)[1])


def find(db: Reader, kind: str, number: int, key: str) -> Shown | None:
    """What is meant, if its picture is still the one that was meant."""
    if number >= 1 << 62:
        return None
    found = (
        board.look(db, number) if kind == "look" else board.product(db, number) if kind == "product" else None
    )
    return found if found and found.key == key else None


Reading = Callable[[], AbstractContextManager[Reader]]


def stands_for(reading: Reading, shown: Shown, job: str | None, fd: int) -> bool:
    """Whether an open file belongs to this, and not to what has come to the same path since.

    A product has the key of its job in its header. A look is known by its time: a later one at its path is
    written when this one had ended, and is on record from when it was begun.

    job : that the file names; None of a picture of an earlier release, which names none
    reading : opens the ledger; no reader is held while files are, whose folder may hang
    """
    if shown.kind == "product":
        return job is None or job == shown.job
    if os.fstat(fd).st_mtime <= shown.at:
        return True
    with reading() as db:
        return board.is_last_begun(db, shown)


def job_of(fd: int) -> str:
    """The job that an open FITS file says to be of; "" where it says none, or is damaged."""
    try:
        return str(structure_of(fd).phu.get("JOBKEY", ""))
    except NiridError:
        return ""
    finally:
        os.lseek(fd, 0, os.SEEK_SET)


def read(reading: Reading, shown: Shown, products: Path, size: int) -> tuple[bytes, str] | None:
    """(content, media type) of its picture; None when it is not there any more.

    size : of SIZES; where a picture has no copy of that size (of an earlier release), the whole; where it has
    none at the fixed scale (a mask, a master), the same size at its own
    """
    with disk.opened_below(Path(shown.path).with_suffix(".png"), products) as fd:
        if fd is None or not stands_for(reading, shown, thumbnails.known(fd).get("job"), fd):
            return None
        for wanted in (size, 512) if size == thumbnails.FIXED else (size,) if size != FULL else ():
            if (small := thumbnails.small(fd, wanted)) is not None:
                return small, "image/jpeg"
        length = os.fstat(fd).st_size
        return (os.pread(fd, length, 0), "image/png") if length <= MOST_BYTES else None


_known: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
_lock = Lock()  # several threads answer at the same time


def known(path: str, key: str) -> dict[str, Any]:
    """What the picture beside a FITS file says of its sky and its greys; key : changes when it does"""
    with _lock:
        if (told := _known.get((path, key))) is not None:
            return told
    picture = Path(path).with_suffix(".png")
    with disk.opened_below(picture, picture.parent) as fd:
        if fd is None:
            return {}
        told = thumbnails.known(fd)
    with _lock:
        _known[path, key] = told
        while len(_known) > MOST_KNOWN:
            _known.popitem(last=False)
    return told
