"""First looks and running stacks in the ledger: what each was made of, what it is worth, what became of it.

Their numbers are those that logs show as `job`. A row is a record and no more: what is lost of them is not
missed, and their files go when the product is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from daemon.ledger import questions
from daemon.ledger.store import Ledger, LedgerBusy, Reader, Tx, placeholders
from daemon.model.jobs import FIRST_LOOK_NUMBER, Look, Outcome
from daemon.model.names import FIRST

DAY = 86400.0
Told = dict[str, Any]


def recover(tx: Tx) -> int:
    """At the start: what was under way is not any more. Returns the last number that was given away."""
    tx.run(
        "UPDATE look SET state = 'stopped', error = 'the daemon ended', ended = ? WHERE state = 'running'",
        tx.now,
    )
    row = tx.one("SELECT MAX(id) FROM look")
    return FIRST_LOOK_NUMBER + int(row[0] or 0 if row else 0)


def begun(ledger: Ledger, look: Look, path: str) -> None:
    """One is under way. path : where it will be seen"""
    spec = look.spec

    def write(tx: Tx) -> None:
        tx.run("DELETE FROM look WHERE id = ?", look.number - FIRST_LOOK_NUMBER)
        tx.insert(
            "look",
            id=look.number - FIRST_LOOK_NUMBER,
            group_id=look.group,
            kind=look.kind,
            name=look.name,
            night=spec.night,
            path=os.fsencode(path),
            state="running",
            frames=json.dumps(
                [spec.inputs[-1].name] if look.kind == FIRST else [i.name for i in spec.inputs]
            ),
            calibrations=json.dumps({c.role: c.name for c in spec.calibrations}),
            notes=json.dumps(list(spec.notes)),
            quality="{}",
            began=tx.now,
            error="",
        )

    with contextlib.suppress(LedgerBusy):
        ledger.write(write)


def adopted(ledger: Ledger, number: int, job: int) -> None:
    """One has proved to be what a job shall make."""
    with contextlib.suppress(LedgerBusy):
        sql = "UPDATE look SET job_id = ? WHERE id = ?"
        ledger.write(lambda tx: tx.run(sql, job, number - FIRST_LOOK_NUMBER))


def ended(ledger: Ledger, outcome: Outcome, job: int | None) -> None:
    """How one ended. job : whose product it became, of the ledger"""
    result: Mapping[str, Any] = outcome.result or {}

    def write(tx: Tx) -> None:
        tx.run(
            """UPDATE look SET state = ?, error = ?, ended = ?, seconds = ?, job_id = ?, quality = ?,
            notes = CASE WHEN ? THEN ? ELSE notes END WHERE id = ?""",
            outcome.ending,
            outcome.error,
            tx.now,
            outcome.seconds,
            job,
            json.dumps(_in_short(result.get("quality") or {})),
            "notes" in result,
            json.dumps(list(result.get("notes") or ())),
            outcome.job_id - FIRST_LOOK_NUMBER,
        )

    with contextlib.suppress(LedgerBusy):
        ledger.write(write)


def _in_short(quality: Mapping[str, Any]) -> dict[str, Any]:
    """Of the frames of a stack those that are not used as any other: each frame has its own look."""
    rows = quality.get("frames") or []
    odd = [r for r in rows if (r.get("VERDICT", "used"), r.get("AS_SKY", "used")) != ("used", "used")]
    return {**quality, **({"frames": odd} if "frames" in quality and len(rows) > 1 else {})}


def forget(tx: Tx, days: float) -> None:
    """Rows of looks that are older go."""
    tx.run("DELETE FROM look WHERE began < ?", tx.now - days * DAY)


def state_of(look: Mapping[str, Any], product: Mapping[str, Any] | None) -> dict[str, Any]:
    """{"state", "since", "reason"} of a look. product : the current one of its group, if there is one"""
    ended, state = look["ended"], look["state"]
    if state == "running":
        return {"state": state, "since": look["began"], "reason": "it is being made"}
    if state != "done":
        return {"state": state, "since": ended, "reason": look["error"] or state}
    if look["there"]:
        return {"state": "there", "since": ended, "reason": "to look at until the product is there"}
    if product:
        why = f"{product['product']}, version {product['version']}, is there and shows more"
    else:
        why = "a newer one took its place, or its file was removed"
    return {"state": "gone", "since": ended, "reason": why}


def running(db: Reader) -> list[Told]:
    """Those under way, in order of their beginning."""
    return _rows(db, "state = 'running'")


def done(db: Reader, groups: Sequence[int]) -> list[Told]:
    """What was made of these groups, in order of its beginning."""
    return _rows(db, f"state = 'done' AND group_id IN ({placeholders(groups)})", *groups)


def look(db: Reader, row: int) -> Told:
    """One by the number of its row. Raises IndexError when there is none."""
    return _rows(db, "id = ?", row)[0]


def _rows(db: Reader, where: str, *values: Any) -> list[Told]:
    """None of a database that a release before has made."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'look'").fetchone() is None:
        return []
    return [_plain(row) for row in db.execute(f"SELECT * FROM look WHERE {where} ORDER BY id", values)]


def _plain(row: sqlite3.Row) -> Told:
    """`number` is that of the logs; `there` : its file can be seen."""
    path = os.fsdecode(row["path"])
    return {
        **{k: row[k] for k in ("kind", "name", "night", "state", "seconds", "error")},
        **{k: json.loads(row[k]) for k in ("frames", "calibrations", "notes", "quality")},
        "number": row["id"] + FIRST_LOOK_NUMBER,
        "group": row["group_id"],
        "job": row["job_id"],
        "path": path,
        "there": os.path.exists(path),
        "began": questions.iso(row["began"]),
        "ended": questions.iso(row["ended"]),
    }
