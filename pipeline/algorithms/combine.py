"""Stacking: which samples of a pixel count, which are outliers, and what the rest say together.

`combine` goes through the images in bands of rows, so that no copy of all frames is ever made, and hands
each band to the compiled loops of `combine_rows`. `tests/plain/combine.py` says the same in plain numpy;
the tests hold the two together.

The hierarchy of DQ, the rejectors and the combiners are those of Gemini's DRAGONS (gempy nddops), but for
`ccdclip`, which is ours, and for the exact variance of a median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline import medians
from pipeline.algorithms import combine_rows as rows
from pipeline.algorithms.levels import frame_levels
from pipeline.parallel import run_all, shares

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]

_OPERATIONS = {"mean": rows.MEAN, "median": rows.MEDIAN, "wtmean": rows.WTMEAN, "lmedian": rows.LMEDIAN}
_REJECTIONS = {
    "none": rows.NONE,
    "sigclip": rows.SIGCLIP,
    "varclip": rows.VARCLIP,
    "minmax": rows.MINMAX,
    "ccdclip": rows.CCDCLIP,
}
LEAST_ROWS = 8  # of a band whose neighbours, two more rows, are looked at besides
BAND_SAMPLES = 2**18  # a band of a megabyte per plane stays in a core's cache


@dataclass(frozen=True, slots=True)
class Method:
    """How to stack.

    lsigma, hsigma : limits of the clipping rejectors, in standard deviations
    mclip : clip about the median; otherwise about the mean after the first pass
    max_iters : most passes of a clipping rejector; None means until nothing changes (at most 100)
    nlow, nhigh : for minmax, how many of all n to reject (in proportion where some are masked)
    gradient : for ccdclip, tolerance as a multiple of the steepness of the median image
    exact_median : variance of a median by the exact value for n Gaussian samples, not Laplace's pi/(2n)
    """

    operation: str = "mean"  # of _OPERATIONS
    reject: str = "none"  # of _REJECTIONS
    lsigma: float = 3.0
    hsigma: float = 3.0
    mclip: bool = True
    max_iters: int | None = None
    nlow: int = 0
    nhigh: int = 0
    gradient: float = 0.0
    exact_median: bool = True


@dataclass(frozen=True, slots=True)
class Stack:
    """sci, var : float32; dq : uint16, bits of the samples used; coverage : uint16, how many were used."""

    sci: FloatImage
    var: FloatImage
    dq: MaskImage
    coverage: MaskImage


def median_variance(n: int, exact: bool = True) -> NDArray[np.float64]:
    """Variance of the median of 0, 1 ... n samples of unit variance (place 0 has no meaning).

    exact : for Gaussian samples; beyond the table by the expansion in 1/n. Otherwise Laplace's pi/(2n).
    """
    return np.array([medians.variance(k, exact) for k in range(n + 1)])


def combine(
    sci: Sequence[FloatImage],
    var: Sequence[FloatImage] | None,
    dq: Sequence[MaskImage],
    method: Method,
    scale: Sequence[float] | None = None,
    zero: Sequence[float] | None = None,
    weights: Sequence[float] | None = None,
) -> Stack:
    """Stack n images of (ny, nx) pixels into one.

    sci, var, dq : n planes each, left as they are; var None where the noise is not known: the variance is
        then that of the scatter, and varclip and ccdclip become sigclip
    scale, zero : each image enters as sci * scale + zero
    weights : of the images in a mean, above 0; None is all alike

    Which samples count: the least bad present, in the order {good, non-linear, saturated}, cosmic ray,
    overlap, bad, unilluminated, no data. The result's DQ holds the bits of the samples used. Samples that
    are not finite never count; where nothing else is, the result is 0 with DQ 16 (no data). Where a
    rejector rejects everything, it rejects nothing.

    Variance: of a mean, mean(VAR)/n of the n samples used, or sum(w² VAR)/(sum w)² with weights; weighted
    mean 1/sum(1/VAR); median, mean(VAR) times that of a median of n. A median after symmetric minmax is the
    median of all, and has its variance.

    Raises ValueError for images that differ in shape, for minmax that would reject all, and for weights that
    are not above 0.
    """
    n = len(sci)
    if n == 0:
        raise ValueError("nothing to combine")
    ny, nx = sci[0].shape
    if any(plane.shape != (ny, nx) for planes in (sci, var or (), dq) for plane in planes):
        raise ValueError("images to combine differ in shape")
    if method.reject == "minmax" and method.nlow + method.nhigh >= n:
        raise ValueError(f"minmax cannot reject {method.nlow} low and {method.nhigh} high of {n} images")
    if weights is not None and not all(w > 0 for w in weights):
        raise ValueError(f"weights must be above 0: {list(weights)}")
    alike = weights is None or all(w == weights[0] for w in weights)
    rule = _rule(method, n, noise_known=var is not None, weights=() if alike else weights or ())
    scales = [1.0] * n if scale is None else [float(s) for s in scale]
    zeros = [0.0] * n if zero is None else [float(z) for z in zero]
    clip_by_noise = rule.rejection == rows.CCDCLIP
    levels = frame_levels(sci, dq, scales, zeros) if clip_by_noise else np.zeros(n, np.float32)

    out = Stack(*(np.empty((ny, nx), dtype) for dtype in (np.float32, np.float32, np.uint16, np.uint16)))
    halo = 1 if clip_by_noise and method.gradient > 0 else 0  # rows beside, whose medians are looked at
    height = max(1, min(max(BAND_SAMPLES // (n * nx), LEAST_ROWS * halo), ny))
    network = rows.sorting_network(n)

    def stack_bands(starts: Sequence[int]) -> None:
        band = rows.new_band((n, min(height + 2 * halo, ny), nx), noise_known=var is not None)
        for first in starts:
            last = min(first + height, ny)
            low, high = max(first - halo, 0), min(last + halo, ny)
            for k in range(n):
                _load(sci[k][low:high], scales[k], zeros[k], band.values[k, : high - low])
                band.flags[k, : high - low] = dq[k][low:high]
                if var is not None:
                    _load(var[k][low:high], scales[k] ** 2, 0.0, band.variances[k, : high - low])
            inner = slice(first, last)
            rows.stack_rows(
                band, levels, network, rule, high - low, first - low,
                out.sci[inner], out.var[inner], out.dq[inner], out.coverage[inner],
            )  # fmt: skip

    run_all(stack_bands, shares(range(0, ny, height)))
    return out


def _rule(method: Method, n: int, *, noise_known: bool, weights: Sequence[float] = ()) -> rows.Rule:
    """The method as the compiled loops want it."""
    rejection = _REJECTIONS[method.reject]
    if not noise_known and rejection in (rows.VARCLIP, rows.CCDCLIP):
        rejection = rows.SIGCLIP
    return rows.Rule(
        operation=_OPERATIONS[method.operation],
        rejection=rejection,
        noise_known=noise_known,
        lsigma=float(method.lsigma),
        hsigma=float(method.hsigma),
        mclip=method.mclip,
        max_iters=method.max_iters or 100,
        nlow=method.nlow,
        nhigh=method.nhigh,
        gradient=float(method.gradient),
        symmetric=noise_known
        and rejection == rows.MINMAX
        and method.operation == "median"
        and method.exact_median
        and method.nlow == method.nhigh,
        factors=median_variance(n, method.exact_median),
        weights=np.array(weights, np.float64),
    )


def _load(plane: FloatImage, scale: float, zero: float, into: FloatImage) -> None:
    """plane * scale + zero."""
    if scale == 1.0:
        into[...] = plane
    else:
        np.multiply(plane, np.float32(scale), out=into)
    if zero != 0.0:
        into += np.float32(zero)
