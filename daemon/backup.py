"""Copies of the database, consistent while the daemon writes, and whole or not there at all.

    backup(config.database, Path("/backup/nirid.db"))
    nightly(config)                   # STATE/backups/nirid-20160102.db, the newest seven

`daemon.restore` puts one in its place again. What landed since is found, and products that were made since
are taken back from their provenance (`rebuild`), so that nothing is reduced again.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from daemon import moves
from daemon.config import Config
from daemon.plain import clean
from pipeline import outputs
from pipeline.caldb import readonly_uri
from pipeline.errors import NiridError

FOLDER = "backups"
_NIGHTLY = re.compile(r"nirid-\d{8}\.db")


def backup(database: Path, target: Path, *, overwrite: bool = False) -> int:
    """Copy the database of a daemon that may be running; returns the bytes of the copy.

    Compact, checked, flushed, and then renamed to `target`, replacing an older copy. Raises NiridError
    when there is nothing to copy or the copy is not whole, WouldOverwrite for a target that is a database in
    use, or no copy (with overwrite: any other file goes), OSError when it cannot be written.
    """
    if not database.exists():
        raise NiridError(f"{database}: no database; has the daemon run with this state folder?")
    inputs = [f"{database}{side}" for side in ("", "-wal", "-shm", "-journal")]
    outputs.check(target, "database", inputs=inputs, overwrite=overwrite)
    copy_whole(database, target)
    return target.stat().st_size


def copy_whole(database: Path, target: Path) -> None:
    """Copy a database that may be written meanwhile; the copy is compact, checked and flushed before it takes
    its name. Raises NiridError when it is not whole or cannot be written, OSError."""
    part = target.with_name(f".{clean(target.name)}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
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
        moves.sync(part)
        os.replace(part, target)
    except sqlite3.Error as error:
        raise NiridError(f"{database} cannot be copied to {target}: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    moves.sync(target.parent)


@contextlib.contextmanager
def _as_text(part: Path) -> Iterator[str]:
    """A name for a new file that a statement can hold, also where bytes of its folder's are no text."""
    try:
        folder = os.open(part.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NiridError(f"the database cannot be copied to {part.parent}: {error.strerror}") from None
    try:
        yield f"/proc/self/fd/{folder}/{part.name}"
    finally:
        os.close(folder)


def nightly(config: Config) -> Path:
    """Today's copy, and no more than the configured number of them."""
    folder = config.state_folder / FOLDER
    folder.mkdir(mode=0o750, exist_ok=True)
    made = folder / f"nirid-{datetime.now(UTC):%Y%m%d}.db"
    backup(config.database, made)
    for old in copies(config)[config.retention.backups :]:
        old.unlink()
    return made


def copies(config: Config) -> list[Path]:
    """The nightly copies, newest first."""
    folder = config.state_folder / FOLDER
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NIGHTLY.fullmatch(p.name)), reverse=True)
