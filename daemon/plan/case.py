"""One group that is quiet, and all that its decision depends on."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from daemon.model.groups import Decision, Group, Member, Setting, World
from daemon.model.jobs import digest
from daemon.model.rules import Policy, TriggerRule
from pipeline.association import CalKind, Match
from pipeline.primitive import Recipe


def gives(rule: TriggerRule, recipe: Recipe) -> CalKind | None:
    """The kind of calibration that groups of a rule make; the image of a standard has a zero point."""
    standard = rule.role == "standard" and CalKind.ZERO_POINT in recipe.takes
    return recipe.makes or (CalKind.ZERO_POINT if standard else None)


def takes(rule: TriggerRule, recipe: Recipe) -> frozenset[CalKind]:
    """The kinds of calibrations that groups of a rule use: a standard gives a zero point and takes none."""
    return recipe.takes - {CalKind.ZERO_POINT} if rule.role == "standard" else recipe.takes


@dataclass(frozen=True)
class Case:
    """A group with the rule that it belongs to. Of its members, what is lost is not usable.

    notes : what has been decided about the members so far, for the product
    """

    group: Group
    rule: TriggerRule
    setting: Setting
    world: World
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, group: Group, rule: TriggerRule, setting: Setting, world: World) -> Case:
        used = set(group.current.inputs) if group.current else set()
        members, notes = without_lost(group.members, setting, used)
        return cls(replace(group, members=members), rule, setting, world, notes)

    @property
    def recipe(self) -> Recipe:
        return self.setting.recipes[self.rule.recipe]

    @property
    def takes(self) -> frozenset[CalKind]:
        return takes(self.rule, self.recipe)

    @property
    def policy(self) -> Policy:
        return self.setting.policy

    @property
    def usable(self) -> tuple[Member, ...]:
        return tuple(m for m in self.group.members if m.usable)

    @property
    def used(self) -> set[tuple[str, str]]:
        """Contents that the current product was made of."""
        return set(self.group.current.inputs) if self.group.current else set()

    @property
    def patience(self) -> float:
        """Hours left of the time that something missing is waited for."""
        return 0.0 if self.setting.batch else self.policy.calibration_wait_hours - self.group.waited

    def primary(self, usable: Sequence[Member]) -> Member:
        """The frame that names the product: the first of the first ingredient (a flat's first lamp-on)."""
        first = self.rule.ingredients[0]
        return next((m for m in usable if first.takes(m.tags, m.descriptors)), usable[0])

    def origin(self, usable: Sequence[Member]) -> str:
        """Identity of the group's frames, the same for a flat and for the mask of the same flats."""
        return digest([self.group.key, usable[0].ident], 16)

    def say(self, action: Literal["plan", "wait", "idle"], reason: str, **more: Any) -> Decision:
        return Decision(self.group.id, action, reason, settled=True, **more)


@dataclass(frozen=True)
class Chosen:
    """The frames of a job. usable : those of the group itself, which name the product; inputs : all, in order

    parameters : what the choice of frames has decided; notes : of it, for the product
    """

    usable: tuple[Member, ...]
    inputs: tuple[Member, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matched:
    """The calibrations of a job.

    matches : what came of each search; nearest : when the best of each kind was taken
    chosen : those that are used, a kind may have several; blocked : why the job waits
    passing : it could go on without all that it waits for
    """

    matches: dict[CalKind, Match] = field(default_factory=dict)
    nearest: dict[CalKind, datetime] = field(default_factory=dict)
    chosen: dict[CalKind, tuple[Any, ...]] = field(default_factory=dict)
    blocked: tuple[str, ...] = ()
    passing: bool = False
    parameters: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def without_lost(
    members: Sequence[Member], setting: Setting, used: Set[tuple[str, str]]
) -> tuple[tuple[Member, ...], tuple[str, ...]]:
    """(the members, notes). A frame whose file seems gone for good is not used, with a note.

    used : what the current product was made of: that stays in use when an operator cleans the drop folder
    """
    grace = 0.0 if setting.batch else setting.grace_seconds
    kept, notes = [], []
    for m in members:
        if m.usable and not m.path and m.gone_for >= grace and (m.data_sha, m.facts) not in used:
            notes.append(f"{m.name} left out: its file is no longer on disk")
            m = replace(m, usable=False)
        kept.append(m)
    return tuple(kept), tuple(notes)
