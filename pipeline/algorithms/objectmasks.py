"""Masks of objects, deep enough for what is left to be empty sky."""

from __future__ import annotations

from typing import Any

import numpy as np
import sep
from numba import njit
from numpy.typing import NDArray

from pipeline.algorithms.background import Level, robust_start
from pipeline.algorithms.flagging import dilate as dilate  # part of what this module offers
from pipeline.parallel import run_all

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]

COMMON = 1.15  # times the noise of independent frames from which a sum has noise that they share


def smooth_background(sci: FloatImage, bad: BoolImage, mesh: int = 64) -> FloatImage:
    """The background by SExtractor's method: clipped modes in meshes, median of 3 x 3 of them, a spline."""
    back = sep.Background(np.array(sci, np.float32), mask=np.array(bad), bw=mesh, bh=mesh)
    return np.asarray(back.back(), np.float32)


def deep_mask(
    total: FloatImage,
    weight: FloatImage,
    sigma: float,
    *,
    limit: float,
    scales: tuple[int, ...] = (3, 9),
    grow: int = 2,
) -> BoolImage:
    """True where an image stands above its sky on some scale: objects with their faint wings.

    total : (ny, nx) sum of frames less their sky level; weight : how many of them, 0 where none
    sigma : noise of a pixel of one frame

    For each scale sums are taken over boxes of that many pixels; a box above `limit` standard errors marks
    its middle, and what is marked grows by `grow` plus half the box. Against a single threshold this finds
    wings at limit / 9 sigma a pixel.
    """
    return deep_masks(total, weight, sigma, limits=(limit,), scales=scales, grow=grow)[0]


def deep_masks(
    total: FloatImage,
    weight: FloatImage,
    sigma: float,
    *,
    limits: tuple[float, ...],
    scales: tuple[int, ...] = (3, 9),
    grow: int = 2,
) -> list[BoolImage]:
    """`deep_mask` for each of some limits, from one pass over the image."""
    masks = [np.zeros(total.shape, np.bool_) for _ in limits]
    least = np.array(limits, np.float32) * np.float32(sigma)
    for size in scales:
        bright = _bright_boxes(total, weight, size, least)
        for mask, boxes in zip(masks, bright, strict=True):
            mask |= dilate(boxes, grow + size // 2)
    return masks


def object_mask_of(
    sci: FloatImage, bad: BoolImage, sky: Level, limit: float = 5.0, grow: int = 2
) -> BoolImage:
    """`deep_mask` of one image of this sky level and noise."""
    light = np.where(bad, np.float32(0), sci - np.float32(sky.level))
    return deep_mask(light, (~bad).astype(np.float32), sky.sigma, limit=limit, grow=grow)


def box_mean(sci: FloatImage, bad: BoolImage, size: int) -> FloatImage:
    """Mean of the good pixels in a box of `size` (odd) pixels around each pixel; 0 where none is good."""
    light, number = box_sums(np.where(bad, np.float32(0), sci), (~bad).astype(np.float32), size)
    return np.asarray(light / np.maximum(number, np.float32(1)))


@njit(cache=True, nogil=True)
def box_sums(
    total: FloatImage, weight: FloatImage, size: int
) -> tuple[FloatImage, FloatImage]:  # pragma: no cover - compiled
    """Sums of both planes over the box of `size` (odd) pixels around each pixel, cut at the edges."""
    ny, nx = total.shape
    light, number = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
    columns = np.zeros((2, nx + size))
    for y in range(ny):
        _box_row(total, weight, y, size, columns, light[y], number[y])
    return light, number


@njit(cache=True, nogil=True)
def _bright_boxes(
    total: FloatImage, weight: FloatImage, size: int, least: NDArray[np.float32]
) -> BoolImage:  # pragma: no cover - compiled
    """True in the middle of boxes whose sum is above `least` times the root of their weight; one plane of
    (n, ny, nx) for each of the n limits."""
    ny, nx = total.shape
    out = np.empty((least.size, ny, nx), np.bool_)
    columns = np.zeros((2, nx + size))
    light, number = np.empty(nx, np.float32), np.empty(nx, np.float32)
    for y in range(ny):
        _box_row(total, weight, y, size, columns, light, number)
        for k in range(least.size):
            for x in range(nx):
                out[k, y, x] = light[x] > least[k] * np.sqrt(number[x])
    return out


@njit(cache=True, nogil=True)
def _box_row(
    total: FloatImage, weight: FloatImage, y: int, size: int, columns: Any, light: Any, number: Any
) -> None:  # pragma: no cover - compiled
    """Box sums of row y, after the rows before it. columns : running sums down the columns of both planes,
    with room for half a box on either side"""
    ny, nx = total.shape
    half = size // 2
    a, b = columns[0], columns[1]
    sums, counts = a[half + 1 : half + 1 + nx], b[half + 1 : half + 1 + nx]
    for j in range(y + half if y else 0, min(y + half + 1, ny)):
        for x in range(nx):
            sums[x] += total[j, x]
            counts[x] += weight[j, x]
    if y > half:
        for x in range(nx):
            sums[x] -= total[y - half - 1, x]
            counts[x] -= weight[y - half - 1, x]
    running, count = a[:size].sum(), b[:size].sum()
    for x in range(nx):
        running += a[x + size] - a[x]  # one sum waits for the one before, the difference does not
        count += b[x + size] - b[x]
        light[x] = running
        number[x] = count


def masks_from_others(
    residuals: list[FloatImage],
    bad: list[BoolImage],
    shifts: list[tuple[int, int]],
    sigma: float,
    *,
    limit: float = 4.5,
    own_limit: float = 8.0,
    alone_limit: float = 5.0,
    grow: int = 2,
) -> list[BoolImage]:
    """Object mask of each frame, from what all the *other* frames show there.

    residuals : n of (ny, nx), sky-subtracted frames of one field; bad : their unusable pixels
    shifts : (x, y) whole pixels of the common sky at which each frame's pixel (0, 0) lies
    sigma : noise of a pixel of one frame

    A mask made from a frame's own pixels takes their positive noise for objects, around every star, and
    the level of what is left comes out too low (by 0.4 electrons in a test field). The other frames know
    nothing of that noise, and together they see deeper. A frame's own light counts only above `own_limit`,
    or, where no other frame covers, above `alone_limit`. Nodded frames have the noise of one sky at one place
    of the target, where it adds up: limits rise with the noise that is found.
    """
    x0, y0 = min(s[0] for s in shifts), min(s[1] for s in shifts)
    ny, nx = residuals[0].shape
    height, width = (max(s[k] for s in shifts) for k in (1, 0))
    total = np.zeros((height - y0 + ny, width - x0 + nx), np.float32)
    weight = np.zeros_like(total)
    places = [(slice(y - y0, y - y0 + ny), slice(x - x0, x - x0 + nx)) for x, y in shifts]
    own = [
        (np.where(b, np.float32(0), r), (~b).astype(np.float32)) for r, b in zip(residuals, bad, strict=True)
    ]
    for place, (light, number) in zip(places, own, strict=True):
        total[place] += light
        weight[place] += number

    def mask_of(k: int) -> BoolImage:
        place, (light, number) = places[k], own[k]
        others = weight[place] - number
        seen = total[place] - light
        alone = others == 0
        limits = (own_limit, alone_limit) if alone.any() else (own_limit,)
        mask, *loose = deep_masks(light, number, sigma, limits=limits, grow=grow)
        for more in loose:
            mask |= alone & more
        if not alone.all():
            mask |= deep_mask(seen, others, sigma, limit=limit * _excess(seen, others, sigma), grow=grow)
        return mask

    return run_all(mask_of, range(len(own)))


def _excess(total: FloatImage, weight: FloatImage, sigma: float) -> float:
    """Noise of a sum of frames over what independent frames would have, 1 where that is near."""
    thin = np.s_[::7, ::7]
    known = weight[thin] > 0
    if np.count_nonzero(known) < 100 or not sigma > 0:  # frames without any noise are of no sky
        return 1.0
    found = robust_start(total[thin][known] / np.sqrt(weight[thin][known]))[1] / sigma
    return found if found > COMMON else 1.0
