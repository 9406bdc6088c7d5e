"""Finds the bad frame of a group whose job failed, by halving the group once.

The job's frames are cut in two, each half with its share of every ingredient (lamp-on and lamp-off). Both
are tried; when one can be reduced and the other cannot, the frame is in the other, which is cut again and
tried together with what is known to be good, until one frame is left. When it fails once more together with
those, it is quarantined with the evidence and its group is planned anew without it. A killed worker, a
time-out and other troubles of the machine say nothing about a frame: the try is repeated. A worker that died
by itself counts only when three have died with the same frames.
When both halves fail, or neither does, no single frame is bad and the job stays failed. The products of tries
are thrown away.

Where a search stands is in the ledger, and a restart goes on with it; a try is counted before it starts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from daemon.ledger import decisions, files, marks, products
from daemon.ledger.store import Reader, Tx, placeholders
from daemon.model.decisions import BLAME, of_content
from daemon.model.groups import Setting
from daemon.model.jobs import REMOVE_FIRST, JobSpec, Outcome, digest
from daemon.model.names import staging_path
from daemon.model.rules import TriggerRule
from daemon.model.states import FileState
from daemon.plan.halving import Search
from pipeline.headers.descriptors import Descriptors

DEATHS = 3  # of workers with the same frames: the first ones may be the machine's
_MOST_TRIES = 60  # of one search: 2 to begin with, one for each halving, and some that are repeated


def begin(tx: Tx, job: Any, setting: Setting) -> bool:
    """Start to look for the frame that made this job fail; False when it is pointless, or was done before."""
    group = tx.one("SELECT * FROM frame_group WHERE id = ? AND NOT closed", job["group_id"])
    rule = setting.rules.get(group["rule"]) if group else None
    rows = tx.rows(
        """SELECT i.position, i.frame_id, f.tags, f.descriptors, m.group_id AS own FROM job_input i
        JOIN frame f ON f.id = i.frame_id
        LEFT JOIN membership m ON m.frame_id = i.frame_id AND m.group_id = ?
        WHERE i.job_id = ? ORDER BY i.position""",
        job["group_id"],
        job["id"],
    )
    if rule is None or _searched(tx, job["group_id"], {row["frame_id"] for row in rows}):
        return False
    strata, fixed = _strata(rows, rule)
    search = Search(tuple(p for stratum in strata for p in stratum), fixed=tuple(fixed))
    if not _is_worth_it(search, strata, rule):
        return False
    frames = json.dumps([row["frame_id"] for row in rows])
    tx.run("DELETE FROM search WHERE job_id = ?", job["id"])
    tx.insert(
        "search",
        job_id=job["id"],
        group_id=job["group_id"],
        frames=frames,
        state=search.to_json(),
        tries=0,
        outcome="",
    )
    tx.event("halving_begun", job=job["id"], group=job["group_id"], frames=len(search.suspects))
    return True


def _strata(rows: Sequence[Any], rule: TriggerRule) -> tuple[list[list[int]], list[int]]:
    """(positions of the inputs for each ingredient of the rule, and of those of the group that it joins last;
    positions of what is in every try: sky that was borrowed)."""
    strata: list[list[int]] = [[] for _ in (*rule.ingredients, rule.join)]
    fixed = []
    for row in rows:
        facts, tags = Descriptors.from_json(json.loads(row["descriptors"])), json.loads(row["tags"])
        kinds = [n for n, i in enumerate(rule.ingredients) if row["own"] and i.takes(frozenset(tags), facts)]
        if kinds or (rule.join and not row["own"]):
            strata[kinds[0] if kinds else -1].append(row["position"])
        else:
            fixed.append(row["position"])
    return strata, fixed


def _is_worth_it(search: Search, strata: Sequence[Sequence[int]], rule: TriggerRule) -> bool:
    """True when enough frames are left without the one to blame, and each half can be reduced alone."""
    wanted = [i.at_least for i in rule.ingredients] + [rule.join.at_least if rule.join else 0]
    least = [i.least for i in rule.ingredients] + [1 if rule.join else 0]
    enough = len(search.suspects) > sum(wanted) + 1
    return enough and all(
        len(set(half) & set(stratum)) >= number
        for half in search.halves()
        for stratum, number in zip(strata, least, strict=True)
    )


def _searched(tx: Tx, group: int, frames: set[int]) -> bool:
    """True when these frames, or more of them, have been halved before: once is enough."""
    rows = tx.rows("SELECT frames FROM search WHERE group_id = ? AND outcome <> ''", group)
    return any(frames <= set(json.loads(row["frames"])) for row in rows)


_PENDING = """SELECT s.* FROM search s JOIN job j ON j.id = s.job_id
    WHERE s.outcome = '' AND j.state = 'failed'"""


def pending(db: Reader) -> list[int]:
    """Failed jobs whose search goes on."""
    return [row["job_id"] for row in db.execute(_PENDING)]


def next_try(tx: Tx, skip: Sequence[int] = ()) -> tuple[int, int, JobSpec] | None:
    """(job, number of the try, what to run) of a search that goes on; None when there is none."""
    row = tx.one(f"{_PENDING} AND s.job_id NOT IN ({placeholders(skip)}) ORDER BY s.job_id LIMIT 1", *skip)
    if row is None:
        return None
    job = tx.one("SELECT * FROM job WHERE id = ?", row["job_id"])
    assert job is not None
    if row["tries"] >= _MOST_TRIES:
        _end(tx, job, f"given up after {row['tries']} tries")
        return None
    tries, part = row["tries"] + 1, Search.from_json(row["state"]).part()
    tx.run("UPDATE search SET tries = ? WHERE job_id = ?", tries, row["job_id"])
    spec = JobSpec.from_json(json.loads(job["spec"]))
    parameters = dict(spec.parameters)
    if parameters.get(REMOVE_FIRST) and 0 not in part:  # the first of the sequence is not among them
        parameters[REMOVE_FIRST] = False
    spec = replace(
        spec,
        key=digest([spec.key, "part", part]),
        inputs=tuple(spec.inputs[p] for p in part),
        parameters=parameters,
        attempt=tries,
        group_id=job["group_id"],
    )
    tx.event("halving_try", job=row["job_id"], group=job["group_id"], number=tries, frames=len(part))
    return row["job_id"], tries, replace(spec, staging=staging_path(spec, tries))


def told(tx: Tx, job_id: int, outcome: Outcome, setting: Setting) -> bool:
    """Write down how a try ended, and what follows. False when it has to be tried once more."""
    row = tx.one(f"{_PENDING} AND s.job_id = ?", job_id)
    job = tx.one("SELECT * FROM job WHERE id = ?", job_id)
    if row is None or job is None:  # its group has changed meanwhile
        return True
    if outcome.error.startswith("NotEnoughFrames"):
        _end(tx, job, "a part of the frames is too few to tell")
        return True
    search = Search.from_json(row["state"])
    if outcome.ending == "died" and search.deaths + 1 < DEATHS:
        again = replace(search, deaths=search.deaths + 1)
        tx.run("UPDATE search SET state = ? WHERE job_id = ?", again.to_json(), job_id)
        return False
    answer = search.told(reduced=outcome.ending == "done")
    if isinstance(answer, Search):
        tx.run("UPDATE search SET state = ? WHERE job_id = ?", answer.to_json(), job_id)
    elif isinstance(answer, str):
        _end(tx, job, f"no single frame is to blame: {answer}")
    else:
        _blame(tx, job, row, answer, setting)
    return True


def _end(tx: Tx, job: Any, why: str) -> None:
    tx.run("UPDATE search SET outcome = ? WHERE job_id = ?", why, job["id"])
    tx.run(
        "UPDATE job SET reason = ?, changed = ? WHERE id = ?", f"{job['reason']}; {why}", tx.now, job["id"]
    )
    marks.release(tx, job["id"])
    products.withdraw(tx, job["group_id"])
    tx.event("halving_ended", job=job["id"], group=job["group_id"], outcome=why)


def _blame(tx: Tx, job: Any, search: Any, position: int, setting: Setting) -> None:
    """Quarantine every file of the frame, with the evidence; its group is planned without it."""
    item = JobSpec.from_json(json.loads(job["spec"])).inputs[position]
    frame = tx.one("SELECT frame_id FROM job_input WHERE job_id = ? AND position = ?", job["id"], position)
    assert frame is not None
    others = len(json.loads(search["frames"])) - 1
    evidence = (
        f"to blame for the failure of job {job['id']} ({job['recipe']}): {job['reason']}; found by halving "
        f"its {others + 1} frames in {search['tries']} tries, of which those without it can be reduced"
    )
    request = {
        "request": f"halving-{job['key'][:16]}",
        "action": BLAME,
        "said": item.name,
        "reason": evidence,
        "user": "nirid",
    }
    tx.run("UPDATE search SET outcome = ? WHERE job_id = ?", f"{item.name} is to blame", job["id"])
    tx.event("frame_blamed", job=job["id"], group=job["group_id"], frame=item.name, evidence=evidence)
    for content in tx.rows("SELECT * FROM content WHERE frame_id = ? AND state = 'ready'", frame["frame_id"]):
        decisions.remember(tx, request, of_content(content["sha256"]), f"{item.name} is quarantined")
        files.set_state(tx, content["id"], FileState.QUARANTINED, evidence, setting)
    marks.release(tx, job["id"])
