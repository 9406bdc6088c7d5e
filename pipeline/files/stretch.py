"""How values become greys in a picture, written down so that greys become values again.

    automatic = Stretch(black, white, softening)       # of one picture, by what is in it
    fixed = fixed_scale(sky, sigma)                    # -2 to +10 times the noise of its sky, as all others
    table = between(automatic, fixed)                  # (256,) grey of one -> grey of the other

A picture keeps both (`thumbnails`), so that whoever shows it goes from one to the other without its pixels.
Its 8 bits suffice for that: on a field whose white is 2500 times the noise, what comes out differs by 4 % of
the noise from what the pixels give. A JPEG of it does not: the noise is what JPEG leaves out, so that there
is a small copy of either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

EMPTY = 20  # grey of pixels without data, and of black
FIXED = (-2.0, 10.0, 1 / 3)  # times the noise below and above the sky; softening
DIMMED = 3  # what greys of a frame that cannot be used are divided by
_STEPS = 1 << 16  # of a white 2500 times the noise, each is a 25th of the noise

Grey = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Stretch:
    """black, white : values; softening : of the asinh, as a part of white - black; 0 is linear"""

    black: float
    white: float
    softening: float

    def levels(self, parts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Grey, not rounded, of values that are given as parts of white - black, 0 to 1."""
        if self.softening:
            parts = np.arcsinh(parts / self.softening) / np.arcsinh(1.0 / self.softening)
        return EMPTY + parts * (255 - EMPTY)

    def values(self, grey: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The values that have these greys."""
        parts = np.clip((grey - EMPTY) / (255 - EMPTY), 0.0, 1.0)
        if self.softening:
            parts = self.softening * np.sinh(parts * np.arcsinh(1.0 / self.softening))
        return self.black + parts * (self.white - self.black)

    def greys(self, values: npt.NDArray[Any]) -> Grey:
        """The picture of these values, of the same shape."""
        table = np.rint(self.levels(np.linspace(0.0, 1.0, _STEPS))).astype(np.uint8)
        index = (values - np.float32(self.black)) * np.float32((_STEPS - 1) / (self.white - self.black))
        index += np.float32(0.5)
        return table.take(np.clip(index, 0, _STEPS - 1, out=index).astype(np.intp))

    def plain(self) -> list[float]:
        """[black, white, softening], as a picture keeps it."""
        return [float(f"{number:.7g}") for number in (self.black, self.white, self.softening)]


def fixed_scale(sky: float, sigma: float) -> Stretch:
    """The same for all pictures, in terms of the noise of their sky: eyes learn it."""
    below, above, softening = FIXED
    return Stretch(sky + below * sigma, sky + above * sigma, softening)


def between(one: Stretch, other: Stretch, dimmed: int = 1) -> Grey:
    """(256,) the grey in `other` of each grey in `one`.

    dimmed : what the greys of both are divided by; those that no pixel has, of words over it, stay
    """
    table = np.arange(256)
    own = slice(-(-EMPTY // dimmed), 255 // dimmed + 1)
    whole = np.minimum(255, table[own] * dimmed + dimmed // 2) if dimmed > 1 else table[own]
    values = one.values(whole.astype(np.float64))
    parts = np.clip((values - other.black) / (other.white - other.black), 0.0, 1.0)
    table[own] = np.rint(other.levels(parts)) // dimmed
    return table.astype(np.uint8)
