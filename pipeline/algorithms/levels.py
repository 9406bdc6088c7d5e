"""How the levels of several images of one scene relate: factors, offsets, and which drifts to allow for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
MANY = 10000  # values from which their median is found by counting
MaskImage = NDArray[np.uint16]
Floats = NDArray[np.float64]

Pair = tuple[float, int]  # how two images relate, and the number of pixels that this rests on
# (image a, its mask, image b, its mask) -> their relation
Comparison = Callable[[FloatImage, MaskImage, FloatImage, MaskImage], Pair]
# (place of a, place of b, comparing them) -> their relation, compared now or known from before
Known = Callable[[int, int, Callable[[], Pair]], Pair]


def relative_scales(
    sci: Sequence[FloatImage], dq: Sequence[MaskImage], thin: int = 1, known: Known | None = None
) -> list[float]:
    """Factors that bring every image to the level of the first, from the ratios of all pairs.

    Each pair gives the median ratio of the pixels that are positive and unflagged in both, with their
    number as weight; least squares in the logarithm. thin takes every so-manieth row and column.
    known: asked first for what a pair gives, where many sets of the same images are compared.
    All 1 where the fit is not finite (DRAGONS stackFrames).
    """
    scales = np.exp(_fit_pairs(sci, dq, thin, _log_ratio, known))
    return [float(s) for s in scales] if np.isfinite(scales).all() else [1.0] * len(sci)


def relative_zeros(
    sci: Sequence[FloatImage], dq: Sequence[MaskImage], thin: int = 1, known: Known | None = None
) -> list[float]:
    """Offsets that bring every image to the level of the first; as `relative_scales`, from differences."""
    zeros = _fit_pairs(sci, dq, thin, _difference, known)
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


def _log_ratio(a: FloatImage, a_dq: MaskImage, b: FloatImage, b_dq: MaskImage) -> Pair:
    found = _both_good(a, a_dq, b, b_dq, True)
    return (float(np.log(median(found))), found.size) if found.size else (0.0, 0)


def _difference(a: FloatImage, a_dq: MaskImage, b: FloatImage, b_dq: MaskImage) -> Pair:
    found = _both_good(a, a_dq, b, b_dq, False)
    return (float(median(found)), found.size) if found.size else (0.0, 0)


def median(values: NDArray[np.float32]) -> np.float32:
    """np.median of many float32, to the bit, in a fifth of the time."""
    if values.size < MANY:
        return np.float32(np.median(values))
    low, high = np.percentile(values[:: values.size // 1000], (25, 75)).astype(np.float64)
    below = _middle_bin(values, 2.5 * low - 1.5 * high, 2.5 * high - 1.5 * low)
    if below is None:
        return np.float32(np.median(values))
    rank, inside = below
    inside.sort()
    first = (values.size - 1) // 2 - rank
    if first + 1 - values.size % 2 >= inside.size:  # the two middle ones lie in two bins
        return np.float32(np.median(values))
    return np.float32((inside[first] + inside[first + 1 - values.size % 2]) / np.float32(2))


@njit(cache=True, nogil=True)
def _middle_bin(values: FloatImage, low: float, high: float) -> Any:  # pragma: no cover - compiled
    """(how many values lie below the bin of the lower middle one, the values in it); None where there is a
    value that is not finite, or the middle lies outside."""
    bins = 2048
    if not low < high:
        return None
    scale = bins / (high - low)
    counts = np.zeros(bins + 2, np.int64)
    for v in values:
        if not np.isfinite(v):
            return None
        counts[int(min(max((v - low) * scale + 1.0, 0.0), bins + 1.0))] += 1
    rank, place, below = (values.size - 1) // 2, 0, 0
    while below + counts[place] <= rank:
        below += counts[place]
        place += 1
    inside = np.empty(counts[place], np.float32)
    n = 0
    for v in values:
        if int(min(max((v - low) * scale + 1.0, 0.0), bins + 1.0)) == place:
            inside[n] = v
            n += 1
    return below, inside


@njit(cache=True, nogil=True)
def _both_good(
    a: FloatImage, a_dq: MaskImage, b: FloatImage, b_dq: MaskImage, ratio: bool
) -> Any:  # pragma: no cover - compiled
    """Ratios of the pixels that are unflagged and positive in both, or differences of the unflagged."""
    ny, nx = a.shape
    out = np.empty(ny * nx, np.float32)
    n = 0
    for y in range(ny):
        for x in range(nx):
            if a_dq[y, x] == 0 and b_dq[y, x] == 0:
                if not ratio:
                    out[n] = a[y, x] - b[y, x]
                    n += 1
                elif a[y, x] > 0 and b[y, x] > 0:
                    out[n] = a[y, x] / b[y, x]
                    n += 1
    return out[:n]


def _fit_pairs(
    sci: Sequence[FloatImage], dq: Sequence[MaskImage], thin: int, compare: Comparison, known: Known | None
) -> Floats:
    """Least squares for x with x_j - x_i = compare(i, j) and x_0 = 0; a pair without pixels says nothing."""
    step = (slice(None, None, thin), slice(None, None, thin))
    planes = [np.ascontiguousarray(plane[step]) for plane in sci]
    masks = [np.ascontiguousarray(plane[step]) for plane in dq]
    n = len(sci)
    matrix, vector = np.zeros((n, n)), np.zeros(n)  # normal equations: far fewer rows than there are pairs
    for i, j in combinations(range(n), 2):

        def pair(i: int = i, j: int = j) -> Pair:
            return compare(planes[i], masks[i], planes[j], masks[j])

        value, number = known(i, j, pair) if known else pair()
        matrix[i, i] += number
        matrix[j, j] += number
        matrix[i, j] -= number
        matrix[j, i] -= number
        vector[j] += number * value
        vector[i] -= number * value
    if not (np.isfinite(matrix).all() and np.isfinite(vector).all()):
        return np.full(n, np.nan)
    solution = np.linalg.lstsq(matrix[1:, 1:], vector[1:], rcond=None)[0]
    return np.concatenate([[0.0], solution])
