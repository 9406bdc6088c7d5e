"""Between the ledger and the pure planner: loads what is touched, answers what the planner asks, and
writes down what it decided. Everything happens in one transaction, so nothing can change in between.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from daemon import groups, verdicts
from daemon.grouping import Member, name_order
from daemon.jobspec import JobSpec
from daemon.ledger import Tx, placeholders
from daemon.planner import Current, Decision, Group, Setting, World, forced_in, plan
from daemon.states import JobState, check_job
from daemon.triggers import Join
from pipeline import association
from pipeline.association import CalibrationKey, CalKind, Candidate
from pipeline.descriptors import Descriptors

AT_ONCE = 100  # groups in one transaction: ingest waits meanwhile
FRESH_SECONDS = 86400.0  # before the newest frame known; what is older is backlog
CALIBRATION, SCIENCE, BACKLOG = 1, 2, 4  # priorities; 0 and 3 are for first looks and running stacks

Overrides = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]  # Config.parameters


@dataclass(frozen=True)
class Clocks:
    """running : hours that the daemon has run in its life, kept in the ledger
    quiet_for : (group id, its arrivals) -> monotonic seconds since the last arrival"""

    running: float
    quiet_for: Callable[[int, int], float]


@dataclass(frozen=True)
class Planned:
    """What one round did. due : group that is not quiet yet -> seconds until it may be
    lost : group that waits for files which are gone -> seconds until it goes on without
    more : there may be others to look at"""

    looked_at: int
    changed: int
    due: Mapping[int, float]
    lost: Mapping[int, float] = field(default_factory=dict)

    @property
    def more(self) -> bool:
        return self.changed > 0 or self.looked_at >= AT_ONCE


def round_of_planning(
    tx: Tx,
    setting: Setting,
    clocks: Clocks,
    overrides: Overrides,
    skip: Sequence[int] = (),
    on_open: Callable[[Group, World], None] | None = None,
) -> Planned:
    """Plan touched groups, producers before consumers, and those whose wait has run out.

    skip : groups that are not quiet yet, and known to be so
    on_open : called with each group that is not quiet yet
    """
    due: dict[int, float] = {}
    lost: dict[int, float] = {}
    changed = 0
    seen: set[int] = set(skip)
    world = LedgerWorld(tx, setting, overrides)
    while len(seen) - len(skip) < AT_ONCE:
        row = _next(tx, seen, clocks, setting)
        if row is None:
            break
        seen.add(row["id"])
        if row["rule"] not in setting.rules:
            tx.run(
                "UPDATE frame_group SET touched = 0, waiting_since = NULL, reason = ? WHERE id = ?",
                "its rule is not in the configuration any more",
                row["id"],
            )
            continue
        group = world.load(row, clocks)
        if not group.members:
            tx.run("UPDATE frame_group SET touched = 0 WHERE id = ?", row["id"])
            changed += withdraw(tx, row["id"])
            continue
        decision = plan([group], setting, world)[0]
        changed += _keep(tx, row, decision, clocks, setting)
        if decision.lost and decision.due is not None:
            lost[row["id"]] = decision.due
        if decision.action == "later" and decision.due is not None:
            due[row["id"]] = decision.due
            if on_open is not None:
                on_open(group, world)
    return Planned(len(seen) - len(skip), changed, due, lost)


def _next(tx: Tx, seen: set[int], clocks: Clocks, setting: Setting) -> Any:
    """The next group to look at: of the lowest rank, so that what one makes is known to those that use it."""
    limit = clocks.running - setting.policy.calibration_wait_hours
    return tx.one(
        f"""SELECT * FROM (
            SELECT * FROM frame_group WHERE touched > 0 AND NOT closed
            UNION SELECT * FROM frame_group WHERE waiting_since <= ? AND NOT closed)
        WHERE id NOT IN ({placeholders(list(seen))}) ORDER BY rank, touched, id LIMIT 1""",
        limit if not setting.hurry else 1e12,
        *seen,
    )


class LedgerWorld:
    """`planner.World`, answered from the ledger."""

    def __init__(self, tx: Tx, setting: Setting, overrides: Overrides) -> None:
        self.tx, self.setting, self.overrides = tx, setting, overrides

    def load(self, row: Any, clocks: Clocks | None = None) -> Group:
        """A group with its members."""
        waited = clocks.running - row["waiting_since"] if clocks and row["waiting_since"] is not None else 0.0
        until = self.tx.one("SELECT MAX(ut) AS ut FROM frame WHERE program = ?", row["program"])
        return Group(
            id=row["id"],
            rule=row["rule"],
            key=row["key"],
            members=self.members(row["id"]),
            quiet_for=clocks.quiet_for(row["id"], row["arrivals"]) if clocks else float("inf"),
            settled=bool(row["settled"]),
            waited=waited,
            programme_until=_when(until["ut"]) if until and until["ut"] and row["program"] else None,
            last_arrival=row["last_arrival"],
            remake=row["remake"],
            current=self._current(row["id"]),
        )

    def members(self, group: int) -> tuple[Member, ...]:
        tx = self.tx
        files: dict[int, list[Any]] = {}
        for row in tx.rows(
            """SELECT c.frame_id, c.sha256, c.name, c.facts, s.path FROM content c
            JOIN sighting s ON s.content_id = c.id AND s.current AND s.present
            WHERE c.state <> 'superseded'
            AND c.frame_id IN (SELECT frame_id FROM membership WHERE group_id = ?)""",
            group,
        ):
            files.setdefault(row["frame_id"], []).append(row)
        frames = tx.rows(
            """SELECT f.*, (SELECT MAX(s.last_seen) FROM content c JOIN sighting s ON s.content_id = c.id
                WHERE c.frame_id = f.id) AS seen
            FROM frame f JOIN membership m ON m.frame_id = f.id WHERE m.group_id = ?""",
            group,
        )
        found = (_member(f, files.get(f["id"], []), tx.now) for f in frames)
        return tuple(sorted(found, key=lambda m: m.order))

    def _current(self, group: int) -> Current | None:
        row = self.tx.one(
            """SELECT j.*, p.current FROM product p JOIN job j ON j.id = p.job_id
            WHERE p.group_id = ? ORDER BY p.current DESC, p.version DESC LIMIT 1""",
            group,
        )
        rejected = verdicts.is_rejected(self.tx, row["key"]) if row and not row["current"] else ""
        if row is None or not (row["current"] or rejected):
            return None
        spec = JobSpec.from_json(json.loads(row["spec"]))
        return Current(
            key=spec.key,
            inputs=tuple((i.data_sha, i.facts) for i in spec.inputs),
            calibrations={
                role: tuple(c.key for c in spec.calibrations if c.role == role)
                for role in {c.role for c in spec.calibrations}
            },
            remove_first=spec.parameters.get("removeFirstFrame:remove_first"),
            forced_in=forced_in(spec.parameters),
            remake=row["remake"],
            rejected=rejected,
        )

    def candidates(self, kind: CalKind, target: Descriptors) -> Sequence[Candidate]:
        """Which of two copies from outside came first says nothing: the choice must not hang on it."""
        found = (c for c in self.tx.cals.candidates(kind, target) if c.origin or self._lies_there(c))
        stored = (replace(c, made=0) if not c.origin else c for c in found)
        return [*stored, *self._pending(kind, target)]

    def _lies_there(self, external: Candidate) -> bool:
        sql = "SELECT 1 FROM sighting WHERE path = ? AND current AND present LIMIT 1"
        return self.tx.one(sql, os.fsencode(external.path)) is not None

    def _pending(self, kind: CalKind, target: Descriptors) -> list[Candidate]:
        key = str(CalibrationKey.of(kind, target))
        rows = self.tx.rows(
            """SELECT key, makes FROM job WHERE makes_key = ?
            AND state IN ('planned', 'waiting', 'running', 'failed')
            AND (state <> 'failed' OR id IN (SELECT job_id FROM search WHERE outcome = ''))""",
            key,
        )
        return [replace(candidate_from_json(row["makes"]), ident=row["key"], pending=True) for row in rows]

    def joined(self, join: Join, group: Group) -> Sequence[Group]:
        usable = next(m for m in group.members if m.usable)
        pool = groups.join_key(join.rule, join.agree, usable.descriptors)
        middle, span = usable.ut.timestamp(), join.within_days * 86400
        rows = self.tx.rows(
            """SELECT * FROM frame_group WHERE pool = ? AND NOT closed AND exposure <= ? AND (settled OR ?)
            AND first_ut BETWEEN ? AND ?""",
            pool,
            join.max_exposure_time,
            self.setting.hurry,
            middle - span,
            middle + span,
        )
        return [self.load(row) for row in rows]

    def needed(self, kind: CalKind, descriptors: Descriptors) -> bool:
        rule = association.RULES[kind]
        assert descriptors.ut_datetime is not None
        middle = descriptors.ut_datetime.timestamp()
        span = rule.within.total_seconds() if rule.within else 1e12
        row = self.tx.one(
            "SELECT 1 FROM demand WHERE key = ? AND ABS(exposure - ?) < ? AND ut BETWEEN ? AND ? LIMIT 1",
            str(CalibrationKey.of(kind, descriptors)),
            descriptors.exposure_time,
            rule.tolerance.get("exposure_time", 1e12),
            middle - span,
            middle + span,
        )
        return row is not None

    def neighbours(self, group: Group) -> Sequence[Member]:
        first, last = group.members[0].ut.timestamp(), group.members[-1].ut.timestamp()
        reach = self.setting.policy.borrow_sky_seconds
        rows = self.tx.rows(
            """SELECT id FROM frame_group WHERE NOT closed AND id <> ? AND first_ut BETWEEN ? AND ?
            AND last_ut >= ? AND pool <> '' AND pool = (SELECT pool FROM frame_group WHERE id = ?)""",
            group.id,
            first - groups.LONGEST,
            last + reach,
            first - reach,
            group.id,
        )
        exposure = group.members[0].descriptors.exposure_time or 0.0
        members = [m for row in rows for m in self.members(row["id"])]
        return [m for m in members if abs((m.descriptors.exposure_time or 0.0) - exposure) <= 0.01 + 1e-9]

    def parameters(self, recipe: str, descriptors: Descriptors) -> Mapping[str, Any]:
        return self.overrides(recipe, descriptors.to_json())

    def forced_in(self, member: Member) -> bool:
        return verdicts.is_forced_in(self.tx, member.label, member.data_sha)

    def withdrawn(self, ident: str) -> bool:
        return self.tx.cals.withdrawn(ident)


def _member(frame: Any, files: list[Any], now: float) -> Member:
    files = sorted(files, key=lambda f: (f["facts"] != frame["facts"], name_order(f["name"]), f["path"]))
    return Member(
        frame_id=frame["id"],
        label=frame["label"],
        data_sha=frame["data_sha"],
        facts=frame["facts"],
        name=frame["name"],
        ut=_when(frame["ut"]),
        tags=frozenset(json.loads(frame["tags"])),
        descriptors=Descriptors.from_json(json.loads(frame["descriptors"])),
        path=files[0]["path"].decode(errors="surrogateescape") if files else "",
        file_sha=files[0]["sha256"] if files else "",
        usable=bool(frame["usable"]),
        gone_for=0.0 if files else max(0.0, now - (frame["seen"] or 0.0)),
    )


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


# -- what was decided --------------------------------------------------------------------------


def _keep(tx: Tx, row: Any, decision: Decision, clocks: Clocks, setting: Setting) -> int:
    """Write a decision down; returns 1 when it changed any job."""
    if decision.action == "later":
        tx.run("UPDATE frame_group SET reason = ? WHERE id = ?", decision.reason, row["id"])
        return 0
    since = (
        (row["waiting_since"] if row["waiting_since"] is not None else clocks.running)
        if decision.short
        else None
    )
    tx.run(
        """UPDATE frame_group SET touched = 0, settled = 1, reason = ?, better = ?, waiting_since = ?
        WHERE id = ?""",
        decision.reason,
        "; ".join(decision.better),
        since,
        row["id"],
    )
    tx.run("UPDATE demand SET chosen = NULL WHERE group_id = ? AND chosen IS NOT NULL", row["id"])
    for kind, ut in decision.nearest.items():
        sql = "UPDATE demand SET chosen = ? WHERE group_id = ? AND key LIKE ?"
        tx.run(sql, ut.timestamp(), row["id"], f"{kind}:%")
    if row["pool"].startswith("join:"):  # settled now, or one of its frames is out or in again
        for rule in setting.rules.values():
            if rule.join and rule.join.rule == row["rule"]:
                groups.touch_joined(tx, row, rule.join.within_days)
    if decision.action == "plan":
        assert decision.spec is not None
        return _plan_job(tx, row["id"], decision, decision.spec)
    if decision.action == "wait":
        changed = _wait_job(tx, row, decision, setting)
    else:
        changed = sum(drop(tx, job, "not wanted any more") for job in _open(tx, row["id"]))
    if decision.producers:  # what is being made brings a new product soon
        return changed
    return changed + withdraw(tx, row["id"])


def withdraw(tx: Tx, group: int) -> int:
    """Have a product taken away that holds frames which are out, when it cannot be made without them now.

    Of frames that nobody knows any more (the ledger was made anew without them) nothing bad is known.
    """
    product = tx.one(
        "SELECT j.* FROM product p JOIN job j ON j.id = p.job_id WHERE p.group_id = ? AND p.current", group
    )
    if product is None:
        return 0
    inputs = JobSpec.from_json(json.loads(product["spec"])).inputs
    rows = tx.rows(
        """SELECT i.position, f.data_sha, f.facts, f.usable FROM job_input i
        JOIN frame f ON f.id = i.frame_id WHERE i.job_id = ?""",
        product["id"],
    )
    known = [(inputs[row["position"]], row) for row in rows]
    spoilt = any(
        not row["usable"] or (was.facts and (was.data_sha, was.facts) != (row["data_sha"], row["facts"]))
        for was, row in known
    )
    accepted = verdicts.standing(tx, verdicts.of_product(product["key"]))
    if not spoilt or (accepted and accepted["action"] == verdicts.ACCEPT):
        return 0
    return tx.run("UPDATE frame_group SET restore = 0 WHERE id = ? AND restore IS NOT 0", group)


def _open(tx: Tx, group: int) -> list[Any]:
    return tx.rows("SELECT * FROM job WHERE group_id = ? AND state IN ('planned', 'waiting')", group)


def move(tx: Tx, job: int, old: str, new: JobState, reason: str) -> None:
    """Change a job's state; IllegalTransition if that cannot be."""
    if old != new:
        check_job(old, new)
    tx.run("UPDATE job SET state = ?, reason = ?, changed = ? WHERE id = ?", new.value, reason, tx.now, job)


def drop(tx: Tx, job: Any, reason: str) -> int:
    move(tx, job["id"], job["state"], JobState.DROPPED, reason)
    groups.release(tx, job["id"])
    tx.event("job_dropped", job=job["id"], reason=reason)
    return 1


def _plan_job(tx: Tx, group: int, decision: Decision, spec: JobSpec) -> int:
    """The job of this key is to run. The same key never runs twice: planning again is harmless."""
    known = tx.one("SELECT * FROM job WHERE key = ?", spec.key)
    changed = 0
    for job in _open(tx, group):
        if known is None and job["attempts"] == 0:
            tx.run(
                "UPDATE job SET key = ? WHERE id = ?", spec.key, job["id"]
            )  # not begun: it becomes this one
            known = tx.one("SELECT * FROM job WHERE id = ?", job["id"])
        elif known is None or job["id"] != known["id"]:
            changed += drop(tx, job, "superseded before it started")
    if known is not None and known["state"] == JobState.DONE:
        if why := verdicts.is_rejected(tx, spec.key):
            tx.run("UPDATE frame_group SET reason = ? WHERE id = ?", why, group)
            return changed
        if tx.one("SELECT 1 FROM product WHERE job_id = ?", known["id"]) is None:  # removed since: a remake
            tx.run("UPDATE frame_group SET remake = remake + 1 WHERE id = ?", group)
            groups.touch(tx, group)
            return changed + 1
        # Made before, and replaced since: it takes its place again (`publish.intend_restoration`).
        sql = "UPDATE frame_group SET restore = ? WHERE id = ? AND restore IS NOT ?"
        return changed + tx.run(sql, known["id"], group, known["id"])
    if known is not None and known["state"] in (JobState.RUNNING, JobState.FAILED):
        return changed
    for job in tx.rows("SELECT * FROM job WHERE group_id = ? AND state = 'failed'", group):
        changed += drop(tx, job, "its group has changed since it failed")
    values = _values(tx, decision, spec)
    if known is None:
        job_id = tx.insert(
            "job", key=spec.key, group_id=group, state="planned", planned_at=tx.now, **_new_job(), **values
        )
    else:
        job_id = known["id"]
        same = known["state"] == JobState.PLANNED and known["spec"] == values["spec"]
        if known["state"] in (JobState.PLANNED, JobState.WAITING):  # somebody may be waiting for it
            values["priority"] = min(values["priority"], known["priority"])
        move(tx, job_id, known["state"], JobState.PLANNED, decision.reason)
        sets = ", ".join(f"{name} = ?" for name in values)
        tx.run(f"UPDATE job SET {sets}, group_id = ? WHERE id = ?", *values.values(), group, job_id)
        if same:
            return changed
    tx.run("DELETE FROM dependency WHERE job_id = ?", job_id)
    _inputs(tx, job_id, decision, spec)
    tx.event(
        "job_planned",
        job=job_id,
        recipe=spec.recipe,
        group=group,
        name=spec.name,
        inputs=len(spec.inputs),
    )
    return changed + 1


def _new_job() -> dict[str, Any]:
    return {"attempts": 0, "deaths": 0, "interruptions": 0, "error": ""}


def _values(tx: Tx, decision: Decision, spec: JobSpec) -> dict[str, Any]:
    makes = decision.makes
    latest = decision.latest.timestamp() if decision.latest else 0.0
    return {
        "recipe": spec.recipe,
        "version": spec.recipe_version,
        "reason": decision.reason,
        "priority": SCIENCE if _fresh(tx, latest) and _is_image(makes) else BACKLOG,
        "ut": latest,
        "spec": json.dumps(spec.to_json()),
        "makes": candidate_to_json(makes) if makes else "",
        "makes_key": str(CalibrationKey.of(makes.kind, makes.facts)) if makes else "",
        "remake": decision.remake,
        "changed": tx.now,
    }


def _is_image(makes: Candidate | None) -> bool:
    """True for a job whose product somebody looks at, be it of a standard star."""
    return makes is None or makes.kind is CalKind.ZERO_POINT


def _inputs(tx: Tx, job: int, decision: Decision, spec: JobSpec) -> None:
    tx.run("DELETE FROM job_input WHERE job_id = ?", job)
    tx.run("DELETE FROM job_calibration WHERE job_id = ?", job)
    for position, (frame, item) in enumerate(zip(decision.members, spec.inputs, strict=True)):
        tx.insert("job_input", job_id=job, frame_id=frame, position=position, sha256=item.file_sha)
    for cal in spec.calibrations:
        tx.insert("job_calibration", job_id=job, role=cal.role, ident=cal.key, name=cal.name)


def _wait_job(tx: Tx, row: Any, decision: Decision, setting: Setting) -> int:
    """One waiting job a group; it takes its real key when it can be planned."""
    key = f"waiting:{row['id']}"
    recipe = setting.recipes[setting.rules[row["rule"]].recipe]
    makes = decision.makes
    values = {
        "reason": decision.reason,
        "makes": candidate_to_json(makes) if makes else "",
        "makes_key": str(CalibrationKey.of(makes.kind, makes.facts)) if makes else "",
        "ut": row["last_ut"],
        "changed": tx.now,
        "spec": "",
    }
    job: Any = None
    told = False
    for other in _open(tx, row["id"]):
        if job is None and other["attempts"] == 0:
            job = other
        else:
            drop(tx, other, "superseded before it started")
    job = job or tx.one("SELECT * FROM job WHERE key = ?", key)
    if job is None:
        job_id = tx.insert(
            "job",
            key=key,
            group_id=row["id"],
            recipe=recipe.name,
            version=recipe.version,
            state="waiting",
            priority=BACKLOG,
            remake=row["remake"],
            planned_at=tx.now,
            **_new_job(),
            **values,
        )
    else:
        job_id, told = job["id"], job["state"] == JobState.WAITING and job["reason"] == decision.reason
        move(tx, job_id, job["state"], JobState.WAITING, decision.reason)
        sets = ", ".join(f"{name} = ?" for name in values)
        tx.run(f"UPDATE job SET {sets}, key = ? WHERE id = ?", *values.values(), key, job_id)
    tx.run("DELETE FROM dependency WHERE job_id = ?", job_id)
    producers = tx.rows(
        f"SELECT id FROM job WHERE key IN ({placeholders(decision.producers)})", *decision.producers
    )
    for producer in producers:
        tx.run("INSERT OR IGNORE INTO dependency VALUES (?, ?)", job_id, producer["id"])
    if producers and _fresh(tx, row["last_ut"]):
        _hurry_producers(tx, job_id)
    if told:
        return 0
    tx.event("job_waiting", job=job_id, recipe=recipe.name, group=row["id"], reason=decision.reason)
    return 1


def _hurry_producers(tx: Tx, job: int) -> None:
    """What a fresh job waits for goes first, and what that waits for."""
    tx.run(
        """UPDATE job SET priority = MIN(priority, ?) WHERE id IN (
            WITH RECURSIVE needed (id) AS (
                SELECT producer_id FROM dependency WHERE job_id = ?
                UNION SELECT d.producer_id FROM dependency d JOIN needed n ON d.job_id = n.id)
            SELECT id FROM needed)""",
        CALIBRATION,
        job,
    )


def _fresh(tx: Tx, ut: float) -> bool:
    row = tx.one("SELECT MAX(ut) AS ut FROM frame")
    return row is None or row["ut"] is None or ut >= row["ut"] - FRESH_SECONDS


def candidate_to_json(candidate: Candidate) -> str:
    return json.dumps({**asdict(candidate), "ut": candidate.ut.isoformat()}, sort_keys=True)


def candidate_from_json(text: str) -> Candidate:
    values = json.loads(text)
    return Candidate(
        **{**values, "kind": CalKind(values["kind"]), "ut": datetime.fromisoformat(values["ut"])}
    )
