"""What is on record of a file: its content, its exposure, where it lies and what it was used for."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from daemon.ledger.questions import iso
from daemon.ledger.store import Reader
from daemon.model.names import night_of
from daemon.model.records import ContentRecord, FrameRecord
from daemon.model.states import FileState

Row = dict[str, Any]

_RECORD = """SELECT c.id, c.sha256, c.state, c.reason, c.kind, c.frame_id,
    f.label, f.data_sha, f.name AS frame FROM content c LEFT JOIN frame f ON f.id = c.frame_id"""


def by_number(db: Reader, content: int) -> ContentRecord:
    """Raises KeyError when there is none."""
    for found in _records(db, "c.id = ?", content):
        return found
    raise KeyError(content)


def every(db: Reader) -> list[ContentRecord]:
    """All that ever came, in order."""
    return _records(db, "c.id > ?", 0)


def by_hash(db: Reader, sha256: str) -> ContentRecord | None:
    """The content of these bytes, when they have come."""
    return next(iter(_records(db, "c.sha256 = ?", sha256)), None)


def of_same_frame(db: Reader, content: ContentRecord) -> list[ContentRecord]:
    """All files of its exposure, whatever their headers say; only itself when it is of none."""
    return _records(db, "c.frame_id = ?", content.frame) if content.frame is not None else [content]


def frame_of_pixels(db: Reader, data_sha: str) -> FrameRecord | None:
    """The exposure of these pixels, when one has come."""
    row = db.execute(
        """SELECT f.label, c.state, c.reason FROM frame f LEFT JOIN content c ON c.frame_id = f.id
        WHERE f.data_sha = ? ORDER BY c.state = 'superseded', c.id LIMIT 1""",
        (data_sha,),
    ).fetchone()
    return FrameRecord(row["label"], row["state"] or "", row["reason"] or "") if row else None


def state_of_frame(db: Reader, frame: int) -> tuple[str, str]:
    """(state, reason) of the file of an exposure that can best be used."""
    row = db.execute(
        """SELECT c.state, c.reason FROM content c WHERE c.frame_id = ?
        ORDER BY c.state = 'superseded', c.state <> 'ready', c.id LIMIT 1""",
        (frame,),
    ).fetchone()
    return (row["state"], row["reason"]) if row else ("", "")


def groups_of_frame(db: Reader, frame: int | None) -> list[int]:
    """The groups that an exposure is in, in order."""
    rows = db.execute("SELECT group_id FROM membership WHERE frame_id = ? ORDER BY group_id", (frame,))
    return [row[0] for row in rows]


def paths(db: Reader, content: int) -> list[str]:
    """Where a content lies, then where it has lain."""
    sql = "SELECT DISTINCT path FROM sighting WHERE content_id = ? ORDER BY current DESC, path"
    return [os.fsdecode(row[0]) for row in db.execute(sql, (content,))]


def facts(db: Reader, content: int) -> Row:
    """since, first_seen (ISO); verified : its checksum, None when it carries none; tags, descriptors"""
    row = db.execute("SELECT * FROM content WHERE id = ?", (content,)).fetchone()
    return {
        "since": iso(row["changed"]),
        "first_seen": iso(row["first_seen"]),
        "verified": None if row["verified"] is None else bool(row["verified"]),
        "tags": json.loads(row["tags"]),
        "descriptors": json.loads(row["descriptors"]) or {},
    }


def unknown(db: Reader, sighting: int) -> Row:
    """A file whose content is not known yet: state, reason, path, size; first_seen, last_seen (ISO)"""
    row = db.execute("SELECT * FROM sighting WHERE id = ?", (sighting,)).fetchone()
    return {
        **{name: row[name] for name in ("state", "reason", "size")},
        "path": os.fsdecode(row["path"]),
        "first_seen": iso(row["first_seen"]),
        "last_seen": iso(row["last_seen"]),
    }


def everything(db: Reader, *, night: str | None = None, state: str | None = None) -> Iterator[Row]:
    """Every content ever seen, for `nirid ledger`; then files of unknown content, with sha256 None."""
    sql = """SELECT c.*, a.runs, f.ut FROM content c JOIN accounting a ON a.sha256 = c.sha256
        LEFT JOIN frame f ON f.id = c.frame_id"""
    where, values = (" WHERE c.state = ?", [state]) if state else ("", [])
    for row in db.execute(f"{sql}{where} ORDER BY c.name, c.id", values).fetchall():
        when = datetime.fromtimestamp(row["ut"], UTC) if row["ut"] is not None else _ut(row["descriptors"])
        its_night = night_of(row["name"], when or datetime.fromtimestamp(row["first_seen"], UTC))
        if night in (None, its_night):
            yield _told(db, row, its_night)
    if night is None:
        where = f"WHERE s.current AND s.content_id IS NULL{' AND s.state = ?' if state else ''}"
        for row in db.execute(f"SELECT s.* FROM sighting s {where} ORDER BY s.path", values).fetchall():
            yield {
                "sha256": None,
                "paths": [os.fsdecode(row["path"])],
                "state": row["state"],
                "reason": row["reason"],
                "first_seen": iso(row["first_seen"]),
                "night": None,
                "tags": [],
                "group": [],
                "jobs": [],
                "products": [],
                "runs": 0,
            }


def _told(db: Reader, row: sqlite3.Row, night: str) -> Row:
    of_frame = (row["frame_id"],)
    jobs = db.execute("SELECT DISTINCT job_id FROM job_input WHERE frame_id = ? ORDER BY job_id", of_frame)
    made = db.execute(
        """SELECT DISTINCT p.path FROM product p JOIN job_input i ON i.job_id = p.job_id
        WHERE i.frame_id = ? AND p.current ORDER BY p.path""",
        of_frame,
    )
    return {
        "sha256": row["sha256"],
        "paths": paths(db, row["id"]),
        "state": row["state"],
        "reason": row["reason"],
        "first_seen": iso(row["first_seen"]),
        "night": night,
        "tags": json.loads(row["tags"]),
        "group": groups_of_frame(db, row["frame_id"]),
        "jobs": [r[0] for r in jobs],
        "products": [os.fsdecode(r[0]) for r in made],
        "runs": row["runs"],
    }


def _ut(descriptors: str) -> datetime | None:
    values = json.loads(descriptors) or {}
    return datetime.fromisoformat(values["ut_datetime"]) if values.get("ut_datetime") else None


def _records(db: Reader, where: str, value: Any) -> list[ContentRecord]:
    rows = db.execute(f"{_RECORD} WHERE {where} ORDER BY c.id", (value,)).fetchall()
    return [
        ContentRecord(
            id=row["id"],
            sha256=row["sha256"],
            state=FileState(row["state"]),
            reason=row["reason"],
            kind=row["kind"],
            frame=row["frame_id"],
            label=row["label"] or "",
            data_sha=row["data_sha"] or "",
            name=row["frame"] or "",
        )
        for row in rows
    ]
