"""The night as an observer asks for it: its sequences with seeing and zero point, what there is to see.

    night, rows = sequences(db)              # the latest night, and what was taken since
    night, rows = sequences(db, "20160102")  # or this one
    looks = to_look_at(db, rows)

Plain data; where a number is not of a product yet, it says so.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from daemon.ledger import looks as ledger_looks
from daemon.ledger.store import placeholders
from daemon.model.names import night_of
from daemon.people.whyframe import left_out
from pipeline.descriptors import Descriptors

Row = dict[str, Any]

BEFORE = 20 * 3600.0  # a night and the calibrations of its day, before its latest science frame
AHEAD = 86400.0  # a frame of later than tomorrow has a wrong clock, and is not tonight


def sequences(db: sqlite3.Connection, night: str | None = None) -> tuple[str, list[Row]]:
    """(night, its groups): those of objects first, each in order of time. night : "" when there is none.

    group, rule, role, state, reason : as `queries.groups` has them
    name : of the product, "" when there is none; path, version : of it
    first, last : names of the first and the last frame
    what : the object, or "dark", "flat", "bad-pixel mask"; filter, exposure_time
    frames : how many came; used : how many are in the product, or can be
    seeing, zero_point, zero_point_error : arcsec and magnitudes, None where unknown
    of : "product", "look" when they are of a running stack or first look, "" when there are none
    """
    low, high = _span(db, night)
    rows = db.execute(
        """SELECT g.*,
        (SELECT j.state FROM job j WHERE j.group_id = g.id AND j.state <> 'dropped'
         ORDER BY j.changed DESC, j.id DESC LIMIT 1) AS job_state
        FROM frame_group g WHERE NOT g.closed AND g.last_ut >= ? AND g.first_ut <= ?
        ORDER BY g.first_ut, g.rank, g.id""",
        (low, high),
    ).fetchall()
    made = [row for row in (_sequence(db, row) for row in rows) if row is not None]
    if night is not None:
        made = [row for row in made if row["night"] == night]
    named = night or max((row["night"] for row in made if row["role"]), default="")
    named = named or max((row["night"] for row in made), default="")
    _add_looks(db, made)
    return named, sorted(made, key=lambda row: not row["role"])


def _span(db: sqlite3.Connection, night: str | None) -> tuple[float, float]:
    if night is not None:
        begin = datetime.strptime(f"{night}+0000", "%Y%m%d%z").timestamp()
        return begin - 86400.0, begin + 2 * 86400.0  # names are given by the observatory's clock
    until = time.time() + AHEAD
    for where in ("role <> ''", "1"):
        row = db.execute(f"SELECT ut FROM frame WHERE {where} AND ut < ? ORDER BY ut DESC LIMIT 1", (until,))
        if (last := row.fetchone()) is not None:
            return last[0] - BEFORE, until
    return 0.0, 0.0


def _sequence(db: sqlite3.Connection, group: sqlite3.Row) -> Row | None:
    frames = db.execute(
        """SELECT f.name, f.ut, f.role, f.descriptors, f.usable AND EXISTS (SELECT 1 FROM content c
            JOIN sighting s ON s.content_id = c.id AND s.current AND s.present
            WHERE c.frame_id = f.id AND c.state <> 'superseded') AS usable
        FROM membership m JOIN frame f ON f.id = m.frame_id WHERE m.group_id = ? ORDER BY f.ut, f.label""",
        (group["id"],),
    ).fetchall()
    if not frames:
        return None
    product = db.execute(
        """SELECT p.*, j.spec, j.state AS job FROM product p JOIN job j ON j.id = p.job_id
        WHERE p.group_id = ? AND p.current""",
        (group["id"],),
    ).fetchone()
    first = frames[0]
    facts = Descriptors.from_json(json.loads(first["descriptors"]))
    state = group["job_state"] or ("done" if product else "idle")
    if not group["settled"] and state in ("done", "idle"):
        state = "open"
    usable = {frame["name"] for frame in frames if frame["usable"]}
    made: Row = {
        "group": group["id"],
        "rule": group["rule"],
        "role": first["role"],
        "night": night_of(first["name"], datetime.fromtimestamp(first["ut"], UTC)),
        "state": state,
        "reason": group["reason"],
        "first": first["name"],
        "last": frames[-1]["name"],
        **_what(group["rule"], facts),
        "frames": len(frames),
        "used": len(usable),
        "better": group["better"],
    }
    return made | _product(product, {frame["name"] for frame in frames})


def _product(product: sqlite3.Row | None, members: set[str]) -> Row:
    if product is None:
        return {"name": "", "path": None, "version": None, **_worth({}), "of": ""}
    spec, quality = json.loads(product["spec"] or "{}"), json.loads(product["quality"])
    inputs = {i["name"] for i in spec.get("inputs", [])} & members
    return {
        "name": product["name"],
        "path": os.fsdecode(product["path"]),
        "version": product["version"],
        **({"used": len(inputs - set(left_out(spec, quality)))} if inputs else {}),
        **_worth(quality),
        "of": "product",
    }


def _worth(quality: Row) -> Row:
    keys = {"seeing": "MEANFWHM", "zero_point": "MAGZPT", "zero_point_error": "MAGZERR"}
    return {name: quality.get(key) for name, key in keys.items()}


def _what(rule: str, facts: Descriptors) -> Row:
    kind = facts.observation_type
    if "BPM" in rule:
        return {"what": "bad-pixel mask", "filter": "", "exposure_time": None}
    what = facts.object or "no name" if kind == "OBJECT" else str(kind or "frame").lower()
    pretty = "" if kind == "DARK" else facts.filter_pretty
    return {"what": what, "filter": pretty, "exposure_time": facts.exposure_time}


def _add_looks(db: sqlite3.Connection, made: Sequence[Row]) -> None:
    """What a running stack, or the newest first look, has for those without a product."""
    without = {row["group"]: row for row in made if not row["name"]}
    for look in _looks(db, list(without)):
        worth = _worth(look["quality"])
        if any(value is not None for value in worth.values()):
            without[look["group"]].update(worth, of="look")


def _looks(db: sqlite3.Connection, groups: Sequence[int]) -> list[Row]:
    """Those whose files are there, stacks after first looks, the newest last."""
    where = f"state = 'done' AND group_id IN ({placeholders(groups)})"
    found = [look for look in ledger_looks.rows(db, where, *groups) if look["there"]]
    return sorted(found, key=lambda look: (look["kind"] == "running", look["number"]))


def to_look_at(db: sqlite3.Connection, rows: Sequence[Row]) -> list[Row]:
    """Of the groups of `sequences` the running stack of each, and the newest first look of all."""
    looks = _looks(db, [row["group"] for row in rows])
    stacks = {look["group"]: look for look in looks if look["kind"] == "running"}
    first = [look for look in looks if look["kind"] != "running"]
    newest = max(first, key=lambda look: (look["night"], look["frames"]), default=None)
    return [*stacks.values(), *([newest] if newest else [])]


def unfinished_elsewhere(db: sqlite3.Connection, rows: Sequence[Row]) -> int:
    """How many groups of other nights have a job to do."""
    shown = [row["group"] for row in rows]
    sql = f"""SELECT COUNT(DISTINCT group_id) FROM job WHERE state IN ('planned', 'waiting', 'running')
        AND group_id NOT IN ({placeholders(shown)})"""
    return int(db.execute(sql, shown).fetchone()[0])
