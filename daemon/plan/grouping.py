"""Which frames belong together: roles, group keys, and the cutting of sequences. Pure.

What a set of frames is cut into depends on the set alone, never on the order in which it arrived.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from daemon.model.groups import Point, Setting
from daemon.model.rules import TriggerRule
from pipeline import niri
from pipeline.headers.descriptors import Descriptors
from pipeline.headers.roles import role_of
from pipeline.headers.times import same_exposure


def admits(rule: TriggerRule, tags: frozenset[str], descriptors: Descriptors) -> bool:
    """True for a raw frame that the rule groups."""
    if descriptors.ut_datetime is None or rule.exclude & tags:
        return False
    if rule.observation_type and descriptors.observation_type != rule.observation_type:
        return False
    if rule.role and role_of(tags, descriptors)[0] != rule.role:
        return False
    if rule.thermal and not niri.is_thermal(descriptors.filter_name):
        return False
    return any(ingredient.takes(tags, descriptors) for ingredient in rule.ingredients)


def group_key(rule: TriggerRule, tags: frozenset[str], descriptors: Descriptors) -> str:
    """The values that agree exactly within a group; the exposure time is apart.

    First those that all frames of a family agree in, and then, for frames whose lamp was on, the lamp: see
    `family`.
    """
    key = values_key(rule.group_by, descriptors)
    if rule.group_lamp_on_by and "LAMPON" in tags:
        key += f" {values_key(rule.group_lamp_on_by, descriptors)}"
    return key


def values_key(names: Sequence[str], descriptors: Descriptors) -> str:
    """Values of descriptors, but for the exposure time, as text."""
    return json.dumps(
        [getattr(descriptors, name) for name in names if name != "exposure_time"], separators=(",", ":")
    )


def family(key: str) -> str:
    """The part of a group's key that holds for any lamp; frames whose lamp was off have no other."""
    found, _ = json.JSONDecoder().raw_decode(key)
    return json.dumps(found, separators=(",", ":"))


def partition(points: Sequence[Point], max_gap: float) -> list[list[Point]]:
    """Cut frames of one key into sequences.

    A frame joins the sequence whose first frame's exposure agrees (nearest if several do) and whose
    last frame started at most `max_gap` seconds earlier; frames between them do not break it.
    """
    done: list[list[Point]] = []
    last: list[list[Point]] = []
    for point in sorted(points):
        last = [group for group in last if point.ut - group[-1].ut <= max_gap]
        fitting = [g for g in last if same_exposure(g[0].exposure, point.exposure)]
        if fitting:
            min(fitting, key=lambda g: (abs(g[0].exposure - point.exposure), g[0])).append(point)
        else:
            group = [point]
            done.append(group)
            last.append(group)
    return done


def partition_by_lamp(points: Mapping[str, Sequence[Point]], max_gap: float) -> list[tuple[str, list[Point]]]:
    """Cut the frames of a family into sequences; (key, frames in order of time) of each.

    points : key -> its frames; those whose lamp was off have the key of the family itself
    The lamp-off frames belong to the sequence of every lamp that they fit in time and exposure; what is left
    of them makes sequences of its own. Without lamps it is `partition`.
    """
    if not points:
        return []
    base = family(next(iter(points)))
    off = list(points.get(base, ()))
    done: list[tuple[str, list[Point]]] = []
    served: set[int] = set()
    for key in sorted(set(points) - {base}):
        lit = {point.frame_id for point in points[key]}
        for sequence in partition([*points[key], *off], max_gap):
            ids = {point.frame_id for point in sequence}
            if ids & lit:
                done.append((key, sequence))
                served |= ids
    rest = [point for point in off if point.frame_id not in served]
    return done + [(base, sequence) for sequence in partition(rest, max_gap)]


def pointings(frames: Sequence[Descriptors], arcsec: float) -> int:
    """How many of the frames point elsewhere than those before them; unknown pointings do not count."""
    found: list[Descriptors] = []
    for facts in frames:
        offsets = [angular_offsets(facts, other) for other in found or [facts]]
        known = [max(map(abs, offset)) for offset in offsets if offset]
        if len(known) == len(offsets) and (not found or min(known) > arcsec):
            found.append(facts)
    return len(found)


def angular_offsets(descriptors: Descriptors, base: Descriptors) -> tuple[float, float] | None:
    """(east, north) arcsec of a frame's pointing from another's; None when either is unknown."""
    if descriptors.ra is None or descriptors.dec is None or base.ra is None or base.dec is None:
        return None
    east = (descriptors.ra - base.ra + 180.0) % 360.0 - 180.0
    return (3600.0 * east * math.cos(math.radians(base.dec)), 3600.0 * (descriptors.dec - base.dec))


def join_key(rule: str, names: Sequence[str], descriptors: Descriptors) -> str:
    return f"join:{rule}:{json.dumps([getattr(descriptors, name) for name in names])}"


def sky_pool(rule: TriggerRule, descriptors: Descriptors, setting: Setting) -> str:
    """What groups have in common that may be joined to others, or lend each other sky."""
    for other in setting.rules.values():
        if other.join and other.join.rule == rule.title:
            return join_key(rule.title, other.join.agree, descriptors)
    if rule.role != "science" or setting.recipes[rule.recipe].makes:
        return ""
    names = [n for n in rule.group_by if n not in ("observation_id", "object")]
    return f"sky:{values_key(names, descriptors)}"
