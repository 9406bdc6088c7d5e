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
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Protocol

from daemon.grouping import Member, angular_offsets, pointings
from daemon.jobspec import CalInput, Input, JobSpec, digest, job_key
from daemon.triggers import DEFAULT_POLICY, LAMP_TAGS, Ingredient, Join, Policy, TriggerRule
from pipeline import association
from pipeline.association import CalKind, Candidate, Found, Match, NotApplicable
from pipeline.descriptors import Descriptors
from pipeline.primitive import Recipe
from pipeline.steps.photometry import gives_zero_point

LANDING_SECONDS = 1.0  # what comes late comes together: a group whose programme has moved on waits this long


@dataclass(frozen=True)
class Current:
    """How the current product of a group was made."""

    key: str
    inputs: tuple[tuple[str, str], ...]  # (data_sha, facts), in order
    calibrations: Mapping[str, tuple[str, ...]]  # role -> idents
    remove_first: Any = None
    forced_in: Mapping[str, Any] = field(default_factory=dict)  # parameter -> frames that a person accepted
    remake: int = 0
    rejected: str = ""  # by whom and why: then only other frames, or a person, bring a new one


@dataclass(frozen=True)
class Group:
    """A group to look at.

    members : in order of time, the unusable ones included
    quiet_for : monotonic seconds since the last arrival; infinity when that does not matter any more
    settled : it has been quiet since the last arrival
    waited : running hours that it has waited for frames or a calibration
    programme_until : the latest exposure of the programme that the daemon knows of
    last_arrival : seconds since the epoch
    """

    id: int
    rule: str
    key: str
    members: tuple[Member, ...]
    quiet_for: float = float("inf")
    settled: bool = False
    waited: float = 0.0
    programme_until: datetime | None = None
    last_arrival: float = 0.0
    remake: int = 0
    current: Current | None = None


class World(Protocol):
    """What the planner may ask."""

    def candidates(self, kind: CalKind, target: Descriptors) -> Sequence[Candidate]:
        """Stored calibrations, and those that a planned or running job will make."""

    def joined(self, join: Join, group: Group) -> Sequence[Group]:
        """Settled groups of the other rule that agree, within the time."""

    def needed(self, kind: CalKind, descriptors: Descriptors) -> bool:
        """True when a group of OBJECT frames could use such a calibration."""

    def neighbours(self, group: Group) -> Sequence[Member]:
        """Frames of other groups of the same programme and configuration, near in time."""

    def parameters(self, recipe: str, descriptors: Descriptors) -> Mapping[str, Any]:
        """The operator's overrides."""

    def forced_in(self, member: Member) -> bool:
        """True when a person wants a frame used that the pipeline may leave out."""

    def withdrawn(self, ident: str) -> bool:
        """True when a calibration was taken out by a person, and not replaced by a newer one."""


@dataclass(frozen=True)
class Decision:
    """What is to be done about a group, and why.

    action : "plan" the job of `spec`; "wait" for a calibration; "idle": nothing now; "later": look again
        after `due` seconds
    short : it waits for frames, or for a calibration that it may in the end go without
    lost : it waits for frames whose files are gone, and goes on without them after `due` seconds
    producers : idents (job keys) of the jobs that it waits for
    better : calibrations that would be better, but are not near enough to remake the product for
    makes : the calibration that the job will make
    matches : what association answered, for `explain`
    nearest : when those chosen calibrations were taken to which only a nearer one can be preferred
    """

    group: int
    action: Literal["plan", "wait", "idle", "later"]
    reason: str
    spec: JobSpec | None = None
    latest: datetime | None = None
    settled: bool = False
    short: bool = False
    lost: bool = False
    due: float | None = None
    producers: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    makes: Candidate | None = None
    remake: int = 0
    members: tuple[int, ...] = ()  # frame ids of the inputs, in order
    matches: Mapping[CalKind, Match] = field(default_factory=dict)
    nearest: Mapping[CalKind, datetime] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What is the same for every group of one call."""

    rules: Mapping[str, TriggerRule]  # by title
    recipes: Mapping[str, Recipe]
    policy: Policy = DEFAULT_POLICY
    preset: str = "nirid"
    products: str = ""
    hurry: bool = False  # --until-idle: quiet times and waits count as elapsed
    grace_seconds: float = 900.0  # that a file which is gone is waited for


def plan(groups: Sequence[Group], setting: Setting, world: World) -> list[Decision]:
    """One decision for each group. Groups that make calibrations are to be planned before their users."""
    return [_decide(group, setting, world) for group in groups]


def rank(rule: TriggerRule, recipes: Mapping[str, Recipe]) -> int:
    """Producers before consumers: the order in which groups are planned."""
    order = (CalKind.DARK, CalKind.MADE_BPM, CalKind.FLAT, CalKind.ZERO_POINT)
    makes = gives(rule, recipes[rule.recipe])
    return order.index(makes) if makes in order else len(order)


def gives(rule: TriggerRule, recipe: Recipe) -> CalKind | None:
    """The kind of calibration that groups of a rule make; the image of a standard has a zero point."""
    standard = rule.role == "standard" and CalKind.ZERO_POINT in recipe.takes
    return recipe.makes or (CalKind.ZERO_POINT if standard else None)


def takes(rule: TriggerRule, recipe: Recipe) -> frozenset[CalKind]:
    """The kinds of calibrations that groups of a rule use: a standard gives a zero point and takes none."""
    return recipe.takes - {CalKind.ZERO_POINT} if rule.role == "standard" else recipe.takes


def _decide(group: Group, setting: Setting, world: World) -> Decision:
    rule = setting.rules[group.rule]
    settled = group.settled or setting.hurry
    if not settled:
        remaining = quiet_needed(rule, group.members) - group.quiet_for
        moved_on = (
            group.programme_until is not None
            and (group.programme_until - group.members[-1].ut).total_seconds() > 600.0
        )
        if moved_on:
            remaining = min(remaining, LANDING_SECONDS - group.quiet_for)
        if remaining > 0:
            return Decision(group.id, "later", f"quiet in {remaining:.0f} s", due=remaining)
    return decide_now(group, rule, setting, world)


def decide_now(group: Group, rule: TriggerRule, setting: Setting, world: World) -> Decision:
    """What would be done about a group if it were quiet."""
    return _Planner(group, rule, setting, world).decision()


def makes_of(group: Group, setting: Setting, world: World, spec: JobSpec) -> Candidate | None:
    """The calibration that a job of this group's frames makes."""
    return _Planner(group, setting.rules[group.rule], setting, world).makes(spec)


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


def forced_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a job's parameters those that tell steps which frames a person wants used."""
    return {name: value for name, value in parameters.items() if name.endswith(":accept")}


class _Planner:
    """One group that is quiet, on its way to a decision."""

    def __init__(self, group: Group, rule: TriggerRule, setting: Setting, world: World) -> None:
        self.rule, self.setting, self.world = rule, setting, world
        self.notes: list[str] = []
        # What the current product was made of stays, when an operator tidies the drop folder.
        self.used = set(group.current.inputs) if group.current else set()
        self.group = replace(group, members=self.without_lost(group.members))
        self.recipe = setting.recipes[rule.recipe]
        self.takes = takes(rule, self.recipe)
        self.policy = setting.policy
        self.usable = [m for m in self.group.members if m.usable]
        self.parameters: dict[str, Any] = {}
        self.matches: dict[CalKind, Match] = {}
        self.nearest: dict[CalKind, datetime] = {}

    def say(self, action: Literal["plan", "wait", "idle"], reason: str, **more: Any) -> Decision:
        matches, nearest = self.matches, self.nearest
        return Decision(self.group.id, action, reason, settled=True, matches=matches, nearest=nearest, **more)

    def without_lost(self, members: Sequence[Member]) -> tuple[Member, ...]:
        """The members. What is gone for good, as far as anybody can tell, is not used, and that is noted."""
        grace = 0.0 if self.setting.hurry else self.setting.grace_seconds
        kept = []
        for m in members:
            if m.usable and not m.path and m.gone_for >= grace and (m.data_sha, m.facts) not in self.used:
                self.notes.append(f"{m.name} left out: its file is no longer on disk")
                m = replace(m, usable=False)
            kept.append(m)
        return tuple(kept)

    @property
    def patience(self) -> float:
        """Hours left of the time that something missing is waited for."""
        return 0.0 if self.setting.hurry else self.policy.calibration_wait_hours - self.group.waited

    def decision(self) -> Decision:
        if lacking := self.lacking():
            due = self.patience * 3600 if self.patience > 0 else None
            return self.say("idle", lacking, short=due is not None, due=due)
        first = self.primary()
        target = first.descriptors
        makes = self.recipe.makes
        below = self.rule.only_if_needed_below
        if makes and (target.exposure_time or 0.0) <= below and not self.world.needed(makes, target):
            return self.say("idle", f"no OBJECT frame of {target.exposure_time:g} s needs a {makes}")
        if self.rule.thermal and makes and (given := self.given(makes, target)):
            if given.pending:
                return self.say("wait", f"{makes} {given.name} is being made", producers=(given.ident,))
            return self.say("idle", f"{makes} {given.name} serves, none is made of the sky")
        inputs = list(self.usable)
        if self.rule.join:
            darks = self.joined_darks(self.rule.join)
            if not darks:
                days = self.rule.join.within_days
                return self.say("idle", f"no complete group of short darks within {days:g} days")
            inputs += darks
        if any(step.name == "removeFirstFrame" for step in self.recipe.steps):
            inputs = self.object_inputs(inputs)
        inputs.sort(key=lambda m: m.order)
        overrides = dict(self.world.parameters(self.recipe.name, target))
        return self.with_calibrations(inputs, overrides)

    # -- frames -------------------------------------------------------------------------------

    def count(self, ingredient: Ingredient) -> int:
        return sum(ingredient.takes(m.tags, m.descriptors) for m in self.usable)

    def lacking(self) -> str:
        """Why there are too few frames; "" when there are enough, or as many as there will be."""
        wanted = [(i, self.count(i)) for i in self.rule.ingredients]
        few = [(i, n) for i, n in wanted if n < i.at_least]
        if not few:
            seen = pointings([m.descriptors for m in self.usable], self.policy.same_pointing_arcsec)
            want = self.rule.pointings
            return "" if seen >= want else f"incomplete: {seen} of {want} different pointings"
        several = len(wanted) > 1
        counts = ", ".join(f"{_label(i) + ' ' if several else ''}{n} of {i.at_least}" for i, n in wanted)
        if (self.patience <= 0 or self.spoilt()) and self.usable and all(n >= i.least for i, n in wanted):
            self.notes.append(f"warning: fewer frames than wanted: {counts}")
            return ""
        return f"incomplete: {counts}"

    def spoilt(self) -> bool:
        """True when the current product was made with a frame that is out by now: waiting only keeps it."""
        return any(not m.usable and (m.data_sha, m.facts) in self.used for m in self.group.members)

    def primary(self) -> Member:
        """The frame that names the product: the first of the first ingredient (a flat's first lamp-on)."""
        first = self.rule.ingredients[0]
        return next((m for m in self.usable if first.takes(m.tags, m.descriptors)), self.usable[0])

    def joined_darks(self, join: Join) -> list[Member]:
        """The usable frames of the nearest complete group of short darks."""
        start = self.usable[0].ut
        complete = []
        for other in self.world.joined(join, self.group):
            frames = [m for m in self.without_lost(other.members) if m.usable]
            if len(frames) >= join.at_least:
                complete.append(frames)
        if not complete:
            return []

        def order(frames: list[Member]) -> tuple[float, float, tuple[str, str]]:
            ut = frames[0].ut
            return (abs((ut - start).total_seconds()), -ut.timestamp(), frames[0].ident)

        return min(complete, key=order)

    def object_inputs(self, inputs: list[Member]) -> list[Member]:
        """Decide on the first exposure of the sequence, and borrow sky for a group that has none."""
        policy, first, count = self.policy, self.first_exposure(), len(inputs)
        remove = first.usable and count - 1 >= policy.keep_frames
        if first.usable and not remove:
            self.notes.append(f"first frame {first.name} kept: only {count - 1} would remain")
        borrowed = self.borrowed_sky()
        if borrowed and remove:  # the step would take the earliest of the list, which may be borrowed
            inputs, remove = [m for m in inputs if m is not first], False
            self.usable = inputs
            self.notes.append(f"first frame {first.name} left out")
        if borrowed:
            names = ",".join(m.name for m in borrowed)
            self.parameters["separateSky:ref_sky"] = names
            self.notes.append(f"sky borrowed from {names}")
        self.parameters["removeFirstFrame:remove_first"] = remove
        return inputs + borrowed

    def first_exposure(self) -> Member:
        """The first of the whole group, lost or not; whole, if it came both damaged and whole."""
        first = self.group.members[0]
        same = (m for m in self.usable if (m.ut, m.label) == (first.ut, first.label))
        return next(same, first)

    def borrowed_sky(self) -> list[Member]:
        policy, base = self.policy, self.usable[0].descriptors
        if self.rule.role != "science" or base.shape is None or not base.pixel_scale:
            return []
        own = [angular_offsets(m.descriptors, base) for m in self.usable]
        if any(o is None or max(map(abs, o)) > policy.same_pointing_arcsec for o in own):
            return []
        field_arcsec = min(base.shape) * base.pixel_scale
        start, end = self.usable[0].ut, self.usable[-1].ut
        sky = []
        for m in self.without_lost(self.world.neighbours(self.group)):
            away = angular_offsets(m.descriptors, base)
            late = max((start - m.ut).total_seconds(), (m.ut - end).total_seconds())
            far = away is not None and max(map(abs, away)) > policy.sky_field_fraction * field_arcsec
            if m.usable and far and late <= policy.borrow_sky_seconds:
                sky.append(m)
        return sorted(sky, key=lambda m: m.order)

    # -- calibrations -------------------------------------------------------------------------

    def given(self, kind: CalKind, target: Descriptors) -> Candidate | None:
        """A calibration that was not made of the sky, if one serves."""
        others = [c for c in self.world.candidates(kind, target) if not association.of_sky(c)]
        match = association.best_match(association.RULES[kind], target, others)
        return match.candidate if isinstance(match, Found) else None

    def with_calibrations(self, inputs: list[Member], overrides: dict[str, Any]) -> Decision:
        target = self.primary().descriptors
        blocked: list[str] = []  # why it waits
        passing = False  # all that it waits for is only preferred
        chosen: dict[CalKind, tuple[Candidate, ...]] = {}
        origin = self.origin()
        for kind in sorted(self.takes, key=lambda k: (k is not CalKind.FLAT, k)):
            if overrides.get(_SWITCH.get(kind, "")) == "skip":
                continue
            rule = association.RULES[kind]
            candidates = self.world.candidates(kind, target)
            match = association.best_match(rule, target, candidates, prefer_origin=origin)
            self.matches[kind] = match
            if kind is CalKind.ZERO_POINT:  # the job is given all of the night, and compares them
                chosen[kind] = tuple(association.of_the_night(rule, target, candidates))
            elif isinstance(match, Found):
                chosen[kind] = (match.candidate,)
            if isinstance(match, Found):
                # A lamp's flat is preferred to one of the sky, and the mask of the same flats to any other.
                own = kind is not CalKind.MADE_BPM or match.candidate.origin == origin
                own &= kind is not CalKind.ZERO_POINT
                if own and not association.of_sky(match.candidate):
                    self.nearest[kind] = match.candidate.ut
                if kind is CalKind.FLAT:
                    origin = match.candidate.origin
                continue
            wait, note = self.without(kind, match)
            if wait:
                blocked.append(wait)
                passing = kind not in self.recipe.needs
            elif kind in _SWITCH:
                self.parameters[_SWITCH[kind]] = "skip"
            if note:
                self.notes.append(note)
        if len(blocked) > 1:
            passing = False
        self.parameters |= self.decided_for(inputs) | overrides
        found = [c for several in chosen.values() for c in several]
        spec = self.spec(inputs, [c for c in found if not c.pending])
        pending = [c for c in found if c.pending]
        return self.judge(spec, chosen, pending, blocked, passing, inputs)

    def decided_for(self, inputs: Sequence[Member]) -> dict[str, Any]:
        """Parameters that neither the preset nor the operator decides.

        The scaling of the sky follows from where the sky was taken, with either preset. A frame that a person
        has accepted is used whatever the steps think of it that judge frames.
        """
        wanted: dict[str, Any] = {}
        if self.setting.preset == "dragons":
            wanted["skyCorrect:scale_sky"] = None
        if names := [m.name for m in inputs if self.world.forced_in(m)]:
            wanted |= {f"{step.name}:accept": names for step in self.recipe.steps}
        return {name: value for name, value in wanted.items() if self.recipe.has(name)}

    def without(self, kind: CalKind, match: Match) -> tuple[str, str]:
        """(why to wait, or "" to go on; note for the product) when no calibration of a kind is there."""
        if isinstance(match, NotApplicable):
            return "", f"{kind} not applied: {match.why}"
        if kind in self.recipe.needs:
            return match.why, ""
        preferred = kind in self.recipe.prefers and self.rule.role != "standard"
        if preferred and self.patience > 0:
            return match.why, ""
        # Of a mask or a zero point nothing needs to be said: the other kind, or none, is the normal case.
        return "", f"{kind} not applied: {match.why}" if kind in _SWITCH else ""

    def judge(
        self,
        spec: JobSpec,
        chosen: Mapping[CalKind, Sequence[Candidate]],
        pending: list[Candidate],
        blocked: list[str],
        passing: bool,
        inputs: list[Member],
    ) -> Decision:
        current = self.group.current
        better: tuple[str, ...] = ()
        if current is not None:
            wanted, better = self.remake_wanted(current, spec, chosen)
            if not wanted:
                return self.say("idle", current.rejected or "product is current", better=better)
        if lost := [m for m in inputs if not m.path]:
            return self.waits_for_files(lost)
        if pending or blocked:
            making = [f"{c.kind} {c.name} is being made" for c in pending]
            due = self.patience * 3600 if passing and not pending else None
            return self.say(
                "wait",
                "; ".join(blocked + making),
                short=passing,
                due=due,
                producers=tuple(c.ident for c in pending),
                makes=self.makes(spec) if not blocked else None,
            )
        latest = max(m.ut for m in inputs)
        return self.say(
            "plan",
            "complete",
            spec=spec,
            latest=latest,
            makes=self.makes(spec),
            remake=self.group.remake,
            members=tuple(m.frame_id for m in inputs),
        )

    def waits_for_files(self, lost: Sequence[Member]) -> Decision:
        """Until the grace of the last of them is over; for ever for what the current product was made of."""
        names = " ".join(m.name for m in lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        what = f"{names} {'is' if len(lost) == 1 else 'are'} no longer on disk"
        release = f"nirid reject {lost[0].name} --reason gone"
        if any((m.data_sha, m.facts) in self.used for m in lost):
            return self.say("wait", f"{what}, and the product has it: put it back, or {release}")
        due = max(0.0, *(self.setting.grace_seconds - m.gone_for for m in lost))
        grace = (
            f"{self.setting.grace_seconds / 60:.3g} min"  # and not what is left of it, which is soon untrue
        )
        why = f"{what}: goes on without {grace} after that was seen, at once by {release}"
        return self.say("wait", why, lost=True, due=due)

    def remake_wanted(
        self, current: Current, spec: JobSpec, chosen: Mapping[CalKind, Sequence[Candidate]]
    ) -> tuple[bool, tuple[str, ...]]:
        """(whether the product is to be made again, calibrations that are better but too far in time).

        Frames that came or went always count, a calibration only near in time (or when the one that was
        used has been withdrawn), a new release or override not by itself.
        """
        content = tuple((i.data_sha, i.facts) for i in spec.inputs)
        first = spec.parameters.get("removeFirstFrame:remove_first")
        same = content == current.inputs and first == current.remove_first
        same = same and forced_in(spec.parameters) == current.forced_in
        if not same or self.group.remake != current.remake:
            return spec.key != current.key, ()  # the same key is the same product, whatever is known of it
        if current.rejected:
            return False, ()
        better = []
        for kind in self.takes:
            now, old = chosen.get(kind, ()), current.calibrations.get(kind.value, ())
            gone = set(old) - {c.ident for c in now}
            for new in now:
                if new.ident in old:
                    continue
                if self.heals(new):
                    return True, ()
                better.append(f"{kind} {new.name}")
            if any(self.world.withdrawn(ident) for ident in gone):
                return True, ()
        return False, tuple(better)

    def heals(self, new: Candidate) -> bool:
        limit = self.policy.healing_days * 86400
        if new.kind is CalKind.STATIC_BPM:  # dated years before what it serves: what counts is when it came
            return abs(new.added - self.group.last_arrival) <= limit
        target = self.primary().descriptors.ut_datetime
        return target is not None and abs((new.ut - target).total_seconds()) <= limit

    # -- the job ------------------------------------------------------------------------------

    def origin(self) -> str:
        """Identity of the group's frames, the same for a flat and for the mask of the same flats."""
        return digest([self.group.key, self.usable[0].ident], 16)

    def spec(self, inputs: list[Member], calibrations: list[Candidate]) -> JobSpec:
        recipe = self.recipe
        named = self.primary()
        if self.parameters.get("removeFirstFrame:remove_first"):
            named = self.usable[1]
        frames = tuple(
            Input(m.path, m.name, m.file_sha, m.data_sha, m.facts, m.ut.isoformat()) for m in inputs
        )
        cals = tuple(CalInput(c.kind.value, c.path, c.name, c.sha256, c.ident) for c in calibrations)
        key = job_key(
            recipe.name,
            recipe.version,
            frames,
            cals,
            self.parameters,
            self.setting.preset,
            self.group.remake,
        )
        return JobSpec(
            key=key,
            recipe=recipe.name,
            recipe_version=recipe.version,
            group=digest([self.rule.title, self.group.key, self.usable[0].ident], 16),
            inputs=frames,
            calibrations=cals,
            parameters=dict(self.parameters),
            preset=self.setting.preset,
            notes=tuple(self.notes),
            name=f"{named.stem}{recipe.suffix}",
            night=named.night,
            time_stamp=max(m.descriptors.ut_end or m.ut for m in inputs).isoformat(),
            products=self.setting.products,
        )

    def makes(self, spec: JobSpec) -> Candidate | None:
        kind, facts = gives(self.rule, self.recipe), self.primary().descriptors
        if kind is None or (kind is CalKind.ZERO_POINT and not gives_zero_point(facts)):
            return None
        rule = association.RULES[kind]
        names = (*rule.match, *rule.tolerance, "gcal_lamp")
        # What a closed lamp says in the header of a frame of the sky says nothing of its flat.
        sky = association.SKY_FACTS if kind is CalKind.FLAT and self.rule.role else {}
        return Candidate(
            kind=kind,
            name=spec.name,
            ident=spec.key,
            facts={**{name: getattr(facts, name) for name in names}, **sky},
            ut=self.usable[0].ut,
            origin=self.origin(),
            pending=True,
        )


# The parameter by which a step goes on without a calibration.
_SWITCH = {CalKind.DARK: "darkCorrect:do_cal", CalKind.FLAT: "flatCorrect:do_cal"}


def _label(ingredient: Ingredient) -> str:
    return "+".join(sorted(ingredient.tags - LAMP_TAGS)) or "frames"
