"""What a person can do something about, each with since when, why, and what to do.

    in_order([*of_machine(config, jobs, now), *of_ledger(db, now), *quick(db)])     # what is critical first

It is what `nirid status` shows under NEEDS YOU, held and failed; `key` is the same as long as it is the same
thing, so that somebody can say of it that it is known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from daemon import instance
from daemon.config.options import Config
from daemon.judgement import pace
from daemon.judgement.pace import CADENCES
from daemon.ledger import decisions, held, questions
from daemon.ledger.store import Reader
from daemon.markup import short
from daemon.model.groups import Setting
from daemon.model.plain import clean
from daemon.people import board, verdicts
from daemon.upkeep import health
from daemon.upkeep.health import NOT_RUNNING, Limits

SILENT = 30.0  # s without a sign of the daemon's heart after which it is told
SOON = 2.0  # times the low water below which a disk is nearly full
LATE_LOOKS = "late looks"
LATELY = 86400.0  # s: what was damaged before that is not new

_LIMITS = Limits(failed=1 << 30, still=SILENT)  # failed jobs are told one by one
# An alert stays the same when it has lasted longer; jobs are told apart.
_NUMBERS = re.compile(r"(?<!job )\b\d[\d.]*(\s*(s|min|h|d|MB|GB)\b)?")

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
    "not whole": "send it again; it counts as damaged when it has not grown for long",
    "damaged": "send the files again; nirid ledger --state quarantined lists them",
}


@dataclass(frozen=True)
class Alert:
    """level : warning or critical; since : seconds since the epoch, None where that is not known

    target : what may be explained, accepted or rejected, "" where that makes no sense
    known : who knows of it, why, and until when (seconds since the epoch); "" and 0 where nobody does
    """

    key: str
    level: str
    what: str
    why: str
    do: str
    since: float | None = None
    target: str = ""
    decide: bool = False
    known_to: str = ""
    known_why: str = ""
    known_until: float = 0.0

    @property
    def number(self) -> str:
        """What people call it: the same as long as it is the same thing."""
        return sha256(self.key.encode("utf-8", "replace")).hexdigest()[:8]

    def plain(self) -> dict[str, Any]:
        return {"alert": f"alert:{self.number}", **vars(self)}


def in_order(some: Iterable[Alert], known: Mapping[str, Mapping[str, Any]] = {}) -> tuple[Alert, ...]:
    """What nobody knows of first, and of that what is critical. known : of `decisions.known_alerts`"""
    told = []
    for alert in some:
        if row := known.get(alert.number):
            until = row["more"]["until"]
            alert = replace(alert, known_to=row["user"], known_why=row["reason"], known_until=until)
        told.append(alert)
    return tuple(sorted(told, key=lambda alert: (bool(alert.known_to), alert.level != "critical")))


def everything(config: Config, setting: Setting, db: Reader, now: float) -> tuple[Alert, ...]:
    """All of it at once, as a command asks."""
    night = board.board(db, setting, config, now)
    jobs = questions.job_counts(db)
    some = [*of_machine(config, jobs, now), *nearly_full(config, ()), *of_ledger(db, now)]
    some += [*quick(db), *of_night(night), *of_pace(night, config.alert.look_seconds, (), now)]
    return in_order(some, decisions.known_alerts(db, now))


def of_night(night: Mapping[str, Any]) -> Iterator[Alert]:
    """What the night that goes on asks for. night : of `people.board`"""
    if not night["tonight"]:
        return
    row, told = night["verdicts"], night["missing"]
    if row and row["not_met_since"]:
        since = datetime.fromisoformat(row["not_met_since"]).timestamp()
        what = f"image quality is not what {row['program']} asked for"
        do = "go on, or change to a programme that asks for less"
        words = verdicts.in_short(row["verdicts"]["IQ"]["words"])
        yield Alert(
            f"out of spec: group {row['group']}", "warning", what, words, do, since, f"group:{row['group']}"
        )
    if told["phase"] != "night":
        for need in told["needs"]:
            if need["state"] == "wanted":  # a standard that is missing cannot be taken by day
                what, why = f"{need['what']}: {need['state']}", f"the day ends at {told['ends'][11:16]} UT"
                yield Alert(
                    f"missing {told['night']}: {need['what']}", "warning", short(what), why, need["how"]
                )


def of_machine(config: Config, jobs: Mapping[str, int], now: float) -> Iterator[Alert]:
    """What looks at folders and disks, without the database. jobs : how many there are, by state"""
    at_rest = instance.was_stopped(config) and not (jobs.get("planned") or jobs.get("running"))
    problems = list(health.of_machine(config, instance.running(config), _LIMITS, now))
    texts = [problem.text for problem in problems]
    for problem in problems:
        if any(problem.text in other and problem.text != other for other in texts):
            continue  # a disk is told by the daemon, and by itself
        starting = (problem.check, problem.level) == ("daemon", "warning")
        if not starting and not (problem.text == NOT_RUNNING and at_rest):
            yield _alert(problem.check, problem.level, problem.text)


def nearly_full(config: Config, before: Collection[str]) -> Iterator[Alert]:
    """A disk on which work will pause before long: there is less than twice what it pauses at."""
    low = config.disk.low_water_mb * 1e6
    for what, free in health.room(config).items():
        key = f"nearly full: {what}"
        if isinstance(free, str) or free <= low:
            continue  # it is told as what cannot be used at all
        if pace.is_over(SOON * low / free, 1.0, before=key in before):
            why = f"{free / 1e9:.1f} GB are left, and work pauses below {low / 1e9:.1f} GB"
            yield Alert(key, "warning", f"the disk of the {what} is nearly full", why, _DO["disk"])


def of_pace(night: Mapping[str, Any], goal: float, before: Collection[str], now: float) -> Iterator[Alert]:
    """Frames that have stopped, and looks that come late. night : of `people.board`; goal : s, 0 is none

    before : keys of the alerts that there are: each ends well below the limit at which it began
    """
    if not night.get("tonight"):
        return
    yield from _stopped(night, before, now)
    looks = [point for point in night["curves"]["latency"] if now - point[0] <= pace.LOOKS_BACK]
    late = pace.p95([seconds for _, seconds, _ in looks])
    if goal and late is not None and pace.is_over(late, goal, before=LATE_LOOKS in before):
        since = min((at for at, seconds, _ in looks if seconds > goal), default=None)
        why = f"95 % come within {late:.1f} s of their frames, of {len(looks)}; wanted are {goal:g} s"
        do = "nirid status: is something else running on the machine, does a disk answer slowly?"
        yield Alert(LATE_LOOKS, "warning", "first looks come late", why, do, since)


def _stopped(night: Mapping[str, Any], before: Collection[str], now: float) -> Iterator[Alert]:
    """No frame for three times the cadence of a sequence that is open, or short of its goal.

    A standard is short and ends by itself, and of what is deep enough no frame is expected.
    """
    sequence, frames = night["sequence"], night["frames"]
    if not sequence or not sequence["role"] or not frames or frames[0]["group"] != sequence["group"]:
        return
    mine = [row for row in reversed(frames) if row["group"] == sequence["group"] and row["came"] is not None]
    exposure = (mine[-1]["exposure_time"] or 0.0) * (mine[-1]["coadds"] or 1) if mine else 0.0
    came = sorted(row["came"] for row in mine)
    longest = pace.longest_wait(came, exposure)
    if longest is None or night["missing"]["phase"] != "night":
        return
    last = came[-1]
    # By the clock of the disk, which may be behind; a file that was seen since is seen by ours.
    seen = [at for at in (last, (night["last_frame"] or {}).get("at", last)) if at <= now]
    waited = now - max(seen, default=now)
    key = f"no frame: group {sequence['group']} {last:.3f}"
    deep = (sequence["enough"] or {}).get("state")
    is_open = sequence["state"] == "open" and sequence["role"] != "standard" and deep != "enough"
    is_expected = is_open or deep == "more" or key in before
    if is_expected and max(longest, pace.pause(came)) < waited < pace.OVER:
        what = f"no frame of {short(sequence['what'])} for {CADENCES:g} times its cadence"
        usual = f"one came every {longest / CADENCES:.0f} s, and none has for more than {longest:.0f} s"
        yield Alert(key, "warning", what, usual, _DO["frames"], last, f"group:{sequence['group']}")


def of_ledger(db: Reader, now: float) -> Iterator[Alert]:
    """What looks at all that is on record: a third of a second for 100,000 files."""
    for problem in health.of_ledger(db, _LIMITS, now):
        yield _alert(problem.check, problem.level, problem.text)
    for row in questions.for_a_person(db, now - LATELY, now):
        yield _alert(row["check"], row["level"], row["text"])


def quick(db: Reader) -> Iterator[Alert]:
    """Masters that are held back, and jobs that have failed."""
    yield from _held(db)
    yield from _failed(db)


def _alert(check: str, level: str, text: str) -> Alert:
    return Alert(
        f"{check}: {_NUMBERS.sub('#', text)[:80]}", level, check, short(clean(text), 400), _DO.get(check, "")
    )


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
