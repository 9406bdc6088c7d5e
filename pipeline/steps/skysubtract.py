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

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.frame import BAD_PIXEL, BoolImage, Frame, Frames, for_each
from pipeline.primitive import Calibrations, note, primitive
from pipeline.steps import pointing
from pipeline.steps.skyobjects import first_pass
from pipeline.steps.skystack import (
    Skies,
    SkyCorrectParams,
    calibrations_variance,
    drift_of,
    level_of,
    of_frame,
    own_level,
    scaling,
    shared_planes,
)

if TYPE_CHECKING:
    from pipeline.algorithms.combine import Stack

TURNED = 2.0  # degrees: frames turned by more do not lie on one another by shifts
SAID = 0.005  # of a frame that may be filled without a note
DRIFTS = 0.02  # of the sky, by which it may have changed since it was seen, without a note: airglow does so
Pools = dict[str, tuple[str, ...]]

__all__ = ["SkyCorrectParams", "sky_correct"]


@primitive("skyCorrect", SkyCorrectParams)
def sky_correct(frames: Frames, params: SkyCorrectParams, cals: Calibrations) -> Frames:
    """Take the sky off every object frame; frames that are only sky end here.

    First pass: the sky frames are subtracted from one another and their objects found. Second pass: for
    each object frame its sky frames (`skies`), objects masked, are brought to one level and combined; the
    result is scaled to the frame (scale_sky), or, where object and sky lie apart, taken at the level of
    its own frames, interpolated to the time of the object frame if they bracket it, else that of the
    nearest; it is never extrapolated.

    With `model`, pixels that are objects on every sky get a smooth sky, and so does the whole of a field
    whose extended target hides the sky, or a frame without skies (`skymodelled`); with `gradient`, frames
    whose sky changes its slope are brought to one first. What was done is a note.

    Sets SKYLEVEL (what was taken off), SKYFACT, SKYNUM, SKYHOW, SKYDRIFT, SKYVAR, SKYMODEL. Without `model`
    a frame without skies stays as it is, with a note. Raises ReductionError when a frame has no usable sky
    pixel.
    """
    objects = [f for f in frames if "object" in f.roles or not f.roles]
    by_name = {f.name: f for f in frames}
    pools = {frame.name: tuple(name for name in frame.skies if name in by_name) for frame in objects}
    notes: list[str] = []
    scale = params.scale_sky
    if scale is None:
        off = [f for f in frames if any(f.name in pool for pool in pools.values())]
        here = {f.name for f in objects}
        scale = not (off and not any(f.name in here for f in off) and pointing.all_apart(objects, off))
    done: dict[str, Frame] = {}
    if params.model or params.gradient:
        done = _by_model(by_name, pools, scale, params, cals, notes)
    objects = [by_name[f.name] for f in objects]
    left = [f for f in objects if f.name not in done]
    used = {name for f in left for name in pools[f.name]}
    skies = Skies(by_name, params, cals.keep)
    if params.mask_objects:
        skies.masks = first_pass([f for f in frames if f.name in used], params, cals.keep)
    for frame in left:
        if not pools[frame.name]:
            notes.append(f"{frame.name}: no sky frame belongs to it; its sky is not subtracted")
        elif len(pools[frame.name]) == 1:
            notes.append(f"{frame.name}: one sky frame only, whose bad pixels and cosmic rays stay")

    def corrected(frame: Frame) -> Frame:
        if frame.name in done:
            return done[frame.name]
        names = pools[frame.name]
        return of_frame(frame, lambda: _corrected(frame, names, skies, scale, cals)) if names else frame

    out = for_each(corrected, objects, cals.keep)
    notes += _holes(out, done) + _changes(out, done)
    for text in notes:
        out = note(out, text)
    return out


def _holes(frames: Frames, done: Mapping[str, Frame]) -> list[str]:
    """What to say of pixels that are objects on all their skies."""
    unseen = {f.name: int(f.header.get("SKYMODEL", 0)) for f in frames if f.name not in done}
    worst = max(unseen, key=unseen.__getitem__, default="")
    if not worst or unseen[worst] <= SAID * frames[0].sci.size:
        return []
    percent = 100 * unseen[worst] / frames[0].sci.size
    return [
        f"{worst}: sky under objects is a model for {unseen[worst]} pixels, {percent:.1f} % "
        f"(limit {100 * SAID:.1f} %), which are objects on all its skies"
    ]


def _changes(frames: Frames, done: Mapping[str, Frame]) -> list[str]:
    """What to say of skies that change fast and were not seen on both sides of an object frame in time."""
    rest = [f for f in frames if f.name not in done and float(f.header.get("SKYLEVEL", 0.0)) > 0]
    part = {f.name: float(f.header.get("SKYDRIFT", 0.0)) / float(f.header["SKYLEVEL"]) for f in rest}
    many = [name for name, value in part.items() if abs(value) > DRIFTS]
    if not many:
        return []
    worst = max(many, key=lambda name: abs(part[name]))
    drift = next(float(f.header["SKYDRIFT"]) for f in rest if f.name == worst)
    return [
        f"{worst}: no sky frames before and after it; the level of its sky is the nearest's, which changes: "
        f"its background may be off by {drift:+.0f} {frames[0].unit}, {100 * part[worst]:+.1f} % of the sky "
        f"(limit {100 * DRIFTS:.0f} %), and so may that of {len(many)} frames"
    ]


def _by_model(
    by_name: dict[str, Frame],
    pools: Pools,
    scale: bool,
    params: SkyCorrectParams,
    cals: Calibrations,
    notes: list[str],
) -> dict[str, Frame]:
    """Object frames by name that are less a model of their sky: without sky frames, or under a target.

    Of other fields whose sky drifts, by_name gets frames that are brought to one slope.
    """
    from pipeline.steps import skymodelled

    done: dict[str, Frame] = {}
    for field in _fields(by_name, pools, scale):
        study = skymodelled.studied(field)
        if study is None:
            continue
        under = skymodelled.needs_model(study, pools) if params.model else {}
        names = [
            f.name
            for f in study.frames
            if f.name in pools and (under or (params.model and not pools[f.name]))
        ]
        if names:
            done |= {f.name: f for f in skymodelled.less_model(study, names, pools, params, cals)}
            notes += skymodelled.said(study, names, under, pools)
        elif params.gradient and study.drifts:
            steadied, text = skymodelled.steadied(study, cals)
            by_name |= {f.name: f for f in steadied}
            notes.append(text)
    return done


def _fields(by_name: dict[str, Frame], pools: Pools, scale: bool) -> list[Frames]:
    """Fields whose frames are each other's sky; where skies lie apart, the objects without any sky."""
    wanted = [name for name, pool in pools.items() if scale or not pool]
    used = {name for one in wanted for name in pools[one]} | set(wanted)
    members = [f for name, f in by_name.items() if name in used]
    fields: dict[Any, Frames] = {}
    for frame, number in zip(members, pointing.groups(members) if members else [], strict=True):
        facts = frame.descriptors
        kind = (
            number,
            frame.shape,
            facts.exposure_time,
            facts.coadds,
            round(pointing.turn(members[0], frame) / TURNED),
        )
        fields.setdefault(kind, []).append(frame)
    return [field for field in fields.values() if any(f.name in pools for f in field)]


def _corrected(frame: Frame, names: tuple[str, ...], skies: Skies, scale: bool, cals: Calibrations) -> Frame:
    """One object frame less its sky."""
    from pipeline.algorithms import background, skyfill
    from pipeline.algorithms.combine import median_variance

    params = skies.params
    sky = skies.stack(names)
    drift = 0.0
    if scale:
        factor, how = scaling(frame, names, skies), "scaled"
    else:
        factor, how = own_level(frame, names, skies)
        drift = drift_of(frame, names, skies) if how == "nearest" else 0.0
    variance = np.zeros_like(frame.sci) if frame.var is None else frame.var
    common: dict[str, Any] = {}
    if params.common_noise and frame.var is not None:
        common = shared_planes(frame, cals)
        if params.operation == "median":
            common["share"] = float(median_variance(len(names), params.exact_median)[len(names)])
        else:
            common["share"] = 1.0 / len(names)
    result = background.subtract_sky(frame.sci, variance, sky.sci, sky.var, factor, **common)
    sci, var, dq = result.sci, result.var, frame.dq | sky.dq
    hole, unseen = _unseen(sky, names, skies) if params.model else None, 0
    if hole is not None:
        unseen = int(np.count_nonzero(hole))
        known = calibrations_variance(common, skies.stack_level(names)) * (1 - common.get("share", 0.0))
        model = skyfill.fill(sky.sci, sky.var, sky.dq != 0, hole, known)
        sci[hole] = frame.sci[hole] - np.float32(factor) * model.sci
        var[hole] = variance[hole] + np.float32(factor) ** 2 * model.var
        dq[hole] = frame.dq[hole]
    if params.offset_sky and not scale:
        sci = sci - np.float32(level_of(frame.evolve(sci=sci, dq=dq), skies.not_empty(frame, dq), params))
        how = "offset"
    taken = factor * skies.stack_level(names)
    if params.reset_sky:
        sci = sci + np.float32(taken)
    brought = result.sky_var * (1 - unseen / sci.size)  # where the sky is a model it brings hardly any
    cards = {
        "SKYLEVEL": (round(taken, 4), f"[{frame.unit}] Sky level taken off"),
        "SKYFACT": (round(factor, 7), "Factor applied to the sky frame"),
        "SKYNUM": (len(names), "Number of frames in the sky"),
        "SKYHOW": (how, "How the level of the sky was found"),
        "SKYDRIFT": (round(drift, 4), f"[{frame.unit}] It may have changed by"),
        "SKYVAR": (round(brought, 4), "Variance that the sky has brought"),
        "SKYMODEL": (unseen, "Pixels where the sky is a model"),
    }
    return frame.stamped("SUBSKY", sci=sci, var=None if frame.var is None else var, dq=dq, cards=cards)


def _unseen(sky: Stack, names: tuple[str, ...], skies: Skies) -> BoolImage | None:
    """Pixels that are objects on every sky frame, or bad, and good on some; None where there are none."""
    bad: BoolImage = (sky.dq & BAD_PIXEL) != 0
    if not bad.any():
        return None
    good = np.zeros(bad.shape, np.bool_)
    for name in names:
        if name in skies.masks:
            good |= skies.frames[name].dq == 0
    hole: BoolImage = bad & good
    return hole if hole.any() else None
