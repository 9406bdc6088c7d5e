"""Which nights a programme or an object has: by index, in the time that what is found costs.

    found(db, programme="GN-2016A-Q-5", object_="sn 2014j", limit=60)

Programmes and objects are few among very many frames: their different names are read from the index, those
that fit are chosen, and of each its latest night, the one before, and so on.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from dataclasses import dataclass

from daemon.ledger import observed
from daemon.ledger.store import Reader
from pipeline.errors import NiridError

DAY = 86400.0
EVER = 1e11  # seconds since the epoch: later than any frame
PROGRAM, OBJECT = ("frame", "program"), ("observed", "object")  # table and column, with an index on it and ut
Where = tuple[str, str]


@dataclass(frozen=True)
class Night:
    """at : midnight UT of its date, seconds since the epoch; frames : how many were taken in it

    found : how many of them are what was looked for; programmes, objects : of these, in order
    """

    at: float
    frames: int
    found: int
    programmes: tuple[str, ...]
    objects: tuple[str, ...]


def found(
    db: Reader, *, programme: str = "", object_: str = "", limit: int = 60, before: float = EVER
) -> list[Night]:
    """Nights with a frame of that programme, of that object, or of both at once; the latest first.

    Case does not count, nor do blanks, _ and - in an object. What has just that name is meant; where nothing
    has, what has it in its name. before : nights before a time only; no word finds no night
    NiridError when no daemon of this release has run with the database yet.
    """
    if not observed.is_there(db):
        raise NiridError("nights are searched as soon as the daemon of this release has been started once")
    programmes = _called(db, PROGRAM, programme, str.casefold) if programme else None
    objects = _called(db, OBJECT, object_, folded) if object_ else None
    if programmes == [] or objects == [] or (programmes is None and objects is None):
        return []
    where, values = (OBJECT, objects) if objects is not None else (PROGRAM, programmes or [])
    latest = [(-at, value) for value in values if (at := _last(db, where, value, before)) is not None]
    heapq.heapify(latest)
    nights: list[Night] = []
    while latest and len(nights) < limit:
        at = -latest[0][0] // DAY * DAY
        here = []
        while latest and -latest[0][0] >= at:
            here.append(heapq.heappop(latest)[1])
        night = _night(db, at, where, here, None if programmes is None else set(programmes))
        if night.found:
            nights.append(night)
        for value in here:
            if (earlier := _last(db, where, value, at)) is not None:
                heapq.heappush(latest, (-earlier, value))
    return nights


def folded(name: str) -> str:
    """The name of an object as it is compared."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def _called(db: Reader, where: Where, word: str, fold: Callable[[str], str]) -> list[str]:
    """The different values of a column that a word means."""
    wanted = fold(word.strip())
    names = {value: fold(value) for value in _different(db, where)} if wanted else {}
    same = [value for value, name in names.items() if name == wanted]
    return same or [value for value, name in names.items() if wanted in name]


def _different(db: Reader, where: Where) -> list[str]:
    """Each from the one before it, by index: DISTINCT would read the entries of all frames."""
    table, column = where
    rows = db.execute(
        f"""WITH RECURSIVE next (value) AS (SELECT MIN({column}) FROM {table}
        UNION ALL SELECT (SELECT MIN({column}) FROM {table} WHERE {column} > next.value)
        FROM next WHERE next.value IS NOT NULL) SELECT value FROM next WHERE value IS NOT NULL"""
    )
    return [str(row[0]) for row in rows]


def _last(db: Reader, where: Where, value: str, before: float) -> float | None:
    """When the last frame of a value was taken before a time."""
    table, column = where
    sql = f"SELECT ut FROM {table} WHERE {column} = ? AND ut < ? ORDER BY ut DESC LIMIT 1"
    row = db.execute(sql, (value, before)).fetchone()
    return None if row is None else float(row[0])


_TAKEN = {  # the table that is begun with comes first: CROSS JOIN keeps the order
    PROGRAM: """frame f CROSS JOIN observed o ON o.frame_id = f.id
        WHERE f.program = ? AND f.ut >= ? AND f.ut < ?""",
    OBJECT: """observed o CROSS JOIN frame f ON f.id = o.frame_id
        WHERE o.object = ? AND o.ut >= ? AND o.ut < ?""",
}


def _night(db: Reader, at: float, where: Where, values: list[str], programmes: set[str] | None) -> Night:
    """What was taken of these values in one night; programmes : of which alone, None of any"""
    counted: dict[tuple[str, str], int] = {}
    for value in values:
        rows = db.execute(
            f"SELECT f.program, o.object, COUNT(*) FROM {_TAKEN[where]} GROUP BY 1, 2", (value, at, at + DAY)
        )
        for program, name, n in rows:
            if programmes is None or program in programmes:
                counted[program, name] = counted.get((program, name), 0) + n
    row = db.execute("SELECT COUNT(*) FROM frame WHERE ut >= ? AND ut < ?", (at, at + DAY)).fetchone()
    return Night(
        at,
        int(row[0]),
        sum(counted.values()),
        tuple(sorted({program for program, _ in counted if program})),
        tuple(sorted({name for _, name in counted if name})),
    )
