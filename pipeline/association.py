"""Which calibration belongs to which frame: rules as data, and one pure function that applies them.

    found = best_match(RULES[CalKind.DARK], target, candidates)

Criteria and windows are those of Gemini's calibration manager for NIRI (GeminiCalMgr
`cal/calibration_niri.py`), with the bad-pixel masks split into those dropped in and those made here. How
good one is that meets them is a level, 0 to 3, beside the criteria (`pipeline.levels` has the words).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pipeline import niri
from pipeline.headers.times import SAME_EXPOSURE_SECONDS
from pipeline.levels import NEVER, OWN, Breakpoint, Level, level_at, span

if TYPE_CHECKING:
    from pipeline.headers.descriptors import Descriptors


class CalKind(StrEnum):
    """The kinds of processed calibrations."""

    DARK = "processed_dark"
    FLAT = "processed_flat"
    STATIC_BPM = "static_bpm"  # dropped in by a person
    MADE_BPM = "processed_bpm"  # made here from flats and short darks
    ZERO_POINT = "zero_point"  # in the header of a standard star's image


@dataclass(frozen=True)
class AssociationRule:
    """What must agree between a frame and a calibration of this kind.

    match : descriptors that must be equal; an unknown value equals nothing
    tolerance : descriptor -> largest difference, itself excluded
    within : farthest in time, before or after; None is any distance
    earlier_only : the calibration must not be later than the frame
    covers : its image must be at least as large as the frame (it is cut to size)
    lamp_on : a calibration whose lamp was off is none
    not_for : filters for which none is made; one that matches is used all the same
    levels : farthest in time, before or after, of levels 0, 1 and 2; what is farther is of level 3. NEVER:
        none is of this level by its time. What was made of the same frames is of level 0
    """

    kind: CalKind
    match: tuple[str, ...] = ()
    tolerance: Mapping[str, float] = field(default_factory=dict)
    within: timedelta | None = None
    earlier_only: bool = False
    covers: bool = False
    lamp_on: bool = False
    not_for: frozenset[str] = frozenset()
    levels: tuple[timedelta, timedelta, timedelta] = (NEVER, NEVER, NEVER)


# The days of the levels are ours, not Gemini's: a night and its day calibrations, a week, a month or two.
RULES: Mapping[CalKind, AssociationRule] = {
    CalKind.DARK: AssociationRule(
        CalKind.DARK,
        match=("data_section", "read_mode", "well_depth", "coadds"),
        tolerance={"exposure_time": SAME_EXPOSURE_SECONDS},
        within=timedelta(days=180),
        levels=(timedelta(hours=18), timedelta(days=7), timedelta(days=30)),
    ),
    CalKind.FLAT: AssociationRule(
        CalKind.FLAT,  # read mode and exposure need not agree
        match=("data_section", "well_depth", "filter_name", "camera", "focal_plane_mask", "disperser"),
        within=timedelta(days=180),
        lamp_on=True,
        not_for=niri.THERMAL_FILTERS,
        levels=(timedelta(hours=18), timedelta(days=7), timedelta(days=60)),
    ),
    CalKind.STATIC_BPM: AssociationRule(
        CalKind.STATIC_BPM, earlier_only=True, covers=True, levels=(NEVER, NEVER, timedelta.max)
    ),
    CalKind.MADE_BPM: AssociationRule(
        CalKind.MADE_BPM,
        match=("data_section", "well_depth"),
        within=timedelta(days=10),
        levels=(NEVER, timedelta(days=10), timedelta(days=10)),  # level 0 is the mask of the own flats
    ),
    # Gemini's photometric standards: the same night, which at Mauna Kea is shorter than 12 hours.
    CalKind.ZERO_POINT: AssociationRule(
        CalKind.ZERO_POINT,
        match=("camera", "filter_name"),
        within=timedelta(days=1),
        levels=(timedelta(hours=3), timedelta(hours=12), timedelta(days=1)),
    ),
}


@dataclass(frozen=True)
class CalibrationKey:
    """A kind and the descriptor values that must be equal: the indexed column of the calibration store.

    Tolerances are not in it: rounding would split neighbours.
    """

    kind: CalKind
    values: tuple[Any, ...]

    def __str__(self) -> str:
        """Stable text, the same in every release."""
        return f"{self.kind}:{json.dumps(self.values, separators=(',', ':'))}"

    @classmethod
    def of(cls, kind: CalKind, facts: Descriptors | Mapping[str, Any]) -> CalibrationKey:
        return cls(kind, tuple(_value(facts, name) for name in RULES[kind].match))


@dataclass(frozen=True)
class Candidate:
    """A calibration that exists, or that is being made.

    ident : what a job key holds of it: the key of the job that made it, or its hash if it came from outside
    facts : the descriptors that rules compare
    ut : time of its first raw frame, or of itself if it came from outside
    origin : identity of the group of raw frames it was made of; "" if from outside
    made : order of registration, larger is newer
    pending : its job has not finished; there is no file yet
    added : seconds since the epoch when it was registered
    """

    kind: CalKind
    name: str
    ident: str
    facts: Mapping[str, Any]
    ut: datetime
    path: str = ""
    sha256: str = ""
    origin: str = ""
    made: int = 0
    pending: bool = False
    added: float = 0.0


@dataclass(frozen=True)
class Rejected:
    """A candidate that was not chosen, and every criterion that it failed; its level, if it failed none."""

    candidate: Candidate
    failed: tuple[str, ...]
    level: Level | None = None


@dataclass(frozen=True)
class Found:
    """good : all that meet the criteria, each with its level, the best first; unfit : those that do not"""

    candidate: Candidate
    level: Level
    good: tuple[tuple[Candidate, Level], ...]
    unfit: tuple[Rejected, ...] = ()
    why = property(lambda self: str(self.level))

    @property
    def ranks(self) -> dict[str, tuple[bool, int]]:
        """Ident -> (made of the sky, number of the level) of those that meet the criteria."""
        return {c.ident: (of_sky(c), level.number) for c, level in self.good}

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        beaten = f"{self.candidate.name} is preferred: {self.level.brief}"
        return (*self.unfit, *(Rejected(c, (f"{lv.brief}; {beaten}",), lv) for c, lv in self.good[1:]))


@dataclass(frozen=True)
class Missing:
    """None of the candidates meets the criteria; one may still arrive."""

    why: str
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class NotApplicable:
    """The frame needs no calibration of this kind."""

    why: str
    rejected: tuple[Rejected, ...] = ()


Match = Found | Missing | NotApplicable


def best_match(
    rule: AssociationRule,
    target: Descriptors,
    candidates: Iterable[Candidate],
    *,
    prefer_origin: str = "",
    breakpoints: Sequence[Breakpoint] = (),
) -> Match:
    """The best candidate for `target` of those that meet every criterion of `rule`.

    prefer_origin : a candidate made of this group of raw frames comes before any other of its level
    The better level comes first; in a level what was taken before the frame, then what is nearest in time. So
    one that is taken later, and of no better level, never takes the place of one that is in use.
    A flat of a lamp, or from outside, comes before any made here of science frames; of equally near ones what
    was made here before a copy from outside, then the newer product: the order of reduction does not count.
    """
    good: list[tuple[Candidate, Level]] = []
    rejected: list[Rejected] = []
    when = target.ut_datetime
    for candidate in candidates:
        if (failed := tuple(_failures(rule, target, candidate))) or when is None:
            rejected.append(Rejected(candidate, failed))
        else:
            good.append((candidate, level_of(rule, when, candidate, prefer_origin, breakpoints)))
    if good and when is not None:

        def order(one: tuple[Candidate, Level]) -> tuple[Any, ...]:
            c, level = one
            # Flats of two lamps may begin with the same frame: the order of making must not decide.
            return (
                of_sky(c),
                level.number,
                not level.own,
                c.ut > when,
                abs(level.apart),
                not c.origin,
                c.origin,
                not c.pending,
                -c.made,
                c.name,
                c.ident,
            )

        good.sort(key=order)
        best, level = good[0]
        return Found(best, level, tuple(good), tuple(rejected))
    if niri.is_thermal(target.filter_name) and rule.not_for:
        return NotApplicable(f"no {rule.kind} is made for {target.filter_name}", tuple(rejected))
    return Missing(f"no {rule.kind} for {_wanted(rule, target)}", tuple(rejected))


def level_of(
    rule: AssociationRule,
    when: datetime,
    candidate: Candidate,
    prefer_origin: str = "",
    breakpoints: Sequence[Breakpoint] = (),
) -> Level:
    """How good a calibration that meets the criteria is for a frame that was taken `when`."""
    level = level_at(rule.kind, rule.levels, candidate.ut, when, breakpoints)
    own = bool(prefer_origin) and candidate.origin == prefer_origin
    return Level(OWN, level.apart, own=True) if own and level.across is None else level


def of_the_night(
    rule: AssociationRule,
    target: Descriptors,
    candidates: Iterable[Candidate],
    breakpoints: Sequence[Breakpoint] = (),
) -> list[Candidate]:
    """All candidates that meet the criteria, of the UT date of `target`, else of the date nearest to it.

    A night of Mauna Kea lies within one UT date. Of several made of the same frames, the one being made
    counts, else the newest. In order of time, whatever the order in which they came. Those beyond a
    breakpoint are given only where there are no others.
    """
    if (when := target.ut_datetime) is None:
        return []
    latest: dict[str, Candidate] = {}
    for candidate in candidates:
        if not any(_failures(rule, target, candidate)):
            key = candidate.origin or candidate.ident
            old = latest.get(key)
            if old is None or (candidate.pending, candidate.made) > (old.pending, old.made):
                latest[key] = candidate
    good = sorted(latest.values(), key=lambda c: (c.ut, c.name, c.ident))
    good = [c for c in good if not any(b.lies_between(rule.kind, c.ut, when) for b in breakpoints)] or good
    same = [c for c in good if c.ut.date() == when.date()]
    if same or not good:
        return same
    date = min(good, key=lambda c: (abs(c.ut - when), c.ut)).ut.date()
    return [c for c in good if c.ut.date() == date]


# What the store keeps of a flat that was made here of science frames, besides the descriptors.
SKY_FACTS: Mapping[str, Any] = {"gcal_lamp": "QH", "sky": True}


def of_sky(candidate: Candidate) -> bool:
    """True for a flat that was made here of science frames, for want of another."""
    return bool(candidate.facts.get("sky"))


def _failures(rule: AssociationRule, target: Descriptors, candidate: Candidate) -> Iterable[str]:
    facts = candidate.facts
    if candidate.kind != rule.kind:
        yield f"kind {candidate.kind}, wanted {rule.kind}"
        return
    for name in rule.match:
        has, wants = facts.get(name), getattr(target, name)
        if _unknown(wants):
            yield f"{name} of the frame is unknown"
        elif has != wants:
            yield f"{name} {has}, wanted {wants}"
    for name, limit in rule.tolerance.items():
        has, wants = facts.get(name), getattr(target, name)
        if has is None or wants is None or not abs(has - wants) < limit:
            yield f"{name} {has}, wanted {wants} within {limit:g}"
    if rule.lamp_on and facts.get("gcal_lamp") == "Off":
        yield "its lamp was off"
    shape = facts.get("shape")
    if rule.covers and shape and target.shape and (shape[0] < target.shape[0] or shape[1] < target.shape[1]):
        yield f"its image of {shape[1]}x{shape[0]} does not cover {target.shape[1]}x{target.shape[0]}"
    if target.ut_datetime is None:
        yield "the time of the frame is unknown"
    elif rule.earlier_only and candidate.ut > target.ut_datetime:
        yield f"valid only from {candidate.ut:%Y-%m-%d %H:%M:%S}"
    elif rule.within and not abs(candidate.ut - target.ut_datetime) < rule.within:
        days = f"{rule.within.days} day{'s' if rule.within.days != 1 else ''}"
        yield f"{span(candidate.ut - target.ut_datetime)} from the frame, at most {days}"


def _value(facts: Descriptors | Mapping[str, Any], name: str) -> Any:
    value = facts.get(name) if isinstance(facts, Mapping) else getattr(facts, name)
    return list(value) if isinstance(value, tuple) else value


def _unknown(value: Any) -> bool:
    """Gemini's store keeps an unknown setting as null, which equals nothing."""
    return value is None or value == "Unknown"


def _wanted(rule: AssociationRule, target: Descriptors) -> str:
    names = (*rule.match, *rule.tolerance)
    return ", ".join(f"{name} {getattr(target, name)}" for name in names) or "this date and array"
