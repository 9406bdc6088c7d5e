"""Which calibrations a group was given, or would be now, and for each that was not why.

calibrations(world, group, target)         # what would be chosen now
calibrations(world, group, target, job)    # what a job was given
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from daemon.ledger.answers import product_of_job
from daemon.model.groups import Group
from daemon.model.records import JobRecord
from daemon.plan.case import takes
from daemon.plan.planner import plan
from pipeline import association, levels
from pipeline.association import CalKind, Candidate, Found, Match, NotApplicable
from pipeline.headers.descriptors import Descriptors

if TYPE_CHECKING:
    from daemon.ledger.world import Explained


Answer = dict[str, Any]


def calibrations(
    world: Explained, group: Group, target: Descriptors, job: JobRecord | None = None
) -> list[Answer]:
    """For each kind that the recipe takes: what was used, or would be now, and why every other was not."""
    recipe = world.setting.recipes[world.setting.rules[group.rule].recipe]
    matches = dict(plan([replace(group, settled=True)], world.setting, world)[0].matches)
    given = job.spec["calibrations"] if job and job.spec else []
    used = {c["role"]: c for c in given}
    answer = []
    for kind in sorted(takes(world.setting.rules[group.rule], recipe)):
        match = matches.get(kind) or association.best_match(
            association.RULES[kind],
            target,
            world.candidates(kind, target),
            breakpoints=world.setting.policy.breakpoints,
        )
        wish = "needed" if kind in recipe.needs else "preferred" if kind in recipe.prefers else "if there"
        if job and kind is CalKind.ZERO_POINT and kind.value in used:
            standards = [c for c in given if c["role"] == kind.value]
            answer.append(_zero_points(world, wish, match, job, standards))
            continue
        answer.append(_calibration(kind, wish, match, used.get(kind.value), decided=job is not None))
        answer[-1]["not_chosen"] += [
            {"name": c.name, "ut": c.ut.isoformat(), "failed": [f"held back: {why}"]}
            for c, why in world.held_back(kind, target)
        ]
    return answer


def _zero_points(
    world: Explained, wish: str, match: Match, job: JobRecord, standards: Sequence[Answer]
) -> Answer:
    """Of the standards of the night that a job was given: which it took, and why none of the others."""
    product = product_of_job(world.tx.reader, job.id)
    notes = product.notes if product else []
    taken = product.quality.get("ZPIMAGE") if product else None
    facts = {c.ident: c for c in _all(match)}
    used = next((c for c in standards if c["name"] == taken), None)
    answer = _calibration(CalKind.ZERO_POINT, wish, match, used or standards[0], decided=True)
    ours = {c["name"] for c in standards}
    others = [other for other in answer["not_chosen"] if other["name"] not in ours]
    for cal in standards:
        if cal is not used:
            ut = facts[cal["key"]].ut.isoformat() if cal["key"] in facts else ""
            others.append({"name": cal["name"], "ut": ut, "failed": [_why_not(cal["name"], notes)]})
    why = next(
        (n.partition(" used: ")[2] for n in notes if n.startswith(f"zero point of {taken} ")), "it was used"
    )
    if product is None:
        return {**answer, "status": "chosen", "name": None, "why": f"the best of {len(standards)} is taken"}
    if used is None:
        why = "none of the standards of the night can be used"
    status, told = "used" if used else "none", product.quality.get("ZPLEV")
    if told is not None:
        why = f"{levels.in_words(told)}; {why}"
    return {**answer, "status": status, "name": taken, "level": told, "why": why, "not_chosen": others}


def _all(match: Match) -> list[Candidate]:
    found = [match.candidate] if isinstance(match, Found) else []
    return [*found, *(r.candidate for r in match.rejected)]


def _why_not(name: str, notes: Sequence[str]) -> str:
    """What the product says of a standard that it did not take."""
    said = (n.partition(" not used: ")[2] for n in notes if n.startswith(f"zero point of {name} ("))
    return next(filter(None, said), "it was not used")


def _calibration(kind: CalKind, wish: str, match: Match, used: Any, *, decided: bool) -> Answer:
    now = match.candidate if isinstance(match, Found) else None
    level = match.level if isinstance(match, Found) else None
    others = [(c.candidate, list(c.failed)) for c in match.rejected]
    if used is not None:
        chosen, why, status = used["name"], "it was used", "used"
        others = [(c, failed) for c, failed in others if c.ident != used["key"]]
        if now is not None and now.ident == used["key"]:
            why = match.why
        elif now is not None:
            others.insert(0, (now, [f"{level}; would be chosen now; nirid requeue takes it"]))
            level = next((r.level for r in match.rejected if r.candidate.ident == used["key"]), None)
            why = f"{why}; {level}" if level else why
    elif decided:
        chosen, status = None, "none"
        why = "there was none then" if now is not None else match.why
        if now is not None:
            others.insert(0, (now, [f"{level}; came later; nirid requeue takes it"]))
            level = None
    else:
        chosen, why = (now.name if now else None), match.why
        status = "chosen" if now else "not needed" if isinstance(match, NotApplicable) else "missing"
        if now and now.pending:
            status, why = "being made", f"{why}; it is being made"
    return {
        "kind": kind.value,
        "wish": wish,
        "status": status,
        "name": chosen,
        "level": level.number if level else None,
        "why": why,
        "not_chosen": [{"name": c.name, "ut": c.ut.isoformat(), "failed": failed} for c, failed in others],
    }
