"""A sky where none of its frames shows it: small holes, filled from what lies around them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.background import robust_start
from pipeline.algorithms.skymodel import Floats, medians

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]

CELL = 16  # pixels a side of the cells whose medians are the smooth sky
FEW = 0.2  # of a cell that must be seen


class Filled(NamedTuple):
    """sci, var : (m,) of the m pixels filled, in order of rows"""

    sci: FloatImage
    var: FloatImage


def fill(sci: FloatImage, var: FloatImage, bad: BoolImage, hole: BoolImage, known: float = 0.0) -> Filled:
    """The smooth sky at the pixels of `hole`, with its variance.

    sci, var, bad : (ny, nx) a sky of several frames; hole : pixels where it is not seen, all of them bad
    known : variance of a pixel about the smooth sky that VAR of the frames has already (flat and dark)

    Medians of cells, a line between their middles. The variance is that of the medians, and what
    seen pixels scatter about the smooth sky beyond their own variance: errors of flat and dark, of which a
    smooth sky knows nothing.
    """
    smooth, number = _smooth(sci, bad | hole)
    ny, nx = sci.shape
    thin = np.s_[3::7, 3::7]
    rows, columns = (plane[thin] for plane in np.indices((ny, nx)))
    seen = ~(bad | hole)[thin]
    noise = float(np.median(var[thin][seen])) if seen.any() else 0.0
    scatter = noise
    if np.count_nonzero(seen) > 30:
        about = _at(smooth, rows[seen], columns[seen])
        scatter = robust_start(sci[thin][seen] - about)[1] ** 2
    extra = max(scatter - noise - known, 0.0)
    y, x = np.nonzero(hole)
    least = np.maximum(_at(number, y, x), 1.0)
    return Filled(
        _at(smooth, y, x).astype(np.float32), (extra + 0.5 * np.pi * noise / least).astype(np.float32)
    )


def _smooth(sci: FloatImage, bad: BoolImage) -> tuple[Floats, Floats]:
    """(medians of cells, pixels that each rests on), those that see nothing filled from their neighbours."""
    ny, nx = sci.shape
    below, right = -ny % CELL, -nx % CELL
    whole = np.pad(sci, ((0, below), (0, right))), np.pad(bad, ((0, below), (0, right)), constant_values=True)
    middle, _, number = medians(*whole, CELL, FEW)
    weight = np.where(np.isfinite(middle), number, 0.0)
    light = np.where(np.isfinite(middle), middle, 0.0) * weight
    known = weight > 0
    if not known.any():
        raise ValueError("no pixel of the sky is seen")
    reach = 1.0
    while not known.all():
        from scipy import ndimage

        near, about = (ndimage.gaussian_filter(p, reach, mode="constant") for p in (light, weight))
        new = ~known & (about > 1e-3 * CELL * CELL)
        middle[new], number[new] = near[new] / about[new], CELL * CELL * FEW
        known |= new
        reach *= 2
    return middle, number


def _at(cells: Floats, y: NDArray[np.int64], x: NDArray[np.int64]) -> Floats:
    """Values at pixels, by lines between the middles of cells; beyond the outer ones theirs."""
    ny, nx = cells.shape
    v = np.clip((y + 0.5) / CELL - 0.5, 0, ny - 1)
    u = np.clip((x + 0.5) / CELL - 0.5, 0, nx - 1)
    i, j = np.minimum(v.astype(int), max(ny - 2, 0)), np.minimum(u.astype(int), max(nx - 2, 0))
    below, right = np.minimum(i + 1, ny - 1), np.minimum(j + 1, nx - 1)
    v, u = v - i, u - j
    upper = cells[i, j] * (1 - u) + cells[i, right] * u
    return np.asarray(upper * (1 - v) + (cells[below, j] * (1 - u) + cells[below, right] * u) * v)
