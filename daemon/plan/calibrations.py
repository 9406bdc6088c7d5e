"""Which calibrations a job gets, whether it waits for one, and whether a better one has it made again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daemon.model.groups import Current, forced_in
from daemon.model.jobs import REMOVE_FIRST, JobSpec
from daemon.plan.case import Case, Matched
from pipeline import association
from pipeline.association import CalKind, Candidate, Found, Match, NotApplicable
from pipeline.headers.descriptors import Descriptors
from pipeline.levels import CARDS, HEALING

# The parameter by which a step goes on without a calibration.
_SWITCH = {CalKind.DARK: "darkCorrect:do_cal", CalKind.FLAT: "flatCorrect:do_cal"}


def given(case: Case, kind: CalKind, target: Descriptors) -> Candidate | None:
    """The best calibration that was not made of the sky; None without one."""
    others = [c for c in case.world.candidates(kind, target) if not association.of_sky(c)]
    match = association.best_match(
        association.RULES[kind], target, others, breakpoints=case.policy.breakpoints
    )
    return match.candidate if isinstance(match, Found) else None


def matched(case: Case, target: Descriptors, origin: str, overrides: Mapping[str, Any]) -> Matched:
    """The calibrations at hand for a job.

    target : of the frame that names it; origin : of its frames (`Case.origin`)
    overrides : what the operator has set; a calibration that is switched off there is not searched for
    """
    matches, nearest = {}, {}
    chosen: dict[CalKind, tuple[Candidate, ...]] = {}
    parameters: dict[str, Any] = {}
    blocked, notes, passing = [], [], False
    breakpoints = case.policy.breakpoints
    for kind in sorted(case.takes, key=lambda k: (k is not CalKind.FLAT, k)):
        if overrides.get(_SWITCH.get(kind, "")) == "skip":
            continue
        rule = association.RULES[kind]
        candidates = case.world.candidates(kind, target)
        match = association.best_match(
            rule, target, candidates, prefer_origin=origin, breakpoints=breakpoints
        )
        matches[kind] = match
        notes += _held_notes(case, kind, target, match)
        if kind is CalKind.ZERO_POINT:  # the job is given all of the night, and compares them
            chosen[kind] = tuple(association.of_the_night(rule, target, candidates, breakpoints))
        elif isinstance(match, Found):
            chosen[kind] = (match.candidate,)
        if isinstance(match, Found):
            # A lamp's flat is preferred to one of the sky, and the mask of the same flats to any other.
            own = kind is not CalKind.MADE_BPM or match.candidate.origin == origin
            own &= kind is not CalKind.ZERO_POINT
            if own and not association.of_sky(match.candidate):
                nearest[kind] = match.candidate.ut
            if kind is CalKind.FLAT:
                origin = match.candidate.origin
            continue
        wait, note = _without(case, kind, match)
        if wait:
            blocked.append(wait)
            passing = kind not in case.recipe.needs
        elif kind in _SWITCH:
            parameters[_SWITCH[kind]] = "skip"
        if note:
            notes.append(note)
    passing = passing and len(blocked) == 1
    return Matched(matches, nearest, chosen, tuple(blocked), passing, parameters, tuple(notes))


def _held_notes(case: Case, kind: CalKind, target: Descriptors, match: Match) -> list[str]:
    """What the product says when a calibration that it would have been given is held back."""
    if kind not in _SWITCH and kind is not CalKind.MADE_BPM:
        return []
    used = match.candidate if isinstance(match, Found) else None
    instead = f"{used.name} is used instead" if used else "there is no other"
    return [
        f"{kind} {held.name} is held back ({why}); {instead}"
        for held, why in case.world.held_back(kind, target)
        if used is None or _preferred(case, kind, target, used, held) is held
    ]


def _preferred(case: Case, kind: CalKind, target: Descriptors, one: Candidate, other: Candidate) -> Candidate:
    """Which of two calibrations that fit a frame it would be given."""
    match = association.best_match(
        association.RULES[kind], target, [one, other], breakpoints=case.policy.breakpoints
    )
    return match.candidate if isinstance(match, Found) else one


def _without(case: Case, kind: CalKind, match: Match) -> tuple[str, str]:
    """(why to wait, or "" to go on; note for the product) when no calibration of a kind is there."""
    if isinstance(match, NotApplicable):
        return "", f"{kind} not applied: {match.why}"
    if kind in case.recipe.needs:
        return match.why, ""
    preferred = kind in case.recipe.prefers and case.rule.role != "standard"
    if preferred and case.patience > 0:
        return match.why, ""
    # No note about a mask or a zero point: often there is only the other kind, or none.
    return "", f"{kind} not applied: {match.why}" if kind in _SWITCH else ""


def levels(found: Matched) -> dict[str, tuple[int, str]]:
    """Kind -> (level, comment) of the calibrations that a job was given, for the header of its product.

    Of zero points only what lies beyond a breakpoint: which of them is taken is decided with the pixels.
    """
    matches = {kind: match for kind, match in found.matches.items() if isinstance(match, Found)}
    return {
        kind.value: (match.level.number, match.level.comment)
        for kind, match in matches.items()
        if kind is not CalKind.ZERO_POINT or match.level.across is not None
    }


def remake_wanted(
    case: Case, current: Current, spec: JobSpec, found: Matched, target: Descriptors
) -> tuple[bool, tuple[str, ...]]:
    """(whether the product is to be made again, calibrations that would be chosen now and do not remake it).

    Frames that came or went always count; a calibration when it is of a better level, or would have been
    chosen and is near enough (so that the order of arrival does not matter), or when the one that was used
    has been withdrawn; a new release or override not by itself.
    """
    content = tuple((i.data_sha, i.facts) for i in spec.inputs)
    first = spec.parameters.get(REMOVE_FIRST)
    same = content == current.inputs and first == current.remove_first
    same = same and forced_in(spec.parameters) == current.forced_in
    if not same or case.group.remake != current.remake:
        return spec.key != current.key, ()  # the same key is the same product, whatever is known of it
    if current.rejected:
        return False, ()
    better = []
    for kind in case.takes:
        now, old = found.chosen.get(kind, ()), current.calibrations.get(kind.value, ())
        gone = set(old) - {c.ident for c in now}
        for new in now:
            if new.ident in old:
                continue
            if _is_better(case, current, kind, found) or _heals(case, new, found, target):
                return True, ()
            better.append(f"{kind} {new.name}")
        if any(case.world.withdrawn(ident) for ident in gone):
            return True, ()
    return False, tuple(better)


def _is_better(case: Case, current: Current, kind: CalKind, found: Matched) -> bool:
    """Whether what would be chosen now is of a better level than what the product has, or it has none.

    A static mask is never: one that is dropped in would remake all that was ever taken. Nor are zero points,
    which are compared with one another, and near in any case.
    """
    match = found.matches.get(kind)
    if not isinstance(match, Found) or kind in (CalKind.STATIC_BPM, CalKind.ZERO_POINT):
        return False
    old = current.calibrations.get(kind.value, ())
    if not old:  # the dark of a standard is not worth what follows: all that has its zero point
        return kind is not CalKind.DARK or case.rule.role != "standard"
    before = [match.ranks[ident] for ident in old if ident in match.ranks]
    if before:  # it is still there, and known better than by what the header said then
        return match.ranks[match.candidate.ident] < min(before)
    told = current.levels.get(CARDS[kind])
    return told is not None and kind in _SWITCH and match.level.number < told


def _heals(case: Case, new: Candidate, found: Matched, target: Descriptors) -> bool:
    """Whether a calibration that would be chosen now is near enough to have a product made again with it.

    Of level 0 and 1 all are: what has one of these is the same in any order of arrival. In the order in which
    things are taken that costs nothing, since what comes later of the same level is never chosen.
    """
    match, limit = found.matches.get(new.kind), case.policy.healing_days * 86400
    # a static mask may be dated years earlier: the time of its arrival counts
    if new.kind is CalKind.STATIC_BPM:
        return abs(new.added - case.group.last_arrival) <= limit
    if isinstance(match, Found) and match.level.number <= HEALING and new.kind is not CalKind.ZERO_POINT:
        return True
    taken = target.ut_datetime
    return taken is not None and abs((new.ut - taken).total_seconds()) <= limit
