"""What the report of a night asks: its groups, what was left out of them, and when the daemon was down.

All goes by the time at which frames were taken, or events happened, by index: old nights cost nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from daemon.ledger.answers import current_product
from daemon.ledger.store import Reader, Tx
from daemon.model.names import GEMINI_NAME, is_date
from daemon.model.records import ProductRecord

STARTED, STOPPED = "daemon_started", "daemon_stopped"


@dataclass(frozen=True)
class NightGroup:
    """A group with frames in a night. first, last : seconds since the epoch, of its frames in the night

    frames : how many of them; came : when the last frame of the group arrived; sample : name of its first
    """

    group: int
    rule: str
    role: str
    program: str
    frames: int
    first: float
    last: float
    came: float
    reason: str
    sample: str
    object: str
    filter: str
    product: ProductRecord | None


def groups(db: Reader, low: float, high: float) -> list[NightGroup]:
    """Groups that have frames taken from `low` to before `high` (seconds since the epoch), in order of
    time."""
    rows = db.execute(
        """SELECT g.id, g.rule, g.last_arrival, g.reason, COUNT(*) AS n, MIN(f.ut) AS first,
            MAX(f.ut) AS last, f.role, f.program, f.name, json_extract(f.descriptors, '$.object') AS object,
            json_extract(f.descriptors, '$.filter_name') AS filter
        FROM frame f JOIN membership m ON m.frame_id = f.id JOIN frame_group g ON g.id = m.group_id
        WHERE f.ut >= ? AND f.ut < ? AND NOT g.closed GROUP BY g.id ORDER BY MIN(f.ut), g.rank, g.id""",
        (low, high),
    ).fetchall()
    return [
        NightGroup(
            group=r["id"],
            rule=r["rule"],
            role=r["role"],
            program=r["program"],
            frames=r["n"],
            first=r["first"],
            last=r["last"],
            came=r["last_arrival"],
            reason=r["reason"],
            sample=r["name"],
            object=str(r["object"] or ""),
            filter=str(r["filter"] or ""),
            product=current_product(db, r["id"]),
        )
        for r in rows
    ]


def frames(db: Reader, low: float, high: float) -> int:
    """How many exposures were taken."""
    row = db.execute("SELECT COUNT(*) FROM frame WHERE ut >= ? AND ut < ?", (low, high)).fetchone()
    return int(row[0])


def out_of_use(db: Reader, low: float, high: float) -> list[dict[str, Any]]:
    """Frames that a person, the QA state or the search for a bad one has taken out: name, state, reason."""
    rows = db.execute(
        """SELECT f.name, c.state, c.reason FROM frame f JOIN content c ON c.frame_id = f.id
        WHERE f.ut >= ? AND f.ut < ? AND c.state IN ('excluded', 'quarantined') ORDER BY f.ut, f.name""",
        (low, high),
    )
    return [dict(row) for row in rows]


def damaged(db: Reader, night: str, low: float, high: float) -> list[dict[str, Any]]:
    """Files without an exposure that are quarantined: name, state, reason. Of the night in their name, of
    another name those that came in it."""
    rows = db.execute(
        """SELECT name, state, reason, first_seen FROM content
        WHERE state = 'quarantined' AND frame_id IS NULL ORDER BY name, id"""
    )
    return [
        {"name": r["name"], "state": r["state"], "reason": r["reason"]}
        for r in rows
        if (
            low <= r["first_seen"] < high
            if not (named := GEMINI_NAME.match(r["name"]))
            else named[1] == night
        )
    ]


def rejected_products(db: Reader, night: str) -> list[dict[str, Any]]:
    """Products of a night (its folder) that a person has taken out of use: name, path, user, reason."""
    rows = db.execute(
        """SELECT p.name, p.path, d.user, d.reason FROM product p JOIN job j ON j.id = p.job_id
        JOIN decision d ON d.subject = 'product ' || j.key
        WHERE p.night = ? AND NOT p.current AND d.action = 'reject' AND NOT EXISTS (SELECT 1 FROM decision l
            WHERE l.subject = d.subject AND l.id > d.id AND l.action = 'accept') ORDER BY d.id""",
        (night,),
    )
    return [{**dict(row), "path": os.fsdecode(row["path"])} for row in rows]


def outages(db: Reader, low: float, high: float) -> list[tuple[float, float | None, bool]]:
    """(from, until, whether it had been stopped in order) of each time without a daemon that touches the
    span; until is None when it has not come back, and from is its last sign of life where it ended by
    accident."""
    rows = db.execute(
        f"""SELECT id, at, event FROM event WHERE event IN ('{STARTED}', '{STOPPED}')
        AND at < ? ORDER BY at DESC, id DESC LIMIT 1""",
        (low,),
    ).fetchall()
    later = db.execute(
        f"""SELECT id, at, event FROM event WHERE event IN ('{STARTED}', '{STOPPED}')
        AND at >= ? ORDER BY at, id""",
        (low,),
    )
    found: list[tuple[float, float | None, bool]] = []
    before: Any = rows[0] if rows else None
    for row in later:
        if row["event"] == STARTED and before is not None:
            orderly = before["event"] == STOPPED
            begin = before["at"] if orderly else _alive(db, row["id"], before["at"])
            found.append((begin, row["at"], orderly))
        before = row
        if row["at"] >= high and row["event"] == STARTED:
            break
    if before is not None and before["event"] == STOPPED:
        found.append((before["at"], None, True))
    return [o for o in found if o[0] < high and (o[1] is None or o[1] > low)]


def _alive(db: Reader, before: int, at_least: float) -> float:
    """When something had happened last before an event."""
    row = db.execute("SELECT at FROM event WHERE id < ? ORDER BY id DESC LIMIT 1", (before,)).fetchone()
    return max(at_least, float(row[0])) if row else at_least


def changed(db: Reader, since: float) -> dict[str, float]:
    """{night: when something of it changed last} of the nights in which anything has changed since a time:
    a frame came or got another state, a job or a product, or somebody decided about one.

    It reads every content, job and product once: for whoever asks every few minutes, not for every event.
    """
    found: dict[str, float] = {}
    for sql in _CHANGES:
        for night, at in db.execute(sql, (since,)):
            if night and is_date(night):
                found[night] = max(at, found.get(night, at))
    return found


_DATE = "strftime('%Y%m%d', {}, 'unixepoch')"
_OF_JOB = "JOIN frame_group g ON g.id = j.group_id"
_CHANGES = (
    f"""SELECT {_DATE.format("f.ut")}, MAX(c.changed) FROM content c JOIN frame f ON f.id = c.frame_id
    WHERE c.changed > ? AND f.ut IS NOT NULL GROUP BY 1""",
    f"""SELECT {_DATE.format("c.first_seen")}, MAX(c.changed) FROM content c
    WHERE c.changed > ? AND c.frame_id IS NULL AND c.state = 'quarantined' GROUP BY 1""",
    f"""SELECT {_DATE.format("g.first_ut")}, MAX(j.changed) FROM job j {_OF_JOB}
    WHERE j.changed > ? GROUP BY 1""",
    f"""SELECT {_DATE.format("g.first_ut")}, MAX(p.published) FROM product p
    JOIN job j ON j.id = p.job_id {_OF_JOB}
    WHERE p.published > ? GROUP BY 1""",
    f"""SELECT {_DATE.format("g.first_ut")}, MAX(d.at) FROM decision d
    JOIN job j ON j.key = substr(d.subject, 9) {_OF_JOB}
    WHERE d.at > ? AND d.subject LIKE 'product %' GROUP BY 1""",
)


def note_start(tx: Tx) -> None:
    """The daemon works from now on."""
    tx.event(STARTED)


def note_stop(tx: Tx) -> None:
    """It has stopped in order."""
    tx.event(STOPPED)
