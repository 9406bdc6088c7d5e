"""The sky of dithered frames as a smooth surface, told apart from the target by how the target moves.

A frame i is sky(p) + target(p - shift_i): on cells of a common grid of the sky the target is the same in
every frame, whatever it looks like, and drops out of their differences. What is left to assume is where
the target has no light: at the lower envelope of what is found, the faintest cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]
Floats = NDArray[np.float64]

OWN = 5  # numbers of each frame: level, two slopes, two errors of its offset; after them the common ones
SURFACE = 6
POINTING = 2.0  # pixels by which a header's offset may be wrong
SLOPE = 0.02  # of the sky: how much a flat-fielded sky may rise from the middle to an edge
CURVE = 0.003  # and how much it may be curved
STEADY = 0.0002  # and how much slopes scatter on a quiet night
ALIKE = 30.0  # neighbouring cells of faint wings err alike: as if this many times less well known
ROUNDS = 12
SETTLED = 1e-3  # of the noise of a pixel: a change of the numbers that is none
DOUBT = 10.0  # times what free slopes gain by chance, from which the sky is not taken for steady
FEWEST = 24  # cells of a frame without which there is no fit
ENOUGH = 0.6  # of the pixels of a cell that must be good


class Cells(NamedTuple):
    """Medians of cells of a common grid. values, errors : (n, my, mx), nan and inf where a frame has none;
    columns, rows : (n, my, mx) of the cell's middle in the frame, -1 to 1 from edge to edge;
    size : pixels a side; noise : of a pixel of empty sky, median of the frames"""

    values: Floats
    errors: Floats
    columns: Floats
    rows: Floats
    size: int
    noise: float


class SkyModel(NamedTuple):
    """What `fit` has found.

    surfaces : (n, 6) of each frame, factors of 1, x, y, x2, xy, y2 with x, y from -1 to 1
    covariance : (6, 6) of their mean, which is what a stack keeps of their errors
    target : (my, mx) light of the target in each cell, nan where no frame is; errors : of that
    misfit : mean square of what is left, in errors, each at most 5
    drifts : the slopes change from frame to frame by more than chance
    """

    surfaces: Floats
    covariance: Floats
    target: Floats
    errors: Floats
    misfit: float
    drifts: bool = False


def cell_size(shape: tuple[int, int]) -> int:
    """Pixels a side: a few hundred to a thousand cells a frame."""
    return 32 if min(shape) >= 768 else 16


def cells_of(sci: Sequence[FloatImage], bad: Sequence[BoolImage], shifts: Sequence[tuple[int, int]]) -> Cells:
    """Cut frames into cells of one grid.

    sci, bad : n of (ny, nx); shifts : (x, y) whole pixels of the sky at which each frame's (0, 0) lies
    """
    ny, nx = sci[0].shape
    size = cell_size((ny, nx))
    x0, y0 = min(s[0] for s in shifts), min(s[1] for s in shifts)
    width, height = (
        (max(s[k] for s in shifts) - v + n) // size + 1 for k, v, n in ((0, x0, nx), (1, y0, ny))
    )
    values = np.full((len(sci), height, width), np.nan)
    errors = np.full_like(values, np.inf)
    columns, rows = np.zeros_like(values), np.zeros_like(values)
    noises = []
    for k, (image, mask, (x, y)) in enumerate(zip(sci, bad, shifts, strict=True)):
        first_x, first_y = -((x0 - x) // size), -((y0 - y) // size)  # cells that lie whole in the frame
        left, low = first_x * size - (x - x0), first_y * size - (y - y0)
        across, up = (nx - left) // size, (ny - low) // size
        place = (k, slice(first_y, first_y + up), slice(first_x, first_x + across))
        box = np.s_[low : low + up * size, left : left + across * size]
        middle, spread, number = medians(image[box], mask[box], size)
        values[place] = middle
        sigma = float(np.nanpercentile(spread, 25)) if np.isfinite(spread).any() else np.nan
        noises.append(sigma)
        errors[place] = np.where(np.isfinite(middle), 1.2533 * sigma / np.sqrt(np.maximum(number, 1)), np.inf)
        columns[place] = (left + (np.arange(across) + 0.5) * size - nx / 2)[None, :] / (nx / 2)
        rows[place] = (low + (np.arange(up) + 0.5) * size - ny / 2)[:, None] / (ny / 2)
    return Cells(values, errors, columns, rows, size, float(np.nanmedian(noises)))


def medians(
    sci: FloatImage, bad: BoolImage, size: int, enough: float = ENOUGH
) -> tuple[Floats, Floats, Floats]:
    """(median, sigma of a pixel, number of good pixels) of each cell, from at most 256 pixels of it.

    sci, bad : (ny, nx), whole cells of `size` pixels; enough : share of a cell that must be good, else nan
    """
    thin = max(1, size // 16)
    up, across = sci.shape[0] // size, sci.shape[1] // size
    side = size // thin
    sample = np.where(bad, np.float32(np.nan), sci)[::thin, ::thin]
    sample = sample.reshape(up, side, across, side).swapaxes(1, 2).reshape(up, across, side * side)
    ordered = np.sort(sample, axis=-1)  # what is no number comes last
    number = np.isfinite(sample).sum(-1)

    def at(share: float) -> Floats:
        place = np.clip((share * (number - 1)).astype(int), 0, None)
        return np.take_along_axis(ordered, place[..., None], -1)[..., 0].astype(np.float64)

    known = number >= max(enough * side * side, 1)
    middle = np.where(known, 0.5 * (at(0.5) + at(0.5 + 1.0 / (side * side))), np.nan)
    return middle, np.where(known, 0.5 * (at(0.841) - at(0.159)), np.nan), number.astype(np.float64)


def fit(
    cells: Cells, levels: Sequence[float], shifts: Sequence[tuple[int, int]], times: Sequence[float]
) -> SkyModel:
    """Least squares for the surface of each frame and the light of the target in each cell.

    levels : (n,) rough sky of each frame; the shape that all share scales with it
    shifts : (n, 2) where the frames lie, pixels; times : (n,) seconds

    Each frame has a level and two slopes: those of all, which may change with time, and what it departs from
    them; all together have three quadratic terms. Header offsets may be wrong by some pixels, which is fitted
    along the slope of the target. A curved sky and slopes that follow the dithers look the same, so slopes
    are taken for steady unless that fits worse by more than chance (`DOUBT`), and then are held to the
    scatter that neither dithers nor time explain. Cells on the lower envelope of the target are taken for
    empty (`empty_cells`). Samples that do not fit lose weight (Huber).
    """
    mean = float(np.mean(levels))
    when = np.asarray(times, float) - np.mean(times)
    when = when / max(float(np.abs(when).max()), 1.0)
    steady = _solve(cells, levels, 1e-3 * STEADY * mean, 0 * when)
    if len(levels) < 2:
        return steady
    free = _solve(cells, levels, SLOPE * mean, 0 * when)
    gain = (steady.misfit - free.misfit) * np.count_nonzero(np.isfinite(cells.values))
    if gain < DOUBT * 2 * (len(levels) - 1) * max(free.misfit, 1.0):
        return steady
    apart = np.asarray(shifts, float) - np.mean(shifts, axis=0)
    explained = np.column_stack([np.ones(len(apart)), apart, when])
    left = len(apart) - int(np.linalg.matrix_rank(explained))
    if left < 2:
        return free._replace(drifts=True)
    slopes = free.surfaces[:, 1:3]
    rest = slopes - explained @ np.linalg.lstsq(explained, slopes, rcond=None)[0]
    drift = max(STEADY * mean, float(np.sqrt((rest**2).sum() / (2 * left))))
    return _solve(cells, levels, drift, when)._replace(drifts=True)


def _solve(cells: Cells, levels: Sequence[float], drift: float, when: Floats) -> SkyModel:
    """The fit with the slopes of frames held to `drift` about those of their time, -1 to 1."""
    n, mean = len(levels), float(np.mean(levels))
    seen = np.isfinite(cells.values) & np.isfinite(cells.errors)
    some = seen.any(0)
    values = np.where(seen, cells.values, 0.0)[:, some]
    weight0 = np.where(seen, cells.errors, np.inf)[:, some] ** -2.0
    x, y = cells.columns[:, some], cells.rows[:, some]
    share = np.asarray(levels)[:, None] / mean
    prior = np.diag(_widths(n, mean, drift) ** -2.0)
    slope, answer = np.zeros((2, values.shape[1])), np.zeros(len(prior))
    weight, model = weight0, np.asarray(levels, float)[:, None] + np.zeros_like(values)
    for turn in range(ROUNDS):
        total = weight.sum(0)
        target = (weight * (values - model)).sum(0) / total
        empty, floor = empty_cells(target, np.asarray(total**-0.5))
        pin = np.where(empty, 1 / (ALIKE**2 * (1 / total + floor**2)), 0.0)
        moved = (np.broadcast_to(-s, x.shape) for s in slope)
        late = when[:, None]
        common = (x, y, share * x * x, share * x * y, share * y * y, late * x, late * y)
        basis = np.stack([np.ones_like(x), x, y, *moved, *common], -1)
        matrix, vector = _normal(basis, values, weight, pin)
        covariance = np.linalg.inv(matrix + prior)
        before, answer = answer, covariance @ vector
        own = np.concatenate([answer[: OWN * n].reshape(n, OWN), np.tile(answer[OWN * n :], (n, 1))], axis=1)
        model = np.einsum("iqk,ik->iq", basis, own)
        light = (weight * (values - model)).sum(0) / (total + pin)
        pull = np.abs(values - model - light) * np.sqrt(weight0)
        weight = weight0 * np.minimum(1, 2.5 / np.maximum(pull, 1e-9))
        if turn >= 2:
            slope = _slopes(target, np.asarray(some), cells.size)
        if turn >= 4 and np.abs(answer - before).max() < SETTLED * cells.noise:
            break
    own[:, 3:5] = 0  # the light of a target that lies elsewhere is no sky
    total = weight.sum(0)
    out, errors = np.full(some.shape, np.nan), np.full(some.shape, np.nan)
    out[some] = (weight * (values - np.einsum("iqk,ik->iq", basis, own))).sum(0) / total
    errors[some] = total**-0.5
    slopes = own[:, 1:3] + own[:, 5:7] + when[:, None] * own[:, 10:]
    surfaces = np.concatenate([own[:, :1], slopes, share * own[:, 7:10]], axis=1)
    misfit = float(np.mean(np.minimum(pull[seen[:, some]], 5) ** 2))
    return SkyModel(surfaces, _of_the_mean(np.asarray(covariance), n), out, errors, misfit)


def _widths(n: int, level: float, drift: float) -> Floats:
    """How far the numbers of the fit may be from zero: of each frame, then those that all share."""
    own = np.array([np.inf, drift, drift, POINTING, POINTING])
    common = np.array([SLOPE, SLOPE, CURVE, CURVE, CURVE, SLOPE, SLOPE]) * level
    return np.concatenate([np.tile(own, n), common])


def _normal(basis: Floats, values: Floats, weight: Floats, pin: Floats) -> tuple[Floats, Floats]:
    """Normal equations of all frames' numbers, the target of each cell eliminated."""
    n, cells, terms = basis.shape
    free = OWN * n + terms - OWN  # each frame has some of its own, the rest is shared
    weighted = weight[..., None] * basis
    columns = np.zeros((cells, free))
    columns[:, : OWN * n] = weighted[..., :OWN].transpose(1, 0, 2).reshape(cells, -1)
    columns[:, OWN * n :] = weighted[..., OWN:].sum(0)
    total = weight.sum(0) + pin
    matrix, vector = _less_products(columns, 1 / total, (weight * values).sum(0))
    for i in range(n):
        place = np.r_[OWN * i : OWN * (i + 1), OWN * n : free]
        matrix[np.ix_(place, place)] += np.einsum("qk,ql->kl", weighted[i], basis[i])
        vector[place] += np.einsum("qk,q->k", basis[i], weight[i] * values[i])
    return matrix, vector


@njit(cache=True, nogil=True)
def _less_products(columns: Floats, share: Floats, light: Floats) -> Any:  # pragma: no cover - compiled
    """- columns.T @ (share * columns), - columns.T @ (share * light), always added up in the same order."""
    cells, free = columns.shape
    matrix, vector = np.zeros((free, free)), np.zeros(free)
    for q in range(cells):
        for a in range(free):
            own = columns[q, a] * share[q]
            if own != 0:
                vector[a] -= own * light[q]
                for b in range(a + 1):
                    matrix[a, b] -= own * columns[q, b]
    for a in range(free):
        for b in range(a):
            matrix[b, a] = matrix[a, b]
    return matrix, vector


def _of_the_mean(covariance: Floats, n: int) -> Floats:
    """Covariance of the six numbers of the mean surface."""
    mean = np.zeros((SURFACE, len(covariance)))
    for k in range(3):
        mean[k, k : OWN * n : OWN] = 1 / n
        mean[3 + k, OWN * n + 2 + k] = 1
    for k in range(2):
        mean[1 + k, OWN * n + k] = 1
    return mean @ covariance @ mean.T


def empty_cells(light: Floats, errors: Floats) -> tuple[BoolImage, float]:
    """(cells without light of the target, scatter of these beyond their errors).

    The lower envelope: cells at most 2.5 sigma above the mean of those so chosen, sigma from those below it,
    and at most twice the errors: the slope of a wide wing is no scatter.
    """
    noise = float(np.median(errors))
    zero, sigma = float(np.percentile(light, 5)), noise
    empty = light <= zero
    for _ in range(50):
        empty = light < zero + 2.5 * sigma
        before, zero = zero, float(np.mean(light[empty]))
        below = zero - light[light < zero]
        sigma = min(max(float(np.sqrt(np.mean(below**2))) if below.size else noise, noise), 2 * noise)
        if abs(zero - before) < 1e-3 * noise:
            break
    excess = float(np.var(light[empty])) - noise**2
    return empty, float(np.sqrt(max(excess, 0.0)))


def _slopes(target: Floats, some: BoolImage, size: int) -> Floats:
    """Light of the target a pixel along x and y, (2, cells)."""
    image = np.full(some.shape, np.nan)
    image[some] = target
    holes = ~np.isfinite(image)
    if holes.any() and not holes.all():  # the value of the nearest cell
        (y, x), (seen_y, seen_x) = np.nonzero(holes), np.nonzero(~holes)
        away = np.subtract.outer(y, seen_y) ** 2 + np.subtract.outer(x, seen_x) ** 2
        nearest = away.argmin(axis=1)
        image[y, x] = image[seen_y[nearest], seen_x[nearest]]
    if min(image.shape) < 2:
        return np.zeros((2, target.size))
    dy, dx = np.gradient(image, size)
    return np.stack([dx[some], dy[some]])


def surface(numbers: Floats, shape: tuple[int, int]) -> FloatImage:
    """(ny, nx) image of a surface of six numbers."""
    ny, nx = shape
    x, y = ((np.arange(m) + 0.5 - m / 2) / (m / 2) for m in (nx, ny))
    a, b, c, d, e, f = numbers
    out = (a + b * x + d * x * x)[None, :] + (c * y + f * y * y)[:, None] + (e * y)[:, None] * x[None, :]
    return np.asarray(out, np.float32)


def variance(covariance: Floats, shape: tuple[int, int]) -> FloatImage:
    """(ny, nx) variance of a surface whose six numbers have this covariance."""
    ny, nx = shape
    x, y = ((np.arange(m) + 0.5 - m / 2) / (m / 2) for m in (nx, ny))
    one_x, one_y = np.ones(nx), np.ones(ny)
    along_x = np.stack([one_x, x, one_x, x * x, x, one_x])
    along_y = np.stack([one_y, one_y, y, one_y, y, y * y])
    out: Any = np.zeros(shape, np.float32)
    for i in range(SURFACE):
        for j in range(SURFACE):
            out += np.multiply.outer(
                covariance[i, j] * along_y[i] * along_y[j], along_x[i] * along_x[j]
            ).astype(np.float32)
    return np.asarray(np.maximum(out, 0), np.float32)
