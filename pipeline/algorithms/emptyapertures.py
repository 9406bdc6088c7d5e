"""How much the sky alone scatters in an aperture: sums over circles where nothing is."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.background import MAD_TO_SIGMA

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]

FEWEST = 40  # apertures whose scatter tells more than VAR does
AROUND = 5  # cells a side whose mean is the background of the one in their middle
PAIRS = 4  # of the twelve
OF_MAD = 1.17  # standard error of a scatter by the median deviation, times the root of the sample


class Scatter(NamedTuple):
    """noise, error : standard deviation of a sum over a circle, in the unit of the image; nan where too few
    circles are empty. expected : the same by VAR; number : of circles"""

    noise: float
    error: float
    expected: float
    number: int


def scatter(sci: FloatImage, var: FloatImage, good: BoolImage, radius: float) -> Scatter:
    """Sums over circles of this radius (pixels) side by side, where all pixels are good.

    sci, var : (ny, nx); good : (ny, nx), True on pixels of sky
    Of each sum the mean of the 5 x 5 around it is taken off, as a photometer takes off the sky beside a
    star: a slope does not count. What pixels have in common with their neighbours does.
    """
    side = 2 * math.ceil(radius) + 1
    ny, nx = (size // side for size in sci.shape)
    if not (ny and nx):
        return Scatter(math.nan, math.nan, math.nan, 0)
    offset = np.arange(side) - side // 2
    circle = np.hypot(*np.meshgrid(offset, offset)) <= radius
    # A circle of whole pixels has another area than the true one.
    size = math.sqrt(math.pi * radius**2 / np.count_nonzero(circle))

    def cells(image: NDArray[Any]) -> NDArray[Any]:
        return image[: ny * side, : nx * side].reshape(ny, side, nx, side)

    empty = (cells(good) | ~circle[:, None, :]).all(axis=(1, 3))
    inside = circle[:, None, :].astype(np.float32)
    sums = np.where(empty, (cells(sci) * inside).sum(axis=(1, 3), dtype=np.float64), np.nan)
    power = (cells(var) * inside).sum(axis=(1, 3), dtype=np.float64)[empty]
    expected = size * math.sqrt(max(float(np.median(power)), 0.0)) if power.size else math.nan
    left = _less_background(sums)
    number = int(left.size)
    if number < FEWEST:
        return Scatter(math.nan, math.nan, expected, number)
    noise = size * MAD_TO_SIGMA * float(np.median(np.abs(left)))
    return Scatter(noise, OF_MAD * noise / math.sqrt(number), expected, number)


def _less_background(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each sum less the mean of those around it, brought to the scatter of the sum alone.

    Only pairs on opposite sides count, so that a slope goes whatever is missing; fewer than PAIRS tell
    nothing.
    """
    reach = AROUND // 2
    padded = np.pad(sums, reach, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, (AROUND, AROUND)).reshape(*sums.shape, -1)
    half = around.shape[-1] // 2
    pairs = (around[..., :half] + around[..., : -half - 1 : -1]) / 2
    known = np.isfinite(pairs)
    number = known.sum(axis=-1)
    use = np.isfinite(sums) & (number >= PAIRS)
    background = np.where(known, pairs, 0.0).sum(axis=-1)[use] / number[use]
    left: NDArray[np.float64] = (sums[use] - background) / np.sqrt(1 + 0.5 / number[use])
    return left
