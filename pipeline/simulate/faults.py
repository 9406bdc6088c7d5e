"""What can be wrong with a frame, and targets that move: options of a frame of a simulated night.

Shot(...).with_fault(cloud=2.0, trail=8.0)                  # one frame
Run(..., faults={2: Fault(dead=True)})                      # the third frame of a run
replace(PRESETS["stellar"], faults={"N20160105S0105": Fault(blur=2.5)})

Light is spoilt before there is noise, as in the telescope: a trailed frame has the noise of any other.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.simulate.detector import FloatImage

Smear = tuple[tuple[float, float, float], ...]  # (dx, dy, share) of the light, pixels
SHARP: Smear = ((0.0, 0.0, 1.0),)
OVERFULL = 2.5  # wells that the light of a saturated frame would fill


@dataclass(frozen=True)
class Fault:
    """What is wrong with one frame; the defaults are nothing.

    dead : no light at all, as behind a closed shutter;  saturated : every pixel is at the well
    constant : all pixels have this raw value, ADU
    sky : factor on the sky;  cloud : magnitudes that stars and galaxies lose, the sky nothing
    trail, trail_angle : the light is smeared evenly along a line, pixels, degrees from x to y
    double, share : a second image of everything at (dx, dy) pixels, and its share of the light
    blur : factor on FWHM
    header : pixels (x, y) by which the light lies away from where the header puts it, in its WCS and its
        offsets alike; the light itself stays where it was
    gradient, gradient_angle : tilt of the sky from edge to edge of the array as part of its level, and the
        direction in which it gets brighter, degrees from x to y
    add : ADU on every pixel, of one coadd;  lamp : factor on a flat's lamp, 0 for one that is not lit
    cards : header cards that say something else
    """

    dead: bool = False
    saturated: bool = False
    constant: float | None = None
    sky: float = 1.0
    cloud: float = 0.0
    trail: float = 0.0
    trail_angle: float = 0.0
    double: tuple[float, float] | None = None
    share: float = 0.5
    blur: float = 1.0
    header: tuple[float, float] = (0.0, 0.0)
    gradient: float = 0.0
    gradient_angle: float = 0.0
    add: float = 0.0
    lamp: float = 1.0
    cards: tuple[tuple[str, Any], ...] = ()

    def facts(self) -> dict[str, Any]:
        """What is wrong, for truth.json; empty when nothing is."""
        usual = {field.name: field.default for field in fields(self)}
        return {key: value for key, value in asdict(self).items() if value != usual[key]}

    @property
    def smear(self) -> Smear:
        """Where the light of a point goes."""
        second = (0.0, 0.0, 0.0) if self.double is None else (*self.double, self.share)
        images = ((0.0, 0.0, 1 - second[2]), second)
        return tuple(
            (x + dx, y + dy, share * part)
            for x, y, share in trail(self.trail, self.trail_angle)
            for dx, dy, part in images
            if part
        )

    def tilt(self, shape: tuple[int, int]) -> FloatImage:
        """The factor on the light of the sky in every pixel; its mean is 1."""
        ny, nx = shape
        angle = np.deg2rad(self.gradient_angle)
        x = (np.arange(nx) - (nx - 1) / 2) / nx * np.cos(angle)
        y = (np.arange(ny) - (ny - 1) / 2) / ny * np.sin(angle)
        return np.asarray(1 + self.gradient * (y[:, None] + x), np.float32)


NOTHING = Fault()


def trail(length: float, angle: float) -> Smear:
    """An even line of points half a pixel apart, about the place itself."""
    if not length:
        return SHARP
    count = int(np.ceil(2 * length)) + 1
    along = (np.arange(count) - (count - 1) / 2) * length / (count - 1)
    x, y = along * np.cos(np.deg2rad(angle)), along * np.sin(np.deg2rad(angle))
    return tuple((float(a), float(b), 1 / count) for a, b in zip(x, y, strict=True))


def smeared(stars: npt.NDArray[np.float64], smear: Smear) -> npt.NDArray[np.float64]:
    """Rows (x, y, e-/s) with each star in so many places; as they were where there is but one."""
    if smear == SHARP:
        return stars
    x, y, rate = stars.T
    return np.concatenate([np.stack([x + dx, y + dy, rate * share], axis=1) for dx, dy, share in smear])


def drifting_gradient(count: int, change: float, angle: float = 35.0, first: float = 0.0) -> dict[int, Fault]:
    """Faults of `count` frames whose sky tilts from `first` to `first + change` of its level."""
    tilts = first + change * np.linspace(0, 1, count)
    return {k: Fault(gradient=float(tilt), gradient_angle=angle) for k, tilt in enumerate(tilts)}


def nods(pattern: str, throw: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """Offsets (arcsec along P, Q) of a pattern like "ABBA", `throw` from A to B, evenly about the target."""
    half = {"A": -0.5, "B": 0.5}
    return tuple((half[place] * throw[0], half[place] * throw[1]) for place in pattern)


@dataclass(frozen=True)
class Motion:
    """A target that moves over the stars.

    rate : arcsec per hour towards east and north;  mag : its brightness in the field's filter
    place : arcsec east and north of the field's target at the start of the run
    follows : "telescope", which tracks it: it stands still, the stars are trailed, and the header's WCS moves
        with it; or "offsets": the telescope tracks the stars, and POFFSET and QOFFSET step with the target
    """

    rate: tuple[float, float]
    mag: float
    place: tuple[float, float] = (0.0, 0.0)
    follows: str = "telescope"

    def at(self, seconds: float) -> tuple[float, float]:
        """Arcsec east and north of the field's target, so long after the start of the run."""
        (a, b), (east, north) = self.place, self.rate
        return a + east * seconds / 3600, b + north * seconds / 3600
