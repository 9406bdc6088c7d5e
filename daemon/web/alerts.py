"""What a person can do something about, each with since when, why, and what to do.

    in_order([*slow(config, db, now), *quick(db)])     # what is critical first

It is what `nirid status` shows under NEEDS YOU, held and failed; `key` is the same as long as it is the same
thing, so that somebody can say of it that it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from daemon import instance
from daemon.config.options import Config
from daemon.ledger import held, questions
from daemon.ledger.store import Reader
from daemon.markup import short
from daemon.model.plain import clean
from daemon.upkeep import health
from daemon.upkeep.health import NOT_RUNNING, Limits

LATELY = 86400.0  # s: what was damaged before that is not new

# What to do about what `nirid health` finds, by its check.
_DO = {
    "daemon": "start it: systemctl start nirid; journalctl -u nirid says why it ended",
    "workers": "journalctl -u nirid says why no worker starts; docs/operations.md has each case",
    "disk": "make room; work goes on by itself when there is enough",
    "drop folder": "mount it, or mend its permissions; frames are taken by themselves then",
    "products": "mount it for writing",
    "database": "nirid doctor says more; nirid restore or nirid rebuild brings it back",
    "requests": "nirid requests lists them with the reason",
    "jobs": "nirid explain tells of each; nirid requeue tries it again",
    "frames": "look whether the instrument still writes into the drop folder",
    "lost file": "put the file back, or nirid reject the frame",
    "unread": "make the files readable for the daemon",
    "damaged": "send the files again; nirid ledger --state quarantined lists them",
}


@dataclass(frozen=True)
class Alert:
    """level : warning or critical; since : seconds since the epoch, None where that is not known

    target : what may be explained, accepted or rejected, "" where that makes no sense
    """

    key: str
    level: str
    what: str
    why: str
    do: str
    since: float | None = None
    target: str = ""
    decide: bool = False

    def plain(self) -> dict[str, Any]:
        return dict(vars(self))


def in_order(some: Iterable[Alert]) -> tuple[Alert, ...]:
    """What is critical first."""
    return tuple(sorted(some, key=lambda alert: alert.level != "critical"))


def slow(config: Config, db: Reader, now: float) -> Iterator[Alert]:
    """What looks at folders and disks, or at all files that there are. now : seconds since the epoch"""
    yield from _of_health(config, db)
    for row in questions.for_a_person(db, now - LATELY):
        yield _alert(row["check"], row["level"], row["text"])


def quick(db: Reader) -> Iterator[Alert]:
    """Masters that are held back, and jobs that have failed."""
    yield from _held(db)
    yield from _failed(db)


def _of_health(config: Config, db: Reader) -> Iterator[Alert]:
    report = health.examine(config, Limits(failed=1 << 30), whole=False)
    jobs = questions.job_counts(db)
    at_rest = instance.was_stopped(config) and not (jobs.get("planned") or jobs.get("running"))
    texts = [problem.text for problem in report.problems]
    for problem in report.problems:
        if any(problem.text in other and problem.text != other for other in texts):
            continue  # a disk is told by the daemon, and by itself
        if (problem.check, problem.level) == ("daemon", "warning") or (
            problem.text == NOT_RUNNING and at_rest
        ):
            continue
        yield _alert(problem.check, problem.level, problem.text)


def _alert(check: str, level: str, text: str) -> Alert:
    return Alert(f"{check}: {text[:80]}", level, check, short(clean(text), 400), _DO.get(check, ""))


def _held(db: Reader) -> Iterator[Alert]:
    for row in held.everything(db):
        name = row["name"]
        do = "compare it with the one before, then accept or reject it"
        yield Alert(
            f"held: {name} {row['since']:.0f}",
            "warning",
            f"{name} is held back",
            short(clean(row["reason"]), 400),
            do,
            row["since"],
            name,
            decide=True,
        )


def _failed(db: Reader) -> Iterator[Alert]:
    for job in questions.failed(db):
        why = job["error"].strip().rpartition("\n")[2] or job["reason"]  # of a traceback what it says
        name = job["name"] or job["recipe"]
        do = f"nirid explain job:{job['id']} has its frames; nirid requeue job:{job['id']} tries it again"
        yield Alert(
            f"failed: job {job['id']}",
            "critical",
            f"{short(name)} has failed",
            short(clean(why), 400),
            do,
            None,
            f"job:{job['id']}",
        )
