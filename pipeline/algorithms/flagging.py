"""What pixel values and neighbours say about data quality, and geometry of masks.

Masks of DQ bits are uint16, 0 is good; other masks are bool. Inputs are never modified. In plain numpy:
`tests/plain/flagging.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.algorithms.planes import BoolImage, FloatImage, MaskImage, fixed

NON_LINEAR, SATURATED, LATENT, NO_DATA = 2, 4, 8, 16
# The area of a region below the non-linear level that is taken for the burnt-out core of a star (DRAGONS).
HIDDEN_AREA = 10_000


def level_flags(
    sci: FloatImage, dq: MaskImage, non_linear: float, saturation: float
) -> tuple[MaskImage, int]:
    """(dq with more bits, number of pixels at or above non_linear) from the values of raw pixels.

    Bit 4 (saturated) from `saturation` up, bit 2 (non-linear) from `non_linear` up to there, bit 16 (no
    data) where the value is not finite.
    """
    return _level_flags(fixed(sci), fixed(dq), float(non_linear), float(saturation))


@njit(cache=True, nogil=True)
def _level_flags(
    sci: FloatImage, dq: MaskImage, non_linear: float, saturation: float
) -> tuple[MaskImage, int]:
    out = np.empty(sci.shape, np.uint16)
    number = 0
    for y in range(sci.shape[0]):
        for x in range(sci.shape[1]):
            v = sci[y, x]
            if v - v != np.float32(0.0):
                bit = NO_DATA
            elif v >= saturation:
                bit = SATURATED
            elif v >= non_linear:
                bit = NON_LINEAR
            else:
                bit = 0
            number += v >= non_linear
            out[y, x] = dq[y, x] | np.uint16(bit)
    return out, number


def hidden_saturation(sci: FloatImage, non_linear: float, largest: int = HIDDEN_AREA) -> BoolImage:
    """True in small holes of low signal: the burnt-out cores of very bright stars.

    A heavily saturated pixel reads low, so that the star looks like a ring. Every region (4-connected)
    below `non_linear` of at most `largest` pixels, and at most a quarter of the image, is taken for one.
    """
    return _small_regions(fixed(sci), float(non_linear), min(largest, sci.size // 4))


@njit(cache=True, nogil=True)
def _small_regions(sci: FloatImage, level: float, largest: int) -> BoolImage:
    """Regions below level by runs of rows, joined where they touch: with few high pixels there are few."""
    ny, nx = sci.shape
    number = ny  # of runs, at most: a high pixel makes one more of a row
    for y in range(ny):
        for x in range(nx):
            number += not sci[y, x] < level
    start, stop = np.empty(number, np.int64), np.empty(number, np.int64)
    parent, area = np.arange(number), np.zeros(number, np.int64)
    first_of_row = np.empty(ny + 1, np.int64)
    run, above = -1, 0
    for y in range(ny):
        first_of_row[y] = run + 1
        x = 0
        while x < nx:
            if not sci[y, x] < level:
                x += 1
                continue
            run += 1
            start[run] = x
            while x < nx and sci[y, x] < level:
                x += 1
            stop[run] = x
        above = first_of_row[y - 1] if y else 0
        for r in range(first_of_row[y], run + 1):
            while above < first_of_row[y] and stop[above] <= start[r]:
                above += 1
            other = above
            while other < first_of_row[y] and start[other] < stop[r]:
                a, b = _root(parent, other), _root(parent, r)
                parent[max(a, b)] = min(a, b)
                other += 1
    first_of_row[ny] = run + 1
    for r in range(run + 1):
        area[_root(parent, r)] += stop[r] - start[r]
    out = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for r in range(first_of_row[y], first_of_row[y + 1]):
            if area[_root(parent, r)] <= largest:
                out[y, start[r] : stop[r]] = True
    return out


@njit(cache=True, nogil=True)
def _root(parent: NDArray[np.int64], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def pixels_with(dq: MaskImage, bits: int) -> NDArray[np.intp]:
    """Flat indices of the pixels that have any of the bits."""
    return np.flatnonzero((dq & np.uint16(bits)) != 0)


def latent(dq: MaskImage, saturated: Iterable[NDArray[np.intp]]) -> MaskImage:
    """dq with bit 8 where frames taken shortly before were saturated: the detector remembers.

    saturated : for each earlier frame, `pixels_with` of its mask
    """
    out = dq.copy()
    for pixels in saturated:
        out.reshape(-1)[pixels] |= np.uint16(LATENT)
    return out


def dilate(mask: BoolImage, radius: float) -> BoolImage:
    """True within `radius` pixels of a True pixel: dx² + dy² <= radius², exactly."""
    reach = math.floor(radius)
    half_widths = [math.isqrt(math.floor(radius * radius) - dy * dy) for dy in range(reach + 1)]
    return _grow(fixed(mask), np.array(half_widths))


@njit(cache=True, nogil=True)
def _grow(mask: BoolImage, half_widths: NDArray[np.int64]) -> BoolImage:
    """Spread every run of True in a row over the rows within reach, wider by the half width there."""
    ny, nx = mask.shape
    reach = half_widths.size - 1
    out = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        x = 0
        while x < nx:
            if not mask[y, x]:
                x += 1
                continue
            start = x
            while x < nx and mask[y, x]:
                x += 1
            for j in range(max(y - reach, 0), min(y + reach + 1, ny)):
                width = half_widths[abs(j - y)]
                out[j, max(start - width, 0) : min(x + width, nx)] = True
    return out


def cut(plane: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """The central part of `shape` (ny, nx) of a plane, a view; the plane itself where shapes are equal.

    NIRI reads out centred windows: 512 of 1024 are rows and columns 256 to 768. Raises ValueError for a
    plane that does not contain the shape, or whose middle is half a pixel off.
    """
    offsets = [have - want for have, want in zip(plane.shape, shape, strict=True)]
    if any(offset < 0 or offset % 2 for offset in offsets):
        raise ValueError(f"{plane.shape} pixels have no centred part of {shape}")
    y, x = offsets[0] // 2, offsets[1] // 2
    return plane[y : y + shape[0], x : x + shape[1]]
