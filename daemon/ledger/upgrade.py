"""The schema of the database: which one it has, and how an older one is brought up to date.

    check(path)              # ConfigError for a newer one: this program leaves it as it is
    kept = keep(path)        # a copy beside an older one, before it is touched
    upgrade(db)              # in one transaction

Down it goes by that copy only: `nirid restore STATE/nirid.db.schema-3`, with the program that knows schema 3.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from pipeline.calibrations import caldb
from pipeline.errors import ConfigError, NiridError
from pipeline.files.places import readonly_uri

PATIENCE = 10.0  # s that a lock of another program is waited for
COMPONENT = "ledger"
VERSION = 5
# {version: what makes the next one of it}; tables and indexes that are missing are made anyhow
STEPS = {
    1: ("DROP INDEX IF EXISTS job_makes_key", "DROP INDEX IF EXISTS job_state_priority_ut"),
    2: ("ALTER TABLE demand ADD COLUMN chosen REAL",),
    3: (  # a job may have several calibrations of one role: the standards of its night
        """CREATE TABLE job_calibrations (job_id INTEGER NOT NULL REFERENCES job (id), role TEXT NOT NULL,
        ident TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (job_id, role, ident))""",
        "INSERT INTO job_calibrations SELECT job_id, role, ident, name FROM job_calibration",
        "DROP TABLE job_calibration",
        "ALTER TABLE job_calibrations RENAME TO job_calibration",
        'CREATE INDEX "job_calibration_job_id" ON "job_calibration" ("job_id")',
        'CREATE INDEX "job_calibration_ident" ON "job_calibration" ("ident")',
    ),
    4: (),  # a new table: measure
}


def known() -> dict[str, int]:
    """{component: the version that this program writes}."""
    return {COMPONENT: VERSION, caldb.COMPONENT: caldb.SCHEMA_VERSION}


def versions(database: Path, seconds: float = PATIENCE) -> dict[str, int]:
    """{component: version} of a database; {} when it is not there, damaged, locked or another program's.

    seconds : that a lock of another is waited for
    """
    if not database.exists():
        return {}
    try:
        with contextlib.closing(sqlite3.connect(readonly_uri(database), uri=True, timeout=seconds)) as db:
            rows = db.execute("SELECT component, version FROM schema").fetchall()
    except sqlite3.Error:
        return {}
    return {name: version for name, version in rows if isinstance(version, int)}


def check(database: Path, seconds: float = PATIENCE) -> None:
    """Raises ConfigError, which says what to do, when a newer program has made or changed the database."""
    for name, found in versions(database, seconds).items():
        if found <= known().get(name, found):
            continue
        kept = kept_name(database, VERSION)
        back = (
            f"go back to the copy of before (nirid restore {kept})" if kept.exists() else "restore a backup"
        )
        raise ConfigError(
            f"{database}: {name} is of schema {found}; this program knows {known()[name]}, and leaves it "
            f"as it is: install the newer release, or {back}"
        )


def is_older(database: Path) -> bool:
    """True when the next start of the daemon brings it up to date."""
    return any(found < known().get(name, found) for name, found in versions(database).items())


def kept_name(database: Path, version: int) -> Path:
    return database.with_name(f"{database.name}.schema-{version}")


def keep(database: Path) -> Path | None:
    """Copy an older database, whole and checked, before it is brought up to date; None when it is not older.

    Raises NiridError when there is no room for it: then nothing is changed.
    """
    from daemon.ledger.copy import copy_whole

    if not is_older(database):
        return None
    copy = kept_name(database, versions(database).get(COMPONENT, 0))
    try:
        copy_whole(database, copy)
    except (NiridError, OSError) as error:
        raise NiridError(f"{database} is not brought up to schema {VERSION}: {error}") from None
    return copy


def upgrade(db: Any) -> None:
    """Bring the tables to VERSION. Inside a transaction; ConfigError for a newer schema."""
    found = caldb.check_schema(db, COMPONENT, VERSION)
    for version in range(found or VERSION, VERSION):
        for step in STEPS[version]:
            db.execute_sql(step)
