"""The shift between two images of one field by their sources, one being enough.

Also the place to take everything from that matches images: `Points`, `Match`, `match_images`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.algorithms.correlation import match_images
from pipeline.algorithms.evidence import best_shift
from pipeline.algorithms.shifts import FLOOR, Match, Points, brightest, honest, refine

__all__ = ["FLOOR", "Match", "Points", "match_images", "match_sources"]

SURE = 1e-3  # expected chance agreements from which on none is believed


def match_sources(
    reference: Points,
    image: Points,
    *,
    search: float,
    radius: float,
    least: int = 1,
    rotate: bool = False,
    stretch: bool = False,
    centre: tuple[float, float] = (0.0, 0.0),
    most: int = 150,
    shape: tuple[int, int] | None = None,
    limit: float | None = None,
    sure: float = SURE,
    proposal: Literal["evidence", "votes"] = "evidence",
) -> Match | None:
    """The shift that lays the reference's sources on those of the image; None when none stands out.

    reference : already where the header says that they lie in the image
    search : largest shift looked for, pixels
    radius : within which two sources are taken for one, pixels
    least : fewest matched sources accepted
    rotate, stretch : fit a turn, a scale about `centre` too, given four matches or more
    most : sources of each that are looked at, brightest first
    shape : (ny, nx) of the image, and
    limit : flux of the faintest sources that it shows; None: both as far as the sources reach
    sure : most chance agreements that may be expected (see `evidence.best_shift`)
    proposal : "votes" believes the shift with most votes of pairs of sources, like in flux, as the preset
        `dragons` has always done

    The proposed shift is refined by least squares over mutual nearest neighbours, with outliers left out.
    """
    a, b = (brightest(points, most) for points in (reference, image))
    if not a.x.size or not b.x.size:
        return None
    if proposal == "votes":
        start = _most_votes(a, b, search, radius)
        match = refine(a, b, start, radius, (rotate, stretch), centre) if start else None
        return match if match is not None and match.number >= least else None
    turned = rotate or stretch
    found = best_shift(a, b, search=search, radius=radius, shape=shape, limit=limit, loose=turned)
    if found is None or found.chance > sure:
        return None
    reach = radius if turned else found.reach
    match = refine(a, b, (found.dx, found.dy), reach, (rotate, stretch), centre, found.ratio)
    if match is None or match.number < max(least, (found.number + 1) // 2):
        return None
    if not turned and np.hypot(match.dx - found.dx, match.dy - found.dy) > reach:
        return None
    return honest(match)._replace(ratio=found.ratio, chance=found.chance)


def _most_votes(a: Points, b: Points, search: float, radius: float) -> tuple[float, float] | None:
    """The proposal with most support; None when another, clearly different one has nearly as much.

    Every pair of sources proposes a shift; proposals support each other within `radius`, weighted by how
    alike and how bright their fluxes are, so that one bright star outvotes chance pairs.
    """
    dx, dy = (np.subtract.outer(v, u).T.ravel() for u, v in ((a.x, b.x), (a.y, b.y)))
    near = np.hypot(dx, dy) <= search
    brighter = max(a.flux.max(), b.flux.max())
    fainter = np.minimum.outer(a.flux, b.flux).ravel()[near]
    # Transparency and seeing change fluxes; beyond a magnitude they are hardly one source.
    unlike = np.abs(np.subtract.outer(np.log(a.flux), np.log(b.flux)).ravel()[near])
    weight = np.sqrt(fainter / brighter) * np.exp(-0.5 * (unlike / 0.5) ** 2)
    dx, dy = dx[near], dy[near]
    order = np.argsort(-weight, kind="stable")[:4000]
    dx, dy, weight = dx[order], dy[order], weight[order]
    if not weight.size or weight[0] < 1e-3:
        return None
    support = np.zeros(weight.size)
    for i in range(min(weight.size, 1500)):
        distance2 = (dx - dx[i]) ** 2 + (dy - dy[i]) ** 2
        support[i] = np.sum(weight * np.exp(-0.5 * distance2 / (0.5 * radius) ** 2))
    best = int(np.argmax(support))
    other = np.hypot(dx - dx[best], dy - dy[best]) > 2 * radius
    if other.any() and support[other].max() > 0.85 * support[best]:
        return None
    close = np.hypot(dx - dx[best], dy - dy[best]) <= radius
    return float(np.average(dx[close], weights=weight[close])), float(
        np.average(dy[close], weights=weight[close])
    )
