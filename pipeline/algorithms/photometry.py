"""Measuring stars: profile fits, aperture sums, curve of growth, zero point."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]
LabelImage = NDArray[np.int32]
Floats = NDArray[np.float64]

FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))


class Apertures(NamedTuple):
    """Sums over circles, (n stars, m radii), sky taken off; `clean` is False with a bad pixel inside."""

    flux: Floats
    error: Floats
    clean: BoolImage


def local_sky(
    sci: FloatImage, bad: BoolImage, x: Floats, y: Floats, inner: float, outer: float
) -> tuple[Floats, Floats]:
    """Sky level beside each star and its standard error: clipped mean of the good pixels of an annulus.

    bad : True on pixels left out, other sources among them
    Clips at 3 sigma about the median, symmetrically, so that faint stars do not raise it. nan with fewer
    than 20 pixels.
    """
    ny, nx = sci.shape
    level, error = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for i, (cx, cy) in enumerate(zip(x, y, strict=True)):
        x0, x1 = max(0, int(cx - outer)), min(nx, int(cx + outer) + 2)
        y0, y1 = max(0, int(cy - outer)), min(ny, int(cy + outer) + 2)
        rows, columns = np.ogrid[y0:y1, x0:x1]
        distance = np.hypot(columns - cx, rows - cy)
        values = sci[y0:y1, x0:x1][(distance >= inner) & (distance < outer) & ~bad[y0:y1, x0:x1]].astype(
            float
        )
        for _ in range(5):
            if values.size < 20:
                break
            middle = np.median(values)
            sigma = 1.4826 * np.median(np.abs(values - middle))
            kept = values[np.abs(values - middle) <= 3 * sigma]
            if kept.size == values.size:
                break
            values = kept
        if values.size >= 20:
            level[i], error[i] = values.mean(), values.std() / math.sqrt(values.size)
    return level, error


def apertures(
    sci: FloatImage,
    var: FloatImage,
    bad: BoolImage,
    x: Floats,
    y: Floats,
    radii: Floats,
    sky: Floats | float = 0.0,
    sky_error: Floats | float = 0.0,
) -> Apertures:
    """Sums in circles of each of `radii` (pixels) around each star, exact at the edge of the circle.

    sci, var : (ny, nx); bad pixels count as zero and make the aperture not `clean`
    sky, sky_error : level taken off each pixel, its error; one value or one a star
    """
    import sep

    image, variance, hidden = np.array(sci, np.float32), np.array(var, np.float32), np.array(bad)
    n, m = len(x), len(radii)
    flux, error, clean = np.zeros((n, m)), np.zeros((n, m)), np.zeros((n, m), np.bool_)
    for k, r in enumerate(radii):
        total, err, flag = sep.sum_circle(image, x, y, r, var=variance, mask=hidden, subpix=0)
        area = math.pi * r * r
        flux[:, k] = total - area * np.asarray(sky)
        error[:, k] = np.hypot(err, area * np.asarray(sky_error))
        clean[:, k] = flag == 0
    return Apertures(flux, error, clean)


def moffat_inside(r: Floats | float, fwhm: float, beta: float) -> Floats:
    """Fraction of a round Moffat profile's light within r pixels: 1 - (1 + (r / alpha)²)^(1 - beta)."""
    alpha2 = 0.25 * fwhm * fwhm / (2 ** (1 / beta) - 1)
    return np.asarray(1 - (1 + np.asarray(r) ** 2 / alpha2) ** (1 - beta))


class Growth(NamedTuple):
    """Curve of growth of one star: measured sums at `radii`, and the total that they extrapolate to."""

    radii: Floats
    flux: Floats
    total: float
    error: float  # with the extrapolation's own
    missing: float  # fraction of the total outside the aperture used


def curve_of_growth(
    sci: FloatImage,
    var: FloatImage,
    bad: BoolImage,
    x: float,
    y: float,
    fwhm: float,
    beta: float,
    *,
    aperture: float = 3.0,
    others: BoolImage | None = None,
) -> Growth | None:
    """Total flux of a star: the sum within `aperture` FWHM, plus what the wings hold beyond it.

    The sky is that of an annulus from 5 to 8 FWHM. The wings are those of the Moffat profile of this beta
    (fitted to the star), whose light in the annulus is allowed for as well; the beta that makes the sums at
    2 to 4.5 FWHM agree with the profile is found by a scan. None when the aperture holds a bad pixel.
    """
    radii = fwhm * np.array([0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5])
    inner, outer = 5.0 * fwhm, 8.0 * fwhm
    here = np.array([x]), np.array([y])
    sky, sky_error = local_sky(sci, bad if others is None else bad | others, *here, inner, outer)
    if not np.isfinite(sky[0]):
        return None
    sums = apertures(sci, var, bad, *here, np.append(radii, aperture * fwhm), sky, sky_error)
    if not sums.clean[0, -1] or sums.flux[0, -1] <= 0:
        return None

    def seen(r: Floats | float, b: float) -> Floats:
        """Fraction of the total that a sum within r shows, after the sky of the annulus has gone off."""
        ring = moffat_inside(outer, fwhm, b) - moffat_inside(inner, fwhm, b)
        return np.asarray(moffat_inside(r, fwhm, b) - ring * np.asarray(r) ** 2 / (outer**2 - inner**2))

    outside = (radii >= 2 * fwhm) & sums.clean[0, :-1]
    betas = np.append(np.linspace(1.6, 6.0, 45), beta)
    misfit = np.full(betas.size, np.inf)
    if outside.sum() >= 3:
        for i, b in enumerate(betas):
            ratio = sums.flux[0, :-1][outside] / seen(radii[outside], b)
            misfit[i] = np.sum(((ratio - ratio.mean()) / sums.error[0, :-1][outside]) ** 2)
    # The profile's own beta unless the growth tells clearly against it.
    best = float(betas[np.argmin(misfit)]) if misfit[-1] > misfit.min() + 9 else beta
    fraction = float(seen(aperture * fwhm, best))
    spread = abs(float(seen(aperture * fwhm, best * 1.15)) - float(seen(aperture * fwhm, best / 1.15))) / 2
    total = sums.flux[0, -1] / fraction
    error = math.hypot(sums.error[0, -1] / fraction, total * spread / fraction)
    return Growth(radii, sums.flux[0, :-1], float(total), error, 1 - fraction)


def zero_point(
    magnitude: float, magnitude_error: float, flux: float, flux_error: float, seconds: float, airmass: float,
    extinction: float, extinction_error: float,
) -> tuple[float, float]:  # fmt: skip
    """Magnitude of one electron per second outside the atmosphere's excess over airmass 1, and its error.

    m = ZP - 2.5 log10(flux / seconds) - k (airmass - 1), as Gemini's NIRI pages have it.
    """
    if not (flux > 0 and seconds > 0):
        raise ValueError(f"no zero point from a flux of {flux:g} electrons in {seconds:g} s")
    value = magnitude + 2.5 * math.log10(flux / seconds) + extinction * (airmass - 1)
    terms = (magnitude_error, 1.0857362 * flux_error / flux, extinction_error * (airmass - 1))
    return value, math.sqrt(sum(t * t for t in terms))
