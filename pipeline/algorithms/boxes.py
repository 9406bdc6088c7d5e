"""Filters over small boxes of small images, in plain numpy: scipy's take longer to load than to run here."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mean(image: Any, size: int) -> NDArray[Any]:
    """Mean of the box of `size` (odd) pixels around each pixel; beyond the edge it goes on as at the edge."""
    half = size // 2
    out = np.pad(image, half, mode="edge").astype(np.float64)
    for axis in (0, 1):
        sums = np.cumsum(np.insert(out, 0, 0.0, axis=axis), axis=axis)
        n = out.shape[axis]
        out = np.take(sums, range(size, n + 1), axis) - np.take(sums, range(n + 1 - size), axis)
    return np.asarray(out / size**2)


def highest(image: Any, size: int) -> NDArray[Any]:
    """Largest value of the box of `size` (odd) pixels around each pixel."""
    half = size // 2
    out = np.pad(image, half, mode="edge")
    for axis in (0, 1):
        n = out.shape[axis] - size + 1
        parts = [np.take(out, range(k, k + n), axis) for k in range(size)]
        out = np.maximum.reduce(parts)
    return np.asarray(out)


def opened(mask: Any, size: int) -> NDArray[np.bool_]:
    """What is left of a mask where no box of `size` (odd) pixels fits into it: opening by that box."""
    outside = np.pad(mask, size // 2, constant_values=False)
    fits = ~highest(~outside, size)
    grown: NDArray[np.bool_] = highest(fits, size)[size // 2 : -(size // 2), size // 2 : -(size // 2)]
    return grown
