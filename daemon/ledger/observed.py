"""Which frame shows which object, at hand by the object: the table `observed`, which follows from `frame`.

    note(tx, frame, "SN2014J", ut)     # with every frame that is written

At a start `daemon.ledger.views` takes up what an older release has written or mended. A release
that does not know the table leaves it as it is, so that the schema has no other number for it.
"""

from __future__ import annotations

from daemon.ledger.store import Reader, Tx


def note(tx: Tx, frame: int, name: str | None, ut: float | None) -> None:
    """This is what the frame shows. ut : seconds since the epoch"""
    tx.run("INSERT OR REPLACE INTO observed (frame_id, object, ut) VALUES (?, ?, ?)", frame, name or "", ut)


def is_there(db: Reader) -> bool:
    """False of a database that no daemon of this release has opened yet."""
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'observed'"
    return db.execute(sql).fetchone() is not None
