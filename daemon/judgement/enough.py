"""Is it enough? A stack against a goal, in words, with frames and minutes that are missing.

judged(stack, taken, goal, pace, left=3600.0).words    # "2 more frames (3 min)"
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from daemon.judgement import depth, weather
from daemon.judgement.depth import Goal, Pace, Reached, Stack
from daemon.judgement.weather import Taken

State = Literal["enough", "more", "not reachable", "not reached", "no goal", "not measured"]


@dataclass(frozen=True)
class Judged:
    """more : frames that are missing, those that are taken and not stacked yet among them; None where it
    is not known or never enough; minutes : that they take

    short : magnitudes that are missing, below 0 where it is more than enough; probability : that it is enough
    """

    state: State
    words: str
    more: int | None = None
    minutes: float | None = None
    short: float | None = None
    probability: float | None = None


def judged(
    stack: Stack, taken: Sequence[Taken], goal: Goal | None, pace: Pace, left: float, waiting: int = 0
) -> Judged:
    """left : seconds of the night, below 0 when it is over; waiting : frames taken and not stacked yet"""
    if goal is None:
        return Judged("no goal", "no goal set")
    now = depth.depth(stack)
    short = goal.short_by(stack, now)
    probable = _probability(short, now)
    if short <= 0:
        return Judged("enough", "enough", 0, 0.0, short, probable)
    more = depth.more_frames(stack, taken, goal, pace)
    if more is None:
        over = "not reached" if left < 0 else "not reachable tonight"
        state: State = "not reached" if left < 0 else "not reachable"
        return Judged(state, f"{over}: {_why(taken) or _short(short)}", None, None, short, probable)
    seconds = max(more - waiting, 0) * pace.every
    found = (more, seconds / 60, short, probable)
    if more <= waiting:
        return Judged("enough", f"enough with {_frames(waiting)} that {_wait(waiting)}", *found)
    if left < 0:
        words = f"not reached: {_short(short)}, {_frames(more - waiting)} ({span(seconds)}) were missing"
        return Judged("not reached", words, *found)
    if seconds > left:
        room = f"it takes {span(seconds)}, {span(left)} are left to dawn"
        words = "; ".join(filter(None, (_why(taken), room)))
        return Judged("not reachable", f"not reachable tonight: {words}", *found)
    said = f"{more - waiting} more frame{'s' if more - waiting > 1 else ''} ({span(seconds)})"
    said += f", with {_frames(waiting)} that {_wait(waiting)}" if waiting else ""
    return Judged("more", said, *found)


def _probability(short: float, now: Reached) -> float:
    return 0.5 * (1 - math.erf(short / (math.sqrt(2) * max(now.error, 1e-6))))


def _why(taken: Sequence[Taken]) -> str:
    """What has become worse most since the sequence began; "" where nothing has."""
    worst = max(weather.changes(taken), key=lambda change: change.magnitudes, default=None)
    if worst is None:
        return ""
    since = f"since {datetime.fromtimestamp(worst.since, UTC):%H:%M} UT"
    if worst.what == "light":
        return f"{2.5 * math.log10(worst.ratio):.1f} mag of light lost {since}"
    return f"{'sky' if worst.what == 'sky' else 'seeing'} {worst.ratio:.1f} × {_WORSE[worst.what]} {since}"


_WORSE = {"sky": "brighter", "fwhm": "wider"}


def _short(magnitudes: float) -> str:
    return f"{magnitudes:.2f} mag short"


def _frames(n: int) -> str:
    return "1 frame" if n == 1 else f"{n} frames"


def _wait(n: int) -> str:
    return "waits to be stacked" if n == 1 else "wait to be stacked"


def span(seconds: float) -> str:
    """A time in minutes, upwards; in hours from two on."""
    minutes = max(math.ceil(seconds / 60 - 1e-6), 1)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
