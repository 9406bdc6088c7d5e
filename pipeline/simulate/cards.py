"""The headers of a raw NIRI frame, with the quirks that real ones have.

Which cards there are, in which order and with which comments and constants is a table of facts,
`data/niri-cards.txt`; here are the values that differ from frame to frame.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from astropy.io import fits

from pipeline.simulate.detector import BIAS_VOLTS, READS
from pipeline.simulate.sky import Pointing

LONGITUDE, LATITUDE = -155.46906, 19.82396  # Gemini North, degrees
TERRESTRIAL_MINUS_UTC = timedelta(seconds=68.184)  # in 2016
ZENITH_PARK = (22.0, 89.97)  # what RA and DEC say when the telescope is parked for calibrations

# FILTER1, FILTER2, FILTER3 and the wavelength card.
WHEELS = {
    "Y": ("PK50_G0201", "Y_G0241", "Pupil38_G5207", 10200.0),
    "J": ("J_G0202", "open", "Pupil38_G5207", 12500.0),
    "H": ("H_G0203", "open", "Pupil38_G5207", 16500.0),
    "K": ("K_G0204", "open", "Pupil38_G5207", 22000.0),
    "Kshort": ("Kshort_G0205", "open", "Pupil38_G5207", 21500.0),
    "Kprime": ("Kprime_G0206", "open", "Pupil38_G5207", 21200.0),
    "Lprime": ("Lprime_G0207", "open", "Pupil38_G5207", 37800.0),
    "blank": ("PK50_G0201", "open", "blank", 17000.0),
}


@cache
def card_table() -> tuple[tuple[tuple[str, Any, str], ...], ...]:
    """(key, value or None where it is filled in, comment) of the primary and of the image header."""
    text = (files("pipeline") / "data" / "niri-cards.txt").read_text(encoding="utf-8")
    blocks = text.split("-----\n")[1:]
    return tuple(tuple(_row(line) for line in block.splitlines()) for block in blocks)


def _row(line: str) -> tuple[str, Any, str]:
    key, value, comment = line.split(" | ", 2)
    if value in "?TF":
        return key, {"?": None, "T": True, "F": False}[value], comment
    return key, ast.literal_eval(value), comment


def build(
    values: Mapping[str, Any], image_values: Mapping[str, Any], *, flat: bool
) -> tuple[fits.Header, fits.Header]:
    """The primary and the image header.

    `values` go to the primary header, and to the image header where the table leaves a card open;
    `image_values` to the image header alone. FRAME stands twice in the first: the second is always FK5.
    """
    primary, image = card_table()
    phu, ext = fits.Header(), fits.Header()
    seen = set()
    for key, constant, comment in primary:
        if key.startswith("GCAL") and not flat:
            continue
        repeated = key in seen or (constant is not None and key not in values)
        phu.append((key, constant if repeated else values[key], comment), end=True)
        seen.add(key)
    for key, constant, comment in image:
        value = values[key] if constant is None and key not in image_values else constant
        ext.append((key, image_values.get(key, value), comment), end=True)
    for header, given in ((phu, values), (ext, image_values)):
        for key in given:
            if key not in header and key not in ext:
                header.append((key, given[key]), end=True)
    return phu, ext


def wcs_cards(pointing: Pointing) -> dict[str, Any]:
    degrees = pointing.cd / 3600
    return {
        "CRPIX1": pointing.x + 1,
        "CRPIX2": pointing.y + 1,
        "CRVAL1": pointing.ra % 360,
        "CRVAL2": pointing.dec,
        "CD1_1": float(degrees[0, 0]),
        "CD1_2": float(degrees[0, 1]),
        "CD2_1": float(degrees[1, 0]),
        "CD2_2": float(degrees[1, 1]),
    }


def time_cards(start: datetime, end: datetime) -> dict[str, Any]:
    """Times to a tenth of a second, as real headers have them; MJD_OBS is the end, in terrestrial time."""
    day = (start - datetime(1858, 11, 17, tzinfo=UTC)) / timedelta(days=1)
    year = datetime(start.year, 1, 1, tzinfo=UTC)
    return {
        **dict.fromkeys(("UT", "TIME", "TIME-OBS"), clock(start)),
        **dict.fromkeys(("DATE", "DATE-OBS"), start.strftime("%Y-%m-%d")),
        "UTEND": clock(end),
        "LT": clock(start - timedelta(hours=10, seconds=0.5)),
        "ST": _sexagesimal(sidereal_degrees(start) / 15),
        "MJD_OBS": day + (end - start + TERRESTRIAL_MINUS_UTC) / timedelta(days=1),
        "TRKEPOCH": day - 0.0012,
        "OBSEPOCH": start.year + (start - year) / timedelta(days=365.25),
        "RELEASE": (start + timedelta(days=547)).strftime("%Y-%m-%d"),
    }


def clock(when: datetime) -> str:
    return (when + timedelta(milliseconds=50)).strftime("%H:%M:%S.%f")[:-5]


def _sexagesimal(hours: float, sign: str = "") -> str:
    tenths = round(hours * 36000)
    return f"{sign}{tenths // 36000:02d}:{tenths // 600 % 60:02d}:{tenths % 600 / 10:04.1f}"


def sidereal_degrees(when: datetime) -> float:
    """Local mean sidereal time (the linear part of the IAU 1982 expression, good to a second)."""
    days = (when - datetime(2000, 1, 1, 12, tzinfo=UTC)) / timedelta(days=1)
    return float((280.46062 + 360.98564737 * days + LONGITUDE) % 360)


def horizon(ra: float, dec: float, when: datetime) -> tuple[float, float, float]:
    """Hour angle, elevation and azimuth, in degrees."""
    ha = (sidereal_degrees(when) - ra + 180) % 360 - 180
    h, d, lat = np.deg2rad([ha, dec, LATITUDE])
    up = np.sin(lat) * np.sin(d) + np.cos(lat) * np.cos(d) * np.cos(h)
    azimuth = np.arctan2(-np.sin(h), np.tan(d) * np.cos(lat) - np.sin(lat) * np.cos(h))
    return float(ha), float(np.rad2deg(np.arcsin(up))), float(np.rad2deg(azimuth) % 360)


def airmass(ra: float, dec: float, when: datetime) -> float:
    """The secant of the zenith distance; never below 1 nor above 10."""
    up = np.sin(np.deg2rad(horizon(ra, dec, when)[1]))
    return float(np.clip(1 / max(up, 0.1), 1, 10))


def sky_cards(ra: float, dec: float, start: datetime, end: datetime, pa: float) -> dict[str, Any]:
    """Where the telescope points while it tracks a target."""
    ha, elevation, azimuth = horizon(ra, dec, start)
    masses = airmass(ra, dec, start), airmass(ra, dec, end)
    return {
        "RA": round(ra, 8),
        "DEC": round(dec, 8),
        "EQUINOX": 2000.0,
        "FRAME": "FK5",
        "RATRACK": 0.0,
        "DECTRACK": 0.0,
        "ELEVATIO": elevation,
        "AZIMUTH": azimuth,
        "CRPA": (pa + azimuth) % 360 - 180,
        "HA": _sexagesimal(abs(ha) / 15, "-" if ha < 0 else "+"),
        "AIRMASS": round(sum(masses) / 2, 3),
        "AMSTART": round(masses[0], 3),
        "AMEND": round(masses[1], 3),
        "M2BAFFLE": "NEAR IR",
        "M2CENBAF": "OPEN",
        "TAMBIENT": 1.3,
        "TAMBIEN2": 34.34,
    }


def parked_cards() -> dict[str, Any]:
    """The telescope parked at the zenith, as for flats and darks: tracking rates that make no sense, and
    EQUINOX 0."""
    return {
        "RA": ZENITH_PARK[0],
        "DEC": ZENITH_PARK[1],
        "EQUINOX": 0.0,
        "FRAME": "AZEL_TOPO",
        "RATRACK": 1.00274374465,
        "DECTRACK": -0.022004885202,
        "ELEVATIO": 89.9995888888889,
        "AZIMUTH": 75.0000416666667,
        "CRPA": -55.9460947593324,
        "HA": "-00:00:02.8",
        **dict.fromkeys(("AIRMASS", "AMSTART", "AMEND"), 1.0),
        "M2BAFFLE": "VISIBLE",
        "M2CENBAF": "CLOSED",
        "TAMBIENT": 3.2,
        "TAMBIEN2": 37.76,
    }


def offset_cards(p: float, q: float, pa: float, iaa: float) -> dict[str, Any]:
    """The telescope's offsets in the frames of the instrument, the sky and the mount.

    The relations (and their odd signs) are those between the cards of real frames of 2009 and 2010.
    """
    s, c = np.sin(np.deg2rad([pa, iaa])), np.cos(np.deg2rad([pa, iaa]))
    return {
        "POFFSET": float(p),
        "QOFFSET": float(q),
        "RAOFFSET": float(-p * c[0] + q * s[0]),
        "DECOFFSE": float(-p * s[0] - q * c[0]),
        "XOFFSET": float(-p * c[1] - q * s[1]),
        "YOFFSET": float(p * s[1] - q * c[1]),
        "PA": pa,
        "IAA": iaa,
    }


def detector_cards(read_mode: str, well: str) -> dict[str, Any]:
    """Reads and bias voltages; those after the exposure differ in the third place."""
    lnrs, ndavgs = READS[read_mode]
    return {
        "LNRS": lnrs,
        "NDAVGS": ndavgs,
        "VDDUC": -3.487,
        "VDET": round(-3.487 + BIAS_VOLTS[well], 3),
        "A_VDDUC": -3.489,
        "A_VDET": round(-3.489 + BIAS_VOLTS[well] + 0.001, 3),
    }


def window_cards(name: str, shape: tuple[int, int], bitpix: int) -> dict[str, Any]:
    """The image's own cards. The window is said to start at 0 wherever it lies; ROW runs along x."""
    ny, nx = shape
    return {
        "BITPIX": bitpix,
        "NAXIS1": nx,
        "NAXIS2": ny,
        "HIROW": nx - 1,
        "HICOL": ny - 1,
        "FRMNAME": f"{name}:0",
    }
