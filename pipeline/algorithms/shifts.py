"""Sources of an image as points, the shift between two images, and its least squares."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# What limits a perfect star: pixel response and profile that change between frames, pixels a coordinate.
FLOOR = 0.005
# Of a lone star nothing tells whether a companion or a bad pixel draws it aside.
LONE_FLOOR = 0.015
# A scatter measured on so few is itself uncertain: quantile of Student's distribution over that of the
# Gaussian one at 68 %, for 2 (n - 1) degrees of freedom.
SMALL_NUMBERS = {2: 1.32, 3: 1.14, 4: 1.09, 5: 1.07, 6: 1.05}


class Points(NamedTuple):
    """Sources of one image, (n,) each: pixels, error of a coordinate in pixels, flux."""

    x: Floats
    y: Floats
    error: Floats
    flux: Floats


class Match(NamedTuple):
    """Where the reference's sky lies in the image: x = x_ref + dx, after a turn by `angle` and a stretch by
    `scale` about `centre`.

    error : standard error of dx and of dy, pixels
    number : sources matched; 0 for a match of pixels
    ratio : natural logarithm of the image's fluxes over the reference's; nan where it was not measured
    chance : expected number of chance agreements as good as this one; nan where it was not estimated
    """

    dx: float
    dy: float
    error: float
    number: int
    angle: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    ratio: float = math.nan
    chance: float = math.nan

    def to_image(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Image pixels of reference pixels."""
        c, s = self.scale * math.cos(self.angle), self.scale * math.sin(self.angle)
        u, v = x - self.centre[0], y - self.centre[1]
        return self.centre[0] + c * u - s * v + self.dx, self.centre[1] + s * u + c * v + self.dy


def brightest(points: Points, most: int) -> Points:
    """The brightest sources that have a place and a flux, brightest first."""
    order = np.argsort(-points.flux, kind="stable")[:most]
    good = order[np.isfinite(points.x[order]) & np.isfinite(points.y[order]) & (points.flux[order] > 0)]
    return Points(*(column[good] for column in points))


def refine(
    a: Points,
    b: Points,
    start: tuple[float, float],
    radius: float,
    free: tuple[bool, bool],
    centre: tuple[float, float],
    ratio: float | None = None,
) -> Match | None:
    """Least squares over mutual nearest neighbours, those off by more than 4 of their sigma left out.

    radius : within which neighbours are one source, pixels
    free : whether a turn and a scale about `centre` are fitted, given four matches or more
    ratio : ln of the image's flux over the reference's; sources off it by more than a magnitude are no
        match. None: fluxes do not matter
    """
    match = Match(*start, math.inf, 0, 0.0, centre)
    for _ in range(15):
        i, j = _pairs(*match.to_image(a.x, a.y), b.x, b.y, radius)
        if ratio is not None:
            like = np.abs(np.log(b.flux[j] / a.flux[i]) - ratio) < 1.0
            i, j = i[like], j[like]
        if not i.size:
            return None
        error2 = a.error[i] ** 2 + b.error[j] ** 2 + FLOOR**2
        px, py = match.to_image(a.x[i], a.y[i])
        off = np.hypot(b.x[j] - px, b.y[j] - py) / np.sqrt(error2)
        # Sources that moved, blends and cosmic rays lie off by more than the rest. A cloud with Gaussian
        # errors has its median distance at 1.18 sigma; before the first fit that is the start's error too.
        sure = off <= 4 * max(1.0, float(np.median(off)) / 1.1774)
        i, j, error2 = i[sure], j[sure], error2[sure]
        freed = free if i.size > 3 else (False, False)
        previous, match = match, _fit(a.x[i], a.y[i], b.x[j], b.y[j], error2, freed, centre)
        moved = abs(match.dx - previous.dx) + abs(match.dy - previous.dy)
        if moved < 1e-4 and match.number == previous.number:
            break
    return match


def honest(match: Match) -> Match:
    """The same with the error that so few sources can vouch for."""
    if match.number == 1:
        return match._replace(error=math.hypot(match.error, LONE_FLOOR))
    return match._replace(error=match.error * SMALL_NUMBERS.get(match.number, 1.0))


def _pairs(ax: Floats, ay: Floats, bx: Floats, by: Floats, reach: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Indices of mutual nearest neighbours within reach."""
    distance = np.hypot(np.subtract.outer(ax, bx), np.subtract.outer(ay, by))
    j = distance.argmin(axis=1)
    i = np.arange(ax.size)
    keep = (distance.argmin(axis=0)[j] == i) & (distance[i, j] <= reach)
    return i[keep], j[keep]


def _fit(
    ax: Floats,
    ay: Floats,
    bx: Floats,
    by: Floats,
    error2: Floats,
    free: tuple[bool, bool],
    centre: tuple[float, float],
) -> Match:
    """Weighted least squares of shift and, where free, angle and scale."""
    w, n = 1 / error2, ax.size
    angle, scale = 0.0, 1.0
    if any(free):
        u, v, gx, gy = (k - np.average(k, weights=w) for k in (ax, ay, bx, by))
        across, along = float(np.sum(w * (u * gy - v * gx))), float(np.sum(w * (u * gx + v * gy)))
        angle = math.atan2(across, along) if free[0] else 0.0
        scale = math.hypot(across, along) / float(np.sum(w * (u * u + v * v))) if free[1] else 1.0
    start = Match(0.0, 0.0, 0.0, n, angle, centre, scale)
    at = start.to_image(ax, ay)
    rx, ry = bx - at[0], by - at[1]
    dx, dy = float(np.average(rx, weights=w)), float(np.average(ry, weights=w))
    chi2 = float(np.sum(w * ((rx - dx) ** 2 + (ry - dy) ** 2)))
    excess = max(1.0, chi2 / (2 * (n - 1))) if n > 1 else 1.0
    return start._replace(dx=dx, dy=dy, error=math.sqrt(excess / float(w.sum())))
