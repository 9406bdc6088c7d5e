"""How the levels of several images of one scene relate: factors, offsets, and which drifts to allow for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]
Floats = NDArray[np.float64]

# (image a, image b, pixels good in both) -> (their relation, number of pixels that it rests on)
Comparison = Callable[[FloatImage, FloatImage, NDArray[np.bool_]], tuple[float, int]]


def relative_scales(sci: Sequence[FloatImage], dq: Sequence[MaskImage], thin: int = 1) -> list[float]:
    """Factors that bring every image to the level of the first, from the ratios of all pairs.

    Each pair gives the median ratio of the pixels that are positive and unflagged in both, with their
    number as weight; least squares in the logarithm. thin takes every so-manieth row and column.
    All 1 where the fit is not finite (DRAGONS stackFrames).
    """
    scales = np.exp(_fit_pairs(sci, dq, thin, _log_ratio))
    return [float(s) for s in scales] if np.isfinite(scales).all() else [1.0] * len(sci)


def relative_zeros(sci: Sequence[FloatImage], dq: Sequence[MaskImage], thin: int = 1) -> list[float]:
    """Offsets that bring every image to the level of the first; as `relative_scales`, from differences."""
    zeros = _fit_pairs(sci, dq, thin, _difference)
    return [float(z) for z in zeros] if np.isfinite(zeros).all() else [0.0] * len(sci)


def frame_levels(
    sci: Sequence[FloatImage], dq: Sequence[MaskImage], scales: Sequence[float], zeros: Sequence[float]
) -> FloatImage:
    """By how much each image as a whole lies above the median of all: (n,) float32, from 1 pixel in 49.

    `ccdclip` compares samples after taking this off, so that a sky or a lamp that drifts is no outlier.
    """
    step = (slice(None, None, 7), slice(None, None, 7))
    cube = np.empty((len(sci), *sci[0][step].shape))  # all there is of many images: no copies of it are made
    for own, plane, mask, s, z in zip(cube, sci, dq, scales, zeros, strict=True):
        own[...] = plane[step].astype(np.float64) * s + z
        own[((mask[step] & ~np.uint16(6)) > 0) | ~np.isfinite(own)] = np.nan
    middle = np.stack([_middle_of_three(row) for row in cube.swapaxes(0, 1)])
    levels = np.zeros(len(sci), np.float32)
    for k, own in enumerate(cube):
        own -= middle
        if np.isfinite(own).any():
            levels[k] = np.median(own[np.isfinite(own)])
    return levels


def _middle_of_three(samples: Floats) -> Floats:
    """Median of each column of (n, nx) without what is no number; none of less than three samples."""
    ordered, count = np.sort(samples, axis=0), np.isfinite(samples).sum(axis=0)  # no number: comes last
    column, enough = np.arange(count.size), count >= 3
    middle = 0.5 * (
        ordered[(count - 1) // 2, column] + ordered[np.minimum(count // 2, len(samples) - 1), column]
    )
    return np.where(enough, middle, np.nan)


def _log_ratio(a: FloatImage, b: FloatImage, good: NDArray[np.bool_]) -> tuple[float, int]:
    good = good & (a > 0) & (b > 0)
    number = int(np.count_nonzero(good))
    return (float(np.log(np.median(a[good] / b[good]))), number) if number else (0.0, 0)


def _difference(a: FloatImage, b: FloatImage, good: NDArray[np.bool_]) -> tuple[float, int]:
    number = int(np.count_nonzero(good))
    return (float(np.median(a[good] - b[good])), number) if number else (0.0, 0)


def _fit_pairs(sci: Sequence[FloatImage], dq: Sequence[MaskImage], thin: int, compare: Comparison) -> Floats:
    """Least squares for x with x_j - x_i = compare(i, j) and x_0 = 0; a pair without pixels says nothing."""
    step = (slice(None, None, thin), slice(None, None, thin))
    planes = [np.ascontiguousarray(plane[step]) for plane in sci]
    good = [plane[step] == 0 for plane in dq]
    rows, values = [], []
    for i, j in combinations(range(len(sci)), 2):
        value, number = compare(planes[i], planes[j], good[i] & good[j])
        row = np.zeros(len(sci))
        row[i], row[j] = -np.sqrt(number), np.sqrt(number)
        rows.append(row[1:])
        values.append(value * np.sqrt(number))
    if not rows:
        return np.zeros(len(sci))
    solution = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.concatenate([[0.0], solution])
