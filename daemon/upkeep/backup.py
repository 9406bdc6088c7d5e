"""Copies of the database, consistent while the daemon writes, and whole or not there at all.

    backup(config.database, Path("/backup/nirid.db"))
    nightly(config)                   # STATE/backups/nirid-20160102.db, the newest seven

`daemon.restore` puts one in its place again. What landed since is found, and products that were made since
are taken back from their provenance (`rebuild`), so that nothing is reduced again.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from daemon.config.options import Config
from daemon.ledger.copy import copy_whole
from pipeline.errors import NiridError
from pipeline.files import outputs

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
