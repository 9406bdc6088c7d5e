"""The sky: where stars and a galaxy fall on the array, and how many electrons a second they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.simulate.detector import FloatImage

Vector = npt.NDArray[np.float64]

# Electrons per second of magnitude 0 = 10^(0.4 zero point); surface brightness of the sky, mag/arcsec^2
# (both f/6, published, in the middle of the range; L' is estimated: a sky that fills half the deep well in
# 30 ms).
ZERO_POINTS = {
    "Y": 25.71,
    "J": 26.69,
    "H": 26.77,
    "K": 26.15,
    "Kshort": 26.12,
    "Kprime": 26.40,
    "Lprime": 25.2,
}
SKY_BRIGHTNESS = {"Y": 16.0, "J": 15.5, "H": 14.2, "K": 13.7, "Kshort": 13.8, "Kprime": 13.8, "Lprime": 3.9}
EXTINCTION = 0.06  # magnitudes per airmass beyond the zenith, all bands
MOFFAT_BETA = 3.0


class Galaxy(NamedTuple):
    """An exponential disc with a bulge and two spiral arms, smooth on the scale of the seeing.

    mu0, bulge_mu0 : central surface brightness, mag/arcsec^2;  scale, bulge_scale : arcsec;
    ellip : 1 - b/a;  pa : degrees east of north;  center : (east, north) arcsec of the field's target;
    arms : contrast of the spiral, 0 for none
    """

    mu0: float
    scale: float
    ellip: float
    pa: float
    center: tuple[float, float] = (0.0, 0.0)
    bulge_mu0: float = 99.0
    bulge_scale: float = 3.0
    arms: float = 0.0

    def surface_brightness(self, east: FloatImage, north: FloatImage, zero_point: float) -> FloatImage:
        """Electrons per second and square arcsecond at offsets (arcsec) from the field's target."""
        pa = np.deg2rad(self.pa)
        east, north = east - np.float32(self.center[0]), north - np.float32(self.center[1])
        u = east * np.float32(np.sin(pa)) + north * np.float32(np.cos(pa))
        v = (east * np.float32(np.cos(pa)) - north * np.float32(np.sin(pa))) / np.float32(1 - self.ellip)
        r = np.sqrt(u * u + v * v + np.float32(0.25))  # half an arcsecond of softening, for the seeing
        light = 10 ** (0.4 * (zero_point - self.mu0)) * np.exp(-r / np.float32(self.scale))
        if self.arms:
            phase = 2 * np.arctan2(v, u) - np.float32(5.0) * np.log(r)
            light *= 1 + np.float32(self.arms) * np.cos(phase) * (1 - np.exp(-r / 12))
        light += 10 ** (0.4 * (zero_point - self.bulge_mu0)) * np.exp(-r / np.float32(self.bulge_scale))
        return np.asarray(light, np.float32)


@dataclass(frozen=True, eq=False)
class Field:
    """Stars (degrees J2000, magnitudes in the field's one filter) and perhaps a galaxy around a target."""

    name: str
    target: tuple[float, float]
    ra: Vector
    dec: Vector
    mag: Vector
    galaxy: Galaxy | None = None


class Pointing(NamedTuple):
    """A gnomonic projection: (ra, dec) in degrees falls on pixel (x, y), 0-based; cd in arcsec a pixel,
    rows east and north."""

    ra: float
    dec: float
    x: float
    y: float
    cd: Vector

    def pixels(self, ra: Vector, dec: Vector) -> tuple[Vector, Vector]:
        """0-based pixel coordinates of positions in degrees."""
        plane = np.stack(standard_coordinates(ra, dec, self.ra, self.dec))
        x, y = np.linalg.solve(self.cd, plane)
        return x + self.x, y + self.y

    def offsets(self, shape: tuple[int, int]) -> tuple[FloatImage, FloatImage]:
        """East and north of the reference position, arcsec, of every pixel."""
        y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
        x -= np.float32(self.x)
        y -= np.float32(self.y)
        (a, b), (c, d) = self.cd.astype(np.float32)
        return a * x + b * y, c * x + d * y

    @property
    def pixel_area(self) -> float:
        return float(abs(np.linalg.det(self.cd)))


def standard_coordinates(ra: Vector, dec: Vector, ra0: float, dec0: float) -> tuple[Vector, Vector]:
    """Tangent-plane coordinates (east, north) in arcsec about (ra0, dec0); all angles in degrees."""
    a, d, d0 = np.deg2rad(np.asarray(ra) - ra0), np.deg2rad(dec), np.deg2rad(dec0)
    depth = np.sin(d0) * np.sin(d) + np.cos(d0) * np.cos(d) * np.cos(a)
    east = np.cos(d) * np.sin(a) / depth
    north = (np.cos(d0) * np.sin(d) - np.sin(d0) * np.cos(d) * np.cos(a)) / depth
    return np.rad2deg(east) * 3600, np.rad2deg(north) * 3600


def offset_position(ra0: float, dec0: float, east: float, north: float) -> tuple[float, float]:
    """The position at tangent-plane offsets in arcsec: the inverse of `standard_coordinates`."""
    x, y, d0 = np.deg2rad(east / 3600), np.deg2rad(north / 3600), np.deg2rad(dec0)
    depth = np.cos(d0) - y * np.sin(d0)
    ra = ra0 + np.rad2deg(np.arctan2(x, depth))
    dec = np.rad2deg(np.arctan2(np.sin(d0) + y * np.cos(d0), np.hypot(x, depth)))
    return float(ra), float(dec)


def random_stars(
    rng: np.random.Generator,
    target: tuple[float, float],
    *,
    count: int,
    radius: float,
    faintest: float = 19.8,
    brightest: float = 13.5,
    around: tuple[tuple[float, float], ...] = ((0.0, 0.0),),
) -> tuple[Vector, Vector, Vector]:
    """Stars (ra, dec, mag) spread over squares of half side `radius` arcsec, with counts that double
    every magnitude; `around` are offsets (east, north) of the squares from the target, arcsec."""
    total = count * len(around)
    mag = faintest + np.log2(rng.uniform(2.0 ** (brightest - faintest), 1, total))
    centres = np.repeat(np.asarray(around), count, axis=0)
    east, north = (centres + rng.uniform(-radius, radius, (total, 2))).T
    positions = [offset_position(*target, e, n) for e, n in zip(east, north, strict=True)]
    ra, dec = np.array(positions).T
    return ra, dec, mag


def moffat_alpha(fwhm: float, beta: float = MOFFAT_BETA) -> float:
    return float(fwhm / (2 * np.sqrt(2 ** (1 / beta) - 1)))


def moffat_inside(radius: npt.ArrayLike, fwhm: float, beta: float = MOFFAT_BETA) -> Any:
    """Fraction of a star's light within a radius, in pixels."""
    return 1 - (1 + (np.asarray(radius) / moffat_alpha(fwhm, beta)) ** 2) ** (1 - beta)


def render_stars(
    shape: tuple[int, int],
    stars: Vector,
    *,
    fwhm: float,
    beta: float = MOFFAT_BETA,
    floor: float = 1e-3,
) -> FloatImage:
    """Electrons per second in every pixel, from rows (x, y, e-/s) of point sources.

    The Moffat profile is integrated over each pixel with 3 x 3 Gauss-Legendre nodes. A star is drawn
    out to where it falls below `floor` e-/s a pixel, and not renormalised.
    """
    image = np.zeros(shape, np.float32)
    alpha = moffat_alpha(fwhm, beta)
    nodes = np.sqrt(0.6) / 2 * np.array([-1.0, 0.0, 1.0])
    weights = np.array([5.0, 8.0, 5.0]) / 18
    ny, nx = shape
    for x, y, rate in stars:
        if rate <= 0:
            continue
        peak = rate * (beta - 1) / (np.pi * alpha**2)
        reach = alpha * np.sqrt(max((peak / floor) ** (1 / beta) - 1, 1.0)) + 3
        y0, y1 = max(int(y - reach), 0), min(int(y + reach) + 2, ny)
        x0, x1 = max(int(x - reach), 0), min(int(x + reach) + 2, nx)
        if y0 >= y1 or x0 >= x1:
            continue
        dx = (((np.arange(x0, x1)[:, None] - x + nodes) / alpha) ** 2).astype(np.float32)
        dy = (((np.arange(y0, y1)[:, None] - y + nodes) / alpha) ** 2).astype(np.float32)
        for i, j in np.ndindex(3, 3):
            base = 1 + dy[:, i, None] + dx[None, :, j]
            profile = 1 / (base * base * base) if beta == 3 else base ** np.float32(-beta)
            image[y0:y1, x0:x1] += np.float32(peak * weights[i] * weights[j]) * profile
    return image
