"""Groups of frames in the ledger: placing a frame, merging and cutting, and marking what must be looked at.

The cost of placing a frame depends on the frames taken within hours of it, never on old ones: every
question goes by an index on the group's key and time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from daemon.ledger.marks import demand, release, touch
from daemon.ledger.store import Tx, placeholders
from daemon.ledger.wishes import want_gone
from daemon.model.groups import Point, Setting
from daemon.model.rules import Policy, TriggerRule
from daemon.plan.grouping import admits, family, group_key, partition_by_lamp, sky_pool
from daemon.plan.planner import rank
from pipeline.association import CalibrationKey
from pipeline.headers.descriptors import Descriptors
from pipeline.headers.times import same_exposure

LONGEST = 7 * 86400.0  # s; no sequence without a pause is longer


def place(
    tx: Tx, frame: int, tags: frozenset[str], descriptors: Descriptors, setting: Setting, *, moved: bool
) -> None:
    """Put a frame into its group under every rule that admits it, out of those that do not any more.

    moved : its time or exposure is new
    """
    for rule in setting.rules.values():
        old = _groups_of(tx, frame, rule)
        key = group_key(rule, tags, descriptors) if admits(rule, tags, descriptors) else None
        if not moved and key is not None and old and all(_holds(g["key"], key) for g in old):
            touch(tx, *(g["id"] for g in old))  # the same place; usable or not, or other facts
            continue
        _take_out(tx, old, frame, rule, setting)
        if key is not None and descriptors.ut_datetime is not None:
            exposure = descriptors.exposure_time or 0.0
            point = Point(descriptors.ut_datetime.timestamp(), _order(tx, frame), exposure, frame)
            _put(tx, rule, key, point, setting)


def _holds(group: str, key: str) -> bool:
    """True when a frame of this key belongs into that group; with the lamp off, into any of the family."""
    return group == key or family(group) == key


def remove(tx: Tx, frame: int, setting: Setting) -> None:
    """Take a frame out of all its groups."""
    for rule in setting.rules.values():
        _take_out(tx, _groups_of(tx, frame, rule), frame, rule, setting)


# -- placing ----------------------------------------------------------------------------------


def _put(tx: Tx, rule: TriggerRule, key: str, point: Point, setting: Setting) -> None:
    near = _near(tx, rule, key, point.ut, point.ut, point.exposure)
    if not near:
        _write(tx, None, [point], rule, key, setting)
        return
    group = near[0]
    simple = (
        len(near) == 1
        and group["first_ut"] < point.ut
        and same_exposure(group["exposure"], point.exposure)
        and _holds(group["key"], key)
    )
    if simple:  # the first frame stays the first, and nobody else is affected
        _add(tx, group["id"], point.frame_id)
        _arrived(tx, group["id"], max(group["last_ut"], point.ut))
        _lend(tx, group["pool"], group["id"], point.ut, setting.policy)
        return
    _cut_anew(tx, rule, key, near, (key, point), setting)


def _near(tx: Tx, rule: TriggerRule, key: str, low: float, high: float, exposure: float | None) -> list[Any]:
    """Groups of a key's family within the gap of a span of time, exposures near `exposure` (None: any)."""
    gap = rule.max_gap_seconds
    keys = _keys_of_family(tx, rule, key)
    rows = tx.rows(
        f"""SELECT * FROM frame_group WHERE rule = ? AND key IN ({placeholders(keys)}) AND NOT closed
        AND first_ut BETWEEN ? AND ? AND last_ut >= ? ORDER BY first_ut, id""",
        rule.title,
        *keys,
        low - gap - LONGEST,
        high + gap,
        low - gap,
    )
    return [r for r in rows if exposure is None or same_exposure(r["exposure"], exposure, 2)]


def _keys_of_family(tx: Tx, rule: TriggerRule, key: str) -> list[str]:
    """The keys of all groups of a family, one question by index for each: there are as many as lamps."""
    keys = [family(key) if rule.group_lamp_on_by else key]
    if not rule.group_lamp_on_by:
        return keys
    # That of a lamp is that of the family, a blank and more; the sign after the blank ends the range.
    sql = "SELECT MIN(key) AS key FROM frame_group WHERE rule = ? AND key > ? AND key < ?"
    while (row := tx.one(sql, rule.title, keys[-1], f"{keys[0]}!")) and row["key"] is not None:
        keys.append(row["key"])
    return keys


def _cut_anew(
    tx: Tx,
    rule: TriggerRule,
    key: str,
    near: list[Any],
    more: tuple[str, Point] | None,
    setting: Setting,
) -> None:
    """Cut all frames of these groups, and of those that they reach, into sequences again.

    more : a frame that comes to them, and its own key
    A sequence keeps the smallest id of the groups of its key that its frames were in, else of its family: a
    frame that bridges two groups merges them into the earlier one.
    """
    known = {row["id"]: row for row in near}
    while True:  # until no further group is within reach
        ends = [(r["first_ut"], r["last_ut"]) for r in known.values()]
        ends += [(more[1].ut, more[1].ut)] if more else []
        reach = _near(tx, rule, key, min(e[0] for e in ends), max(e[1] for e in ends), None)
        if {r["id"] for r in reach} <= set(known):
            break
        known |= {r["id"]: r for r in reach}
    before = {group: _points(tx, group) for group in known}
    taken: dict[int, tuple[str, list[Point]]] = {}
    fresh = []
    for own, sequence in partition_by_lamp(_by_key(tx, rule, known, before, more), rule.max_gap_seconds):
        owners = sorted(
            (known[group]["key"] != own, group)
            for group, points in before.items()
            if group not in taken and _ids(points) & _ids(sequence) and _heirs(known[group]["key"], own)
        )
        if owners:
            taken[owners[0][1]] = (own, sequence)
        else:
            fresh.append((own, sequence))
    for group in known:
        if group not in taken:
            heirs = [
                g
                for g, (own, points) in taken.items()
                if _ids(before[group]) & _ids(points) and _heirs(known[group]["key"], own)
            ]
            _close(tx, group, heirs[0] if heirs else None)
    for own, sequence in fresh:
        _write(tx, None, sequence, rule, own, setting)
    for group, (own, sequence) in taken.items():
        if _ids(sequence) != _ids(before[group]) or own != known[group]["key"]:
            _write(tx, group, sequence, rule, own, setting)


def _by_key(
    tx: Tx,
    rule: TriggerRule,
    known: Mapping[int, Any],
    before: Mapping[int, Sequence[Point]],
    more: tuple[str, Point] | None,
) -> dict[str, list[Point]]:
    """The frames of these groups and one more, each once, by their own keys."""
    points: dict[int, Point] = {}
    keys: dict[int, str] = {}
    for group, found in before.items():
        points |= {p.frame_id: p for p in found}
        if family(known[group]["key"]) == known[group]["key"] or not rule.group_lamp_on_by:
            keys |= {p.frame_id: known[group]["key"] for p in found}
            continue
        for p in found:
            lit = "LAMPON" in _tags(tx, p.frame_id)
            keys[p.frame_id] = known[group]["key"] if lit else family(known[group]["key"])
    if more:
        points[more[1].frame_id], keys[more[1].frame_id] = more[1], more[0]
    by_key: dict[str, list[Point]] = {}
    for frame, point in points.items():
        by_key.setdefault(keys[frame], []).append(point)
    return by_key


def _heirs(old: str, new: str) -> bool:
    """True when a sequence may go on as a group of that key: lamp-off frames alone become a lamp's."""
    return old == new or family(new) == old


def _ids(points: Sequence[Point]) -> set[int]:
    return {p.frame_id for p in points}


def _take_out(tx: Tx, groups: Sequence[Any], frame: int, rule: TriggerRule, setting: Setting) -> None:
    for group in groups:  # all first: cutting a sequence anew looks at its neighbours
        tx.run("DELETE FROM membership WHERE group_id = ? AND frame_id = ?", group["id"], frame)
    for group in groups:
        row = tx.one("SELECT * FROM frame_group WHERE id = ? AND NOT closed", group["id"])
        if row is None:
            continue
        if not _points(tx, row["id"]):
            _close(tx, row["id"], None)
            continue
        # without it, the sequence that it bridged falls apart
        _cut_anew(tx, rule, row["key"], [row], None, setting)
        rest = _points(tx, row["id"])
        if rest:
            now = tx.one("SELECT key FROM frame_group WHERE id = ?", row["id"])
            assert now is not None
            _write(tx, row["id"], rest, rule, now["key"], setting, arrived=False)


def _close(tx: Tx, group: int, heir: int | None) -> None:
    tx.run("DELETE FROM membership WHERE group_id = ?", group)
    tx.run("DELETE FROM demand WHERE group_id = ?", group)
    tx.run("UPDATE frame_group SET closed = 1, touched = 0, heir = ? WHERE id = ?", heir, group)
    if heir is None:  # nothing will take the place of its product
        want_gone(tx, group)
    tx.run("UPDATE frame_group SET heir = ? WHERE heir = ?", heir, group)
    for row in tx.rows("SELECT id FROM job WHERE group_id = ? AND state IN ('planned', 'waiting')", group):
        tx.run(
            "UPDATE job SET state = 'dropped', reason = ?, changed = ? WHERE id = ?",
            "its group was merged into another" if heir else "its group has no frames any more",
            tx.now,
            row["id"],
        )
        release(tx, row["id"])


# -- one group --------------------------------------------------------------------------------


def _write(
    tx: Tx,
    group: int | None,
    points: Sequence[Point],
    rule: TriggerRule,
    key: str,
    setting: Setting,
    *,
    arrived: bool = True,
) -> None:
    """Make a group hold exactly these frames."""
    first, last = points[0], points[-1]
    descriptors = _descriptors(tx, first.frame_id)
    makes = setting.recipes[rule.recipe].makes
    values: dict[str, Any] = {
        "rule": rule.title,
        "rank": rank(rule, setting.recipes),
        "key": key,
        "exposure": first.exposure,
        "first_ut": first.ut,
        "last_ut": last.ut,
        "program": _descriptors(tx, last.frame_id).program_id or "",
        "pool": sky_pool(rule, descriptors, setting),
        "offers": str(CalibrationKey.of(makes, descriptors)) if makes else "",
    }
    if group is None:
        zero = {
            "arrivals": 0,
            "touched": 0,
            "settled": 0,
            "remake": 0,
            "closed": 0,
            "reason": "",
            "better": "",
        }
        group = tx.insert("frame_group", **values, **zero, last_arrival=tx.now)
    else:
        sets = ", ".join(f"{name} = ?" for name in values)
        tx.run(f"UPDATE frame_group SET {sets} WHERE id = ?", *values.values(), group)
        tx.run("DELETE FROM membership WHERE group_id = ?", group)
    for point in points:
        _add(tx, group, point.frame_id)
    demand(tx, group, rule, descriptors, first, setting)
    if arrived:
        _arrived(tx, group, last.ut)
    else:
        touch(tx, group)
    _lend(tx, values["pool"], group, last.ut, setting.policy)


def _add(tx: Tx, group: int, frame: int) -> None:
    tx.run("INSERT OR IGNORE INTO membership (group_id, frame_id) VALUES (?, ?)", group, frame)


def _arrived(tx: Tx, group: int, last_ut: float) -> None:
    tx.run(
        """UPDATE frame_group SET last_ut = ?, arrivals = arrivals + 1, last_arrival = ?, settled = 0,
        waiting_since = NULL, touched = ?, program = COALESCE((SELECT f.program FROM membership m
            JOIN frame f ON f.id = m.frame_id WHERE m.group_id = frame_group.id
            ORDER BY f.ut DESC LIMIT 1), program)
        WHERE id = ?""",
        last_ut,
        tx.now,
        tx.counter("touch"),
        group,
    )


def _lend(tx: Tx, pool: str, group: int, ut: float, policy: Policy) -> None:
    """A new frame may serve as sky for its neighbours in time: mark them."""
    if pool.startswith("sky:"):
        tx.run(
            """UPDATE frame_group SET touched = ? WHERE pool = ? AND id <> ? AND NOT closed
            AND first_ut BETWEEN ? AND ? AND last_ut >= ?""",
            tx.counter("touch"),
            pool,
            group,
            ut - LONGEST,
            ut + policy.borrow_sky_seconds,
            ut - policy.borrow_sky_seconds,
        )


def _groups_of(tx: Tx, frame: int, rule: TriggerRule) -> list[Any]:
    return tx.rows(
        """SELECT g.* FROM frame_group g JOIN membership m ON m.group_id = g.id
        WHERE m.frame_id = ? AND g.rule = ?""",
        frame,
        rule.title,
    )


def _points(tx: Tx, group: int) -> list[Point]:
    rows = tx.rows(
        """SELECT f.id, f.ut, f.label, f.data_sha, json_extract(f.descriptors, '$.exposure_time') AS exposure
        FROM membership m JOIN frame f ON f.id = m.frame_id WHERE m.group_id = ?""",
        group,
    )
    points = (Point(r["ut"], f"{r['label']} {r['data_sha']}", r["exposure"] or 0.0, r["id"]) for r in rows)
    return sorted(points)


def _order(tx: Tx, frame: int) -> str:
    row = tx.one("SELECT label, data_sha FROM frame WHERE id = ?", frame)
    assert row is not None
    return f"{row['label']} {row['data_sha']}"


def _tags(tx: Tx, frame: int) -> frozenset[str]:
    row = tx.one("SELECT tags FROM frame WHERE id = ?", frame)
    assert row is not None
    return frozenset(json.loads(row["tags"]))


def _descriptors(tx: Tx, frame: int) -> Descriptors:
    row = tx.one("SELECT descriptors FROM frame WHERE id = ?", frame)
    assert row is not None
    return Descriptors.from_json(json.loads(row["descriptors"]))
