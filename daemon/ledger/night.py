"""What was taken in a night: its groups, what they have and what was made of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from daemon.ledger.answers import current_product
from daemon.ledger.questions import GROUPS, group_state
from daemon.ledger.store import Reader, placeholders
from daemon.model.records import ProductRecord
from pipeline.headers.descriptors import Descriptors


@dataclass(frozen=True)
class Taken:
    """A group that has frames. state, reason, better : as `questions.groups` has them

    frames : names in order of time; usable : of those that can be used and are there
    role, ut (seconds since the epoch), facts : of the first frame
    product : the current one
    """

    group: int
    rule: str
    state: str
    reason: str
    better: str
    frames: tuple[str, ...]
    usable: frozenset[str]
    role: str
    ut: float
    facts: Descriptors
    product: ProductRecord | None


def taken(db: Reader, low: float, high: float) -> list[Taken]:
    """Groups with a frame between two times (seconds since the epoch), in order of time.

    By the frames of that time: among the groups of all nights SQLite would have to look at every one.
    """
    rows = db.execute(
        f"""{GROUPS} WHERE NOT g.closed AND g.id IN (SELECT m.group_id FROM frame f
            CROSS JOIN membership m WHERE f.ut >= ? AND f.ut <= ? AND m.frame_id = f.id)
        ORDER BY g.first_ut, g.rank, g.id""",
        (low, high),
    ).fetchall()
    return [_taken(db, row) for row in rows if row["n"]]


def _taken(db: Reader, group: sqlite3.Row) -> Taken:
    frames = db.execute(
        """SELECT f.name, f.ut, f.role, f.descriptors, f.usable AND EXISTS (SELECT 1 FROM content c
            JOIN sighting s ON s.content_id = c.id AND s.current AND s.present
            WHERE c.frame_id = f.id AND c.state <> 'superseded') AS usable
        FROM membership m JOIN frame f ON f.id = m.frame_id WHERE m.group_id = ? ORDER BY f.ut, f.label""",
        (group["id"],),
    ).fetchall()
    return Taken(
        group=group["id"],
        rule=group["rule"],
        state=group_state(group),
        reason=group["reason"],
        better=group["better"],
        frames=tuple(frame["name"] for frame in frames),
        usable=frozenset(frame["name"] for frame in frames if frame["usable"]),
        role=frames[0]["role"],
        ut=frames[0]["ut"],
        facts=Descriptors.from_json(json.loads(frames[0]["descriptors"])),
        product=current_product(db, group["id"]),
    )


def of_objects(db: Reader, low: float, high: float) -> list[tuple[int, str, float]]:
    """(group, name and time of its first frame) of science and standards between two times, in order."""
    rows = db.execute(
        """SELECT g.id, f.name, MIN(f.ut) FROM frame f CROSS JOIN membership m CROSS JOIN frame_group g
        WHERE f.ut >= ? AND f.ut <= ? AND f.role IN ('science', 'standard')
            AND m.frame_id = f.id AND g.id = m.group_id AND NOT g.closed
        GROUP BY g.id ORDER BY g.first_ut, g.rank, g.id""",
        (low, high),
    )
    return [(row[0], row[1], row[2]) for row in rows]


def latest_frame(db: Reader, until: float) -> float | None:
    """When the latest frame before a time was taken: of those with a role, else of any."""
    for where in ("role <> ''", "1"):
        row = db.execute(f"SELECT ut FROM frame WHERE {where} AND ut < ? ORDER BY ut DESC LIMIT 1", (until,))
        if (last := row.fetchone()) is not None:
            return float(last[0])
    return None


def unfinished(db: Reader, without: Sequence[int]) -> int:
    """How many groups have a job to do, without these."""
    sql = f"""SELECT COUNT(DISTINCT group_id) FROM job WHERE state IN ('planned', 'waiting', 'running')
        AND group_id NOT IN ({placeholders(without)})"""
    return int(db.execute(sql, tuple(without)).fetchone()[0])
