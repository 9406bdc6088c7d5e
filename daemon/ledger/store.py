"""The daemon's memory: one SQLite file, one writer, many short readers.

    ledger = Ledger(path, log=log)
    ledger.write(lambda tx: files.record(tx, record))        # one IMMEDIATE transaction
    with ledger.read() as db: rows = questions.jobs(db)      # query_only, short

Statements live in modules of this room, named after what they are about: what landed (`files`), what belongs
together (`groups`), what is asked (`questions`, `answers`) and so on. Each verb takes the transaction, a
question takes a `Reader`; both give plain records, and nobody outside knows a table. Here are the writer and
the readers. The calibration store of `pipeline.caldb` shares the file: `tx.cals` commits together with
everything else.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import peewee as pw

from daemon.ledger import upgrade
from daemon.ledger.schema import create_all
from pipeline.calibrations.caldb import CalStore, open_store
from pipeline.files.places import readonly_uri

T = TypeVar("T")
Log = Callable[..., None]  # log(event, **fields)
Reader = sqlite3.Connection  # an opaque type for callers that only pass it on to questions
DatabaseError = sqlite3.Error  # what reading a database may raise: it is damaged, locked, or not one
NotReadable = sqlite3.OperationalError  # the part of it that passes: locked, no permission, not made yet
SQLITE_VERSION = sqlite3.sqlite_version_info

_PRAGMAS = {
    "busy_timeout": 10_000,
    "journal_mode": "wal",
    "synchronous": "full",  # committed work survives a power cut
    "foreign_keys": 1,
    "trusted_schema": 0,
    "journal_size_limit": 64 << 20,
}


class LedgerBusy(OSError):
    """The database could not be written now (locked, disk full): try again."""


class Tx:
    """One write transaction: statements, the calibration store, and events to be logged after the commit."""

    def __init__(self, db: Any, cals: CalStore, now: float) -> None:
        self.db, self.cals, self.now = db, cals, now
        self.events: list[tuple[str, dict[str, Any]]] = []

    @property
    def reader(self) -> Reader:
        """For questions; what was written in this transaction is seen."""
        connection: Reader = self.db.connection()
        return connection

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return list(self.db.execute_sql(sql, values).fetchall())

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.db.execute_sql(sql, values).fetchone()
        return row

    def run(self, sql: str, *values: Any) -> int:
        """How many rows changed. values : one for each `?`, or one mapping for all `:name`."""
        named = len(values) == 1 and isinstance(values[0], dict)
        return int(self.db.execute_sql(sql, values[0] if named else values).rowcount)

    def insert(self, table: str, **columns: Any) -> int:
        """Insert a row and return its id. Names come from our own code, never from data."""
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        cursor = self.db.execute_sql(
            f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values())
        )
        return int(cursor.lastrowid)

    def event(self, event: str, **fields: Any) -> None:
        """Remember an event, and log it after the commit."""
        self.events.append((event, fields))

    def counter(self, name: str) -> int:
        """The next value of a counter that never goes back."""
        self.run("INSERT INTO meta VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", name)
        row = self.one("SELECT value FROM meta WHERE name = ?", name)
        return int(row[0]) if row else 0


class Ledger:
    """The one writer and the readers of a database file.

    log : called as log(event, **fields) after each commit; clock : seconds since the epoch
    """

    def __init__(
        self,
        path: str | Path,
        *,
        log: Log | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._log = log or (lambda event, **fields: None)
        self._clock = clock
        self._queue: queue.SimpleQueue[tuple[Callable[[Tx], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._idle_readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        self._closed = False
        self.wrote_at = time.monotonic()  # the health check looks at it
        opened: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._writer, args=(opened,), name="ledger-writer", daemon=True
        )
        self._thread.start()
        opened.result()

    def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in one IMMEDIATE transaction on the writer thread and return what it returns.

        Whatever it raises rolls everything back and is raised here; a database that cannot be written
        now raises LedgerBusy. Never call it from inside `fn`.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("write() called from inside a write")
        if self._closed:
            raise RuntimeError("the ledger is closed")
        future: Future[T] = Future()
        self._queue.put((fn, future))
        return future.result()

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection that cannot write, on one snapshot; give it back soon, the WAL grows meanwhile.

        Raises LedgerBusy when the file cannot be read now (no descriptor left, an error of the disk).
        """
        try:
            try:
                db = self._idle_readers.get_nowait()
            except queue.Empty:
                db = _reader(f"{self.path.absolute().as_uri()}?mode=ro")  # the writer keeps the log there
            try:
                db.execute("BEGIN")
                yield db
            finally:
                db.rollback()
                self._idle_readers.put(db)
        except sqlite3.OperationalError as error:
            raise LedgerBusy(f"database: {error}") from error

    def close(self) -> None:
        """Finish what is queued, fold the WAL into the file, close everything."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:  # before the writer: the last connection to go folds the WAL and removes it
                self._idle_readers.get_nowait().close()
        self._queue.put(None)
        self._thread.join()

    # -- the writer thread --------------------------------------------------------------------

    def _writer(self, opened: Future[None]) -> None:
        try:
            upgrade.check(self.path)
            before, kept = upgrade.versions(self.path), upgrade.keep(self.path)
            db: Any = pw.SqliteDatabase(str(self.path), pragmas=_PRAGMAS)
            db.connect()
            db.connection().row_factory, db.connection().text_factory = sqlite3.Row, _as_text
            cals = create_all(db)
        except Exception as error:
            busy = isinstance(error, pw.OperationalError)
            opened.set_exception(LedgerBusy(f"{self.path}: {_first(error)}") if busy else error)
            return
        if kept:
            self._log("database_upgraded", before=before, now=upgrade.known(), kept=str(kept))
        opened.set_result(None)
        while (item := self._queue.get()) is not None:
            fn, future = item
            try:
                future.set_result(self._transaction(db, cals, fn))
            except BaseException as error:
                busy = isinstance(error, pw.OperationalError)
                future.set_exception(LedgerBusy(f"database: {_first(error)}") if busy else error)
            self.wrote_at = time.monotonic()
        with contextlib.suppress(pw.OperationalError):
            db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()

    def _transaction(self, db: Any, cals: CalStore, fn: Callable[[Tx], T]) -> T:
        tx = Tx(db, cals, self._clock())
        with db.atomic("IMMEDIATE"):
            result = fn(tx)
            _keep_events(tx)
        for event, fields in tx.events:
            with contextlib.suppress(Exception):  # a log that cannot be written loses lines, never data
                self._log(event, **fields)
        return result


def _first(error: BaseException) -> BaseException:
    """The first error of a chain: on a full disk SQLite ends the transaction itself, and ending it again is
    an error."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def damages_all(error: BaseException) -> bool:
    """True of errors that mean a damaged database, rather than one bad request or job."""
    return type(error) in (pw.DatabaseError, pw.InternalError, sqlite3.DatabaseError, MemoryError)


def connect_readonly(path: str | Path, seconds: float = upgrade.PATIENCE) -> sqlite3.Connection:
    """A reader's connection, with rows by name. It leaves nothing behind: see `caldb.readonly_uri`.

    seconds : that a lock of another is waited for. Raises ConfigError when a newer program has made the
    database.
    """
    upgrade.check(Path(path), seconds)
    return _reader(readonly_uri(path), seconds)


@contextlib.contextmanager
def on_paper(path: str | Path) -> Iterator[Tx]:
    """A read-only stand-in for a transaction, on one snapshot, to ask what planning would do."""
    cals = open_store(path, readonly=True)
    db: Any = cals.db
    try:
        db.connection().row_factory, db.connection().text_factory = sqlite3.Row, _as_text
        db.execute_sql("BEGIN")
        yield Tx(db, cals, time.time())
    finally:
        db.close()


def _reader(uri: str, seconds: float = upgrade.PATIENCE) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=seconds, check_same_thread=False, isolation_level=None)
    db.row_factory, db.text_factory = sqlite3.Row, _as_text
    db.execute("PRAGMA query_only = 1")
    return db


def _as_text(cell: bytes) -> str:
    """A cell whose bytes are no text is shown so, instead of an error for whoever reads its row."""
    return cell.decode("utf-8", "replace")


def _keep_events(tx: Tx) -> None:
    for event, fields in tx.events:
        job = fields.get("job") if isinstance(fields.get("job"), int) else None
        tx.insert(
            "event", at=tx.now, event=event, job=job, fields=json.dumps(fields, default=str, sort_keys=True)
        )


def placeholders(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
