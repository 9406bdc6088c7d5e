"""A frame's header cards as one mapping: merged, sane, and digested.

A NIRI file has a primary header and one extension header, with the world coordinates in both.
Everything after this module works on one mapping of cards: any `Mapping`, so that our own fast
reader (a dict) and astropy (a `fits.Header`, whose first duplicate wins) serve alike.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.wcscards import READ, REFUSED, disagreement, standard

Cards = Mapping[str, Any]

WCS_CARDS = (
    "CTYPE1", "CTYPE2", "CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2",
    "CD1_1", "CD1_2", "CD2_1", "CD2_2", "CUNIT1", "CUNIT2", "RADESYS", "RADECSYS", "EQUINOX",
)  # fmt: skip

# Written to the SCI, VAR and DQ extensions; all other cards go to the primary header.
EXTENSION_CARDS = frozenset(
    (
        *(card for card in WCS_CARDS if card != "EQUINOX"),
        "BUNIT", "GAIN", "RDNOISE", "SATLEVEL", "NONLINEA", "PIXSCALE",
        "LOWROW", "HIROW", "LOWCOL", "HICOL", "DATASEC", "DETSEC",
        "VARNOISE", "SKYLEVEL", "NOISECOR", "DROINUM", "FRMNAME", "FRAMEID", "DATATYP",
    )
)  # fmt: skip

# Describe the storage of one file, not the exposure; those with Z belong to compressed images.
STRUCTURAL = re.compile(
    r"^(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|EXTNAME|EXTVER|EXTLEVEL"
    r"|CHECKSUM|DATASUM|NEXTEND|INHERIT|TFIELDS|T(TYPE|FORM|UNIT|NULL|SCAL|ZERO|DISP|DIM)\d+"
    r"|Z(IMAGE|TABLE|CMPTYPE|BITPIX|NAXIS\d*|(TILE|NAME|VAL)\d+|MASKCMP|QUANTIZ|DITHER0|SIMPLE|TENSION|EXTEND"
    r"|BLOCKED|PCOUNT|GCOUNT|HECKSUM|DATASUM|SCALE|ZERO|BLANK)|HISTORY|COMMENT|END|)$"
)

# Every card that tags, descriptors, steps or product headers read. The quality-assurance state is
# left out on purpose: an edited QA state takes a frame out, it does not change what a frame is.
FACT_CARDS = (
    "INSTRUME", "OBSERVAT", "TELESCOP", "OBSTYPE", "OBSCLASS", "OBJECT", "GEMPRGID", "OBSID", "DATALAB",
    "DATE-OBS", "DATE", "UTDATE", "TIME-OBS", "TIME", "UT", "UTSTART", "STARTUT",
    "UTEND", "MJD-OBS", "MJD_OBS", "OBSSTART",
    "EXPTIME", "COADDS", "FILTER1", "FILTER2", "FILTER3", "CAMERA", "BEAMSPLT", "FPMASK", "LNRS", "NDAVGS",
    "A_VDDUC", "A_VDET", "GCALLAMP", "GCALSHUT", "GCALFILT", "GCALDIFF",
    "POFFSET", "QOFFSET", "XOFFSET", "YOFFSET", "RAOFFSET", "DECOFFSE", "RATRGOFF", "DECTRGOF",
    "RA", "DEC", "EPOCH", "EQUINOX", "PMRA", "PMDEC", "FRAME", "TRKFRAME", "RATRACK", "DECTRACK",
    "PA", "CRPA", "IAA", "INPORT", "AOFOLD", "CRFOLLOW", "AIRMASS", "AMSTART", "AMEND", "ELEVATIO", "AZIMUTH",
    "PWFS1_ST", "PWFS2_ST", "OIWFS_ST", "AOWFS_ST", "OBSERVER", "SSA", "WINDCOVR",
    "LOWROW", "HIROW", "LOWCOL", "HICOL", "RADECSYS", "RADESYS", *WCS_CARDS[:12],
    "OBJFRAME", "SKYFRAME", "BUNIT", "GAIN", "RDNOISE", "SATLEVEL", "NONLINEA", "GEM-TLM",
    "PREPARE", "BPMASK", "PROCBPM",
    "PROCDARK", "PROCFLAT", "PROCSCI", "GIFLAT", "GMOSAIC", "NAXIS1", "NAXIS2",
)  # fmt: skip


def number(cards: Cards, key: str) -> float | None:
    """The card as a finite float, also when it was written as text; else None."""
    value = cards.get(key)
    if value is None or isinstance(value, bool):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        try:  # FITS has 1.5D-5, too
            result = float(str(value).upper().replace("D", "E"))
        except ValueError:
            return None
    return result if math.isfinite(result) else None


def text(cards: Cards, key: str) -> str | None:
    """The card as stripped text; None when absent, undefined or blank."""
    value = cards.get(key)
    if value is None or type(value).__name__ == "Undefined":
        return None
    result = str(value).strip()
    return result or None


def pixel_scale(cards: Cards) -> float | None:
    """Arcseconds per pixel from the CD matrix, 3600 sqrt(|det CD|); None without a usable one."""
    cd = [number(cards, key) for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2")]
    if any(v is None for v in cd):
        return None
    det = cd[0] * cd[3] - cd[1] * cd[2]  # type: ignore[operator]
    return 3600.0 * math.sqrt(abs(det))


FARTHEST_PIXEL = 1e5  # 3 degrees with the coarsest camera


def sane_wcs(cards: Cards) -> bool:
    """True when the cards hold a tangent-plane WCS with a scale that a NIRI camera can have.

    The cameras give 0.021 to 0.117 arcsec per pixel; 0.005 to 0.5 leaves room. The two axes must
    have like scales: real files exist with CD1_1 = -3e-55 beside a good CD2_2, or CD = (1, 0, 0, 1.7).
    The reference point is within degrees of the image.
    """
    scale = pixel_scale(cards)
    if scale is None or not 0.005 < scale < 0.5:
        return False
    row1 = math.hypot(float(cards["CD1_1"]), float(cards["CD1_2"]))
    row2 = math.hypot(float(cards["CD2_1"]), float(cards["CD2_2"]))
    if not 0.5 < row1 / row2 < 2.0:
        return False
    if not str(cards.get("CTYPE1", "")).startswith("RA") or not str(cards.get("CTYPE2", "")).startswith(
        "DEC"
    ):
        return False
    places = [number(cards, key) for key in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2")]
    if None in places or max(abs(places[0] or 0.0), abs(places[1] or 0.0)) > FARTHEST_PIXEL:
        return False
    return abs(places[3] or 0.0) <= 90.0


def merge(phu: Cards, ext: Cards) -> dict[str, Any]:
    """One mapping of a frame's cards, shared by descriptors, tags and steps.

    The primary header's cards, overlaid by those of EXTENSION_CARDS in the extension. The WCS is
    the extension's when it is sane, else the primary's (real files have a corrupt extension CD1_1
    beside a good primary copy); when neither is, the extension's is left for prepare to judge. Other
    spellings of a WCS, and what is said of them, are those of `wcscards`.
    """
    phu, ext = standard(phu), standard(ext)
    cards = {key: phu[key] for key in phu if _keep(key)}
    for key in ext:
        if _keep(key) and key not in WCS_CARDS and (key in EXTENSION_CARDS or key not in cards):
            cards[key] = ext[key]
    by_image = sane_wcs(ext)
    source = ext if by_image or not sane_wcs(phu) else phu
    for key in WCS_CARDS:
        if key in source:
            cards[key] = source[key]
    for key in (READ, REFUSED):
        cards.pop(key, None)
    if by_image and (apart := disagreement(phu, ext)):
        cards[READ] = apart
    if not by_image and source is phu and not {REFUSED, "CTYPE1", "CD1_1"}.isdisjoint(ext):
        cards[READ] = f"primary header's used; image's: {ext.get(REFUSED, 'no scale of a camera')}"[:68]
    cards |= {key: source[key] for key in (READ, REFUSED) if key in source}
    if "RADECSYS" in cards:  # the name that the FITS standard gave up
        cards.setdefault("RADESYS", cards["RADECSYS"])
        del cards["RADECSYS"]
    return cards


def _keep(key: str) -> bool:
    return not STRUCTURAL.match(key)


def facts_digest(cards: Cards, keys: Iterable[str] = FACT_CARDS) -> str:
    """SHA-256 hex digest of the canonical values of the cards that the project reads.

    Canonical: text stripped of trailing blanks, numbers by value (1 = 1.0), absent cards left out. So
    the digest tells a changed descriptor from an edited comment, another card order or another writer.
    """
    digest = hashlib.sha256()
    for key in sorted(set(keys)):
        value = cards.get(key)
        if value is None:
            continue
        digest.update(f"{key}={_canonical(value)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _canonical(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, int | float):
        return repr(float(value))
    return "'" + str(value).rstrip() + "'"


def ascii_name(text: str) -> str:
    """A file's name, or a note with one, as a header can hold it: what is not printable ASCII is escaped, as
    Python does."""
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)
