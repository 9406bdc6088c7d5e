"""The tangent-plane world coordinates of a frame, as plain arithmetic.

What astropy's WCS gives for these headers, to a millionth of a pixel (a test says so), at a hundredth of the
cost: pointings are compared for every pair of frames of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.headers.values import Cards, sane_wcs


@dataclass(frozen=True, eq=False)
class Tangent:
    """Gnomonic projection; pixels count from 0.

    crpix : (2,) reference pixel; crval : (2,) its ra and dec, radians; cd : (2, 2) radians per pixel
    """

    crpix: NDArray[np.float64]
    crval: NDArray[np.float64]
    cd: NDArray[np.float64]

    def to_sky(self, x: Any, y: Any) -> tuple[Any, Any]:
        """(ra, dec) degrees of pixels."""
        u, v = np.asarray(x, float) - self.crpix[0], np.asarray(y, float) - self.crpix[1]
        xi, eta = self.cd[0, 0] * u + self.cd[0, 1] * v, self.cd[1, 0] * u + self.cd[1, 1] * v
        sin0, cos0 = np.sin(self.crval[1]), np.cos(self.crval[1])
        below = cos0 - eta * sin0
        ra = self.crval[0] + np.arctan2(xi, below)
        dec = np.arctan2(sin0 + eta * cos0, np.hypot(xi, below))
        return np.degrees(ra) % 360.0, np.degrees(dec)

    def to_pixel(self, ra: Any, dec: Any) -> tuple[Any, Any]:
        """Pixels of (ra, dec) degrees; nan on the far side of the sky."""
        a, d = np.radians(ra) - self.crval[0], np.radians(dec)
        sin0, cos0 = np.sin(self.crval[1]), np.cos(self.crval[1])
        depth = np.asarray(np.sin(d) * sin0 + np.cos(d) * cos0 * np.cos(a))
        depth = np.where(depth > 1e-6, depth, np.nan)
        xi = np.cos(d) * np.sin(a) / depth
        eta = (np.sin(d) * cos0 - np.cos(d) * sin0 * np.cos(a)) / depth
        inverse = np.linalg.inv(self.cd)
        return (
            self.crpix[0] + inverse[0, 0] * xi + inverse[0, 1] * eta,
            self.crpix[1] + inverse[1, 0] * xi + inverse[1, 1] * eta,
        )

    @property
    def pixel_scale(self) -> float:
        """Arcsec per pixel."""
        return float(np.degrees(np.sqrt(abs(np.linalg.det(self.cd)))) * 3600)


def tangent(cards: Cards) -> Tangent | None:
    """The projection that header cards hold; None when they hold none that NIRI could have."""
    if not sane_wcs(cards):
        return None
    return Tangent(
        np.array([float(cards["CRPIX1"]) - 1, float(cards["CRPIX2"]) - 1]),
        np.radians([float(cards["CRVAL1"]), float(cards["CRVAL2"])]),
        np.radians([[float(cards[f"CD{i}_{j}"]) for j in (1, 2)] for i in (1, 2)]),
    )


def separation(ra1: Any, dec1: Any, ra2: Any, dec2: Any) -> Any:
    """Arcsec between directions in degrees (haversine: exact for small and large)."""
    a1, d1, a2, d2 = (np.radians(v) for v in (ra1, dec1, ra2, dec2))
    half = np.sin((d2 - d1) / 2) ** 2 + np.cos(d1) * np.cos(d2) * np.sin((a2 - a1) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))) * 3600


def affine_between(reference: Tangent, image: Tangent, centre: tuple[float, float]) -> tuple[float, ...]:
    """(a, b, c, d, e, f) of x = a X + b Y + c, y = d X + e Y + f: pixels of `image` from those of
    `reference`.

    The exact mapping at three points around `centre` of the reference; over a NIRI field what is left out is
    below 1e-4 pixel.
    """
    cx, cy = centre
    reach = 300.0
    x, y = np.array([cx, cx + reach, cx]), np.array([cy, cy, cy + reach])
    u, v = image.to_pixel(*reference.to_sky(x, y))
    a, d = (u[1] - u[0]) / reach, (v[1] - v[0]) / reach
    b, e = (u[2] - u[0]) / reach, (v[2] - v[0]) / reach
    return tuple(float(k) for k in (a, b, u[0] - a * cx - b * cy, d, e, v[0] - d * cx - e * cy))
