"""The mean star of a frame: the same stars of a field, laid over each other, and what their light says.

One star tells little of a frame: it may be a galaxy, a blend, or have a cosmic ray in it. The median of
all, each in units of its flux in a reference frame, shows the width, the elongation and a second image
that the frame has given to every star, and their aperture sums how much of the light came through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms import boxes
from pipeline.algorithms.background import MAD_TO_SIGMA
from pipeline.algorithms.profiles import fit_stars

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

RING = (1.3, 2.0)  # radii of the ring that tells the sky beside a star, over that of its aperture
SURE = 10.0  # noises, of the peak of a star that shows a shape
DIFFER = 0.03  # ellipticity, of one star of a field with galaxies and blends (simulated)
BRIGHTER = 3.0  # times the first image: another star, and no second one
BLURRED = 2.0  # times the usual width, the second guess
LEAST_PIXELS = 0.6  # of a star's cut-out that must be good for it to count


class Shape(NamedTuple):
    """fwhm : pixels; beta : exponent of the Moffat profile; number : of stars
    e1, e2 : ellipticity along x and along the diagonal; error : of each, one sigma
    second : height of a second peak over that of the first, 0 where none stands out
    """

    fwhm: float
    beta: float
    e1: float
    e2: float
    error: float
    second: float
    number: int

    @property
    def ellipticity(self) -> float:
        return math.hypot(self.e1, self.e2)

    @property
    def angle(self) -> float:
        """Of the long axis, degrees from +x to +y."""
        return math.degrees(0.5 * math.atan2(self.e2, self.e1))


class Transparency(NamedTuple):
    """magnitudes : by which the frame is brighter than the reference; error : one sigma; number : stars."""

    magnitudes: float
    error: float
    number: int


def cutouts(
    sci: FloatImage, bad: BoolImage, x: Floats, y: Floats, flux: Floats, half: int
) -> NDArray[np.float64]:
    """(n, 2 half + 1, 2 half + 1) of the stars, sky off and divided by flux, nan where a pixel is bad.

    x, y : (n,) pixels from 0; moved by whole pixels only, since shifting by parts of one would widen them.
    A star that lies partly outside, or on too many bad pixels, is nan all over.
    """
    ny, nx = sci.shape
    size = 2 * half + 1
    out = np.full((len(x), size, size), np.nan)
    rim = _rim(half)
    for k, (cx, cy, f) in enumerate(zip(np.rint(x).astype(int), np.rint(y).astype(int), flux, strict=True)):
        y0, x0 = cy - half, cx - half
        inner = (slice(max(y0, 0), min(y0 + size, ny)), slice(max(x0, 0), min(x0 + size, nx)))
        if (
            inner[0].stop - inner[0].start < LEAST_PIXELS * size
            or inner[1].stop - inner[1].start < LEAST_PIXELS * size
        ):
            continue
        there = (
            slice(inner[0].start - y0, inner[0].stop - y0),
            slice(inner[1].start - x0, inner[1].stop - x0),
        )
        piece = np.full((size, size), np.nan)
        piece[there] = np.where(bad[inner], np.nan, sci[inner])
        if np.isfinite(piece).mean() < LEAST_PIXELS or not np.isfinite(piece[rim]).any():
            continue
        out[k] = (piece - np.nanmedian(piece[rim])) / f
    return out


def _rim(half: int) -> BoolImage:
    rows, columns = np.indices((2 * half + 1, 2 * half + 1)) - half
    return np.asarray(np.hypot(rows, columns) > 0.8 * half)


def shape(stars: NDArray[np.float64], noise: Floats, fwhm: float) -> Shape | None:
    """The shape of the mean star; None where it cannot be measured.

    stars : as `cutouts` makes them; noise : (n,) of a pixel of each, in the same unit; fwhm : first guess

    The stars are laid over each other by the median, without those whose peak (0.8 / fwhm² of the flux) is
    less than SURE times the noise, where there are brighter ones. A Moffat profile is fitted; the image is
    searched for a second peak.
    """
    there = np.isfinite(stars).any(axis=(1, 2))
    stars, noise = stars[there], noise[there]
    if not len(stars):
        return None
    bright = noise <= max(3 * float(noise.min()), 0.8 / fwhm**2 / SURE)
    stars, noise = stars[bright], noise[bright]
    known = np.asarray(np.isfinite(stars).any(axis=0))
    stars = np.where(known, stars, 0.0)  # of no star: not used, and no average of nothing
    mean = np.nanmedian(stars, axis=0) if len(stars) > 2 else np.nanmean(stars, axis=0)
    half = mean.shape[0] // 2
    sigma = float(
        np.sqrt(np.mean(noise**2)) * math.sqrt((math.pi / 2 if len(stars) > 2 else 1.0) / len(stars))
    )
    image = np.where(known, mean, 0.0).astype(np.float32)
    middle = slice(half - 2, half + 3)
    peak = float(image[middle, middle].max())
    box = int(fwhm / 4) | 1  # a wide star is seen in more pixels than one
    seen = boxes.mean(image, box) if box > 1 else image
    if not float(seen[middle, middle].max()) > 5 * sigma / box:
        return None
    var = np.full(image.shape, max(sigma, 1e-4 * peak) ** 2, np.float32)
    place = np.array([float(half)])
    for guess in (fwhm, BLURRED * fwhm):  # from a guess far too narrow no fit gets anywhere
        fit = fit_stars(image, var, ~known, place, place.copy(), np.array([guess]))
        if np.isfinite(fit.fwhm[0]):
            break
    if not (np.isfinite(fit.fwhm[0]) and fit.fwhm[0] > 0):
        return None
    own = float(fit.fwhm[0])
    e, theta = float(fit.ellipticity[0]), float(fit.theta[0])
    # Of a Gaussian each axis is known to sqrt(1/2) of 1/SNR = 2.35 (error of the position) / FWHM, and its
    # ellipticity to sqrt(2) of that. What lies under a star and beside it changes its shape, too: by DIFFER.
    error = math.hypot(3.3 * float(fit.error[0]) / own, DIFFER / math.sqrt(len(stars)))
    return Shape(
        own, float(fit.beta[0]), e * math.cos(2 * theta), e * math.sin(2 * theta), error,
        _second_peak(image, sigma, own, peak), len(stars),
    )  # fmt: skip


def _second_peak(image: FloatImage, sigma: float, fwhm: float, peak: float) -> float:
    """Height of the highest local maximum away from the middle over that in the middle; 0 where none is.

    A second image is as wide as the first: what is sharper is a cosmic ray or a bad pixel. Beside
    a star that is far brighter nothing is seen. The first may lie beside the middle, where a frame was
    registered by the light of both.
    """
    smooth = boxes.mean(image, 3)
    half = image.shape[0] // 2
    rows, columns = np.indices(image.shape) - half
    off = np.hypot(rows, columns)
    near = np.where(off <= max(2.0, 0.5 * fwhm), smooth, -np.inf)
    first = np.unravel_index(np.argmax(near), smooth.shape)
    top = smooth[first]
    if smooth[off < 0.95 * half].max() > BRIGHTER * top:
        return 0.0
    away = np.hypot(rows + half - first[0], columns + half - first[1])
    highest = boxes.highest(image, 3)  # of the nine pixels
    sharpest = float(top) / peak
    # A maximum, above the noise of nine pixels, that is parted from the middle by a dip.
    candidates = (smooth == boxes.highest(smooth, 5)) & (away > 0.7 * fwhm) & (off < 0.95 * half)
    candidates &= (smooth > 6 * sigma / 3) & (smooth > 0.7 * sharpest * highest)
    best = 0.0
    for row, column in np.argwhere(candidates):
        steps = np.linspace(0, 1, 2 * int(away[row, column]) + 3)
        path = smooth[
            np.rint(first[0] + steps * (row - first[0])).astype(int),
            np.rint(first[1] + steps * (column - first[1])).astype(int),
        ]
        if path.min() < 0.8 * smooth[row, column]:
            best = max(best, float(smooth[row, column]) / float(top))
    return best


def repeated(x: Floats, y: Floats, flux: Floats, *, reach: float = 100.0, radius: float = 1.5) -> float:
    """The part of the sources that have a companion at one and the same distance and direction.

    x, y, flux : (n,) of the sources; reach : largest distance, pixels; radius : within which two are alike
    A telescope that moved during the exposure gives one to each: 0.5 and more. Chance gives hardly any; a
    source that is ten times fainter is none.
    """
    if len(x) < 4:
        return 0.0
    i, j = np.triu_indices(len(x), 1)
    dx, dy = x[j] - x[i], y[j] - y[i]
    like = (np.hypot(dx, dy) <= reach) & (np.maximum(flux[i], flux[j]) < 10 * np.minimum(flux[i], flux[j]))
    turn = np.where((dy < 0) | ((dy == 0) & (dx < 0)), -1.0, 1.0)  # one direction for each pair
    dx, dy, i, j = (dx * turn)[like], (dy * turn)[like], i[like], j[like]
    if not dx.size:
        return 0.0
    close = np.hypot(np.subtract.outer(dx, dx), np.subtract.outer(dy, dy)) <= radius
    best = int(close.sum(axis=1).argmax())
    # One pair is a pair; of six sources or more two pairs are alike by chance in a few percent of fields.
    if close[best].sum() < (2 if len(x) < 6 else 3):
        return 0.0
    return len(np.union1d(i[close[best]], j[close[best]])) / len(x)


def relative_light(
    flux: Floats, error: Floats, reference: Floats, reference_error: Floats, *, floor: float = 0.01
) -> Transparency | None:
    """How much brighter the stars of a frame are than in the reference, in magnitudes; None without any.

    flux, reference : (n,) of the same stars in like apertures; nan where not measured; errors one sigma
    floor : of the error of one star's ratio: its pixels respond alike to about so much

    Weighted mean of the ratios less those beyond 4 sigma of the weighted median; the error has the scatter
    of the stars in it where that is larger than their noise tells.
    """
    with np.errstate(all="ignore"):
        ratio = flux / reference
        noise = np.hypot(error / reference, ratio * reference_error / reference)
    # The ratio, not its logarithm: faint stars in cloud may have less than no light.
    good = np.isfinite(ratio) & np.isfinite(noise) & (reference > 10 * reference_error) & (noise > 0)
    ratio, noise = ratio[good], noise[good]
    if not ratio.size:
        return None
    middle = _weighted_median(ratio, 1 / noise)
    noise = np.hypot(noise, floor * max(middle, 0.0))
    for _ in range(3):
        scatter = MAD_TO_SIGMA * float(np.median(np.abs(ratio - middle) / noise)) if ratio.size > 2 else 1.0
        kept = np.abs(ratio - middle) <= 4 * max(scatter, 1.0) * noise
        weights = np.where(kept, 1 / noise**2, 0.0)
        middle = float((weights * ratio).sum() / weights.sum())
    chi2 = float((weights * (ratio - middle) ** 2).sum()) / max(int(kept.sum()) - 1, 1)
    sigma = math.sqrt(max(chi2, 1.0) / float(weights.sum()))
    if not middle > 3 * sigma:  # no light is left: an upper limit
        return Transparency(2.5 * math.log10(max(middle, 0.0) + 3 * sigma), math.inf, int(kept.sum()))
    return Transparency(2.5 * math.log10(middle), 2.5 / math.log(10) * sigma / middle, int(kept.sum()))


CC50 = 0.08  # magnitudes; Gemini's limit of a sky without cloud


def of_the_clear(found: Sequence[Transparency | None]) -> list[tuple[float, float]]:
    """(light, error) of each frame's stars, of that in the clear frames; nan where unknown.

    Clear are those within CC50 of the best. One frame alone is only believed to be the best with three
    stars: a cosmic ray brightens one.
    """
    known = [light for light in found if light and math.isfinite(light.error) and light.error < 0.1]
    clear = math.nan
    for best in sorted(known, key=lambda light: -_surely(light)):
        near = [k for k in known if _surely(best) - k.magnitudes < CC50]
        if len(near) > 1 or best.number >= 3:
            near = [k for k in near if k.magnitudes <= best.magnitudes]
            clear = _weighted_median(
                np.array([k.magnitudes for k in near]), np.array([max(k.error, 0.01) ** -2 for k in near])
            )
            break
    out = []
    for own in found:
        light = 10 ** (0.4 * (own.magnitudes - clear)) if own else math.nan
        out.append((light, light * own.error * math.log(10) / 2.5 if own else math.nan))
    return out


def _surely(light: Transparency) -> float:
    """Magnitudes that a frame is brighter at least: a faint star's noise must not make it the clearest."""
    return light.magnitudes - 2 * light.error


def light_inside(radius: float, fwhm: float, beta: float) -> float:
    """Fraction of a star's light that a circle of `radius` pixels holds, less the mean of a ring around it.

    Of a Moffat profile, 1 - (1 + (r / alpha)²)^(1 - beta); the ring is RING times the radius.
    """
    alpha2 = (0.5 * fwhm) ** 2 / (2 ** (1 / beta) - 1)

    def inside(r: float) -> float:
        return 1 - float((1 + r * r / alpha2) ** (1 - beta))

    inner, outer = RING
    return inside(radius) - (inside(outer * radius) - inside(inner * radius)) / (outer**2 - inner**2)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values, kind="stable")
    running = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(running, 0.5 * running[-1])])
