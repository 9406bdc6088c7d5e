"""What a person asks of one group, job or product."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import Any

from daemon.ledger.questions import GROUPS, group_state, iso
from daemon.ledger.store import Reader
from daemon.model.records import JobRecord, ProductRecord

_PRODUCTS = "SELECT p.*, j.key, j.spec FROM product p JOIN job j ON j.id = p.job_id"


# -- groups -----------------------------------------------------------------------------------


def group(db: Reader, number: int) -> dict[str, Any]:
    """A group in a few lines: {"group", "rule", "state", "since", "reason", "waits_for", ...}.

    members, usable : how many frames it has; product : as `in_a_line` tells it, None when there is none
    heir : the group that it was merged into
    """
    row = db.execute(f"{GROUPS} WHERE g.id = ?", (number,)).fetchone()
    job = next(
        iter(_jobs(db, "group_id = ? AND state <> 'dropped' ORDER BY changed DESC, id DESC", number)), None
    )
    product = current_product(db, number)
    usable = db.execute(
        "SELECT SUM(f.usable) FROM membership m JOIN frame f ON f.id = m.frame_id WHERE m.group_id = ?",
        (number,),
    ).fetchone()[0]
    open_job = job if job and job.state in ("planned", "waiting", "running", "failed") else None
    return {
        "group": number,
        "rule": row["rule"],
        "state": group_state(row),
        "since": iso(job.changed if job else row["last_arrival"]),
        "reason": (open_job.reason if open_job else "") or row["reason"] or _not_yet(row),
        "waits_for": waits_for(db, open_job) if open_job else [],
        "members": row["n"],
        "usable": int(usable or 0),
        "first": iso(row["first_ut"]),
        "last": iso(row["last_ut"]),
        "last_arrival": iso(row["last_arrival"]),
        "better": row["better"],
        "heir": row["heir"],
        "product": in_a_line(product) if product else None,
    }


def _not_yet(row: sqlite3.Row) -> str:
    if row["closed"]:
        return f"merged into group {row['heir']}" if row["heir"] else "it has no frames any more"
    return "more frames may come: it has not been quiet for long enough" if not row["settled"] else ""


def frames_of_group(db: Reader, group: int) -> list[tuple[str, float]]:
    """(name, when it was taken in seconds since the epoch) of each."""
    sql = "SELECT name, ut FROM frame f JOIN membership m ON m.frame_id = f.id WHERE group_id = ?"
    return [(row["name"], row["ut"]) for row in db.execute(sql, (group,))]


# -- jobs -------------------------------------------------------------------------------------


def job(db: Reader, number: int) -> JobRecord:
    """Raises IndexError when there is none."""
    return _jobs(db, "id = ?", number)[0]


def jobs_of_group(db: Reader, group: int, most: int) -> list[JobRecord]:
    """The latest change first."""
    return _jobs(db, "group_id = ? ORDER BY changed DESC, id DESC LIMIT ?", group, most)


def job_before(db: Reader, job: JobRecord) -> JobRecord | None:
    """What had been done for a group, and for those merged into it, when this job came."""
    of_group = "group_id IN (SELECT id FROM frame_group WHERE id = ? OR heir = ?)"
    where = f"{of_group} AND state = 'done' AND id < ? AND spec <> '' ORDER BY id DESC LIMIT 1"
    return next(iter(_jobs(db, where, job.group, job.group, job.id)), None)


def waits_for(db: Reader, job: JobRecord) -> list[str]:
    """What a job waits for, in words."""
    if job.state == "planned":
        return ["a free worker"]
    rows = db.execute(
        """SELECT p.id, p.recipe, p.state, p.group_id FROM dependency d
        JOIN job p ON p.id = d.producer_id WHERE d.job_id = ?""",
        (job.id,),
    )
    made = [f"job {r['id']}, {r['recipe']} of group {r['group_id']}: {r['state']}" for r in rows]
    return made or (job.reason.split("; ") if job.state == "waiting" else [])


def attempts(db: Reader, job: int) -> list[dict[str, Any]]:
    """n, started (ISO), outcome, seconds, error of each, in order."""
    rows = db.execute("SELECT * FROM attempt WHERE job_id = ? ORDER BY n", (job,))
    return [
        {"n": row["n"], "started": iso(row["started"]), "outcome": row["outcome"] or "running"}
        | {"seconds": row["seconds"], "error": row["error"]}
        for row in rows
    ]


def _jobs(db: Reader, where: str, *values: Any) -> list[JobRecord]:
    return [
        JobRecord(
            id=row["id"],
            key=row["key"],
            group=row["group_id"],
            recipe=row["recipe"],
            version=row["version"],
            state=row["state"],
            reason=row["reason"],
            spec=_spec(row),
            remake=row["remake"],
            attempts=row["attempts"],
            error=row["error"],
            seconds=row["seconds"],
            changed=row["changed"],
        )
        for row in db.execute(f"SELECT * FROM job WHERE {where}", values).fetchall()
    ]


def _spec(row: sqlite3.Row) -> dict[str, Any]:
    return json.loads(row["spec"]) if row["spec"] else {}


# -- products ---------------------------------------------------------------------------------


def product(db: Reader, number: int) -> ProductRecord:
    """Raises IndexError when there is none."""
    return _products(db, "p.id = ?", number)[0]


def current_product(db: Reader, group: int) -> ProductRecord | None:
    """What a group has made, as it is now."""
    return next(iter(_products(db, "p.group_id = ? AND p.current", group)), None)


def product_of_job(db: Reader, job: int) -> ProductRecord | None:
    """What a job has made, current or not."""
    return next(iter(_products(db, "p.job_id = ?", job)), None)


def product_meant(db: Reader, kind: str, number: int) -> ProductRecord | None:
    """The product that a person means by a product, a group or a job; of a group the current one, else the
    last that was rejected."""
    column = {"product": "p.id", "group": "p.group_id", "job": "p.job_id"}[kind]
    return next(
        iter(_products(db, f"{column} = ? ORDER BY p.current DESC, p.version DESC LIMIT 1", number)), None
    )


def products_of_frame(db: Reader, frame: int | None, sha256: str) -> list[ProductRecord]:
    """What was made of an exposure, or with the calibration of these bytes: current ones first."""
    where = """p.job_id IN (SELECT job_id FROM job_input WHERE frame_id = ?)
        OR p.job_id IN (SELECT job_id FROM job_calibration WHERE ident = ?)
        ORDER BY p.current DESC, p.published DESC"""
    return _products(db, where, frame, sha256)


def in_a_line(product: ProductRecord) -> dict[str, Any]:
    """{"product", "path", "version", "current", "published"} for JSON."""
    return {
        "product": product.name,
        "path": product.path,
        "version": product.version,
        "current": product.current,
        "published": iso(product.published),
    }


def _products(db: Reader, where: str, *values: Any) -> list[ProductRecord]:
    return [
        ProductRecord(
            id=row["id"],
            job=row["job_id"],
            key=row["key"],
            spec=_spec(row),
            group=row["group_id"],
            name=row["name"],
            night=row["night"],
            path=os.fsdecode(row["path"]),
            sha256=row["sha256"],
            version=row["version"],
            current=bool(row["current"]),
            published=row["published"],
            notes=json.loads(row["notes"]),
            quality=json.loads(row["quality"]),
        )
        for row in db.execute(f"{_PRODUCTS} WHERE {where}", values).fetchall()
    ]
