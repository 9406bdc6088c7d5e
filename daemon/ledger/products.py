"""Products that are replaced, taken back, lost or due to be removed, in the ledger."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.ledger import decisions, marks
from daemon.ledger.store import Reader, Tx
from daemon.ledger.wishes import want_gone, want_nothing
from daemon.model.decisions import ACCEPT, of_product
from daemon.model.jobs import JobSpec
from daemon.model.names import superseded_path
from daemon.model.publication import DAMAGED, Old
from daemon.model.records import ProductRecord


def used_by(db: Reader, job: int) -> list[str]:
    """Paths of our own products that a job is to be calibrated with."""
    rows = db.execute(
        """SELECT p.path FROM job_calibration c JOIN job j ON j.key = c.ident
        JOIN product p ON p.job_id = j.id WHERE c.job_id = ? AND p.current""",
        (job,),
    )
    return [os.fsdecode(row[0]) for row in rows]


@dataclass(frozen=True)
class Current:
    """A product in use. sha256 : of its file, when it was published"""

    path: str
    sha256: str
    group: int


def current(db: Reader) -> list[Current]:
    """All products in use."""
    rows = db.execute("SELECT path, sha256, group_id FROM product WHERE current")
    return [Current(os.fsdecode(r["path"]), r["sha256"], r["group_id"]) for r in rows]


def current_at(db: Reader, path: str) -> Current | None:
    """The product in use at a path."""
    sql = "SELECT sha256, group_id FROM product WHERE path = ? AND current"
    row = db.execute(sql, (os.fsencode(path),)).fetchone()
    return Current(path, row["sha256"], row["group_id"]) if row else None


def withdraw(tx: Tx, group: int) -> int:
    """Have a product taken away that holds frames which are out, when it cannot be made without them now.

    Frames that the ledger does not know (it was made anew without them) are not counted as bad.
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
    accepted = decisions.standing(tx, of_product(product["key"]))
    if not spoilt or (accepted and accepted["action"] == ACCEPT):
        return 0
    return want_gone(tx, group)


def remake(tx: Tx, group: int) -> None:
    """What was made before is to be made again, under a new key."""
    want_nothing(tx, group)
    tx.run("UPDATE frame_group SET remake = remake + 1 WHERE id = ?", group)
    marks.touch(tx, group)


def as_superseded(products: str, product: int, row: Mapping[str, Any]) -> Old:
    """Note where the file of a superseded product is kept."""
    for number in itertools.count(row["version"]):
        kept = superseded_path(products, row["night"], row["name"], number)
        if not os.path.lexists(kept) and not os.path.lexists(kept + DAMAGED):
            break
    return Old(product, os.fsdecode(row["path"]), kept, row["sha256"] if product else "")


def set_aside(tx: Tx, products: str, product: ProductRecord) -> Old:
    """A current product is current no more; says where its file is to be moved. products : the folder"""
    row = tx.one("SELECT * FROM product WHERE id = ?", product.id)
    assert row is not None
    old = as_superseded(products, product.id, dict(row))
    tx.run("UPDATE product SET current = 0, path = ? WHERE id = ?", os.fsencode(old.kept), product.id)
    return old


def forget(tx: Tx, product: int, why: str) -> None:
    """Forget a product whose file is nowhere; its job stays in the ledger."""
    row = tx.one("SELECT job_id, path FROM product WHERE id = ?", product)
    if row is not None:
        tx.run("DELETE FROM product WHERE id = ?", product)
        tx.event("product_lost", job=row["job_id"], product=os.fsdecode(row["path"]), reason=why)


def forget_kept(tx: Tx, kept: str) -> None:
    """A product was to be kept there, and nothing of it is."""
    for row in tx.rows("SELECT id FROM product WHERE path = ? AND NOT current", os.fsencode(kept)):
        forget(tx, row["id"], "its file was gone when it was rejected, or is not kept any more")


DAY = 86400.0


def to_remove(db: Reader) -> list[str]:
    """Paths of products that were given up, and whose files may still be there."""
    return [os.fsdecode(row["path"]) for row in db.execute("SELECT path FROM removal")]


def removed(tx: Tx) -> None:
    """The files of all that were given up are gone."""
    tx.run("DELETE FROM removal")


def give_up(tx: Tx, keep_versions: int, days: float) -> int:
    """Forget older superseded products, except the newest versions and what a person has accepted.

    Their files are still to be removed. Returns how many.
    """
    count = 0
    for row in _superseded(tx, keep_versions, days):
        decision = decisions.standing(tx, of_product(row["key"]))
        if decision is not None and decision["action"] == ACCEPT:
            continue
        tx.insert("removal", path=row["path"])
        tx.run("DELETE FROM product WHERE id = ?", row["id"])
        tx.event("product_removed", product=os.fsdecode(row["path"]), job=row["job_id"])
        count += 1
    return count


def _superseded(tx: Tx, keep_versions: int, days: float) -> list[Any]:
    """Old enough since a later one was published, and used by no current product."""
    return tx.rows(
        """WITH old AS (
            SELECT p.*, j.key, ROW_NUMBER() OVER (PARTITION BY p.group_id ORDER BY p.version DESC) AS nth,
            COALESCE((SELECT MIN(l.published) FROM product l
                WHERE l.group_id = p.group_id AND l.version > p.version), p.published) AS replaced
            FROM product p JOIN job j ON j.id = p.job_id WHERE NOT p.current)
        SELECT * FROM old o WHERE nth > ? AND replaced < ?
        AND NOT EXISTS (SELECT 1 FROM job_calibration c JOIN product p ON p.job_id = c.job_id
            WHERE c.ident = o.key AND p.current)
        AND NOT EXISTS (SELECT 1 FROM calibration c WHERE c.ident = o.key AND c.removed IS NULL)
        AND NOT EXISTS (SELECT 1 FROM frame_group g WHERE g.restore = o.job_id)
        AND NOT EXISTS (SELECT 1 FROM job j WHERE j.group_id = o.group_id AND j.state = 'running')
        AND NOT EXISTS (SELECT 1 FROM intent)""",
        keep_versions,
        tx.now - days * DAY,
    )
