"""A staged product becomes the product: visible by rename, torn never, finished after any crash.

    plan = write(lambda tx: intend(tx, ...))     # 1. the intent is in the ledger
    move_files(plan)                             # 2. old file kept in superseded/, new one renamed, synced
    write(lambda tx: commit(tx, plan))           # 3. job done, product and calibration recorded

A crash after 1 is finished from the intent: every part of 2 may be done again. The worker has verified
and synced the staged file before it reported.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from daemon import groups, planning
from daemon.jobspec import JobSpec
from daemon.ledger import Tx
from daemon.states import JobState
from daemon.triggers import DEFAULT_POLICY, Policy

STAGING = ".staging"
_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,63}")
_NIGHT = re.compile(r"\d{8}")


class StagedFileGone(OSError):
    """There is neither the staged file nor the published one."""


class CalibrationReplaced(Exception):
    """A calibration was replaced at its path while the job ran: nobody knows which one was read."""


@dataclass(frozen=True)
class Old:
    """A file that gives way. product : its row, 0 for a file that the ledger does not know."""

    product: int
    path: str
    kept: str  # where it stays, under superseded/


@dataclass(frozen=True)
class PublishPlan:
    """All that is needed to finish, written down before anything is touched."""

    job: int
    attempt: int
    name: str
    night: str
    staged: str
    final: str
    sha256: str
    version: int
    old: tuple[Old, ...]
    result: Mapping[str, Any]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PublishPlan:
        values = json.loads(text)
        return cls(**{**values, "old": tuple(Old(**old) for old in values["old"])})


def intend(tx: Tx, job_id: int, attempt: int, result: Mapping[str, Any]) -> PublishPlan | None:
    """Decide on names and write the intent; None when this attempt does not own the job any more."""
    job = tx.one("SELECT * FROM job WHERE id = ? AND state = 'running' AND attempts = ?", job_id, attempt)
    if job is None:
        return None
    spec = JobSpec.from_json(json.loads(job["spec"]))
    _check_calibrations(tx, spec, job_id, attempt)
    name, night = str(result.get("name") or spec.name), spec.night
    if not _NAME.fullmatch(name) or not _NIGHT.fullmatch(night):
        raise ValueError(f"the product cannot be called {night!r}/{name!r}")
    ours = tx.rows(
        """SELECT p.* FROM product p JOIN frame_group g ON g.id = p.group_id
        WHERE p.current AND (g.id = ? OR g.heir = ?)""",
        job["group_id"],
        job["group_id"],
    )
    others = [row for row in _holders(tx, name, night) if row["id"] not in {o["id"] for o in ours}]
    if any(not row["closed"] for row in others):
        stem, _, suffix = name.rpartition("_")
        name = f"{stem}-{spec.group[:8]}_{suffix}"
    folder = Path(spec.products) / night
    final = str(folder / f"{name}.fits")
    old = [_give_way(tx, spec.products, row["id"], row) for row in (*ours, *_closed(others))]
    if os.path.lexists(final) and final not in {o.path for o in old}:
        old.append(
            _give_way(tx, spec.products, 0, {"name": name, "night": night, "path": os.fsencode(final)})
        )
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
        old=tuple(old),
        result={key: result.get(key) for key in ("quality", "notes", "seconds", "peak_mb", "png")},
    )
    tx.run("INSERT INTO intent (job_id, attempt, plan) VALUES (?, ?, ?)", job_id, attempt, plan.to_json())
    return plan


def _check_calibrations(tx: Tx, spec: JobSpec, job: int, attempt: int) -> None:
    started = tx.one("SELECT started FROM attempt WHERE job_id = ? AND n = ?", job, attempt)
    for cal in spec.calibrations:
        gone = tx.one(
            "SELECT reason FROM calibration WHERE ident = ? AND path = ? AND removed >= ?",
            cal.key,
            os.fsencode(cal.path),
            started["started"] if started else 0.0,
        )
        if gone:
            raise CalibrationReplaced(f"{cal.name} was {gone['reason']} while the job ran")


def staging_path(spec: JobSpec, attempt: int) -> str:
    """Where an attempt's product is staged, without ".fits"."""
    return str(Path(spec.products) / STAGING / f"{spec.key}.{attempt}")


def _holders(tx: Tx, name: str, night: str) -> list[Any]:
    return tx.rows(
        """SELECT p.*, g.closed FROM product p JOIN frame_group g ON g.id = p.group_id
        WHERE p.current AND p.name = ? AND p.night = ?""",
        name,
        night,
    )


def _closed(rows: list[Any]) -> list[Any]:
    """Products of groups that are no more: what was regrouped takes their place."""
    return [row for row in rows if row["closed"]]


def _give_way(tx: Tx, products: str, product: int, row: Any) -> Old:
    count = tx.one(
        "SELECT COUNT(*) AS n FROM product WHERE name = ? AND night = ? AND NOT current",
        row["name"],
        row["night"],
    )
    folder = Path(products) / row["night"] / "superseded"
    number = (count["n"] if count else 0) + 1
    while os.path.lexists(kept := folder / f"{row['name']}.v{number:04d}.fits"):
        number += 1
    return Old(product, os.fsdecode(row["path"]), str(kept))


def move_files(plan: PublishPlan, at: Callable[[str], None] = lambda point: None) -> None:
    """Make the new file visible and keep the old ones. May be called again after any interruption.

    at : called with the name of each point, for tests that stop there
    """
    final, staged = Path(plan.final), Path(plan.staged)
    if not staged.exists() and not _is_published(plan):
        raise StagedFileGone(errno.ENOENT, "the staged product is gone", plan.staged)
    _make_folder(final.parent)
    if staged.exists():
        for old in plan.old:
            _keep(Path(old.path), Path(old.kept))
            at("kept")
        preview = staged.with_suffix(".png")
        if preview.exists():
            os.replace(preview, final.with_suffix(".png"))
            at("preview")
        os.replace(staged, final)
        at("renamed")
    for old in plan.old:
        if old.path != plan.final:
            Path(old.path).unlink(missing_ok=True)
            Path(old.path).with_suffix(".png").unlink(missing_ok=True)
            at("unlinked")
    for folder in dict.fromkeys([final.parent, *(Path(old.path).parent for old in plan.old)]):
        _sync(folder)
    at("synced")


def _keep(old: Path, kept: Path) -> None:
    """Hard link, so that the product is at no time without its file; a copy where links are refused."""
    _make_folder(kept.parent)
    if not old.exists() or (kept.exists() and kept.samefile(old)):
        return
    try:
        os.link(old, kept)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
        temporary = kept.with_name(f".{kept.name}.tmp")
        shutil.copyfile(old, temporary)
        _sync(temporary)
        os.replace(temporary, kept)
    _sync(kept.parent)


def _is_published(plan: PublishPlan) -> bool:
    """True when the rename was done before an interruption."""
    with contextlib.suppress(FileNotFoundError), open(plan.final, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == plan.sha256
    return False


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def commit(tx: Tx, plan: PublishPlan, policy: Policy = DEFAULT_POLICY) -> None:
    """The job is done: product, calibration and everything that follows from it, in one transaction."""
    job = tx.one("SELECT * FROM job WHERE id = ?", plan.job)
    assert job is not None
    result = plan.result
    planning.move(tx, plan.job, job["state"], JobState.DONE, "published")
    tx.run(
        "UPDATE job SET seconds = ?, peak_mb = ?, error = '' WHERE id = ?",
        result.get("seconds"),
        result.get("peak_mb"),
        plan.job,
    )
    tx.run(
        "UPDATE attempt SET outcome = 'done', finished = ?, seconds = ? WHERE job_id = ? AND n = ?",
        tx.now,
        result.get("seconds"),
        plan.job,
        plan.attempt,
    )
    replaced = f"replaced by {plan.name}"
    for old in plan.old:
        row = tx.one("SELECT j.key FROM product p JOIN job j ON j.id = p.job_id WHERE p.id = ?", old.product)
        tx.run("UPDATE product SET current = 0, path = ? WHERE id = ?", os.fsencode(old.kept), old.product)
        if row:
            tx.cals.remove_ident(row["key"], replaced, now=tx.now)
    tx.insert(
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
        notes=json.dumps(result.get("notes") or []),
        quality=json.dumps(result.get("quality") or {}),
    )
    if job["makes"]:
        made = replace(
            planning.candidate_from_json(job["makes"]),
            name=plan.name,
            ident=job["key"],
            path=plan.final,
            sha256=plan.sha256,
            pending=False,
        )
        groups.touch_users(tx, tx.cals.add(made, now=tx.now), policy)
    groups.release(tx, plan.job)
    tx.run("UPDATE frame_group SET reason = 'product is current' WHERE id = ?", job["group_id"])
    tx.run("DELETE FROM intent WHERE job_id = ?", plan.job)
    tx.event(
        "job_done",
        job=plan.job,
        recipe=job["recipe"],
        group=job["group_id"],
        product=plan.final,
        seconds=result.get("seconds"),
        notes=list(result.get("notes") or []),
    )
