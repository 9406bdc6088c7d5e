"""What others may know of the ledger: read-only questions, each answered with plain data.

    with ledger.read() as db: ...                  # in the daemon
    db = connect_readonly(config.database)         # in a command, whether the daemon runs or not

Times in answers are ISO, UTC. Names, reasons and paths may hold anything that a header or a file name
can: they are data, to be escaped where they are shown.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from daemon.ledger.jobs import CLAIMABLE
from daemon.model.files import Signature

Row = dict[str, Any]

# state of a file: of its content, or its own until the content is known
_STATE = "COALESCE(c.state, s.state)"


def settled_files(db: sqlite3.Connection) -> Iterator[tuple[str, Signature]]:
    """(path, signature) of every file on disk that has had its final verdict, for the watcher."""
    sql = f"""SELECT s.path, s.dev, s.ino, s.size, s.mtime_ns, s.ctime_ns FROM sighting s
        LEFT JOIN content c ON c.id = s.content_id
        WHERE s.current AND s.present AND s.size IS NOT NULL AND {_STATE} NOT IN ('seen', 'incomplete')"""
    for path, dev, ino, size, mtime, ctime in db.execute(sql):
        yield os.fsdecode(path), Signature(dev, int(ino), size, mtime, ctime)


def unread_files(db: sqlite3.Connection) -> list[str]:
    """Paths that were there at the last look and whose content is not known yet, or not whole."""
    sql = f"""SELECT s.path FROM sighting s LEFT JOIN content c ON c.id = s.content_id
        WHERE s.current AND s.present AND {_STATE} IN ('seen', 'incomplete') ORDER BY s.path"""
    return [os.fsdecode(row[0]) for row in db.execute(sql)]


def files_on_record(db: sqlite3.Connection) -> Iterator[Row]:
    """path, state, reason, sha256 (or None), present: the latest sighting at every path, for the audit."""
    sql = f"""SELECT s.path, {_STATE} AS state, COALESCE(c.reason, s.reason) AS reason, c.sha256, s.present
        FROM sighting s LEFT JOIN content c ON c.id = s.content_id WHERE s.current ORDER BY s.path"""
    for row in db.execute(sql):
        yield {**dict(row), "path": os.fsdecode(row["path"]), "present": bool(row["present"])}


def being_removed(db: sqlite3.Connection) -> set[str]:
    """Paths of superseded products that retention has given up, and not unlinked yet."""
    return {os.path.realpath(os.fsdecode(row[0])) for row in db.execute("SELECT path FROM removal")}


_TALLIES = {
    "files": """SELECT state, COUNT(*) FROM (SELECT state FROM content UNION ALL
        SELECT state FROM sighting WHERE current AND content_id IS NULL) GROUP BY state""",
    "jobs": "SELECT state, COUNT(*) FROM job GROUP BY state",
    "products": "SELECT IIF(current, 'current', 'superseded'), COUNT(*) FROM product GROUP BY 1",
}


def counts(db: sqlite3.Connection, *what: str) -> dict[str, dict[str, int]]:
    """{"files": {state: n}, "jobs": {state: n}, "products": {"current": n, "superseded": n}}, or some of it.

    Files count by content, those whose content is not known yet by path.
    """
    return {name: {row[0]: row[1] for row in db.execute(_TALLIES[name])} for name in what or _TALLIES}


def job_counts(db: sqlite3.Connection) -> dict[str, int]:
    """{state: n} for people: failed counts only jobs that nothing has made good since."""
    states = {**counts(db, "jobs")["jobs"], "failed": len(failed(db))}
    return {state: n for state, n in sorted(states.items()) if n}


def jobs(db: sqlite3.Connection, states: Sequence[str] = (), limit: int = 1000) -> list[Row]:
    """Jobs, the latest change first. waits_for : ids of the jobs that make what it needs.

    inputs : names of its frames; while it waits, of those that its group has
    """
    where = f"WHERE j.state IN ({', '.join('?' * len(states))})" if states else ""
    sql = f"{_JOBS} {where} ORDER BY j.changed DESC, j.id DESC LIMIT ?"
    return [_job(db, row) for row in db.execute(sql, (*states, limit))]


def job(db: sqlite3.Connection, number: int) -> Row:
    """One of `jobs`."""
    return _job(db, db.execute(f"{_JOBS} WHERE j.id = ?", (number,)).fetchone())


_JOBS = """SELECT j.*, g.rule, p.path AS product FROM job j JOIN frame_group g ON g.id = j.group_id
    LEFT JOIN product p ON p.job_id = j.id"""


def _by_role(calibrations: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Role -> name; of several standards of a night the second is "zero_point 2", and so on."""
    named: dict[str, str] = {}
    for item in calibrations:
        number = 1 + sum(role.partition(" ")[0] == item["role"] for role in named)
        named[item["role"] if number == 1 else f"{item['role']} {number}"] = item["name"]
    return named


def _job(db: sqlite3.Connection, row: sqlite3.Row) -> Row:
    spec = json.loads(row["spec"]) if row["spec"] else {}
    waits = db.execute(
        "SELECT p.id FROM dependency d JOIN job p ON p.id = d.producer_id WHERE d.job_id = ?", (row["id"],)
    )
    return {
        "id": row["id"],
        "key": row["key"],
        "group": row["group_id"],
        "rule": row["rule"],
        "recipe": row["recipe"],
        "version": row["version"],
        "state": row["state"],
        "reason": row["reason"],
        "name": spec.get("name", ""),
        "night": spec.get("night", ""),
        "inputs": [item["name"] for item in spec["inputs"]]
        if spec
        else _names(db, row["group_id"], usable=True),
        "calibrations": _by_role(spec.get("calibrations", [])),
        "notes": spec.get("notes", []),
        "attempts": row["attempts"],
        "error": row["error"],
        "seconds": row["seconds"],
        "peak_mb": row["peak_mb"],
        "planned": iso(row["planned_at"]),
        "changed": iso(row["changed"]),
        "product": os.fsdecode(row["product"]) if row["product"] else None,
        "waits_for": [r[0] for r in waits],
    }


# Groups g with what `group_state` needs, and n, how many frames they have.
GROUPS = """SELECT g.*,
    (SELECT j.state FROM job j WHERE j.group_id = g.id AND j.state <> 'dropped'
     ORDER BY j.changed DESC, j.id DESC LIMIT 1) AS job_state,
    EXISTS (SELECT 1 FROM product p WHERE p.group_id = g.id AND p.current) AS has_product,
    (SELECT COUNT(*) FROM membership m WHERE m.group_id = g.id) AS n
    FROM frame_group g"""


def group_state(row: sqlite3.Row) -> str:
    """open (not quiet yet), planned, waiting, running, done, failed, idle, or closed; of a row of GROUPS."""
    if row["closed"]:
        return "closed"
    state: str = row["job_state"] or ("done" if row["has_product"] else "idle")
    return "open" if not row["settled"] and state in ("done", "idle") else state


def groups(db: sqlite3.Connection, *, unfinished: bool = False) -> list[Row]:
    """Groups in order of time. frames, names : what has arrived; reason : what is missing

    unfinished : only those that are not done
    """
    where = "WHERE NOT g.closed"
    if unfinished:
        where += """ AND (NOT g.settled OR g.touched > 0 OR NOT EXISTS
            (SELECT 1 FROM product p WHERE p.group_id = g.id AND p.current))"""
    answer = []
    for row in db.execute(f"{GROUPS} {where} ORDER BY g.first_ut, g.rank, g.id"):
        answer.append(
            {
                "id": row["id"],
                "rule": row["rule"],
                "key": row["key"],
                "state": group_state(row),
                "reason": row["reason"],
                "frames": row["n"],
                "names": _names(db, row["id"]) if unfinished else [],
                "settled": bool(row["settled"]),
                "better": row["better"],
                "first": iso(row["first_ut"]),
                "last": iso(row["last_ut"]),
                "last_arrival": iso(row["last_arrival"]),
            }
        )
    return answer


def _names(db: sqlite3.Connection, group: int, *, usable: bool = False) -> list[str]:
    sql = """SELECT f.name FROM membership m JOIN frame f ON f.id = m.frame_id
        WHERE m.group_id = ? AND (f.usable OR NOT ?) ORDER BY f.ut, f.label"""
    return [row[0] for row in db.execute(sql, (group, usable))]


def products(db: sqlite3.Connection, *, current: bool = True) -> list[Row]:
    """Published products. waited : seconds from the arrival of the group's last frame to the publication;
    None when that frame came after it"""
    sql = f"""SELECT p.*, j.recipe, j.key, j.seconds, g.last_arrival, g.rule FROM product p
        JOIN job j ON j.id = p.job_id JOIN frame_group g ON g.id = p.group_id
        {"WHERE p.current" if current else ""} ORDER BY p.night, p.name, p.version"""
    return [
        {
            "path": os.fsdecode(row["path"]),
            "name": row["name"],
            "night": row["night"],
            "sha256": row["sha256"],
            "version": row["version"],
            "current": bool(row["current"]),
            "recipe": row["recipe"],
            "rule": row["rule"],
            "job": row["job_id"],
            "key": row["key"],
            "group": row["group_id"],
            "seconds": row["seconds"],
            "published": iso(row["published"]),
            "last_arrival": iso(row["last_arrival"]),
            "waited": round(late, 3) if (late := row["published"] - row["last_arrival"]) >= 0 else None,
            "notes": json.loads(row["notes"]),
            "quality": json.loads(row["quality"]),
        }
        for row in db.execute(sql)
    ]


def status(db: sqlite3.Connection) -> Row:
    """What is running, waiting and failed; per group what has arrived and what is missing."""
    return {
        "counts": counts(db),
        "running": jobs(db, ["running"]),
        "waiting": jobs(db, ["waiting"]),
        "planned": jobs(db, ["planned"]),
        "failed": failed(db),
        "groups": groups(db, unfinished=True),
    }


# Of failed jobs those that nothing has made good: no product of the group since, no other job that may.
_NOT_MADE_GOOD = """j.state = 'failed' AND NOT EXISTS (SELECT 1 FROM product p WHERE p.group_id = j.group_id
    AND p.current AND p.published >= j.changed) AND NOT EXISTS (SELECT 1 FROM frame_group g
    WHERE g.id = j.group_id AND g.closed) AND NOT EXISTS (SELECT 1 FROM job k WHERE k.group_id = j.group_id
    AND k.id > j.id AND k.state IN ('done', 'failed'))"""


def failed(db: sqlite3.Connection) -> list[Row]:
    """Failed jobs that need a person, the latest first."""
    rows = db.execute(f"SELECT j.id FROM job j WHERE {_NOT_MADE_GOOD}").fetchall()
    ids = {row[0] for row in rows}
    return [job for job in jobs(db, ["failed"], limit=1_000_000) if job["id"] in ids]


def killed(db: sqlite3.Connection, most: int) -> list[Row]:
    """Jobs that are still to be done, and more than `most` of whose attempts ended with their worker.

    Only attempts since the last one that ended otherwise are counted. id, times, why : the last words
    """
    ended = "('died', 'killed', 'memory', 'timeout', 'interrupted')"
    sql = f"""SELECT j.id, COUNT(*) AS times, (SELECT b.error FROM attempt b WHERE b.job_id = j.id
            AND b.outcome IN {ended} ORDER BY b.n DESC LIMIT 1) AS why
        FROM job j JOIN attempt a ON a.job_id = j.id
        WHERE j.state IN ('planned', 'waiting', 'running') AND a.outcome IN {ended}
        AND a.n > COALESCE((SELECT MAX(c.n) FROM attempt c WHERE c.job_id = j.id
            AND c.outcome IN ('done', 'failed')), 0)
        GROUP BY j.id HAVING COUNT(*) > ? ORDER BY times DESC, j.id"""
    rows = db.execute(sql, (most,)).fetchall()
    return [{**dict(row), "why": row["why"] or "the daemon ended meanwhile"} for row in rows]


STILL = 60.0  # s without a change after which a file that is not whole has probably been left so


def for_a_person(db: sqlite3.Connection, since: float, now: float) -> list[Row]:
    """Files that need a person: {"level", "check", "text"} as `health` has its problems.

    since : files damaged before that are left out; now : both in seconds since the epoch
    """
    lost = "SELECT reason FROM job WHERE state = 'waiting' AND reason LIKE '% no longer on disk%' ORDER BY id"
    texts = [("lost file", row[0]) for row in db.execute(lost)]
    unread = db.execute(
        """SELECT COUNT(*), MIN(path), MIN(reason) FROM sighting WHERE current AND present
        AND state IN ('seen', 'incomplete') AND reason LIKE 'cannot be read%'"""
    ).fetchone()
    if unread[0]:
        texts.append(("unread", f"{unread[0]} files {unread[2]}, as {os.fsdecode(unread[1])}"))
    still = """SELECT path, reason FROM sighting WHERE current AND present AND state = 'incomplete'
        AND reason NOT LIKE 'cannot be read%' AND MAX(ctime_ns / 1e9, first_seen) < ?
        ORDER BY path LIMIT 3"""
    for path, reason in db.execute(still, (now - STILL,)):
        texts.append(("not whole", f"{os.path.basename(os.fsdecode(path))}: {reason}, and it does not grow"))
    damaged = "SELECT name FROM content WHERE state = 'quarantined' AND changed > ? ORDER BY changed DESC"
    if names := [row[0] for row in db.execute(damaged, (since,))]:
        several = f"{len(names)} files are" if len(names) > 1 else "a file is"
        texts.append(("damaged", f"{several} damaged, as {names[0]} (nirid ledger --state quarantined)"))
    return [{"level": "warning", "check": check, "text": text} for check, text in texts]


def waits(db: sqlite3.Connection) -> Row:
    """How long things have waited: seconds since the epoch, None where nothing waits.

    startable : since when the oldest job that needs nothing but a worker is planned
    calibration : since when the oldest job waits for a calibration
    publishing : how many products are made and not in their places yet; made : the oldest, since when
    arrival, name : when the last frame came, and what it is called
    unread : files that cannot be read, or not yet
    """
    one = {
        "startable": f"SELECT MIN(j.changed) FROM {CLAIMABLE}",
        "calibration": "SELECT MIN(changed) FROM job WHERE state = 'waiting'",
        "publishing": "SELECT COUNT(*) FROM intent",
        "made": "SELECT MIN(j.changed) FROM intent i JOIN job j ON j.id = i.job_id",
        "unread": f"""SELECT COUNT(*) FROM sighting s LEFT JOIN content c ON c.id = s.content_id
            WHERE s.current AND s.present AND {_STATE} IN ('seen', 'incomplete')""",
    }
    answer: Row = {name: db.execute(sql).fetchone()[0] for name, sql in one.items()}
    newest = "SELECT first_seen, name FROM content ORDER BY first_seen DESC, id DESC LIMIT 1"
    last = db.execute(newest).fetchone()
    return {**answer, "arrival": last[0] if last else None, "name": last[1] if last else ""}


def iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
