"""One image less another, where both see the sky: what is new in a frame, or in a later version.

    found = of(one, other, skies, step=3)         # one, other : window.Opened
    found.plain(), found.halves()                 # for JSON, and the pixels as 16-bit floats

On the pixels of the first: the second is interpolated linearly at the places that the coordinates of both
say, read band by band, so that it costs a few MB and not both images. Blocks of step x step pixels are
averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import NiridError
from pipeline.files.window import Opened
from pipeline.frame import BAD_PIXEL, NO_DATA, UNILLUMINATED
from pipeline.headers.descriptors import filter_name, strip_ids
from pipeline.headers.tangent import Tangent, affine_between, tangent

Values = npt.NDArray[np.float32]

WITHOUT = NO_DATA | BAD_PIXEL | UNILLUMINATED  # pixels that are not compared
ROWS = 48  # about as many are read at a time
MOST_PIXELS = 1 << 24
LEAST = 0.02  # of the first that the second must see
_SHARP = 1e4  # a place is known to 1e-4 pixel


class NoDifference(NiridError):
    """The two cannot be compared, with the reason."""


@dataclass(frozen=True)
class Difference:
    """values : (ny, nx) less their median, the lowest row first, nan where there are none

    level : that median; sigma : the noise of `values`; step : pixels of the first in one of these
    overlap : part of the first that the second sees, 0 to 1; aligned : how
    """

    values: Values
    level: float
    sigma: float
    step: int
    overlap: float
    aligned: str

    def plain(self) -> dict[str, Any]:
        """All but the pixels."""
        ny, nx = self.values.shape
        told = {"level": self.level, "sigma": self.sigma, "overlap": self.overlap}
        short = {name: float(f"{value:.6g}") for name, value in told.items()}
        return {"nx": nx, "ny": ny, "step": self.step, "aligned": self.aligned, **short}

    def halves(self) -> bytes:
        """Values over sigma as little-endian 16-bit floats: to a thousandth of themselves."""
        scaled = np.clip(self.values / np.float32(self.sigma), -6e4, 6e4)
        return bytes(scaled.astype("<f2").data)


def of(
    one: Opened, other: Opened, skies: tuple[Mapping[str, Any], Mapping[str, Any]], step: int
) -> Difference:
    """skies : what the picture of each says of its sky. Raises NoDifference."""
    filters = [strip_ids(filter_name(each.cards)) for each in (one, other)]
    if filters[0] != filters[1]:
        raise NoDifference(f"the filters differ: {filters[0]} and {filters[1]}")
    if one.unit != other.unit:
        raise NoDifference(f"the units differ: {one.unit or 'none'} and {other.unit or 'none'}")
    if max(math.prod(one.shape), math.prod(other.shape)) > MOST_PIXELS:
        raise NoDifference("they are too large")
    places, aligned = _places(one, other, skies)
    ny, nx = one.shape
    rows = max(1, ROWS // step) * step
    bands = [_band(one, other, y, min(rows, ny - y), places, step) for y in range(0, ny, rows)]
    values, seen = np.concatenate([band[0] for band in bands]), sum(band[1] for band in bands)
    if seen < LEAST * nx * ny:
        raise NoDifference("they do not see the same part of the sky")
    some = values[np.isfinite(values)]
    level = float(np.median(some))
    sigma = 1.4826 * float(np.median(np.abs(some - np.float32(level))))
    return Difference(values - np.float32(level), level, sigma or 1.0, step, seen / (nx * ny), aligned)


def _places(
    one: Opened, other: Opened, skies: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> tuple[tuple[float, ...], str]:
    """((a, b, c, d, e, f), how): x = a X + b Y + c, y = d X + e Y + f, from the first to the second."""
    first, second = (_tangent(sky) for sky in skies)
    if first and second:
        ny, nx = one.shape
        places = affine_between(first, second, (nx / 2, ny / 2))
        if not all(map(math.isfinite, places)):
            raise NoDifference("they do not see the same part of the sky")
        return places, "by the coordinates of both"
    if first or second:
        raise NoDifference("only one of the two has coordinates on the sky")
    if one.shape != other.shape:
        raise NoDifference(f"their sizes differ: {one.shape[::-1]} and {other.shape[::-1]} pixels")
    return (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "pixel by pixel"


def _tangent(sky: Mapping[str, Any]) -> Tangent | None:
    """None where its picture tells nothing, or what no coordinates of NIRI are."""
    try:
        (x, y), (ra, dec), ((a, b), (c, d)) = sky["crpix"], sky["crval"], sky["cd"]
    except (KeyError, TypeError, ValueError):
        return None
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRPIX1": x,
        "CRPIX2": y,
        "CRVAL1": ra,
        "CRVAL2": dec,
    }
    return tangent({**cards, "CD1_1": a, "CD1_2": b, "CD2_1": c, "CD2_2": d})


def _band(
    one: Opened, other: Opened, low: int, rows: int, places: tuple[float, ...], step: int
) -> tuple[Values, int]:
    """(averages of blocks, how many pixels both have) of these rows of the first."""
    nx = one.shape[1]
    first = _valued(one, low, rows)
    a, b, c, d, e, f = places
    x, y = np.arange(nx, dtype=np.float64)[None, :], np.arange(low, low + rows, dtype=np.float64)[:, None]
    values = first - _interpolated(other, a * x + b * y + c, d * x + e * y + f)
    high, wide = -(-rows // step) * step, -(-nx // step) * step
    padded = np.full((high, wide), np.nan, np.float32)
    padded[:rows, :nx] = values
    blocks = padded.reshape(high // step, step, wide // step, step)
    good = np.isfinite(blocks)
    count = good.sum(axis=(1, 3))
    total = np.where(good, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean.astype(np.float32), int(count.sum())


def _valued(opened: Opened, low: int, rows: int) -> Values:
    """Whole rows; nan where there is nothing to compare."""
    seen = opened.window(0, low, opened.shape[1], rows)
    bad = np.zeros(seen.values.shape, bool) if seen.void is None else seen.void
    if seen.flags is not None and not opened.is_mask:
        bad = bad | ((seen.flags & WITHOUT) != 0)
    return np.where(bad, np.float32(np.nan), seen.values)


def _interpolated(opened: Opened, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> Values:
    """Its values at these places, nan where one of the neighbours that count has none."""
    ny, nx = opened.shape
    x, y = np.round(x * _SHARP) / _SHARP, np.round(y * _SHARP) / _SHARP
    low = max(0, math.floor(y.min()))
    high = min(ny, math.floor(y.max()) + 2)
    if high <= low:
        return np.full(x.shape, np.nan, np.float32)
    rows = _valued(opened, low, high - low)
    left, foot = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, top = (x - left).astype(np.float32), (y - foot).astype(np.float32)
    total = np.zeros(x.shape, np.float32)
    for dx, dy, weight in (
        (0, 0, (1 - right) * (1 - top)),
        (1, 0, right * (1 - top)),
        (0, 1, (1 - right) * top),
        (1, 1, right * top),
    ):
        column, row = left + dx, foot + dy - low
        inside = (column >= 0) & (column < nx) & (row >= 0) & (row < rows.shape[0])
        found = rows[np.where(inside, row, 0), np.where(inside, column, 0)]
        total += np.where(weight == 0, np.float32(0), np.where(inside, found, np.float32(np.nan)) * weight)
    return total
