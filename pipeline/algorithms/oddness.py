"""Which frames of a group are unlike the others, by numbers alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MAD_TO_SIGMA = 1.482602218505602
DARK_LIKE = 1.3  # a frame whose variance is below this times that of the read-out has seen hardly any light
PEDESTAL_LEFT = 0.6  # of the others' level; where no dark was subtracted, the shutter may be closed below it


FAINT = 0.2  # of the others' level: no airglow changes so much


class Odd(NamedTuple):
    """kind : key of `limits.LIMITS`; figure : what was found; limit : what it was held against."""

    kind: str
    figure: float
    limit: float


def usual(values: Floats) -> tuple[float, float]:
    """Median and robust standard deviation of the finite values; nan, 0 where there are none."""
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan"), 0.0
    middle = float(np.median(values))
    return middle, MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))


def usual_light(levels: Floats, noises: Floats, read_noise: float) -> float:
    """Level of the frames that have seen light: the median, unless most frames are dark; nan without any.

    levels, noises : (n,) of the frames, electrons; read_noise : electrons
    Most are dark where the median frame has no more noise than the read-out and another has five times its
    level, and the noise to go with it. A single bright frame among others with light proves nothing.
    """
    known = np.isfinite(levels)
    if not known.any():
        return float("nan")
    middle = float(np.median(levels[known]))
    dark = noises < np.sqrt(DARK_LIKE) * read_noise
    lit = known & ~dark & (levels > 5 * abs(middle))
    near = known & (np.abs(levels - middle) <= 0.2 * np.nanmax(np.abs(levels[known])))
    if lit.any() and dark[near].all():
        return float(np.median(levels[lit]))
    # Several with light of their own, far below most others: the others were taken in twilight.
    faint = known & ~dark & (levels < FAINT * middle) & (levels > 0)
    several = faint.sum() > 1 and 3 * faint.sum() >= known.sum()
    return float(np.median(levels[faint])) if several else middle


def light(levels: Floats, noises: Floats, read_noise: float, *, dark_subtracted: bool) -> Floats:
    """(n,) light of each frame as a fraction of the usual one.

    With the dark subtracted that is the ratio of the levels. Without, the pedestal of the detector stays
    in them; then photons are recognised by their noise, sigma² - read_noise², where that is well above the
    read-out's and the level is low, too.
    """
    ref = usual_light(levels, noises, read_noise)
    with np.errstate(all="ignore"):
        fraction = levels / ref if ref > 0 else np.ones_like(levels)
        if dark_subtracted:
            return np.asarray(fraction)
        photons = noises**2 - read_noise**2
        typical = float(np.nanmedian(photons[levels >= PEDESTAL_LEFT * ref])) if ref > 0 else 0.0
        if typical > 0.3 * read_noise**2:
            low = fraction < PEDESTAL_LEFT
            fraction = np.where(low, np.minimum(fraction, np.maximum(photons, 0.0) / typical), fraction)
    return np.asarray(fraction)


def far_from_usual(levels: Floats, allowed: float) -> list[float | None]:
    """Distance of each level from the median where that is above `allowed` and 5 robust sigma, else None.

    Of two nobody can tell which one is odd: none is. So it is where half of them or more are.
    """
    middle, scatter = usual(levels)
    reach = max(allowed, 5 * scatter if levels.size >= 5 else 0.0)
    away = levels - middle
    odd = np.abs(away) > reach
    if levels.size < 3 or 2 * np.count_nonzero(odd) >= levels.size:
        odd[:] = False
    return [float(d) if o else None for d, o in zip(away, odd, strict=True)]
