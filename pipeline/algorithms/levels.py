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
    thinned = [plane[step].astype(np.float64) * s + z for plane, s, z in zip(sci, scales, zeros, strict=True)]
    cube = np.stack(thinned)
    bad = np.stack([plane[step] & ~np.uint16(6) for plane in dq]) > 0
    cube[bad | ~np.isfinite(cube)] = np.nan
    count = np.isfinite(cube).sum(axis=0)
    cube, count = cube[:, count >= 3], count[count >= 3]
    ordered, column = np.sort(cube, axis=0), np.arange(count.size)  # what is no number comes last
    difference = cube - 0.5 * (ordered[(count - 1) // 2, column] + ordered[count // 2, column])
    levels = np.zeros(len(sci), np.float32)
    for k, own in enumerate(difference):
        if np.isfinite(own).any():
            levels[k] = np.median(own[np.isfinite(own)])
    return levels


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
