"""What can be made of a group that is not quiet yet: first looks and a running stack. Pure, as the planner.

A first look is one frame, calibrated with the best masters at hand. A running stack is the very job that
would be planned were the group quiet now: with all its frames there it is the final product, key and
bytes. Where that job would wait for a calibration, the running stack uses what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from daemon.model.groups import Decision, Group, Member, Setting, World
from daemon.model.jobs import Input, JobSpec
from daemon.model.rules import Join, TriggerRule
from daemon.plan.planner import decide_now
from pipeline.association import CalKind, Candidate
from pipeline.headers.descriptors import Descriptors
from pipeline.primitive import Recipe
from pipeline.steps.quality import LATENCY_SECONDS

FIRST_LOOK = "firstLook"  # the recipe


@dataclass(frozen=True)
class Early:
    """first : of the frames that have none yet, the newest first; running : None while it cannot be made"""

    first: tuple[JobSpec, ...]
    running: JobSpec | None


def early(group: Group, setting: Setting, world: World, looked_at: Callable[[Member], bool]) -> Early | None:
    """Returns None for groups of calibrations: they get no previews."""
    rule = setting.rules[group.rule]
    if setting.recipes[rule.recipe].makes is not None:
        return None
    # A preview does not wait for a missing file.
    there = tuple(m if m.path else replace(m, usable=False) for m in group.members)
    group = replace(group, members=there)
    used = set(group.current.inputs) if group.current else set()
    new = [m for m in group.members if m.usable and m.path and (m.data_sha, m.facts) not in used]
    first = [_first_look(m, group, rule, setting, world) for m in reversed(new) if not looked_at(m)]
    return Early(tuple(spec for spec in first if spec is not None), _running(group, rule, setting, world))


def _running(group: Group, rule: TriggerRule, setting: Setting, world: World) -> JobSpec | None:
    decision = decide_now(group, rule, setting, world)
    if decision.action == "wait":
        decision = _with_what_is_there(group, rule, setting, world)
    return decision.spec if decision.action == "plan" else None


def _first_look(
    member: Member, group: Group, rule: TriggerRule, setting: Setting, world: World
) -> JobSpec | None:
    """Frames that may have left an afterimage in it are given to the recipe too, but are not in the
    product."""
    alone = replace(group, members=(member,), current=None)
    ingredients = tuple(replace(i, at_least=min(i.at_least, 1)) for i in rule.ingredients)
    rule = replace(rule, recipe=FIRST_LOOK, ingredients=ingredients, pointings=0)
    spec = _with_what_is_there(alone, rule, setting, world).spec
    if spec is None:
        return None
    before = tuple(
        Input(m.path, m.name, m.file_sha, m.data_sha, m.facts, m.ut.isoformat())
        for m in group.members
        if m.usable and m.path and 0.0 < (member.ut - m.ut).total_seconds() < LATENCY_SECONDS
    )
    return replace(spec, inputs=before + spec.inputs)


def _with_what_is_there(group: Group, rule: TriggerRule, setting: Setting, world: World) -> Decision:
    """No calibration is waited for."""
    recipe = setting.recipes[rule.recipe]
    patient = replace(recipe, needs=frozenset(), prefers=frozenset(), wants=recipe.takes)
    recipes: Mapping[str, Recipe] = {**setting.recipes, recipe.name: patient}
    return decide_now(group, rule, replace(setting, recipes=recipes), _AtHand(world, patient))


@dataclass(frozen=True)
class _AtHand:
    """The world without calibrations that are still to be made; a first look uses the overrides of the recipe
    `reduce`."""

    world: World
    recipe: Recipe

    def candidates(self, kind: CalKind, target: Descriptors) -> Sequence[Candidate]:
        return [c for c in self.world.candidates(kind, target) if not c.pending]

    def parameters(self, recipe: str, descriptors: Descriptors) -> Mapping[str, Any]:
        steps = {step.name for step in self.recipe.steps}
        # A preview goes on without missing calibrations, with a note.
        own = self.world.parameters(recipe, descriptors)
        own = {"prepare:mode": "ql", **own} if "prepare" in steps else own
        if recipe != FIRST_LOOK:
            return own
        of_reduce = self.world.parameters("reduce", descriptors)
        return {k: v for k, v in of_reduce.items() if k.rpartition(":")[0] in steps} | dict(own)

    def joined(self, join: Join, group: Group) -> Sequence[Group]:
        return self.world.joined(join, group)

    def needed(self, kind: CalKind, descriptors: Descriptors) -> bool:
        return self.world.needed(kind, descriptors)

    def neighbours(self, group: Group) -> Sequence[Member]:
        return self.world.neighbours(group)

    def forced_in(self, member: Member) -> bool:
        return self.world.forced_in(member)

    def withdrawn(self, ident: str) -> bool:
        return self.world.withdrawn(ident)

    def held_back(self, kind: CalKind, target: Descriptors) -> Sequence[tuple[Candidate, str]]:
        return self.world.held_back(kind, target)
