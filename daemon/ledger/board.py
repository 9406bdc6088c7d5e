"""What the page asks, by night and by id: nothing here walks the whole of a ledger.

    frames(db, low, high, limit=50)          # the newest of a night, with where they stand
    products(db, "20160102", 12)             # its newest products

Times are seconds since the epoch.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from daemon.ledger.store import Reader
from daemon.model.names import FIRST
from pipeline.headers.descriptors import Descriptors

LATE = 86400.0  # s: a look that was made later than this after its frame came says nothing of latency


@dataclass(frozen=True)
class NightFrame:
    """One exposure. ut : when it was taken; came : when its file was there, by the clock of its disk

    state, reason : of its file; group : the first that it is in, None where it is in none
    """

    id: int
    name: str
    label: str
    ut: float
    program: str
    role: str
    usable: bool
    state: str
    reason: str
    came: float | None
    group: int | None
    facts: Descriptors


@dataclass(frozen=True)
class Shown:
    """Something that has a picture. kind : look or product; key : changes when the picture does

    of : firstlook or running of a look, else the recipe; at : when it was there; frames : how many are in it
    newest : name of the last of them; path : of the FITS file; job : key of what has made a product, which
    stands in its header
    """

    kind: str
    id: int
    key: str
    name: str
    of: str
    night: str
    group: int
    at: float
    frames: int
    newest: str
    path: str
    version: int = 1
    current: bool = True
    job: str = ""


@dataclass(frozen=True)
class Told:
    """A row of the log that the ledger keeps. number : goes up"""

    number: int
    at: float
    name: str
    fields: dict[str, Any]


def frames(
    db: Reader, low: float, high: float, *, limit: int = 50, after: tuple[float, int] | None = None
) -> list[NightFrame]:
    """Exposures taken from `low` to before `high`, the newest first.

    after : (ut, id) of the last one that is known already
    """
    until, number = after or (high, 1 << 62)
    rows = db.execute(
        """SELECT f.*, c.state, c.reason, (SELECT s.ctime_ns / 1e9 FROM sighting s WHERE s.content_id = c.id
                ORDER BY s.current DESC, s.id LIMIT 1) AS came,
            (SELECT MIN(m.group_id) FROM membership m WHERE m.frame_id = f.id) AS of_group
        FROM frame f LEFT JOIN content c ON c.id = (SELECT k.id FROM content k WHERE k.frame_id = f.id
            ORDER BY k.state = 'superseded', k.state <> 'ready', k.id LIMIT 1)
        WHERE f.ut >= ? AND f.ut < ? AND (f.ut < ? OR (f.ut = ? AND f.id < ?))
        ORDER BY f.ut DESC, f.id DESC LIMIT ?""",
        (low, high, until, until, number, limit),
    ).fetchall()
    return [
        NightFrame(
            id=row["id"],
            name=row["name"],
            label=row["label"],
            ut=row["ut"],
            program=row["program"],
            role=row["role"],
            usable=bool(row["usable"]),
            state=row["state"] or "",
            reason=row["reason"] or "",
            came=row["came"],
            group=row["of_group"],
            facts=Descriptors.from_json(json.loads(row["descriptors"])),
        )
        for row in rows
    ]


def arrival(db: Reader) -> tuple[str, float] | None:
    """(name, when it was first seen) of the last content that has come."""
    row = db.execute("SELECT name, first_seen FROM content ORDER BY id DESC LIMIT 1").fetchone()
    return (row["name"], row["first_seen"]) if row else None


_LOOKS = """SELECT id, began, ended, name, kind, night, group_id, frames, path FROM look
    WHERE state = 'done'"""


def looks(db: Reader, limit: int) -> list[Shown]:
    """The newest looks whose files are there, the newest first."""
    found: list[Shown] = []
    for row in db.execute(f"{_LOOKS} ORDER BY id DESC LIMIT ?", (4 * limit,)):
        look = _look(row)
        if len(found) < limit and _is_latest(db, look) and os.path.exists(look.path):
            found.append(look)
    return found


def look(db: Reader, number: int) -> Shown | None:
    """One by its row; None where there is none, or a later one lies at its path."""
    row = db.execute(f"{_LOOKS} AND id = ?", (number,)).fetchone()
    found = _look(row) if row else None
    return found if found and _is_latest(db, found) else None


def _look(row: Any) -> Shown:
    names = json.loads(row["frames"]) or [""]
    return Shown(
        kind="look",
        id=row["id"],
        key=f"{int(1000 * (row['ended'] or row['began'])):x}",
        name=row["name"],
        of=row["kind"],
        night=row["night"],
        group=row["group_id"],
        at=row["ended"] or row["began"],
        frames=len(names),
        newest=names[-1],
        path=os.fsdecode(row["path"]),
    )


def _is_latest(db: Reader, look: Shown) -> bool:
    sql = "SELECT 1 FROM look WHERE name = ? AND night = ? AND state = 'done' AND id > ? LIMIT 1"
    return db.execute(sql, (look.name, look.night, look.id)).fetchone() is None


def is_last_begun(db: Reader, look: Shown) -> bool:
    """Whether no later look was begun that is to lie at its path, so that this lies there."""
    sql = "SELECT 1 FROM look WHERE name = ? AND night = ? AND id > ? LIMIT 1"
    return db.execute(sql, (look.name, look.night, look.id)).fetchone() is None


def first_looks(db: Reader, since: float) -> dict[str, float]:
    """{name of the frame: when its first look was there} of those begun since a time."""
    rows = db.execute(
        "SELECT frames, ended FROM look WHERE began >= ? AND kind = ? AND state = 'done' ORDER BY id",
        (since, FIRST),
    )
    return {names[-1]: row["ended"] for row in rows if (names := json.loads(row["frames"]))}


def odd_looks(db: Reader, group: int) -> dict[str, str]:
    """{frame: why} of frames of a group that their last first look would leave out."""
    sql = "SELECT quality FROM look WHERE group_id = ? AND kind = ? AND state = 'done' ORDER BY id"
    found: dict[str, str] = {}
    for (quality,) in db.execute(sql, (group, FIRST)):
        for row in (json.loads(quality) or {}).get("frames") or []:
            found.pop(row.get("NAME"), None)
            if row.get("VERDICT") == "left out":
                found[row["NAME"]] = row.get("REASON") or ""
    return found


_PRODUCTS = """SELECT p.id, p.name, p.night, p.path, p.sha256, p.version, p.current, p.published, p.group_id,
    j.recipe, j.key AS job_key, (SELECT COUNT(*) FROM job_input i WHERE i.job_id = p.job_id) AS n,
    (SELECT f.name FROM job_input i JOIN frame f ON f.id = i.frame_id WHERE i.job_id = p.job_id
        ORDER BY i.position DESC LIMIT 1) AS newest
    FROM product p JOIN job j ON j.id = p.job_id"""


def products(db: Reader, night: str, limit: int) -> list[Shown]:
    """Current products of a night, the newest first."""
    sql = f"{_PRODUCTS} WHERE p.night = ? AND p.current ORDER BY p.published DESC, p.id DESC LIMIT ?"
    return [_product(row) for row in db.execute(sql, (night, limit))]


def product(db: Reader, number: int) -> Shown | None:
    """One by its row, current or not."""
    row = db.execute(f"{_PRODUCTS} WHERE p.id = ?", (number,)).fetchone()
    return _product(row) if row else None


def versions(db: Reader, group: int) -> list[Shown]:
    """Every product of a group, the newest first."""
    sql = f"{_PRODUCTS} WHERE p.group_id = ? ORDER BY p.version DESC"
    return [_product(row) for row in db.execute(sql, (group,))]


def looks_of_group(db: Reader, group: int, limit: int) -> list[Shown]:
    """Those of a group whose files are there, the newest first."""
    rows = db.execute(f"{_LOOKS} AND group_id = ? ORDER BY id DESC LIMIT ?", (group, 4 * limit)).fetchall()
    found = [look for look in map(_look, rows) if _is_latest(db, look) and os.path.exists(look.path)]
    return found[:limit]


def _product(row: Any) -> Shown:
    return Shown(
        kind="product",
        id=row["id"],
        key=row["sha256"][:16],
        name=row["name"],
        of=row["recipe"],
        night=row["night"],
        group=row["group_id"],
        at=row["published"],
        frames=row["n"],
        newest=row["newest"] or "",
        path=os.fsdecode(row["path"]),
        version=row["version"],
        current=bool(row["current"]),
        job=row["job_key"],
    )


def nights(db: Reader, limit: int, before: float = 1e11) -> list[tuple[float, int]]:
    """(midnight UT of its date, how many exposures) of the latest nights, the latest first, before a time."""
    found: list[tuple[float, int]] = []
    while len(found) < limit:
        row = db.execute("SELECT MAX(ut) FROM frame WHERE ut < ?", (before,)).fetchone()
        if row[0] is None:
            break
        before = row[0] // 86400.0 * 86400.0
        n = db.execute("SELECT COUNT(*) FROM frame WHERE ut >= ? AND ut < ?", (before, before + 86400.0))
        found.append((before, n.fetchone()[0]))
    return found


def events(db: Reader, after: int, limit: int) -> list[Told]:
    """What has happened since an event, the first of it first."""
    rows = db.execute(
        "SELECT id, at, event, fields FROM event WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
    )
    return [Told(row["id"], row["at"], row["event"], json.loads(row["fields"])) for row in rows]
