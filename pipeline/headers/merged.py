"""A frame's two headers as one mapping of cards, and the digest of what is read from it.

A NIRI file has a primary header and one extension header, with the world coordinates in both.
Everything after this module works on one mapping of cards (`values.Cards`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pipeline.headers.values import Cards, sane_wcs
from pipeline.headers.wcscards import READ, REFUSED, disagreement, standard

if TYPE_CHECKING:
    from astropy.wcs import WCS

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


def wcs_of(cards: Cards) -> WCS:
    """World coordinates by the WCS cards alone: of the others astropy warns, as of dates that it mends."""
    from astropy.io import fits
    from astropy.wcs import WCS

    return WCS(fits.Header([(key, cards[key]) for key in WCS_CARDS if key in cards]))
