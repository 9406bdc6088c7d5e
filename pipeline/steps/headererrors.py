"""What the headers of a group were off by: which is odd, which one gives the place on the sky, and how far an
uncorrected one may be off."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Frame, Frames
from pipeline.steps import pointing
from pipeline.steps.frameshifts import STRONG, AdjustWCSParams, Shift, Shifts, by_offsets, by_wcs, points_of
from pipeline.steps.limits import LIMITS
from pipeline.steps.reference import smeared
from pipeline.steps.starlight import beside

# Arcsec by which a header is usually wrong: offsets of NIRI leave 0.1 to 0.3.
HEADER_ERROR = 0.25
SURELY = 1e-5  # chance of a match that is believed against the headers of the others, however few sources
BRIGHT = 3  # sources of a frame that are asked whether they confirm its header
LEAST_HEADER_ERROR = 1.0  # pixels, claimed for a frame that only its header places
# A header is odd that disagrees with those of the group by more than both: arcsec, times their scatter.
ODD_HEADER, ODD_SCATTER = 5.0, 5.0


def _corrections(shifts: Sequence[Shift | None]) -> NDArray[np.float64]:
    """(n, 2) pixels by which the headers were off, nan where it is not known."""
    return np.array([shift.correction if shift is not None else (np.nan, np.nan) for shift in shifts])


def _scatter(values: NDArray[np.float64]) -> float:
    """Robust standard deviation of (n, 2) corrections, three or more, about their median, an axis."""
    from pipeline.algorithms.background import MAD_TO_SIGMA

    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values, axis=0))))


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


def doubted(frames: Frames, place: int, shifts: Shifts, params: AdjustWCSParams) -> tuple[Shifts, list[str]]:
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
        if shift.match.number >= STRONG or shift.match.chance < SURELY:
            by = f"{shift.match.number} sources" if shift.match.number else "its pixels"
            notes.append(text + f"corrected by {by}")
        else:
            notes.append(text + f"so say {shift.how} alone, which is not believed")
            out[k] = None
    return out, notes


def anchor_of(frames: Frames, place: int, shifts: Shifts, params: AdjustWCSParams) -> tuple[int, list[str]]:
    """(place of the frame whose header tells where the sky is, what is to be said of it).

    place : of the reference, whose stars are points
    """
    if not params.evidence:
        return 0, []
    scale = pointing.projection(frames[0]).pixel_scale
    odd, off, limit = _odd(shifts, scale)
    spoilt = smeared(frames)
    if shifts[0] is not None and place:
        second, elongation = beside(frames[0], frames[place], shifts[0].matrix)
        spoilt[0] |= second > LIMITS["second_peak"].value or elongation > LIMITS["elongated"].value
    if not spoilt[0] and (shifts[0] is None or not odd[0]):
        return 0, [] if odd.any() else _disagreement(frames, shifts, scale)
    for k, shift in enumerate(shifts):
        if shift is not None and not odd[k] and not spoilt[k]:
            if not odd[0]:
                return k, [f"{frames[0].name}: its stars are no points; the WCS is that of {frames[k].name}"]
            return k, [
                f"{frames[0].name}: its header's pointing is off by {off[0] * scale:.1f} arcsec from those "
                f"of the others (limit {limit * scale:.1f} arcsec); the WCS is that of {frames[k].name}"
            ]
    return 0, []


def _disagreement(frames: Frames, shifts: Shifts, scale: float) -> list[str]:
    """What is to be said of headers that disagree where no majority tells which are wrong."""
    corrections = _corrections(shifts)
    known = np.isfinite(corrections[:, 0])
    apart = np.hypot(*(corrections - corrections[0]).T) if known[0] else np.zeros(len(shifts))
    worst = int(np.nanargmax(np.where(known, apart, 0.0)))
    if apart[worst] * scale <= ODD_HEADER:
        return []
    return [
        f"{frames[worst].name}: its header's pointing is off by {apart[worst] * scale:.1f} arcsec from that "
        f"of {frames[0].name} (limit {ODD_HEADER:.1f} arcsec), and no majority tells which is wrong; "
        f"the WCS is that of {frames[0].name}"
    ]


def fallen_back(
    frames: Frames, place: int, shifts: Shifts, params: AdjustWCSParams
) -> tuple[Shifts, list[str]]:
    """Frames that are not matched are placed by their headers, corrected by what the matched frames' headers
    were off by."""
    from pipeline.algorithms.matching import Match

    reference = frames[place]
    moving = "NON_SIDEREAL" in frames[0].tags
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
            if moving:
                text = f"{frame.name}: nothing is seen that can be its moving target; "
            if params.fallback is None:
                notes.append(text + "left out")
                continue
            how = "telescope offsets" if params.fallback == "offsets" else "its header's WCS"
            text += f"aligned by {how}, to about {error:.1f} pixels"
        placed = Shift(told[k], Match(float(dx), float(dy), error, 0), "offsets")
        if believed and not moving and (away := _unconfirmed(reference, frame, placed, params)) > 3 * error:
            placed = placed._replace(match=placed.match._replace(error=away))
            text += f"; but its sources are not there: the next ones are {away:.0f} pixels away"
        out[k] = placed
        if params.method == "sources":
            notes.append(text)
    return out, notes


def _unconfirmed(reference: Frame, frame: Frame, shift: Shift, params: AdjustWCSParams) -> float:
    """Pixels between the frame's brightest sources and the nearest that they can be, of those that the
    reference should show too, since it shows others as bright; 0 where nothing can be said."""
    there, here = points_of(reference, params), points_of(frame, params)
    if not there.x.size or not here.x.size:
        return 0.0
    bright = np.argsort(-here.flux, kind="stable")[:BRIGHT]
    x, y, _ = np.linalg.inv(shift.matrix) @ np.stack([here.x, here.y, np.ones_like(here.x)])
    ny, nx = reference.shape
    away = []
    for k in bright:
        edge = 3 * shift.match.error
        inside = edge < x[k] < nx - 1 - edge and edge < y[k] < ny - 1 - edge
        if inside:
            distance = np.hypot(there.x - x[k], there.y - y[k])
            fainter = np.log(np.maximum(there.flux, 1e-9) / max(float(here.flux[k]), 1e-9))
            if ((distance < edge) & (fainter > -0.7)).any():  # itself, through a cloud perhaps
                return 0.0
            if (np.abs(fainter) < 0.7).any():
                away.append(float(distance[np.abs(fainter) < 0.7].min()))
    return min(away, default=0.0)
