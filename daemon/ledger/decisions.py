"""What people have decided about a content, a frame or a product, and that it stays so.

A decision belongs to a subject, a text that means the same after a restart, in another folder and in a
database that was made anew:

| subject | what is meant |
|---|---|
| `frame DATA_SHA LABEL` | an exposure, whatever its files are called and whatever else their headers say |
| `content SHA256` | these bytes |
| `product JOBKEY` | what a job made |
| `alert NUMBER` | something that needs a person: of the page, and `nirid alerts` |
| `judgement DATA_SHA LABEL` | what the pipeline finds of an exposure: accepted, it is used all the same |

The pipeline's own verdicts (`pipeline.verdict`) are in the products, never here.
Of several decisions about one thing the last counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from daemon.ledger.store import Reader, Tx, placeholders
from daemon.model.decisions import (
    ACCEPT,
    BLAME,
    REJECT,
    in_words,
    of_content,
    of_frame,
    of_judgement,
    of_product,
    parted,
)
from daemon.model.files import FileRecord
from daemon.model.plain import clean
from daemon.model.states import FileState

LONGEST = 7 * 86400.0  # s that an alert is known for

Decided = dict[str, Any]  # a decision as it was written down


def is_forced_in(tx: Tx, label: str, data_sha: str) -> bool:
    """True when a person wants the frame used that the pipeline may have left out."""
    row = standing(tx, of_judgement(label, data_sha))
    return row is not None and row["action"] == ACCEPT


def standing(tx: Tx, *subjects: str) -> Decided | None:
    """The decision that is in force about any of these; None when there is none."""
    where = f"""subject IN ({placeholders(subjects)})
        AND action IN ('reject', 'accept', 'quarantine', 'hold') ORDER BY id DESC LIMIT 1"""
    return next(iter(_decided(tx.reader, where, *subjects)), None)


def about(db: Reader, *subjects: str) -> list[Decided]:
    """All that was decided about these, in order."""
    return _decided(db, f"subject IN ({placeholders(subjects)}) ORDER BY id", *subjects)


def asked_again(db: Reader, key: str) -> Decided | None:
    """The last decision by which the product of a job was to be made again."""
    where = "action = 'requeue' AND instr(more, ?) ORDER BY id DESC LIMIT 1"
    return next(iter(_decided(db, where, key)), None)


def known_alerts(db: Reader, now: float) -> dict[str, Decided]:
    """{number of an alert: who knows of it, why, until when}; now : seconds since the epoch"""
    rows = _decided(db, "action = 'acknowledge' AND at > ? ORDER BY id", now - LONGEST)
    known = {parted(row["subject"])[1]: row for row in rows}
    return {number: row for number, row in known.items() if row["more"].get("until", 0.0) > now}


def judged(tx: Tx, record: FileRecord) -> FileRecord:
    """What ingest found, as people have decided about it."""
    subjects = [of_content(record.file_sha)]
    if record.data_sha:
        subjects.append(of_frame(record.data_label, record.data_sha))
    row = standing(tx, *subjects)
    if row is None:
        return record
    state = FileState(record.state)
    new = state
    if row["action"] == REJECT and state in (FileState.READY, FileState.CALIBRATION):
        new = FileState.EXCLUDED
    elif row["action"] == BLAME and state is FileState.READY:
        new = FileState.QUARANTINED
    # the QA state of the header: for these bytes alone
    elif row["action"] == ACCEPT and state is FileState.EXCLUDED:
        these = standing(tx, subjects[0])
        if these is not None and these["action"] == ACCEPT:
            new = FileState.CALIBRATION if record.kind else FileState.READY
    if new is state:
        return record
    return replace(record, state=new.value, reason=in_words(row))


def is_rejected(tx: Tx, key: str) -> str:
    """Why the product of a job is not wanted; "" when nobody has rejected it."""
    row = standing(tx, of_product(key))
    return in_words(row) if row is not None and row["action"] == REJECT else ""


def of_request(db: Reader, request: str) -> list[Decided]:
    """What a request has led to, when it was applied before."""
    return _decided(db, "request = ? ORDER BY id", request)


def unwritten(db: Reader) -> list[Decided]:
    """What the decisions file may not have yet, in order."""
    return _decided(db, "written = 0 ORDER BY id")


def mark_written(tx: Tx, last: int) -> None:
    """The decisions file has all up to this number."""
    tx.run("UPDATE decision SET written = 1 WHERE id <= ? AND written = 0", last)


def _decided(db: Reader, where: str, *values: Any) -> list[Decided]:
    """id, request, subject, action, said, reason, user, at (seconds), outcome, moves, more"""
    rows = db.execute(f"SELECT * FROM decision WHERE {where}", values).fetchall()
    return [{**dict(r), "moves": json.loads(r["moves"]), "more": json.loads(r["more"])} for r in rows]


def remember(
    tx: Tx,
    request: Mapping[str, Any],
    subject: str,
    outcome: str,
    *,
    moves: list[list[str]] | None = None,
    more: Mapping[str, Any] | None = None,
    at: float | None = None,
    written: bool = False,
) -> None:
    """Write one decision down."""
    tx.insert(
        "decision",
        request=request["request"],
        subject=clean(subject),
        action=request["action"],
        said=clean(request.get("said", "")),
        reason=clean(request.get("reason", "")),
        user=clean(request["user"]),
        at=tx.now if at is None else at,
        outcome=clean(outcome),
        moves=json.dumps(moves or []),
        more=json.dumps(dict(more or {})),
        written=written,
    )
