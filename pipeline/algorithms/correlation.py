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

# A second peak so high, relative to the first, makes it no answer; or one within so many sigma.
RIVAL, ALIKE = 0.95, 3.0
# Least correlation, beyond noise, of what both images show where they overlap: of two scenes with little in
# common the best shift says nothing.
COHERENCE = 0.4
# What stays on the detector (bad columns, pattern) correlates best without any shift: pixels around that, not
# believed where the headers tell a larger one.
STUCK = 1.5
# Boxes of so many pixels a side must agree in the shift; fewer are like a lone star (see `evidence`),
# believed only where chance has so little room, and no fainter than this in ln of flux.
BOX, BOXES, LUCK, UNLIKE = 32, 2.5, 3e-3, 0.6
MANY = 1e-6  # chance that several boxes agree in a peak that stands out
LEAVES = 2.0  # pixels by which the polished shift may differ from the peak


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
    squares. It is no answer where another is nearly as high, where it is that of the detector on itself, or
    where the images have little in common besides. Its error is from the noise of the pixels or the
    scatter of the correlation over all shifts, whichever is larger.
    """
    from scipy import fft

    ny, nx = image.shape
    margin = math.ceil(search) + 8
    whole = (round(guess[0]), round(guess[1]))
    size = [fft.next_fast_len(n + margin, real=True) for n in (ny, nx)]
    moved, moved_bad = _moved(reference, whole), _moved(reference_bad, whole, True)
    structures = _structure(moved, moved_bad, smooth), _structure(image, bad, smooth)
    sigmas = pixel_noise(moved, moved_bad), pixel_noise(image, bad)
    if not (np.isfinite(sigmas).all() and all(s.any() for s in structures)):
        return None
    if _too_little(structures, (moved_bad, bad), sigmas, smooth, significance):
        return None
    first, second = fft.rfft2(structures[0], size), fft.rfft2(structures[1], size)
    surface = fft.irfft2(second * np.conj(first), size)
    around = np.roll(surface, (margin, margin), (0, 1))[: 2 * margin + 1, : 2 * margin + 1]
    noise = _noise_of_correlation(first, second, *sigmas, size, smooth)
    rough = MAD_TO_SIGMA * float(np.median(np.abs(surface - np.median(surface))))
    worse = max(1.0, rough / noise[0]) if noise[0] > 0 else 1.0
    from_guess = guess[0] - whole[0], guess[1] - whole[1]
    allowed = _allowed(around, margin, from_guess, search, whole)
    peak = _peak(around, allowed, margin, noise, significance * worse)
    if peak is None or _has_rival(allowed, margin, peak, noise[0]):
        return None
    polished = _polish(*structures, whole, (peak.dx, peak.dy), smooth)
    if polished is None:
        return None
    chance = _chance(structures, (moved_bad, bad), polished, sigmas, smooth, from_guess)
    if chance > LUCK:
        return None
    aside = math.hypot(polished.dx - peak.dx, polished.dy - peak.dy)
    error = math.hypot(max(peak.error, polished.error), 0.2 * aside)
    return polished._replace(dx=polished.dx + whole[0], dy=polished.dy + whole[1], error=error, chance=chance)


def _too_little(
    structures: tuple[FloatImage, FloatImage],
    bad: tuple[BoolImage, BoolImage],
    sigmas: tuple[float, float],
    smooth: float,
    significance: float,
) -> bool:
    """Even if all light of both were in common its peak would not stand out: plain sky is soon done with."""
    bound, floor = 1.0, 1.0
    for structure, hidden, sigma in zip(structures, bad, sigmas, strict=True):
        pixels = float(np.count_nonzero(~hidden))
        # White noise smoothed: its variance, and the scatter of the sum of its squares.
        noise = sigma**2 / (4 * math.pi * smooth**2) * pixels
        scatter = sigma**2 * math.sqrt(pixels / (8 * math.pi * smooth**2))
        light = float(np.sum(structure.astype(np.float64) ** 2)) - noise
        bound *= max(light, 0.0) + 3 * math.sqrt(2) * scatter
        floor *= scatter
    return math.sqrt(bound) < significance * math.sqrt(floor)


def _allowed(
    around: Any, margin: int, guess: tuple[float, float], search: float, whole: tuple[int, int]
) -> Any:
    """The correlation within reach, -inf elsewhere and where the detector meets itself."""
    rows, columns = np.mgrid[-margin : margin + 1, -margin : margin + 1]
    reach = np.hypot(columns - guess[0], rows - guess[1]) <= search + 1
    if math.hypot(*whole) > 2 * STUCK:
        reach &= np.hypot(columns + whole[0], rows + whole[1]) > STUCK
    return np.where(reach, around, -np.inf)


def _has_rival(allowed: Any, margin: int, peak: Match, noise: float) -> bool:
    """Another peak, farther off than the structures are fine, is nearly as high."""
    from scipy.ndimage import maximum_filter

    rows, columns = np.mgrid[-margin : margin + 1, -margin : margin + 1]
    tops = (allowed == maximum_filter(allowed, 7)) & np.isfinite(allowed)
    # On the rim of what is allowed a slope is no peak.
    inner = np.isfinite(allowed)
    for axis in (0, 1):
        for step in (-1, 1):
            inner = inner & np.isfinite(np.roll(allowed, step, axis))
    other = tops & inner & (np.hypot(columns - peak.dx, rows - peak.dy) > 4.0)
    height = float(allowed[round(peak.dy) + margin, round(peak.dx) + margin])
    return bool(other.any() and float(allowed[other].max()) > min(RIVAL * height, height - ALIKE * noise))


def _chance(
    structures: tuple[FloatImage, FloatImage],
    bad: tuple[BoolImage, BoolImage],
    at: Match,
    sigmas: tuple[float, float],
    smooth: float,
    guess: tuple[float, float],
) -> float:
    """How easily chance would make this of images that show nothing in common.

    Little, where they show the same in several places of the overlap. One place is like a lone star: then as
    much as there is room around `guess`. Certainly (1), where they do not show the same.
    """
    first, second = _overlap(*structures, round(at.dx), round(at.dy))
    noises = [sigma**2 / (4 * math.pi * smooth**2) for sigma in sigmas]
    ny, nx = (n // BOX * BOX for n in first.shape)
    if not ny or not nx:
        return 1.0

    def boxes(product: Any) -> Any:
        return product[:ny, :nx].astype(np.float64).reshape(ny // BOX, BOX, nx // BOX, BOX).sum((1, 3))

    common = boxes(first * second)
    light = [
        float(np.sum(boxes(s * s) - noise * boxes(~hidden)))
        for s, noise, hidden in zip(
            (first, second), noises, _overlap(*bad, round(at.dx), round(at.dy)), strict=True
        )
    ]
    total = float(common.sum())
    if total < COHERENCE * math.sqrt(max(light[0], 0.0) * max(light[1], 0.0)):
        return 1.0
    # Boxes that share the light alike; the square of their noise would make many of a few.
    spread = float(np.sum(common**2)) - common.size * BOX**2 * noises[0] * noises[1] * 4 * math.pi * smooth**2
    if total**2 > BOXES * max(spread, total**2 / common.size):
        return MANY
    area = structures[0].shape[0] * structures[0].shape[1]
    luck = math.pi * (math.hypot(at.dx - guess[0], at.dy - guess[1]) + 1) ** 2 / area
    alike = abs(math.log(max(light[1], 1e-9) / max(light[0], 1e-9))) < 2 * UNLIKE
    return luck if alike else 1.0


def _overlap(first: Any, second: Any, dx: int, dy: int) -> tuple[Any, Any]:
    """The parts of both that show the same sky, second(x) = first(x - dx), in the pixels of the first."""
    ny, nx = first.shape
    return (
        first[max(0, -dy) : ny - max(0, dy), max(0, -dx) : nx - max(0, dx)],
        second[max(0, dy) : ny + min(0, dy), max(0, dx) : nx + min(0, dx)],
    )


def _polish(
    first: FloatImage,
    second: FloatImage,
    whole: tuple[int, int],
    start: tuple[float, float],
    smooth: float,
    rounds: int = 4,
) -> Match | None:
    """The shift that makes the two alike where they overlap, by least squares on their slopes.

    whole : pixels (x, y) by which the first has been moved, so that it is empty beyond

    The correlation's peak is drawn aside by what only one of the images has in its field; this is not. A
    common factor is fitted too. The error is from what the two still differ by, whose noise is
    that of white noise smoothed. None if it wants to leave the peak, or too little overlaps.
    """
    from scipy.ndimage import shift

    (x, y), error = start, 0.0
    for _ in range(rounds):
        inner = tuple(
            slice(max(0, w) + int(17 + math.ceil(abs(v))), n + min(0, w) - int(17 + math.ceil(abs(v))))
            for w, v, n in zip((whole[1], whole[0]), (y, x), first.shape, strict=True)
        )
        if any(s.stop - s.start < 16 for s in inner):
            return None
        seen = shift(second, (-y, -x), order=3, prefilter=True)[inner].ravel().astype(float)
        slopes: Any = np.gradient(first)
        slope_y, slope_x = (v[inner].ravel().astype(float) for v in slopes)
        terms = np.stack([slope_x, slope_y, first[inner].ravel().astype(float)])
        normal = terms @ terms.T
        try:
            factors = np.linalg.solve(normal, terms @ seen)
            inverse = np.linalg.inv(normal)
        except np.linalg.LinAlgError:
            return None
        if not factors[2] > 0:
            return None
        left = seen - factors @ terms
        variance = float(np.mean(left**2)) * 4 * math.pi * smooth**2 / factors[2] ** 2
        error = math.sqrt(variance * float(max(inverse[0, 0], inverse[1, 1])))
        step = -factors[:2] / factors[2]
        x, y = x + float(step[0]), y + float(step[1])
        if math.hypot(x - start[0], y - start[1]) > LEAVES:
            return None
        if math.hypot(*step) < 1e-3:
            break
    return Match(x, y, error, 0)


def pixel_noise(image: FloatImage, bad: BoolImage) -> float:
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

    bad = bad | too_sharp(image, bad)
    wide = box_mean(image, bad, 33)
    flat = np.where(bad, np.float32(0), image - wide)
    return np.asarray(gaussian_filter(flat, smooth, mode="constant", truncate=3.0), np.float32)


def too_sharp(image: FloatImage, bad: BoolImage) -> BoolImage:
    """Pixels that stand alone: hot ones and cosmic rays, of which no star has a profile so sharp."""
    ny, nx = image.shape
    rows, columns = np.nonzero((image > 6 * pixel_noise(image, bad)) & ~bad)
    value = image[rows, columns]
    around = [
        image[np.clip(rows + dy, 0, ny - 1), np.clip(columns + dx, 0, nx - 1)]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    ]
    sharp = np.zeros(image.shape, np.bool_)
    sharp[rows, columns] = value - np.median(around, axis=0) > 0.6 * value
    return sharp


def _peak(around: Any, allowed: Any, margin: int, noise: tuple[float, float], least: float) -> Match | None:
    """The highest allowed point, between the pixels, if it stands out of the noise."""
    from scipy.interpolate import RectBivariateSpline
    from scipy.optimize import minimize

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
    return Match(float(px - margin + best[1]), float(py - margin + best[0]), error, 0)
