"""World coordinates in every spelling, brought to the one that the pipeline knows: TAN with a CD matrix.

    cards = standard(header)          # the same mapping where there is nothing to do, as in all of Gemini's

FITS has a dozen ways to say the same (Greisen & Calabretta 2002, Calabretta & Greisen 2002; SIP: Shupe et al.
2005): numbers as text, PCi_j with CDELT, CDELT with CROTA2, other units. These are exact here. Where the
projection is another one, or carries distortions (SIP, PV), astropy reads it, and it is replaced by the
tangent plane that fits the image's centre, provided that nowhere on the image this is off by more than
MOST_OFF pixels; else it is refused. What was done is in the card WCSREAD, what was refused in WCSBAD; no card
of a distortion stays that would then be applied twice.
"""

from __future__ import annotations

import math
import re
from typing import Any

from pipeline.headers.values import Cards, number

READ, REFUSED = "WCSREAD", "WCSBAD"
MOST_OFF = 0.5  # pixels between a projection and the tangent plane put in its place
APART_ARCSEC, APART_SCALE = 1.0, 0.01  # by which two headers of one file disagree

_PC = frozenset(f"PC{i}_{j}" for i in (1, 2) for j in (1, 2))
_CD = frozenset(f"CD{i}_{j}" for i in (1, 2) for j in (1, 2))
# As before the standard of 2002: PC001002 is PC1_2.
_OLD = {f"{a}00{i}00{j}": f"{a}{i}_{j}" for a in ("PC", "CD") for i in (1, 2) for j in (1, 2)}
_PLACES = ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2")
_LINEAR = _PC | _OLD.keys() | {"CDELT1", "CDELT2", "CROTA2"}
_BENT = frozenset(
    (
        *("A_ORDER", "B_ORDER", "AP_ORDER", "BP_ORDER", "CPDIS1", "CPDIS2", "CQDIS1", "CQDIS2"),
        *("D2IMDIS1", "D2IMDIS2", "WAT0_001", "WAT1_001", "LONPOLE"),
        *(f"PV{i}_{m}" for i in (1, 2) for m in range(40)),
    )
)
_GONE = re.compile(
    r"^(PC\d_\d|(PC|CD)00\d00\d|CDELT\d|CROTA\d|LONPOLE|LATPOLE|PV\d_\d+|(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|C[PQ]DIS\d"
    r"|D2IMDIS\d|DP\d.*|DQ\d.*|WAT\d_\d+)$"
)
_UNITS = {"": 1.0, "DEG": 1.0, "DEGREE": 1.0, "DEGREES": 1.0, "ARCMIN": 1 / 60, "ARCSEC": 1 / 3600}
_UNITS |= {"RAD": math.degrees(1.0), "MAS": 1 / 3.6e6}


def standard(cards: Cards) -> Cards:
    """The cards with their world coordinates as RA---TAN, DEC--TAN, CD in degrees, all numbers.

    The same mapping comes back where it is so already, and where there are no world coordinates at all.
    """
    if "CTYPE1" not in cards or _is_plain(cards):
        return cards
    if not _OLD.keys().isdisjoint(cards):
        cards = {
            **{_OLD.get(key, key): cards[key] for key in cards},
            **{k: cards[k] for k in _PC if k in cards},
        }
    others = {key: cards[key] for key in cards if not _GONE.match(key)}
    try:
        told = _bent(cards)
        found, read = _through_astropy(cards, told) if told else _straight(cards)
    except ValueError as error:
        gone = _CD | {"CTYPE1", "CTYPE2", "CUNIT1", "CUNIT2"}
        bare = {key: value for key, value in others.items() if key not in gone}
        return {**bare, REFUSED: str(error)[:68]}
    if not found:  # nothing that could be read at all, as in a header with CTYPE alone
        return cards
    return {**others, **found, **({READ: read} if read else {})}


def disagreement(phu: Cards, image: Cards) -> str:
    """How far the world coordinates of a file's two headers are apart, in words; "" where they agree, and
    where the primary header has none that are sane. Both as `standard` gives them, the image's sane.
    """
    if all(phu.get(key) == image.get(key) for key in (*_PLACES, *_CD)):
        return ""
    from pipeline.headers.tangent import separation, tangent

    one, two = tangent(phu), tangent(image)
    if one is None or two is None:
        return ""
    apart = float(separation(*one.to_sky(*two.crpix), *two.to_sky(*two.crpix)))
    turned = float(abs(one.cd - two.cd).max() / abs(two.cd).max())
    if apart <= APART_ARCSEC and turned <= APART_SCALE:
        return ""
    return f"headers differ by {apart:.1f} arcsec, matrix {100 * turned:.0f} %; image's used"


def _is_plain(cards: Cards) -> bool:
    if not _BENT.isdisjoint(cards) and _bent(cards):
        return False
    if (cards["CTYPE1"], cards.get("CTYPE2")) != ("RA---TAN", "DEC--TAN") or not _LINEAR.isdisjoint(cards):
        return False
    if _UNITS.get(_word(cards, "CUNIT1")) != 1.0 or _UNITS.get(_word(cards, "CUNIT2")) != 1.0:
        return False
    return all(type(cards.get(key)) in (float, int) for key in (*_PLACES, *_CD))


def _word(cards: Cards, key: str) -> str:
    value = cards.get(key)
    return str(value).strip().upper() if isinstance(value, str) else ""


def _bent(cards: Cards) -> str:
    """What these world coordinates have that no straight tangent plane has; "" without."""
    kinds = [_word(cards, key) for key in ("CTYPE1", "CTYPE2")]
    if kinds != ["RA---TAN", "DEC--TAN"]:
        if kinds in (["RA", "DEC"], ["RA--TAN", "DEC-TAN"]) or not all(kinds):
            return ""
        return f"{kinds[0]}, {kinds[1]}"
    for key in sorted(_BENT.intersection(cards)):
        value = number(cards, key)
        if key == "LONPOLE":
            if value is not None and value != 180.0:
                return f"LONPOLE {value:g}"
        elif value != 0.0:
            return f"{key} of a distortion"
    return ""


def _straight(cards: Cards) -> tuple[dict[str, Any], str]:
    """CD cards of a tangent plane, exactly, and what was odd about the spelling. ValueError for a unit."""
    units: list[float] = []
    for key in ("CUNIT1", "CUNIT2"):
        unit = _word(cards, key)
        if unit not in _UNITS:
            raise ValueError(f"{key} {unit} of world coordinates is not known")
        units.append(_UNITS[unit])
    places = {key: number(cards, key) for key in _PLACES}
    matrix, read = _matrix(cards)
    if matrix is None or None in places.values():
        return {}, ""
    for axis, factor in enumerate(units):
        places[f"CRVAL{axis + 1}"] = (places[f"CRVAL{axis + 1}"] or 0.0) * factor
        matrix[axis] = [value * factor for value in matrix[axis]]
    found: dict[str, Any] = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        **places,
        "CUNIT1": "deg",
        "CUNIT2": "deg",
    }
    found |= {f"CD{i + 1}_{j + 1}": matrix[i][j] for i in (0, 1) for j in (0, 1)}
    return found, read


def _matrix(cards: Cards) -> tuple[list[list[float]] | None, str]:
    """The CD matrix in the cards' own units, as astropy reads it: PC before CD before CROTA2."""

    def of(letters: str) -> list[list[float]]:
        default = [[1.0, 0.0], [0.0, 1.0]] if letters == "PC" else [[0.0, 0.0], [0.0, 0.0]]
        return [
            [
                (v if (v := number(cards, f"{letters}{i}_{j}")) is not None else default[i - 1][j - 1])
                for j in (1, 2)
            ]
            for i in (1, 2)
        ]

    steps = [number(cards, key) for key in ("CDELT1", "CDELT2")]
    has_cd = any(number(cards, key) is not None for key in _CD)
    if any(number(cards, key) is not None for key in _PC):
        scale = [1.0 if step is None else step for step in steps]
        made = [[scale[i] * value for value in row] for i, row in enumerate(of("PC"))]
        size = max(abs(value) for row in made for value in row) or 1.0
        apart = max(
            abs(a - b) for one, two in zip(made, of("CD"), strict=True) for a, b in zip(one, two, strict=True)
        )
        both = has_cd and apart > 1e-4 * size
        return made, "CD and PC matrices disagree; PC used, as astropy does" if both else ""
    if has_cd:
        return of("CD"), ""
    if None in steps:
        return None, ""
    angle = math.radians(number(cards, "CROTA2") or 0.0)
    a, b = (step or 0.0 for step in steps)
    sin, cos = math.sin(angle), math.cos(angle)
    return [[a * cos, -b * sin], [a * sin, b * cos]], ""


def _through_astropy(cards: Cards, what: str) -> tuple[dict[str, Any], str]:
    """The tangent plane at the image's centre. ValueError where it does not fit or cannot be read."""
    import warnings

    import numpy as np
    from astropy.io import fits
    from astropy.wcs import WCS

    size = [int(number(cards, key) or 1024) for key in ("NAXIS1", "NAXIS2")]
    wanted = re.compile(rf"{_GONE.pattern[:-2]}|CTYPE\d|CRPIX\d|CRVAL\d|CD\d_\d|CUNIT\d)$")
    header = fits.Header()
    for key in cards:
        if wanted.match(key) and (value := cards[key]) is not None:
            words = key.startswith(("CTYPE", "CUNIT", "WAT", "CPDIS", "CQDIS", "D2IM", "DP", "DQ"))
            header[key] = value if words else number(cards, key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            wcs = WCS(header)
            longitude, latitude = wcs.wcs.lng, wcs.wcs.lat
            if not wcs.wcs.ctype[longitude].startswith("RA") or longitude == latitude:
                raise ValueError("not right ascension and declination")
            x, y = (v.ravel() for v in np.meshgrid(*(np.linspace(0, n - 1, 9) for n in size)))
            sky = np.array(wcs.all_pix2world(x, y, 0))[[longitude, latitude]]
            near = np.array([[0, 1, -1, 0, 0], [0, 0, 0, 1, -1]], float)
            centre = (np.array(size)[:, None] - 1) / 2
            around = np.array(wcs.all_pix2world(*(centre + near), 0))[[longitude, latitude]]
        except Exception as error:  # astropy may raise anything here
            why = " ".join(str(error).split())[:30]
            raise ValueError(f"world coordinates in {what} cannot be read: {why}") from None
    return _fitted(sky, around, centre[:, 0], (x, y), what)


def _fitted(sky: Any, around: Any, centre: Any, pixels: Any, what: str) -> tuple[dict[str, Any], str]:
    """The plane through the centre with the slopes there, if it is right all over the image.

    sky : (2, n) degrees of `pixels`; around : (2, 5) of the centre, and a pixel to the right, left, up, down
    """
    import numpy as np

    from pipeline.headers.tangent import Tangent

    if not (np.isfinite(sky).all() and np.isfinite(around).all()):
        raise ValueError(f"world coordinates in {what} have no place for some pixels")
    unit = Tangent(np.zeros(2), np.radians(around[:, 0]), np.eye(2))
    xi, eta = (np.asarray(v) for v in unit.to_pixel(*around[:, 1:]))
    cd = np.array([[(v[0] - v[1]) / 2, (v[2] - v[3]) / 2] for v in (xi, eta)])
    if not abs(np.linalg.det(cd)) > 0:
        raise ValueError(f"world coordinates in {what} have no scale")
    plane = Tangent(np.asarray(centre, float), np.radians(around[:, 0]), cd)
    x, y = plane.to_pixel(*sky)
    off = float(np.hypot(x - pixels[0], y - pixels[1]).max())
    if not off <= MOST_OFF:
        raise ValueError(f"{what}: off by {off:.1f} pixels from a tangent plane")
    values = np.degrees(cd)
    found: dict[str, Any] = {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CUNIT1": "deg", "CUNIT2": "deg",
        "CRPIX1": float(centre[0]) + 1, "CRPIX2": float(centre[1]) + 1,
        "CRVAL1": float(around[0, 0]) % 360.0, "CRVAL2": float(around[1, 0]),
        **{f"CD{i + 1}_{j + 1}": float(values[i, j]) for i in (0, 1) for j in (0, 1)},
    }  # fmt: skip
    return found, f"{what} read as a tangent plane, within {off:.2f} pixel"
