"""The database as a command opens it: to read, and with one clear line when that cannot be done."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from daemon.ledger import upgrade
from daemon.ledger.cells import damaged
from daemon.ledger.store import Reader, connect_readonly
from pipeline.errors import NiridError


@contextmanager
def reading(database: Path, seconds: float = upgrade.PATIENCE) -> Iterator[Reader]:
    """A connection that cannot write. Raises NiridError when the database cannot be read, is damaged, or is
    not of this release; also for errors of queries made inside. seconds : that a lock is waited for"""
    try:
        db = connect_readonly(database, seconds)
    except sqlite3.Error as error:
        raise NiridError(f"{database}: {error}") from None
    with closing(db):
        try:
            yield db
        except sqlite3.DatabaseError as error:
            raise NiridError(f"{database}: {_why(database, error)}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            if why := damaged(database):
                anew = "the next start of the daemon, or nirid rebuild, makes it anew"
                raise NiridError(f"{database} is damaged ({why}): {anew}") from None
            raise


@contextmanager
def one_snapshot(database: Path, seconds: float = upgrade.PATIENCE) -> Iterator[Reader]:
    """The same, where all questions are answered as of one moment; short, as the WAL grows meanwhile."""
    with reading(database, seconds) as db:
        db.execute("BEGIN")
        yield db


def _why(database: Path, error: sqlite3.DatabaseError) -> str:
    if "locked" in str(error):  # who asks again waits again
        return "another program holds it (database is locked)"
    if upgrade.is_older(database):
        return f"it is of an older schema ({error}); the next start of the daemon brings it up to date"
    if "no such table" in str(error):  # killed before the first transaction
        return "nothing is in it yet; the next start of the daemon fills it"
    return str(error)
