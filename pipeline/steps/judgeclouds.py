"""Which frames see their stars through cloud, found before a sky is made of them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.frame import Frame, Frames
from pipeline.parallel import run_all
from pipeline.steps import pointing
from pipeline.steps.frameshifts import by_wcs
from pipeline.steps.members import name_of
from pipeline.verdict import LEFT_OUT, USED, Verdict

if TYPE_CHECKING:
    from pipeline.algorithms.figures import Figures
    from pipeline.algorithms.matching import Points
    from pipeline.algorithms.meanstar import Transparency

LEAST_STARS = 3  # that two frames share, for their light to be compared
SAME = 6.0  # pixels within which two spots are one star
SEARCH = 8.0  # arcsec by which the headers' pointings may be wrong against each other
MISSING = 0.25  # of the usual number of stars, where that is MANY at least: the rest is behind cloud
MANY = 8


def clouded(
    frames: Frames, seen: Sequence[Figures], least: float, besides: Container[int] = ()
) -> dict[int, Verdict]:
    """Place -> verdict of the frames that are no sky for others, since cloud took light from their stars.

    seen : level and noise of each; least : light of its stars, of that in clear frames; besides : places of
    frames that are odd already, and left out here
    Skies are compared within a pointing, where at least three stars are shared. Where most of them are in
    cloud all stay: a sky of one clear frame is worse.
    """
    out: dict[int, Verdict] = {}
    number = pointing.groups(frames) if frames else []
    for group in sorted(set(number)):
        places = [k for k, n in enumerate(number) if n == group and k not in besides and _is_sky(frames[k])]
        if len(places) > 2:
            found = _of_pointing([frames[k] for k in places], [seen[k] for k in places], least)
            if 2 * len(found) < len(places):
                out |= {places[k]: verdict for k, verdict in found.items()}
    return out


def _is_sky(frame: Frame) -> bool:
    return "sky" in frame.roles or not frame.roles


def _of_pointing(frames: Frames, seen: Sequence[Figures], least: float) -> dict[int, Verdict]:
    counts, lights = star_light(frames, seen)
    usual = float(np.median(counts))
    out: dict[int, Verdict] = {}
    for k, (light, error) in enumerate(lights):
        if light < least and 1 - light > 3 * error:
            why, figure, most, unit = "cloud or blur took light from its stars", light, least, "of the light"
        elif usual >= MANY and counts[k] < MISSING * usual and not light >= least:
            why, figure, most, unit = (
                "most of the others' stars are missing",
                counts[k],
                MISSING * usual,
                "stars",
            )
        else:
            continue
        out[k] = Verdict(name_of(frames[k]), USED, LEFT_OUT, why, float(figure), float(most), unit)
    return out


def star_light(frames: Frames, seen: Sequence[Figures]) -> tuple[list[int], list[tuple[float, float]]]:
    """Bright stars in each frame of a pointing, and (light, error) of them, of that in the clear frames.

    nan where a frame shares fewer than LEAST_STARS with the one that has most.
    """
    from pipeline.algorithms import meanstar, spots

    def look(k: int) -> Points:
        return spots.bright_spots(frames[k].sci, (frames[k].dq & ~np.uint16(6)) != 0, seen[k].noise)

    points = run_all(look, range(len(frames)))
    counts = [len(p.x) for p in points]
    best = int(np.argmax(counts))
    lights = [
        light_of(frames[best], points[best], frame, own, noise.noise)
        for frame, own, noise in zip(frames, points, seen, strict=True)
    ]
    return counts, meanstar.of_the_clear(lights)


def light_of(
    reference: Frame, there: Points, frame: Frame, points: Points, noise: float
) -> Transparency | None:
    """The light of the stars that a frame shares with the reference; None where these are too few.

    there, points : bright spots of the reference and of the frame; noise : of a pixel of the frame
    """
    from pipeline.algorithms import matching, meanstar, spots

    x, y = by_wcs(reference, frame).to_input(there.x, there.y)
    expected = there._replace(x=x, y=y)
    search = SEARCH / pointing.projection(frame).pixel_scale
    match = matching.match_sources(expected, points, search=search, radius=SAME, least=LEAST_STARS)
    if match is None:
        return None
    mx, my = match.to_image(x, y)
    away = np.hypot(np.subtract.outer(mx, points.x), np.subtract.outer(my, points.y))
    nearest = away.argmin(axis=1)
    same = away.min(axis=1) < SAME
    if same.sum() < LEAST_STARS:
        return None
    error = np.full(len(points.x), noise * spots.APERTURE * spots.BLOCK)
    return meanstar.relative_light(
        points.flux[nearest[same]],
        error[nearest[same]],
        there.flux[same],
        error[:1].repeat(same.sum()),
        floor=0.05,
    )
