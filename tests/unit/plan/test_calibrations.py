"""Which calibrations a job gets, what it waits for, and whether a better one remakes it."""

from dataclasses import dataclass, replace

import pytest

from daemon.model.groups import Setting
from daemon.plan.planner import plan, rank
from pipeline.association import CalKind
from pipeline.params import bounded
from pipeline.primitive import Primitive, Step
from pipeline.recipes import RECIPES as REAL
from tests.night import RECIPES
from tests.unit.plan.helpers import (
    DARK,
    DARKS,
    FLAT,
    RULE,
    SCIENCE,
    World,
    calibration,
    current,
    decide,
    group,
    member,
)


def test_science_waits_for_a_flat_for_ever_and_for_a_dark_for_its_hours():
    no_flat = decide(group("science", SCIENCE, waited=1e6), World([DARK]))
    assert (no_flat.action, no_flat.short) == ("wait", False)
    assert "no processed_flat for" in no_flat.reason
    no_dark = decide(group("science", SCIENCE, waited=1.0), World([FLAT]))
    assert (no_dark.action, no_dark.short, no_dark.due) == ("wait", True, 11 * 3600)
    without = decide(group("science", SCIENCE, waited=12.0), World([FLAT]))
    assert without.spec.parameters["darkCorrect:do_cal"] == "skip"
    assert any("processed_dark not applied" in note for note in without.spec.notes)


def test_a_standard_takes_a_dark_and_never_waits_for_one():
    assert decide(group("standard", SCIENCE), World([FLAT])).spec.parameters["darkCorrect:do_cal"] == "skip"
    used = decide(group("standard", SCIENCE), World([FLAT, DARK])).spec
    assert {c.role for c in used.calibrations} == {"processed_dark", "processed_flat"}


ZERO = calibration(CalKind.ZERO_POINT, "fs17", days=0.05)


@pytest.mark.parametrize(
    ("changes", "makes"),
    [
        ({}, CalKind.ZERO_POINT),
        ({"object": "SN2014J"}, None),  # in no list
        ({"object": "FS 32"}, None),  # suspected to vary
        ({"filter_name": "Lprime_G0207"}, None),  # not known there
    ],
)
def test_a_standard_gives_a_zero_point_if_it_can_and_takes_none(changes, makes):
    standard = [member("standard", n, **changes) for n in range(1, 5)]
    flat = replace(FLAT, facts={**FLAT.facts, **changes})
    decision = decide(group("standard", standard), World([flat, ZERO]))
    assert decision.action == "plan"
    assert "zero_point" not in [c.role for c in decision.spec.calibrations]
    assert (decision.makes and decision.makes.kind) == makes


def test_standards_are_planned_before_science_and_after_what_both_need():
    ranks = [rank(RULE[name], RECIPES) for name in ("makeProcessedFlat", "standard", "science")]
    assert ranks == sorted(set(ranks))


def test_science_waits_for_a_zero_point_that_is_being_made():
    decision = decide(group("science", SCIENCE), World([FLAT, DARK, replace(ZERO, pending=True)]))
    assert (decision.action, decision.producers) == ("wait", (ZERO.ident,))


@pytest.mark.parametrize(
    ("stored", "chosen"),
    [
        ([], None),
        ([ZERO], "fs17"),
        ([calibration(CalKind.ZERO_POINT, "the day after", days=1.1)], None),
        ([replace(ZERO, facts={**ZERO.facts, "filter_name": "J_G0202"})], None),
        ([replace(ZERO, facts={**ZERO.facts, "camera": "f32"})], None),
    ],
)
def test_science_takes_a_zero_point_and_waits_for_none(stored, chosen):
    decision = decide(group("science", SCIENCE), World([FLAT, DARK, *stored]))
    assert decision.action == "plan"
    assert next((c.name for c in decision.spec.calibrations if c.role == "zero_point"), None) == chosen
    assert not [note for note in decision.spec.notes if "zero" in note]


def test_a_job_is_given_all_standards_of_its_night_whatever_their_order():
    night = [ZERO, calibration(CalKind.ZERO_POINT, "nearer", days=0.04)]
    older = calibration(CalKind.ZERO_POINT, "the night before", days=-0.9)
    specs = [
        decide(group("science", SCIENCE), World([FLAT, DARK, *stored])).spec
        for stored in (night, night[::-1], [older, *night])
    ]
    assert {spec.key for spec in specs} == {specs[0].key}
    assert [c.name for c in specs[0].calibrations if c.role == "zero_point"] == ["nearer", "fs17"]
    alone = decide(group("science", SCIENCE), World([FLAT, DARK, older])).spec
    assert [c.name for c in alone.calibrations if c.role == "zero_point"] == ["the night before"]
    assert alone.key != specs[0].key
    # One more remakes it, and so does one that is taken out of use.
    for now, gone in (([*night, replace(ZERO, name="third", ident="third", origin="t")], set()),
                      (night[1:], {ZERO.ident})):  # fmt: skip
        again = group("science", SCIENCE, current=current(specs[0]), last_arrival=1e9)
        assert decide(again, World([FLAT, DARK, *now], gone=gone)).action == "plan"


def test_a_frame_that_a_person_accepted_is_named_to_the_steps_that_judge():
    """A stub stands for such a step; a recipe without one is given nothing."""
    dark = plan([group("makeProcessedDark", DARKS)], Setting(RULE, REAL), World(accepted={DARKS[0].name}))[
        0
    ].spec
    assert "stub:accept" not in dark.parameters
    judge = Step(Primitive("stub", JudgeParams, lambda frames, params, cals: frames, ""), {})
    recipe = replace(REAL["reduce"], steps=(*REAL["reduce"].steps, judge))
    setting = Setting(RULE, {**REAL, "reduce": recipe})

    def planned(accepted, made=None):
        asked = group("science", SCIENCE, current=made and current(made))
        return plan([asked], setting, World([FLAT, DARK], accepted=accepted))[0]

    before, after = planned(set()).spec, planned({SCIENCE[2].name}).spec
    assert after.parameters["stub:accept"] == [SCIENCE[2].name]
    assert "stub:accept" not in before.parameters
    assert recipe.bind(after.parameters).steps[-1].params.accept == (SCIENCE[2].name,)
    assert planned({SCIENCE[2].name}, before).action == "plan"
    assert planned({SCIENCE[2].name}, after).action == "idle"
    assert planned(set(), after).spec.key == before.key


@dataclass(frozen=True)
class JudgeParams:
    accept: tuple[str, ...] = bounded((), doc="frames to use whatever is found of them")


def test_where_the_sky_lies_decides_on_its_scaling_with_either_preset():
    for preset in ("nirid", "dragons"):
        setting = Setting(RULE, REAL, preset=preset)
        spec = plan([group("science", SCIENCE)], setting, World([FLAT, DARK]))[0].spec
        bound = REAL["reduce"].bind(spec.parameters, preset=preset)
        (sky,) = [step.params for step in bound.steps if step.step.name == "skyCorrect"]
        assert sky.scale_sky is None
    told = World([FLAT, DARK], overrides={"skyCorrect:scale_sky": True})
    spec = plan([group("science", SCIENCE)], Setting(RULE, REAL, preset="dragons"), told)[0].spec
    assert spec.parameters["skyCorrect:scale_sky"] is True


@pytest.mark.parametrize("kind", [CalKind.DARK, CalKind.FLAT, CalKind.MADE_BPM])
def test_what_is_being_made_is_waited_for_by_all(kind):
    stored = [c for c in (FLAT, DARK) if c.kind is not kind]
    world = World([*stored, calibration(kind, "soon", pending=True)])
    for rule in ("science", "standard"):
        decision = decide(group(rule, SCIENCE, waited=100.0), world)
        assert (decision.action, decision.producers) == ("wait", ("ident of soon",))
        assert f"{kind} soon is being made" in decision.reason


def test_what_is_being_made_but_would_not_be_chosen_is_not_waited_for():
    world = World([FLAT, DARK, calibration(CalKind.DARK, "far", 5, pending=True)])
    assert decide(group("science", SCIENCE), world).action == "plan"


def test_thermal_science_goes_without_a_flat():
    thermal = [member("science", n, filter_name="Lprime_G0207") for n in range(1, 6)]
    spec = decide(group("science", thermal), World([DARK])).spec
    assert spec.parameters["flatCorrect:do_cal"] == "skip"
