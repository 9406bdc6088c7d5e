"""What is to become of the product of a group: it is to be removed, or an earlier one is to come back.

The column `frame_group.restore` tells it: NULL is no wish, 0 removes it, n brings back the product of job n.
`publications` does it.
"""

from __future__ import annotations

from dataclasses import dataclass

from daemon.ledger.store import Reader, Tx


@dataclass(frozen=True)
class Wish:
    """back : the product of an earlier job is to take its place again; else the current one is to go"""

    group: int
    back: bool


def want_back(tx: Tx, group: int, job: int) -> int:
    """The product that this job made is to be the current one again. Returns 1 when that is new."""
    return _want(tx, group, job)


def want_gone(tx: Tx, group: int) -> int:
    """The current product is to be used no longer. Returns 1 when that is new."""
    return _want(tx, group, 0)


def want_nothing(tx: Tx, group: int) -> None:
    tx.run("UPDATE frame_group SET restore = NULL WHERE id = ?", group)


def wishes(db: Reader) -> list[Wish]:
    """All that are not fulfilled yet."""
    rows = db.execute("SELECT id, restore FROM frame_group WHERE restore IS NOT NULL")
    return [Wish(row["id"], bool(row["restore"])) for row in rows]


def _want(tx: Tx, group: int, job: int) -> int:
    return tx.run("UPDATE frame_group SET restore = ? WHERE id = ? AND restore IS NOT ?", job, group, job)
