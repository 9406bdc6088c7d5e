"""skyCorrect: the sky of each object frame, made of its sky frames with their objects masked, taken off.

How noise goes along. A sky made of n frames brings its own noise, 0.29 VAR for a median of 5. Frames that are
dithered by more than a few pixels before they are stacked put one sky's noise on different places of the
target, so it averages like any other. Frames that share a sky and are hardly dithered put it on the same
places: it does not average, and no VAR of a single frame can say so. So each frame carries the variance
that its sky has brought (`SKYVAR`) and the names of its skies; resampleToCommonFrame, which knows the
shifts, turns these into the covariance `SKYCOV` of the frames to be stacked, and a stack of m frames has
VAR = (sum VAR + m (m - 1) SKYCOV) / m².
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import pointing
from pipeline.errors import BadFrame
from pipeline.frame import Frame, Frames
from pipeline.parallel import each
from pipeline.primitive import Calibrations, note, primitive
from pipeline.steps.skyobjects import first_pass
from pipeline.steps.skystack import Skies, SkyCorrectParams, level_of, own_level, scaling

__all__ = ["SkyCorrectParams", "sky_correct"]


@primitive("skyCorrect", SkyCorrectParams)
def sky_correct(frames: Frames, params: SkyCorrectParams, cals: Calibrations) -> Frames:
    """Take the sky off every object frame; frames that are only sky end here.

    First pass: the sky frames are subtracted from one another and their objects found. Second pass: for
    each object frame its sky frames (`skies`), objects masked, are brought to one level and combined; the
    result is scaled to the frame (scale_sky), or, where object and sky lie apart, taken at the level of
    its own frames, interpolated to the time of the object frame if they bracket it, else that of the
    nearest; it is never extrapolated.

    Sets SKYLEVEL (what was taken off), SKYFACT, SKYNUM, SKYHOW, SKYVAR. A frame without skies stays as it is,
    with a note. Raises ReductionError when a frame has no usable sky pixel.
    """
    objects = [f for f in frames if "object" in f.roles or not f.roles]
    used = {name for f in objects for name in f.skies}
    skies = Skies({f.name: f for f in frames}, params)
    notes: list[str] = []
    if params.mask_objects:
        skies.masks = first_pass([f for f in frames if f.name in used], params)
    scale = params.scale_sky
    if scale is None:
        off = [f for f in frames if f.name in used]
        scale = not (off and not ({f.name for f in objects} & used) and pointing.all_apart(objects, off))
    pools = {frame.name: tuple(name for name in frame.skies if name in skies.frames) for frame in objects}
    for frame in objects:
        if not pools[frame.name]:
            notes.append(f"{frame.name}: no sky frame belongs to it; its sky is not subtracted")
        elif len(pools[frame.name]) == 1:
            notes.append(f"{frame.name}: one sky frame only, whose bad pixels and cosmic rays stay")

    def corrected(frame: Frame) -> Frame:
        names = pools[frame.name]
        try:
            return _corrected(frame, names, skies, scale, cals) if names else frame
        except ValueError as error:
            raise BadFrame(frame.name, str(error)) from error

    out = each(corrected, objects)
    for text in notes:
        out = note(out, text)
    return out


def _corrected(frame: Frame, names: tuple[str, ...], skies: Skies, scale: bool, cals: Calibrations) -> Frame:
    """One object frame less its sky."""
    from pipeline.algorithms import background
    from pipeline.algorithms.combine import median_variance

    params = skies.params
    sky = skies.stack(names)
    if scale:
        factor, how = scaling(frame, names, skies), "scaled"
    else:
        factor, how = own_level(frame, names, skies)
    variance = np.zeros_like(frame.sci) if frame.var is None else frame.var
    common: dict[str, Any] = {}
    if params.common_noise and frame.var is not None:
        common = _shared(frame, cals)
        if params.operation == "median":
            common["share"] = float(median_variance(len(names), params.exact_median)[len(names)])
        else:
            common["share"] = 1.0 / len(names)
    result = background.subtract_sky(frame.sci, variance, sky.sci, sky.var, factor, **common)
    sci, dq = result.sci, frame.dq | sky.dq
    if params.offset_sky and not scale:
        sci = sci - np.float32(level_of(frame.evolve(sci=sci, dq=dq), skies.not_empty(frame, dq), params))
        how = "offset"
    taken = factor * skies.stack_level(names)
    if params.reset_sky:
        sci = sci + np.float32(taken)
    cards = {
        "SKYLEVEL": (round(taken, 4), f"[{frame.unit}] Sky level taken off"),
        "SKYFACT": (round(factor, 7), "Factor applied to the sky frame"),
        "SKYNUM": (len(names), "Number of frames in the sky"),
        "SKYHOW": (how, "How the level of the sky was found"),
        "SKYVAR": (round(result.sky_var, 4), "Variance that the sky has brought"),
    }
    var = None if frame.var is None else result.var
    return frame.stamped("SUBSKY", sci=sci, var=var, dq=dq, cards=cards)


def _shared(frame: Frame, cals: Calibrations) -> dict[str, Any]:
    """Planes of the calibrations that went into the frame and have its shape."""
    planes: dict[str, Any] = {}
    flat, dark = cals.flat, cals.dark
    if flat is not None and flat.var is not None and flat.shape == frame.shape and "FLATCORR" in frame.header:
        planes |= {"flat": flat.sci, "flat_var": flat.var}
    if dark is not None and dark.var is not None and dark.shape == frame.shape and "DARKCORR" in frame.header:
        planes["dark_var"] = dark.var
    return planes
