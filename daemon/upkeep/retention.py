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

from daemon import disk
from daemon.config.options import Retention
from daemon.ledger import decisions, looks
from daemon.ledger.products import superseded_rows
from daemon.ledger.store import Ledger, Tx
from daemon.model.decisions import ACCEPT, of_product


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
        disk.sync(folder)
    if paths:
        ledger.write(lambda tx: tx.run("DELETE FROM removal"))
    return len(paths)


def _forget(tx: Tx, rules: Retention) -> int:
    count = 0
    looks.forget(tx, rules.superseded_days)
    for row in superseded_rows(tx, rules):
        decision = decisions.standing(tx, of_product(row["key"]))
        if decision is not None and decision["action"] == ACCEPT:
            continue
        tx.insert("removal", path=row["path"])
        tx.run("DELETE FROM product WHERE id = ?", row["id"])
        tx.event("product_removed", product=os.fsdecode(row["path"]), job=row["job_id"])
        count += 1
    return count
