"""Registration: the WCS of all frames corrected to agree with one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Frame, Frames
from pipeline.primitive import Calibrations, note, primitive
from pipeline.steps import pointing
from pipeline.steps.frameshifts import (
    AdjustWCSParams,
    Shift,
    Shifts,
    by_wcs,
    faint_matcher,
    inherited,
    itself,
    match_pixels,
    match_points,
    points_of,
    seen_from_reference,
    united,
)
from pipeline.steps.headererrors import anchor_of, doubted, fallen_back
from pipeline.steps.lonestar import by_lone_star
from pipeline.steps.movingtarget import by_target
from pipeline.steps.reference import candidates

if TYPE_CHECKING:
    from pipeline.algorithms.grids import Mapping
    from pipeline.algorithms.matching import Match

REFERENCES = 3  # tried at most, where fewer than half of the frames match the first


@primitive("adjustWCSToReference", AdjustWCSParams)
def adjust_wcs_to_reference(frames: Frames, params: AdjustWCSParams, cals: Calibrations) -> Frames:
    """Correct the WCS of all frames to agree with one another.

    All are registered to one of them, the reference: by matched sources, one bright one being enough near the
    place that the header tells, through a cloud, too; else by the cross-correlation of the images; else by
    the telescope offsets, less what the headers of the others were off by. A moving target is matched by
    itself, never by stars.
    The sky is where the header of the first frame has it, or, where that disagrees with most of the others,
    of the first that does not.

    Sets REGMETH ("reference" on that frame), REGNUM (sources), REGERR (precision in pixels), REGDX and REGDY
    (what was corrected). What had to fall back, and a header that was far off, is noted. The order stays.
    """
    if len(frames) < 2:
        return frames
    place, shifts = _registered(frames, params)
    shifts, notes = doubted(frames, place, shifts, params)
    anchor, more = anchor_of(frames, place, shifts, params)
    notes += more
    shifts, more = fallen_back(frames, place, shifts, params)
    notes += more
    if shifts[anchor] is None:  # it is left out, since nothing tells its shift
        anchor = place
    sure = shifts[anchor]
    assert sure is not None
    home = np.asarray(np.eye(3) if anchor == place else np.linalg.inv(sure.matrix), np.float64)
    out = [
        _placed(frames[anchor], frame, home, shift, shift.correction - sure.correction)
        for frame, shift in zip(frames, shifts, strict=True)
        if shift is not None
    ]
    for text in notes:
        out = note(out, text)
    return out


def _registered(frames: Frames, params: AdjustWCSParams) -> tuple[int, Shifts]:
    """(place of the reference, how each frame lies to it; None where nothing tells)."""
    moving = "NON_SIDEREAL" in frames[0].tags
    order = candidates(frames) if params.reference == "best" else [0]
    if params.method == "offsets":
        return order[0], [None if k != order[0] else itself(frames[k]) for k in range(len(frames))]
    if moving:
        return order[0], by_target(frames, order[0], params)
    place, shifts = order[0], Shifts()
    for trial in order[:REFERENCES]:
        found = _by_sources(frames, trial, params)
        if not shifts or _known(found) > _known(shifts):
            place, shifts = trial, found
        if 2 * _known(shifts) > len(frames):
            break
    if params.evidence:
        by_lone_star(frames, place, shifts, params)
    _by_other_means(frames, place, shifts, params)
    return place, shifts


def _known(shifts: Shifts) -> int:
    return sum(shift is not None for shift in shifts)


def _by_other_means(frames: Frames, place: int, shifts: Shifts, params: AdjustWCSParams) -> None:
    """Fill in what the pixels, or stars fainter than detectSources finds, tell of frames not yet known."""
    reference = frames[place]
    ways: list[tuple[str, Callable[[Frame, Mapping], Match | None]]] = []
    if params.pixels:
        ways.append(("pixels", lambda frame, start: match_pixels(reference, frame, start, params)))
    if params.faint:
        ways.append(("faint", faint_matcher(frames, place, params)))
    if params.pixels and params.search > 0:
        ways.append(("pixels", lambda frame, start: match_pixels(reference, frame, start, params, far=True)))
    for k, frame in enumerate(frames):
        start = by_wcs(reference, frame)
        for how, way in ways:
            if shifts[k] is None and (match := way(frame, start)) is not None:
                shifts[k] = Shift(start, match, how)


def _by_sources(frames: Frames, place: int, params: AdjustWCSParams) -> Shifts:
    """Matched with the reference; then, those that are not, with all sources that the others show."""
    points = [points_of(frame, params) for frame in frames]
    starts = [by_wcs(frames[place], frame) for frame in frames]
    shifts: Shifts = [None] * len(frames)
    shifts[place] = itself(frames[place])

    def attempt(against: Any, parents: Sequence[tuple[Any, float]] = ()) -> None:
        for k, frame in enumerate(frames):
            if shifts[k] is None and (match := match_points(against, points[k], frame, starts[k], params)):
                shifts[k] = inherited(Shift(starts[k], match, "sources"), against, points[k], parents)

    attempt(points[place])
    while params.evidence and 1 < (before := _known(shifts)) < len(frames):
        radius = max(params.match_radius / pointing.projection(frames[place]).pixel_scale, 2.0)
        seen = [
            (seen_from_reference(points[k], shift), shift.match.error)
            for k, shift in enumerate(shifts)
            if shift is not None and k != place
        ]
        attempt(united([points[place], *(own for own, _ in seen)], radius), seen)
        if _known(shifts) == before:
            break
    return shifts


def _placed(
    anchor: Frame, frame: Frame, home: NDArray[np.float64], shift: Shift, correction: NDArray[np.float64]
) -> Frame:
    """The frame with the WCS that puts the anchor's sky where it lies.

    home : (3, 3) homogeneous pixels of the reference from those of the anchor
    shift : of the frame from the reference; correction : (2,) pixels, what its header was off by
    """
    cards: dict[str, Any] = {}
    if frame is not anchor:
        header = anchor.header
        # The frame's pixel is M times the anchor's; so its sky is the anchor's of M^-1 pixels.
        x, y, _ = home @ (header["CRPIX1"] - 1.0, header["CRPIX2"] - 1.0, 1.0)
        x, y = shift.to_frame(x, y)
        cd = np.array([[float(header[f"CD{i}_{j}"]) for j in (1, 2)] for i in (1, 2)])
        cd = cd @ np.linalg.inv(shift.linear @ home[:2, :2])
        cards = {key: header[key] for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2")}
        cards |= {f"CD{i}_{j}": float(cd[i - 1, j - 1]) for i in (1, 2) for j in (1, 2)}
        cards |= {"CRPIX1": float(x) + 1.0, "CRPIX2": float(y) + 1.0}
    cards |= {
        "REGMETH": (shift.how, "How this frame was registered"),
        "REGNUM": (shift.match.number, "Sources that it was registered by"),
        "REGERR": (round(shift.match.error, 4), "[pix] Precision of the registration"),
        "REGDX": (round(float(correction[0]), 4), "[pix] Correction to the header's shift in x"),
        "REGDY": (round(float(correction[1]), 4), "[pix] Correction to the header's shift in y"),
    }
    return frame.stamped("CORRWCS", cards=cards)
