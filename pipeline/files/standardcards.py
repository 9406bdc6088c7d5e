"""The cards by which any reader of FITS knows when, where and in what unit: those of the FITS standard 4.0.

A raw frame of NIRI keeps its time and its equinox in the primary header alone, in older spellings. Readers
that open one image extension (CCDData, WCS, DS9) look for them beside the image.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pipeline.headers.times import from_mjd, span
from pipeline.headers.values import number, text

if TYPE_CHECKING:
    from astropy.io import fits

    from pipeline.frame import Frame

J2000 = 2000.0
# Written to each image from the frame's times, so that they have no place in the primary header.
OF_IMAGES = frozenset(
    ("MJD-BEG", "MJD-AVG", "MJD-END", "DATE-AVG", "DATE-END", "TEXPTIME", "UTYPE", "TIMESYS")
)
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


def of_an_image(frame: Frame) -> dict[str, Any]:
    """Cards of an image extension: {key: (value, comment)}.

    DATE-OBS, MJD-OBS : the start of the earliest exposure in it; DATE-AVG, MJD-AVG : the middle, of a stack
        the mean of the middles of its frames; DATE-END, MJD-END : the end of the latest. All UT; sky frames
        that are not in the image do not count; none of them without a known start
    EXPTIME : of one exposure; TEXPTIME : of all frames of a stack
    RADESYS, EQUINOX : only where the image has coordinates
    """
    begin, middle, end, exposure = span(frame.header, frame.descriptors)
    cards: dict[str, Any] = {}
    if begin is not None:
        cards["TIMESYS"] = ("UTC", "Time scale")
    for key, mjd, what in (
        ("OBS", begin, "Start of the first exposure"),
        ("AVG", middle, "Middle of the exposure, mean"),
        ("END", end, "End of the last exposure"),
    ):
        if mjd is not None:
            cards[f"DATE-{key}"] = (from_mjd(mjd), f"{what} (UT)")
            cards[f"MJD-{key}"] = (mjd, "[d] The same")
    if frame.descriptors.exposure_time is not None:
        cards["EXPTIME"] = (frame.descriptors.exposure_time, "[s] Exposure time, all coadds together")
    if "NCOMBINE" in frame.header and exposure is not None:
        cards["TEXPTIME"] = (exposure, "[s] Of all frames of the stack")
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
