"""Magnitudes of the sources of an image that has a zero point."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipeline.algorithms.sources import Catalogue
    from pipeline.headers.descriptors import Descriptors


# Of the correction for light outside the aperture: how well the mean star knows it. Of a simulated
# field 137 stars that stand alone come out within 0.005 mag, bright ones with a scatter of 0.008.
DOUBT = 0.25
# mag: what a Kron aperture misses of a source where no star tells the profile (of a star at 2.5 Kron radii).
WITHOUT_STARS = 0.06


def with_magnitudes(catalogue: Catalogue, facts: Descriptors, zero: Mapping[str, Any]) -> Catalogue:
    """With the columns MAG_VEGA and MAGERR_VEGA after MAGERR_AUTO; as it is without a zero point.

    zero : cards of measureQuality, {key: (value, comment)}
    m = MAGZPT - 2.5 log10(flux / s) - KEXT (airmass - 1), as Gemini's NIRI pages have it (Vega). The flux is
    FLUX_AUTO over the share of a star's light that its Kron aperture holds, by the mean profile of the
    image's stars; a larger source has a larger aperture, and so less correction. NaN where there is no light.
    """
    if "MAGZPT" not in zero or not facts.exposure_time:
        return catalogue
    outside, doubt = _outside(catalogue)
    air = zero["KEXT"][0] * ((facts.airmass or 1.0) - 1.0)
    lit = catalogue["FLUX_AUTO"] > 0
    magnitude = (
        catalogue["MAG_AUTO"] + (zero["MAGZPT"][0] + 2.5 * math.log10(facts.exposure_time) - air) - outside
    )
    error = np.sqrt(catalogue["MAGERR_AUTO"] ** 2.0 + zero["MAGZERR"][0] ** 2 + doubt**2)
    columns = {"MAG_VEGA": magnitude, "MAGERR_VEGA": error}
    return _with_columns(catalogue, "MAGERR_AUTO", {k: np.where(lit, v, np.nan) for k, v in columns.items()})


def _outside(catalogue: Catalogue) -> tuple[NDArray[Any], NDArray[Any]]:
    """(mag by which the light outside its aperture makes a star brighter, error), for each source."""
    from pipeline.algorithms.photometry import moffat_inside
    from pipeline.algorithms.sources import Detection

    stars = catalogue[catalogue["STAR"] == 1]
    if not stars.size:
        return np.zeros(len(catalogue)), np.full(len(catalogue), WITHOUT_STARS)
    how = Detection()
    axes = np.sqrt(np.maximum(catalogue["A_IMAGE"] * catalogue["B_IMAGE"], 0.0))
    radius = np.maximum(how.kron * catalogue["KRON_RADIUS"] * axes, how.kron_minimum)
    fwhm, beta = (float(np.median(stars[name])) for name in ("FWHM_FIT", "BETA_FIT"))
    inside = moffat_inside(radius, fwhm, beta)  # a circle of as many pixels as the ellipse
    correction = -2.5 * np.log10(np.clip(inside, 0.5, 1.0))
    return correction, DOUBT * correction


def _with_columns(table: Catalogue, after: str, columns: Mapping[str, NDArray[Any]]) -> Catalogue:
    kinds: list[tuple[str, Any]] = []
    for name in table.dtype.names or ():
        kinds.append((name, table.dtype[name]))
        kinds += [(new, "f4") for new in columns if name == after]
    made = np.zeros(len(table), kinds)
    for name, _ in kinds:
        made[name] = columns[name] if name in columns else table[name]
    return made
