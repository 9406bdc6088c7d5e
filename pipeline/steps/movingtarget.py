"""The registration of frames on a target that moves among the stars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Frame, Frames
from pipeline.steps import pointing
from pipeline.steps.frameshifts import (
    STRONG,
    AdjustWCSParams,
    Shift,
    Shifts,
    by_offsets,
    by_wcs,
    faint_points_of,
    itself,
    match_points,
    points_of,
    sizes_of,
    star_width,
    united,
)

if TYPE_CHECKING:
    from pipeline.algorithms.matching import Points

TARGET_ERROR = 2.0  # arcsec by which the offsets of a moving target may be off
LEAST_TARGET_ERROR = 6.0  # pixels


def by_target(frames: Frames, place: int, params: AdjustWCSParams) -> Shifts:
    """A moving target by itself: what is where the telescope's offsets have it, and does not keep to the
    stars."""
    from pipeline.algorithms import targets

    reference = frames[place]
    scale = pointing.projection(reference).pixel_scale
    ny, nx = reference.shape
    facts = reference.descriptors
    middle = (
        (nx - 1) / 2 + (facts.detector_x_offset or 0.0),
        (ny - 1) / 2 + (facts.detector_y_offset or 0.0),
    )
    starts = [by_offsets(reference, frame) or by_wcs(reference, frame) for frame in frames]
    views = []
    for frame, start in zip(frames, starts, strict=True):
        x, y = (float(v) for v in start.to_input(*middle))
        stars = _stars_of(reference, frame, middle, params) if frame is not reference else None
        moved, ratio = (None, 0.0) if stars is None else stars
        points, size = _all_sources(frame, frames, params)
        views.append(targets.View(points, size, (x - middle[0], y - middle[1]), moved, ratio))
    found = targets.follow(
        views, place, middle, 2 * params.first_pass / scale, max(TARGET_ERROR / scale, LEAST_TARGET_ERROR)
    )
    shifts: Shifts = [
        Shift(start, match, "target") if match else None for start, match in zip(starts, found, strict=True)
    ]
    shifts[place] = itself(reference)
    return shifts


def _all_sources(frame: Frame, frames: Frames, params: AdjustWCSParams) -> tuple[Points, NDArray[np.float64]]:
    """Sources and sizes: a moving target may be fainter than detectSources finds, then without a size."""
    points, size = points_of(frame, params), sizes_of(frame)
    if not params.faint:
        return points, size
    width = star_width(frames, frame)
    whole = united([points, faint_points_of(frame, width, params)], width)
    return whole, np.concatenate([size, np.full(whole.x.size - size.size, np.nan)])


def _stars_of(
    reference: Frame, frame: Frame, middle: tuple[float, float], params: AdjustWCSParams
) -> tuple[tuple[float, float], float] | None:
    """By how much the stars have moved in the middle of the field, pixels, and ln of their flux ratio."""
    start = by_wcs(reference, frame)
    match = match_points(points_of(reference, params), points_of(frame, params), frame, start, params)
    if match is None or match.number < STRONG:
        return None
    x, y, _ = Shift(start, match, "sources").matrix @ (*middle, 1.0)
    return (float(x) - middle[0], float(y) - middle[1]), (match.ratio if math.isfinite(match.ratio) else 0.0)
