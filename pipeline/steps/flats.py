"""makeLampFlat, normalizeFlat, thresholdFlatfield, flatCorrect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import BadFrame, CalibrationNotFound, NotEnoughFrames
from pipeline.frame import BAD_PIXEL, UNILLUMINATED, Frame, Frames
from pipeline.headers.times import same_exposure
from pipeline.params import bounded
from pipeline.primitive import Calibrations, per_frame, primitive
from pipeline.steps.darks import DoCal, fitted, goes_on
from pipeline.steps.members import judged_table
from pipeline.steps.stack import Rejection, StackParams, require_same, stacked

STEADY = 0.005  # of its light; a lamp that drifts by no more moves no pixel of the flat by more than 4e-5


@dataclass(frozen=True)
class MakeLampFlatParams(StackParams):
    reject_method: Rejection = bounded(
        "ccdclip", dragons="sigclip", doc="how outliers are rejected; see stackFrames"
    )
    gradient: float = bounded(0.0, ge=0, doc="tolerance of ccdclip for stars: there are none in a flat")
    same_lamp: bool = bounded(
        True,
        dragons=False,
        doc="scale lamp-on frames to their mean level, so that no drift of the lamp clips",
    )


@primitive("makeLampFlat", MakeLampFlatParams)
def make_lamp_flat(frames: Frames, params: MakeLampFlatParams, cals: Calibrations) -> Frames:
    """Stack of the frames with the lamp on, less that with the lamp off; named after the first lamp-on.

    Darks among the frames (for a bad-pixel mask) pass through, before the flat. Without lamp-off frames
    the lamp-on stack is used as it is, with a note. Raises NotEnoughFrames without lamp-on frames.
    """
    darks = [frame for frame in frames if is_dark(frame)]
    on = [frame for frame in frames if "LAMPON" in frame.tags]
    off = [frame for frame in frames if "LAMPOFF" in frame.tags]
    if not on:
        raise NotEnoughFrames(f"no frame with the lamp on among {len(frames)}: {frames[0].name} ...")
    require_same(on + off, "filter_name", "camera", "read_mode", "gain")
    flat = stacked(on, params, factors=_to_mean_level(on) if params.same_lamp else None).evolve(
        members=judged_table([*on, *off])
    )
    if not off:
        return [*darks, flat.evolve(note="no frame with the lamp off: background and dark stay in the flat")]
    flat = flat - stacked(off, params)
    left_out = [f.name for f in frames if not any(f is other for other in (*darks, *on, *off))]
    if left_out:
        flat = flat.evolve(note=f"neither lamp-on nor lamp-off, left out: {', '.join(left_out)}")
    for what in ("gcal_lamp_raw", "gcal_filter"):
        if len(found := {str(getattr(frame.descriptors, what)) for frame in on}) > 1:
            flat = flat.evolve(note=f"lamp-on frames differ in {what}: {', '.join(sorted(found))}")
    times = {frame.descriptors.exposure_time for frame in on + off}
    if not all(same_exposure(time, on[0].descriptors.exposure_time, 2) for time in times):
        flat = flat.evolve(
            note=f"lamp-on and lamp-off frames differ in exposure time: {sorted(map(str, times))}"
        )
    return [*darks, flat]


def _to_mean_level(frames: Frames) -> list[float] | None:
    """Factors that bring frames to the mean of their levels; None where they differ by less than STEADY, or
    one is not above zero."""
    some = (slice(8, None, 16), slice(8, None, 16))  # the same pixels of each, so that their response cancels
    good = np.logical_and.reduce([frame.dq[some] == 0 for frame in frames])
    cube = np.array([frame.sci[some][good] for frame in frames], np.float64)
    if not cube.size:
        return None
    middle = np.median(cube, axis=0)
    cube, middle = cube[:, middle > 0], middle[middle > 0]
    # Pixel by pixel, so that a part of a frame without light is no fainter lamp.
    levels = [float(level) for level in np.median(cube / middle, axis=1)] if middle.size else [0.0]
    if not all(level > 0 for level in levels):
        return None
    mean = math.fsum(levels) / len(levels)
    if max(levels) - min(levels) < STEADY * mean:
        return None
    return [mean / level for level in levels]


def is_dark(frame: Frame) -> bool:
    return "DARK" in frame.tags


@dataclass(frozen=True)
class NormalizeFlatParams:
    scale: Literal["median", "mean"] = bounded("median", doc="statistic of the good pixels that becomes 1")


@primitive("normalizeFlat", NormalizeFlatParams)
def normalize_flat(frames: Frames, params: NormalizeFlatParams, cals: Calibrations) -> Frames:
    """Divide each flat by the median of its good pixels. Darks pass through.

    Raises BadFrame where no pixel is good, or the level is not positive.
    """
    return [frame if is_dark(frame) else _normalized(frame, params) for frame in frames]


def _normalized(frame: Frame, params: NormalizeFlatParams) -> Frame:
    good = frame.sci[frame.dq == 0]
    if not good.size:
        raise BadFrame(frame.name, "no pixel of the flat is good")
    level = float(np.median(good) if params.scale == "median" else np.mean(good, dtype=np.float64))
    if not level > 0:
        raise BadFrame(frame.name, f"the level of the flat is {level:g} {frame.unit}, wanted more than 0")
    return (frame * (1.0 / level)).evolve(unit="").stamped("NORMLIZE")


@dataclass(frozen=True)
class ThresholdFlatfieldParams:
    lower: float = bounded(0.01, doc="below this fraction of the flat's level a pixel is not lit")
    upper: float = bounded(10.0, doc="above this multiple of it, too")


@per_frame("thresholdFlatfield", ThresholdFlatfieldParams)
def threshold_flatfield(frame: Frame, params: ThresholdFlatfieldParams, cals: Calibrations) -> Frame:
    """Flag pixels outside the limits as not illuminated (64), unless bad (1), and set them to 1.

    Bad pixels below the lower limit become 1, too, so that nothing is ever divided by next to nothing.
    """
    outside = ((frame.sci < params.lower) | (frame.sci > params.upper)) & ((frame.dq & BAD_PIXEL) == 0)
    dq = np.where(outside, frame.dq | UNILLUMINATED, frame.dq)
    to_one = ((dq & UNILLUMINATED) > 0) | (frame.sci < params.lower)
    return frame.stamped("TRHFLAT", sci=np.where(to_one, np.float32(1), frame.sci), dq=dq)


@dataclass(frozen=True)
class FlatCorrectParams:
    do_cal: DoCal = bounded(
        "procmode",
        doc="without a flat: stop but in modes ql and qa, stop always (force), or none at all (skip)",
    )


@per_frame("flatCorrect", FlatCorrectParams)
def flat_correct(frame: Frame, params: FlatCorrectParams, cals: Calibrations) -> Frame:
    """Divide by the flat; its mask is ORed in. A larger flat is cut to the array setting.

    A flat of another filter, which only a person gives, is noted. Raises CalibrationNotFound without a flat,
    unless do_cal or the mode (PROCMODE) let it go on; FrameMismatch for another size.
    """
    if params.do_cal == "skip":
        return frame.evolve(note="not flat-fielded, as told by flatCorrect:do_cal=skip")
    if "FLATCORR" in frame.header:
        return frame.evolve(note=f"{frame.name} has been through flatCorrect before")
    cals = cals.of(frame)
    if cals.flat is None and goes_on(frame, params.do_cal):
        return frame.evolve(note=f"no flat for {frame.name}: not flat-fielded")
    if cals.flat is None:
        raise CalibrationNotFound(f"no flat for {frame.name}; flatCorrect:do_cal=skip goes on without")
    flat = fitted(cals.flat, frame)
    done = (frame / flat).stamped("FLATCORR", cards={"FLATIM": (flat.name, "Flat-field image used")})
    found, wanted = flat.descriptors.filter_name, frame.descriptors.filter_name
    if found == wanted:
        return done
    return done.evolve(note=f"{frame.name} is in filter {wanted}, and its flat {flat.name} in {found}")
