"""What single cards of a header say: a number, a text, an angle, the scale of its world coordinates.

`Cards` is any `Mapping`, so that our own fast reader (a dict) and astropy (a `fits.Header`, whose first
duplicate wins) serve alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

Cards = Mapping[str, Any]


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


def angle(value: Any, hours: bool) -> float | None:
    """Degrees from a float or from sexagesimal text; text right ascensions are hours."""
    if value is None or isinstance(value, bool):
        return None
    try:
        result = float(value)
        return result if math.isfinite(result) else None
    except (TypeError, ValueError):
        pass
    parts = re.split(r"[:\s]+", str(value).strip())
    try:
        numbers = [abs(float(part)) for part in parts[:3]]
    except ValueError:
        return None
    result = float(sum(n / 60**i for i, n in enumerate(numbers)))
    result = -result if parts[0].startswith("-") else result
    return result * 15 if hours else result


def ascii_name(text: str) -> str:
    """A file's name, or a note with one, as a header can hold it: what is not printable ASCII is escaped, as
    Python does."""
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)


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
