"""The plain statement of `pipeline.algorithms.combine`: the same rules on whole
cubes in numpy, to read and to test against.

Cubes are (n, ny, nx) float64; `kept` is True for the samples that still count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.combine import FloatImage, MaskImage, Method, Stack, median_variance
from pipeline.algorithms.levels import frame_levels

Cube = NDArray[np.float64]
Image = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.intp]

# From the least bad to the worst; bits 2 and 4 (non-linear, saturated) are as good as none.
HIERARCHY = (8, 32, 1, 64, 16)


def combine_plain(
    sci: Sequence[FloatImage],
    var: Sequence[FloatImage] | None,
    dq: Sequence[MaskImage],
    method: Method,
    scale: Sequence[float] | None = None,
    zero: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> Stack:
    """As `combine.combine`, slowly."""
    n = len(sci)
    scales, zeros = list(scale or [1.0] * n), list(zero or [0.0] * n)
    values = _scaled(sci, scales, zeros)
    flags = np.stack(dq)
    noise = None if var is None else _scaled(var, [s * s for s in scales], [0.0] * n)
    place = np.where(np.isfinite(values), _places(flags), len(HIERARCHY) + 1)
    best = place.min(axis=0)
    counting = (place == best) & (best <= len(HIERARCHY))
    values = np.where(np.isfinite(values), values, 0.0)

    reject = method.reject
    if noise is None and reject in ("varclip", "ccdclip"):
        reject = "sigclip"
    kept = counting
    if reject == "minmax":
        kept = minmax(values, counting, method.nlow, method.nhigh)
    elif reject == "sigclip":
        kept = clip(values, None, counting, method)
    elif reject == "varclip":
        kept = clip(values, noise, counting, method)
    elif reject == "ccdclip" and noise is not None:
        levels = frame_levels(sci, dq, scales, zeros).astype(np.float64)[:, None, None]
        kept = ccdclip(values - levels, noise, counting, best, method)
    kept = np.where(kept.any(axis=0), kept, counting)

    m = kept.sum(axis=0)
    result, variance = _combined(values, noise, counting, kept, method, reject)
    if weights is not None and method.operation == "mean":
        w = np.where(kept, np.asarray(weights, float)[:, None, None], 0.0)
        total = np.where(kept.any(axis=0), w.sum(axis=0), 1.0)
        result = (w * values).sum(axis=0) / total
        if noise is not None:
            variance = (w * w * noise).sum(axis=0) / total**2
    out_dq = np.bitwise_or.reduce(np.where(kept, flags, 0), axis=0)
    return Stack(
        result.astype(np.float32),
        variance.astype(np.float32),
        np.where(m == 0, 16, out_dq).astype(np.uint16),
        np.where(best < len(HIERARCHY), m, 0).astype(np.uint16),
    )


def _scaled(planes: Sequence[FloatImage], scales: Sequence[float], zeros: Sequence[float]) -> Cube:
    """Each plane * scale + zero, rounded to float32 as the compiled loops do."""
    pairs = zip(planes, scales, zeros, strict=True)
    return np.stack([plane * np.float32(s) + np.float32(z) for plane, s, z in pairs]).astype(np.float64)


def _places(flags: MaskImage) -> Numbers:
    """Place of each sample in the hierarchy of badness, that of its worst bit; unknown bits are the worst."""
    place = np.where(flags & ~np.uint16(127), len(HIERARCHY), 0)
    for number, bit in enumerate(HIERARCHY, start=1):
        place = np.where((flags & bit) > 0, np.maximum(place, number), place)
    return place


def _median(values: Cube, kept: Flags, lower: bool = False) -> Image:
    """Median along the first axis of the samples kept; 0 of none."""
    ordered = np.sort(np.where(kept, values, np.inf), axis=0)
    m = kept.sum(axis=0)
    middle = np.stack([np.maximum(m - 1, 0) // 2, np.minimum(m // 2, len(values) - 1)])
    low, high = np.where(m > 0, np.take_along_axis(ordered, middle, axis=0), 0.0)
    result: Image = low if lower else 0.5 * (low + high)
    return result


def minmax(values: Cube, kept: Flags, nlow: int, nhigh: int) -> Flags:
    """Without the lowest int(m nlow/n + 0.001) of the m samples kept and as many of the highest."""
    n, m = len(values), kept.sum(axis=0)
    low, high = (m * nlow / n + 0.001).astype(int), (m * nhigh / n + 0.001).astype(int)
    order = np.argsort(np.argsort(np.where(kept, values, np.inf), axis=0, kind="stable"), axis=0)
    inner: Flags = kept & (order >= low) & (order < m - high)
    return inner


def clip(values: Cube, noise: Cube | None, kept: Flags, method: Method) -> Flags:
    """Sigma clipping (population sigma of what is left), or with `noise` by each sample's own variance.

    About the median of all samples that count, rejected ones included; without mclip about the mean of
    what is left after the first pass.
    """
    middle = _median(values, kept).astype(np.float32).astype(np.float64)
    kept = kept.copy()
    going_on = kept.any(axis=0)  # pixels where the last pass found something
    for iteration in range(method.max_iters or 100):
        m = np.maximum(kept.sum(axis=0), 1)
        mean = np.where(kept, values, 0.0).sum(axis=0) / m
        if iteration and not method.mclip:
            middle = mean
        square = np.where(kept, (values - mean) ** 2, 0.0).sum(axis=0) / m
        sigma = np.sqrt(square if noise is None else np.maximum(noise, 0.0))
        d = values - middle
        beyond = kept & going_on & ((d < -method.lsigma * sigma) | (d > method.hsigma * sigma))
        going_on = beyond.any(axis=0)
        if not going_on.any():
            break
        kept &= ~beyond
    return kept


def ccdclip(values: Cube, noise: Cube, kept: Flags, best: Numbers, method: Method) -> Flags:
    """Clip each sample by the noise expected at the median; see `combine_rows._ccdclip_pixel`."""
    total = kept.sum(axis=0)
    floor = np.maximum(_median(noise, kept, lower=True), 0.0)
    middle = _median(values, kept).astype(np.float32).astype(np.float64)
    factors = median_variance(len(values), method.exact_median)
    steep = np.maximum(_steepness(middle, best) - 3 * np.sqrt(factors[total] * floor), 0.0)
    tolerance = method.gradient * steep
    kept = kept.copy()
    for _ in range(method.max_iters or 100):
        d = values - middle
        sigma = np.sqrt(np.maximum(noise - d, floor))
        beyond = (d < -method.lsigma * sigma - tolerance) | (d > method.hsigma * sigma + tolerance)
        beyond &= kept & (kept.sum(axis=0) >= 3)
        if not beyond.any():
            break
        kept &= ~beyond
        middle = np.where(beyond.any(axis=0), _median(values, kept), middle)
    return kept


def _steepness(image: Image, best: Numbers) -> Image:
    """Largest difference to those of the eight neighbours that have the same place in the hierarchy."""
    ny, nx = image.shape
    padded = np.pad(image, 1)
    places = np.pad(best, 1, constant_values=-1)
    largest = np.zeros_like(image)
    for j in range(3):
        for i in range(3):
            window = np.s_[j : j + ny, i : i + nx]
            difference = np.abs(padded[window] - image)
            largest = np.where(places[window] == best, np.maximum(largest, difference), largest)
    return largest


def _combined(
    values: Cube, noise: Cube | None, counting: Flags, kept: Flags, method: Method, reject: str
) -> tuple[Image, Image]:
    """Result and variance of the samples kept."""
    m = np.maximum(kept.sum(axis=0), 1)
    of_median = method.operation in ("median", "lmedian")
    if of_median:
        result = _median(values, kept, lower=method.operation == "lmedian")
    else:
        result = np.where(kept, values, 0.0).sum(axis=0) / m
    factors = median_variance(len(values), method.exact_median)
    if noise is None:
        scatter = np.where(kept, (values - result) ** 2, 0.0).sum(axis=0) / np.maximum(m - 1, 1)
        return result, scatter * (factors[m] if of_median else 1 / m)
    whole = method.operation == "median" and reject == "minmax" and method.exact_median
    if whole and method.nlow == method.nhigh:  # trimming both ends leaves the median where it was
        kept, m = counting, np.maximum(counting.sum(axis=0), 1)
    average = np.where(kept, noise, 0.0).sum(axis=0) / m
    if of_median:
        return result, average * factors[m]
    if method.operation == "wtmean":
        weights = np.where(kept, 1 / np.where(noise > 0, noise, np.nan), 0.0)
        total = weights.sum(axis=0)
        usable = np.isfinite(total) & (total > 0)
        total = np.where(usable, total, 1.0)
        weighted = (weights * values).sum(axis=0) / total
        return np.where(usable, weighted, result), np.where(usable, 1 / total, average / m)
    return result, average / m
