"""A staged product becomes the product: visible by rename, never half written, finished after any crash.

    plan = write(lambda tx: intend(tx, ...))     # 1. the intent is in the ledger
    move_files(plan)                             # 2. old file kept in superseded/, new one renamed, synced
    write(lambda tx: commit(tx, plan))           # 3. job done, product and calibration recorded

A crash after 1 is finished from the intent: every part of 2 may be done again. The worker has verified
and synced the staged file before it reported.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from daemon.ledger import guarding, jobs, marks, measures, world
from daemon.ledger.held import is_held
from daemon.ledger.products import as_superseded, forget, remake
from daemon.ledger.store import Reader, Tx
from daemon.ledger.wishes import want_nothing
from daemon.model.jobs import JobSpec
from daemon.model.names import staging_path
from daemon.model.publication import Old, PublishPlan
from daemon.model.rules import DEFAULT_POLICY, Policy
from daemon.model.states import JobState
from pipeline.association import CalKind, Candidate
from pipeline.files import disk

_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,63}")
_NIGHT = re.compile(r"\d{8}")


class CalibrationReplaced(Exception):
    """A calibration was replaced at its path while the job ran: the job may have read either."""


def intend(tx: Tx, job_id: int, attempt: int, result: Mapping[str, Any]) -> PublishPlan | None:
    """Choose the names and write the intent; None when this attempt no longer owns the job."""
    job = tx.one("SELECT * FROM job WHERE id = ? AND state = 'running' AND attempts = ?", job_id, attempt)
    if job is None:
        return None
    spec = JobSpec.from_json(json.loads(job["spec"]))
    _check_calibrations(tx, spec)
    name, night = str(result.get("name") or spec.name), spec.night
    if not _NAME.fullmatch(name) or not is_night(night):
        raise ValueError(f"the product cannot be called {night!r}/{name!r}")
    name, final, old = _places(tx, spec, job["group_id"], name, night)
    count = tx.one("SELECT COUNT(*) AS n FROM product WHERE group_id = ?", job["group_id"])
    plan = PublishPlan(
        job=job_id,
        attempt=attempt,
        name=name,
        night=night,
        staged=f"{staging_path(spec, attempt)}.fits",
        final=final,
        sha256=str(result["sha256"]),
        version=(count["n"] if count else 0) + 1,
        old=old,
        result={key: result.get(key) for key in ("quality", "notes", "seconds", "peak_mb", "processor")},
    )
    return _intent(tx, plan)


def is_night(folder: str) -> bool:
    """True of the name of a folder of products."""
    return _NIGHT.fullmatch(folder) is not None


def intend_restoration(tx: Tx, group: int) -> PublishPlan | None:
    """The product of a key that was made before, replaced, and is wanted again takes its place again.

    The same key never runs twice. When its file is no longer kept, the group is planned as a remake.
    """
    row = tx.one(
        """SELECT p.*, j.spec, j.attempts FROM frame_group g JOIN job j ON j.id = g.restore
        JOIN product p ON p.job_id = j.id WHERE g.id = ? AND NOT p.current
        AND NOT EXISTS (SELECT 1 FROM job r WHERE r.group_id = g.id AND r.state = 'running')""",
        group,
    )
    want_nothing(tx, group)
    marks.touch(tx, group)
    if row is None:
        return None
    if not disk.there(os.fsdecode(row["path"])):
        forget(tx, row["id"], "the file of an older version was gone when it was wanted again")
        remake(tx, group)
        return None
    spec = JobSpec.from_json(json.loads(row["spec"]))
    name, final, old = _places(tx, spec, group, row["name"], row["night"])
    plan = PublishPlan(
        job=row["job_id"],
        attempt=row["attempts"],
        name=name,
        night=row["night"],
        staged=os.fsdecode(row["path"]),
        final=final,
        sha256=row["sha256"],
        version=row["version"],
        old=old,
        result={},
        restored=row["id"],
    )
    return _intent(tx, plan)


def intend_withdrawal(tx: Tx, group: int, lost: str = "") -> PublishPlan | None:
    """The product of a group that would be made of other frames now, but cannot be made, is withdrawn.

    lost : why its file is not what was published; the product is made again then
    """
    if not lost:
        want_nothing(tx, group)
    row: Any = tx.one(
        """SELECT p.*, j.spec, j.attempts FROM product p JOIN job j ON j.id = p.job_id
        WHERE p.group_id = ? AND p.current AND NOT EXISTS (SELECT 1 FROM intent i WHERE i.job_id = p.job_id)
        AND NOT EXISTS (SELECT 1 FROM job r WHERE r.group_id = p.group_id AND r.state = 'running')""",
        group,
    )
    if row is None:  # or a product that is being made replaces it, and the group is planned again
        return None
    path = os.fsdecode(row["path"])
    plan = PublishPlan(
        job=row["job_id"],
        attempt=row["attempts"],
        name=row["name"],
        night=row["night"],
        staged="",
        final=path,
        sha256=row["sha256"],
        version=row["version"],
        old=(as_superseded(JobSpec.from_json(json.loads(row["spec"])).products, row["id"], row),),
        result={"lost": lost} if lost else {},
        withdrawn=True,
    )
    return _intent(tx, plan)


def begun(db: Reader) -> list[PublishPlan]:
    """Publications that are not finished."""
    return [PublishPlan.from_json(row["plan"]) for row in db.execute("SELECT plan FROM intent")]


def _intent(tx: Tx, plan: PublishPlan) -> PublishPlan:
    tx.run(
        "INSERT INTO intent (job_id, attempt, plan) VALUES (?, ?, ?)", plan.job, plan.attempt, plan.to_json()
    )
    return plan


def _places(tx: Tx, spec: JobSpec, group: int, name: str, night: str) -> tuple[str, str, tuple[Old, ...]]:
    """(name, final path, files that are replaced). A name that another group holds gets a part of this
    group's id added."""
    ours = tx.rows(
        """SELECT p.* FROM product p JOIN frame_group g ON g.id = p.group_id
        WHERE p.current AND (g.id = ? OR g.heir = ?)""",
        group,
        group,
    )
    folder = Path(spec.products) / night
    others = [row for row in _holders(tx, name, night) if row["id"] not in {o["id"] for o in ours}]
    begun = {PublishPlan.from_json(row["plan"]).final for row in tx.rows("SELECT plan FROM intent")}
    if any(not row["closed"] for row in others) or str(folder / f"{name}.fits") in begun:
        stem, _, suffix = name.rpartition("_")
        name = f"{stem}-{spec.group[:8]}_{suffix}"
    final = str(folder / f"{name}.fits")
    # Products of groups that were merged or emptied are replaced too, by that of the new group.
    old = [as_superseded(spec.products, r["id"], r) for r in (*ours, *(r for r in others if r["closed"]))]
    if os.path.lexists(final) and final not in {o.path for o in old}:
        stranger = {"name": name, "night": night, "path": os.fsencode(final), "version": 1}
        old.append(as_superseded(spec.products, 0, stranger))
    return name, final, tuple(old)


def _check_calibrations(tx: Tx, spec: JobSpec) -> None:
    """Raises CalibrationReplaced unless all are still in use as when the job was planned."""
    for cal in spec.calibrations:
        live = tx.one(
            "SELECT 1 FROM calibration WHERE ident = ? AND path = ? AND removed IS NULL",
            cal.key,
            os.fsencode(cal.path),
        )
        if live is None:
            raise CalibrationReplaced(f"{cal.name} was replaced or withdrawn while the job ran")


def _holders(tx: Tx, name: str, night: str) -> list[Any]:
    return tx.rows(
        """SELECT p.*, g.closed FROM product p JOIN frame_group g ON g.id = p.group_id
        WHERE p.current AND p.name = ? AND p.night = ?""",
        name,
        night,
    )


def commit(tx: Tx, plan: PublishPlan, policy: Policy = DEFAULT_POLICY, *, judge: bool = True) -> None:
    """The job is done: product, calibration and everything that follows from it, in one transaction.

    judge : False for a master of before, whose verdict is among the decisions if there was one
    """
    job = tx.one("SELECT * FROM job WHERE id = ?", plan.job)
    assert job is not None
    if plan.withdrawn:
        _commit_withdrawal(tx, plan, job)
        return
    if not plan.restored:
        _end_attempt(tx, plan, job)
    made = _made(tx, plan, job)
    quality = plan.result.get("quality") or {}
    held = ""
    if made:
        held = guarding.judged(tx, job, quality, plan.name) if judge else is_held(tx, job["key"])
    if held:  # a product like any other, but for others there is none
        made = None
    # Only what is replaced by another of its kind may stay in products that were made with it.
    without = f"{plan.name} is held back" if held else f"{plan.name} has none"
    replaced = f"replaced by {plan.name}" if made else without
    superseded: list[Candidate] = []
    for old in plan.old:
        row = tx.one("SELECT j.key FROM product p JOIN job j ON j.id = p.job_id WHERE p.id = ?", old.product)
        _record_kept(tx, old)
        if row:
            superseded += tx.cals.remove_ident(row["key"], replaced, now=tx.now)
    if not made:
        for gone in superseded:
            marks.touch_withdrawn(tx, gone.ident)
    _record(tx, plan, job)
    if made:
        marks.touch_users(tx, tx.cals.add(made, now=tx.now), policy, superseded)
    marks.release(tx, plan.job)
    tx.run("UPDATE frame_group SET reason = 'product is current' WHERE id = ?", job["group_id"])
    marks.touch(tx, job["group_id"])  # meanwhile another product may have become right
    tx.run("DELETE FROM intent WHERE job_id = ?", plan.job)
    tx.event(
        "product_restored" if plan.restored else "job_done",
        job=plan.job,
        recipe=job["recipe"],
        group=job["group_id"],
        product=plan.final,
        seconds=plan.result.get("seconds"),
        notes=list(plan.result.get("notes") or []),
        processor=plan.result.get("processor") or "",
    )


def _end_attempt(tx: Tx, plan: PublishPlan, job: Any) -> None:
    """The attempt that made it has ended well, and its job with it."""
    seconds, peak = plan.result.get("seconds"), plan.result.get("peak_mb")
    jobs.move(tx, plan.job, job["state"], JobState.DONE, "published")
    tx.run("UPDATE job SET seconds = ?, peak_mb = ?, error = '' WHERE id = ?", seconds, peak, plan.job)
    tx.run(
        "UPDATE attempt SET outcome = 'done', finished = ?, seconds = ? WHERE job_id = ? AND n = ?",
        tx.now,
        seconds,
        plan.job,
        plan.attempt,
    )


def _record(tx: Tx, plan: PublishPlan, job: Any) -> None:
    """The product is in use: a new one, or one that has taken its place again."""
    if plan.restored:
        tx.run(
            "UPDATE product SET current = 1, path = ?, name = ?, published = ? WHERE id = ?",
            os.fsencode(plan.final),
            plan.name,
            tx.now,
            plan.restored,
        )
    else:
        quality = plan.result.get("quality") or {}
        product = tx.insert(
            "product",
            job_id=plan.job,
            group_id=job["group_id"],
            name=plan.name,
            night=plan.night,
            path=os.fsencode(plan.final),
            sha256=plan.sha256,
            version=plan.version,
            current=1,
            published=tx.now,
            notes=json.dumps(plan.result.get("notes") or []),
            quality=json.dumps(quality),
        )
        measures.record_product(tx, product, plan.job, quality, job["makes_key"], job["ut"])


def _record_kept(tx: Tx, old: Old, lost: str = "its file was gone, or damaged, when it was replaced") -> None:
    """Record where the superseded product is kept; nowhere when its file was gone or damaged.
    Raises OSError."""
    if disk.there(old.kept):
        tx.run("UPDATE product SET current = 0, path = ? WHERE id = ?", os.fsencode(old.kept), old.product)
    else:
        forget(tx, old.product, lost)


def _commit_withdrawal(tx: Tx, plan: PublishPlan, job: Any) -> None:
    lost = plan.result.get("lost")
    for old in plan.old:
        _record_kept(tx, old, str(lost))
    row = tx.one("SELECT COALESCE(heir, id) FROM frame_group WHERE id = ?", job["group_id"])
    group = row[0] if row else 0
    if lost:
        remake(tx, group)
    else:  # frames that were waited for because the product had them can be missing now
        marks.touch(tx, group)
    why = lost or f"{plan.name} was made of frames that are not its group's any more"
    for gone in tx.cals.remove_ident(job["key"], why, now=tx.now):
        marks.touch_withdrawn(tx, gone.ident)
    tx.run("DELETE FROM intent WHERE job_id = ?", plan.job)
    tx.event("product_withdrawn", job=plan.job, group=job["group_id"], product=plan.final, reason=why)


def _made(tx: Tx, plan: PublishPlan, job: Any) -> Candidate | None:
    """The calibration that the product is, for the store; None for science, and for a standard star whose
    image gives no zero point after all."""
    if not job["makes"]:
        return None
    made = replace(
        world.candidate_from_json(job["makes"]),
        name=plan.name,
        ident=job["key"],
        path=plan.final,
        sha256=plan.sha256,
        pending=False,
    )
    if made.kind is not CalKind.ZERO_POINT:
        return made
    quality = plan.result.get("quality") or {}
    if plan.restored:
        row = tx.one("SELECT quality FROM product WHERE id = ?", plan.restored)
        quality = json.loads(row["quality"]) if row else {}
    return made if "MAGZPT" in quality and "ZPIMAGE" not in quality else None
