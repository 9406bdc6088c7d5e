"""Kills at a named point."""

import hashlib
import os
from pathlib import Path

from daemon.ledger import questions
from daemon.model.names import STAGING


class Killed(BaseException):
    """Stands for kill -9: nothing after it is done, and nobody catches it."""


def killer(point, nth=1):
    count = 0

    def at(here):
        nonlocal count
        count += here == point
        if here == point and count == nth:
            raise Killed(point)

    return at


def whole(daemon):
    """Every product on record is on disk with its hash, and nothing else is."""
    rows = daemon.ask(questions.products, current=False)
    assert rows
    for row in rows:
        assert hashlib.sha256(Path(row["path"]).read_bytes()).hexdigest() == row["sha256"]
    on_disk = {str(p) for p in daemon.products.rglob("*.fits") if STAGING not in p.parts}
    assert on_disk == {row["path"] for row in rows}
    assert all(Path(path).with_suffix(".png").exists() for path in on_disk)
    assert not list((daemon.products / STAGING).iterdir())
    assert len({row["group"] for row in rows if row["current"]}) == len([r for r in rows if r["current"]])
    cals = daemon.rows("SELECT path FROM calibration WHERE removed IS NULL")
    assert {os.fsdecode(c["path"]) for c in cals} == {r["path"] for r in rows if r["current"]}
    assert daemon.rows("SELECT COUNT(*) AS n FROM intent") == [{"n": 0}]
    assert daemon.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]
