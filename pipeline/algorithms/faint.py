"""Stars too faint for a detection by connected pixels: peaks of the image filtered with their profile."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.background import MAD_TO_SIGMA
from pipeline.algorithms.correlation import too_sharp
from pipeline.algorithms.objectmasks import box_mean
from pipeline.algorithms.shifts import Floats, Points

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]

# Over a whole array of 1024 x 1024 noise alone makes a fifth of a peak of so many sigma.
LEAST = 4.5
# A peak is no fitted profile: pixels, whatever the signal.
PEAK_FLOOR = 0.05
WIDE = 33  # pixels, box of the background that is taken off


def faint_sources(image: FloatImage, bad: BoolImage, fwhm: float, least: float = LEAST) -> Points:
    """Peaks of the image filtered with a Gaussian of the stars' width, brightest first.

    image : (ny, nx) float32, sky-subtracted; bad : (ny, nx) bool, pixels not seen
    fwhm : of the stars, pixels; least : sigma of the filtered image

    Of filters of white noise that of the profile itself sees most. The error of a coordinate is that of the
    best possible fit, sqrt(2) sigma / (S/N), for a Gaussian in white noise, which the noise of the filtered
    image stands for. Fluxes are those of the profile.
    """
    from scipy.ndimage import gaussian_filter, maximum_filter

    sigma = fwhm / 2.3548
    hidden = bad | too_sharp(image, bad)
    flat = np.where(hidden, np.float32(0), image - box_mean(image, hidden, WIDE))
    weight = gaussian_filter((~hidden).astype(np.float32), sigma, truncate=3.0)
    seen = weight > 0.5
    filtered = gaussian_filter(flat, sigma, truncate=3.0) / np.maximum(weight, np.float32(0.5))
    if not seen.any():
        return Points(*np.zeros((4, 0)))
    noise = MAD_TO_SIGMA * float(np.median(np.abs(filtered[seen])))
    if not noise > 0:
        return Points(*np.zeros((4, 0)))
    size = max(3, 2 * round(0.75 * fwhm) + 1)
    peaks = (filtered == maximum_filter(filtered, size)) & seen & (filtered > least * noise)
    peaks[[0, -1], :] = peaks[:, [0, -1]] = False
    rows, columns = np.nonzero(peaks)
    height = filtered[rows, columns].astype(float)
    x = columns + _vertex(filtered[rows, columns - 1], height, filtered[rows, columns + 1])
    y = rows + _vertex(filtered[rows - 1, columns], height, filtered[rows + 1, columns])
    error = np.hypot(math.sqrt(2) * sigma * noise / height, PEAK_FLOOR)
    order = np.argsort(-height, kind="stable")
    return Points(x[order], y[order], error[order], height[order] * 4 * math.pi * sigma**2)


def _vertex(before: FloatImage, middle: Floats, after: FloatImage) -> Floats:
    """Where the parabola through three points has its top, from the middle one."""
    bend = 2 * middle - before - after
    return np.asarray(np.clip(0.5 * (after - before) / np.maximum(bend, 1e-9), -0.5, 0.5), float)
