"""Groups of frames in the ledger: placing a frame, merging and cutting, and marking what must be looked at.

The cost of placing a frame depends on the frames taken within hours of it, never on old ones: every
question goes by an index on the group's key and time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from daemon.grouping import Point, admits, group_key, partition, same_exposure
from daemon.ledger import Tx, placeholders
from daemon.planner import Setting, rank, takes
from daemon.triggers import Policy, TriggerRule
from pipeline import association
from pipeline.association import CalibrationKey, CalKind, Candidate
from pipeline.descriptors import Descriptors

LONGEST = 7 * 86400.0  # s; no sequence without a pause is longer
DARK_SPAN = 180 * 86400.0  # s, as far as a dark may be from a frame
SKY_SECONDS = 900.0  # groups this near may lend each other sky


def place(
    tx: Tx, frame: int, tags: frozenset[str], descriptors: Descriptors, setting: Setting, *, moved: bool
) -> None:
    """Put a frame into its group under every rule that admits it, out of those that do not any more.

    moved : its time or exposure is new
    """
    for rule in setting.rules.values():
        old = _groups_of(tx, frame, rule)
        key = group_key(rule.group_by, descriptors) if admits(rule, tags, descriptors) else None
        if not moved and key is not None and [g["key"] for g in old] == [key]:
            touch(tx, old[0]["id"])  # the same place; usable or not, or other facts
            continue
        for group in old:
            _take_out(tx, group, frame, rule, setting)
        if key is not None and descriptors.ut_datetime is not None:
            exposure = descriptors.exposure_time or 0.0
            point = Point(descriptors.ut_datetime.timestamp(), _order(tx, frame), exposure, frame)
            _put(tx, rule, key, point, setting)


def remove(tx: Tx, frame: int, setting: Setting) -> None:
    """Take a frame out of all its groups."""
    for rule in setting.rules.values():
        for group in _groups_of(tx, frame, rule):
            _take_out(tx, group, frame, rule, setting)


def touch(tx: Tx, *ids: int) -> None:
    """These groups are to be planned again."""
    if ids:
        marks = placeholders(ids)
        tx.run(f"UPDATE frame_group SET touched = ? WHERE id IN ({marks})", tx.counter("touch"), *ids)


def touch_users(tx: Tx, calibration: Candidate, policy: Policy, given_way: Sequence[Candidate] = ()) -> None:
    """A calibration appeared: mark the groups that it may remake, or that have a job to do, by index.

    given_way : those of its kind that it replaces; it may be farther than they were
    What was taken too long before or after it is not looked at, only told that something better is there, and
    nothing that has chosen what was taken nearer to it; so the cost grows neither with the archive nor with
    the backlog.
    """
    rule = association.RULES[calibration.kind]
    ut, heals = calibration.ut.timestamp(), policy.healing_days * 86400
    span = rule.within.total_seconds() if rule.within else 1e12
    static = calibration.kind is CalKind.STATIC_BPM  # dated long before: what counts is when it came
    near = "ABS(g.last_arrival - ?) <= ?" if static else "ABS(d.ut - ?) <= ?"
    here = calibration.added if static else ut
    users = """FROM demand d JOIN frame_group g ON g.id = d.group_id
        LEFT JOIN product p ON p.group_id = g.id AND p.current
        WHERE d.key = ? AND d.ut BETWEEN ? AND ? AND ABS(d.exposure - ?) < ?"""
    values = (
        str(CalibrationKey.of(calibration.kind, calibration.facts)),
        ut if rule.earlier_only else ut - span,
        ut + span,
        calibration.facts.get("exposure_time") or 0.0,
        rule.tolerance.get("exposure_time", 1e12),
    )
    # Times are those of first frames, and the one that counts is somewhere in its group.
    wanted = "(d.chosen IS NULL OR ABS(? - d.ut) <= ABS(d.chosen - d.ut) + 2 * (g.last_ut - g.first_ut))"
    for then in {ut, *(old.ut.timestamp() for old in given_way)}:
        tx.run(
            f"""UPDATE frame_group SET touched = ? WHERE NOT closed AND id IN
            (SELECT g.id {users} AND {wanted} AND (p.id IS NULL OR {near} OR EXISTS (SELECT 1 FROM job o
                WHERE o.group_id = g.id AND o.state IN ('planned', 'waiting', 'running'))))""",
            tx.counter("touch"),
            *values,
            then,
            here,
            heals,
        )
    tx.run(
        f"""UPDATE frame_group SET better = ? WHERE id IN
        (SELECT g.id {users} AND p.id IS NOT NULL AND NOT {near}
        AND NOT EXISTS (SELECT 1 FROM job_calibration j JOIN calibration c ON c.ident = j.ident
            WHERE j.job_id = p.job_id AND j.role = ? AND ABS(c.ut - d.ut) <= ABS(? - d.ut)))""",
        f"{calibration.kind} {calibration.name}",
        *values,
        here,
        heals,
        calibration.kind.value,
        ut,
    )


def touch_withdrawn(tx: Tx, ident: str) -> None:
    """A calibration was taken out of use: whatever was made with it is looked at, however old."""
    tx.run(
        """UPDATE frame_group SET touched = ? WHERE NOT closed AND id IN
        (SELECT j.group_id FROM job_calibration c JOIN job j ON j.id = c.job_id WHERE c.ident = ?)""",
        tx.counter("touch"),
        ident,
    )


def touch_joined(tx: Tx, group: Any, days: float) -> None:
    """A group of short darks is complete or changed: mark the groups that may use it."""
    span = days * 86400
    tx.run(
        """UPDATE frame_group SET touched = ? WHERE NOT closed AND id IN
        (SELECT group_id FROM demand WHERE key = ? AND ut BETWEEN ? AND ?)""",
        tx.counter("touch"),
        group["pool"],
        group["first_ut"] - span,
        group["first_ut"] + span,
    )


def touch_waiting(tx: Tx, frame: int) -> None:
    """A file of this frame is back: mark the groups that wait, those too that borrow it."""
    rows = tx.rows(
        """WITH own AS (SELECT g.id, g.pool FROM frame_group g JOIN membership m ON m.group_id = g.id
            WHERE m.frame_id = ?)
        SELECT DISTINCT group_id FROM job WHERE state = 'waiting' AND group_id IN (
            SELECT id FROM own
            UNION SELECT d.group_id FROM demand d JOIN own ON own.pool = d.key
            UNION SELECT g.id FROM frame_group g JOIN own ON own.pool = g.pool AND own.pool LIKE 'sky:%')""",
        frame,
    )
    if rows:
        touch(tx, *(row[0] for row in rows))


def join_key(rule: str, names: Sequence[str], descriptors: Descriptors) -> str:
    return f"join:{rule}:{json.dumps([getattr(descriptors, name) for name in names])}"


# -- placing ----------------------------------------------------------------------------------


def _put(tx: Tx, rule: TriggerRule, key: str, point: Point, setting: Setting) -> None:
    near = _near(tx, rule, key, point.ut, point.ut, point.exposure)
    if not near:
        _write(tx, None, [point], rule, key, setting)
        return
    group = near[0]
    simple = (
        len(near) == 1 and group["first_ut"] < point.ut and same_exposure(group["exposure"], point.exposure)
    )
    if simple:  # the first frame stays the first, and nobody else is affected
        _add(tx, group["id"], point.frame_id)
        _arrived(tx, group["id"], max(group["last_ut"], point.ut))
        _lend(tx, group["pool"], group["id"], point.ut)
        return
    _cut_anew(tx, rule, key, near, [point], setting)


def _near(tx: Tx, rule: TriggerRule, key: str, low: float, high: float, exposure: float | None) -> list[Any]:
    """Groups of a key within the gap of a span of time, with exposures near `exposure` (None: any)."""
    gap = rule.max_gap_seconds
    rows = tx.rows(
        """SELECT * FROM frame_group WHERE rule = ? AND key = ? AND NOT closed
        AND first_ut BETWEEN ? AND ? AND last_ut >= ? ORDER BY first_ut, id""",
        rule.title,
        key,
        low - gap - LONGEST,
        high + gap,
        low - gap,
    )
    return [r for r in rows if exposure is None or abs(r["exposure"] - exposure) <= 0.021]


def _cut_anew(
    tx: Tx, rule: TriggerRule, key: str, near: list[Any], more: list[Point], setting: Setting
) -> None:
    """Cut all frames of these groups, and of those that they reach, into sequences again.

    A sequence keeps the smallest id of the groups that its frames were in: a frame that bridges two
    groups merges them into the earlier one.
    """
    known = {row["id"]: row for row in near}
    while True:  # until no further group is within reach
        ends = [(r["first_ut"], r["last_ut"]) for r in known.values()] + [(p.ut, p.ut) for p in more]
        reach = _near(tx, rule, key, min(e[0] for e in ends), max(e[1] for e in ends), None)
        if {r["id"] for r in reach} <= set(known):
            break
        known |= {r["id"]: r for r in reach}
    before = {group: _points(tx, group) for group in known}
    home = {p.frame_id: group for group, points in before.items() for p in points}
    sequences = partition([*more, *(p for points in before.values() for p in points)], rule.max_gap_seconds)
    taken: dict[int, list[Point]] = {}
    for sequence in sequences:
        owners = sorted({home[p.frame_id] for p in sequence if p.frame_id in home} - set(taken))
        if not owners:
            _write(tx, None, sequence, rule, key, setting)
            continue
        taken[owners[0]] = sequence
    for group in known:
        if group not in taken:
            heirs = [g for g, points in taken.items() if {p.frame_id for p in before[group]} & _ids(points)]
            _close(tx, group, heirs[0] if heirs else None)
    for group, sequence in taken.items():
        if _ids(sequence) != _ids(before[group]):
            _write(tx, group, sequence, rule, key, setting)


def _ids(points: Sequence[Point]) -> set[int]:
    return {p.frame_id for p in points}


def _take_out(tx: Tx, group: Any, frame: int, rule: TriggerRule, setting: Setting) -> None:
    tx.run("DELETE FROM membership WHERE group_id = ? AND frame_id = ?", group["id"], frame)
    if not _points(tx, group["id"]):
        _close(tx, group["id"], None)
        return
    row = tx.one("SELECT * FROM frame_group WHERE id = ?", group["id"])
    _cut_anew(tx, rule, group["key"], [row], [], setting)  # without it, what it bridged falls apart
    rest = _points(tx, group["id"])
    if rest:
        _write(tx, group["id"], rest, rule, group["key"], setting, arrived=False)


def _close(tx: Tx, group: int, heir: int | None) -> None:
    tx.run("DELETE FROM membership WHERE group_id = ?", group)
    tx.run("DELETE FROM demand WHERE group_id = ?", group)
    tx.run("UPDATE frame_group SET closed = 1, touched = 0, heir = ? WHERE id = ?", heir, group)
    if heir is None:  # nothing will take the place of its product
        tx.run("UPDATE frame_group SET restore = 0 WHERE id = ?", group)
    tx.run("UPDATE frame_group SET heir = ? WHERE heir = ?", heir, group)
    for row in tx.rows("SELECT id FROM job WHERE group_id = ? AND state IN ('planned', 'waiting')", group):
        tx.run(
            "UPDATE job SET state = 'dropped', reason = ?, changed = ? WHERE id = ?",
            "its group was merged into another" if heir else "its group has no frames any more",
            tx.now,
            row["id"],
        )
        release(tx, row["id"])


def release(tx: Tx, job: int) -> None:
    """A job will not be waited for any more: its waiters are planned again."""
    rows = tx.rows(
        "SELECT j.group_id FROM dependency d JOIN job j ON j.id = d.job_id WHERE d.producer_id = ?", job
    )
    tx.run("DELETE FROM dependency WHERE producer_id = ? OR job_id = ?", job, job)
    touch(tx, *{row[0] for row in rows})


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
        "pool": _pool(rule, descriptors, setting),
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
    _demand(tx, group, rule, descriptors, first, setting)
    if arrived:
        _arrived(tx, group, last.ut)
    else:
        touch(tx, group)
    _lend(tx, values["pool"], group, last.ut)


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


def _demand(
    tx: Tx, group: int, rule: TriggerRule, descriptors: Descriptors, first: Point, setting: Setting
) -> None:
    """Note what the group can use, so that it is found when such a thing appears."""
    keys = [str(CalibrationKey.of(kind, descriptors)) for kind in takes(rule, setting.recipes[rule.recipe])]
    if rule.join:
        keys.append(join_key(rule.join.rule, rule.join.agree, descriptors))
    tx.run("DELETE FROM demand WHERE group_id = ?", group)
    for key in keys:
        tx.insert("demand", group_id=group, key=key, exposure=first.exposure, ut=first.ut)
    if CalKind.DARK in setting.recipes[rule.recipe].takes:  # short darks that nobody needed until now
        tx.run(
            """UPDATE frame_group SET touched = ? WHERE offers = ? AND first_ut BETWEEN ? AND ?
            AND ABS(exposure - ?) < 0.02 AND NOT closed
            AND NOT EXISTS (SELECT 1 FROM job j WHERE j.group_id = frame_group.id)""",
            tx.counter("touch"),
            str(CalibrationKey.of(CalKind.DARK, descriptors)),
            first.ut - DARK_SPAN,
            first.ut + DARK_SPAN,
            first.exposure,
        )


def _pool(rule: TriggerRule, descriptors: Descriptors, setting: Setting) -> str:
    """What groups have in common that may be joined to others, or lend each other sky."""
    for other in setting.rules.values():
        if other.join and other.join.rule == rule.title:
            return join_key(rule.title, other.join.agree, descriptors)
    if rule.role != "science" or setting.recipes[rule.recipe].makes:
        return ""
    names = [n for n in rule.group_by if n not in ("observation_id", "object")]
    return f"sky:{group_key(names, descriptors)}"


def _lend(tx: Tx, pool: str, group: int, ut: float) -> None:
    """A new frame may be sky for its neighbours in time."""
    if pool.startswith("sky:"):
        tx.run(
            """UPDATE frame_group SET touched = ? WHERE pool = ? AND id <> ? AND NOT closed
            AND first_ut BETWEEN ? AND ? AND last_ut >= ?""",
            tx.counter("touch"),
            pool,
            group,
            ut - LONGEST,
            ut + SKY_SECONDS,
            ut - SKY_SECONDS,
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


def _descriptors(tx: Tx, frame: int) -> Descriptors:
    row = tx.one("SELECT descriptors FROM frame WHERE id = ?", frame)
    assert row is not None
    return Descriptors.from_json(json.loads(row["descriptors"]))
