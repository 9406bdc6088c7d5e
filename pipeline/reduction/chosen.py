"""Which calibrations go to which frames of one reduction: those of a person, then those of the databases.

Every frame gets one that matches it by the rules of `pipeline.association`. One calibration serves as many
frames as it matches, so that a sequence between two darks is not cut in two; where none matches a frame, the
error names the frame.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import cal_service
from pipeline.association import (
    RULES,
    CalKind,
    Candidate,
    Found,
    Match,
    NotApplicable,
    best_match,
    level_of,
)
from pipeline.calibrations import stores
from pipeline.errors import CalibrationNotFound
from pipeline.files.structure import hash_file
from pipeline.headers.roles import role_of
from pipeline.levels import Level
from pipeline.params import suggest
from pipeline.primitive import BoundRecipe
from pipeline.produce import MASKS, Source
from pipeline.reduction.inputs import ReduceError
from pipeline.toolkit.dataset import Dataset

# The step that uses a kind, and so has a parameter to do without it.
USED_BY = {CalKind.DARK: "darkCorrect", CalKind.FLAT: "flatCorrect"}


@dataclass
class Choice:
    """calibrations : to be read; warnings : for the product; without : parameters that skip steps

    levels : kind -> (level, comment), for the header of the product; the worst that a frame has
    """

    calibrations: list[Source] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    without: dict[str, str] = field(default_factory=dict)
    levels: dict[str, tuple[int, str]] = field(default_factory=dict)


def choose(
    bound: BoundRecipe,
    frames: Sequence[Dataset],
    names: Mapping[str, str],
    given: Mapping[str, str],
    where: Sequence[stores.Database],
    *,
    mode: str = "sq",
    strict: bool = False,
) -> Choice:
    """Decide for the frames that go into a product, in order of time.

    names : path of a frame -> what it is called in the reduction
    given : role -> path of what a person gives, "" for none
    strict : what a person gives must match every frame, else it is a warning
    Raises CalibrationNotFound, with the frame, for one that is missing; ReduceError for a file that is not
    what it is given as.
    """
    choice = Choice()
    for role, path in given.items():
        if path:
            source, warnings = given_by_a_person(role, path, frames)
            if warnings and strict:
                raise ReduceError(f"{warnings[0]} (strict_cals is set)")
            choice.calibrations.append(source)
            choice.warnings += warnings
    for kind in sorted(bound.recipe.takes - set(given)):
        step = USED_BY.get(kind)
        if kind is CalKind.MADE_BPM and given.get("user_bpm"):
            continue  # what a person gives comes before any database
        if kind is CalKind.ZERO_POINT and is_standard(frames[0]):
            continue  # it is to give one
        if step and _does_without(bound, step):
            continue
        if kind is CalKind.ZERO_POINT:  # all of the night go in, and are compared
            zeros = stores.find_zero_points(frames[0].facts, where)
            choice.calibrations += _sources(kind, [(zero, []) for zero in zeros], names, everybody=True)
            continue
        found, missing = _found(kind, frames, where)
        if missing and step:
            frame, match = missing[0]
            insist = mode == "sq" or value_of(bound, step, "do_cal") == "force"
            choice.warnings.append(_missing(kind, step, match, frame, insist, bound.preset))
            choice.without[f"{step}:do_cal"] = "skip"
            continue
        if missing and found:
            text = (
                f"{len(missing)} of {len(frames)} frames, from {missing[0][0].filename}, have no {kind.value}"
            )
            choice.warnings.append(f"{text}: {missing[0][1].why}")
        choice.calibrations += _sources(kind, found, names, everybody=len(found) == 1 and not missing)
        if found:
            worst = max((_level(kind, c, ad) for c, ads in found for ad in ads), key=lambda level: level.rank)
            choice.levels[kind.value] = (worst.number, worst.comment)
        if len(found) > 1:
            told = "; ".join(f"{c.name} for {', '.join(ad.filename for ad in ads)}" for c, ads in found)
            choice.warnings.append(f"{len(found)} of kind {kind.value} are used: {told}")
    return choice


def _found(
    kind: CalKind, frames: Sequence[Dataset], where: Sequence[stores.Database]
) -> tuple[list[tuple[Candidate, list[Dataset]]], list[tuple[Dataset, Match]]]:
    """Each calibration with its frames, and the frames without one with the reason."""
    found: list[tuple[Candidate, list[Dataset]]] = []
    missing: list[tuple[Dataset, Match]] = []
    for ad in frames:
        mine = next(
            (ads for c, ads in found if isinstance(best_match(RULES[kind], ad.facts, [c]), Found)), None
        )
        if mine is not None:
            mine.append(ad)
            continue
        match = stores.find(kind, ad.facts, where)
        if isinstance(match, Found):
            found.append((match.candidate, [ad]))
        else:
            missing.append((ad, match))
    return found, missing


def _level(kind: CalKind, candidate: Candidate, frame: Dataset) -> Level:
    when = frame.facts.ut_datetime or candidate.ut
    return level_of(RULES[kind], when, candidate)


def _sources(
    kind: CalKind,
    found: Sequence[tuple[Candidate, list[Dataset]]],
    names: Mapping[str, str],
    *,
    everybody: bool,
) -> list[Source]:
    return [
        Source(
            c.path,
            os.path.basename(c.path),
            c.sha256,
            kind.value,
            frames=() if everybody else tuple(names[ad.path] for ad in ads),
        )
        for c, ads in found
    ]


def _missing(kind: CalKind, step: str, match: Match, frame: Dataset, insist: bool, preset: str) -> str:
    """The warning when it goes on without; raises CalibrationNotFound when it must not."""
    if isinstance(match, NotApplicable):
        return f"{step} skipped: {match.why}"
    if kind is CalKind.DARK and preset == "nirid" and is_standard(frame):
        return f"{step} skipped for the standard star {frame.object()}: {match.why}"
    if insist:
        raise CalibrationNotFound(
            f"{frame.filename}: {match.why}; add one to the calibration store, give one as "
            f"{kind.value}, or set {step}:do_cal=skip"
        )
    return f"{step} skipped: {match.why}"


def is_standard(frame: Dataset) -> bool:
    """True for a frame of a standard star, or of calibration imaging."""
    return role_of(frame.tags, frame.facts)[0] == "standard"


# --- what a person gives --------------------------------------------------------------------------------
def given_by_a_person(role: str, path: str, frames: Sequence[Dataset]) -> tuple[Source, list[str]]:
    """The calibration, which must be of the kind that it is given as, and how it does not match the frames.

    Raises ReduceError for another kind, and for a mask that does not cover a frame; CannotOpen for a file
    that is none, or a mask of other values than bits.
    """
    ad = Dataset(path)
    kind = cal_service.kind_of(ad)
    source = Source(ad.path, ad.filename, hash_file(Path(ad.path)), role)
    if role in MASKS:
        if kind is None or kind not in (CalKind.STATIC_BPM, CalKind.MADE_BPM):
            raise ReduceError(f"{path} is given as {role}, and is no bad-pixel mask: {_what(ad, kind)}")
        _check_mask(ad, role, frames)
        return source, _differences(ad, kind, source.sha256, frames, but=("data_section",))
    if kind != role:
        raise ReduceError(f"{path} is given as {role}, and is {_what(ad, kind)}")
    return source, _differences(ad, CalKind(role), source.sha256, frames)


def _what(ad: Dataset, kind: CalKind | None) -> str:
    return kind or " ".join(sorted(ad.tags)) or f"of {ad.instrument() or 'no instrument'}"


def _check_mask(ad: Dataset, role: str, frames: Sequence[Dataset]) -> None:
    size = ad.frame.shape  # reads it: values that are no bits are found here
    for frame in frames:
        shape = frame.shape or size
        smaller = any(have < want for have, want in zip(size, shape, strict=True))
        # What is larger than the frame must be an array setting, of which the middle is cut.
        if size != shape and (smaller or ad.detector_roi_setting() == "Custom"):
            raise ReduceError(
                f"{ad.path} is given as {role}, and its {size[1]}x{size[0]} pixels do not cover "
                f"{shape[1]}x{shape[0]} of {frame.filename}"
            )


def _differences(
    ad: Dataset, kind: CalKind, sha256: str, frames: Sequence[Dataset], but: Sequence[str] = ()
) -> list[str]:
    """One line when some frames do not match; a person may well give one of another time.

    but : what need not agree, as the size of a mask, of which a part is cut
    """
    held = tuple(name for name in RULES[kind].match if name not in but)
    rule = dataclasses.replace(RULES[kind], match=held, within=None, earlier_only=False, lamp_on=False)
    facts: dict[str, Any] = {name: getattr(ad.facts, name) for name in (*rule.match, *rule.tolerance)}
    other = []
    for frame in frames:
        when = frame.facts.ut_datetime or ad.facts.ut_datetime
        if when is None:
            continue
        candidate = Candidate(kind, ad.filename, sha256, facts, when)
        match = best_match(rule, frame.facts, [candidate])
        if match.rejected:
            other.append((frame, "; ".join(match.rejected[0].failed)))
    if not other:
        return []
    frame, why = other[0]
    many = f"{frame.filename}" if len(other) == 1 else f"{len(other)} frames, from {frame.filename}"
    return [f"{ad.filename} is given as {kind.value}, and does not match {many}: {why}"]


def user_calibrations(ucals: Any) -> dict[str, str]:
    """Role -> path of the calibrations given by a person. Raises ReduceError for an unknown kind.

    ucals : a mapping, or pairs
    """
    try:
        ucals = dict(ucals or {})
    except (TypeError, ValueError):
        raise ReduceError(
            f"ucals {ucals!r}: must be pairs of a kind, as processed_dark, and a path"
        ) from None
    roles = {kind.value: kind.value for kind in CalKind} | {CalKind.MADE_BPM.value: "user_bpm"}
    for kind in ucals:
        if kind not in roles:
            raise ReduceError(f"no kind of calibration {kind}{suggest(str(kind), roles)}")
        if not isinstance(ucals[kind], str | os.PathLike):
            raise ReduceError(f"{kind}: {ucals[kind]!r} is no path")
    return {roles[kind]: os.fspath(path) for kind, path in ucals.items()}


def value_of(bound: BoundRecipe, step: str, name: str) -> Any:
    """A parameter of a step; None where the recipe has no such step."""
    return next((getattr(s.params, name, None) for s in bound.steps if s.step.name == step), None)


def _does_without(bound: BoundRecipe, step: str) -> bool:
    return (
        any(s.skip for s in bound.steps if s.step.name == step) or value_of(bound, step, "do_cal") == "skip"
    )
