"""How deep a stack is, in its pixels: where it has its full depth, its noise there, the light of a source.

Masks are True where a pixel is bad; variances are those of single pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms import photometry

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]
BoolImage = NDArray[np.bool_]

FULL = 0.9  # of the frames that most pixels have, for a pixel of full depth
RING = 6.0  # radii of the circle, where the ring begins that the sky beside a source is taken from
THIN = (slice(2, None, 4), slice(2, None, 4))  # one pixel in 16 tells a median as well


def variance(var: FloatImage, bad: BoolImage) -> float:
    """Median of the good pixels; 0 where there is none. var, bad : (ny, nx)"""
    values = var[THIN][~bad[THIN] & (var[THIN] > 0)]
    return float(np.median(values)) if values.size else 0.0


def full_depth(bad: BoolImage, coverage: MaskImage | None) -> BoolImage:
    """(ny, nx) True on good pixels that as many frames contribute to as to most. coverage : frames"""
    if coverage is None or not (some := coverage[THIN][~bad[THIN]]).size:
        return ~bad
    full: BoolImage = ~bad & (coverage >= FULL * np.percentile(some, 90))
    return full


def noise(var: FloatImage, full: BoolImage) -> float:
    """Of a pixel where `full` is True, by VAR; nan where it is nowhere."""
    some = var[THIN][full[THIN]]
    return math.sqrt(float(np.median(some))) if some.size else math.nan


def light(
    sci: FloatImage, var: FloatImage, bad: BoolImage, hidden: BoolImage, x: float, y: float, radius: float
) -> tuple[float, float] | None:
    """(sum, error) within a circle around (x, y), which count from 0, less the sky beside it.

    hidden : pixels that are no sky. None where a pixel of it is bad, no sky is seen or nothing is left.
    """
    here = np.array([x]), np.array([y])
    sky, sky_error = photometry.local_sky(sci, hidden, *here, RING * radius, 2 * RING * radius)
    if not np.isfinite(sky[0]):
        return None
    sums = photometry.apertures(sci, var, bad, *here, np.array([radius]), sky, sky_error)
    total = float(sums.flux[0, 0])
    return (total, float(sums.error[0, 0])) if sums.clean[0, 0] and total > 0 else None
