"""A whole copy of a database that may be written meanwhile."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from daemon import disk
from pipeline.caldb import readonly_uri
from pipeline.errors import NiridError


def copy_whole(database: Path, target: Path) -> None:
    """Copy a database that may be written meanwhile; the copy is compact, checked and flushed before it takes
    its name. Raises NiridError when it is not whole or cannot be written, OSError."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with contextlib.closing(sqlite3.connect(readonly_uri(database), uri=True, timeout=10.0)) as db:
            db.execute("VACUUM INTO ?", (str(part),))
        with contextlib.closing(sqlite3.connect(part)) as copy:
            said = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            raise NiridError(f"{database} is damaged, so is a copy of it: {said}")
        part.chmod(0o640)
        disk.sync(part)
        os.replace(part, target)
    except sqlite3.Error as error:
        raise NiridError(f"{database} cannot be copied to {target}: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    disk.sync(target.parent)
