"""Is all well? What a monitor wants to know, answered from outside, whether the daemon lives or not.

    report = examine(config, Limits())
    report.word       # "OK", "WARNING" or "CRITICAL"
    report.line()     # one line for a person or a pager

Nothing is written, and nothing here can hang with a network folder: what does not answer in time is reported.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from daemon import filesystems, instance
from daemon.config.options import Config
from daemon.ledger import questions
from daemon.ledger.cells import damaged
from daemon.ledger.store import DatabaseError, Reader, connect_readonly
from daemon.people import requests
from daemon.work import diskguard

Level = Literal["warning", "critical"]
ANSWER_SECONDS = 10.0  # that a drop folder has to answer
NOT_RUNNING = "no daemon runs"
REQUEST_SECONDS = 60.0  # after which a decision should have been applied


@dataclass(frozen=True)
class Limits:
    """still : seconds without progress of the daemon
    last_frame : hours without a new frame; 0 is not looked at, as at day there are none
    planned : minutes that a job which could run may wait for a worker
    waiting : hours that a job may wait for a calibration; 0 is not looked at
    failed : failed jobs that are tolerated
    refused : hours that a refused decision is shown
    killed : times that a job may be killed, or end with its worker, before it is told
    """

    still: float = 120.0
    last_frame: float = 0.0
    planned: float = 30.0
    waiting: float = 0.0
    failed: int = 0
    refused: float = 24.0
    killed: int = 2


@dataclass(frozen=True)
class Problem:
    level: Level
    check: str
    text: str


@dataclass(frozen=True)
class Report:
    problems: tuple[Problem, ...]
    facts: dict[str, Any]

    @property
    def word(self) -> str:
        levels = {problem.level for problem in self.problems}
        return "CRITICAL" if "critical" in levels else "WARNING" if levels else "OK"

    def line(self) -> str:
        """As `NIRID CRITICAL - no worker can start ...; 2 jobs have failed`."""
        told = sorted(self.problems, key=lambda p: p.level != "critical")
        said = "; ".join(" ".join(p.text.split()) for p in told) or self._all_well()
        return f"NIRID {self.word} - {said}"

    def _all_well(self) -> str:
        counts, ago = self.facts.get("jobs", {}), self.facts.get("last_frame_seconds")
        jobs = ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "none yet"
        last = "no frame yet" if ago is None else f"last frame {span(ago)} ago"
        return f"running, {last}; jobs: {jobs}"


def examine(
    config: Config, limits: Limits, now: Callable[[], float] = time.time, *, whole: bool = True
) -> Report:
    """Everything that may be wrong, each with a level. whole : also look through the whole database"""
    running = instance.running(config)
    facts: dict[str, Any] = {"daemon": running}
    problems = list(of_machine(config, running, limits, now()))
    if not config.database.exists():
        problems.append(Problem("critical", "database", f"{config.database}: no database"))
    elif why := damaged(config.database) if whole else "":
        problems.append(Problem("critical", "database", f"{config.database} is damaged: {why}"))
    else:
        try:
            with contextlib.closing(connect_readonly(config.database)) as db:
                facts |= _facts(db, now())
                problems += _work(db, facts, limits, now())
        except (DatabaseError, ValueError) as error:
            problems.append(Problem("critical", "database", f"{config.database}: {error}"))
    return Report(tuple(problems), facts)


def of_machine(
    config: Config, running: dict[str, Any] | None, limits: Limits, now: float
) -> Iterator[Problem]:
    """What can be found without the database. running : as `instance.running` answers

    May take as long as a hung folder is waited for; now : seconds since the epoch
    """
    yield from _daemon(running, limits, now)
    yield from _folders(config)
    yield from _disk(config)
    yield from _requests(config, now)


def of_ledger(db: Reader, limits: Limits, now: float) -> Iterator[Problem]:
    """What the ledger says is wrong."""
    yield from _work(db, _facts(db, now), limits, now)


def _daemon(running: dict[str, Any] | None, limits: Limits, now: float) -> Iterator[Problem]:
    if running is None:
        yield Problem("critical", "daemon", NOT_RUNNING)
        return
    if running["engine"]:
        yield Problem("critical", "workers", running["engine"])
    if running["paused"]:
        yield Problem("critical", "disk", f"work is paused: {running['paused']}")
    if running["stalled"]:
        yield Problem("critical", "daemon", running["stalled"])
    if running["closed"]:
        yield Problem("warning", "drop folder", running["closed"])
    if running["moved"] is None:
        yield Problem("warning", "daemon", "the daemon is starting")
    elif (still := now - running["moved"]) > limits.still:
        yield Problem("critical", "daemon", f"the daemon has not moved for {span(still)}")


def _folders(config: Config) -> Iterator[Problem]:
    for folder in config.drop_folders:
        if why := _cannot_be_listed(folder):
            yield Problem("critical", "drop folder", f"the drop folder {folder} {why}")


def _cannot_be_listed(folder: Path) -> str:
    """Asked in a thread: a network folder may hang for any time."""
    said: list[str] = []

    def look() -> None:
        try:
            with os.scandir(folder) as entries:
                next(entries, None)
            said.append("")
        except FileNotFoundError:
            said.append("is missing: is it mounted?")
        except OSError as error:
            said.append(f"cannot be listed: {error.strerror}")

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return said[0] if said else f"does not answer within {ANSWER_SECONDS:g} s"


def _disk(config: Config) -> Iterator[Problem]:
    if why := diskguard.of(config).check(0.0):
        yield Problem("critical", "disk", why)
    products = config.product_folder
    if products.is_dir() and filesystems.is_read_only(products):
        yield Problem("critical", "products", f"the products folder {products} is on a read-only file system")


def room(config: Config) -> dict[str, float | str]:
    """{"products": bytes that are left, or why that is not known, "state": ...}."""
    found: dict[str, float | str] = {}
    for what, folder in (("products", config.product_folder), ("state", config.state_folder)):
        try:
            free = diskguard.room(folder).bytes
        except OSError as error:
            found[what] = error.strerror or str(error)
            continue
        found[what] = "not known" if free == diskguard.UNKNOWN else float(free)
    return found


def _requests(config: Config, now: float) -> Iterator[Problem]:
    late = []
    try:
        for path in requests.waiting(config.state_folder):
            with contextlib.suppress(FileNotFoundError):
                if now - path.lstat().st_mtime > REQUEST_SECONDS:
                    late.append(path)
    except OSError as error:
        yield Problem("warning", "requests", f"decisions cannot be looked at: {error.strerror}")
    if late:
        yield Problem("warning", "requests", f"{len(late)} decisions wait to be applied (nirid requests)")


def _facts(db: Reader, now: float) -> dict[str, Any]:
    waits, counts = questions.waits(db), questions.counts(db)
    ago = None if waits["arrival"] is None else max(0.0, now - waits["arrival"])
    return {
        "last_frame": waits["name"],
        "last_frame_seconds": ago,
        "files": counts["files"],
        "jobs": questions.job_counts(db),
        "waits": waits,
    }


def _work(db: Reader, facts: dict[str, Any], limits: Limits, now: float) -> Iterator[Problem]:
    waits, ago = facts["waits"], facts["last_frame_seconds"]
    failed = questions.failed(db)
    if len(failed) > limits.failed:
        which = ", ".join(f"job {job['id']}" for job in failed[:3])
        yield Problem("warning", "jobs", f"{_jobs(len(failed))} failed ({which}; nirid explain)")
    for job in questions.killed(db, limits.killed):
        text = f"job {job['id']} was killed {job['times']} times and is tried again: {job['why']}"
        yield Problem("critical", "jobs", text)
    if waits["publishing"] and now - waits["made"] > REQUEST_SECONDS:
        text = f"{waits['publishing']} products are made and cannot be put in their places"
        yield Problem("critical", "products", text)
    if waits["startable"] is not None and now - waits["startable"] > 60 * limits.planned:
        yield Problem("warning", "jobs", f"a job waits for a worker since {span(now - waits['startable'])}")
    if limits.waiting and waits["calibration"] and now - waits["calibration"] > 3600 * limits.waiting:
        text = f"a job waits for a calibration since {span(now - waits['calibration'])}"
        yield Problem("warning", "jobs", text)
    if limits.last_frame and (ago is None or ago > 3600 * limits.last_frame):
        text = "no frame has come yet" if ago is None else f"the last frame came {span(ago)} ago"
        yield Problem("warning", "frames", text)
    if refused := requests.refused(db, now - 3600 * limits.refused):
        text = f"{len(refused)} decisions were refused (nirid requests): {refused[0]['reason']}"
        yield Problem("warning", "requests", text)


def _jobs(n: int) -> str:
    return "1 job has" if n == 1 else f"{n} jobs have"


def span(seconds: float) -> str:
    """12 s, 5 min, 3.2 h, 4 d."""
    if seconds >= 3 * 86400:
        return f"{seconds / 86400:.0f} d"
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(0.0, seconds):.0f} s"
