"""The zero point that a standard star gave, on its way to the science images of its camera and filter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import standards
from pipeline.headers import Cards, number

# A standard with one of these is measured, but its zero point is not to be trusted.
DOUBTFUL = ("variable", "double", "suspect", "uncertain")


@dataclass(frozen=True)
class ZeroPoint:
    """What the header of a standard's image says: m = value - 2.5 log10(e-/s) - extinction (airmass - 1).

    value, error : magnitudes; the error has that of the extinction between airmass 1 and `airmass` in it
    star : the standard; magnitude : its own, of the catalogue; image : name of the image, without .fits
    """

    value: float
    error: float
    star: str
    magnitude: float
    airmass: float
    extinction: float
    extinction_error: float
    image: str

    def at(self, airmass: float, extinction: float, extinction_error: float) -> tuple[float, float]:
        """(value, error) for images at another airmass, by the extinction that is assumed for them.

        What was measured is the zero point at the standard's airmass; an extinction that is wrong changes a
        magnitude only by the difference of the two.
        """
        value = self.value + (extinction - self.extinction) * (self.airmass - 1)
        measured = self.error**2 - (self.extinction_error * (self.airmass - 1)) ** 2
        return value, math.sqrt(max(measured, 0.0) + (extinction_error * (airmass - self.airmass)) ** 2)


def read(cards: Cards, name: str) -> ZeroPoint | None:
    """The zero point that an image of a standard has in its header; None for any other image.

    An image that carries the zero point of another (ZPIMAGE), or one of a star that is not to be trusted,
    has none to give.
    """
    values: dict[str, Any] = {key: number(cards, key) for key in ("MAGZPT", "MAGZERR", "ZPMAG", "KEXT")}
    star = standards.find(str(cards.get("ZPSTAR", "")))
    if None in values.values() or "ZPIMAGE" in cards or star is None or doubts(star):
        return None
    return ZeroPoint(
        values["MAGZPT"],
        values["MAGZERR"],
        star.name,
        values["ZPMAG"],
        number(cards, "AIRMASS") or 1.0,
        values["KEXT"],
        number(cards, "KEXTERR") or 0.0,
        Path(name).name.removesuffix(".fits"),
    )


def doubts(star: standards.Standard) -> list[str]:
    """Why the zero point of a star may be wrong."""
    return [word for word in DOUBTFUL if word in star.flag]
