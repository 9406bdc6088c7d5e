"""The daemon's memory: one SQLite file, one writer, many short readers.

    ledger = Ledger(path, log=log)
    ledger.write(lambda tx: files.record(tx, record))        # one IMMEDIATE transaction
    with ledger.read() as db: rows = queries.jobs(db)        # query_only, short

Statements live in modules named after what the daemon wants, each function taking the transaction:
`files` (what landed), `groups` (what belongs together), `planning` (what is to be done), `jobs` (what
runs), `publish` (what is made). Here are the tables, the writer and the readers. The calibration
store of `pipeline.caldb` shares the file: `tx.cals` commits together with everything else.
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
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import peewee as pw

from daemon import schema
from pipeline import caldb
from pipeline.caldb import CalStore, open_store, readonly_uri

T = TypeVar("T")
Log = Callable[..., None]  # log(event, **fields)

_PRAGMAS = {
    "busy_timeout": 10_000,
    "journal_mode": "wal",
    "synchronous": "full",  # what was said to be done is still done after a power cut
    "foreign_keys": 1,
    "trusted_schema": 0,
    "journal_size_limit": 64 << 20,
}


class LedgerBusy(OSError):
    """The database could not be written now (locked, disk full): try again."""


@lru_cache(maxsize=8)
def models(db: pw.Database) -> SimpleNamespace:
    """The ledger's tables, bound to this database only. Times are seconds since the epoch."""

    class Base(pw.Model):
        class Meta:
            database = db
            legacy_table_names = False

    class Frame(Base):
        """One exposure: a data label and its pixels, whatever its files are called."""

        label = pw.TextField()
        data_sha = pw.TextField()
        facts = pw.TextField()
        name = pw.TextField()  # canonical
        ut = pw.DoubleField(null=True, index=True)
        program = pw.TextField(default="")
        tags = pw.TextField()  # JSON list
        descriptors = pw.TextField()  # JSON
        usable = pw.BooleanField()
        role = pw.TextField(default="")  # standard, science, or why it has no recipe

        class Meta:
            indexes = ((("label", "data_sha"), True), (("program", "ut"), False))

    class Content(Base):
        """One delivered content: bytes with a hash, in exactly one state."""

        sha256 = pw.TextField(unique=True)
        state = pw.TextField(index=True)
        reason = pw.TextField()
        first_seen = pw.DoubleField()
        changed = pw.DoubleField()
        kind = pw.TextField(default="")  # of a calibration
        name = pw.TextField()
        facts = pw.TextField(default="")
        tags = pw.TextField(default="[]")
        descriptors = pw.TextField(default="null")
        verified = pw.BooleanField(null=True)
        frame = pw.ForeignKeyField(Frame, null=True, backref="contents")

    class Sighting(Base):
        """A file at a path. It has a state of its own until its content is known."""

        path = pw.BlobField()
        current = pw.BooleanField()  # the latest at its path
        present = pw.BooleanField()  # on disk at the last look
        state = pw.TextField()
        reason = pw.TextField()
        dev = pw.BigIntegerField(null=True)
        ino = pw.TextField(null=True)  # text: 64 bits without sign
        size = pw.BigIntegerField(null=True)
        mtime_ns = pw.BigIntegerField(null=True)
        ctime_ns = pw.BigIntegerField(null=True)
        first_seen = pw.DoubleField()
        last_seen = pw.DoubleField()
        content = pw.ForeignKeyField(Content, null=True, backref="sightings")

        class Meta:
            indexes = ((("path", "current"), False),)

    class FrameGroup(Base):
        """Frames that belong together under one rule. touched: order of the last change, 0 when planned."""

        rule = pw.TextField()
        rank = pw.IntegerField()  # producers before consumers
        key = pw.TextField()
        exposure = pw.DoubleField()
        first_ut = pw.DoubleField()
        last_ut = pw.DoubleField()
        program = pw.TextField(default="")
        pool = pw.TextField(default="")  # groups that may lend each other sky, or be joined
        offers = pw.TextField(default="")  # CalibrationKey of what it makes
        arrivals = pw.IntegerField(default=0)
        last_arrival = pw.DoubleField()
        touched = pw.IntegerField(default=0)
        settled = pw.BooleanField(default=False)
        waiting_since = pw.DoubleField(null=True, index=True)  # on the running clock, hours
        remake = pw.IntegerField(default=0)
        # A job whose product is wanted again; 0: the product is to be withdrawn.
        restore = pw.IntegerField(null=True, index=True)
        reason = pw.TextField(default="")
        better = pw.TextField(default="")
        closed = pw.BooleanField(default=False)  # merged into another, or emptied
        heir = pw.IntegerField(null=True, index=True)  # the group that it was merged into

        class Meta:
            indexes = (
                (("rule", "key", "first_ut"), False),
                (("pool", "first_ut"), False),
                (("offers", "first_ut"), False),
                (("settled", "closed"), False),
                (("touched", "rank"), False),
            )

    class Membership(Base):
        group = pw.ForeignKeyField(FrameGroup, backref="memberships")
        frame = pw.ForeignKeyField(Frame, backref="memberships")

        class Meta:
            primary_key = pw.CompositeKey("group", "frame")
            indexes = ((("frame",), False),)

    class Demand(Base):
        """A calibration key (or a join) that a group can use: what to touch when such a thing appears."""

        group = pw.ForeignKeyField(FrameGroup)
        key = pw.TextField()
        exposure = pw.DoubleField()
        ut = pw.DoubleField()
        chosen = pw.DoubleField(null=True)  # when the chosen one was taken: only a nearer is better

        class Meta:
            indexes = ((("key", "ut"), False), (("group",), False))

    class Job(Base):
        key = pw.TextField(unique=True)
        group = pw.ForeignKeyField(FrameGroup, backref="jobs")
        recipe = pw.TextField()
        version = pw.IntegerField()
        state = pw.TextField()
        reason = pw.TextField(default="")
        priority = pw.IntegerField(default=4)
        ut = pw.DoubleField(default=0.0)  # of its latest input
        spec = pw.TextField(default="")  # JobSpec as JSON; empty while it waits
        makes = pw.TextField(default="")  # Candidate as JSON
        makes_key = pw.TextField(default="")  # its CalibrationKey
        remake = pw.IntegerField(default=0)
        attempts = pw.IntegerField(default=0)
        deaths = pw.IntegerField(default=0)
        interruptions = pw.IntegerField(default=0)
        planned_at = pw.DoubleField()
        changed = pw.DoubleField()
        seconds = pw.DoubleField(null=True)
        peak_mb = pw.DoubleField(null=True)
        error = pw.TextField(default="")

        class Meta:
            indexes = ((("makes_key", "state"), False), (("group", "state"), False))

    # In the order in which jobs are claimed, so that the first of many is at hand.
    Job.add_index(pw.SQL("CREATE INDEX IF NOT EXISTS job_queue ON job (state, priority, ut DESC)"))

    class JobInput(Base):
        job = pw.ForeignKeyField(Job)
        frame = pw.ForeignKeyField(Frame)
        position = pw.IntegerField()
        sha256 = pw.TextField()

        class Meta:
            primary_key = pw.CompositeKey("job", "position")
            indexes = ((("frame",), False),)

    class JobCalibration(Base):
        job = pw.ForeignKeyField(Job)
        role = pw.TextField()
        ident = pw.TextField(index=True)
        name = pw.TextField()

        class Meta:
            primary_key = pw.CompositeKey("job", "role", "ident")

    class Dependency(Base):
        """A waiting job and a job that it waits for."""

        job = pw.ForeignKeyField(Job)
        producer = pw.ForeignKeyField(Job)

        class Meta:
            primary_key = pw.CompositeKey("job", "producer")
            indexes = ((("producer",), False),)

    class Attempt(Base):
        job = pw.ForeignKeyField(Job)
        n = pw.IntegerField()
        started = pw.DoubleField()
        finished = pw.DoubleField(null=True)
        outcome = pw.TextField(default="")  # done, failed, died ...; empty while it runs
        error = pw.TextField(default="")
        seconds = pw.DoubleField(null=True)

        class Meta:
            indexes = ((("job", "n"), True),)

    class Product(Base):
        """One published product; `path` is where it lies now."""

        job = pw.ForeignKeyField(Job, unique=True)
        group = pw.ForeignKeyField(FrameGroup)
        name = pw.TextField()
        night = pw.TextField(index=True)
        path = pw.BlobField()
        sha256 = pw.TextField()
        version = pw.IntegerField()  # how many-th of its group
        current = pw.BooleanField()
        published = pw.DoubleField()
        notes = pw.TextField(default="[]")
        quality = pw.TextField(default="{}")

        class Meta:
            indexes = ((("group", "current"), False), (("path",), False), (("name", "night"), False))

    class Intent(Base):
        """A publication that has begun: recovery finishes it from here."""

        job = pw.ForeignKeyField(Job, primary_key=True)
        attempt = pw.IntegerField()
        plan = pw.TextField()  # JSON

    class Look(Base):
        """A first look or running stack; its number in logs is `FIRST_LOOK_NUMBER` more than its id."""

        group = pw.ForeignKeyField(FrameGroup)
        kind = pw.TextField()
        name = pw.TextField(index=True)
        night = pw.TextField()
        path = pw.BlobField()  # where it is seen until the product is there
        state = pw.TextField()  # running, or its ending
        frames = pw.TextField()  # JSON: names
        calibrations = pw.TextField()  # JSON: role -> name
        notes = pw.TextField()  # JSON
        quality = pw.TextField()  # JSON
        began = pw.DoubleField(index=True)
        ended = pw.DoubleField(null=True)
        seconds = pw.DoubleField(null=True)
        error = pw.TextField()
        job_id = pw.IntegerField(null=True)  # that has become the product

    class Decision(Base):
        """What a person decided, once a request and thing; `files` that are to move are in `moves`."""

        request = pw.TextField()
        subject = pw.TextField(index=True)
        action = pw.TextField()
        said = pw.TextField()
        reason = pw.TextField(default="")
        user = pw.TextField()
        at = pw.DoubleField()
        outcome = pw.TextField(default="")
        moves = pw.TextField(default="[]")  # JSON: [from, to, hash]
        more = pw.TextField(default="{}")  # JSON, for rebuild
        written = pw.BooleanField(default=False, index=True)  # to the decisions file

        class Meta:
            indexes = ((("request", "subject"), True),)

    class Search(Base):
        """The frame to blame for a failed job is looked for: `daemon.halving`."""

        job = pw.ForeignKeyField(Job, primary_key=True)
        group = pw.ForeignKeyField(FrameGroup)
        frames = pw.TextField()  # JSON: ids of all inputs
        state = pw.TextField()  # JSON
        tries = pw.IntegerField(default=0)
        outcome = pw.TextField(default="", index=True)  # empty while it goes on

    class Removal(Base):
        """A superseded product whose file is still to be unlinked."""

        path = pw.BlobField(unique=True)

    class Event(Base):
        at = pw.DoubleField()
        event = pw.TextField()
        job = pw.IntegerField(null=True, index=True)
        fields = pw.TextField()

    class Meta_(Base):
        name = pw.TextField(primary_key=True)
        value = pw.DoubleField()

        class Meta:
            table_name = "meta"

    tables = {
        k: v for k, v in locals().items() if isinstance(v, type) and issubclass(v, Base) and v is not Base
    }
    return SimpleNamespace(**tables)


def every_table() -> list[Any]:
    """The tables as they are declared, of a database that is nowhere; with those of the calibration store."""
    nowhere = pw.SqliteDatabase(":memory:")
    return [*vars(models(nowhere)).values(), *vars(caldb.models(nowhere)).values()]


_ACCOUNTING = """
CREATE VIEW IF NOT EXISTS accounting (sha256, state, runs) AS
SELECT c.sha256, c.state, COALESCE((
    SELECT MAX(n) FROM (
        SELECT COUNT(DISTINCT a.id) AS n
        FROM job_input i JOIN attempt a ON a.job_id = i.job_id AND a.outcome = 'done'
        WHERE i.frame_id = c.frame_id GROUP BY i.job_id)), 0)
FROM content c
"""


class Tx:
    """One write transaction: statements, the calibration store, and events to be logged after the commit."""

    def __init__(self, db: Any, cals: CalStore, now: float) -> None:
        self.db, self.cals, self.now = db, cals, now
        self.events: list[tuple[str, dict[str, Any]]] = []

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return list(self.db.execute_sql(sql, values).fetchall())

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.db.execute_sql(sql, values).fetchone()
        return row

    def run(self, sql: str, *values: Any) -> int:
        """Execute, and return how many rows changed."""
        return int(self.db.execute_sql(sql, values).rowcount)

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
            schema.check(self.path)
            before, kept = schema.versions(self.path), schema.keep(self.path)
            db: Any = pw.SqliteDatabase(str(self.path), pragmas=_PRAGMAS)
            db.connect()
            db.connection().row_factory, db.connection().text_factory = sqlite3.Row, _as_text
            cals = _create(db)
        except Exception as error:
            busy = isinstance(error, pw.OperationalError)
            opened.set_exception(LedgerBusy(f"{self.path}: {_first(error)}") if busy else error)
            return
        if kept:
            self._log("database_upgraded", before=before, now=schema.known(), kept=str(kept))
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
            with contextlib.suppress(Exception):  # a log that cannot be written loses lines, never work
                self._log(event, **fields)
        return result


def _first(error: BaseException) -> BaseException:
    """What began it: on a full disk SQLite ends a transaction by itself, and to end it again is an error."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def damages_all(error: BaseException) -> bool:
    """True of the errors of a database that is damaged: not one request or job can be told by it."""
    return type(error) in (pw.DatabaseError, pw.InternalError, sqlite3.DatabaseError, MemoryError)


def damaged(database: Path) -> str:
    """Why a database cannot be used; "" when it is whole, is not there, or cannot be looked at now.

    Raises ConfigError when a newer program has made it: nothing can be said of that.
    """
    from daemon.cells import damaged_cells

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


def connect_readonly(path: str | Path) -> sqlite3.Connection:
    """A reader's connection, with rows by name. It leaves nothing behind: see `caldb.readonly_uri`.

    Raises ConfigError when a newer program has made the database.
    """
    schema.check(Path(path))
    return _reader(readonly_uri(path))


@contextlib.contextmanager
def on_paper(path: str | Path) -> Iterator[Tx]:
    """What planning needs of a transaction, on one snapshot that cannot be written: what would it do?"""
    cals = open_store(path, readonly=True)
    db: Any = cals.db
    try:
        db.connection().row_factory, db.connection().text_factory = sqlite3.Row, _as_text
        db.execute_sql("BEGIN")
        yield Tx(db, cals, time.time())
    finally:
        db.close()


def _reader(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=10.0, check_same_thread=False, isolation_level=None)
    db.row_factory, db.text_factory = sqlite3.Row, _as_text
    db.execute("PRAGMA query_only = 1")
    return db


def _as_text(cell: bytes) -> str:
    """A cell whose bytes are no text is shown so, instead of an error for whoever reads its row."""
    return cell.decode("utf-8", "replace")


def _create(db: Any) -> CalStore:
    """Make what is not there yet, and of an older schema what is now, in one transaction."""
    with db.atomic("IMMEDIATE"):
        cals = CalStore(db)
        tables = models(db)
        db.create_tables(list(vars(tables).values()), safe=True)
        db.execute_sql(_ACCOUNTING)
        schema.upgrade(db)
    return cals


def _keep_events(tx: Tx) -> None:
    for event, fields in tx.events:
        job = fields.get("job") if isinstance(fields.get("job"), int) else None
        tx.insert(
            "event", at=tx.now, event=event, job=job, fields=json.dumps(fields, default=str, sort_keys=True)
        )


def placeholders(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
