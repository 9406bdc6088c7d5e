"""Which groups must be looked at again: those whose frames, calibrations or neighbours have changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from daemon.ledger.store import Tx, placeholders
from daemon.model.groups import Point, Setting
from daemon.model.rules import Policy, TriggerRule
from daemon.plan.case import takes
from daemon.plan.grouping import join_key
from pipeline import association
from pipeline.association import CalibrationKey, CalKind, Candidate
from pipeline.headers.descriptors import Descriptors
from pipeline.headers.times import SAME_EXPOSURE_SECONDS
from pipeline.levels import HEALING

NO_LIMIT = 1e12  # seconds: 30,000 years
DARK_SPAN = (
    association.RULES[CalKind.DARK].within or timedelta.max
).total_seconds()  # of a dark from a frame


def touch(tx: Tx, *ids: int) -> None:
    """These groups are to be planned again."""
    if ids:
        marks = placeholders(ids)
        tx.run(f"UPDATE frame_group SET touched = ? WHERE id IN ({marks})", tx.counter("touch"), *ids)


def touch_users(tx: Tx, calibration: Candidate, policy: Policy, superseded: Sequence[Candidate] = ()) -> None:
    """A calibration appeared: mark the groups that it may remake, or that have a job to do, by index.

    superseded : older calibrations that this one replaces. Their users are marked too, because the new one
        may be farther in time.
    Groups that have chosen a better one are passed over, so the cost grows neither with the archive nor with
    the backlog. Those that it comes too late for, at no better a level, are only told that it is there.
    """
    users = _users_of(calibration, policy)
    for ut in {calibration.ut, *(old.ut for old in superseded)}:
        _mark_users(tx, users, ut.timestamp())
    _note_better(tx, users, calibration)


@dataclass(frozen=True)
class _Users:
    """The groups that could use a calibration, in terms of the columns of `demand` d and `frame_group` g.

    earliest, latest : times in seconds between which a group's first frame was taken
    exposure, tolerance : seconds; static : a mask that counts from when it came, `here`, not from its date
    heals : seconds within which it remakes a product whose calibration is of the same level
    limits : farthest in time of levels 0, 1 and 2, seconds; breaks : times of breakpoints
    own : what a group has chosen was made of its own flats, and so is a newer one of that time
    """

    key: str
    earliest: float
    latest: float
    exposure: float
    tolerance: float
    here: float
    heals: float
    static: bool
    limits: tuple[float, ...]
    breaks: tuple[float, ...]
    own: bool

    @property
    def values(self) -> dict[str, Any]:
        named = {f"limit{n}": limit for n, limit in enumerate(self.limits)}
        named |= {f"break{n}": at for n, at in enumerate(self.breaks)}
        return {k: v for k, v in asdict(self).items() if k not in ("limits", "breaks", "own")} | named

    @property
    def sql(self) -> str:
        return """FROM demand d JOIN frame_group g ON g.id = d.group_id
            LEFT JOIN product p ON p.group_id = g.id AND p.current
            WHERE d.key = :key AND d.ut BETWEEN :earliest AND :latest
            AND ABS(d.exposure - :exposure) < :tolerance"""

    @property
    def near(self) -> str:
        """SQL that is true of a group whose product it may remake for no better a level."""
        if self.static:
            return "ABS(g.last_arrival - :here) <= :heals"
        return f"(ABS(d.ut - :here) <= :heals OR {self._level(':here', best=True)} <= {HEALING})"

    @property
    def better(self) -> str:
        """SQL that is true where one of `:ut` may be of a better level than what was chosen.

        Times are those of first frames, and the one that counts is somewhere in the group: of the times that
        the new one may be away the shortest counts, of the chosen one's the longest.
        """
        return f"{self._level(':ut', best=True)} < {self._level('d.chosen', best=False)}"

    @property
    def before(self) -> str:
        """SQL that is true where one of `:ut` may come before what was chosen, in the order of
        `association.best_match`."""
        return f"""({self.better} OR {self._level(":ut", best=True)} = {self._level("d.chosen", best=False)}
            AND NOT (:ut > g.last_ut AND d.chosen <= d.ut)
            AND (:ut <= g.last_ut AND d.chosen > d.ut
                OR ABS(:ut - d.ut) <= ABS(d.chosen - d.ut) + 2 * (g.last_ut - g.first_ut)))"""

    def _level(self, ut: str, *, best: bool) -> str:
        """SQL of the level of a calibration of that time; 4 where none was chosen."""
        both = "AND" if best else "OR"
        cases = [f"WHEN {ut} IS NULL THEN 4"]
        for n in range(len(self.breaks)):
            across = (f"({ut} < :break{n}) <> ({end} < :break{n})" for end in ("d.ut", "g.last_ut"))
            cases.append(f"WHEN {f' {both} '.join(across)} THEN 3")
        if self.own:
            cases.append(f"WHEN ABS({ut} - d.chosen) < 1 THEN 0")
        away = f"ABS({ut} - d.ut) {'-' if best else '+'} (g.last_ut - g.first_ut)"
        cases += [f"WHEN {away} <= :limit{n} THEN {n}" for n in range(len(self.limits))]
        return f"CASE {' '.join(cases)} ELSE 3 END"


def _users_of(calibration: Candidate, policy: Policy) -> _Users:
    kind = calibration.kind
    rule, ut = association.RULES[kind], calibration.ut.timestamp()
    span = rule.within.total_seconds() if rule.within else NO_LIMIT
    static = kind is CalKind.STATIC_BPM
    return _Users(
        key=str(CalibrationKey.of(kind, calibration.facts)),
        earliest=ut if rule.earlier_only else ut - span,
        latest=ut + span,
        exposure=calibration.facts.get("exposure_time") or 0.0,
        tolerance=rule.tolerance.get("exposure_time", NO_LIMIT),
        here=calibration.added if static else ut,
        heals=policy.healing_days * 86400,
        static=static,
        limits=tuple(min(limit.total_seconds(), NO_LIMIT) for limit in rule.levels),
        breaks=tuple(b.at.timestamp() for b in policy.breakpoints if kind in b.kinds),
        own=kind is CalKind.MADE_BPM,
    )


def _mark_users(tx: Tx, users: _Users, ut: float) -> None:
    """Mark users whose choice it may change, and that have no product or may have it remade."""
    better = "0" if users.static else users.better
    tx.run(
        f"""UPDATE frame_group SET touched = :counter WHERE NOT closed AND id IN (SELECT g.id {users.sql}
            AND {users.before}
            AND (p.id IS NULL OR {users.near} OR {better} OR EXISTS (SELECT 1 FROM job o
                WHERE o.group_id = g.id AND o.state IN ('planned', 'waiting', 'running'))))""",
        users.values | {"counter": tx.counter("touch"), "ut": ut},
    )


def _note_better(tx: Tx, users: _Users, calibration: Candidate) -> None:
    """Tell groups that would choose it now, and that it comes too late for, that it is there."""
    better = "0" if users.static else users.better
    tx.run(
        f"""UPDATE frame_group SET better = :name WHERE id IN
        (SELECT g.id {users.sql} AND p.id IS NOT NULL AND NOT {users.near} AND NOT {better}
        AND {users.before})""",
        users.values | {"name": f"{calibration.kind} {calibration.name}", "ut": calibration.ut.timestamp()},
    )


def touch_withdrawn(tx: Tx, ident: str) -> None:
    """A calibration was taken out of use: whatever was made with it is looked at, however old."""
    tx.run(
        """UPDATE frame_group SET touched = ? WHERE NOT closed AND id IN
        (SELECT j.group_id FROM job_calibration c JOIN job j ON j.id = c.job_id WHERE c.ident = ?)""",
        tx.counter("touch"),
        ident,
    )


def touch_users_of_frame(tx: Tx, frame: int) -> None:
    """Something about an exposure changed: mark its groups, and those that borrow it as sky."""
    rows = tx.rows(
        """SELECT id FROM frame_group WHERE NOT closed AND id IN (
            SELECT group_id FROM membership WHERE frame_id = ?
            UNION SELECT j.group_id FROM job_input i JOIN job j ON j.id = i.job_id WHERE i.frame_id = ?)""",
        frame,
        frame,
    )
    touch(tx, *(row["id"] for row in rows))


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


def touch_waiting(tx: Tx, frame: int, *, done: bool = False) -> None:
    """A file of this frame is back, or gone: mark the groups that have a job to do, those too that borrow it.

    done : also those whose product is made, maybe without it
    """
    rows = tx.rows(
        """WITH own AS (SELECT g.id, g.pool FROM frame_group g JOIN membership m ON m.group_id = g.id
            WHERE m.frame_id = ?)
        SELECT DISTINCT group_id FROM job WHERE (? OR state IN ('planned', 'waiting')) AND group_id IN (
            SELECT id FROM own
            UNION SELECT d.group_id FROM demand d JOIN own ON own.pool = d.key
            UNION SELECT g.id FROM frame_group g JOIN own ON own.pool = g.pool AND own.pool LIKE 'sky:%')""",
        frame,
        done,
    )
    if rows:
        touch(tx, *(row[0] for row in rows))


def release(tx: Tx, job: int) -> None:
    """A job will not be waited for any more: its waiters are planned again."""
    rows = tx.rows(
        "SELECT j.group_id FROM dependency d JOIN job j ON j.id = d.job_id WHERE d.producer_id = ?", job
    )
    tx.run("DELETE FROM dependency WHERE producer_id = ? OR job_id = ?", job, job)
    touch(tx, *{row[0] for row in rows})


def demand(
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
            AND ABS(exposure - ?) < ? AND NOT closed
            AND NOT EXISTS (SELECT 1 FROM job j WHERE j.group_id = frame_group.id)""",
            tx.counter("touch"),
            str(CalibrationKey.of(CalKind.DARK, descriptors)),
            first.ut - DARK_SPAN,
            first.ut + DARK_SPAN,
            first.exposure,
            2 * SAME_EXPOSURE_SECONDS,
        )
