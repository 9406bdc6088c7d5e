"""stackFrames, and the stacking that other steps share with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import FrameMismatch, NotEnoughFrames
from pipeline.frame import NO_DATA, Frame, Frames
from pipeline.headers.times import same_exposure, span, together
from pipeline.headers.values import number
from pipeline.params import bounded
from pipeline.primitive import Calibrations, primitive
from pipeline.steps.align import with_common_noise
from pipeline.steps.members import NAMED, member_table, name_of

if TYPE_CHECKING:
    from pipeline.algorithms.combine import Method

# The words of `algorithms.combine`, which is compiled code and loaded late.
Operation = Literal["mean", "median", "wtmean", "lmedian"]
Rejection = Literal["none", "sigclip", "varclip", "minmax", "ccdclip"]

# Cards of a frame that would say of the stack what is true of its first frame only; FRAMES has them of each.
OF_ONE_FRAME = "TRANSP", "TRANSERR", "SCALEBY", "REGNUM", "REGERR", "REGMETH", "REGDX", "REGDY"


@dataclass(frozen=True)
class StackParams:
    """Parameters of every stacking step; the defaults are those of stackFrames."""

    operation: Operation = bounded("mean", doc="how pixels are combined")
    reject_method: Rejection = bounded(
        "ccdclip",
        dragons="sigclip",
        doc="how outliers are rejected: by scatter (sigclip), own variance (varclip), rank (minmax), "
        "or the noise expected at the median (ccdclip)",
    )
    hsigma: float = bounded(3.0, gt=0, doc="high limit of sigclip and varclip, standard deviations")
    lsigma: float = bounded(3.0, gt=0, doc="low limit of sigclip and varclip, standard deviations")
    mclip: bool = bounded(True, doc="clip about the median; otherwise about the mean after the first pass")
    max_iters: int | None = bounded(None, ge=1, doc="most passes of clipping; None is until nothing changes")
    nlow: int = bounded(0, ge=0, doc="lowest values rejected by minmax")
    nhigh: int = bounded(0, ge=0, doc="highest values rejected by minmax")
    noise_sigma: float = bounded(4.0, gt=0, doc="limit of ccdclip, standard deviations of the expected noise")
    gradient: float = bounded(
        1.5, ge=0, doc="tolerance of ccdclip near stars: multiple of the steepness of the median image"
    )
    scale: bool = bounded(False, doc="bring the frames to one level by a factor before they are combined")
    zero: bool = bounded(False, doc="bring them to one level by an offset; with both, the offset is used")
    apply_dq: bool = bounded(True, doc="use only the least bad pixels, as DQ says")
    exact_median: bool = bounded(
        True, dragons=False, doc="variance of a median exact for the number of frames, not pi/2 of the mean's"
    )


@primitive("stackFrames", StackParams)
def stack_frames(frames: Frames, params: StackParams, cals: Calibrations) -> Frames:
    """One frame from all, with COVERAGE and a table of the FRAMES; a single frame stays as it is.

    VAR holds the noise that frames share through their skies, NOISECOR what resampling did to single pixels.

    Raises FrameMismatch for frames that differ in shape, unit, gain, filter, camera or read mode.
    """
    if len(frames) == 1:
        coverage = ((frames[0].dq & NO_DATA) == 0).astype(np.uint16)
        members = member_table(frames)
        name = str(frames[0].header.get(NAMED, frames[0].name))
        text = "only one frame: nothing to stack"
        return [frames[0].evolve(name=name, coverage=coverage, members=members, note=text)]
    require_same(frames, "gain", "filter_name", "camera", "read_mode")
    stack = with_common_noise(stacked(frames, params, coverage=True), frames, weights_of(frames))
    return [stack.evolve(members=member_table(frames))]


def stacked(
    frames: Frames, params: StackParams, *, coverage: bool = False, factors: list[float] | None = None
) -> Frame:
    """The frames combined, with the header of the first one; a single frame comes back as it is.

    coverage : keep the number of frames used at each pixel
    factors : of the counts of each frame, in place of those that params.scale asks for
    """
    from pipeline.algorithms.combine import combine
    from pipeline.algorithms.levels import relative_scales, relative_zeros

    if not frames:
        raise NotEnoughFrames("no frame to stack")
    if len(frames) == 1:
        return frames[0].evolve(name=str(frames[0].header.get(NAMED, frames[0].name)))
    require_same(frames, "shape")
    sci = [frame.sci for frame in frames]
    dq = [frame.dq if params.apply_dq else np.zeros_like(frame.dq) for frame in frames]
    known = [frame.var for frame in frames if frame.var is not None]
    scales = relative_scales(sci, dq) if params.scale and not params.zero else factors
    zeros = relative_zeros(sci, dq) if params.zero else None
    try:
        var = known if len(known) == len(frames) else None
        stack = combine(sci, var, dq, method(params), scales, zeros, weights_of(frames))
    except ValueError as error:  # minmax that would reject everything
        raise NotEnoughFrames(str(error)) from None
    last = max(frame.stamp for frame in frames)
    cards = stack_cards(frames) | {
        "STACKFRM": (last, "UT time stamp for STACKFRM"),
        "GEM-TLM": (last, "UT last modification with GEMINI"),
    }
    notes = tuple(dict.fromkeys(text for frame in frames for text in frame.notes))
    return frames[0].evolve(
        name=str(frames[0].header.get(NAMED, frames[0].name)),
        sci=stack.sci,
        var=stack.var,
        dq=stack.dq,
        coverage=stack.coverage if coverage else None,
        objmask=None,
        catalog=None,
        notes=notes,
        cards=cards,
    )


def weights_of(frames: Sequence[Frame]) -> list[float] | None:
    """What each frame counts for by its verdict; None where all count alike."""
    known = {verdict.frame: verdict.weight for frame in frames for verdict in frame.verdicts}
    weights = [known.get(name_of(frame), 1.0) for frame in frames]
    return weights if any(weight != 1.0 for weight in weights) else None


def method(params: StackParams) -> Method:
    """The parameters as the algorithm takes them."""
    from pipeline.algorithms.combine import Method

    by_noise = params.reject_method == "ccdclip"
    return Method(
        params.operation,
        params.reject_method,
        lsigma=params.noise_sigma if by_noise else params.lsigma,
        hsigma=params.noise_sigma if by_noise else params.hsigma,
        mclip=params.mclip,
        max_iters=params.max_iters,
        nlow=params.nlow,
        nhigh=params.nhigh,
        gradient=params.gradient,
        exact_median=params.exact_median,
    )


def stack_cards(frames: Sequence[Frame]) -> dict[str, Any]:
    """Header cards of a stack of these: NCOMBINE, IMCMBnnn, DATALAB, mean AIRMASS, rms RDNOISE, times.

    OF_ONE_FRAME are gone. RDNOISE is that of one frame, not divided by the root of their number: VAR has
    the noise of the stack.
    """
    first = frames[0].header
    cards: dict[str, Any] = {"NCOMBINE": (len(frames), "Number of input images")}
    cards |= dict.fromkeys(OF_ONE_FRAME)
    cards |= together([span(frame.header, frame.descriptors) for frame in frames])
    for place, frame in enumerate(frames, start=1):
        cards[f"IMCMB{place:03d}" if place < 1000 else f"IMCM{place:04d}"] = str(
            frame.header.get("ORIGNAME", frame.name)
        )
    if "DATALAB" in first:
        cards["DATALAB"] = str(first["DATALAB"]).removesuffix("-STACK") + "-STACK"
    airmass = [value for frame in frames if (value := number(frame.header, "AIRMASS")) is not None]
    if airmass:
        cards["AIRMASS"] = math.fsum(airmass) / len(airmass)
    noise = [value for frame in frames if (value := number(frame.header, "RDNOISE")) is not None]
    if noise:
        cards["RDNOISE"] = math.sqrt(math.fsum(value * value for value in noise) / len(noise))
    return cards


def require_same(frames: Sequence[Frame], *names: str) -> None:
    """Raise FrameMismatch where frames differ in unit or in any of these descriptors.

    Exposure times are compared as those of a group.
    """
    first = frames[0]
    for frame in frames[1:]:
        if frame.unit != first.unit:
            raise FrameMismatch(f"{frame.name} is in {frame.unit}, {first.name} in {first.unit}")
        for name in names:
            found, wanted = getattr(frame.descriptors, name), getattr(first.descriptors, name)
            like = same_exposure(found, wanted, 2) if name == "exposure_time" else found == wanted
            if not like:
                what = name.replace("_", " ")
                raise FrameMismatch(f"{frame.name} has {what} {found}, wanted {wanted} as in {first.name}")
