"""The calibration store: which processed calibrations exist, where, and what they may be used for.

    store = CalStore(db)                       # an open peewee database
    store.add(candidate, path, sha256)
    match = store.best_match(CalKind.DARK, descriptors)

The toolkit keeps one in a file of its own (`open_store("cal_manager.db")`); the daemon keeps one in the
file of its ledger, and `CalStore` on that open database commits together with it. Nothing is ever
deleted: what is removed or replaced stays, marked, so that provenance can be followed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import peewee as pw

from pipeline import association
from pipeline.association import CalibrationKey, CalKind, Candidate, Match
from pipeline.errors import ConfigError
from pipeline.files.places import readonly_uri
from pipeline.headers.descriptors import Descriptors
from pipeline.names import base_of

SCHEMA_VERSION = 1
COMPONENT = "caldb"
MOST_FOR_EXPLAIN = 200  # candidates of a kind that are compared when nothing fits, nearest in time first


@lru_cache(maxsize=8)
def models(db: pw.Database) -> SimpleNamespace:
    """The tables, bound to this database only: binding one class to a second database blinds the first."""

    class Base(pw.Model):
        class Meta:
            database = db

    class Schema(Base):
        component = pw.TextField(primary_key=True)
        version = pw.IntegerField()

    class Calibration(Base):
        """One processed calibration. `removed` is when and `reason` why it is no longer to be used."""

        kind = pw.TextField()
        key = pw.TextField()  # CalibrationKey
        name = pw.TextField()
        path = pw.BlobField()  # bytes: file names need not be text
        sha256 = pw.TextField()
        ident = pw.TextField(index=True)
        origin = pw.TextField(default="")
        facts = pw.TextField()  # JSON
        ut = pw.DoubleField()  # seconds since the epoch
        added = pw.DoubleField()
        removed = pw.DoubleField(null=True)
        reason = pw.TextField(default="")

        class Meta:
            indexes = ((("key", "ut"), False), (("kind", "ut"), False), (("path",), False))

    return SimpleNamespace(Schema=Schema, Calibration=Calibration)


def open_store(path: str | Path, *, readonly: bool = False) -> CalStore:
    """A store in a file of its own; made when it is not there. Close it with `store.db.close()`.

    Raises ConfigError for a file that SQLite cannot open, or that is busy for 10 s.
    """
    if readonly:
        pragmas: dict[str, Any] = {"query_only": 1, "busy_timeout": 10_000}
        db = pw.SqliteDatabase(readonly_uri(path), uri=True, pragmas=pragmas)
    else:
        pragmas = {"busy_timeout": 10_000, "journal_mode": "wal", "synchronous": "full"}
        db = pw.SqliteDatabase(str(path), pragmas=pragmas)
    try:
        db.connect()
        return CalStore(db, create=not readonly)
    except pw.OperationalError as error:
        db.close()
        raise ConfigError(f"{path}: {error}") from error


class CalStore:
    """add, remove, list, get. Methods that write may be called inside a transaction of the caller's."""

    def __init__(self, db: pw.Database, *, create: bool = True) -> None:
        self.db = db
        self._tables = models(db)
        if create:
            with db.atomic("IMMEDIATE"):
                db.create_tables([self._tables.Schema, self._tables.Calibration], safe=True)
                check_schema(db, COMPONENT, SCHEMA_VERSION)

    def add(self, calibration: Candidate, *, now: float | None = None) -> Candidate:
        """Register a calibration and return it as stored; the same one twice is one.

        What lay at its path before, and an older version made of the same raw frames, is marked as replaced.
        """
        table, now = self._tables.Calibration, time.time() if now is None else now
        path = os.fsencode(calibration.path)
        with self.db.atomic("IMMEDIATE"):
            live = table.select().where(table.removed.is_null())
            for row in live.where((table.path == path) & (table.kind == calibration.kind.value)):
                if (row.sha256, row.ident) == (calibration.sha256, calibration.ident):
                    return _candidate(row)
            older = table.path == path
            if calibration.origin:
                older |= (table.origin == calibration.origin) & (table.kind == calibration.kind.value)
            replaced = {"removed": now, "reason": f"replaced by {calibration.name}"}
            table.update(replaced).where(older & table.removed.is_null()).execute()
            row = table.create(
                kind=calibration.kind.value,
                key=str(CalibrationKey.of(calibration.kind, calibration.facts)),
                name=calibration.name,
                path=path,
                sha256=calibration.sha256,
                ident=calibration.ident,
                origin=calibration.origin,
                facts=json.dumps(dict(calibration.facts), sort_keys=True),
                ut=calibration.ut.timestamp(),
                added=now,
            )
            return _candidate(row)

    def remove(self, name: str, reason: str, *, now: float | None = None) -> list[Candidate]:
        """Take calibrations out of use; returns those that were in use.

        name : a path means the one there and no other; a bare file name means those of this name
        """
        table, now = self._tables.Calibration, time.time() if now is None else now
        with self.db.atomic("IMMEDIATE"):
            live = table.select().where(table.removed.is_null())
            rows = list(live.where(table.path == os.fsencode(name)))
            if not rows and os.sep not in name:
                rows = list(live.where(table.name.in_(_stems(name))))
            ids = [row.id for row in rows]
            table.update({"removed": now, "reason": reason}).where(table.id.in_(ids)).execute()
        return [_candidate(row) for row in rows]

    def remove_ident(self, ident: str, reason: str, *, now: float | None = None) -> list[Candidate]:
        """The same by what made it (job key, or hash of the file)."""
        table, now = self._tables.Calibration, time.time() if now is None else now
        with self.db.atomic("IMMEDIATE"):
            rows = list(table.select().where((table.ident == ident) & table.removed.is_null()))
            ids = [row.id for row in rows]
            table.update({"removed": now, "reason": reason}).where(table.id.in_(ids)).execute()
        return [_candidate(row) for row in rows]

    def list(self, kind: CalKind | None = None) -> Sequence[Candidate]:
        """Everything in use, by kind and time."""
        table = self._tables.Calibration
        query = table.select().where(table.removed.is_null())
        if kind:
            query = query.where(table.kind == kind.value)
        return [_candidate(row) for row in query.order_by(table.kind, table.ut, table.id)]

    def get(self, name: str) -> Candidate | None:
        """The calibration in use at a path, or of a file name; None when there is none."""
        table = self._tables.Calibration
        named = (table.path == os.fsencode(name)) | (table.name.in_(_stems(name)))
        row = table.get_or_none(named & table.removed.is_null())
        return _candidate(row) if row else None

    def withdrawn(self, ident: str) -> bool:
        """True when a calibration was once in use, is not any more, and nothing of its kind replaced it."""
        table = self._tables.Calibration
        rows = list(table.select(table.removed, table.reason).where(table.ident == ident))
        gone = [row for row in rows if row.removed is not None]
        return bool(gone) and len(gone) == len(rows) and not gone[-1].reason.startswith("replaced by ")

    def candidates(self, kind: CalKind, target: Descriptors, *, exact: bool = True) -> Sequence[Candidate]:
        """Calibrations for `association.best_match`, by index.

        exact : only those whose key agrees; else all of the kind, nearest in time first, for `explain`
        """
        rule, when = association.RULES[kind], target.ut_datetime.timestamp() if target.ut_datetime else 0.0
        if not exact:
            return [_candidate(row) for row in self._nearest(kind, when, MOST_FOR_EXPLAIN)]
        # In SQL: half a year of nights is asked for at every step of planning.
        span = rule.within.total_seconds() if rule.within else 1e12
        key = str(CalibrationKey.of(kind, target))
        rows = self._rows("key = ? AND ut BETWEEN ? AND ?", key, when - span, when + span)
        return [_candidate(row) for row in rows]

    def _nearest(self, kind: CalKind, when: float, most: int) -> Sequence[_Row]:
        """Of a kind, nearest in time first: so many at most of those before and of those after, by index."""
        after = self._rows("kind = ? AND ut >= ? ORDER BY ut, id LIMIT ?", kind.value, when, most)
        before = self._rows("kind = ? AND ut < ? ORDER BY ut DESC, id LIMIT ?", kind.value, when, most)
        return sorted([*after, *before], key=lambda row: (abs(row.ut - when), row.id))[:most]

    def _rows(self, where: str, *values: Any) -> Sequence[_Row]:
        """Of calibrations in use."""
        sql = f"SELECT {', '.join(_Row._fields)} FROM calibration WHERE removed IS NULL AND {where}"
        db: Any = self.db
        return [_Row(*row) for row in db.execute_sql(sql, values)]

    def best_match(self, kind: CalKind, target: Descriptors, *, prefer_origin: str = "") -> Match:
        """The calibration for a frame; when there is none, every candidate of the kind with why not."""
        rule = association.RULES[kind]
        found = association.best_match(
            rule, target, self.candidates(kind, target), prefer_origin=prefer_origin
        )
        if isinstance(found, association.Found):
            return found
        return association.best_match(rule, target, self.candidates(kind, target, exact=False))


def kind_of(tags: frozenset[str]) -> CalKind | None:
    """What a processed dark, flat or mask is, of its tags; None for anything else.

    BPM is looked for first: a mask made here of flats has the tag FLAT too.
    """
    if not {"NIRI", "PROCESSED"} <= tags or tags & {"SPECT", "PROCESSED_SCIENCE"}:
        return None
    if "BPM" in tags:
        return CalKind.MADE_BPM if "FLAT" in tags else CalKind.STATIC_BPM
    return CalKind.DARK if "DARK" in tags else CalKind.FLAT if "FLAT" in tags else None


def external(
    kind: CalKind, path: str, sha256: str, descriptors: Descriptors, *, name: str | None = None
) -> Candidate:
    """A calibration that was not made here, as `add` takes it. ValueError when its time is unknown."""
    if descriptors.ut_datetime is None:
        raise ValueError(f"{path}: no time of observation, so it cannot be matched to frames")
    rule = association.RULES[kind]
    facts = {key: getattr(descriptors, key) for key in (*rule.match, *rule.tolerance, "gcal_lamp", "shape")}
    return Candidate(
        kind=kind,
        name=name or _stem(path),
        ident=sha256,
        facts=facts,
        ut=descriptors.ut_datetime,
        path=path,
        sha256=sha256,
    )


def _stem(path: str) -> str:
    """The file name without its endings; bytes that are no text become question marks."""
    return base_of(path).encode(errors="replace").decode()


def _stems(name: str) -> list[str]:
    """What a calibration of this file name is called here, or was by a release that heeded case."""
    return [_stem(name), os.path.basename(name).removesuffix(".fits").encode(errors="replace").decode()]


def check_schema(db: Any, component: str, version: int) -> int:
    """The version found (0: new); its row is brought to `version`. ConfigError when it is newer."""
    row = db.execute_sql("SELECT version FROM schema WHERE component = ?", (component,)).fetchone()
    found = int(row[0]) if row else 0
    if found > version:
        raise ConfigError(
            f"{component} is of schema {found}; this program knows {version}: install a newer one"
        )
    if found < version:
        db.execute_sql(
            "INSERT OR REPLACE INTO schema (component, version) VALUES (?, ?)", (component, version)
        )
    return found


class _Row(NamedTuple):
    """The columns of the table that a candidate needs."""

    id: int
    kind: str
    name: str
    path: bytes
    sha256: str
    ident: str
    origin: str
    facts: str
    ut: float
    added: float


def _candidate(row: Any) -> Candidate:
    """Of a row of the table, or a _Row."""
    return Candidate(
        kind=CalKind(row.kind),
        name=row.name,
        ident=row.ident,
        facts=_facts(row.facts),
        ut=datetime.fromtimestamp(row.ut, UTC),
        path=os.fsdecode(bytes(row.path)),
        sha256=row.sha256,
        origin=row.origin,
        made=row.id,
        added=row.added,
    )


@lru_cache(maxsize=1024)
def _facts(text: str) -> Mapping[str, Any]:
    """The same for every night that is taken with the same settings: not to be changed."""
    facts: dict[str, Any] = json.loads(text)
    return facts
