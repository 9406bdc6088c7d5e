"""Where bytes lie that once came in or were made here, and how they were made."""

from __future__ import annotations

import json
import os

from daemon.ledger import events
from daemon.ledger.store import Reader
from daemon.model.jobs import JobSpec


def of_bytes(db: Reader, sha256: str) -> list[str]:
    """Paths at which a file of these bytes lies or has lain, the likeliest first: a delivered file, a
    product, a calibration that was registered where it lies."""
    delivered = """SELECT s.path, NOT (s.current AND s.present) AS gone FROM content c
        JOIN sighting s ON s.content_id = c.id WHERE c.sha256 = ? ORDER BY gone, s.id"""
    rows = db.execute(delivered, (sha256,)).fetchall()
    if not rows:  # these have no index by hash
        sql = """SELECT path, NOT current AS gone FROM product WHERE sha256 = ?
            UNION ALL SELECT path, removed IS NOT NULL FROM calibration WHERE sha256 = ? ORDER BY gone"""
        rows = db.execute(sql, (sha256, sha256)).fetchall()
    return list(dict.fromkeys(os.fsdecode(row[0]) for row in rows))


def of_same_frame(db: Reader, sha256: str) -> list[tuple[str, str]]:
    """(path, SHA-256) of other files of the same exposure whose headers say the same where it matters: a
    compressed copy, an edited comment."""
    rows = db.execute(
        """SELECT s.path, o.sha256 FROM content c JOIN content o ON o.frame_id = c.frame_id AND o.id <> c.id
            AND o.facts = c.facts JOIN sighting s ON s.content_id = o.id
        WHERE c.sha256 = ? ORDER BY NOT s.current, s.id""",
        (sha256,),
    )
    return [(os.fsdecode(row[0]), row[1]) for row in rows]


def spec_of_key(db: Reader, key: str) -> JobSpec | None:
    """The job of a key; None when there is none, or it was never begun."""
    row = db.execute("SELECT spec FROM job WHERE key = ? AND spec <> ''", (key,)).fetchone()
    return JobSpec.from_json(json.loads(row["spec"])) if row else None


def maker_of(db: Reader, sha256: str, user: str) -> JobSpec | None:
    """What made a calibration, though its file and its row may be gone. user : key of a job that had it"""
    used = spec_of_key(db, user)
    made = (spec_of_key(db, cal.key) for cal in (used.calibrations if used else ()) if cal.sha == sha256)
    return next((spec for spec in made if spec is not None), None)


def processor_of(db: Reader, key: str) -> str:
    """What could do the processor that made the product of this key; "" where it was not recorded."""
    row = db.execute("SELECT id FROM job WHERE key = ?", (key,)).fetchone()
    done = events.last_of_job(db, row["id"], "job_done") if row else None
    return str(done.fields.get("processor") or "") if done else ""
