"""Images onto a common grid, with variance and data quality.

Keys' cubic convolution, four taps an axis, so that a bad pixel is felt two pixels away and no further; bad
pixels are replaced from their neighbours first, and only pixels that they could have falsified are flagged.
A compiled separable loop for shifts, a general one for anything else. Gemini's way is in `interpolate`;
the same in plain numpy in `tests/plain/resampling.py`.

VAR answers for errors of sums, over an aperture or a block of pixels. Interpolation moves noise from pixel to
pixel, which changes no sum, so VAR is interpolated linearly and not shrunk by the squares of the weights; the
noise of single pixels does shrink, by `noise_of_pixels`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.algorithms.grids import Grid, Mapping

FloatImage = NDArray[np.float32]
MaskImage = NDArray[np.uint16]
BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

NO_DATA = np.uint16(16)

# Pixels with these bits hold no measurement: bad, cosmic ray, no data, unilluminated.
WORTHLESS = np.uint16(1 | 8 | 16 | 64)


class Resampled(NamedTuple):
    """noise : noise of single pixels over sqrt(VAR), rms over the output."""

    sci: FloatImage
    var: FloatImage | None
    dq: MaskImage
    noise: float


def keys(t: Any) -> Any:
    """Keys' cubic convolution kernel (a = -1/2); its four weights at any phase sum to 1.

    R. Keys, IEEE Trans. ASSP 29, 1153 (1981). It keeps the first and second moments of a profile: a star is
    neither moved nor, to second order, widened.
    """
    t = np.abs(t)
    near = (1.5 * t - 2.5) * t * t + 1
    far = ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))


def noise_of_pixels(fraction: Any) -> Any:
    """sqrt of the sum of the squared weights of the kernel at this phase; of one axis."""
    offsets = np.array([-1.0, 0.0, 1.0, 2.0])
    return np.sqrt(np.sum(keys(np.asarray(fraction, float)[..., None] - offsets) ** 2, axis=-1))


def resample(
    sci: FloatImage,
    var: FloatImage | None,
    dq: MaskImage,
    mapping: Mapping,
    grid: Grid,
    *,
    conserve: bool = True,
    matters: float = 0.1,
) -> Resampled:
    """An image on a new grid, by cubic convolution.

    sci, var, dq : (ny, nx); worthless pixels (WORTHLESS) are first replaced from good neighbours
    mapping : from pixels of the reference to those of this image
    conserve : multiply by the Jacobian, so that fluxes stay
    matters : sum of the absolute kernel weights of pixels with a DQ bit from which the bit is passed on

    Where the kernel leaves the image: value 0, VAR 0, DQ 16. VAR is interpolated linearly between pixels.
    """
    filled, filled_var = fill_bad(sci, var, (dq & WORTHLESS) != 0)
    here = mapping.moved_to(grid)
    variance = filled_var if filled_var is not None else np.zeros((1, 1), np.float32)
    out_sci, out_dq = np.zeros(grid.shape, np.float32), np.full(grid.shape, NO_DATA, np.uint16)
    out_var = np.zeros(grid.shape if var is not None else (1, 1), np.float32)
    if here.is_shift:
        dx, dy = _near_whole(here.c), _near_whole(here.f)
        x0, y0 = math.floor(dx), math.floor(dy)
        wx, wy = (keys(frac - np.array([-1.0, 0, 1, 2])).astype(np.float32) for frac in (dx - x0, dy - y0))
        linear = np.array([1 - (dx - x0), dx - x0, 1 - (dy - y0), dy - y0], np.float32)
        _shift(filled, variance, dq, x0, y0, wx, wy, linear, np.float32(matters), out_sci, out_var, out_dq)
        noise = float(noise_of_pixels(dx - x0) * noise_of_pixels(dy - y0))
    else:
        _gather(filled, variance, dq, here.numbers, np.float32(matters), out_sci, out_var, out_dq)
        rows, columns = (np.arange(0, n, 16) for n in grid.shape)
        phases = [np.mod(v, 1) for v in here.to_input(columns[None, :], rows[:, None])]
        noise = float(np.sqrt(np.mean(noise_of_pixels(phases[0]) ** 2 * noise_of_pixels(phases[1]) ** 2)))
    if conserve and (factor := here.jacobian) != 1 and not here.is_shift:
        out_sci *= np.float32(factor)
        out_var *= np.float32(factor)  # sums over an aperture keep their variance: factor² / factor pixels
    return Resampled(out_sci, out_var if var is not None else None, out_dq, noise)


def _near_whole(value: float) -> float:
    """A shift that is whole to 1e-6 pixel is whole: the image is then copied."""
    return float(round(value)) if abs(value - round(value)) < 1e-6 else value


@njit(cache=True, nogil=True)
def _shift(
    sci: Any,
    var: Any,
    dq: Any,
    x0: int,
    y0: int,
    wx: Any,
    wy: Any,
    linear: Any,
    matters: Any,
    out: Any,
    out_var: Any,
    out_dq: Any,
) -> None:  # pragma: no cover - compiled
    """Separable interpolation: along rows into four lines kept, then down the columns."""
    ny, nx = sci.shape
    my, mx = out.shape
    has_var = out_var.shape[0] == my
    whole_x, whole_y = wx[1] == 1, wy[1] == 1
    lines = np.zeros((4, mx), np.float32)
    have = np.full(4, -10)
    # Columns whose kernel is inside the image; a whole shift needs one pixel only.
    first = max(0, -x0) if whole_x else max(0, 1 - x0)
    last = min(mx, nx - x0) if whole_x else min(mx, nx - 2 - x0)
    for y in range(my):
        iy = y + y0
        if iy < 0 or iy >= ny or (not whole_y and (iy < 1 or iy + 2 >= ny)):
            continue
        for k in range(4):
            row = iy + k - 1
            slot = row % 4
            if wy[k] == 0 or have[slot] == row:
                continue
            have[slot] = row
            for x in range(first, last):
                ix = x + x0
                if whole_x:
                    lines[slot, x] = sci[row, ix]
                else:
                    lines[slot, x] = (
                        wx[0] * sci[row, ix - 1]
                        + wx[1] * sci[row, ix]
                        + wx[2] * sci[row, ix + 1]
                        + wx[3] * sci[row, ix + 2]
                    )
        for x in range(first, last):
            ix = x + x0
            if whole_y:
                out[y, x] = lines[iy % 4, x]
            else:
                out[y, x] = (
                    wy[0] * lines[(iy - 1) % 4, x]
                    + wy[1] * lines[iy % 4, x]
                    + wy[2] * lines[(iy + 1) % 4, x]
                    + wy[3] * lines[(iy + 2) % 4, x]
                )
            if has_var:
                right, below = ix + (0 if whole_x else 1), iy + (0 if whole_y else 1)
                out_var[y, x] = linear[2] * (linear[0] * var[iy, ix] + linear[1] * var[iy, right]) + linear[
                    3
                ] * (linear[0] * var[below, ix] + linear[1] * var[below, right])
            out_dq[y, x] = 0
    _spread_flags(dq, x0, y0, wx, wy, matters, first, last, out_dq)


@njit(cache=True, nogil=True)
def _spread_flags(
    dq: Any, x0: int, y0: int, wx: Any, wy: Any, matters: Any, first: int, last: int, out_dq: Any
) -> None:  # pragma: no cover - compiled
    """Pass a bit on where the pixels that have it weigh `matters` or more. Most rows have few flags."""
    ny, nx = dq.shape
    my = out_dq.shape[0]
    for row in range(ny):
        for column in range(nx):
            if dq[row, column] == 0:
                continue
            for ky in range(4):
                y = row - (ky - 1) - y0
                if y < 0 or y >= my or wy[ky] == 0:
                    continue
                for kx in range(4):
                    x = column - (kx - 1) - x0
                    if x < first or x >= last or wx[kx] == 0 or out_dq[y, x] == 16:
                        continue
                    if out_dq[y, x] & dq[row, column] == dq[row, column]:
                        continue
                    # The weight of all pixels under this kernel that share each bit.
                    bits = dq[row, column] & ~out_dq[y, x]
                    bit = 1
                    while bit <= bits:
                        if bits & bit:
                            total = np.float32(0)
                            for jy in range(4):
                                for jx in range(4):
                                    weight = abs(wy[jy] * wx[jx])
                                    if weight > 0 and dq[y + y0 + jy - 1, x + x0 + jx - 1] & bit:
                                        total += weight
                            if total >= matters:
                                out_dq[y, x] |= bit
                        bit *= 2


@njit(cache=True, nogil=True)
def _gather(
    sci: Any, var: Any, dq: Any, m: Any, matters: Any, out: Any, out_var: Any, out_dq: Any
) -> None:  # pragma: no cover - compiled
    """The general case: a kernel of its own for every output pixel."""
    ny, nx = sci.shape
    my, mx = out.shape
    has_var = out_var.shape[0] == my
    wx, wy = np.empty(4), np.empty(4)
    for y in range(my):
        for x in range(mx):
            u, v, stretch = to_input(x, y, m)
            ix, iy = int(np.floor(u)), int(np.floor(v))
            if ix < 1 or iy < 1 or ix + 2 >= nx or iy + 2 >= ny:
                continue
            fx, fy = u - ix, v - iy
            _weights(fx, wx)
            _weights(fy, wy)
            total, bits = 0.0, 0
            for j in range(4):
                for i in range(4):
                    total += wy[j] * wx[i] * sci[iy + j - 1, ix + i - 1]
                    bits |= dq[iy + j - 1, ix + i - 1]
            out[y, x] = total * stretch
            if has_var:
                out_var[y, x] = stretch * (
                    (1 - fy) * ((1 - fx) * var[iy, ix] + fx * var[iy, ix + 1])
                    + fy * ((1 - fx) * var[iy + 1, ix] + fx * var[iy + 1, ix + 1])
                )
            out_dq[y, x] = 0
            bit = 1
            while bit <= bits:
                if bits & bit:
                    weight = 0.0
                    for j in range(4):
                        for i in range(4):
                            if dq[iy + j - 1, ix + i - 1] & bit:
                                weight += abs(wy[j] * wx[i])
                    if weight >= matters:
                        out_dq[y, x] |= bit
                bit *= 2


@njit(cache=True, nogil=True)
def _weights(f: float, w: Any) -> None:  # pragma: no cover - compiled
    w[0] = ((-0.5 * f + 1) * f - 0.5) * f
    w[1] = (1.5 * f - 2.5) * f * f + 1
    w[2] = ((-1.5 * f + 2) * f + 0.5) * f
    w[3] = (0.5 * f - 0.5) * f * f


def fill_bad(sci: FloatImage, var: FloatImage | None, bad: BoolImage) -> tuple[FloatImage, FloatImage | None]:
    """Copies with the bad pixels replaced by the inverse-square-distance mean of good ones beside them.

    Looks 1, 2 ... 8 pixels away until it finds a good one; a pixel without any becomes 0. The image
    itself, not a copy, when nothing is bad.
    """
    ys, xs = np.nonzero(bad)
    if not ys.size:
        return sci, var
    filled = sci.copy()
    other = var.copy() if var is not None else np.zeros((1, 1), np.float32)
    _fill(sci, var if var is not None else other, bad, ys, xs, filled, other)
    return filled, other if var is not None else None


@njit(cache=True, nogil=True)
def _fill(
    sci: Any, var: Any, bad: Any, ys: Any, xs: Any, out: Any, out_var: Any
) -> None:  # pragma: no cover - compiled
    ny, nx = sci.shape
    has_var = var.shape[0] == ny
    for k in range(ys.size):
        y, x = ys[k], xs[k]
        value, variance, weight, reach = 0.0, 0.0, 0.0, 0
        while weight == 0 and reach < 8:
            reach += 1
            for yy in range(max(0, y - reach), min(ny, y + reach + 1)):
                for xx in range(max(0, x - reach), min(nx, x + reach + 1)):
                    if not bad[yy, xx]:
                        w = 1.0 / ((yy - y) ** 2 + (xx - x) ** 2)
                        value += w * sci[yy, xx]
                        weight += w
                        if has_var:
                            variance += w * var[yy, xx]
        out[y, x] = value / weight if weight > 0 else 0.0
        if has_var:
            out_var[y, x] = variance / weight if weight > 0 else 0.0


@njit(cache=True, nogil=True)
def to_input(x: float, y: float, m: Any) -> Any:  # pragma: no cover - compiled
    """Mapping.to_input in compiled form; also the determinant of the distortion there."""
    u = m[0] * x + m[1] * y + m[2]
    v = m[3] * x + m[4] * y + m[5]
    if m[6] == 0:
        return u, v, 1.0
    dx, dy = u - m[7], v - m[8]
    root = np.sqrt(1 + 4 * m[6] * np.sqrt(dx * dx + dy * dy))
    ratio = 2 / (1 + root)
    # (r_detector / r) * d r_detector / d r
    return m[7] + dx * ratio, m[8] + dy * ratio, ratio / root
