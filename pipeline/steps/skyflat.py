"""makeSkyFlat: a flat field of the sky's own light, for filters in which no lamp outshines it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.errors import NotEnoughFrames
from pipeline.frame import BAD_PIXEL, Frame, Frames, for_each
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive
from pipeline.steps import pointing
from pipeline.steps.flats import (
    NormalizeFlatParams,
    ThresholdFlatfieldParams,
    normalize_flat,
    threshold_flatfield,
)
from pipeline.steps.stack import Rejection, StackParams, require_same, stacked


@dataclass(frozen=True)
class MakeSkyFlatParams(StackParams):
    reject_method: Rejection = bounded(
        "ccdclip", dragons="minmax", doc="how outliers are rejected in the last stack; see stackFrames"
    )
    gradient: float = bounded(0.0, ge=0, doc="tolerance of ccdclip for stars: they are masked")
    nhigh: int = bounded(1, ge=0, doc="highest values rejected by minmax")
    scale: bool = bounded(True, doc="bring the frames to one level by a factor before they are combined")
    detect_thresh: float = bounded(1.5, gt=0, doc="sigma above the background for a pixel of a source")
    detect_minarea: int = bounded(20, ge=1, doc="fewest connected pixels of a source")
    dilation: float = bounded(10.0, ge=0, doc="pixels by which the masks of sources grow")
    passes: int = bounded(
        2, ge=1, le=5, dragons=1, doc="times that sources are looked for, each time through a better flat"
    )
    min_frames: int = bounded(3, ge=2, doc="fewest frames of which a flat is made")
    distance: float = bounded(
        1.0, ge=0, dragons=0.0, doc="arcsec by which so many of them must differ, or stars stay in the flat"
    )


@primitive("makeSkyFlat", MakeSkyFlatParams)
def make_sky_flat(frames: Frames, params: MakeSkyFlatParams, cals: Calibrations) -> Frames:
    """One flat field of dithered frames of the sky, not yet normalised; named after the first.

    A median of the frames is a first flat; through it the sources of each frame are found, their pixels with
    a margin marked as bad, and the frames, brought to one level, combined again. A pixel that is under a
    source in every frame is bad in the flat. The header becomes that of a calibration, as Gemini's tools
    want it of a flat made from science frames.

    Raises NotEnoughFrames below `min_frames` different pointings, FrameMismatch for frames that cannot go
    together.
    """
    if len(frames) < params.min_frames:
        raise NotEnoughFrames(f"{len(frames)} frames for a sky flat, wanted {params.min_frames}")
    if (seen := _pointings(frames, params.distance)) < params.min_frames:
        wanted = f"wanted {params.min_frames} more than {params.distance:g} arcsec apart"
        raise NotEnoughFrames(f"{seen} pointings for a sky flat, {wanted}")
    require_same(frames, "shape", "filter_name", "camera", "read_mode", "gain", "exposure_time", "coadds")
    quick = StackParams(
        operation="median", reject_method="none", scale=True, exact_median=params.exact_median
    )
    flat = stacked(frames, quick)
    for _ in range(params.passes):
        usable = _normalized(flat, cals)
        masked = for_each(partial(_without_sources, flat=usable, params=params), frames, cals.keep)
        flat = stacked(masked, params)
    lost = float(np.mean((flat.dq & BAD_PIXEL) != 0)) - _bad_in_all(frames)
    made = [flat.evolve(cards=calibration_cards(flat))]
    if lost > 0.001:
        made = note(made, f"{100 * lost:.1f} % of the flat are under a source in every frame: bad pixels")
    return made


def _pointings(frames: Frames, arcsec: float) -> int:
    """How many frames point more than `arcsec` away from all that were counted before."""
    if not arcsec:
        return len(frames)
    apart = pointing.distances(frames)
    counted: list[int] = []
    for i in range(len(frames)):
        if all(apart[i, j] > arcsec for j in counted):
            counted.append(i)
    return len(counted)


def _normalized(flat: Frame, cals: Calibrations) -> Frame:
    made = normalize_flat.run([flat], NormalizeFlatParams(), cals)
    return threshold_flatfield.run(made, ThresholdFlatfieldParams(), cals)[0]


def _without_sources(frame: Frame, flat: Frame, params: MakeSkyFlatParams) -> Frame:
    """The frame as it was, its sources, as seen through the flat, marked as bad pixels."""
    from pipeline.algorithms import objectmasks, sources

    how = sources.Detection(thresh=params.detect_thresh, minarea=params.detect_minarea)
    flattened = frame / flat
    _, labels = sources.detect(flattened.sci, flattened.dq, how)
    mask = objectmasks.dilate(sources.object_mask(labels), params.dilation)
    return frame.evolve(dq=np.where(mask, frame.dq | BAD_PIXEL, frame.dq))


def _bad_in_all(frames: Frames) -> float:
    """Part of the pixels that are bad before any source is masked."""
    every = frames[0].dq
    for frame in frames[1:]:
        every = every & frame.dq
    return float(np.mean((every & BAD_PIXEL) != 0))


def calibration_cards(frame: Frame) -> dict[str, object]:
    """What a calibration made of science frames says of itself; the values are Gemini's.

    Programme, target and pointing are those of no one; a lamp is named because Gemini's association, and
    ours, takes no flat without one.
    """
    facts = frame.descriptors
    day = f"{facts.ut_datetime:%Y%m%d}" if facts.ut_datetime else "00000000"
    program = f"GN-CAL{day}"
    number = re.search(r"S(\d+)$", frame.root)
    return {
        "OBSCLASS": "partnerCal",
        "OBSTYPE": "FLAT",
        "OBJECT": "Flat Frame",
        "GEMPRGID": program,
        "OBSID": f"{program}-900",
        "DATALAB": f"{program}-900-{int(number[1]) if number else 1:03d}",
        "RELEASE": f"{facts.ut_datetime:%Y-%m-%d}" if facts.ut_datetime else None,
        "GCALLAMP": ("QH", "For calibration association: made of sky"),
        "GCALSHUT": ("OPEN", "For calibration association"),
        "RA": 0.0,
        "DEC": 0.0,
        "CRVAL1": 0.0,
        "CRVAL2": 0.0,
    }
