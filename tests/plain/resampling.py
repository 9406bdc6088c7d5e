"""The plain statement of `pipeline.algorithms.resampling`, in numpy."""

from __future__ import annotations

import numpy as np

from pipeline.algorithms.grids import Grid, Mapping
from pipeline.algorithms.planes import FloatImage
from pipeline.algorithms.resampling import Floats, keys


def resample_plain(sci: FloatImage, mapping: Mapping, grid: Grid) -> Floats:
    """The plain statement of the interpolation in `_shift` and `_gather`, for an image without bad pixels."""
    rows, columns = np.indices(grid.shape)
    u, v = mapping.to_input(columns + grid.x0, rows + grid.y0)
    ix, iy = np.floor(u + 1e-9).astype(int), np.floor(v + 1e-9).astype(int)
    out = np.zeros(grid.shape)
    for j in (-1, 0, 1, 2):
        for i in (-1, 0, 1, 2):
            weight = keys(u - ix - i) * keys(v - iy - j)
            inside = (ix + i >= 0) & (ix + i < sci.shape[1]) & (iy + j >= 0) & (iy + j < sci.shape[0])
            value = sci[np.clip(iy + j, 0, sci.shape[0] - 1), np.clip(ix + i, 0, sci.shape[1] - 1)]
            out += np.where(inside, weight * value, 0)
    return out
