"""What is to be done, in the ledger: which groups are to be planned, and the jobs that planning leads to.

    while (group := next_group(tx, seen, until)) is not None: ...
    keep(tx, group, decision, running_hours, setting)

A group is marked when anything changes that its product depends on (`marks.touch`); one that waits for a
calibration comes up again when it has waited long enough, in hours that the daemon has run.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from daemon.ledger import decisions, marks
from daemon.ledger.jobs import move
from daemon.ledger.products import withdraw
from daemon.ledger.store import Reader, Tx, placeholders
from daemon.ledger.wishes import want_back
from daemon.ledger.world import candidate_to_json
from daemon.model.groups import Decision, Setting
from daemon.model.jobs import BACKLOG, CALIBRATION, SCIENCE, JobSpec
from daemon.model.states import JobState
from pipeline.association import CalibrationKey, CalKind, Candidate

FRESH_SECONDS = 86400.0  # before the newest frame known; what is older is backlog


@dataclass(frozen=True)
class Marked:
    """A group that is to be planned. moved_on : seconds from its last frame to the last of its programme"""

    id: int
    arrivals: int
    moved_on: float


def marked(db: Reader) -> list[Marked]:
    """All groups that are to be planned, those too that are not quiet yet."""
    rows = db.execute(
        """SELECT id, arrivals, last_ut, (SELECT MAX(f.ut) FROM frame f WHERE f.program = g.program
        AND g.program <> '') AS until FROM frame_group g WHERE touched > 0 AND NOT closed"""
    )
    return [Marked(r["id"], r["arrivals"], (r["until"] or r["last_ut"]) - r["last_ut"]) for r in rows]


def has_waited(db: Reader, until: float) -> bool:
    """True when a group waits for a calibration since that hour, or longer."""
    sql = "SELECT 1 FROM frame_group WHERE waiting_since <= ? AND NOT closed LIMIT 1"
    return db.execute(sql, (until,)).fetchone() is not None


# -- one group --------------------------------------------------------------------------------


def next_group(tx: Tx, seen: Collection[int], until: float) -> tuple[int, str] | None:
    """(id, rule) of the next group to plan: of the lowest rank, so that what one makes is known to those
    that use it.

    until : hour of the running clock; who waits since then has waited long enough
    """
    row = tx.one(
        f"""SELECT id, rule FROM (
            SELECT * FROM frame_group WHERE touched > 0 AND NOT closed
            UNION SELECT * FROM frame_group WHERE waiting_since <= ? AND NOT closed)
        WHERE id NOT IN ({placeholders(list(seen))}) ORDER BY rank, touched, id LIMIT 1""",
        until,
        *seen,
    )
    return (row["id"], row["rule"]) if row else None


def leave(tx: Tx, group: int, reason: str) -> None:
    """The group cannot be planned as things are."""
    tx.run("UPDATE frame_group SET touched = 0, waiting_since = NULL, reason = ? WHERE id = ?", reason, group)


def is_empty(tx: Tx, group: int) -> int:
    """The group has no frames: its product may have to go. Returns 1 when that is new."""
    tx.run("UPDATE frame_group SET touched = 0 WHERE id = ?", group)
    return withdraw(tx, group)


def keep(tx: Tx, group: int, decision: Decision, running: float, setting: Setting) -> int:
    """Write down what was decided of a group. running : hours that the daemon has run in its life

    Returns how many jobs, or wishes for products, have changed.
    """
    if decision.action == "later":
        tx.run("UPDATE frame_group SET reason = ? WHERE id = ?", decision.reason, group)
        return 0
    row = tx.one("SELECT * FROM frame_group WHERE id = ?", group)
    assert row is not None
    since = running if row["waiting_since"] is None else row["waiting_since"]
    tx.run(
        """UPDATE frame_group SET touched = 0, settled = 1, reason = ?, better = ?, waiting_since = ?
        WHERE id = ?""",
        decision.reason,
        "; ".join(decision.better),
        since if decision.short else None,
        group,
    )
    tx.run("UPDATE demand SET chosen = NULL WHERE group_id = ? AND chosen IS NOT NULL", group)
    for kind, ut in decision.nearest.items():
        sql = "UPDATE demand SET chosen = ? WHERE group_id = ? AND key LIKE ?"
        tx.run(sql, ut.timestamp(), group, f"{kind}:%")
    if row["pool"].startswith("join:"):  # settled now, or one of its frames was taken out or put back
        for rule in setting.rules.values():
            if rule.join and rule.join.rule == row["rule"]:
                marks.touch_joined(tx, row, rule.join.within_days)
    if decision.action == "plan":
        assert decision.spec is not None
        return _plan_job(tx, group, decision, decision.spec)
    if decision.action == "wait":
        changed = _wait_job(tx, row, decision, setting)
    else:
        changed = sum(_drop(tx, job, "not wanted any more") for job in _open(tx, group))
    if decision.producers:  # the running job brings a new product soon
        return changed
    return changed + withdraw(tx, group)


# -- its job ----------------------------------------------------------------------------------


def _open(tx: Tx, group: int) -> list[Any]:
    return tx.rows("SELECT * FROM job WHERE group_id = ? AND state IN ('planned', 'waiting')", group)


def _drop(tx: Tx, job: Any, reason: str) -> int:
    move(tx, job["id"], job["state"], JobState.DROPPED, reason)
    marks.release(tx, job["id"])
    tx.event("job_dropped", job=job["id"], reason=reason)
    return 1


def _plan_job(tx: Tx, group: int, decision: Decision, spec: JobSpec) -> int:
    """The job of this key is to run. The same key never runs twice: planning again is harmless."""
    known, changed = _known_job(tx, group, spec.key)
    return changed + _VERBS[_standing(tx, known)](tx, group, known, decision, spec)


def _known_job(tx: Tx, group: int, key: str) -> tuple[Any, int]:
    """(the job of this key, None if there is none; how many others of the group were dropped for it).

    An open job that has not begun takes the key, where no job has it.
    """
    known, dropped = tx.one("SELECT * FROM job WHERE key = ?", key), 0
    for job in _open(tx, group):
        if known is None and job["attempts"] == 0:
            tx.run("UPDATE job SET key = ? WHERE id = ?", key, job["id"])
            known = tx.one("SELECT * FROM job WHERE id = ?", job["id"])
        elif known is None or job["id"] != known["id"]:
            dropped += _drop(tx, job, "superseded before it started")
    return known, dropped


def _standing(tx: Tx, known: Any) -> str:
    """How a job stands when it is wanted: a key of _VERBS."""
    if known is None:
        return "new"
    if known["state"] != JobState.DONE:
        return str(known["state"])
    if decisions.is_rejected(tx, known["key"]):
        return "rejected"
    there = tx.one("SELECT 1 FROM product WHERE job_id = ?", known["id"])
    return "replaced" if there else "removed"


def _leave(tx: Tx, group: int, known: Any, decision: Decision, spec: JobSpec) -> int:
    return 0


def _say_rejected(tx: Tx, group: int, known: Any, decision: Decision, spec: JobSpec) -> int:
    why = decisions.is_rejected(tx, spec.key)
    tx.run("UPDATE frame_group SET reason = ? WHERE id = ?", why, group)
    return 0


def _make_once_more(tx: Tx, group: int, known: Any, decision: Decision, spec: JobSpec) -> int:
    tx.run("UPDATE frame_group SET remake = remake + 1 WHERE id = ?", group)
    marks.touch(tx, group)
    return 1


def _bring_back(tx: Tx, group: int, known: Any, decision: Decision, spec: JobSpec) -> int:
    return want_back(tx, group, known["id"])  # see `publications.intend_restoration`


def _plan_new(tx: Tx, group: int, known: Any, decision: Decision, spec: JobSpec) -> int:
    changed, values = _drop_failed(tx, group), _values(tx, decision, spec)
    job = tx.insert(
        "job", key=spec.key, group_id=group, state="planned", planned_at=tx.now, **_new_job(), **values
    )
    return changed + _planned(tx, job, group, decision, spec)


def _plan_again(tx: Tx, group: int, known: Any, decision: Decision, spec: JobSpec) -> int:
    changed, values = _drop_failed(tx, group), _values(tx, decision, spec)
    same = known["state"] == JobState.PLANNED and known["spec"] == values["spec"]
    if known["state"] != JobState.DROPPED:  # another job may wait for it
        values["priority"] = min(values["priority"], known["priority"])
    move(tx, known["id"], known["state"], JobState.PLANNED, decision.reason)
    sets = ", ".join(f"{name} = ?" for name in values)
    tx.run(f"UPDATE job SET {sets}, group_id = ? WHERE id = ?", *values.values(), group, known["id"])
    return changed if same else changed + _planned(tx, known["id"], group, decision, spec)


# How the job of a key stands -> what planning it does.
_VERBS = {
    "new": _plan_new,
    "planned": _plan_again,
    "waiting": _plan_again,
    "dropped": _plan_again,
    "running": _leave,
    "failed": _leave,  # the same inputs would fail again
    "rejected": _say_rejected,
    "removed": _make_once_more,  # done, and its file was removed since
    "replaced": _bring_back,  # done, and its file is kept
}


def _drop_failed(tx: Tx, group: int) -> int:
    failed = tx.rows("SELECT * FROM job WHERE group_id = ? AND state = 'failed'", group)
    return sum(_drop(tx, job, "its group has changed since it failed") for job in failed)


def _planned(tx: Tx, job: int, group: int, decision: Decision, spec: JobSpec) -> int:
    tx.run("DELETE FROM dependency WHERE job_id = ?", job)
    _inputs(tx, job, decision, spec)
    tx.event("job_planned", job=job, recipe=spec.recipe, group=group, name=spec.name, inputs=len(spec.inputs))
    return 1


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
            _drop(tx, other, "superseded before it started")
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
    """Gives the producers that a new job waits for its priority, and their producers too."""
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
