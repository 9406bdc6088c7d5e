"""Images onto a common grid as Gemini does it: one interpolant for SCI, VAR and each bit of DQ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numba import njit

from pipeline.algorithms.grids import Grid, Mapping
from pipeline.algorithms.resampling import NO_DATA, FloatImage, MaskImage, Resampled, to_input

LEAST_VARIANCE = 0.1  # of that of a linear interpolation; below, a polynomial has swung too far
Interpolant = Literal["nearest", "linear", "poly3", "poly5", "spline3", "spline5"]


def resample_plainly(
    sci: FloatImage,
    var: FloatImage | None,
    dq: MaskImage,
    mapping: Mapping,
    grid: Grid,
    *,
    interpolant: Interpolant = "poly3",
    conserve: bool = True,
    dq_threshold: float = 0.001,
) -> Resampled:
    """An image on a new grid as Gemini does it: one interpolant over SCI, VAR and each DQ bit.

    interpolant : polyN, the polynomial of order N through the N + 1 nearest pixels of an axis (fewer
    towards the
        edge, by two at a time); splineN, scipy's; linear and nearest are poly1 and poly0
    A bit is set where its interpolated plane (0 or 1) is above dq_threshold in absolute value. Outside the
    image: 0, VAR 0, DQ 16. VAR is smoothed like SCI. Beside bright pixels it comes out as nothing, or less:
    there it becomes what a linear interpolation gives (0 in Gemini's), for a good pixel without variance
    would count as perfectly known.
    """
    here = mapping.moved_to(grid)
    order = {"nearest": 0, "linear": 1}[interpolant] if interpolant[-1].isalpha() else int(interpolant[-1])
    whole = here.is_shift and here.c == round(here.c) and here.f == round(here.f)

    def move(plane: Any) -> Any:
        if whole:
            return _placed(plane, (round(here.f), round(here.c)), grid.shape)
        if interpolant.startswith("spline"):
            return _spline(plane, here, grid.shape, order)
        out = np.zeros(grid.shape, np.float32)
        _polynomial(plane.astype(np.float32), here.numbers, order, out)
        return out

    floor = None
    if var is not None and order > 1:
        floor = np.zeros(grid.shape, np.float32)
        _polynomial(var, here.numbers, 1, floor)
    return _move_planes(sci, var, dq, move, here.jacobian if conserve else 1.0, dq_threshold, floor)


def _spline(plane: Any, here: Mapping, shape: tuple[int, int], order: int) -> Any:
    from scipy import ndimage

    if here.distortion:
        rows, columns = np.indices(shape)
        u, v = here.to_input(columns, rows)
        return ndimage.map_coordinates(plane, [v, u], order=order)
    matrix = np.array([[here.e, here.d], [here.b, here.a]])
    return ndimage.affine_transform(plane, matrix, np.array([here.f, here.c]), shape, order=order)


@njit(cache=True, nogil=True)
def _polynomial(plane: Any, m: Any, order: int, out: Any) -> None:  # pragma: no cover - compiled
    """Polynomial interpolation on the pixels of the plane around each output pixel; 0 outside."""
    ny, nx = plane.shape
    wx, wy = np.empty(6), np.empty(6)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            u, v, _ = to_input(x, y, m)
            if not (0 <= u <= nx - 1 and 0 <= v <= ny - 1):
                continue
            x0, sx = _lagrange(u, nx, order, wx)
            y0, sy = _lagrange(v, ny, order, wy)
            total = 0.0
            for j in range(sy):
                for i in range(sx):
                    total += wy[j] * wx[i] * plane[y0 + j, x0 + i]
            out[y, x] = total


@njit(cache=True, nogil=True)
def _lagrange(u: float, n: int, order: int, w: Any) -> Any:  # pragma: no cover - compiled
    """(first pixel, number) of the pixels that the polynomial at u runs through, their weights in w."""
    if order == 0:
        w[0] = 1.0
        return min(max(int(np.floor(u + 0.5)), 0), n - 1), 1
    below = min(int(np.floor(u)), n - 2)
    while order > 1 and (below - (order - 1) // 2 < 0 or below + (order + 1) // 2 > n - 1):
        order -= 2
    first = below - (order - 1) // 2
    for i in range(order + 1):
        w[i] = 1.0
        for j in range(order + 1):
            if j != i:
                w[i] *= (u - first - j) / (i - j)
    return first, order + 1


def _move_planes(
    sci: FloatImage,
    var: FloatImage | None,
    dq: MaskImage,
    move: Callable[[Any], Any],
    factor: float,
    threshold: float,
    floor: FloatImage | None,
) -> Resampled:
    outside = move(np.ones(sci.shape, np.float32)) < 0.5
    out_dq = np.zeros(outside.shape, np.uint16)
    for bit in (1 << k for k in range(16)):
        plane = ((dq & bit) != 0).astype(np.float32)
        if plane.any():
            out_dq |= np.where(np.abs(move(plane)) > threshold, np.uint16(bit), np.uint16(0))
    out_dq[outside] = NO_DATA
    out_sci = np.where(outside, np.float32(0), move(sci) * np.float32(factor))
    out_var = None
    if var is not None:
        moved = np.maximum(move(var), 0)
        if floor is not None:
            moved = np.where(moved < LEAST_VARIANCE * floor, floor, moved)
        out_var = np.where(outside, np.float32(0), moved * np.float32(factor * factor))
    return Resampled(out_sci, out_var, out_dq, 1.0)


def _placed(plane: Any, offset: tuple[int, int], shape: tuple[int, int]) -> Any:
    """The plane with its origin at -offset (y, x) of the output."""
    out = np.zeros(shape, plane.dtype)
    (oy, ox), (ny, nx) = offset, plane.shape
    y0, x0 = max(0, -oy), max(0, -ox)
    y1, x1 = min(shape[0], ny - oy), min(shape[1], nx - ox)
    if y1 > y0 and x1 > x0:
        out[y0:y1, x0:x1] = plane[y0 + oy : y1 + oy, x0 + ox : x1 + ox]
    return out
