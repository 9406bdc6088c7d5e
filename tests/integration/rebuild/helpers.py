"""A disk with products, and a ledger that is lost."""

from pathlib import Path
from typing import ClassVar

from daemon.ledger import contents, questions
from daemon.upkeep import rebuild

DARK, FLAT, SCIENCE = "N20160102S0423_dark", "N20160102S0373_flat", "N20160102S0271_image"


class Disk:
    """What the landing does in `take_back`: every raw file that lies about is read."""

    as_of = None
    unlisted: ClassVar = {}

    def __init__(self, daemon, records):
        self.daemon, self.records = daemon, records

    def take_all(self):
        self.daemon.land(*self.records)
        return len(self.records)


def rows(daemon):
    """What counts: jobs by key, products by place, files by state; without numbers and times."""
    jobs = daemon.rows("SELECT key, recipe, state, remake FROM job ORDER BY key")
    products = daemon.ask(questions.products, current=False)
    shown = ("path", "name", "night", "sha256", "version", "current", "key", "notes", "quality")
    states = {
        (r["sha256"], r["state"], r["runs"]) for r in daemon.ask(lambda db: list(contents.everything(db)))
    }
    cals = daemon.rows(
        """SELECT kind, key, name, ident, origin, facts, ut FROM calibration
        WHERE removed IS NULL ORDER BY name"""
    )
    return {
        "jobs": [job for job in jobs if job["state"] == "done"],
        "products": sorted([str({k: p[k] for k in shown}) for p in products]),
        "files": sorted(states),
        "calibrations": cals,
    }


def lose(daemon, daemons, records):
    """Forget the ledger, and learn everything again."""
    daemon.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{daemon.ledger.path}{side}").unlink(missing_ok=True)
    again = daemons()
    answer = rebuild.take_back(again.ledger, Disk(again, records), again.setting, again.main_loop.overrides)
    assert answer["left"] == []
    return again
