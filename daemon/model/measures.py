"""Measures: the numbers that are kept of frames, products and looks, by names that do not change.

A product or a look has the cards of its header, a frame of a stack its row in FRAMES. What a worker measures
besides (of a master, say) comes in `quality["measures"]` as {name: (value, error or None, unit)}.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.headers.descriptors import Descriptors

# name -> (card of a product or look, card of its error, unit)
OF_IMAGES = {
    "fwhm": ("MEANFWHM", "MFWHMERR", "arcsec"),
    "fwhm_zenith": ("ZENFWHM", "", "arcsec"),
    "ellipticity": ("MEANELLP", "ELLIERR", ""),
    "stars": ("NSTARS", "", ""),
    "sky": ("BGRATE", "BGRERR", "electron/s/pix"),
    "sky_magnitude": ("BGMAG", "BGMAGERR", "mag/arcsec2"),
    "saturated": ("SATFRAC", "", ""),
    "zero_point": ("MAGZPT", "MAGZERR", "mag"),
    "cloud": ("CLOUDEXT", "MAGZERR", "mag"),
    "frames": ("NCOMBINE", "", ""),
}
# name -> (column of FRAMES, column of its error, unit)
OF_FRAMES = {
    "fwhm_pixels": ("FWHM", "FWHM_ERR", "pix"),
    "ellipticity": ("ELLIPTICITY", "ELLIP_ERR", ""),
    "stars": ("NSTARS", "", ""),
    "sky_level": ("SKYLEVEL", "", "electron"),
    "transparency": ("TRANSPARENCY", "TRANSP_ERR", ""),
    "registration_error": ("D_ERR", "", "pix"),
    "pointing_error_x": ("DX", "", "pix"),
    "pointing_error_y": ("DY", "", "pix"),
}
UNITS = {name: unit for table in (OF_FRAMES, OF_IMAGES) for name, (_, _, unit) in table.items()}


@dataclass(frozen=True)
class Measure:
    """One number. error : standard deviation, None where it is not known; unit : "" for a pure number"""

    name: str
    value: float
    error: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Point:
    """A measure of a subject at a time: of, number : see `daemon.ledger.measures`; at : seconds since the
    epoch"""

    of: str
    number: int
    key: str
    at: float
    measure: Measure


def setting_of(facts: Descriptors) -> str:
    """The setting of an image, as trends go by it: "f6 K(prime)"."""
    return f"{(facts.camera or '').split('_')[0]} {facts.filter_pretty}".strip()


def of_image(quality: Mapping[str, Any]) -> Iterator[Measure]:
    """The measures of a product or a look, of its quality as a worker answers it."""
    yield from _of_table(quality, OF_IMAGES)
    for name, (value, error, unit) in (quality.get("measures") or {}).items():
        if _finite(value) is not None:
            yield Measure(name, float(value), _finite(error), str(unit))


def of_frame(row: Mapping[str, Any]) -> Iterator[Measure]:
    """The measures of one frame of a stack, of its row in FRAMES."""
    yield from _of_table(row, OF_FRAMES)


def _of_table(values: Mapping[str, Any], table: Mapping[str, tuple[str, str, str]]) -> Iterator[Measure]:
    for name, (card, error, unit) in table.items():
        value = _finite(values.get(card))
        if value is not None:
            yield Measure(name, value, _finite(values.get(error)) if error else None, unit)


def _finite(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None
