"""Jobs on their way: claimed, handed to the engine, and what follows from how they ended.

| ending | what happens |
|---|---|
| done | published |
| io (OSError), busy, killed, timeout, memory | tried again for ever, after 1 s to 5 min; not counted |
| died | 3 times, counted before the start; then failed |
| failed | failed at once: the same inputs would fail again |
| (failed, in a group that is large enough) | halved once to find the frame to blame: `ledger.searches` |
| stopped | back to planned, not counted |
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from daemon.ledger import decisions, marks, products, searches
from daemon.ledger.store import Tx, placeholders
from daemon.ledger.world import candidate_to_json
from daemon.model.groups import Decision, Setting
from daemon.model.jobs import BACKLOG, CALIBRATION, SCIENCE, JobSpec, Look, Outcome
from daemon.model.names import staging_path
from daemon.model.publication import PublishPlan
from daemon.model.states import JobState, check_job
from pipeline.association import CalibrationKey, CalKind, Candidate

MOST_DEATHS = 3  # of workers in one job
MOST_INTERRUPTIONS = 10  # of the whole daemon: weaker evidence against the job that was running


@dataclass(frozen=True)
class Claim:
    job_id: int
    attempt: int
    spec: JobSpec


def claim(tx: Tx, *, skip: Sequence[int] = (), oldest: bool = False, until: int = BACKLOG) -> Claim | None:
    """Take the next planned job: its attempt is on record before anything is done for it.

    skip : jobs that are in back-off
    oldest : of the backlog the oldest, when there is any
    until : the last priority that is looked at
    A group has one running job at most, so that an older version never replaces a newer one.
    """
    order = f"j.priority < {BACKLOG}, j.ut" if oldest else "j.priority, j.ut DESC"
    row = tx.one(
        f"""SELECT j.* FROM job j JOIN frame_group g ON g.id = j.group_id
        WHERE j.state = 'planned' AND g.settled AND NOT g.closed AND j.id NOT IN ({placeholders(skip)})
        AND NOT EXISTS (SELECT 1 FROM job r WHERE r.group_id = j.group_id AND r.state = 'running')
        AND j.priority <= ? ORDER BY {order}, j.id LIMIT 1""",
        *skip,
        until,
    )
    if row is None:
        return None
    return claim_job(tx, row["id"])


def claim_made(tx: Tx, look: Look) -> Claim | None:
    """Take the job that a running stack has proved to be, to the last letter, if it is to be had."""
    row = tx.one(
        """SELECT j.* FROM job j JOIN frame_group g ON g.id = j.group_id WHERE j.key = ?
        AND j.state = 'planned' AND g.settled AND NOT g.closed
        AND NOT EXISTS (SELECT 1 FROM job r WHERE r.group_id = j.group_id AND r.state = 'running')""",
        look.spec.key,
    )
    made = look.spec.to_json() | {"attempt": 0, "staging": "", "group_id": 0}
    if row is None or json.loads(row["spec"]) != json.loads(json.dumps(made)):
        return None
    return claim_job(tx, row["id"])


def claim_job(tx: Tx, job_id: int) -> Claim | None:
    """Take this job if it is still to be had."""
    taken = tx.run(
        """UPDATE job SET state = 'running', reason = 'running', attempts = attempts + 1, changed = ?
        WHERE id = ? AND state = 'planned'""",
        tx.now,
        job_id,
    )
    if taken != 1:
        return None
    row = tx.one("SELECT * FROM job WHERE id = ?", job_id)
    assert row is not None
    attempt = row["attempts"]
    tx.insert("attempt", job_id=job_id, n=attempt, started=tx.now, outcome="", error="")
    spec = JobSpec.from_json(json.loads(row["spec"]))
    group, staging = row["group_id"], staging_path(spec, attempt)
    spec = replace(spec, attempt=attempt, staging=staging, group_id=group)
    tx.event("job_started", job=job_id, recipe=spec.recipe, group=group, name=spec.name, attempt=attempt)
    return Claim(job_id, attempt, spec)


def end(tx: Tx, outcome: Outcome, setting: Setting | None = None) -> JobState | None:
    """Write down an ending other than "done"; None when the attempt did not own the job any more."""
    row = tx.one(
        "SELECT * FROM job WHERE id = ? AND state = 'running' AND attempts = ?",
        outcome.job_id,
        outcome.attempt,
    )
    if row is None:
        return None
    died = outcome.ending == "died"
    deaths = row["deaths"] + died
    failed = outcome.ending == "failed" or (died and deaths >= MOST_DEATHS)
    new = JobState.FAILED if failed else JobState.PLANNED
    reason = outcome.error or outcome.ending
    if died and failed:
        reason = f"{reason} ({deaths} times)"
    move(tx, row["id"], row["state"], new, reason)
    tx.run(
        "UPDATE job SET deaths = ?, error = ? WHERE id = ?",
        deaths,
        outcome.traceback or outcome.error,
        row["id"],
    )
    tx.run(
        "UPDATE attempt SET outcome = ?, error = ?, finished = ?, seconds = ? WHERE job_id = ? AND n = ?",
        outcome.ending,
        outcome.error,
        tx.now,
        outcome.seconds,
        row["id"],
        outcome.attempt,
    )
    if failed:
        tx.run("UPDATE frame_group SET reason = ? WHERE id = ?", f"failed: {reason}", row["group_id"])
        if setting is None or not searches.begin(tx, row, setting):
            products.withdraw(tx, row["group_id"])
        marks.release(tx, row["id"])
    else:  # what was right when it started may not be now: a calibration may have been replaced meanwhile
        marks.touch(tx, row["group_id"])
    tx.event(
        "job_failed" if failed else "job_interrupted",
        job=row["id"],
        recipe=row["recipe"],
        group=row["group_id"],
        ending=outcome.ending,
        error=reason,
        attempt=outcome.attempt,
        traceback=outcome.traceback,
    )
    return new


def abandon(tx: Tx, plan: PublishPlan, error: str) -> None:
    """A publication that cannot be finished: as though the attempt had failed for want of a file."""
    tx.run("DELETE FROM intent WHERE job_id = ?", plan.job)
    if plan.restored:
        row = tx.one("SELECT group_id FROM job WHERE id = ?", plan.job)
        products.remake(tx, row["group_id"] if row else 0)
    else:
        end(tx, Outcome(plan.job, plan.attempt, "io", 0.0, error=error))


def recover_interrupted(tx: Tx) -> int:
    """After a crash: running jobs go back to planned with one attempt used. Returns how many.

    Jobs whose publication had begun are not touched: `Dispatcher.recover` finishes those first.
    """
    rows = tx.rows("SELECT * FROM job WHERE state = 'running' AND id NOT IN (SELECT job_id FROM intent)")
    for row in rows:
        count = row["interruptions"] + 1
        new = JobState.FAILED if count >= MOST_INTERRUPTIONS else JobState.PLANNED
        reason = f"interrupted {count} times" if new is JobState.FAILED else "interrupted, to be run again"
        move(tx, row["id"], row["state"], new, reason)
        tx.run("UPDATE job SET interruptions = ? WHERE id = ?", count, row["id"])
        tx.run(
            "UPDATE attempt SET outcome = 'interrupted', finished = ? WHERE job_id = ? AND outcome = ''",
            tx.now,
            row["id"],
        )
        tx.event(
            "job_interrupted", job=row["id"], recipe=row["recipe"], group=row["group_id"], ending="crash"
        )
    # The code or the configuration may be another one now: what has not begun is planned anew.
    unfinished = tx.rows("SELECT DISTINCT group_id FROM job WHERE state IN ('planned', 'waiting')")
    marks.touch(tx, *(row[0] for row in unfinished))
    return len(rows)


FRESH_SECONDS = 86400.0  # before the newest frame known; what is older is backlog


def open(tx: Tx, group: int) -> list[Any]:
    return tx.rows("SELECT * FROM job WHERE group_id = ? AND state IN ('planned', 'waiting')", group)


def move(tx: Tx, job: int, old: str, new: JobState, reason: str) -> None:
    """Change a job's state; IllegalTransition if that cannot be."""
    if old != new:
        check_job(old, new)
    tx.run("UPDATE job SET state = ?, reason = ?, changed = ? WHERE id = ?", new.value, reason, tx.now, job)


def drop(tx: Tx, job: Any, reason: str) -> int:
    move(tx, job["id"], job["state"], JobState.DROPPED, reason)
    marks.release(tx, job["id"])
    tx.event("job_dropped", job=job["id"], reason=reason)
    return 1


def plan_job(tx: Tx, group: int, decision: Decision, spec: JobSpec) -> int:
    """The job of this key is to run. The same key never runs twice: planning again is harmless."""
    known = tx.one("SELECT * FROM job WHERE key = ?", spec.key)
    changed = 0
    for job in open(tx, group):
        if known is None and job["attempts"] == 0:
            tx.run(
                "UPDATE job SET key = ? WHERE id = ?", spec.key, job["id"]
            )  # not begun: it becomes this one
            known = tx.one("SELECT * FROM job WHERE id = ?", job["id"])
        elif known is None or job["id"] != known["id"]:
            changed += drop(tx, job, "superseded before it started")
    if known is not None and known["state"] == JobState.DONE:
        if why := decisions.is_rejected(tx, spec.key):
            tx.run("UPDATE frame_group SET reason = ? WHERE id = ?", why, group)
            return changed
        if tx.one("SELECT 1 FROM product WHERE job_id = ?", known["id"]) is None:  # removed since: a remake
            tx.run("UPDATE frame_group SET remake = remake + 1 WHERE id = ?", group)
            marks.touch(tx, group)
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


def wait_job(tx: Tx, row: Any, decision: Decision, setting: Setting) -> int:
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
    for other in open(tx, row["id"]):
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
