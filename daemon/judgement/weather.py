"""What the frames of a sequence say of the next ones: seeing, sky and light, and how far they may stray.

    ahead(taken, more=8, every=40.0)   # Ahead(fwhm=1.05, sky=1.1, light=1.0, photons=0.95)
    doubt(taken, more=8, every=40.0)   # relative standard deviations of the same

Pure. Conditions are expected to stay as in the latest frames, but for the sky, which goes on with its slope.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

LATEST = 5  # frames whose median is what is expected
# Seeing forgets itself within 17 minutes: Racine 1996 (PASP 108, 372), by turbulence profiles of Mauna Kea.
# For sky and transparency no number was found; they are given the same.
REMEMBERED = 17 * 60.0  # s
# Relative scatter on that scale where a few frames cannot tell it yet, and what that is worth in frames.
# Ours, set so that the stated errors hold (python -m bench enough).
USUAL = {"fwhm": 0.15, "sky": 0.08, "light": 0.04}
JUMPS = {"fwhm": 0.06, "sky": 0.01, "light": 0.02}  # the same from one frame to the next
WORTH = 4.0
# Of the latest level, that a slope is followed to: airglow of the OH bands is within 2 to 3 times its mean,
# and goes up and down within an hour (Gemini, node/10726).
SLOPE = (0.75, 1.5)
FIRST = 3  # frames that tell how it began
WORSE = {"fwhm": 1.15, "sky": 1.3, "light": 1.1}  # each costs some 0.1 magnitudes
MOST_POINTS = 40  # of frames to come that are looked at: more is not more exact


@dataclass(frozen=True)
class Taken:
    """One frame. at : seconds since the epoch; fwhm : arcsec; sky : e- of one exposure; light : of its stars,
    of that of a clear frame; read_noise : e-. None where it was not measured"""

    at: float
    fwhm: float | None = None
    sky: float | None = None
    light: float | None = None
    read_noise: float = 0.0


@dataclass(frozen=True)
class Ahead:
    """fwhm, sky : of their means so far; light : as in `Taken`

    photons : part of the variance of a frame that is of the sky's photons
    """

    fwhm: float = 1.0
    sky: float = 1.0
    light: float = 1.0
    photons: float = 1.0


@dataclass(frozen=True)
class Doubt:
    """Relative standard deviations of the means of the frames to come about what is expected."""

    fwhm: float
    sky: float
    light: float


def ahead(taken: Sequence[Taken], more: int, every: float) -> Ahead:
    """What is expected of the next `more` frames, one in `every` seconds, on the mean."""
    widths, lights, skies = (_series(taken, name) for name in ("fwhm", "light", "sky"))
    fwhm = sky = photons = 1.0
    if widths:
        so_far = math.exp(statistics.fmean(math.log(value) for _, value in widths))
        fwhm = _latest(widths) / so_far
    if skies:
        mean = statistics.fmean(value for _, value in skies)
        noise = max((frame.read_noise for frame in taken), default=0.0)
        photons = mean / (mean + noise**2)
        sky = _sky(skies, more, every) / mean
    return Ahead(fwhm, sky, _latest(lights) if lights else 1.0, photons)


def _latest(series: Sequence[tuple[float, float]]) -> float:
    return statistics.median(value for _, value in series[-LATEST:])


def _sky(skies: Sequence[tuple[float, float]], more: int, every: float) -> float:
    """The level at the middle of the frames to come, by the slope of the latest ones; a slope is believed for
    as long as it was seen, and within SLOPE."""
    latest = skies[-2 * LATEST :]
    level = _latest(latest)
    if len(latest) < LATEST:
        return level
    slope = _theil_sen(latest)
    seen = latest[-1][0] - latest[0][0]
    middle = statistics.median(at for at, _ in latest[-LATEST:])
    until = min(skies[-1][0] + every * (more + 1) / 2 - middle, seen)
    return min(max(level + slope * until, SLOPE[0] * level), SLOPE[1] * level)


def _theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs (Theil 1950, Sen 1968)."""
    slopes = [
        (b[1] - a[1]) / (b[0] - a[0]) for n, a in enumerate(points) for b in points[n + 1 :] if b[0] > a[0]
    ]
    return statistics.median(slopes) if slopes else 0.0


def doubt(taken: Sequence[Taken], more: int, every: float) -> Doubt:
    """How far the means of the next frames may be from what is expected."""
    return Doubt(*(_strays(_series(taken, name), name, more, every) for name in ("fwhm", "sky", "light")))


@dataclass(frozen=True)
class Change:
    """what : fwhm, sky or light; ratio : how much worse than at the beginning, above 1; magnitudes : of depth
    that this costs; since : seconds since the epoch"""

    what: str
    ratio: float
    magnitudes: float
    since: float


def changes(taken: Sequence[Taken]) -> list[Change]:
    """What is worse in the latest frames than in the first ones, by WORSE or more."""
    found = []
    for what in ("fwhm", "sky", "light"):
        series = _series(taken, what)
        if len(series) < 2 * FIRST:
            continue
        began, now = statistics.median(value for _, value in series[:FIRST]), _latest(series)
        ratio = began / now if what == "light" else now / began
        if ratio < WORSE[what]:
            continue
        limit = math.sqrt(began * now)
        since = series[-1][0]
        for at, value in reversed(series):
            if (value > limit) == (what == "light"):
                break
            since = at
        found.append(Change(what, ratio, (1.25 if what == "sky" else 2.5) * math.log10(ratio), since))
    return found


def _strays(series: Sequence[tuple[float, float]], name: str, more: int, every: float) -> float:
    """Standard deviation of the mean of frames to come less the median of the latest ones, of a process that
    forgets itself exponentially within REMEMBERED, and of jumps from frame to frame."""
    last = series[-1][0] if series else 0.0
    step = more / min(more, MOST_POINTS)
    points = [last + every * step * (k + 0.5) + every / 2 for k in range(min(more, MOST_POINTS))]
    known = [at for at, _ in series[-LATEST:]] or [last]
    weights = [-1 / len(known)] * len(known) + [1 / len(points)] * len(points)
    slow, fast = _scatter(series, name)
    # A median is known less well than a mean, by pi / 2.
    apart = slow * _weighed(weights, [*known, *points]) + fast * (math.pi / (2 * len(known)) + 1 / more)
    return math.sqrt(max(apart, 0.0))


def _scatter(series: Sequence[tuple[float, float]], name: str) -> tuple[float, float]:
    """Variances of the logarithm: of what goes slowly, and from frame to frame; of the frames and, where they
    are few, of what is usual.

    Frames within minutes of one another are alike: their own scatter is too small by what they have in
    common. From frame to frame is what neighbours differ by.
    """
    usual, jumps = USUAL[name] ** 2, JUMPS[name] ** 2
    logs = [(at, math.log(value)) for at, value in series]
    if len(logs) < 2:
        return usual, jumps
    n = len(logs)
    fast = statistics.fmean((b - a) ** 2 for (_, a), (_, b) in pairwise(logs)) / 2
    seen = max(statistics.variance(value for _, value in logs) - fast, 0.0)
    alike = (_weighed([1 / n] * n, [at for at, _ in logs]) * n - 1) / (n - 1)
    slow = ((n - 1) * seen + WORTH * usual) / ((n - 1) * (1 - alike) + WORTH)
    return slow, ((n - 1) * fast + WORTH * jumps) / (n - 1 + WORTH)


def _weighed(weights: Sequence[float], times: Sequence[float]) -> float:
    """Variance of a weighted sum of a process of variance 1."""
    return math.fsum(
        a * b * math.exp(-abs(s - t) / REMEMBERED)
        for a, s in zip(weights, times, strict=True)
        for b, t in zip(weights, times, strict=True)
    )


def _series(taken: Sequence[Taken], name: str) -> list[tuple[float, float]]:
    read: Callable[[Taken], float | None] = {
        "fwhm": lambda frame: frame.fwhm,
        "sky": lambda frame: frame.sky,
        "light": lambda frame: frame.light,
    }[name]
    return [(frame.at, value) for frame in taken if (value := read(frame)) is not None and value > 0]
