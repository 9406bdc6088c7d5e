"""Removes superseded products that are old and that nothing needs any more.

A product that was replaced stays for `superseded_days`, the newest `keep_versions` of each group for
ever. Nothing is removed that is current, that a person has accepted, that is on its way back, or that the
provenance of a current product names: that could not be made again bit for bit without it.

Its row goes first, and leaves the path in the table `removal`; then the file; then that note. A crash in
between is finished by `finish`.
"""

from __future__ import annotations

from pathlib import Path

from daemon.config.options import Retention
from daemon.ledger import looks, products
from daemon.ledger.store import Ledger, Tx
from pipeline.files import disk


def prune(ledger: Ledger, rules: Retention) -> int:
    """Remove what is due. Returns how many products. OSError, LedgerBusy: the next run goes on."""
    due = ledger.write(lambda tx: _forget(tx, rules))
    finish(ledger)
    return due


def finish(ledger: Ledger) -> int:
    """Unlink what was forgotten; after a crash as well. Returns how many files."""
    with ledger.read() as db:
        paths = [Path(path) for path in products.to_remove(db)]
    for path in paths:
        path.unlink(missing_ok=True)
        path.with_suffix(".png").unlink(missing_ok=True)
    for folder in {path.parent for path in paths if path.parent.is_dir()}:
        disk.sync(folder)
    if paths:
        ledger.write(products.removed)
    return len(paths)


def _forget(tx: Tx, rules: Retention) -> int:
    looks.forget(tx, rules.superseded_days)
    return products.give_up(tx, rules.keep_versions, rules.superseded_days)
