"""Whether a recipe starts, on what and with which calibrations: a pure planner.

    for decision in plan(groups, setting, world): ...

A group of frames is planned when every ingredient is there in number ("the recipe may run") and the
group is quiet ("the observer has probably finished"). Calibrations are chosen here, before the job key
is computed, so healing is nothing but planning again: a group that grew, lost a frame or can have a
better calibration gets a new key, and the product of that key replaces the older one.

There is no database, clock or disk here: `plan` is given the groups to look at with their members,
and a `World` to ask for calibrations, the short darks of a mask and the like.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from daemon.model.groups import Decision, Group, Member, Setting, World
from daemon.model.jobs import REMOVE_FIRST, CalInput, Input, JobSpec, digest, job_key
from daemon.model.rules import MOVED_ON, TriggerRule
from daemon.plan import calibrations, frames
from daemon.plan.case import Case, Chosen, Matched, gives
from pipeline import association
from pipeline.association import CalKind, Candidate
from pipeline.primitive import Recipe
from pipeline.steps.photometry import gives_zero_point

LANDING_SECONDS = 1.0  # late files come together: a group whose programme has moved on waits this long


def plan(groups: Sequence[Group], setting: Setting, world: World) -> list[Decision]:
    """One decision for each group. Groups that make calibrations are to be planned before their users."""
    return [_decide(group, setting, world) for group in groups]


def rank(rule: TriggerRule, recipes: Mapping[str, Recipe]) -> int:
    """Producers before consumers: the order in which groups are planned."""
    order = (CalKind.DARK, CalKind.MADE_BPM, CalKind.FLAT, CalKind.ZERO_POINT)
    makes = gives(rule, recipes[rule.recipe])
    return order.index(makes) if makes in order else len(order)


def _decide(group: Group, setting: Setting, world: World) -> Decision:
    rule = setting.rules[group.rule]
    settled = group.settled or setting.batch
    if not settled:
        remaining = quiet_needed(rule, group.members) - group.quiet_for
        moved_on = (
            group.programme_until is not None
            and (group.programme_until - group.members[-1].ut).total_seconds() > MOVED_ON
        )
        if moved_on:
            remaining = min(remaining, LANDING_SECONDS - group.quiet_for)
        if remaining > 0:
            return Decision(group.id, "later", f"quiet in {remaining:.0f} s", due=remaining)
    return decide_now(group, rule, setting, world)


def decide_now(group: Group, rule: TriggerRule, setting: Setting, world: World) -> Decision:
    """What would be done about a group if it were quiet: choose frames, then calibrations, then decide."""
    case = Case.of(group, rule, setting, world)
    why, note = frames.lacking(case)
    if why:
        due = case.patience * 3600 if case.patience > 0 else None
        return case.say("idle", why, short=due is not None, due=due)
    notes = [*case.notes, *([note] if note else [])]
    if idle := _not_needed(case):
        return idle
    darks: Sequence[Member] = ()
    if rule.join:
        darks, said = frames.joined_darks(case, rule.join)
        notes += said
        if not darks:
            days = rule.join.within_days
            return case.say("idle", f"no complete group of short darks within {days:g} days")
    chosen = frames.chosen(case, darks)
    named = case.primary(chosen.usable)
    overrides = dict(world.parameters(case.recipe.name, case.primary(case.usable).descriptors))
    found = calibrations.matched(case, named.descriptors, case.origin(chosen.usable), overrides)
    parameters = chosen.parameters | found.parameters | _decided_for(case, chosen.inputs) | overrides
    notes += [*chosen.notes, *found.notes]
    return _judged(case, chosen, found, _spec(case, chosen, found, parameters, notes))


def _not_needed(case: Case) -> Decision | None:
    """Why nothing is made of frames that are enough: nobody needs the product, or there is a better one."""
    target, makes = case.primary(case.usable).descriptors, case.recipe.makes
    if makes is None:
        return None
    below = case.rule.only_if_needed_below
    if (target.exposure_time or 0.0) <= below and not case.world.needed(makes, target):
        return case.say("idle", f"no OBJECT frame of {target.exposure_time:g} s needs a {makes}")
    if case.rule.thermal and (given := calibrations.given(case, makes, target)):
        if given.pending:
            return case.say("wait", f"{makes} {given.name} is being made", producers=(given.ident,))
        return case.say("idle", f"{makes} {given.name} serves, none is made of the sky")
    return None


def _decided_for(case: Case, inputs: Sequence[Member]) -> dict[str, Any]:
    """Parameters that neither the preset nor the operator decides.

    The scaling of the sky follows from where the sky was taken, with either preset. A frame that a person
    has accepted is used whatever the steps think of it that judge frames.
    """
    wanted: dict[str, Any] = {}
    if case.setting.preset == "dragons":
        wanted["skyCorrect:scale_sky"] = None
    if names := [m.name for m in inputs if case.world.forced_in(m)]:
        wanted |= {f"{step.name}:accept": names for step in case.recipe.steps}
    return {name: value for name, value in wanted.items() if case.recipe.has(name)}


def _judged(case: Case, chosen: Chosen, found: Matched, spec: JobSpec) -> Decision:
    """Whether a possible job is made, waits, or is no better than the product that is there."""
    said: dict[str, Any] = {"matches": found.matches, "nearest": found.nearest}
    current = case.group.current
    if current is not None:
        target = case.primary(chosen.usable).descriptors
        wanted, better = calibrations.remake_wanted(case, current, spec, found, target)
        if not wanted:
            return case.say("idle", current.rejected or "product is current", better=better, **said)
    if lost := [m for m in chosen.inputs if not m.path]:
        return _waits_for_files(case, lost, **said)
    pending = [c for several in found.chosen.values() for c in several if c.pending]
    if pending or found.blocked:
        making = [f"{c.kind} {c.name} is being made" for c in pending]
        return case.say(
            "wait",
            "; ".join([*found.blocked, *making]),
            short=found.passing,
            due=case.patience * 3600 if found.passing and not pending else None,
            producers=tuple(c.ident for c in pending),
            makes=_makes(case, chosen.usable, spec) if not found.blocked else None,
            **said,
        )
    return case.say(
        "plan",
        "complete",
        spec=spec,
        latest=max(m.ut for m in chosen.inputs),
        makes=_makes(case, chosen.usable, spec),
        remake=case.group.remake,
        members=tuple(m.frame_id for m in chosen.inputs),
        **said,
    )


def _waits_for_files(case: Case, lost: Sequence[Member], **said: Any) -> Decision:
    """Until the grace of the last of them is over; for ever for what the current product was made of."""
    names = " ".join(m.name for m in lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
    what = f"{names} {'is' if len(lost) == 1 else 'are'} no longer on disk"
    release = f"nirid reject {lost[0].name} --reason gone"
    if any((m.data_sha, m.facts) in case.used for m in lost):
        return case.say("wait", f"{what}, and the product has it: put it back, or {release}", **said)
    due = max(0.0, *(case.setting.grace_seconds - m.gone_for for m in lost))
    # the time itself, not the rest of it, which would soon be wrong
    grace = f"{case.setting.grace_seconds / 60:.3g} min"
    why = f"{what}: goes on without {grace} after that was seen, at once by {release}"
    return case.say("wait", why, lost=True, due=due, **said)


def _spec(
    case: Case, chosen: Chosen, found: Matched, parameters: Mapping[str, Any], notes: Sequence[str]
) -> JobSpec:
    recipe = case.recipe
    named = case.primary(chosen.usable)
    if parameters.get(REMOVE_FIRST):
        named = chosen.usable[1]
    inputs = tuple(
        Input(m.path, m.name, m.file_sha, m.data_sha, m.facts, m.ut.isoformat()) for m in chosen.inputs
    )
    there = [c for several in found.chosen.values() for c in several if not c.pending]
    cals = tuple(CalInput(c.kind.value, c.path, c.name, c.sha256, c.ident) for c in there)
    preset, remake = case.setting.preset, case.group.remake
    return JobSpec(
        key=job_key(recipe.name, recipe.version, inputs, cals, parameters, preset, remake),
        recipe=recipe.name,
        recipe_version=recipe.version,
        group=digest([case.rule.title, case.group.key, chosen.usable[0].ident], 16),
        inputs=inputs,
        calibrations=cals,
        parameters=dict(parameters),
        preset=preset,
        notes=tuple(notes),
        name=f"{named.stem}{recipe.suffix}",
        night=named.night,
        time_stamp=max(m.descriptors.ut_end or m.ut for m in chosen.inputs).isoformat(),
        products=case.setting.products,
        levels=calibrations.levels(found),
    )


def makes_of(group: Group, setting: Setting, world: World, spec: JobSpec) -> Candidate | None:
    """The calibration that a job of this group's frames makes."""
    case = Case.of(group, setting.rules[group.rule], setting, world)
    return _makes(case, case.usable, spec)


def _makes(case: Case, usable: Sequence[Member], spec: JobSpec) -> Candidate | None:
    kind, facts = gives(case.rule, case.recipe), case.primary(usable).descriptors
    if kind is None or (kind is CalKind.ZERO_POINT and not gives_zero_point(facts)):
        return None
    rule = association.RULES[kind]
    names = [*rule.match, *rule.tolerance, "gcal_lamp"]
    if kind is CalKind.MADE_BPM:  # its pixels are told from those of another in the same light
        names += ["filter_name", "camera"]
    # The lamp that a frame of the sky has in its header says nothing about its flat.
    sky = association.SKY_FACTS if kind is CalKind.FLAT and case.rule.role else {}
    return Candidate(
        kind=kind,
        name=spec.name,
        ident=spec.key,
        facts={**{name: getattr(facts, name) for name in names}, **sky},
        ut=usable[0].ut,
        origin=case.origin(usable),
        pending=True,
    )


def quiet_needed(rule: TriggerRule, members: Sequence[Member]) -> float:
    """Seconds without a new frame after which the sequence is taken as finished."""
    starts = [m.ut.timestamp() for m in members]
    longest = max((b - a for a, b in itertools.pairwise(starts)), default=0.0)
    exposure = max((m.descriptors.exposure_time or 0.0 for m in members), default=0.0)
    return max(
        rule.quiet_seconds,
        rule.quiet_cadence * longest,
        rule.quiet_exposures * exposure + rule.quiet_overhead,
    )
