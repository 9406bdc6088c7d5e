"""What a few thousand pixels tell of a frame: its level, its noise, how much of it is saturated."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.background import MAD_TO_SIGMA

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]

STEPS = 3  # of which each leaves a third of what the median is off by
SIDE = 64  # rows and columns that are looked at: 4,000 pixels, a level to 2 % of the noise


class Figures(NamedTuple):
    """Of one frame, in its own unit; nan where no pixel is good.

    level : middle of the good pixels, finer than a median of whole counts, which is one of them
    noise : standard deviation of a pixel, from differences of neighbours, so that no slope or galaxy counts
    expected : the same from VAR, median; nan without it
    saturated : fraction of the pixels that have data;  bent : the same of what is beyond the linear range
    """

    level: float
    noise: float
    expected: float
    saturated: float
    bent: float = 0.0


def figures(
    sci: FloatImage,
    var: FloatImage | None,
    dq: MaskImage,
    *,
    bad: int = 0xFFFF & ~6,
    saturated: int = 4,
    bent: int = 6,
) -> Figures:
    """Measure one frame, from some 4,000 pixels.

    sci, var : (ny, nx) float32; dq : (ny, nx) uint16
    bad, saturated, bent : DQ bits of pixels that do not count (all but non-linear and saturated by
        default), of saturated ones, and of those beyond the linear range
    """
    thin = [max(1, side // SIDE) for side in sci.shape]
    some = tuple(slice(step // 2, None, step) for step in thin)
    flags = dq[some]
    good = (flags & bad) == 0
    values = sci[some][good]
    values = values[np.isfinite(values)]
    level = float(np.median(values)) if values.size else math.nan
    known = var is not None and good.any()
    expected = (
        math.sqrt(max(float(np.median(var[some][good])), 0.0)) if known and var is not None else math.nan
    )
    rows, beside = some[0], max(2, thin[1])
    left, right = slice(0, sci.shape[1] - 1, beside), slice(1, None, beside)
    pair = ((dq[rows, left] | dq[rows, right]) & bad) == 0
    steps = (sci[rows, right] - sci[rows, left])[pair]
    steps = steps[np.isfinite(steps)]
    noise = MAD_TO_SIGMA * float(np.median(np.abs(steps))) / math.sqrt(2) if steps.size else math.nan
    there = (flags & 16) == 0
    full, beyond = (
        float(np.mean((flags[there] & bits) != 0)) if there.any() else 0.0 for bits in (saturated, bent)
    )
    return Figures(_between_counts(values, level, noise), noise, expected, full, beyond)


def _between_counts(values: FloatImage, level: float, noise: float) -> float:
    """The median made finer than a count of the detector, 12 electrons: what is farther off than the noise
    counts for no more than that."""
    if not (noise > 0 and math.isfinite(level)):
        return level
    for _ in range(STEPS):
        level += float(np.mean(np.clip(values - level, -noise, noise)))
    return level
