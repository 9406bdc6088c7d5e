"""The cards by which any reader of FITS knows when, where and in what unit: those of the FITS standard 4.0.

A raw frame of NIRI keeps its time and its equinox in the primary header alone, in older spellings. Readers
that open one image extension (CCDData, WCS, DS9) look for them beside the image.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.headers.values import number, text

if TYPE_CHECKING:
    from astropy.io import fits

    from pipeline.frame import Frame

J2000 = 2000.0
_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
_FRAMES = ("ICRS", "FK5", "FK4")
# The unit of a variance, and that of bits and counts, in the standard's spelling.
SQUARED = {"adu": "adu**2", "electron": "electron**2", "": ""}
VARIANCE_CARD = ("UTYPE", "VarianceUncertainty", "What CCDData.read takes this plane for")


def stamp_of(time: str) -> str:
    """A time as the standard has it: UT without a zone, 2016-01-02T11:56:18.500."""
    try:
        when = datetime.fromisoformat(time)
    except ValueError:
        return time
    if when.tzinfo is not None:
        when = when.astimezone(UTC).replace(tzinfo=None)
    return when.isoformat(timespec="milliseconds")


def without_epoch(header: fits.Header) -> fits.Header:
    """EPOCH, which the standard gave up, becomes EQUINOX where there is none."""
    if "EPOCH" not in header:
        return header
    header = header.copy()
    if number(header, "EQUINOX") is None and (equinox := number(header, "EPOCH")):
        header["EQUINOX"] = (equinox, "Equinox of the coordinates")
    del header["EPOCH"]
    return header


def of_an_image(frame: Frame, time_stamp: str) -> dict[str, Any]:
    """Cards of an image extension: {key: (value, comment)}.

    time_stamp : ISO, the end of the latest exposure in it
    DATE-OBS, MJD-OBS : the start of the first exposure; DATE-AVG, MJD-AVG : the middle between that and the
        end of the last, all UT; none of them without a known start
    EXPTIME : of one exposure; TEXPTIME : of a stack, of all its frames
    RADESYS, EQUINOX : only where the image has coordinates
    """
    facts, cards = frame.descriptors, dict[str, Any]()
    if facts.ut_datetime is not None:
        start, end = facts.ut_datetime, _time(time_stamp) or facts.ut_datetime
        cards["TIMESYS"] = ("UTC", "Time scale")
        cards["DATE-OBS"] = (stamp_of(start.isoformat()), "Start of the first exposure (UT)")
        cards["MJD-OBS"] = (_mjd(start), "[d] The same")
        middle = start + (max(end, start) - start) / 2
        cards["DATE-AVG"] = (stamp_of(middle.isoformat()), "Middle of start and end (UT)")
        cards["MJD-AVG"] = (_mjd(middle), "[d] The same")
    if facts.exposure_time is not None:
        cards["EXPTIME"] = (facts.exposure_time, "[s] Exposure time, all coadds together")
    if frame.members is not None and "NCOMBINE" in frame.header:
        used = frame.members["EXPTIME"][frame.members["WEIGHT"] > 0]
        cards["TEXPTIME"] = (round(float(used.sum()), 4), "[s] Of all frames of the stack")
    if str(frame.header.get("CTYPE1", "")).startswith("RA"):
        cards |= _coordinates(frame)
    return cards


def _coordinates(frame: Frame) -> dict[str, Any]:
    """The system of the WCS: that of the header, else that of the target's coordinates where it is one of the
    sky, else FK5, the telescope's own."""
    named = (str(text(frame.header, key) or "").upper() for key in ("RADESYS", "TRKFRAME", "FRAME"))
    system = next((name for name in named if name in _FRAMES), "FK5")
    cards: dict[str, Any] = {"RADESYS": (system, "Celestial coordinate system")}
    if system != "ICRS":
        equinox = number(frame.header, "EQUINOX") or number(frame.header, "EPOCH") or J2000
        cards["EQUINOX"] = (equinox if equinox >= 1850 else J2000, "[yr] Equinox of the coordinates")
    return cards


def _time(iso: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _mjd(when: datetime) -> float:
    return round((when - _MJD_ZERO).total_seconds() / 86400.0, 8)
