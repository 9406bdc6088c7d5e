"""A target that moves among the stars, followed through a sequence by what is predicted of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.algorithms.shifts import Floats, Match, Points, honest

UNLIKE = 0.7  # ln of flux by which the target may vary: it rotates, seeing changes
MISSHAPEN = 1.7  # ratio of sizes of one source in two frames, at most
SAME = 2.0  # pixels within which a source is where a star is expected
TOLD_APART = 3.0  # pixels by which stars must have moved against the target to be told from it
CLEARLY = 0.5  # of two candidates that move differently one must keep so much closer to the prediction


class View(NamedTuple):
    """What one frame tells.

    points, size : its sources, and their sizes in pixels, nan where that is not known
    target : (x, y) by which the target has moved since the reference, as predicted; pixels
    stars : the same of the stars, as measured; None where it is not known
    ratio : ln of this frame's fluxes over the reference's
    """

    points: Points
    size: Floats
    target: tuple[float, float]
    stars: tuple[float, float] | None
    ratio: float


class _Track(NamedTuple):
    """A candidate: its place in the list of the reference, the source taken for it in each frame (-1 for
    none), what each was off the prediction in pixels, distance from where it should be in the reference."""

    source: int
    found: list[int]
    off: list[tuple[float, float]]
    away: float


def follow(
    views: Sequence[View], place: int, at: tuple[float, float], reach: float, tolerance: float
) -> list[Match | None]:
    """The correction in pixels to each frame's predicted shift; None where the target is not found.

    views[place] : the reference; at : where the target should lie in it
    reach : pixels within which it is looked for there; tolerance : by which predictions may be off elsewhere

    What stays with the stars in other frames is a star, whatever its brightness. Of the others the one found
    in most frames where the prediction has it, alike in flux and size, is the target; of those found alike
    often the one that keeps closest to the prediction. Two that do so alike and move differently are no
    answer.
    """
    first = views[place]
    away = np.hypot(first.points.x - at[0], first.points.y - at[1])
    tracks = []
    for source in np.flatnonzero(away <= reach):
        if _is_star(views, place, int(source)):
            continue
        track = _track(views, place, int(source), tolerance, float(away[source]))
        if sum(found >= 0 for found in track.found) > 1:
            tracks.append(track)
    nothing: list[Match | None] = [None] * len(views)
    if not tracks:
        return nothing
    tracks.sort(key=lambda t: (-_seen(t), _strain(t, tolerance, reach)))
    best = tracks[0]
    for other in tracks[1:]:
        alike = _seen(other) >= _seen(best) - 1 and _differ(best, other) > TOLD_APART / 2
        if alike and _strain(best, tolerance, reach) > CLEARLY * _strain(other, tolerance, reach):
            return nothing
    out = nothing
    for k, (view, j) in enumerate(zip(views, best.found, strict=True)):
        if k != place and j >= 0:
            error = math.hypot(float(first.points.error[best.source]), float(view.points.error[j]))
            out[k] = honest(Match(*best.off[k], error, 1))
    return out


def _expected(view: View, place: Points, source: int, moved: tuple[float, float]) -> Any:
    """Distance in pixels of each source of a frame from where one of the reference should be."""
    return np.hypot(view.points.x - place.x[source] - moved[0], view.points.y - place.y[source] - moved[1])


def _is_star(views: Sequence[View], place: int, source: int) -> bool:
    """It stays with the stars in most of the frames in which stars and target part."""
    stays = parted = 0
    first = views[place].points
    for k, view in enumerate(views):
        if k == place or view.stars is None or math.dist(view.stars, view.target) < TOLD_APART:
            continue
        parted += 1
        near = _expected(view, first, source, view.stars) < SAME
        stays += bool((near & (_unlike(view, first, source) < 2 * UNLIKE)).any())
    return 2 * stays > parted


def _unlike(view: View, first: Points, source: int) -> NDArray[np.float64]:
    ratio = np.log(np.maximum(view.points.flux, 1e-9) / max(float(first.flux[source]), 1e-9))
    return np.asarray(np.abs(ratio - view.ratio))


def _track(views: Sequence[View], place: int, source: int, tolerance: float, away: float) -> _Track:
    first = views[place]
    found, off = [], []
    for k, view in enumerate(views):
        if k == place:
            found.append(source)
            off.append((0.0, 0.0))
            continue
        distance = _expected(view, first.points, source, view.target)
        unlike = _unlike(view, first.points, source)
        size = view.size / max(float(first.size[source]), 1e-9)
        fits = (distance <= tolerance) & (unlike <= UNLIKE)
        fits &= ~((size > MISSHAPEN) | (size < 1 / MISSHAPEN))
        fits &= ~_on_stars(view, first.points)
        if not fits.any():
            found.append(-1)
            off.append((math.nan, math.nan))
            continue
        cost = np.where(fits, (distance / tolerance) ** 2 + (unlike / UNLIKE) ** 2, np.inf)
        j = int(np.argmin(cost))
        found.append(j)
        off.append(
            (
                float(view.points.x[j] - first.points.x[source] - view.target[0]),
                float(view.points.y[j] - first.points.y[source] - view.target[1]),
            )
        )
    return _Track(source, found, off, away)


def _on_stars(view: View, first: Points) -> NDArray[np.bool_]:
    """Sources of a frame that are where a source of the reference is if it is a star."""
    if view.stars is None or math.dist(view.stars, view.target) < TOLD_APART or not view.points.x.size:
        return np.zeros(view.points.x.size, bool)
    dx = np.subtract.outer(view.points.x, first.x + view.stars[0])
    dy = np.subtract.outer(view.points.y, first.y + view.stars[1])
    unlike = np.abs(
        np.subtract.outer(np.log(np.maximum(view.points.flux, 1e-9)), np.log(np.maximum(first.flux, 1e-9)))
        - view.ratio
    )
    return np.asarray(((np.hypot(dx, dy) < SAME) & (unlike < UNLIKE)).any(axis=1))


def _seen(track: _Track) -> int:
    return sum(found >= 0 for found in track.found)


def _strain(track: _Track, tolerance: float, reach: float) -> float:
    """How badly a candidate fits the prediction: scatter of what it is off, and its distance at first."""
    off = np.array([o for o, found in zip(track.off, track.found, strict=True) if found >= 0])
    scatter = float(np.sqrt(np.mean(np.sum((off - np.median(off, axis=0)) ** 2, axis=1))))
    return scatter / tolerance + 0.5 * track.away / reach + 0.02


def _differ(one: _Track, two: _Track) -> float:
    """Largest difference in pixels of the corrections that two candidates tell."""
    both = np.array(one.off) - np.array(two.off)
    known = np.isfinite(both[:, 0])
    return float(np.hypot(*both[known].T).max()) if known.any() else math.inf
