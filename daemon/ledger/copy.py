"""A whole copy of a database that may be written meanwhile."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import NiridError
from pipeline.files import disk
from pipeline.files.places import readonly_uri


def copy_whole(database: Path, target: Path) -> None:
    """Copy a database that may be written meanwhile; the copy is compact, checked and flushed before it takes
    its name. Raises NiridError when it is not whole or cannot be written, OSError."""
    try:
        with disk.replacing(target) as part:
            _copy(database, part)
    except sqlite3.Error as error:
        raise NiridError(f"{database} cannot be copied to {target}: {error}") from None
    disk.sync(target.parent)


def _copy(database: Path, part: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(readonly_uri(database), uri=True, timeout=10.0)) as db,
        _as_text(part) as name,
    ):
        db.execute("VACUUM INTO ?", (name,))
    with contextlib.closing(sqlite3.connect(part)) as copy:
        said = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if said != "ok":
        raise NiridError(f"{database} is damaged, so is a copy of it: {said}")
    part.chmod(0o640)


@contextlib.contextmanager
def _as_text(part: Path) -> Iterator[str]:
    """A path as text that a statement can hold, even when the folder's name is no valid text."""
    try:
        folder = os.open(part.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NiridError(f"the database cannot be copied to {part.parent}: {error.strerror}") from None
    try:
        yield f"/proc/self/fd/{folder}/{part.name}"
    finally:
        os.close(folder)
