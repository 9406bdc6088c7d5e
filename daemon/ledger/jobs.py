"""Jobs on their way: claimed, handed to the engine, and what follows from how they ended.

| ending | what happens |
|---|---|
| done | published |
| io (OSError), busy, killed, timeout, memory | tried again for ever, after 1 s to 5 min; not counted |
| died | 3 times, counted before the start; then failed |
| failed | failed at once: the same inputs would fail again |
| (failed, in a group that is large enough) | halved once to find the bad frame: `ledger.searches` |
| stopped | back to planned, not counted |
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from daemon.ledger import guarding, marks, products, searches
from daemon.ledger.store import Reader, Tx, placeholders
from daemon.model.groups import Setting
from daemon.model.jobs import BACKLOG, JobSpec, Outcome
from daemon.model.names import staging_path
from daemon.model.publication import PublishPlan
from daemon.model.states import JobState, check_job

MOST_DEATHS = 3  # of workers in one job
MOST_INTERRUPTIONS = 10  # of the whole daemon: weaker evidence against the running job


@dataclass(frozen=True)
class Claim:
    job_id: int
    attempt: int
    spec: JobSpec


# The group of a claimable job is quiet, and has no other job that runs: so an older version never replaces a
# newer one.
CLAIMABLE = """job j JOIN frame_group g ON g.id = j.group_id
    WHERE j.state = 'planned' AND g.settled AND NOT g.closed
    AND NOT EXISTS (SELECT 1 FROM job r WHERE r.group_id = j.group_id AND r.state = 'running')"""


def is_claimable(db: Reader, skip: Sequence[int], until: int) -> bool:
    """True when `claim` would find a job."""
    sql = f"SELECT 1 FROM {CLAIMABLE} AND j.id NOT IN ({placeholders(skip)}) AND j.priority <= ? LIMIT 1"
    return db.execute(sql, (*skip, until)).fetchone() is not None


def unfinished(db: Reader) -> list[int]:
    """Jobs that are still to be done, or under way."""
    rows = db.execute("SELECT id FROM job WHERE state IN ('planned', 'waiting', 'running')")
    return [row["id"] for row in rows]


def is_planned(db: Reader, key: str) -> bool:
    """True when the job of this key is planned, and does not run yet."""
    sql = "SELECT 1 FROM job WHERE key = ? AND state = 'planned'"
    return db.execute(sql, (key,)).fetchone() is not None


def spec_of(db: Reader, job: int) -> JobSpec | None:
    """What a job is to make; None of one that is not known, or waits for a calibration."""
    row = db.execute("SELECT spec FROM job WHERE id = ?", (job,)).fetchone()
    return JobSpec.from_json(json.loads(row["spec"])) if row and row["spec"] else None


def claim(tx: Tx, *, skip: Sequence[int] = (), oldest: bool = False, until: int = BACKLOG) -> Claim | None:
    """Take the next planned job: its attempt is on record before anything is done for it.

    skip : jobs that are in back-off
    oldest : of the backlog the oldest, when there is any
    until : the last priority that is looked at
    """
    order = f"j.priority < {BACKLOG}, j.ut" if oldest else "j.priority, j.ut DESC"
    row = tx.one(
        f"""SELECT j.* FROM {CLAIMABLE} AND j.id NOT IN ({placeholders(skip)})
        AND j.priority <= ? ORDER BY {order}, j.id LIMIT 1""",
        *skip,
        until,
    )
    if row is None:
        return None
    return claim_job(tx, row["id"])


def claim_made(tx: Tx, spec: JobSpec) -> Claim | None:
    """Take the job whose specification is the one of a running stack; None when it cannot be taken now."""
    row = tx.one(f"SELECT j.* FROM {CLAIMABLE} AND j.key = ?", spec.key)
    made = spec.to_json() | {"attempt": 0, "staging": "", "group_id": 0}
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
    compare = guarding.mask_to_compare(tx, row)
    spec = replace(spec, attempt=attempt, staging=staging, group_id=group, compare=compare)
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
    else:  # Plan the group again: one of its calibrations may have been replaced while the job ran.
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
    """A publication that cannot be finished: as if the attempt had failed because of a missing file."""
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
    # The code or the configuration may have changed: jobs that have not begun are planned again.
    unfinished = tx.rows("SELECT DISTINCT group_id FROM job WHERE state IN ('planned', 'waiting')")
    marks.touch(tx, *(row[0] for row in unfinished))
    return len(rows)


def move(tx: Tx, job: int, old: str, new: JobState, reason: str) -> None:
    """Change a job's state; IllegalTransition if that cannot be."""
    if old != new:
        check_job(old, new)
    tx.run("UPDATE job SET state = ?, reason = ?, changed = ? WHERE id = ?", new.value, reason, tx.now, job)
