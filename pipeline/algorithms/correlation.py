"""The shift between two images of one field from their pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.background import MAD_TO_SIGMA
from pipeline.algorithms.objectmasks import box_mean
from pipeline.algorithms.shifts import FLOOR, Match

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]


def match_images(
    reference: FloatImage,
    image: FloatImage,
    reference_bad: BoolImage,
    bad: BoolImage,
    *,
    guess: tuple[float, float] = (0.0, 0.0),
    search: float,
    smooth: float = 1.5,
    significance: float = 6.0,
) -> Match | None:
    """The shift between two images from the peak of their cross-correlation; None when no peak stands out.

    reference, image : (ny, nx) float32, sky-subtracted; bad pixels take the mean around them
    guess : the shift that the headers tell; the peak is looked for within `search` pixels of it
    smooth : sigma in pixels of the Gaussian that both are smoothed with
    significance : of the peak above the scatter of the correlation elsewhere

    Structure wider than 32 pixels is taken out first, since it has no edge to measure. The peak, well sampled
    because of the smoothing, is found between the pixels with a fifth-order spline, and polished by least
    squares.
    """
    from scipy import fft

    ny, nx = image.shape
    margin = math.ceil(search) + 8
    whole = (round(guess[0]), round(guess[1]))
    size = [fft.next_fast_len(n + margin, real=True) for n in (ny, nx)]
    moved, moved_bad = _moved(reference, whole), _moved(reference_bad, whole, True)
    structures = _structure(moved, moved_bad, smooth), _structure(image, bad, smooth)
    first, second = fft.rfft2(structures[0], size), fft.rfft2(structures[1], size)
    surface = fft.irfft2(second * np.conj(first), size)
    around = np.roll(surface, (margin, margin), (0, 1))[: 2 * margin + 1, : 2 * margin + 1]
    noise = _noise_of_correlation(
        first, second, _pixel_noise(moved, moved_bad), _pixel_noise(image, bad), size, smooth
    )
    peak = _peak(around, margin, (guess[0] - whole[0], guess[1] - whole[1]), search, noise, significance)
    if peak is None:
        return None
    dx, dy = _polish(*structures, peak.dx, peak.dy)
    return peak._replace(dx=dx + whole[0], dy=dy + whole[1])


def _polish(
    first: FloatImage, second: FloatImage, dx: float, dy: float, rounds: int = 3
) -> tuple[float, float]:
    """The shift that makes the two alike where they overlap, by least squares on their slopes.

    The correlation's peak is drawn aside by what only one of the images has in its field; this is not.
    Stays with the start if it wants to leave by more than half a pixel.
    """
    from scipy.ndimage import shift

    x, y = dx, dy
    for _ in range(rounds):
        edge = [int(17 + math.ceil(abs(v))) for v in (y, x)]
        inner = tuple(slice(e, n - e) for e, n in zip(edge, first.shape, strict=True))
        if any(s.stop - s.start < 16 for s in inner):
            return dx, dy
        seen = shift(second, (-y, -x), order=3, prefilter=True)[inner]
        slope_y, slope_x = np.gradient(0.5 * (first[inner] + seen))
        slopes = np.stack([slope_x.ravel(), slope_y.ravel()]).astype(float)
        step = np.linalg.lstsq(slopes @ slopes.T, slopes @ (first[inner] - seen).ravel(), rcond=None)[0]
        x, y = x + float(step[0]), y + float(step[1])
        if math.hypot(x - dx, y - dy) > 0.5:
            return dx, dy
        if math.hypot(*step) < 1e-3:
            break
    return x, y


def _pixel_noise(image: FloatImage, bad: BoolImage) -> float:
    """Noise of single pixels, from the differences of neighbours."""
    steps = (image[:, 1:] - image[:, :-1])[~(bad[:, 1:] | bad[:, :-1])]
    return MAD_TO_SIGMA * float(np.median(np.abs(steps))) / math.sqrt(2) if steps.size else math.inf


def _noise_of_correlation(
    first: Any, second: Any, sigma1: float, sigma2: float, size: list[int], smooth: float
) -> tuple[float, float]:
    """Standard deviations of the correlation and of its slope, from white noise in both images.

    Smoothing by g makes of noise n in one image, against the structure S of the other, the sum of n (g *
    S), of variance sigma² |g * S|²; the slope has the gradient of g * S instead. By Parseval, in Fourier
    space. S has the noise in it, so that the product of the two noises is counted (twice; it is the
    smaller part).
    """
    rows, columns = np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None, :]
    power = sigma2**2 * np.abs(first) ** 2 + sigma1**2 * np.abs(second) ** 2
    power = power * np.exp(-4 * np.pi**2 * smooth**2 * (rows**2 + columns**2))
    power[:, 1:] *= 2  # the half plane that a real transform leaves out
    whole = size[0] * size[1]
    slope = float(np.sum(power * (2 * np.pi) ** 2 * (rows**2 + columns**2))) / 2
    return math.sqrt(float(power.sum()) / whole), math.sqrt(slope / whole)


def _moved(plane: Any, by: tuple[int, int], fill: Any = 0) -> Any:
    """The plane shifted by whole pixels (x, y)."""
    out = np.full_like(plane, fill)
    (dx, dy), (ny, nx) = by, plane.shape
    if abs(dx) < nx and abs(dy) < ny:
        out[max(0, dy) : ny + min(0, dy), max(0, dx) : nx + min(0, dx)] = plane[
            max(0, -dy) : ny + min(0, -dy), max(0, -dx) : nx + min(0, -dx)
        ]
    return out


def _structure(image: FloatImage, bad: BoolImage, smooth: float) -> FloatImage:
    """The image without bad pixels, structure of more than 32 pixels, and noise finer than `smooth`."""
    from scipy.ndimage import gaussian_filter

    wide = box_mean(image, bad, 33)
    flat = np.where(bad, np.float32(0), image - wide)
    return np.asarray(gaussian_filter(flat, smooth, mode="constant", truncate=3.0), np.float32)


def _peak(
    around: Any,
    margin: int,
    guess: tuple[float, float],
    search: float,
    noise: tuple[float, float],
    least: float,
) -> Match | None:
    """The highest point within reach, between the pixels, if it stands out of the noise."""
    from scipy.interpolate import RectBivariateSpline
    from scipy.optimize import minimize

    rows, columns = np.mgrid[-margin : margin + 1, -margin : margin + 1]
    from_guess = np.hypot(columns - guess[0], rows - guess[1])
    allowed = np.where(from_guess <= search + 1, around, -np.inf)
    py, px = np.unravel_index(int(np.argmax(allowed)), allowed.shape)
    height = float(around[py, px])
    if not (4 <= py < around.shape[0] - 4 and 4 <= px < around.shape[1] - 4) or not height > least * noise[0]:
        return None
    local = np.arange(-4.0, 5.0)
    spline = RectBivariateSpline(local, local, around[py - 4 : py + 5, px - 4 : px + 5] / height, kx=5, ky=5)
    best = minimize(
        lambda p: -spline(p[0], p[1])[0, 0],
        [0.0, 0.0],
        method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-9},
    ).x
    # The flatter axis is the less certain one.
    curvature = -max(float(spline(*best, dx=2)[0, 0]), float(spline(*best, dy=2)[0, 0]))
    if np.abs(best).max() > 1.5 or curvature <= 0:
        return None
    error = math.hypot(noise[1] / height / curvature, 2 * FLOOR)
    return Match(float(columns[py, px] + best[1]), float(rows[py, px] + best[0]), error, 0)
