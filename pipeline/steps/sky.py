"""The sky: which frames show it, which of them belong to an object frame, and how it is taken off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import numpy as np

from pipeline.frame import Frame, Frames
from pipeline.headers.times import same_exposure
from pipeline.names import is_named
from pipeline.niri import is_thermal
from pipeline.params import bounded
from pipeline.primitive import Calibrations, note, primitive
from pipeline.steps import pointing
from pipeline.steps.skysubtract import sky_correct

__all__ = ["associate_sky", "separate_sky", "sky_correct"]


@dataclass(frozen=True)
class SeparateSkyParams:
    frac_FOV: float = bounded(
        0.9, gt=0, le=1, doc="fraction of the field within which two pointings are one group"
    )
    ref_obj: tuple[str, ...] | None = bounded(None, doc="names of frames that are objects, with their groups")
    ref_sky: tuple[str, ...] | None = bounded(None, doc="names of frames that are sky, with their groups")
    unguided: Literal["apart", "always"] = bounded(
        "apart",
        dragons="always",
        doc="an unguided frame is sky if it is apart from all guided ones, or always",
    )


@primitive("separateSky", SeparateSkyParams)
def separate_sky(frames: Frames, params: SeparateSkyParams, cals: Calibrations) -> Frames:
    """Tell objects from skies: sets `roles`, and the cards EXPGROUP, OBJFRAME, SKYFRAME.

    Frames are grouped by pointing. What headers or parameters say of one frame holds for its group; a frame
    without guiding is sky. Where only one kind is known, the rest is the other; where nothing is, one
    group serves as both, of two the one nearer the target is the object, of more the nearer half. A frame
    that is neither is left out with a note.
    """
    number = pointing.groups(frames, params.frac_FOV)
    objects, skies = _as_named(frames, number, params)
    skies |= _by_guiding(frames, number, params, bool(objects or skies))
    everything = set(range(len(frames)))
    if not objects and not skies:
        objects, skies = _by_distance(frames, number)
    elif not objects:
        objects = everything - skies or set(skies)
    elif not skies:
        skies = everything - objects or set(objects)
    out = [
        _assigned(frame, i in objects, i in skies, number[i])
        for i, frame in enumerate(frames)
        if i in objects | skies
    ]
    for i in sorted(everything - objects - skies):
        out = note(out, f"{frames[i].name} left out: neither object nor sky")
    return out


def _as_named(frames: Frames, number: list[int], params: SeparateSkyParams) -> tuple[set[int], set[int]]:
    """(objects, skies) that cards or parameters name, spread over their groups."""

    def named(frame: Frame, names: tuple[str, ...] | None) -> bool:
        return is_named(frame.name, names or ())

    named_groups = []
    for card, names in (("OBJFRAME", params.ref_obj), ("SKYFRAME", params.ref_sky)):
        chosen = {
            number[i]
            for i, frame in enumerate(frames)
            if str(frame.header.get(card, "")).strip().upper() in ("TRUE", "T", "1") or named(frame, names)
        }
        named_groups.append({i for i, group in enumerate(number) if group in chosen})
    return named_groups[0], named_groups[1]


def _unguided(frame: Frame) -> bool:
    facts = frame.descriptors
    return facts.wavefront_sensors_known and facts.wavefront_sensor is None


def _by_guiding(frames: Frames, number: list[int], params: SeparateSkyParams, named: bool) -> set[int]:
    """Frames that are sky because nothing guided them.

    Gemini's rule takes every unguided frame. Ours asks only where nothing else is known and some frames were
    guided, and leaves an unguided frame inside the field of a guided one what that is.
    """
    loose = {i for i, frame in enumerate(frames) if _unguided(frame)}
    if params.unguided == "always":
        return loose
    guided = {number[i] for i in range(len(frames)) if i not in loose}
    return set() if named or not guided else {i for i in loose if number[i] not in guided}


def _by_distance(frames: Frames, number: list[int]) -> tuple[set[int], set[int]]:
    """(objects, skies) from the groups' distances to the first frame's target."""
    from pipeline.headers.tangent import separation

    everything = set(range(len(frames)))
    count = max(number) + 1
    if count == 1:
        return everything, set(everything)
    ra, dec = pointing.centres(frames)
    first = frames[0].descriptors
    target = (ra[0], dec[0])
    if first.target_ra is not None and first.target_dec is not None:
        target = (first.target_ra, first.target_dec)
    members = [[i for i in everything if number[i] == group] for group in range(count)]
    distance = [float(separation(*target, np.mean(ra[m]), np.mean(dec[m]))) for m in members]
    objects: set[int] = set()
    for group in sorted(range(count), key=lambda g: distance[g]):
        if objects and (count == 2 or 2 * len(objects) >= len(frames)):
            break
        objects |= set(members[group])
    return objects, everything - objects or set(everything)


def _assigned(frame: Frame, is_object: bool, is_sky: bool, group: int) -> Frame:
    roles = frozenset(name for name, has in (("object", is_object), ("sky", is_sky)) if has)
    cards = {
        "EXPGROUP": (group + 1, "Group of pointings within one field"),
        "OBJFRAME": ("TRUE", "Is this frame an object frame?") if is_object else None,
        "SKYFRAME": ("TRUE", "Is this frame a sky frame?") if is_sky else None,
    }
    return frame.stamped("SEPSKY", cards=cards, roles=roles)


@dataclass(frozen=True)
class AssociateSkyParams:
    time: float = bounded(900.0, ge=0, doc="seconds between object and sky beyond which a sky is not wanted")
    distance: float = bounded(1.0, ge=0, doc="arcsec by which the centres of object and sky must differ")
    min_skies: int = bounded(3, ge=0, doc="fewest skies to use, whatever their distance in time")
    max_skies: int | None = bounded(None, ge=1, doc="most skies to use; None is no limit")
    thermal_skies: int = bounded(
        4,
        ge=0,
        dragons=0,
        doc="in thermal filters, whose sky soon changes its shape, at most so many skies; 0 is no limit",
    )
    use_all: bool = bounded(False, doc="use every sky frame, whatever its distance in time or place")
    sky: tuple[str, ...] | None = bounded(None, doc="names of the only frames to use as sky; None is all")
    keep: bool = bounded(
        True,
        dragons=False,
        doc="keep an object without sky frames for a model of its sky, if others of its kind have some",
    )


@primitive("associateSky", AssociateSkyParams)
def associate_sky(frames: Frames, params: AssociateSkyParams, cals: Calibrations) -> Frames:
    """Give each frame the names of its sky frames, in order of time, in `skies`.

    A sky must have the frame's configuration and exposure time and point more than `distance`
    elsewhere. Those within `time` are taken, or the `min_skies` nearest if these are more; in thermal
    filters the `thermal_skies` nearest. Skies get skies too, for finding the objects on them. An object
    frame without any is left out with a note, unless none has one.
    """
    skies = [f for f in frames if "sky" in f.roles or not f.roles]
    if params.sky:
        skies = [f for f in frames if is_named(f.name, params.sky)]
    apart = pointing.distances(frames)
    place = {frame.name: i for i, frame in enumerate(frames)}
    out = []
    for i, frame in enumerate(frames):
        fit = [
            sky for sky in skies
            if sky.name != frame.name and _alike(frame, sky)
            and (params.use_all or apart[i, place[sky.name]] > params.distance)
        ]  # fmt: skip
        out.append(frame.stamped("ASSOCSKY", skies=_nearest(frame, fit, params)))
    without = [f for f in out if "object" in f.roles and not f.skies]
    if not without or all(not f.skies for f in out if "object" in f.roles):
        return out
    kept = [f for f in without if params.keep and any(o.skies and _alike(f, o) for o in out)]
    left = [f for f in out if f.skies or "object" not in f.roles or f in kept]
    for frame in without:
        if frame in kept:
            continue
        left = note(left, f"{frame.name} left out: no sky frame belongs to it")
    return left


def _alike(frame: Frame, sky: Frame) -> bool:
    a, b = frame.descriptors, sky.descriptors
    if not same_exposure(a.exposure_time, b.exposure_time, 2):
        return False
    return a.shape == b.shape and _setting(a) == _setting(b)


_setting = attrgetter(
    "data_section", "detector_roi_setting", "read_mode", "well_depth", "gain", "coadds", "camera",
    "filter_name", "focal_plane_mask", "disperser",
)  # fmt: skip


def _nearest(frame: Frame, skies: Sequence[Frame], params: AssociateSkyParams) -> tuple[str, ...]:
    """Names of the skies to use, chronological."""
    by_time = sorted(skies, key=lambda sky: (seconds_between(frame, sky), sky.name))
    if not params.use_all:
        in_time = sum(seconds_between(frame, sky) <= params.time for sky in by_time)
        by_time = by_time[: max(params.min_skies, in_time)]
        if params.thermal_skies and is_thermal(frame.descriptors.filter_name):
            by_time = by_time[: params.thermal_skies]
    if params.max_skies is not None:
        by_time = by_time[: params.max_skies]
    chosen = {sky.name for sky in by_time}
    return tuple(sky.name for sky in sorted(skies, key=_start) if sky.name in chosen)


def _start(frame: Frame) -> float:
    when = frame.descriptors.ut_datetime
    return when.timestamp() if when else 0.0


def seconds_between(a: Frame, b: Frame) -> float:
    """Between the starts of two exposures."""
    return abs(_start(a) - _start(b))
