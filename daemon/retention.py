"""Superseded products go when they are old and nobody needs them any more.

A product that was replaced stays for `superseded_days`, the newest `keep_versions` of each group for
ever. Nothing is removed that is current, that a person has accepted, that is on its way back, or that the
provenance of a current product names: that could not be made again bit for bit without it.

Its row goes first, and leaves the path in the table `removal`; then the file; then that note. A crash in
between is finished by `finish`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from daemon import lookrows, moves, verdicts
from daemon.config import Retention
from daemon.ledger import Ledger, Tx
from daemon.verdicts import ACCEPT

DAY = 86400.0


def prune(ledger: Ledger, rules: Retention) -> int:
    """Remove what is due. Returns how many products. OSError, LedgerBusy: the next run goes on."""
    due = ledger.write(lambda tx: _forget(tx, rules))
    finish(ledger)
    return due


def finish(ledger: Ledger) -> int:
    """Unlink what was forgotten; after a crash as well. Returns how many files."""
    with ledger.read() as db:
        paths = [Path(os.fsdecode(row[0])) for row in db.execute("SELECT path FROM removal")]
    for path in paths:
        path.unlink(missing_ok=True)
        path.with_suffix(".png").unlink(missing_ok=True)
    for folder in {path.parent for path in paths if path.parent.is_dir()}:
        moves.sync(folder)
    if paths:
        ledger.write(lambda tx: tx.run("DELETE FROM removal"))
    return len(paths)


def _forget(tx: Tx, rules: Retention) -> int:
    count = 0
    lookrows.forget(tx, rules.superseded_days)
    for row in _superseded(tx, rules):
        decision = verdicts.standing(tx, verdicts.of_product(row["key"]))
        if decision is not None and decision["action"] == ACCEPT:
            continue
        tx.insert("removal", path=row["path"])
        tx.run("DELETE FROM product WHERE id = ?", row["id"])
        tx.event("product_removed", product=os.fsdecode(row["path"]), job=row["job_id"])
        count += 1
    return count


def _superseded(tx: Tx, rules: Retention) -> list[Any]:
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
        rules.keep_versions,
        tx.now - rules.superseded_days * DAY,
    )
