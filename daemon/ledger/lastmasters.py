"""What the masters of a night are held against: the last accepted ones of before.

before(db, job, low)      # the master like the one that a job has made, taken before a time
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.ledger.guarding import MOST, alike
from daemon.ledger.store import Reader
from daemon.ledger.world import candidate_from_json


@dataclass(frozen=True)
class Master:
    """A master with its figures: {name: [value, error or None, unit]}. ut : of its last frame, seconds since
    the epoch"""

    name: str
    night: str
    ut: float
    figures: Mapping[str, Any]


def before(db: Reader, job: int, low: float) -> tuple[Master, Master | None] | None:
    """(the master that a job has made, the last accepted one of its key that was taken before `low`).

    None of a job that makes no master; without an older one the second is None. One that is held back, or
    that somebody has rejected, is passed over.
    """
    row = db.execute(f"{_MASTERS} WHERE j.id = ? AND j.makes <> '' AND p.current", (job,)).fetchone()
    if row is None:
        return None
    made = candidate_from_json(row["makes"])
    older = db.execute(
        f"""{_MASTERS} WHERE j.makes_key = ? AND j.state = 'done' AND p.current AND j.ut < ?
        AND COALESCE((SELECT d.action FROM decision d WHERE d.subject = 'product ' || j.key
            AND d.action IN ('reject', 'accept', 'hold') ORDER BY d.id DESC LIMIT 1), 'accept') = 'accept'
        ORDER BY j.ut DESC, j.id DESC LIMIT ?""",
        (row["makes_key"], low, MOST),
    )
    last = next((r for r in older if alike(made, candidate_from_json(r["makes"]))), None)
    return _master(row), _master(last) if last is not None else None


_MASTERS = """SELECT p.name, p.night, p.quality, j.makes, j.makes_key, j.ut
    FROM job j JOIN product p ON p.job_id = j.id"""


def _master(row: Any) -> Master:
    figures = json.loads(row["quality"]).get("measures") or {}
    return Master(
        row["name"], row["night"], row["ut"], {n: m for n, m in figures.items() if m[0] is not None}
    )
