"""What a few thousand pixels tell of a frame: its level, its noise, how much of it is saturated."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.background import MAD_TO_SIGMA

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]

SIDE = 64  # rows and columns that are looked at: 4,000 pixels, a level to 2 % of the noise


class Figures(NamedTuple):
    """Of one frame, in its own unit; nan where no pixel is good.

    level : median of the good pixels
    noise : standard deviation of a pixel, from differences of neighbours, so that no slope or galaxy counts
    expected : the same from VAR, median; nan without it
    saturated : fraction of the pixels that have data
    """

    level: float
    noise: float
    expected: float
    saturated: float


def figures(
    sci: FloatImage, var: FloatImage | None, dq: MaskImage, *, bad: int = 0xFFFF & ~6, saturated: int = 4
) -> Figures:
    """Measure one frame, from some 4,000 pixels.

    sci, var : (ny, nx) float32; dq : (ny, nx) uint16
    bad : DQ bits of pixels that do not count, all but non-linear and saturated by default
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
    full = float(np.mean((flags[there] & saturated) != 0)) if there.any() else 0.0
    return Figures(level, noise, expected, full)
