"""Masks of objects, deep enough for what is left to be empty sky."""

from __future__ import annotations

import numpy as np
import sep
from numba import njit
from numpy.typing import NDArray

from pipeline.algorithms.background import Level

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]


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
    mask = np.zeros(total.shape, np.bool_)
    for size in scales:
        light, number = box_sums(total, weight, size)
        mask |= dilate(light > np.float32(limit * sigma) * np.sqrt(number), grow + size // 2)
    return mask


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
    """Sums of both planes over the box of `size` (odd) pixels around each pixel, cut at the edges.

    Running sums down the columns, then along the rows.
    """
    ny, nx = total.shape
    half = size // 2
    light, number = np.empty((ny, nx), np.float32), np.empty((ny, nx), np.float32)
    sums, counts = np.zeros(nx), np.zeros(nx)
    for y in range(min(half, ny)):
        for x in range(nx):
            sums[x] += total[y, x]
            counts[x] += weight[y, x]
    for y in range(ny):
        enter, leave = y + half, y - half - 1
        if enter < ny:
            for x in range(nx):
                sums[x] += total[enter, x]
                counts[x] += weight[enter, x]
        if leave >= 0:
            for x in range(nx):
                sums[x] -= total[leave, x]
                counts[x] -= weight[leave, x]
        running, count = 0.0, 0.0
        for x in range(min(half, nx)):
            running += sums[x]
            count += counts[x]
        for x in range(nx):
            if x + half < nx:
                running += sums[x + half]
                count += counts[x + half]
            if x - half - 1 >= 0:
                running -= sums[x - half - 1]
                count -= counts[x - half - 1]
            light[y, x] = running
            number[y, x] = count
    return light, number


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
    or, where no other frame covers, above `alone_limit`.
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
    masks = []
    for place, (light, number) in zip(places, own, strict=True):
        others = weight[place] - number
        mask = deep_mask(light, number, sigma, limit=own_limit, grow=grow)
        alone = others == 0
        if alone.any():
            mask |= alone & deep_mask(light, number, sigma, limit=alone_limit, grow=grow)
        if not alone.all():
            mask |= deep_mask(total[place] - light, others, sigma, limit=limit, grow=grow)
        masks.append(mask)
    return masks


def dilate(mask: BoolImage, radius: float) -> BoolImage:
    """The mask grown by a disc: True where dx² + dy² <= radius² from a True pixel."""
    return mask.copy() if radius < 1 else _dilate(mask, float(radius))


@njit(cache=True, nogil=True)
def _dilate(mask: BoolImage, radius: float) -> BoolImage:  # pragma: no cover - compiled
    ny, nx = mask.shape
    reach = int(radius)
    half = np.zeros(2 * reach + 1, np.int64)
    for k in range(2 * reach + 1):
        half[k] = int(np.sqrt(radius * radius - (k - reach) ** 2 + 1e-9))
    out = np.zeros((ny, nx), np.bool_)
    for y in range(ny):
        for x in range(nx):
            # Pixels inside a block of marked ones cannot add anything that their rim does not.
            if not mask[y, x]:
                continue
            out[y, x] = True
            inner = 0 < x < nx - 1 and 0 < y < ny - 1
            if inner and mask[y, x - 1] and mask[y, x + 1] and mask[y - 1, x] and mask[y + 1, x]:
                continue
            for k in range(2 * reach + 1):
                yy = y + k - reach
                if 0 <= yy < ny:
                    for xx in range(max(0, x - half[k]), min(nx, x + half[k] + 1)):
                        out[yy, xx] = True
    return out
