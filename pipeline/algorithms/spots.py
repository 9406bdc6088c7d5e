"""The bright stars of a frame whose sky is still in it: quickly, to a pixel and a few percent.

Good enough to say whether a frame has the light of the others before a sky is made of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms import boxes
from pipeline.algorithms.matching import Points

FloatImage = NDArray[np.float32]
BoolImage = NDArray[np.bool_]

BLOCK = 4  # pixels a side that are averaged first: about a star's width
APERTURE, RING = 3, 9  # blocks a side of the box that holds a star, and of the one whose rest is its sky
SIGNIFICANT = 8.0  # standard errors of a box
MOST = 40


def bright_spots(sci: FloatImage, bad: BoolImage, noise: float) -> Points:
    """Places and fluxes of what stands out of the sky on the scale of a star, brightest first.

    sci : (ny, nx) with its sky; bad : (ny, nx) pixels that do not count; noise : of a pixel
    Sums over boxes of 12 pixels, less the mean of a box of 36 pixels around them. Positions are centroids of
    the blocks, to about a pixel.
    """
    ny, nx = (side // BLOCK * BLOCK for side in sci.shape)
    # Two rows of each block of four tell enough.
    planes = [(sci[k:ny:BLOCK, :nx], bad[k:ny:BLOCK, :nx]) for k in (1, 2)]
    light = _columns(sum(np.where(hidden, np.float32(0), values) for values, hidden in planes))
    number = _columns(sum((~hidden).astype(np.float32) for _, hidden in planes))
    level = float(light.sum(dtype=np.float64)) / max(float(number.sum(dtype=np.float64)), 1.0)
    mean = np.where(number > BLOCK, light / np.maximum(number, 1) - level, 0.0)
    inner = boxes.mean(mean, APERTURE) * APERTURE**2
    ring = (boxes.mean(mean, RING) * RING**2 - inner) / (RING**2 - APERTURE**2)
    flux = (inner - ring * APERTURE**2) * BLOCK**2
    sigma = noise * APERTURE * BLOCK * np.sqrt(2) * np.sqrt(1 + APERTURE**2 / (RING**2 - APERTURE**2))
    peak = (flux == boxes.highest(flux, APERTURE)) & (flux > SIGNIFICANT * sigma)
    edge = RING // 2
    peak[:edge], peak[-edge:], peak[:, :edge], peak[:, -edge:] = False, False, False, False
    rows, columns = np.nonzero(peak)
    order = np.argsort(-flux[rows, columns], kind="stable")[:MOST]
    rows, columns = rows[order], columns[order]
    steps = np.arange(-1, 2)
    stars = (mean - ring)[rows[:, None, None] + steps[:, None], columns[:, None, None] + steps]
    weight = np.maximum(stars, 0)
    total = np.maximum(weight.sum(axis=(1, 2)), 1e-9)
    x = (columns + (weight * steps).sum(axis=(1, 2)) / total + 0.5) * BLOCK - 0.5
    y = (rows + (weight * steps[:, None]).sum(axis=(1, 2)) / total + 0.5) * BLOCK - 0.5
    found = flux[rows, columns]
    return Points(x, y, np.full(len(x), 1.0), found.astype(np.float64))


def _columns(rows: Any) -> NDArray[np.float32]:
    """Sums of BLOCK columns."""
    out = np.array(rows[:, 0::BLOCK])
    for k in range(1, BLOCK):
        out += rows[:, k::BLOCK]
    return out
