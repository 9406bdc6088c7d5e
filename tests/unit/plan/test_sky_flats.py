"""A flat of the sky: when it is made, and who takes it; overrides and missing files."""

from dataclasses import replace
from datetime import timedelta

import pytest

from daemon.plan.grouping import admits
from pipeline import association
from pipeline.association import SKY_FACTS, CalKind
from tests.night import describe
from tests.unit.plan.helpers import (
    DARK,
    FLAT,
    LPRIME,
    RULE,
    SCIENCE,
    TAGS,
    World,
    current,
    decide,
    group,
    member,
    thermal,
)

THERMAL = [member("science", n, ra=148.0 + 0.001 * n, **LPRIME) for n in range(1, 8)]


def of_the_sky(name, days=0.0, origin="others", **more):
    made = thermal(name, days, origin=origin, **more)
    return replace(made, facts=made.facts | SKY_FACTS)


@pytest.mark.parametrize(
    ("members", "stored", "action", "reason"),
    [
        (THERMAL, [], "plan", "complete"),
        (THERMAL[:5], [], "plan", "complete"),
        (THERMAL[:4], [], "idle", "incomplete: 4 of 5"),
        ([*THERMAL[:4], *(replace(m, ut=m.ut + timedelta(hours=1)) for m in THERMAL[:3])], [], "idle",
         "incomplete: 4 of 5 different pointings"),
        (THERMAL, [thermal("lamp", 100)], "idle", "processed_flat lamp serves, none is made of the sky"),
        (THERMAL, [thermal("lamp", pending=True)], "wait", "processed_flat lamp is being made"),
        (THERMAL, [of_the_sky("of another group")], "plan", "complete"),
        (THERMAL, [FLAT], "plan", "complete"),  # of another filter
    ],
)  # fmt: skip
def test_when_a_flat_is_made_of_the_sky(members, stored, action, reason):
    decision = decide(group("makeSkyFlat", members), World([DARK, *stored]))
    assert (decision.action, decision.reason) == (action, reason)
    if action == "plan":
        assert decision.spec.name == f"N20160102S000{2 if len(members) > 4 else 1}_skyflat"
        assert (decision.makes.kind, decision.makes.facts["filter_name"]) == (CalKind.FLAT, "Lprime_G0207")
        assert association.of_sky(decision.makes)


def test_only_frames_in_thermal_filters_are_admitted_for_a_flat_of_the_sky():
    tags, rule = frozenset(TAGS["science"]), RULE["makeSkyFlat"]
    for name in ("Lprime_G0207", "Mprime_G0208", "Bra_G0238", "Bracont_G0237", "hydrocarb_G0231"):
        assert admits(rule, tags, describe("science", 1, 0, filter_name=name))
    assert not admits(rule, tags, describe("science", 1, 0))
    assert not admits(rule, tags, describe("standard", 1, 0, **LPRIME))


@pytest.mark.parametrize(
    ("stored", "chosen"),
    [
        (["own", "near"], "own"),
        (["near"], "near"),
        (["own", "near", "lamp"], "lamp"),
        ([], None),
    ],
)
def test_thermal_science_takes_a_flat_of_a_lamp_then_of_its_own_sky_then_of_anothers(stored, chosen):
    own = decide(group("makeSkyFlat", THERMAL), World([DARK])).makes
    flats = {
        "own": replace(own, name="own", pending=False),
        "near": of_the_sky("near", 0.0001),
        "lamp": thermal("lamp", 60, origin="lamps"),
    }
    spec = decide(group("science", THERMAL), World([DARK, *(flats[name] for name in stored)])).spec
    used = [c.name for c in spec.calibrations if c.role == CalKind.FLAT.value]
    assert used == ([chosen] if chosen else [])
    skipped = spec.parameters.get("flatCorrect:do_cal") == "skip"
    assert skipped is (chosen is None)
    assert any("no processed_flat is made for Lprime" in n for n in spec.notes) is (chosen is None)


def test_thermal_science_waits_for_the_flat_of_its_sky():
    own = decide(group("makeSkyFlat", THERMAL), World([DARK])).makes
    decision = decide(group("science", THERMAL), World([DARK, own]))
    assert (decision.action, decision.producers) == ("wait", (own.ident,))


def test_overrides_come_last_and_are_not_waited_against():
    world = World([DARK], overrides={"flatCorrect:do_cal": "skip", "removeFirstFrame:remove_first": False})
    spec = decide(group("science", SCIENCE), world).spec
    assert spec.parameters["flatCorrect:do_cal"] == "skip"
    assert spec.name == "N20160102S0001_image"


def test_a_missing_file_is_waited_for_until_its_grace_is_over():
    world = World([FLAT, DARK])
    lost = [SCIENCE[0], replace(SCIENCE[1], path="", gone_for=300.0), *SCIENCE[2:]]
    decision = decide(group("science", lost), world)
    assert (decision.action, decision.lost, decision.due) == ("wait", True, 600.0)
    name = SCIENCE[1].name
    for said in (
        f"{name} is no longer on disk",
        "without 15 min after",
        f"nirid reject {name} --reason gone",
    ):
        assert said in decision.reason
    lost[1] = replace(lost[1], gone_for=901.0)
    decision = decide(group("science", lost), world)
    assert decision.action == "plan"
    assert name not in [i.name for i in decision.spec.inputs]
    assert f"{name} left out: its file is no longer on disk" in decision.spec.notes


def test_of_a_lost_first_frame_no_other_is_dropped_as_the_first():
    lost = [replace(SCIENCE[0], path="", gone_for=901.0), *SCIENCE[1:]]
    spec = decide(group("science", lost), World([FLAT, DARK])).spec
    assert spec.parameters["removeFirstFrame:remove_first"] is False
    assert spec.name == f"{SCIENCE[1].stem}_image"


def test_a_product_stays_when_its_raw_files_are_tidied_away():
    """A late frame does not bring one without them: it waits, and says what releases it."""
    world = World([FLAT, DARK])
    spec = decide(group("science", SCIENCE), world).spec
    gone = [replace(m, path="", gone_for=1e6) for m in SCIENCE]
    assert decide(group("science", gone, current=current(spec)), world).action == "idle"
    late = replace(
        SCIENCE[-1], frame_id=99, data_sha="late", label="late", ut=SCIENCE[-1].ut + timedelta(seconds=30)
    )
    decision = decide(group("science", [*gone, late], current=current(spec)), world)
    assert (decision.action, decision.lost) == ("wait", False)
    assert "put it back, or nirid reject" in decision.reason
