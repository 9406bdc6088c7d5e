"""makeBPM: pixels that respond too little or too much to light, or glow in the dark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import NotEnoughFrames
from pipeline.frame import BAD_PIXEL, UNILLUMINATED, Frame, Frames
from pipeline.params import bounded
from pipeline.primitive import Calibrations, primitive
from pipeline.steps.flats import is_dark
from pipeline.steps.stack import Rejection, StackParams, require_same, stacked

# A good pixel must not fall outside the limits for dark by noise: the limits stay this far from the dark
# level.
CLEARANCE_SIGMA = 5.0


@dataclass(frozen=True)
class StackBPMDarksParams(StackParams):
    reject_method: Rejection = bounded(
        "sigclip", doc="how outliers are rejected; the frames have no variance, so by their scatter"
    )
    gradient: float = bounded(0.0, ge=0, doc="tolerance of ccdclip for stars: there are none in a dark")


@primitive("stackBPMDarks", StackBPMDarksParams)
def stack_bpm_darks(frames: Frames, params: StackBPMDarksParams, cals: Calibrations) -> Frames:
    """The stack of the short darks, followed by the flats as they came.

    Raises NotEnoughFrames without darks.
    """
    darks = [frame for frame in frames if is_dark(frame)]
    if not darks:
        raise NotEnoughFrames(f"no dark among {len(frames)} frames for a bad-pixel mask")
    require_same(darks, "exposure_time", "coadds", "read_mode")
    return [stacked(darks, params), *(frame for frame in frames if not is_dark(frame))]


@dataclass(frozen=True)
class MakeBPMParams:
    flat_lo_thresh: float = bounded(0.8, doc="below this in the normalised flat a pixel is bad")
    flat_hi_thresh: float = bounded(1.25, doc="above this in the normalised flat a pixel is bad")
    dark_lo_thresh: float = bounded(-20.0, doc="below this in the dark, electrons, a pixel is bad")
    dark_hi_thresh: float = bounded(1300.0, doc="above this in the dark, electrons, a pixel is bad")
    keep_unilluminated: bool = bounded(False, doc="do not call bad what is only not illuminated")
    widen: bool = bounded(
        True, dragons=False, doc="widen a limit for the dark that lies within 5 sigma of its level"
    )


@primitive("makeBPM", MakeBPMParams)
def make_bpm(frames: Frames, params: MakeBPMParams, cals: Calibrations) -> Frames:
    """A bad-pixel mask, in `dq` (1 is bad), from one dark and one normalised flat. `sci` is zero.

    Raises NotEnoughFrames without either.
    """
    dark = next((frame for frame in frames if is_dark(frame)), None)
    flat = next((frame for frame in frames if not is_dark(frame)), None)
    if dark is None or flat is None:
        raise NotEnoughFrames(f"a bad-pixel mask needs a flat and a dark, {len(frames)} frame given")
    require_same([flat.evolve(unit=dark.unit), dark], "shape")  # a normalised flat has no unit
    low, high, note = _dark_limits(dark, params)
    # `not inside` rather than `outside`: a pixel that is not a number is bad.
    by_flat = ~((flat.sci >= params.flat_lo_thresh) & (flat.sci <= params.flat_hi_thresh))
    if params.keep_unilluminated:
        by_flat &= (flat.dq & UNILLUMINATED) == 0
    bad = by_flat | ~((dark.sci >= low) & (dark.sci <= high))
    return [
        flat.stamped(
            "BPMASK",
            sci=np.zeros_like(flat.sci),
            var=None,
            dq=np.where(bad, BAD_PIXEL, np.uint16(0)),
            cards={"OBJECT": "BPM"},
            note=note,
        )
    ]


def _dark_limits(dark: Frame, params: MakeBPMParams) -> tuple[float, float, str | None]:
    """Limits for the dark in its own unit, and what to say when they are not those of the parameters."""
    gain = dark.descriptors.gain
    low, high = params.dark_lo_thresh / gain, params.dark_hi_thresh / gain
    if not params.widen:
        return low, high, None
    level = float(np.median(dark.sci))
    reach = CLEARANCE_SIGMA * 1.4826 * float(np.median(np.abs(dark.sci - level)))
    told = f"dark level {level:.0f} {dark.unit} is near the"
    if level - reach < low:
        low = level - reach
        return low, high, f"{told} low limit of makeBPM, which is widened to {low:.0f}"
    if level + reach > high:
        high = level + reach
        return low, high, f"{told} high limit of makeBPM, which is widened to {high:.0f}"
    return low, high, None
