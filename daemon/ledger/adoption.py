"""Takes into a new ledger what is found on disk, and answers what it has already.

`upkeep.rebuild` and `upkeep.adopt` decide what is taken; a product becomes a job that is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daemon.ledger.store import Reader, Tx, placeholders
from daemon.ledger.world import candidate_to_json
from daemon.model.decisions import BLAME
from daemon.model.jobs import BACKLOG, JobSpec, digest
from pipeline.association import CalibrationKey, Candidate


@dataclass(frozen=True)
class OnRecord:
    """A product. number : its own; key : of its job; published : seconds since the epoch"""

    number: int
    job: int
    group: int
    key: str
    name: str
    night: str
    path: str
    sha256: str
    version: int
    published: float


@dataclass(frozen=True)
class Frame:
    """An exposure by one of its files. path : "" when no file of it is on record; ut : ISO"""

    number: int
    path: str
    sha256: str
    data_sha: str
    facts: str
    ut: str


# -- what is on record ------------------------------------------------------------------------

_PRODUCT = "SELECT p.*, j.key FROM product p JOIN job j ON j.id = p.job_id"


def _on_record(row: Any) -> OnRecord:
    same = {name: row[name] for name in ("key", "name", "night", "sha256", "version", "published")}
    path = os.fsdecode(row["path"])
    return OnRecord(row["id"], job=row["job_id"], group=row["group_id"], path=path, **same)


def products(db: Reader) -> dict[str, OnRecord]:
    """Path -> product, of all versions that are kept."""
    found = (_on_record(row) for row in db.execute(_PRODUCT))
    return {product.path: product for product in found}


def decisions(db: Reader) -> set[tuple[str, str]]:
    """(request, subject) of everything that was decided."""
    return {(row[0], row[1]) for row in db.execute("SELECT request, subject FROM decision")}


def product_of(tx: Tx, key: str) -> OnRecord | None:
    """The product of the job of this key."""
    row = tx.one(f"{_PRODUCT} WHERE j.key = ?", key)
    return _on_record(row) if row else None


def product_of_bytes(tx: Tx, sha256: str) -> OnRecord | None:
    """The product whose file has these bytes."""
    row = tx.one(f"{_PRODUCT} WHERE p.sha256 = ?", sha256)
    return _on_record(row) if row else None


def current_of(tx: Tx, group: int) -> list[OnRecord]:
    """What is in use of a group."""
    return [_on_record(row) for row in tx.rows(f"{_PRODUCT} WHERE p.group_id = ? AND p.current", group)]


def group_in_use(tx: Tx, key: str) -> int | None:
    """The group of a product in use, by the key of its job."""
    row = tx.one(f"{_PRODUCT} WHERE p.current AND j.key = ?", key)
    return int(row["group_id"]) if row else None


def groups_of_job(tx: Tx, key: str) -> list[int]:
    return [row["group_id"] for row in tx.rows("SELECT group_id FROM job WHERE key = ?", key)]


def versions(tx: Tx, group: int) -> set[int]:
    """The numbers of the products of a group."""
    return {row[0] for row in tx.rows("SELECT version FROM product WHERE group_id = ?", group)}


def kept(tx: Tx) -> list[str]:
    """Paths of products that are kept and not in use."""
    return [os.fsdecode(row["path"]) for row in tx.rows("SELECT path FROM product WHERE NOT current")]


def registered(tx: Tx) -> list[Mapping[str, Any]]:
    """Files that a person registered where they lie, as `model.decisions.record_to_json` has them."""
    rows = tx.rows("SELECT more FROM decision WHERE more LIKE '%\"record\"%' ORDER BY id")
    return [json.loads(row["more"])["record"] for row in rows]


def was_blamed(tx: Tx, subject: str) -> bool:
    """True when it was once found to be the frame that made a job fail."""
    return tx.one("SELECT 1 FROM decision WHERE subject = ? AND action = ?", subject, BLAME) is not None


def exposures(tx: Tx, label: str, data_sha: str) -> list[int]:
    """The numbers of the frames that are this exposure."""
    rows = tx.rows("SELECT id FROM frame WHERE label = ? AND data_sha = ?", label, data_sha)
    return [row["id"] for row in rows]


_FRAME = """SELECT c.sha256, c.facts, c.frame_id, f.data_sha, f.descriptors, s.path,
    json_extract(f.descriptors, '$.ut_datetime') AS ut
    FROM content c JOIN frame f ON f.id = c.frame_id
    LEFT JOIN sighting s ON s.content_id = c.id AND s.current"""


def frame_of(tx: Tx, sha256: str, name: str) -> Frame | None:
    """The frame of a file with these bytes, else the one of that name."""
    row = tx.one(f"{_FRAME} WHERE c.sha256 = ? LIMIT 1", sha256) or tx.one(
        f"{_FRAME} WHERE f.name = ? AND c.state <> 'superseded' LIMIT 1", name
    )
    if row is None:
        return None
    path = os.fsdecode(row["path"]) if row["path"] else ""
    return Frame(row["frame_id"], path, row["sha256"], row["data_sha"], row["facts"], row["ut"])


# -- groups -----------------------------------------------------------------------------------


def group_of(tx: Tx, frames: Sequence[int], rules: Sequence[str], ident: str) -> int | None:
    """The open group of these rules whose GROUPID is `ident`, else the one that most of the frames are in."""
    marks = placeholders(frames)
    rows = tx.rows(
        f"""SELECT g.id, g.rule, g.key, COUNT(*) AS n
        FROM membership m JOIN frame_group g ON g.id = m.group_id
        WHERE m.frame_id IN ({marks}) AND g.rule IN ({placeholders(rules)}) AND NOT g.closed GROUP BY g.id""",
        *frames,
        *rules,
    )
    exposed = [
        (r["label"], r["data_sha"])
        for r in tx.rows(f"SELECT label, data_sha FROM frame WHERE id IN ({marks})", *frames)
    ]

    def order(row: Any) -> tuple[bool, int, int]:
        named = any(digest([row["rule"], row["key"], one], 16) == ident for one in exposed)
        return (named, row["n"], -row["id"])

    return int(max(rows, key=order)["id"]) if rows else None


def closed_group(tx: Tx, rule: str, ident: str, ut: float, written: float) -> int:
    """A group without frames, for a product whose raw files are not here. ut, written : seconds"""
    zero = {"arrivals": 0, "touched": 0, "settled": 1, "remake": 0, "better": "", "exposure": 0.0}
    return tx.insert(
        "frame_group",
        rule=rule,
        rank=0,
        key=ident,
        first_ut=ut,
        last_ut=ut,
        program="",
        pool="",
        offers="",
        last_arrival=written,
        closed=1,
        reason="its raw frames are not in the drop folders any more",
        **zero,
    )


def is_closed(tx: Tx, group: int) -> bool:
    row = tx.one("SELECT closed FROM frame_group WHERE id = ?", group)
    assert row is not None
    return bool(row["closed"])


def note_remakes(tx: Tx, group: int, times: int) -> None:
    """The product of a group was made again so often, at least."""
    tx.run("UPDATE frame_group SET remake = MAX(remake, ?) WHERE id = ?", times, group)


# -- products ---------------------------------------------------------------------------------


def lies_at(tx: Tx, product: int, path: str) -> None:
    """A product is kept at a path, and not in use."""
    tx.run("UPDATE product SET path = ?, current = 0 WHERE id = ?", os.fsencode(path), product)


def use_no_longer(tx: Tx, job: int) -> None:
    """The product of a job is not in use."""
    tx.run("UPDATE product SET current = 0 WHERE job_id = ?", job)


def begin_job(
    tx: Tx,
    spec: JobSpec,
    group: int,
    frames: Sequence[int | None],
    made: Candidate | None,
    *,
    remake: int,
    ut: float,
    written: float,
) -> int:
    """The job that made a product, running, as `publications.commit` wants it; returns its number.

    A job that a backup has as planned is used. frames : of its inputs, None for those that are not known
    made : the calibration that it is; ut : of its latest input; written : when; seconds since the epoch
    """
    known = tx.one("SELECT id FROM job WHERE key = ?", spec.key)
    values = {
        "group_id": group,
        "recipe": spec.recipe,
        "version": spec.recipe_version,
        "state": "running",
        "reason": "",
        "ut": ut,
        "spec": json.dumps(spec.to_json()),
        "makes": candidate_to_json(made) if made else "",
        "makes_key": str(CalibrationKey.of(made.kind, made.facts)) if made else "",
        "remake": remake,
        "planned_at": written,
        "changed": written,
        "attempts": 1,
    }
    if known is None:
        more = {"deaths": 0, "interruptions": 0, "error": "", "priority": BACKLOG}
        job = tx.insert("job", key=spec.key, **values, **more)
    else:
        job = known["id"]
        tx.run(f"UPDATE job SET {', '.join(f'{n} = ?' for n in values)} WHERE id = ?", *values.values(), job)
        for table in ("attempt", "job_input", "job_calibration", "dependency"):
            tx.run(f"DELETE FROM {table} WHERE job_id = ?", job)
    tx.insert("attempt", job_id=job, n=1, started=written, outcome="", error="")
    for position, frame in enumerate(frames):
        if frame is not None:
            sha256 = spec.inputs[position].file_sha
            tx.insert("job_input", job_id=job, frame_id=frame, position=position, sha256=sha256)
    for cal in spec.calibrations:
        tx.insert("job_calibration", job_id=job, role=cal.role, ident=cal.key, name=cal.name)
    return job
