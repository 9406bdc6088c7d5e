"""stackDarks and darkCorrect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import CalibrationNotFound, FrameMismatch, NotEnoughFrames
from pipeline.frame import NO_DATA, Frame, Frames
from pipeline.headers.times import same_exposure
from pipeline.params import bounded
from pipeline.primitive import Calibrations, per_frame, primitive
from pipeline.steps.members import judged_table
from pipeline.steps.stack import Rejection, StackParams, require_same, stacked

DoCal = Literal["procmode", "force", "skip"]


@dataclass(frozen=True)
class StackDarksParams(StackParams):
    reject_method: Rejection = bounded(
        "ccdclip", dragons="varclip", doc="how outliers are rejected; see stackFrames"
    )
    gradient: float = bounded(0.0, ge=0, doc="tolerance of ccdclip for stars: there are none in a dark")


@primitive("stackDarks", StackDarksParams)
def stack_darks(frames: Frames, params: StackDarksParams, cals: Calibrations) -> Frames:
    """The mean of darks of one exposure time.

    Raises FrameMismatch for a frame that is no dark, of another exposure time (see `same_exposure`) or
    of another setting.
    """
    for frame in frames:
        if "DARK" not in frame.tags:
            raise FrameMismatch(f"{frame.name} is {frame.descriptors.observation_type}, wanted DARK")
        found, wanted = frame.descriptors.exposure_time, frames[0].descriptors.exposure_time
        if not same_exposure(found, wanted, 2):
            raise FrameMismatch(f"{frame.name} has {found} s, wanted {wanted} s as in {frames[0].name}")
    require_same(frames, "coadds", "read_mode", "well_depth", "gain")
    return [_noted(stacked(frames, params).evolve(members=judged_table(frames)), len(frames))]


def _noted(dark: Frame, number: int) -> Frame:
    if (dark.dq & NO_DATA).all():
        raise NotEnoughFrames(f"{dark.name}: no pixel of {number} darks has a value")
    return dark.evolve(note="only one dark: cosmic rays in it stay") if number == 1 else dark


@dataclass(frozen=True)
class DarkCorrectParams:
    do_cal: DoCal = bounded(
        "procmode",
        doc="without a dark: stop but in modes ql and qa, stop always (force), or none at all (skip)",
    )


@per_frame("darkCorrect", DarkCorrectParams)
def dark_correct(frame: Frame, params: DarkCorrectParams, cals: Calibrations) -> Frame:
    """Subtract the dark: variances add, masks are ORed. A larger dark is cut to the array setting.

    Raises CalibrationNotFound without a dark, unless do_cal or the mode (PROCMODE) let it go on;
    FrameMismatch for another unit or size.
    """
    if params.do_cal == "skip":
        return frame.evolve(note="no dark subtracted, as told by darkCorrect:do_cal=skip")
    if "DARKCORR" in frame.header:
        return frame.evolve(note=f"{frame.name} has been through darkCorrect before")
    cals = cals.of(frame)
    if cals.dark is None and goes_on(frame, params.do_cal):
        return frame.evolve(note=f"no dark for {frame.name}: not subtracted")
    if cals.dark is None:
        raise CalibrationNotFound(f"no dark for {frame.name}; darkCorrect:do_cal=skip goes on without")
    dark = fitted(cals.dark, frame)
    return (frame - dark).stamped("DARKCORR", cards={"DARKIM": (dark.name, "Dark image that was subtracted")})


def goes_on(frame: Frame, do_cal: DoCal) -> bool:
    """Whether a frame may do without a calibration because it is only looked at quickly."""
    return do_cal == "procmode" and frame.header.get("PROCMODE", "sq") != "sq"


def fitted(calibration: Frame, frame: Frame) -> Frame:
    """The calibration, cut to the frame's array setting where it is larger."""
    if calibration.shape == frame.shape:
        return calibration
    from pipeline.algorithms import flagging

    parts: dict[str, Any] = {"objmask": None, "coverage": None}
    try:
        for name in ("sci", "var", "dq"):
            plane = getattr(calibration, name)
            parts[name] = None if plane is None else flagging.cut(plane, frame.shape)
    except ValueError as error:
        raise FrameMismatch(f"{calibration.name} does not cover {frame.name}: {error}") from None
    return calibration.evolve(**parts)
