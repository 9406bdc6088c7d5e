"""maskFromStack: the objects of a first, complete reduction, as masks on the frames for the second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline import params as parameters
from pipeline.errors import FrameMismatch
from pipeline.frame import BoolImage, Frame, Frames, for_each
from pipeline.headers.merged import WCS_CARDS
from pipeline.params import bounded
from pipeline.primitive import Calibrations, Primitive, primitive
from pipeline.steps.align import mapping_onto, resample_to_common_frame, scale_counts_to_reference
from pipeline.steps.register import adjust_wcs_to_reference
from pipeline.steps.sky import associate_sky, sky_correct
from pipeline.steps.sources import detect_sources
from pipeline.steps.stack import stack_frames

# Boxes over which the light of the stack is summed in search of objects, pixels.
SCALES = (3, 9)


@dataclass(frozen=True)
class MaskFromStackParams:
    settings: Literal["nirid", "dragons"] = bounded(
        "nirid", dragons="dragons", doc="preset of the steps of the first reduction"
    )
    search: Literal["deep", "sources"] = bounded(
        "deep",
        dragons="sources",
        doc="how objects are found: on any scale besides, or as detectSources does only",
    )
    passes: int = bounded(
        2, ge=1, le=5, dragons=1, doc="first reductions, each with the masks that the one before has found"
    )
    limit: float = bounded(4.0, gt=0, doc="standard errors above the sky for light on any scale")
    detect_thresh: float = bounded(1.5, gt=0, doc="sigma above the background for a pixel of a source")
    detect_minarea: int = bounded(40, ge=1, doc="fewest connected pixels of a source")
    dilation: float = bounded(1.5, ge=0, doc="pixels by which the masks grow; skyCorrect adds its own")


@primitive("maskFromStack", MaskFromStackParams)
def mask_from_stack(frames: Frames, params: MaskFromStackParams, cals: Calibrations) -> Frames:
    """Reduce to a stack, find its objects, fainter than any frame shows, and mask them on the frames.

    The frames come back as they were, before any sky was subtracted, with `objmask` and the corrected WCS.
    Raises FrameMismatch for a frame that is sky only: ultradeep is for objects in every frame.
    """
    for frame in frames:
        if frame.roles == {"sky"}:
            raise FrameMismatch(f"{frame.name} is sky only, wanted the object in every frame")
    frames = _first_reduction(frames, params, cals, {})
    for _ in range(params.passes - 1):
        frames = _first_reduction(frames, params, cals, {"first_pass": "given"})
    return frames


def _first_reduction(
    frames: Frames, params: MaskFromStackParams, cals: Calibrations, sky: Mapping[str, object]
) -> Frames:
    """The frames with the objects of their stack masked, and the WCS that they were aligned by."""

    def run(step: Primitive, frames: Frames, values: Mapping[str, object] | None = None) -> Frames:
        built, problems = parameters.build(step.params, values or {}, preset=params.settings)
        assert not problems, problems
        return step.run(frames, built, cals)

    aligned = run(sky_correct, run(associate_sky, frames), sky)
    for step in (detect_sources, adjust_wcs_to_reference):
        aligned = run(step, aligned)
    work = aligned
    for step in (resample_to_common_frame, scale_counts_to_reference, stack_frames):
        work = run(step, work)
    how = {"detect_thresh": params.detect_thresh, "detect_minarea": params.detect_minarea}
    (stack,) = run(detect_sources, work, how)
    if params.search == "deep" and stack.objmask is not None:
        stack = stack.evolve(objmask=stack.objmask | _light_on_any_scale(stack, params.limit))
    by_name = {frame.name: frame for frame in aligned}

    def masked(frame: Frame) -> Frame:
        return _masked(frame, by_name[frame.name], stack, params.dilation)

    return for_each(masked, (frame for frame in frames if frame.name in by_name), cals.keep)


def _light_on_any_scale(stack: Frame, limit: float) -> BoolImage:
    """Where sums over boxes stand above the sky; VAR, unlike the scatter of pixels, is right for sums."""
    from pipeline.algorithms import background, objectmasks

    good = stack.dq == 0
    if stack.var is None or not good.any():
        return np.zeros(stack.shape, np.bool_)
    level = background.sky_level(stack.sci, ~good, high=1.5).level
    noise = np.sqrt(np.where(good & (stack.var > 0), stack.var, np.float32(1)))
    pull = np.where(good, (stack.sci - np.float32(level)) / noise, np.float32(0))
    return objectmasks.deep_mask(pull, good.astype(np.float32), 1.0, limit=limit, scales=SCALES)


def _masked(frame: Frame, aligned: Frame, stack: Frame, dilation: float) -> Frame:
    from pipeline.algorithms import objectmasks

    wcs = {key: aligned.header[key] for key in WCS_CARDS if key in aligned.header}
    mask = objectmasks.dilate(_seen_from(aligned, stack), dilation)
    return frame.stamped("DLOBJMSK", objmask=mask, cards=wcs)


def _seen_from(frame: Frame, stack: Frame) -> BoolImage:
    """The stack's object mask where the frame's pixels lie on it."""
    assert stack.objmask is not None
    rows, columns = np.indices(frame.shape, dtype=np.float32)
    x, y = mapping_onto(stack, frame).to_output(columns, rows)
    column, row = np.rint(x).astype(int), np.rint(y).astype(int)
    ny, nx = stack.shape
    inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
    found: BoolImage = stack.objmask[np.clip(row, 0, ny - 1), np.clip(column, 0, nx - 1)] & inside
    return found
