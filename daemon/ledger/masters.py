"""Which calibrations there are, as people look at them: by key, the latest first, with those held back.

rows = keys(db)                      # every key that has one in use, or held
of_key(db, "processed_dark:...")     # its calibrations, the latest first

In use is what the calibration store has; what is held back is in no store, only a product that waits.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.ledger.held import HELD
from daemon.ledger.store import Reader


@dataclass(frozen=True)
class Key:
    """One calibration key. latest : when the newest was taken, seconds since the epoch"""

    key: str
    kind: str
    latest: float


@dataclass(frozen=True)
class Master:
    """A calibration. taken, since : seconds since the epoch, of its first raw frame, and in use or held since

    facts : the descriptors that association compares; product, version, group : None of one from outside
    held : why it is held back, "" when it is in use
    """

    name: str
    kind: str
    path: str
    sha256: str
    taken: float
    since: float
    facts: Mapping[str, Any] = field(repr=False)
    night: str = ""
    product: int | None = None
    version: int | None = None
    group: int | None = None
    held: str = ""


def keys(db: Reader) -> list[Key]:
    """Every key that has a calibration in use or held, that of the newest calibration first.

    By index, a step for each key: there are few of them in very many calibrations.
    """
    known = db.execute(
        """WITH RECURSIVE next (key) AS (SELECT MIN(key) FROM calibration
        UNION ALL SELECT (SELECT MIN(key) FROM calibration WHERE key > next.key) FROM next
            WHERE next.key IS NOT NULL)
        SELECT key, (SELECT ut FROM calibration c WHERE c.key = next.key AND c.removed IS NULL
            ORDER BY ut DESC LIMIT 1) AS latest FROM next WHERE key IS NOT NULL"""
    )
    latest = {row["key"]: row["latest"] for row in known if row["latest"] is not None}
    for row in db.execute(f"SELECT j.makes_key AS key, j.ut {HELD}"):
        latest[row["key"]] = max(row["ut"], latest.get(row["key"], row["ut"]))
    found = [Key(key, key.partition(":")[0], at) for key, at in latest.items()]
    return sorted(found, key=lambda one: (-one.latest, one.key))


def of_key(db: Reader, key: str, most: int) -> list[Master]:
    """The newest `most` of a key, and all that are held, the newest first."""
    used = db.execute(
        """SELECT c.name, c.path, c.sha256, c.ut, c.added AS since, c.facts, p.id AS product, p.version,
            p.night, p.group_id, '' AS held
        FROM calibration c LEFT JOIN job j ON j.key = c.ident
        LEFT JOIN product p ON p.job_id = j.id
        WHERE c.key = ? AND c.removed IS NULL ORDER BY c.ut DESC, c.id DESC LIMIT ?""",
        (key, most),
    )
    held = db.execute(
        f"""SELECT p.name, p.path, p.sha256, j.ut, d.at AS since, j.makes AS facts, p.id AS product,
            p.version, p.night, p.group_id, d.reason AS held {HELD} AND j.makes_key = ? ORDER BY j.ut DESC""",
        (key,),
    )
    kind = key.partition(":")[0]
    found = [_master(row, kind) for row in (*used.fetchall(), *held.fetchall())]
    return sorted(found, key=lambda one: -one.taken)


def _master(row: sqlite3.Row, kind: str) -> Master:
    facts = json.loads(row["facts"])
    return Master(
        name=row["name"],
        kind=kind,
        path=os.fsdecode(row["path"]),
        sha256=row["sha256"],
        taken=row["ut"],
        since=row["since"],
        facts=facts.get("facts", facts),  # of a job it is the whole candidate
        night=row["night"] or "",
        product=row["product"],
        version=row["version"],
        group=row["group_id"],
        held=row["held"],
    )
