"""Registration: the WCS of all frames corrected to agree with one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import pointing
from pipeline.frame import Frame, Frames
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive
from pipeline.steps.frameshifts import (
    Shift,
    by_offsets,
    by_wcs,
    match_pixels,
    match_points,
    points_of,
    seen_from_reference,
    united,
)
from pipeline.steps.reference import REFERENCE, candidates
from pipeline.tags import tags_of

# Arcsec by which a header is usually wrong: offsets of NIRI leave 0.1 to 0.3.
HEADER_ERROR = 0.25
LEAST_HEADER_ERROR = 1.0  # pixels, claimed for a frame that only its header places
# A header is odd that disagrees with those of the group by more than both: arcsec, times their scatter.
ODD_HEADER, ODD_SCATTER = 5.0, 5.0
# So odd a header needs more than a lone source, or a peak of pixels, to be corrected: sources that agree.
STRONG = 3
REFERENCES = 3  # tried at most, where fewer than half of the frames match the first


@dataclass(frozen=True)
class AdjustWCSParams:
    method: Literal["sources", "offsets"] = bounded(
        "sources", doc="what is compared: sources, or header offsets"
    )
    fallback: Literal["offsets", "header"] | None = bounded(
        "offsets",
        doc="where the method fails: telescope offsets, the header's WCS, or leave the frame out (None)",
    )
    reference: Literal["best", "first"] = bounded(
        "best",
        dragons="first",
        doc="the frame that all are registered to: the best, or the first",
    )
    first_pass: float = bounded(5.0, gt=0, doc="arcsec within which the first match looks")
    search: float = bounded(
        0.5, ge=0, le=1, dragons=0.0, doc="of the field's diagonal: how far a match is looked for at most"
    )
    match_radius: float = bounded(0.5, gt=0, doc="arcsec within which two sources are one")
    min_sources: int = bounded(1, ge=1, dragons=3, doc="fewest matched sources that are believed")
    evidence: bool = bounded(
        True,
        dragons=False,
        doc="believe a match that chance cannot make, whatever the clouds; else most votes",
    )
    cull_sources: bool = bounded(False, doc="compare stars only")
    rotate: bool = bounded(False, doc="fit a rotation too")
    scale: bool = bounded(False, doc="fit a scale too")
    pixels: bool = bounded(True, dragons=False, doc="where sources fail, compare the pixels themselves")
    distortion: bool = bounded(True, dragons=False, doc="allow for the distortion of f/32 with AO")


@primitive("adjustWCSToReference", AdjustWCSParams)
def adjust_wcs_to_reference(frames: Frames, params: AdjustWCSParams, cals: Calibrations) -> Frames:
    """Correct the WCS of all frames to agree with one another.

    All are registered to one of them, the reference: by matched sources, one bright one being enough near the
    place that the header tells; else by the cross-correlation of the images; else by the telescope offsets,
    less what the headers of the others were off by. A moving target is matched by itself, never by stars.
    The sky is where the header of the first frame has it, or, where that disagrees with most of the others,
    of the first that does not.

    Sets REGMETH ("reference" on that frame), REGNUM (sources), REGERR (precision in pixels), REGDX and REGDY
    (what was corrected). What had to fall back, and a header that was far off, is noted. The order stays.
    """
    if len(frames) < 2:
        return frames
    place, shifts = _registered(frames, params)
    shifts, notes = _doubted(frames, place, shifts, params)
    anchor, more = _anchor(frames, shifts, params)
    notes += more
    shifts, more = _fallen_back(frames, place, shifts, params)
    notes += more
    sure = shifts[anchor]
    assert sure is not None
    home = np.linalg.inv(sure.matrix)
    out = [
        _placed(frames[anchor], frame, shift.matrix @ home, shift, shift.correction - sure.correction)
        for frame, shift in zip(frames, shifts, strict=True)
        if shift is not None
    ]
    for text in notes:
        out = note(out, text)
    return out


Shifts = list[Shift | None]


def _registered(frames: Frames, params: AdjustWCSParams) -> tuple[int, Shifts]:
    """(place of the reference, how each frame lies to it; None where nothing tells)."""
    moving = "NON_SIDEREAL" in tags_of(frames[0].header)
    order = candidates(frames) if params.reference == "best" else [0]
    if params.method == "offsets":
        return order[0], [None if k != order[0] else _itself(frames[k]) for k in range(len(frames))]
    if moving:
        return order[0], _by_target(frames, order[0], params)
    place, shifts = order[0], Shifts()
    for trial in order[:REFERENCES]:
        found = _by_sources(frames, trial, params)
        if not shifts or _known(found) > _known(shifts):
            place, shifts = trial, found
        if 2 * _known(shifts) > len(frames):
            break
    if params.pixels:
        for k, frame in enumerate(frames):
            if shifts[k] is None:
                start = by_wcs(frames[place], frame)
                match = match_pixels(frames[place], frame, start, params)
                shifts[k] = Shift(start, match, "pixels") if match else None
    return place, shifts


def _known(shifts: Shifts) -> int:
    return sum(shift is not None for shift in shifts)


def _itself(frame: Frame) -> Shift:
    from pipeline.algorithms.matching import Match

    return Shift(by_wcs(frame, frame), Match(0.0, 0.0, 0.0, 0), REFERENCE)


def _by_sources(frames: Frames, place: int, params: AdjustWCSParams) -> Shifts:
    """Matched with the reference; then, those that are not, with all sources that the others show."""
    points = [points_of(frame, params) for frame in frames]
    starts = [by_wcs(frames[place], frame) for frame in frames]
    shifts: Shifts = [None] * len(frames)
    shifts[place] = _itself(frames[place])

    def attempt(against: Any) -> None:
        for k, frame in enumerate(frames):
            if shifts[k] is None:
                match = match_points(against, points[k], frame, starts[k], params)
                shifts[k] = Shift(starts[k], match, "sources") if match else None

    attempt(points[place])
    while params.evidence and 1 < (before := _known(shifts)) < len(frames):
        radius = max(params.match_radius / pointing.projection(frames[place]).pixel_scale, 2.0)
        seen = [
            seen_from_reference(points[k], shift)
            for k, shift in enumerate(shifts)
            if shift is not None and k != place
        ]
        attempt(united([points[place], *seen], radius))
        if _known(shifts) == before:
            break
    return shifts


def _by_target(frames: Frames, place: int, params: AdjustWCSParams) -> Shifts:
    """A moving target on itself: the brightest source near the place where offsets put it."""
    from pipeline.algorithms import matching

    reference = frames[place]
    shifts: Shifts = [None] * len(frames)
    shifts[place] = _itself(reference)
    ny, nx = reference.shape
    facts = reference.descriptors
    middle = (
        (nx - 1) / 2 + (facts.detector_x_offset or 0.0),
        (ny - 1) / 2 + (facts.detector_y_offset or 0.0),
    )
    for k, frame in enumerate(frames):
        start = by_offsets(reference, frame) or by_wcs(reference, frame)
        reach = params.first_pass / pointing.projection(frame).pixel_scale
        first = _brightest(points_of(reference, params), *middle, 2 * reach)
        if k == place or first is None:
            continue
        x, y = (float(v) for v in start.to_input(first.x[0], first.y[0]))
        second = _brightest(points_of(frame, params), x, y, reach)
        if second is None or not 0.5 < second.flux[0] / first.flux[0] < 2.0:
            continue
        error = math.hypot(float(first.error[0]), float(second.error[0]))
        match = matching.Match(float(second.x[0]) - x, float(second.y[0]) - y, error, 1)
        shifts[k] = Shift(start, match, "target")
    return shifts


def _brightest(points: Any, x: float, y: float, reach: float) -> Any:
    near = np.flatnonzero(np.hypot(points.x - x, points.y - y) <= reach)
    if not near.size:
        return None
    best = near[np.argmax(points.flux[near])]
    return type(points)(*(column[best : best + 1] for column in points))


def _corrections(shifts: Sequence[Shift | None]) -> NDArray[np.float64]:
    """(n, 2) pixels by which the headers were off, nan where it is not known."""
    return np.array([shift.correction if shift is not None else (np.nan, np.nan) for shift in shifts])


def _scatter(values: NDArray[np.float64]) -> float:
    """Robust standard deviation of (n, 2) corrections about their median, an axis; of two, half of their
    distance."""
    from pipeline.algorithms.background import MAD_TO_SIGMA

    off = values - np.median(values, axis=0)
    if len(values) < 4:
        return float(np.sqrt(np.mean(off**2)))
    return MAD_TO_SIGMA * float(np.median(np.abs(off)))


def _odd(shifts: Shifts, scale: float) -> tuple[NDArray[np.bool_], NDArray[np.float64], float]:
    """(whose header disagrees with most of the others, how far each is off in pixels, the limit)."""
    corrections = _corrections(shifts)
    known = np.isfinite(corrections[:, 0])
    if known.sum() < 3:
        return np.zeros(len(shifts), bool), np.zeros(len(shifts)), math.inf
    middle = np.median(corrections[known], axis=0)
    limit = max(ODD_HEADER / scale, ODD_SCATTER * _scatter(corrections[known]))
    off = np.hypot(*(corrections - middle).T)
    return np.nan_to_num(off) > limit, off, limit


def _doubted(frames: Frames, place: int, shifts: Shifts, params: AdjustWCSParams) -> tuple[Shifts, list[str]]:
    """The shifts without those that are far from the others' and rest on little."""
    if not params.evidence:
        return shifts, []
    scale = pointing.projection(frames[place]).pixel_scale
    odd, off, limit = _odd(shifts, scale)
    notes = []
    out = list(shifts)
    for k, shift in enumerate(shifts):
        if shift is None or not odd[k] or k == place:
            continue
        text = (
            f"{frames[k].name}: its header's pointing is off by {off[k] * scale:.1f} arcsec from those of "
            f"the others (limit {limit * scale:.1f} arcsec); "
        )
        if shift.match.number >= STRONG:
            notes.append(text + f"corrected by {shift.match.number} sources")
        else:
            notes.append(text + f"so say {shift.how} alone, which is not believed")
            out[k] = None
    return out, notes


def _anchor(frames: Frames, shifts: Shifts, params: AdjustWCSParams) -> tuple[int, list[str]]:
    """(place of the frame whose header tells where the sky is, what is to be said of it)."""
    if not params.evidence:
        return 0, []
    scale = pointing.projection(frames[0]).pixel_scale
    odd, off, limit = _odd(shifts, scale)
    if shifts[0] is None or not odd[0]:
        return 0, []
    for k, shift in enumerate(shifts):
        if shift is not None and not odd[k]:
            return k, [
                f"{frames[0].name}: its header's pointing is off by {off[0] * scale:.1f} arcsec from those "
                f"of the others (limit {limit * scale:.1f} arcsec); the WCS is that of {frames[k].name}"
            ]
    return 0, []


def _fallen_back(
    frames: Frames, place: int, shifts: Shifts, params: AdjustWCSParams
) -> tuple[Shifts, list[str]]:
    """What is not matched goes where its header says, less what the matched frames' were off by."""
    from pipeline.algorithms.matching import Match

    reference = frames[place]
    scale = pointing.projection(reference).pixel_scale
    offsets = params.fallback == "offsets" or params.method == "offsets"
    told = [(by_offsets(reference, f) if offsets else None) or by_wcs(reference, f) for f in frames]
    middle = ((reference.shape[1] - 1) / 2, (reference.shape[0] - 1) / 2, 1.0)
    off = np.array(
        [
            (shift.matrix @ middle)[:2] - np.array(start.to_input(*middle[:2]))
            for shift, start in zip(shifts, told, strict=True)
            if shift is not None
        ]
    )
    believed = params.evidence and params.method == "sources"
    dx, dy = np.median(off, axis=0) if believed else (0.0, 0.0)
    spread = _scatter(off) if len(off) > 2 else HEADER_ERROR / scale
    error = max(LEAST_HEADER_ERROR, spread * math.sqrt(1 + 1 / len(off)))
    out, notes = list(shifts), []
    for k, frame in enumerate(frames):
        if shifts[k] is not None:
            continue
        if params.method == "sources":
            text = f"{frame.name}: neither sources nor pixels tell its shift; "
            if params.fallback is None:
                notes.append(text + "left out")
                continue
            how = "telescope offsets" if params.fallback == "offsets" else "its header's WCS"
            notes.append(text + f"aligned by {how}, to about {error:.1f} pixels")
        out[k] = Shift(told[k], Match(float(dx), float(dy), error, 0), "offsets")
    return out, notes


def _placed(
    anchor: Frame, frame: Frame, matrix: NDArray[np.float64], shift: Shift, correction: NDArray[np.float64]
) -> Frame:
    """The frame with the WCS that puts the anchor's sky where it lies.

    matrix : (3, 3) homogeneous pixels of the frame from those of the anchor
    """
    cards: dict[str, Any] = {}
    if frame is not anchor:
        header = anchor.header
        # The frame's pixel is M times the anchor's; so its sky is the anchor's of M^-1 pixels.
        x, y, _ = matrix @ (header["CRPIX1"] - 1.0, header["CRPIX2"] - 1.0, 1.0)
        cd = np.array([[float(header[f"CD{i}_{j}"]) for j in (1, 2)] for i in (1, 2)])
        cd = cd @ np.linalg.inv(matrix[:2, :2])
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
