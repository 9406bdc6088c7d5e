"""What a run until nothing is left asks the ledger: how far it is, which files came to nothing, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from daemon.ledger.store import Reader

_NUMBERS = re.compile(r"\d[\d.,]*")


@dataclass(frozen=True)
class Work:
    """Jobs and the frames in them. done, failed : since the run began; left : planned, waiting or running"""

    done: int = 0
    failed: int = 0
    left: int = 0
    running: int = 0
    frames_done: int = 0
    frames_left: int = 0


@dataclass(frozen=True)
class LeftOut:
    """Files that came to nothing for one reason. state : theirs, or "no recipe", "no product", "copy"."""

    state: str
    reason: str
    files: int
    example: str


def work(db: Reader, since: float) -> Work:
    """since : when the run began, seconds"""
    counted = dict.fromkeys(("done", "failed", "left", "running", "frames_done", "frames_left"), 0)
    rows = db.execute(
        """SELECT j.state, COUNT(*), SUM((SELECT COUNT(*) FROM membership m WHERE m.group_id = j.group_id))
        FROM job j WHERE j.state IN ('planned', 'waiting', 'running')
            OR (j.state IN ('done', 'failed') AND j.changed >= ?) GROUP BY j.state""",
        (since,),
    )
    for state, jobs, frames in rows:
        over = state in ("done", "failed")
        counted[state if over else "left"] += jobs
        counted["running"] += jobs if state == "running" else 0
        counted["frames_done" if over else "frames_left"] += frames or 0
    return Work(**counted)


def left_out(db: Reader) -> list[LeftOut]:
    """Files on disk that are in no product and are no calibration, by why, the most first."""
    refused = db.execute(
        """SELECT c.state, c.reason, s.path FROM sighting s JOIN content c ON c.id = s.content_id
        WHERE s.current AND s.present AND c.state NOT IN ('ready', 'calibration')
        UNION ALL SELECT s.state, s.reason, s.path FROM sighting s
        WHERE s.current AND s.present AND s.content_id IS NULL"""
    )
    unused = db.execute(
        """SELECT CASE WHEN g.id IS NULL THEN 'no recipe' ELSE 'no product' END,
            COALESCE(g.reason, f.role), f.name
        FROM frame f LEFT JOIN membership m ON m.frame_id = f.id
            LEFT JOIN frame_group g ON g.id = m.group_id AND NOT g.closed
        WHERE EXISTS (SELECT 1 FROM content c WHERE c.frame_id = f.id AND c.state = 'ready')
            AND NOT EXISTS (SELECT 1 FROM job_input i JOIN product p ON p.job_id = i.job_id
                WHERE i.frame_id = f.id AND p.current)
        GROUP BY f.id ORDER BY f.ut, f.name"""
    )
    copies = db.execute(
        """SELECT 'copy', 'the same exposure as ' || f.name, s.path
        FROM sighting s JOIN content c ON c.id = s.content_id JOIN frame f ON f.id = c.frame_id
        WHERE s.current AND s.present AND c.state = 'ready' AND EXISTS (SELECT 1 FROM sighting t
            JOIN content d ON d.id = t.content_id WHERE d.frame_id = f.id AND d.state = 'ready'
            AND t.current AND t.present AND t.id < s.id)
        ORDER BY s.path"""
    )
    return _by_reason([*refused, *unused, *copies])


def _by_reason(rows: Iterable[tuple[str, str, bytes | str]]) -> list[LeftOut]:
    """Reasons that differ in numbers only are one; that of the first of them is shown."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for state, reason, path in rows:
        name = os.path.basename(os.fsdecode(path))
        plain = reason.replace(f"{os.fsdecode(path)}: ", "") or "not said"
        found.setdefault((state, _NUMBERS.sub("#", plain)), []).append((plain, name))
    made = [LeftOut(state, these[0][0], len(these), these[0][1]) for (state, _), these in found.items()]
    return sorted(made, key=lambda one: (-one.files, one.state, one.reason))
