"""Which frames a job is made of: enough of them, the first exposure, short darks of a mask, borrowed sky."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.model.groups import Member
from daemon.model.jobs import REMOVE_FIRST
from daemon.model.rules import LAMP_TAGS, Ingredient, Join
from daemon.plan.case import Case, Chosen, without_lost
from daemon.plan.grouping import angular_offsets, pointings


def lacking(case: Case) -> tuple[str, str]:
    """(why there are too few frames, "" when there are enough, or as many as there will be; a note of it)."""
    usable = case.usable
    wanted = [(i, sum(i.takes(m.tags, m.descriptors) for m in usable)) for i in case.rule.ingredients]
    if all(n >= i.at_least for i, n in wanted):
        seen = pointings([m.descriptors for m in usable], case.policy.same_pointing_arcsec)
        want = case.rule.pointings
        return "" if seen >= want else f"incomplete: {seen} of {want} different pointings", ""
    several = len(wanted) > 1
    counts = ", ".join(f"{_label(i) + ' ' if several else ''}{n} of {i.at_least}" for i, n in wanted)
    if (case.patience <= 0 or _spoilt(case)) and usable and all(n >= i.least for i, n in wanted):
        return "", f"warning: fewer frames than wanted: {counts}"
    return f"incomplete: {counts}", ""


def _spoilt(case: Case) -> bool:
    """True when the current product was made with a frame that is out by now: waiting would only keep it
    longer."""
    return any(not m.usable and (m.data_sha, m.facts) in case.used for m in case.group.members)


def joined_darks(case: Case, join: Join) -> tuple[list[Member], list[str]]:
    """(the usable frames of the nearest complete group of short darks, notes)."""
    start = case.usable[0].ut
    complete: list[list[Member]] = []
    notes: list[str] = []
    for other in case.world.joined(join, case.group):
        members, said = without_lost(other.members, case.setting, case.used)
        notes += said
        found = [m for m in members if m.usable]
        if len(found) >= join.at_least:
            complete.append(found)

    def order(found: list[Member]) -> tuple[float, float, tuple[str, str]]:
        ut = found[0].ut
        return (abs((ut - start).total_seconds()), -ut.timestamp(), found[0].ident)

    return min(complete, key=order, default=[]), notes


def chosen(case: Case, darks: Sequence[Member] = ()) -> Chosen:
    """The frames of the job. darks : short darks that a mask needs beside its own frames"""
    usable, inputs = case.usable, [*case.usable, *darks]
    parameters: dict[str, Any] = {}
    notes: list[str] = []
    if any(step.name == "removeFirstFrame" for step in case.recipe.steps):
        first, count = _first_exposure(case), len(inputs)
        remove = first.usable and count - 1 >= case.policy.keep_frames
        if first.usable and not remove:
            notes.append(f"first frame {first.name} kept: only {count - 1} would remain")
        borrowed, said = _borrowed_sky(case)
        notes += said
        if borrowed and remove:  # the step would take the earliest of the list, which may be borrowed
            inputs, remove = [m for m in inputs if m is not first], False
            usable = tuple(inputs)
            notes.append(f"first frame {first.name} left out")
        if borrowed:
            names = ",".join(m.name for m in borrowed)
            parameters["separateSky:ref_sky"] = names
            notes.append(f"sky borrowed from {names}")
        parameters[REMOVE_FIRST] = remove
        inputs = inputs + borrowed
    return Chosen(usable, tuple(sorted(inputs, key=lambda m: m.order)), parameters, tuple(notes))


def _first_exposure(case: Case) -> Member:
    """The first of the whole group, lost or not; of a damaged and a whole copy the whole one."""
    first = case.group.members[0]
    same = (m for m in case.usable if (m.ut, m.label) == (first.ut, first.label))
    return next(same, first)


def _borrowed_sky(case: Case) -> tuple[list[Member], tuple[str, ...]]:
    """(sky frames of other groups, for a sequence that stays on its target; notes)."""
    policy, usable = case.policy, case.usable
    base = usable[0].descriptors
    if case.rule.role != "science" or base.shape is None or not base.pixel_scale:
        return [], ()
    own = [angular_offsets(m.descriptors, base) for m in usable]
    if any(o is None or max(map(abs, o)) > policy.same_pointing_arcsec for o in own):
        return [], ()
    field_arcsec = min(base.shape) * base.pixel_scale
    start, end = usable[0].ut, usable[-1].ut
    sky = []
    neighbours, notes = without_lost(case.world.neighbours(case.group), case.setting, case.used)
    for m in neighbours:
        away = angular_offsets(m.descriptors, base)
        late = max((start - m.ut).total_seconds(), (m.ut - end).total_seconds())
        far = away is not None and max(map(abs, away)) > policy.sky_field_fraction * field_arcsec
        if m.usable and far and late <= policy.borrow_sky_seconds:
            sky.append(m)
    return sorted(sky, key=lambda m: m.order), notes


def _label(ingredient: Ingredient) -> str:
    return "+".join(sorted(ingredient.tags - LAMP_TAGS)) or "frames"
