"""The compiled loops of `combine`: one band of rows of n images at a time.

The samples of every pixel are put in order by a sorting network that works on whole rows (no branches, so
the processor does 8 or 16 pixels in one instruction). Outliers are looked for in detail only at the few
pixels where a test of whole rows says that there may be one.

One long module on purpose: numba compiles a caller anew only when its own file has changed, so loops that
call one another stay in one file.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]
Floats64 = NDArray[np.float64]
Bits = NDArray[np.uint16]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int32]

MEAN, MEDIAN, WTMEAN, LMEDIAN = 0, 1, 2, 3
NONE, SIGCLIP, VARCLIP, MINMAX, CCDCLIP = 0, 1, 2, 3, 4
NO_DATA = 16
OUT, KEPT, REJECTED = 0, 1, 2  # values of Band.kept


class Band(NamedTuple):
    """Working planes of one band of rows.

    values, variances, flags : (n, rows, nx) the samples
    ordered : (n, rows, nx) the values that count, less the level of their frame, ascending, then +inf
    kept : (n, rows, nx) KEPT counts, REJECTED was rejected, OUT does not count by its DQ
    total, best : (rows, nx) how many samples count, and their place in the DQ hierarchy
    centre : (rows, nx) median of those
    touched : (rows, nx) 1 where something was rejected
    """

    values: Floats32
    variances: Floats32
    flags: Bits
    ordered: Floats32
    kept: Bytes
    total: Ints
    best: Bytes
    centre: Floats32
    touched: Bytes


class Rule(NamedTuple):
    """`combine.Method` in numbers; factors[n] is the variance of a median of n, weights (n,) of the images
    in a mean, () where all are alike."""

    operation: int
    rejection: int
    noise_known: bool
    lsigma: float
    hsigma: float
    mclip: bool
    max_iters: int
    nlow: int
    nhigh: int
    gradient: float
    symmetric: bool
    factors: Floats64
    weights: Floats64


def new_band(shape: tuple[int, int, int], *, noise_known: bool) -> Band:
    """Room for a band of shape (n, rows, nx), to be used again and again."""
    return Band(
        values=np.empty(shape, np.float32),
        variances=np.empty(shape if noise_known else (1, 1, 1), np.float32),
        flags=np.empty(shape, np.uint16),
        ordered=np.empty(shape, np.float32),
        kept=np.empty(shape, np.uint8),
        total=np.empty(shape[1:], np.int32),
        best=np.empty(shape[1:], np.uint8),
        centre=np.empty(shape[1:], np.float32),
        touched=np.empty(shape[1:], np.uint8),
    )


@cache
def sorting_network(n: int) -> NDArray[np.int64]:
    """Pairs (i, j) to compare and exchange, in order, that sort any n values: (m, 2).

    Batcher's odd-even merge sort (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M).
    """
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(j, min(j + k, n - k)):
                    if i // (2 * p) == (i + k) // (2 * p):
                        pairs.append((i, i + k))
            k //= 2
        p *= 2
    return np.array(pairs, np.int64).reshape(-1, 2)


@njit(cache=True, nogil=True)
def stack_rows(
    band: Band, levels: Floats32, network: NDArray[np.int64], rule: Rule, loaded: int, first: int,
    out_sci: Floats32, out_var: Floats32, out_dq: Bits, out_coverage: Bits,
) -> None:  # fmt: skip
    """Stack the rows of the band from `first` on into the rows of the results.

    levels : (n,) of each frame as a whole, taken off before samples are compared
    loaded : rows in the band, those beside the stacked ones included
    """
    for y in range(loaded):
        _order_row(band, y, levels, network)
    level = False
    for k in range(levels.size):
        level |= levels[k] != np.float32(0.0)
    for row in range(out_sci.shape[0]):
        y = first + row
        if rule.rejection == MINMAX:
            _minmax_row(band, y, rule)
        elif rule.rejection != NONE:
            _clip_row(band, y, loaded, levels, rule)
        _combine_row(band, y, level, rule, out_sci[row], out_var[row], out_dq[row], out_coverage[row])


@njit(cache=True, nogil=True)
def rank(flags: int) -> int:
    """Place in the hierarchy of badness: 0 good, non-linear or saturated, to 5 no data (or unknown bits)."""
    place = 1 if flags & 8 else 0
    place = 2 if flags & 32 else place
    place = 3 if flags & 1 else place
    place = 4 if flags & 64 else place
    return 5 if flags & 0xFF90 else place  # a chain of choices, not of jumps: done for many pixels at once


@njit(cache=True, nogil=True)
def _order_row(band: Band, y: int, levels: Floats32, network: NDArray[np.int64]) -> None:
    """Decide which samples of a row count, the least bad, put them in order, take their median."""
    n, _, nx = band.values.shape
    values, ordered, kept, flags = band.values, band.ordered, band.kept, band.flags
    best, total = band.best[y], band.total[y]
    best[:] = 6
    total[:] = 0
    band.touched[y] = 0
    for k in range(n):
        for x in range(nx):
            v = values[k, y, x]
            place = np.uint8(rank(flags[k, y, x]) if v - v == np.float32(0.0) else 6)
            kept[k, y, x] = place
            best[x] = min(best[x], place)
    for k in range(n):
        level = levels[k]
        for x in range(nx):
            use = (kept[k, y, x] == best[x]) & (best[x] < 6)
            kept[k, y, x] = KEPT if use else OUT
            total[x] += np.int32(use)
        for x in range(nx):
            ordered[k, y, x] = values[k, y, x] - level if kept[k, y, x] == KEPT else np.float32(np.inf)
    for c in range(network.shape[0]):
        i, j = network[c, 0], network[c, 1]
        for x in range(nx):
            a, b = ordered[i, y, x], ordered[j, y, x]
            ordered[i, y, x] = a if a < b else b
            ordered[j, y, x] = b if a < b else a
    for x in range(nx):
        band.centre[y, x] = _middle(band, y, x, 0, n)
    for x in range(nx):
        if total[x] < n:
            band.centre[y, x] = _middle(band, y, x, 0, total[x]) if total[x] > 0 else 0.0


@njit(cache=True, nogil=True)
def _middle(band: Band, y: int, x: int, start: int, left: int) -> float:
    """Median of `left` ordered samples from place `start` on."""
    a = np.float64(band.ordered[start + (left - 1) // 2, y, x])
    b = np.float64(band.ordered[start + left // 2, y, x])
    return 0.5 * (a + b)


@njit(cache=True, nogil=True)
def _minmax_row(band: Band, y: int, rule: Rule) -> None:
    """Reject the lowest and highest samples of a row."""
    n, _, nx = band.values.shape
    values, kept = band.values, band.kept
    below, above = np.full(nx, -np.inf, np.float32), np.full(nx, np.inf, np.float32)
    wanted, found = np.zeros(nx, np.int32), np.zeros(nx, np.int32)
    for total in range(1, n + 1):  # the limits have the same places wherever as many samples count
        low, high = int(total * rule.nlow / n + 0.001), int(total * rule.nhigh / n + 0.001)
        if not 0 < low + high < total:
            continue
        for x in range(nx):
            if band.total[y, x] == total:
                wanted[x] = low + high
                below[x] = band.ordered[low, y, x]
                above[x] = band.ordered[total - 1 - high, y, x]
                band.touched[y, x] = 1
    for k in range(n):
        for x in range(nx):
            v = values[k, y, x]
            beyond = (kept[k, y, x] == KEPT) & ((v < below[x]) | (v > above[x]))
            kept[k, y, x] = REJECTED if beyond else kept[k, y, x]
            found[x] += np.int32(beyond)
    for x in range(nx):
        if found[x] != wanted[x]:
            _minmax_ties(band, y, x, rule, below[x], above[x])


@njit(cache=True, nogil=True)
def _minmax_ties(band: Band, y: int, x: int, rule: Rule, below: float, above: float) -> None:
    """Of samples equal to a limit reject as many as are wanted still: the first low, the last high ones."""
    n = band.values.shape[0]
    total = band.total[y, x]
    low, high = int(total * rule.nlow / n + 0.001), int(total * rule.nhigh / n + 0.001)
    for k in range(n):
        if band.kept[k, y, x] == REJECTED:
            low -= band.values[k, y, x] < below
            high -= band.values[k, y, x] > above
    for k in range(n):
        if low > 0 and band.kept[k, y, x] == KEPT and band.values[k, y, x] == below:
            band.kept[k, y, x] = REJECTED
            low -= 1
    for k in range(n - 1, -1, -1):
        if high > 0 and band.kept[k, y, x] == KEPT and band.values[k, y, x] == above:
            band.kept[k, y, x] = REJECTED
            high -= 1


@njit(cache=True, nogil=True)
def _clip_row(band: Band, y: int, loaded: int, levels: Floats32, rule: Rule) -> None:
    """Sigma clipping, variance clipping or ccdclip of a row."""
    n, _, nx = band.values.shape
    low, high = np.empty(nx, np.float32), np.empty(nx, np.float32)
    if rule.rejection == SIGCLIP:
        _scatter_limits(band, y, rule, low, high)
    else:
        _noise_limits(band, y, rule, low, high)
    for k in range(n):
        level = levels[k]
        for x in range(nx):
            v = band.values[k, y, x] - level
            beyond = (band.kept[k, y, x] == KEPT) & ((v < low[x]) | (v > high[x]))
            band.touched[y, x] |= np.uint8(beyond)
    scratch = np.empty(n, np.float32)
    for x in range(nx):
        if band.touched[y, x]:
            if rule.rejection == CCDCLIP:
                rejected = _ccdclip_pixel(band, y, x, loaded, levels, rule, scratch)
            else:
                rejected = _clip_pixel(band, y, x, rule)
            band.touched[y, x] = rejected > 0


@njit(cache=True, nogil=True)
def _scatter_limits(band: Band, y: int, rule: Rule, low: Floats32, high: Floats32) -> None:
    """Limits of a first sigma clipping: median -+ limit times the population sigma about the mean."""
    n, _, nx = band.values.shape
    values, kept = band.values, band.kept
    mean, square = np.zeros(nx, np.float64), np.zeros(nx, np.float64)
    for k in range(n):
        for x in range(nx):
            mean[x] += values[k, y, x] if kept[k, y, x] == KEPT else 0.0
    for x in range(nx):
        mean[x] /= max(band.total[y, x], 1)
    for k in range(n):
        for x in range(nx):
            d = np.float64(values[k, y, x]) - mean[x]
            square[x] += d * d if kept[k, y, x] == KEPT else 0.0
    for x in range(nx):
        sigma = np.sqrt(square[x] / max(band.total[y, x], 1))
        low[x] = band.centre[y, x] - rule.lsigma * sigma
        high[x] = band.centre[y, x] + rule.hsigma * sigma


@njit(cache=True, nogil=True)
def _noise_limits(band: Band, y: int, rule: Rule, low: Floats32, high: Floats32) -> None:
    """Limits within which no sample can be an outlier, from the smallest variance at the pixel."""
    n, _, nx = band.values.shape
    least = np.full(nx, np.inf, np.float32)
    for k in range(n):
        for x in range(nx):
            v = band.variances[k, y, x]
            least[x] = v if (band.kept[k, y, x] == KEPT) & (v < least[x]) else least[x]
    for x in range(nx):
        sigma = np.sqrt(max(least[x], np.float32(0.0)))
        low[x] = band.centre[y, x] - rule.lsigma * sigma
        high[x] = band.centre[y, x] + rule.hsigma * sigma


@njit(cache=True, nogil=True)
def _clip_pixel(band: Band, y: int, x: int, rule: Rule) -> int:
    """Iterate sigma or variance clipping at one pixel; returns how many samples it rejected.

    As in DRAGONS the median stays that of all samples that count, rejected ones included.
    """
    n = band.values.shape[0]
    middle = np.float64(band.centre[y, x])
    rejected = 0
    for iteration in range(rule.max_iters):
        left, mean, square = 0, 0.0, 0.0
        for k in range(n):
            if band.kept[k, y, x] == KEPT:
                left += 1
                mean += band.values[k, y, x]
        if left == 0:
            break
        mean /= left
        for k in range(n):
            if band.kept[k, y, x] == KEPT:
                square += (band.values[k, y, x] - mean) ** 2
        if iteration > 0 and not rule.mclip:
            middle = np.float64(mean)
        sigma = math.sqrt(square / left)
        found = 0
        for k in range(n):
            if band.kept[k, y, x] == KEPT:
                if rule.rejection == VARCLIP:
                    sigma = math.sqrt(max(band.variances[k, y, x], 0.0))
                d = np.float64(band.values[k, y, x]) - middle
                if d < -rule.lsigma * sigma or d > rule.hsigma * sigma:
                    band.kept[k, y, x] = REJECTED
                    found += 1
        rejected += found
        if found == 0:
            break
    return _unless_all(band, y, x, rejected)


@njit(cache=True, nogil=True)
def _unless_all(band: Band, y: int, x: int, rejected: int) -> int:
    """Where nothing is left, take everything back; returns how many samples stay rejected."""
    n = band.values.shape[0]
    if rejected < band.total[y, x]:
        return rejected
    for k in range(n):
        if band.kept[k, y, x] == REJECTED:
            band.kept[k, y, x] = KEPT
    return 0


@njit(cache=True, nogil=True)
def _ccdclip_pixel(
    band: Band, y: int, x: int, loaded: int, levels: Floats32, rule: Rule, scratch: Floats32
) -> int:
    """Clip one pixel by the noise expected at its median; returns how many samples it rejected.

    A sample's variance holds the Poisson noise of its own electrons, so a cosmic ray shields itself. What
    counts is the variance that it would have at the level of the median: less by the electrons that it lies
    above it, but never less than the lower median of the variances, which no single hit can raise. With
    fewer than three samples nothing tells which one is wrong, and they stay.
    """
    n = band.values.shape[0]
    total = band.total[y, x]
    if total < 3:
        return 0
    left = 0
    for k in range(n):
        if band.kept[k, y, x] == KEPT:
            scratch[left] = band.variances[k, y, x]
            left += 1
    sort(scratch, left)
    floor = max(np.float64(scratch[(left - 1) // 2]), 0.0)
    middle = np.float64(band.centre[y, x])
    tolerance = _steepness(band, y, x, loaded, 3.0 * math.sqrt(rule.factors[total] * floor)) * rule.gradient
    rejected = 0
    for _ in range(rule.max_iters):
        found, left = 0, 0
        for k in range(n):
            if band.kept[k, y, x] == KEPT:
                d = np.float64(band.values[k, y, x]) - levels[k] - middle
                sigma = math.sqrt(max(band.variances[k, y, x] - d, floor))
                if d < -rule.lsigma * sigma - tolerance or d > rule.hsigma * sigma + tolerance:
                    band.kept[k, y, x] = REJECTED
                    found += 1
                else:
                    scratch[left] = band.values[k, y, x] - levels[k]
                    left += 1
        rejected += found
        if found == 0 or left < 3:
            break
        sort(scratch, left)
        middle = 0.5 * (np.float64(scratch[(left - 1) // 2]) + np.float64(scratch[left // 2]))
    return _unless_all(band, y, x, rejected)


@njit(cache=True, nogil=True)
def _steepness(band: Band, y: int, x: int, loaded: int, noise: float) -> float:
    """Largest difference of the median image to the eight neighbours, as far as it exceeds the noise.

    Stars move between frames and change their width; where the median image is steep, or peaks, a good
    sample may lie far from it. Neighbours of another place in the DQ hierarchy (a hot pixel) do not tell.
    """
    nx = band.centre.shape[1]
    largest = 0.0
    for j in range(max(y - 1, 0), min(y + 2, loaded)):
        for i in range(max(x - 1, 0), min(x + 2, nx)):
            if band.best[j, i] == band.best[y, x]:
                largest = max(largest, abs(np.float64(band.centre[j, i]) - band.centre[y, x]))
    return max(largest - noise, 0.0)


@njit(cache=True, nogil=True)
def sort(a: Any, n: int) -> None:
    """Sort the first n values of a in place."""
    if n > 24:
        a[:n].sort()
        return
    for i in range(1, n):
        v = a[i]
        j = i - 1
        while j >= 0 and a[j] > v:
            a[j + 1] = a[j]
            j -= 1
        a[j + 1] = v


@njit(cache=True, nogil=True)
def _combine_row(
    band: Band, y: int, levelled: bool, rule: Rule,
    out_sci: Floats32, out_var: Floats32, out_dq: Bits, out_coverage: Bits,
) -> None:  # fmt: skip
    """What the samples left in a row say together."""
    n, _, nx = band.values.shape
    values, kept, flags = band.values, band.kept, band.flags
    result, noise = np.zeros(nx, np.float64), np.zeros(nx, np.float64)
    left, bits = np.zeros(nx, np.int32), np.zeros(nx, np.uint16)
    for k in range(n):
        for x in range(nx):
            use = kept[k, y, x] == KEPT
            left[x] += np.int32(use)
            bits[x] |= flags[k, y, x] if use else np.uint16(0)
        for x in range(nx):
            result[x] += values[k, y, x] if kept[k, y, x] == KEPT else 0.0
    if rule.noise_known:
        last = REJECTED if rule.symmetric else KEPT
        for k in range(n):
            for x in range(nx):
                use = (kept[k, y, x] != OUT) & (kept[k, y, x] <= last)
                noise[x] += band.variances[k, y, x] if use else 0.0
    if rule.operation == WTMEAN and rule.noise_known:
        _weigh_row(band, y, left, result, noise)
    elif rule.operation == MEDIAN or rule.operation == LMEDIAN:
        _median_row(band, y, left, levelled, rule, result)
    elif rule.weights.size > 0:
        _mean_by_weights(band, y, rule, left, result, noise)
    else:
        for x in range(nx):
            result[x] /= max(left[x], 1)
    if not rule.noise_known:
        _scatter_row(band, y, left, result, noise)
    for x in range(nx):
        out_sci[x] = result[x]
        out_dq[x] = bits[x] if left[x] else np.uint16(NO_DATA)
        out_coverage[x] = left[x] if band.best[y, x] < 5 else 0
    if rule.operation == MEDIAN or rule.operation == LMEDIAN:
        for x in range(nx):
            samples = band.total[y, x] if rule.symmetric else left[x]
            out_var[x] = noise[x] / max(samples, 1) * rule.factors[samples]
    elif rule.operation == WTMEAN and rule.noise_known:
        for x in range(nx):
            out_var[x] = noise[x]
    else:
        for x in range(nx):
            m = max(left[x], 1)
            out_var[x] = noise[x] / m / m


@njit(cache=True, nogil=True)
def _weigh_row(band: Band, y: int, left: Ints, result: Floats64, noise: Floats64) -> None:
    """Mean weighted by 1 / variance and its variance; the plain mean where a variance is not positive."""
    n, _, nx = band.values.shape
    for x in range(nx):
        total, weight = 0.0, 0.0
        for k in range(n):
            if band.kept[k, y, x] == KEPT:
                v = np.float64(band.variances[k, y, x])
                w = 1.0 / v if v > 0 else np.inf
                total += w * band.values[k, y, x]
                weight += w
        if 0.0 < weight < np.inf:
            result[x], noise[x] = total / weight, 1.0 / weight
        else:
            m = max(left[x], 1)
            result[x], noise[x] = result[x] / m, noise[x] / m / m


@njit(cache=True, nogil=True)
def _mean_by_weights(band: Band, y: int, rule: Rule, left: Ints, result: Floats64, noise: Floats64) -> None:
    """Mean with a weight for each image, and m² times its variance, sum w² VAR / (sum w)²."""
    n, _, nx = band.values.shape
    total = np.zeros(nx, np.float64)
    result[:] = 0.0
    if rule.noise_known:
        noise[:] = 0.0
    for k in range(n):
        w = rule.weights[k]
        for x in range(nx):
            use = w if band.kept[k, y, x] == KEPT else 0.0
            total[x] += use
            result[x] += use * band.values[k, y, x] if use > 0 else 0.0
        if rule.noise_known:
            for x in range(nx):
                noise[x] += w * w * band.variances[k, y, x] if band.kept[k, y, x] == KEPT else 0.0
    for x in range(nx):
        m = max(left[x], 1)
        if total[x] > 0:
            result[x] /= total[x]
            noise[x] *= (m / total[x]) ** 2


@njit(cache=True, nogil=True)
def _median_row(band: Band, y: int, left: Ints, levelled: bool, rule: Rule, result: Floats64) -> None:
    """Median or lower median of the samples left, from the ordered ones wherever that can be."""
    n, _, nx = band.values.shape
    lower = rule.operation == LMEDIAN
    scratch = np.empty(n, np.float32)
    for x in range(nx):
        m = left[x]
        if m == 0:
            continue
        start = 0
        if rule.rejection == MINMAX:  # what is left lies together in the order
            start = int(band.total[y, x] * rule.nlow / n + 0.001) if band.touched[y, x] else 0
        elif band.touched[y, x] or levelled:
            i = 0
            for k in range(n):
                if band.kept[k, y, x] == KEPT:
                    scratch[i] = band.values[k, y, x]
                    i += 1
            sort(scratch, m)
            a, b = np.float64(scratch[(m - 1) // 2]), np.float64(scratch[m // 2])
            result[x] = a if lower else 0.5 * (a + b)
            continue
        if lower:
            result[x] = band.ordered[start + (m - 1) // 2, y, x]
        else:
            result[x] = _middle(band, y, x, start, m)


@njit(cache=True, nogil=True)
def _scatter_row(band: Band, y: int, left: Ints, result: Floats64, noise: Floats64) -> None:
    """m times the variance of a sample, from the scatter of those left about the result; 0 for one."""
    n, _, nx = band.values.shape
    noise[:] = 0.0
    for k in range(n):
        for x in range(nx):
            d = np.float64(band.values[k, y, x]) - result[x]
            noise[x] += d * d if band.kept[k, y, x] == KEPT else 0.0
    for x in range(nx):
        noise[x] *= left[x] / max(left[x] - 1.0, 1.0)
