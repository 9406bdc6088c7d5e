"""The fixed pattern of the detector: what dithered frames have left without smooth sky and target.

A sky that was divided by a flat is smooth but for errors of flat and dark, the same in every frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.background import robust_start
from pipeline.algorithms.objectmasks import box_mean

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]

SAME_PLACE = 8  # pixels: frames nearer than this see the target on the same pixels, and tell nothing of them
COMPACT, SMOOTH = 15, 31  # pixels a side of boxes: what is smaller is a star; what is wider is no pattern
STAR = 4.0  # sigma above its surroundings from which a star is masked


class Mosaic:
    """Sum of frames on a common grid of the sky, from which frames of one place can be left out again."""

    def __init__(self, shape: tuple[int, int], shifts: Sequence[tuple[int, int]]) -> None:
        """shape : (ny, nx) of a frame; shifts : (x, y) whole pixels at which each frame's (0, 0) lies"""
        x0, y0 = min(s[0] for s in shifts), min(s[1] for s in shifts)
        self.corners = [(x - x0, y - y0) for x, y in shifts]
        self.shape = shape
        height, width = (max(c[k] for c in self.corners) + shape[1 - k] for k in (1, 0))
        self.total = np.zeros((height, width), np.float32)
        self.weight = np.zeros((height, width), np.float32)

    def place(self, k: int) -> tuple[slice, slice]:
        x, y = self.corners[k]
        return slice(y, y + self.shape[0]), slice(x, x + self.shape[1])

    def add(self, k: int, light: FloatImage, good: BoolImage) -> None:
        self.total[self.place(k)] += np.where(good, light, np.float32(0))
        self.weight[self.place(k)] += good

    def near(self, k: int) -> list[int]:
        """Frames of the same place, k among them."""
        x, y = self.corners[k]
        return [j for j, c in enumerate(self.corners) if max(abs(c[0] - x), abs(c[1] - y)) < SAME_PLACE]

    def others(
        self, k: int, near: Sequence[tuple[int, FloatImage, BoolImage]]
    ) -> tuple[FloatImage, FloatImage]:
        """(mean, number) of all frames but the `near` ones at the pixels of frame k."""
        total, weight = self.total[self.place(k)].copy(), self.weight[self.place(k)].copy()
        x, y = self.corners[k]
        ny, nx = self.shape
        for j, light, good in near:
            dx, dy = self.corners[j][0] - x, self.corners[j][1] - y
            here = np.s_[max(dy, 0) : ny + min(dy, 0), max(dx, 0) : nx + min(dx, 0)]
            there = np.s_[max(-dy, 0) : ny - max(dy, 0), max(-dx, 0) : nx - max(dx, 0)]
            total[here] -= np.where(good, light, np.float32(0))[there]
            weight[here] -= good[there]
        return np.asarray(total / np.maximum(weight, np.float32(1))), weight


def residual(
    light: FloatImage, bad: BoolImage, others: FloatImage, number: FloatImage, sigma: float
) -> tuple[FloatImage, BoolImage]:
    """(what a frame has that the others do not show, where this is not known).

    light : (ny, nx) frame less its smooth sky; others, number : mean and number of the other frames there
    sigma : noise of a pixel of one frame

    Stars of the others are masked: they do not fall on whole pixels, and change. What is wider than a box is
    taken off: it is an error of registration on a slope of the target.
    """
    unknown = bad | (number < 0.5)
    excess = others - box_mean(others, number < 0.5, COMPACT)
    unknown |= np.abs(excess) > STAR * sigma / np.sqrt(np.maximum(number, np.float32(1)))
    left = light - others
    left -= box_mean(left, unknown, SMOOTH)
    return left, unknown


def pattern_variance(left: Sequence[FloatImage], unknown: Sequence[BoolImage]) -> tuple[float, float]:
    """(variance that residuals have in common, variance of a residual), robust, from one pixel in nine.

    The mean of n residuals of independent noise N and common pattern P has the variance N / n + P.
    """
    thin = np.s_[::3, ::3]
    known = ~np.logical_or.reduce([u[thin] for u in unknown])
    n = len(left)
    if n < 2 or np.count_nonzero(known) < 100:
        return 0.0, 0.0
    samples = [plane[thin][known] for plane in left]
    single = float(np.median([robust_start(s)[1] ** 2 for s in samples]))
    mean = robust_start(np.mean(samples, axis=0))[1] ** 2
    return max((mean - single / n) / (1 - 1 / n), 0.0), single
