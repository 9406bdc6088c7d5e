"""First looks and running stacks in the ledger: what each was made of, what it is worth, what became of it.

Their numbers are those that logs show as `job`. A row is only a record: a lost look is made again when the
next frame comes, and its file is removed when the product is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from daemon.ledger import measures, questions
from daemon.ledger.store import Ledger, LedgerBusy, Reader, Tx, placeholders
from daemon.model.jobs import Look, Outcome, Ticket
from daemon.model.names import FIRST, RUNNING

DAY = 86400.0
Told = dict[str, Any]


def recover(tx: Tx) -> int:
    """At the start: looks that were under way have ended. Returns the last number used."""
    tx.run(
        "UPDATE look SET state = 'stopped', error = 'the daemon ended', ended = ? WHERE state = 'running'",
        tx.now,
    )
    row = tx.one("SELECT MAX(id) FROM look")
    return Ticket("look", int(row[0] or 0 if row else 0)).shown


def begun(ledger: Ledger, look: Look, path: str) -> None:
    """One is under way. path : where it will be seen"""
    spec, number = look.spec, Ticket.of(look.number).number

    def write(tx: Tx) -> None:
        tx.run("DELETE FROM look WHERE id = ?", number)
        tx.insert(
            "look",
            id=number,
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
    """A running stack proved to be what a job is to make."""
    with contextlib.suppress(LedgerBusy):
        sql = "UPDATE look SET job_id = ? WHERE id = ?"
        ledger.write(lambda tx: tx.run(sql, job, Ticket.of(number).number))


def ended(ledger: Ledger, outcome: Outcome, job: int | None, *, shown: bool = False, error: str = "") -> None:
    """How one ended. job : whose product it became, of the ledger

    shown : it can be seen from now on, event `look_made`; error : why not, event `look_failed`
    """
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
            outcome.ticket.number,
        )
        if outcome.ending == "done":
            measures.record_look(tx, outcome.ticket.number, result.get("quality") or {})
        _tell(tx, outcome, shown, error)

    with contextlib.suppress(LedgerBusy):
        ledger.write(write)


def _tell(tx: Tx, outcome: Outcome, shown: bool, error: str) -> None:
    row = tx.one("SELECT * FROM look WHERE id = ?", outcome.ticket.number)
    if row is None or not (shown or error):
        return
    fields: Told = {"job": outcome.ticket.shown, "kind": row["kind"], "group": row["group_id"]}
    if not shown:
        tx.event("look_failed", **fields, name=row["name"], error=error)
        return
    quality = json.loads(row["quality"])
    worth = {name: value for name, value in quality.items() if not isinstance(value, list | dict)}
    tx.event(
        "look_made",
        **fields,
        product=os.fsdecode(row["path"]),
        frames=len(json.loads(row["frames"])),
        seconds=outcome.seconds,
        quality=worth,
    )


def _in_short(quality: Mapping[str, Any]) -> dict[str, Any]:
    """The frames of a stack that are not used like the others; each frame has a first look of its own."""
    rows = quality.get("frames") or []
    odd = [r for r in rows if (r.get("VERDICT", "used"), r.get("AS_SKY", "used")) != ("used", "used")]
    return {**quality, **({"frames": odd} if "frames" in quality and len(rows) > 1 else {})}


def forget(tx: Tx, days: float) -> None:
    """Rows of looks that are older go."""
    tx.run(
        """DELETE FROM measure WHERE subject = 'look' AND number IN (SELECT id FROM look WHERE began < ?)""",
        tx.now - days * DAY,
    )
    tx.run("DELETE FROM look WHERE began < ?", tx.now - days * DAY)


def made_needless(db: Reader, job: int) -> tuple[int, list[tuple[str, datetime]]]:
    """(group, names and times of frames) of those in the product of a job, and the unusable of its group."""
    rows = db.execute(
        """SELECT j.group_id, f.name, f.ut FROM job j JOIN job_input i ON i.job_id = j.id
        JOIN frame f ON f.id = i.frame_id WHERE j.id = ?
        UNION SELECT j.group_id, f.name, f.ut FROM job j JOIN membership m ON m.group_id = j.group_id
        JOIN frame f ON f.id = m.frame_id WHERE j.id = ? AND NOT f.usable""",
        (job, job),
    ).fetchall()
    group = rows[0]["group_id"] if rows else 0
    return group, [(row["name"], datetime.fromtimestamp(row["ut"] or 0.0, UTC)) for row in rows]


def is_in_a_product(db: Reader, name: str, recipes: Sequence[str]) -> bool:
    """True when a current product of one of these recipes holds the frame of that name."""
    sql = f"""SELECT 1 FROM frame f JOIN job_input i ON i.frame_id = f.id
        JOIN job j ON j.id = i.job_id JOIN product p ON p.job_id = j.id AND p.current
        WHERE f.name = ? AND j.recipe IN ({placeholders(recipes)})"""
    return db.execute(sql, (name, *recipes)).fetchone() is not None


def frames_between(db: Reader, begin: float, end: float) -> list[str]:
    """Names of frames taken in that time, seconds since the epoch."""
    return [
        row["name"] for row in db.execute("SELECT name FROM frame WHERE ut BETWEEN ? AND ?", (begin, end))
    ]


def any_frame_begins(db: Reader, stem: str) -> bool:
    """True when the name of a frame begins so; a _ in the stem stands for any character."""
    sql = "SELECT 1 FROM frame WHERE name LIKE ? LIMIT 1"
    return db.execute(sql, (f"{stem}%",)).fetchone() is not None


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


def newest_stack(db: Reader, group: int) -> tuple[int, list[str]] | None:
    """(row, names of its frames) of the newest running stack that was made of a group."""
    row = db.execute(
        """SELECT id, frames FROM look WHERE group_id = ? AND kind = ? AND state = 'done'
        ORDER BY id DESC LIMIT 1""",
        (group, RUNNING),
    ).fetchone()
    return None if row is None else (row["id"], json.loads(row["frames"]))


def look(db: Reader, row: int) -> Told:
    """One by the number of its row. Raises IndexError when there is none."""
    return _rows(db, "id = ?", row)[0]


def _rows(db: Reader, where: str, *values: Any) -> list[Told]:
    """None in a database of an earlier release."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'look'").fetchone() is None:
        return []
    return [_plain(row) for row in db.execute(f"SELECT * FROM look WHERE {where} ORDER BY id", values)]


def _plain(row: sqlite3.Row) -> Told:
    """`number` is that of the logs; `there` : its file can be seen."""
    path = os.fsdecode(row["path"])
    return {
        **{k: row[k] for k in ("kind", "name", "night", "state", "seconds", "error")},
        **{k: json.loads(row[k]) for k in ("frames", "calibrations", "notes", "quality")},
        "number": Ticket("look", row["id"]).shown,
        "group": row["group_id"],
        "job": row["job_id"],
        "path": path,
        "there": os.path.exists(path),
        "began": questions.iso(row["began"]),
        "ended": questions.iso(row["ended"]),
    }
