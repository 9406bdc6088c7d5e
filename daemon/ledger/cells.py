"""Checks that every cell of the database holds what its column is for. A file without errors can still hold
rows that make no sense.

    damaged_cells(db)        # ["job.spec of row 7", ...]; [] when all is well

A bad sector, an editor or another program can leave a cell that SQLite's own checks pass. It is looked for at
every start and healed as a damaged database is: made anew of what is on disk (`daemon.upkeep.rebuild`).
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from daemon.ledger import upgrade
from daemon.ledger.store import connect_readonly
from daemon.model.states import FileState, JobState
from pipeline.errors import NiridError
from pipeline.files.places import readonly_uri

MOST = 5  # that are named

_KINDS = {  # what a column is declared as: what its cells may be
    "BOOL": ("integer",),
    "BLOB": ("blob",),
    "TEXT": ("text",),
    "DOUBLE": ("real", "integer"),
    "INT": ("integer",),
    "BIGINT": ("integer",),
}
_MAY_BE_EMPTY = ("job.spec", "job.makes")
# table.column: what its JSON is, and what must be in it
_JSON: dict[str, tuple[str, dict[str, str]]] = {
    "frame.tags": ("array", {}),
    "frame.descriptors": ("object", {}),
    "content.tags": ("array", {}),
    "content.descriptors": ("object null", {}),
    "job.spec": ("object", {"key": "text", "inputs": "array", "recipe": "text", "parameters": "object"}),
    "job.makes": ("object", {"kind": "text", "ut": "text", "facts": "object"}),
    "product.notes": ("array", {}),
    "product.quality": ("object", {}),
    "intent.plan": ("object", {"job": "integer", "old": "array", "final": "text", "result": "object"}),
    "decision.moves": ("array", {}),
    "decision.more": ("object", {}),
    "search.frames": ("array", {}),
    "search.state": ("object", {"suspects": "array", "good": "array", "fixed": "array"}),
    "event.fields": ("object", {}),
    "look.frames": ("array", {}),
    "look.calibrations": ("object", {}),
    "look.notes": ("array", {}),
    "look.quality": ("object", {}),
    "calibration.facts": ("object", {}),
}
_WORDS = {"job.state": tuple(JobState), "content.state": tuple(FileState), "sighting.state": tuple(FileState)}


def damaged_cells(db: sqlite3.Connection) -> list[str]:
    """The first cells that are not what they should be. Those of other releases are passed over."""
    found: list[str] = []
    for table, columns in _columns().items():
        there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        wrong = {name: test for name, test in columns.items() if name in there}
        if not wrong:
            continue
        # One walk through the table; which cell it is, is asked only of rows that are damaged.
        sql = f"SELECT rowid, {', '.join(wrong.values())} FROM {table} WHERE {' OR '.join(wrong.values())}"
        for row in db.execute(f"{sql} LIMIT {MOST}"):
            found += [
                f"{table}.{name} of row {row[0]}" for name, bad in zip(wrong, row[1:], strict=False) if bad
            ]
    return found[:MOST]


@lru_cache(maxsize=1)
def _columns() -> dict[str, dict[str, str]]:
    """{table: {column: SQL that is true of a damaged cell}}. Names are our own, never data."""
    from daemon.ledger.schema import every_table

    made: dict[str, dict[str, str]] = {}
    for table in every_table():
        meta = table._meta
        tests = {f.column_name: " OR ".join(_tests(meta.table_name, f)) for f in meta.sorted_fields}
        made[meta.table_name] = {name: f"COALESCE({test}, 0)" for name, test in tests.items() if test}
    return made


def _tests(table: str, field: Any) -> Iterator[str]:
    column, name = f'"{field.column_name}"', f"{table}.{field.column_name}"
    kinds = _KINDS.get(field.field_type, ())
    if kinds and not field.primary_key:
        allowed = (*kinds, *(("null",) if field.null else ()))
        yield f"typeof({column}) NOT IN ({', '.join(map(repr, allowed))})"
    if name in _WORDS:
        yield f"{column} NOT IN ({', '.join(repr(str(word)) for word in _WORDS[name])})"
    if name in _JSON:
        kind, inside = _JSON[name]
        good = f"json_type({column}) IN ({', '.join(map(repr, kind.split()))})"
        for key, what in inside.items():
            good += f" AND json_type({column}, '$.{key}') = '{what}'"
        # json_type of a cell that is no JSON is an error, so validity is asked first.
        empty = f"{column} <> '' AND " if name in _MAY_BE_EMPTY else ""
        yield f"({empty}CASE WHEN json_valid({column}) THEN COALESCE(NOT ({good}), 1) ELSE 1 END)"


@dataclass(frozen=True)
class Examined:
    """errors : what SQLite finds wrong, the first of them; cells : those that cannot be read, where it finds
    nothing; versions : of the schema of each component"""

    errors: tuple[str, ...]
    cells: tuple[str, ...]
    versions: Mapping[str, int]


def examine(database: Path) -> Examined:
    """Look through the whole of a database, which may be written meanwhile.

    Raises DatabaseError when it cannot be read, ConfigError when a newer program has made it.
    """
    with contextlib.closing(connect_readonly(database)) as db:
        said = [row[0] for row in db.execute("PRAGMA integrity_check(5)")]
        errors = () if said == ["ok"] else tuple(said)
        cells = () if errors else tuple(damaged_cells(db))
        versions = {row[0]: row[1] for row in db.execute("SELECT component, version FROM schema")}
    return Examined(errors, cells, versions)


@dataclass(frozen=True)
class Copy:
    """errors : what SQLite finds wrong; "" when it is whole; cells : those that cannot be read
    ours : it is of a daemon of this kind, of whatever release"""

    errors: str
    cells: tuple[str, ...]
    ours: bool


def examine_copy(copy: Path) -> Copy:
    """Look through the whole of a copy. Raises NiridError when it is no database."""
    try:
        with contextlib.closing(sqlite3.connect(readonly_uri(copy), uri=True, timeout=10.0)) as db:
            said = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            cells = damaged_cells(db) if said == "ok" else []
    except sqlite3.Error as error:
        raise NiridError(f"{copy} is no copy of a database: {error}") from None
    ours = upgrade.COMPONENT in upgrade.versions(copy) and {"frame", "content", "job"} <= tables
    return Copy("" if said == "ok" else said, tuple(cells), ours)


def damaged(database: Path) -> str:
    """Why a database cannot be used; "" when it is whole, is not there, or cannot be looked at now.

    Raises ConfigError when a newer program has made it: nothing can be said of that.
    """
    if not database.exists():
        return ""
    try:
        with contextlib.closing(connect_readonly(database)) as db:
            said = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            cells = damaged_cells(db) if said == "ok" else []
    except sqlite3.OperationalError:  # busy, no permission: not a matter of its content
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    return (", ".join(cells) + " cannot be read" if cells else "") if said == "ok" else str(said)
