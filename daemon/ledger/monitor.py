"""What a monitor counts: short questions for the figures that the daemon writes every few seconds."""

from __future__ import annotations

import json
import os

from daemon.ledger.store import Reader

DAY = 86400.0  # s: a figure of the night that is older than this is not told any more


def look_shown(db: Reader, look: int) -> tuple[str, float] | None:
    """(kind, seconds from the landing of its newest frame until it was seen); None where unknown."""
    row = db.execute("SELECT kind, group_id, frames, ended FROM look WHERE id = ?", (look,)).fetchone()
    names = json.loads(row["frames"]) if row else []
    if not names or row["ended"] is None:
        return None
    came = db.execute(
        """SELECT s.ctime_ns / 1e9 AS at FROM membership m JOIN frame f ON f.id = m.frame_id AND f.name = ?
        JOIN content c ON c.frame_id = f.id JOIN sighting s ON s.content_id = c.id AND s.current
        WHERE m.group_id = ? ORDER BY s.id LIMIT 1""",
        (names[-1], row["group_id"]),
    ).fetchone()
    return (row["kind"], row["ended"] - came["at"]) if came and came["at"] is not None else None


def landed(db: Reader, path: str) -> float | None:
    """When the file that is at a path now came there, by the file system; seconds since the epoch."""
    row = db.execute(
        "SELECT ctime_ns / 1e9 AS at FROM sighting WHERE path = ? AND current", (os.fsencode(path),)
    ).fetchone()
    return float(row["at"]) if row and row["at"] is not None else None


def product_waited(db: Reader, job: int) -> float | None:
    """Seconds from the last frame of a group until its product was there; None of one that is made again."""
    row = db.execute(
        """SELECT p.published, g.last_arrival, p.version FROM product p
        JOIN frame_group g ON g.id = p.group_id WHERE p.job_id = ?""",
        (job,),
    ).fetchone()
    late = row["published"] - row["last_arrival"] if row and row["version"] == 1 else -1.0
    return float(late) if late >= 0 else None


def queue(db: Reader) -> dict[int, int]:
    """{priority: how many jobs are planned}."""
    rows = db.execute("SELECT priority, COUNT(*) FROM job WHERE state = 'planned' GROUP BY priority")
    return {row[0]: row[1] for row in rows}


def last_frame(db: Reader) -> float | None:
    """When the last file came; seconds since the epoch."""
    row = db.execute("SELECT first_seen FROM content ORDER BY id DESC LIMIT 1").fetchone()
    return float(row[0]) if row else None


def latest(db: Reader, name: str) -> dict[str, float]:
    """{setting: the newest value of a measure of frames} of the last day that has any, by index."""
    newest = db.execute(
        "SELECT MAX(at) FROM measure WHERE name = ? AND subject = 'frame'", (name,)
    ).fetchone()[0]
    if newest is None:
        return {}
    rows = db.execute(
        "SELECT key, value FROM measure WHERE name = ? AND at >= ? AND subject = 'frame' ORDER BY at",
        (name, newest - DAY),
    )
    return {row["key"]: row["value"] for row in rows}


def held(db: Reader) -> int:
    """How many masters are held back."""
    from daemon.ledger.held import everything

    return len(everything(db))
