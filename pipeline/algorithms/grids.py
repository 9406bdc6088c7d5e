"""Where the pixels of one image lie in another, and the grid that holds them all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mapping:
    """Where an output pixel lies in the input: x_in = a x + b y + c, y_in = d x + e y + f, pixels from 0.

    distortion, centre : afterwards the input coordinates, taken for undistorted, are distorted about
    `centre`:
        a detector radius r belongs to the true radius r + distortion r² (barrel)
    """

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 1.0
    f: float = 0.0
    distortion: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)

    def moved_to(self, grid: Grid) -> Mapping:
        """The same from pixels of the grid instead of those of the reference."""
        c = self.c + self.a * grid.x0 + self.b * grid.y0
        f = self.f + self.d * grid.x0 + self.e * grid.y0
        return replace(self, c=c, f=f)

    @property
    def numbers(self) -> Floats:
        """All nine, for the compiled loops."""
        return np.array([self.a, self.b, self.c, self.d, self.e, self.f, self.distortion, *self.centre])

    @property
    def is_shift(self) -> bool:
        """True when it moves pixels and does nothing else, to 1e-4 pixel over 2000."""
        turn = max(abs(self.a - 1), abs(self.b), abs(self.d), abs(self.e - 1))
        return turn < 5e-8 and self.distortion == 0

    @property
    def jacobian(self) -> float:
        """Input pixels per output pixel of the linear part; its product with a value keeps the flux."""
        return abs(self.a * self.e - self.b * self.d)

    def to_input(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Input pixel of an output pixel."""
        u, v = self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f
        if not self.distortion:
            return u, v
        dx, dy = u - self.centre[0], v - self.centre[1]
        ratio = distorted(np.hypot(dx, dy), self.distortion)
        return self.centre[0] + dx * ratio, self.centre[1] + dy * ratio

    def to_output(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Output pixel of an input pixel, the inverse of `to_input`."""
        dx, dy = x - self.centre[0], y - self.centre[1]
        stretch = 1 + self.distortion * np.hypot(dx, dy)
        u, v = self.centre[0] + dx * stretch - self.c, self.centre[1] + dy * stretch - self.f
        det = self.a * self.e - self.b * self.d
        return (self.e * u - self.b * v) / det, (self.a * v - self.d * u) / det


def distorted(r: Any, k: float) -> Any:
    """Detector radius over true radius r, for true = detector + k detector²."""
    return 2.0 / (1.0 + np.sqrt(1.0 + 4.0 * k * np.asarray(r, float)))


class Grid(NamedTuple):
    """The output: origin (x, y) in pixels of the reference, and shape (ny, nx)."""

    x0: int
    y0: int
    shape: tuple[int, int]


def union_grid(mappings: list[Mapping], shape: tuple[int, int]) -> Grid:
    """The smallest grid of reference pixels that holds all input images of `shape`.

    From ceil of the least to floor of the largest corner coordinate, as Gemini has it: half-covered pixels on
    the rim are left out.
    """
    ny, nx = shape
    rim_x, rim_y = np.linspace(0, nx - 1, 9), np.linspace(0, ny - 1, 9)
    x = np.concatenate([rim_x, rim_x, np.zeros(9), np.full(9, nx - 1)])
    y = np.concatenate([np.zeros(9), np.full(9, ny - 1), rim_y, rim_y])
    corners = [mapping.to_output(x, y) for mapping in mappings]
    low = [math.ceil(min(c[k].min() for c in corners) - 1e-6) for k in (0, 1)]
    high = [math.floor(max(c[k].max() for c in corners) + 1e-6) for k in (0, 1)]
    return Grid(low[0], low[1], (high[1] - low[1] + 1, high[0] - low[0] + 1))
