"""A copy of the database put back in its place, with all that was decided and made since.

    answer = restore(config, Path("/backup/nirid-monday.db"))

Nothing is changed before the copy has proven whole; the database that was there is kept under another name.
People's decisions since the copy are in PRODUCTS/.nirid/decisions.jsonl, products carry their provenance:
`rebuild` takes both into the database, so that nothing is reduced again.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from daemon import app, instance, owner
from daemon.config.options import Config
from daemon.instance import AlreadyRunning
from daemon.ledger import cells, upgrade
from daemon.ledger import copy as ledger_copy
from daemon.upkeep import rebuild
from pipeline.errors import NiridError
from pipeline.files import disk

PART = ".restored"


def restore(config: Config, copy: Path) -> dict[str, Any]:
    """Put `copy` in the place of the database and bring it up to date.

    Answers {"file", "kept" (what was there, or None), "products", "decisions", "files", "left", "audit"}.
    Raises AlreadyRunning while a daemon runs; ConfigError for a copy of a newer program, and when the folders
    may not be written; NiridError for what is no whole copy, and without the folders; OSError.
    """
    check_copy(copy, config.database)
    folders = [("drop", folder) for folder in config.drop_folders] + [("products", config.product_folder)]
    for name, folder in folders:
        if not folder.is_dir():
            raise NiridError(f"{folder}: no such {name} folder: is it mounted? Nothing was changed")
    if instance.running(config) is not None:
        raise AlreadyRunning(f"a daemon runs on {config.state_folder}: stop it first")
    part = _fetch(config, copy)
    try:
        with owner.acting(config):
            answer = app.offline(config, partial(_put_in_place, part, config.database))
    finally:
        part.unlink(missing_ok=True)
    return {"file": str(copy), **answer}


def check_copy(copy: Path, database: Path) -> None:
    """Raises NiridError unless it is a whole database of a daemon's; ConfigError for a newer program's."""
    if not copy.is_file():
        raise NiridError(f"{copy}: {'no plain file' if copy.exists() else 'no such file'}")
    if not os.access(copy, os.R_OK):
        raise NiridError(f"{copy}: you may not read it")
    if database.exists() and copy.samefile(database):
        raise NiridError(f"{copy} is the database itself, no copy of it")
    found = cells.examine_copy(copy)
    if found.errors or found.cells:
        what = f"{', '.join(found.cells)} cannot be read" if found.cells else found.errors
        raise NiridError(f"{copy} is damaged: {what}")
    if not found.ours:
        raise NiridError(f"{copy} is no copy of a daemon's database")
    upgrade.check(copy)


def _fetch(config: Config, copy: Path) -> Path:
    """The copy in the state folder, as its owner's; read by whoever runs this, as it may be root's alone."""
    owner_before = owner.of(config)
    if os.geteuid() != 0:
        owner.check(config)
    if not config.state_folder.is_dir():
        config.state_folder.mkdir(mode=0o750, parents=True)
        if owner_before is not None and os.geteuid() == 0:
            os.chown(config.state_folder, owner_before.st_uid, owner_before.st_gid)
    part = config.state_folder / f".{config.database.name}.{os.getpid()}{PART}"
    ledger_copy.copy_whole(copy, part)
    if owner_before is not None and os.geteuid() == 0:
        os.chown(part, owner_before.st_uid, owner_before.st_gid)
    return part


def _put_in_place(part: Path, database: Path) -> Path | None:
    kept = rebuild.put_aside_if_there(database)
    os.replace(part, database)
    for stale in database.parent.glob(f".{database.name}.*{PART}"):  # of one that was killed
        stale.unlink()
    disk.sync(database.parent)
    return kept
