"""What has happened, in order: the events of the log that the ledger keeps with what they tell of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from daemon.ledger.store import Reader, placeholders


@dataclass(frozen=True)
class Event:
    """at : seconds since the epoch; fields : as in the log"""

    at: float
    name: str
    fields: dict[str, Any]


def last_number(db: Reader) -> int:
    """The number of the last event; 0 when nothing has happened."""
    return int(db.execute("SELECT MAX(id) FROM event").fetchone()[0] or 0)


def later_than(db: Reader, number: int, *names: str) -> list[Event]:
    """Events of these names after that number, the first of them first."""
    return _events(db, f"id > ? AND event IN ({placeholders(names)}) ORDER BY id", number, *names)


def since(db: Reader, at: float, name: str) -> list[Event]:
    """Events of this name since a time in seconds, the latest first."""
    return _events(db, "event = ? AND at >= ? ORDER BY id DESC", name, at)


def last_of_job(db: Reader, job: int, *names: str) -> Event | None:
    """The latest event of a job that has one of these names."""
    where = f"job = ? AND event IN ({placeholders(names)}) ORDER BY id DESC LIMIT 1"
    return next(iter(_events(db, where, job, *names)), None)


def _events(db: Reader, where: str, *values: Any) -> list[Event]:
    rows = db.execute(f"SELECT at, event, fields FROM event WHERE {where}", values).fetchall()
    return [Event(row["at"], row["event"], json.loads(row["fields"])) for row in rows]
