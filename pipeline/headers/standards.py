"""The packaged list of near-infrared standard stars, and how observers write their names.

Made from published lists (Leggett et al. 2006 MKO first, then Persson et al. 1998, Hunt et al. 1998,
Hawarden et al. 2001), one row a star; positions are J2000, magnitudes Vega. Numbers of the LCO list
alone ("9104") are no names here: an object may be called so for other reasons.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

BANDS = ("J", "H", "K", "Ks", "Lprime", "Mprime")


@dataclass(frozen=True)
class Standard:
    """ra, dec : degrees, J2000; pm_ra (with cos dec), pm_dec : mas per year, 0 when not known
    magnitudes, errors : band -> magnitude in `system`; only what was measured
    flag : reasons for care, separated by ";": variable_suspected, double, very_red ...
    """

    name: str
    other_names: tuple[str, ...]
    ra: float
    dec: float
    pm_ra: float
    pm_dec: float
    magnitudes: Mapping[str, float]
    errors: Mapping[str, float]
    system: str
    flag: str


@cache
def table() -> tuple[Standard, ...]:
    text = resources.files("pipeline").joinpath("data/nir-standards.csv").read_text(encoding="utf-8")
    return tuple(_star(row) for row in csv.DictReader(text.splitlines()))


def find(name: str) -> Standard | None:
    """The standard that an OBJECT name means: FS17, fs_017, P330E, Rubin 149 (ukirt fs14) ...; else None."""
    hyphened, plain = _names()
    if star := hyphened.get(name.strip().upper()):
        return star
    if star := plain.get(normalise(name)):
        return star
    number = _INSIDE.search(name.upper())
    return plain.get(f"FS{int(number[1])}") if number else None


def normalise(name: str) -> str:
    """Upper case, without blanks, underscores, hyphens and zeros that lead a number."""
    return re.sub(r"[\s_-]", "", re.sub(r"(?<![\d.])0+(?=\d)", "", name.upper()))


# An FS number inside other text, as fs19_H; fs2-03 and the like are other names of other stars.
_INSIDE = re.compile(r"(?<![A-Z0-9])(?:UKIRT)?[\s_-]*FS[\s_-]*0*(\d{1,3})(?!\d|\s*-\s*\d)")


@cache
def _names() -> tuple[dict[str, Standard], dict[str, Standard]]:
    """(names that need their hyphen, all others normalised). A star's own name comes before any alias."""
    hyphened: dict[str, Standard] = {}
    plain = {normalise(star.name): star for star in table()}
    for star in table():
        for alias in star.other_names:
            if re.fullmatch(r"FS2-\d+", alias.upper()):  # without hyphen it would be another star's number
                hyphened[alias.upper()] = star
            else:
                plain.setdefault(normalise(alias), star)
    return hyphened, plain


def _star(row: Mapping[str, str]) -> Standard:
    def values(suffix: str) -> dict[str, float]:
        return {band: float(row[band + suffix]) for band in BANDS if row[band + suffix]}

    return Standard(
        name=row["name"],
        other_names=tuple(filter(None, row["other_names"].split(";"))),
        ra=float(row["ra_j2000_deg"]),
        dec=float(row["dec_j2000_deg"]),
        pm_ra=float(row["pm_ra"] or 0.0),
        pm_dec=float(row["pm_dec"] or 0.0),
        magnitudes=values(""),
        errors=values("_err"),
        system=row["system"],
        flag=row["flag"],
    )
