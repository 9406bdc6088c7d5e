"""addDQ: which pixels not to trust. removeFirstFrame: which exposures not to use."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from pipeline.errors import CalibrationNotFound, FrameMismatch
from pipeline.frame import NO_DATA, SATURATED, Frame, Frames, MaskImage, for_each
from pipeline.headers.values import number
from pipeline.names import is_named
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive

LATENCY_SECONDS = 120.0
_NON_LINEAR_OR_SATURATED = 2 | 4
CONSTANT = 0.95  # of the pixels of a frame that was never read out hold one number
MOST_REMEMBERED = 0.3  # of the pixels of a frame


@dataclass(frozen=True)
class AddDQParams:
    static_bpm: str | None = bounded("default", doc="static bad-pixel mask: the associated one, or None")
    user_bpm: str | None = bounded(None, doc="another bad-pixel mask, by path; it adds to the static one")
    add_illum_mask: bool = bounded(False, doc="flag what the optics do not light; NIRI has no such mask")
    latency: bool = bounded(True, doc="flag pixels that were saturated in a frame shortly before")
    time: float = bounded(LATENCY_SECONDS, ge=0, doc="seconds for which saturation is remembered")
    non_linear: bool = bounded(False, doc="non-linear pixels are remembered as well as saturated ones")


@primitive("addDQ", AddDQParams)
def add_dq(frames: Frames, params: AddDQParams, cals: Calibrations) -> Frames:
    """Set the DQ plane: 1 from bad-pixel masks, 2 non-linear, 4 saturated, 8 latency, 16 not a number, or as
    far below zero as a saturated pixel is above it.

    Saturation is known by SATLEVEL and NONLINEA of the header, and by small holes of low signal in what is
    not linear (burnt-out stars). Latency is looked for among the frames given, each compared with those
    that began less than `time` seconds before it. A frame that has been through keeps its mask.
    """
    if params.user_bpm and cals.user_bpm is None:
        raise CalibrationNotFound(f"user_bpm {params.user_bpm} was not given to this step")
    flagged = for_each(lambda frame: _flagged(frame, params, cals), frames, cals.keep)
    return _remember(flagged, params, cals) if params.latency else flagged


def _flagged(frame: Frame, params: AddDQParams, cals: Calibrations) -> Frame:
    """The frame with bits from masks and from its own values."""
    from pipeline.algorithms import flagging

    if "ADDDQ" in frame.header:
        return frame.evolve(note=f"{frame.name} has been through addDQ before: its mask is kept")
    dq, cals = frame.dq, cals.of(frame)
    for bpm in (cals.static_bpm if params.static_bpm else None, cals.made_bpm, cals.user_bpm):
        if bpm is not None:
            dq = dq | _mask_for(frame, bpm)
    # Levels that the header does not know (another well depth) are never reached.
    saturation = number(frame.header, "SATLEVEL") or math.inf
    non_linear = min(number(frame.header, "NONLINEA") or math.inf, saturation)
    if (value := constant(frame)) is not None and value < saturation:
        text = f"{frame.name}: no pixel has a value: all are {value:g}, as where nothing was read out"
        return frame.stamped("ADDDQ", dq=dq | NO_DATA, sci=np.zeros_like(frame.sci), note=text)
    dq, high = flagging.level_flags(frame.sci, dq, non_linear, saturation)
    if high and (hidden := flagging.hidden_saturation(frame.sci, non_linear)).any():
        dq[hidden] |= SATURATED
    sci = frame.sci
    if not (sci.min() > -saturation and sci.max() < math.inf):  # NaN goes through both
        void = ~((sci > -saturation) & (sci < math.inf))
        dq[void] |= NO_DATA
        sci = np.where(void, np.float32(0), sci)
    return frame.stamped("ADDDQ", dq=dq, **({} if sci is frame.sci else {"sci": sci}))


def constant(frame: Frame) -> float | None:
    """The number that nearly all pixels hold; None where they differ, as any read-out's noise makes them."""
    some = frame.sci[::16, ::16]
    value = float(np.median(some))
    return value if np.count_nonzero(some == value) > CONSTANT * some.size else None


def _mask_for(frame: Frame, bpm: Frame) -> MaskImage:
    """The part of a bad-pixel mask that the frame's array setting reads."""
    from pipeline.algorithms import flagging

    try:
        part: MaskImage = flagging.cut(bpm.dq, frame.shape)
    except ValueError as error:
        raise FrameMismatch(f"{bpm.name} does not cover {frame.name}: {error}") from None
    return part


def _remember(frames: Frames, params: AddDQParams, cals: Calibrations) -> Frames:
    """Saturated pixels of earlier frames as bit 8 of later ones."""
    from pipeline.algorithms import flagging

    bits = _NON_LINEAR_OR_SATURATED if params.non_linear else int(SATURATED)
    pixels = {id(frame): flagging.pixels_with(frame.dq, bits) for frame in frames}
    for frame in frames:
        if pixels[id(frame)].size > MOST_REMEMBERED * frame.dq.size:
            # What such a frame leaves in the next is as even as a sky, and goes with it.
            pixels[id(frame)] = pixels[id(frame)][:0]

    def remembering(frame: Frame) -> Frame:
        earlier = [there for other in before(frame, frames, params) if (there := pixels[id(other)]).size]
        return frame.evolve(dq=flagging.latent(frame.dq, earlier)) if earlier else frame

    return for_each(remembering, frames, cals.keep)


def before(frame: Frame, frames: Frames, params: AddDQParams) -> Frames:
    """The frames whose saturated pixels addDQ remembers in this one; headers alone say which."""
    if not params.latency:
        return []
    return [f for f in frames if f.shape == frame.shape and 0 < _seconds(frame, f) < params.time]


def _seconds(frame: Frame, other: Frame) -> float:
    """How long before `frame` the other began; not a number where a time is not known."""
    now, then = frame.descriptors.ut_datetime, other.descriptors.ut_datetime
    return (now - then).total_seconds() if now and then else math.nan


@dataclass(frozen=True)
class RemoveFirstFrameParams:
    remove_first: bool = bounded(True, doc="leave out the earliest frame of all")
    remove_files: tuple[str, ...] = bounded((), doc="frames to leave out, by (part of) their names")


@primitive("removeFirstFrame", RemoveFirstFrameParams)
def remove_first_frame(frames: Frames, params: RemoveFirstFrameParams, cals: Calibrations) -> Frames:
    """Leave out the earliest exposure, which is often bad after a change of setting, and files by name."""
    named = [f for f in frames if is_named(f.name, params.remove_files)]
    kept = [frame for frame in frames if frame not in named]
    gone = [f"{frame.name} left out, as told by removeFirstFrame:remove_files" for frame in named]
    if params.remove_first and len(kept) > 1:
        first = min(kept, key=_start)
        kept = [frame for frame in kept if frame is not first]
        gone.append(f"{first.name} left out: the first exposure of a sequence is often bad")
    for text in gone:
        kept = note(kept, text)
    return kept


def _start(frame: Frame) -> datetime:
    return frame.descriptors.ut_datetime or datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class KeepLastFramesParams:
    number: int = bounded(3, ge=1, doc="frames that go on")


@primitive("keepLastFrames", KeepLastFramesParams)
def keep_last_frames(frames: Frames, params: KeepLastFramesParams, cals: Calibrations) -> Frames:
    """Go on with the last frame and those that it is compared with; others are there for what addDQ
    remembers of them."""
    return frames[-params.number :]
