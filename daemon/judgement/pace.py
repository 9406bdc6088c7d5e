"""How frames and looks come: whether a sequence has stopped without having ended, whether looks are late.

wait = longest_wait(times)           # of one sequence, seconds; three times what is usual for it
late = p95(seconds)

Both are alarms that a person is called by, so that each begins at a limit and ends well below it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

CADENCES = 3.0  # times the usual interval after which a sequence that is open has stopped
FEWEST_FRAMES = 3  # of which an interval is known
LEAST = 60.0  # s: no sequence is missed sooner, however short its exposures are
OVER = 1800.0  # s without a frame after which nobody observes any more
STEPS_BACK = 31  # frames among which pauses are looked for
FEWEST_LOOKS, LOOKS_BACK = 5, 1800.0  # looks, and s, from which it is told that they are late
RELAXED = 0.8  # of a limit: below it an alarm ends


def longest_wait(landed: Sequence[float], seconds: float) -> float | None:
    """How long the next frame of a sequence may be waited for, s; None while its pace is not known.

    landed : when its frames came, seconds, in order; seconds : of one exposure with all coadds
    """
    steps = [b - a for a, b in pairwise(landed) if b > a][-10:]
    if len(landed) < FEWEST_FRAMES or not steps:
        return None
    return max(CADENCES * median(steps), CADENCES * seconds, LEAST)


def pause(landed: Sequence[float]) -> float:
    """How long pauses are that a sequence makes again and again, s, with half as much added: frames that are
    copied in batches, a telescope that goes to the sky and back. 0 of one pause, which tells nothing."""
    steps = sorted(b - a for a, b in pairwise(landed[-STEPS_BACK:]))
    return 1.5 * steps[-2] if len(steps) > 2 else 0.0


def p95(values: Sequence[float]) -> float | None:
    """The value that 95 % of them are not above; None of fewer than five."""
    if len(values) < FEWEST_LOOKS:
        return None
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def is_over(value: float, limit: float, *, before: bool) -> bool:
    """Whether an alarm lasts. before : it did, and ends only where the value is well below its limit"""
    return value > (RELAXED * limit if before else limit)
