"""Which frames a job is made of: enough of them, quiet, the first left out, borrowed sky."""

from dataclasses import replace
from datetime import timedelta

import pytest

from daemon.model.groups import Group
from daemon.plan.planner import quiet_needed
from pipeline.association import CalKind
from tests.unit.plan.helpers import (
    DARK,
    DARKS,
    FLAT,
    RULE,
    SCIENCE,
    World,
    calibration,
    decide,
    group,
    member,
)

ON = [member("lampon", n) for n in range(11, 14)]


OFF = [member("lampoff", n) for n in range(1, 4)]


@pytest.mark.parametrize(
    ("rule", "members", "answer"),
    [
        ("makeProcessedDark", DARKS, "complete"),
        ("makeProcessedDark", DARKS[:2], "incomplete: 2 of 3"),
        ("makeProcessedDark", [*DARKS[:2], member("dark", 9, usable=False)], "incomplete: 2 of 3"),
        ("makeProcessedFlat", ON + OFF, "complete"),
        ("makeProcessedFlat", ON, "incomplete: LAMPON 3 of 3, LAMPOFF 0 of 3"),
        ("makeProcessedBPM", ON + OFF, "no complete group of short darks within 10 days"),
        ("science", SCIENCE[:2], "incomplete: 2 of 3"),
        ("standard", SCIENCE[:1], "incomplete: 1 of 2"),
    ],
)
def test_enough(rule, members, answer):
    world = World([FLAT, DARK])
    assert decide(group(rule, members), world).reason == answer


@pytest.mark.parametrize(
    ("rule", "members", "warned"),
    [
        ("makeProcessedDark", DARKS[:1], "1 of 3"),
        ("makeProcessedFlat", ON[:1], "LAMPON 1 of 3, LAMPOFF 0 of 3"),
        ("science", SCIENCE[:2], "2 of 3"),
    ],
)
def test_after_its_hours_a_short_group_is_made_if_it_can_be(rule, members, warned):
    world = World([FLAT, DARK])
    early = decide(group(rule, members, waited=11.9), world)
    assert (early.action, early.short) == ("idle", True)
    late = decide(group(rule, members, waited=12.0), world)
    assert late.action == "plan"
    assert any(warned in note for note in late.spec.notes)
    assert decide(group(rule, members), world, batch=True).spec == late.spec  # the batch counts it as elapsed


@pytest.mark.parametrize(("rule", "members"), [("science", SCIENCE[:1]), ("standard", SCIENCE[:1])])
def test_what_cannot_run_at_all_stays_incomplete(rule, members):
    late = decide(group(rule, members, waited=100.0), World([FLAT, DARK]))
    assert (late.action, late.short, late.due) == ("idle", False, None)


def test_quiet_is_the_longest_of_its_reasons():
    rule = RULE["science"]
    assert quiet_needed(rule, [member("science", 1, 0, exposure_time=1.0)]) == 62.0
    assert quiet_needed(rule, [member("science", 1, 0, exposure_time=300.0)]) == 660.0
    slow = [member("science", n, 400 * n) for n in (1, 2, 3)]
    assert quiet_needed(rule, slow) == 800.0
    open_group = group("science", SCIENCE, quiet_for=99.0)
    later = decide(open_group, World([FLAT, DARK]))
    assert (later.action, round(later.due, 3)) == ("later", 1.004)
    assert decide(replace(open_group, quiet_for=101.0), World([FLAT, DARK])).action == "plan"
    assert decide(open_group, World([FLAT, DARK]), batch=True).action == "plan"


def test_a_programme_that_moved_on_ends_the_wait():
    last = SCIENCE[-1].ut
    soon = group("science", SCIENCE, quiet_for=0.0, programme_until=last + timedelta(seconds=600))
    assert decide(soon, World([FLAT, DARK])).action == "later"
    late = replace(soon, programme_until=last + timedelta(seconds=601))
    assert decide(late, World([FLAT, DARK])).due == 1.0, "others of the same delivery may be landing"
    assert decide(replace(late, quiet_for=1.0), World([FLAT, DARK])).action == "plan"


@pytest.mark.parametrize(
    ("members", "remove", "name", "noted"),
    [
        (SCIENCE, True, "N20160102S0002_image", ""),
        (SCIENCE[:4], False, "N20160102S0001_image", "only 3 would remain"),
        ([replace(SCIENCE[0], usable=False), *SCIENCE[1:]], False, "N20160102S0002_image", ""),
        (
            [replace(SCIENCE[0], usable=False), *SCIENCE[1:], member("science", 6)],
            False,
            "N20160102S0002_image",
            "",
        ),
        (  # it came damaged and whole
            [replace(SCIENCE[0], usable=False, data_sha=""), *SCIENCE],
            True,
            "N20160102S0002_image",
            "",
        ),
    ],
)
def test_the_first_frame(members, remove, name, noted):
    spec = decide(group("science", members), World([FLAT, DARK])).spec
    assert spec.parameters["removeFirstFrame:remove_first"] is remove
    assert spec.name == name
    assert [n for n in spec.notes if "first frame" in n] == ([] if not noted else [spec.notes[0]])
    assert noted in " ".join(spec.notes)


def test_flats_are_named_by_their_first_lamp_on_frame():
    decision = decide(group("makeProcessedFlat", ON + OFF))
    assert decision.spec.name == "N20160102S0011_flat"
    assert (decision.spec.night, decision.makes.ut) == ("20160102", OFF[0].ut)  # time of its first raw frame


def test_the_mask_takes_the_nearest_complete_short_darks_and_is_named_by_its_flats():
    def darks(id, day, count):
        frames = [member("dark", 100 * id + n, day * 86400 + n, exposure_time=1.0) for n in range(count)]
        return Group(id, "makeProcessedDark", "k", tuple(frames))

    world = World(darks=[darks(2, -3, 3), darks(3, 0.5, 2), darks(4, 1, 4), darks(5, 2, 9)])
    spec = decide(group("makeProcessedBPM", ON + OFF), world).spec
    assert [i.name for i in spec.inputs if "S04" in i.name] == [f"N20160102S040{n}.fits" for n in range(4)]
    assert len(spec.inputs) == 10
    assert spec.name == "N20160102S0011_bpm"


def test_the_mask_and_the_flat_of_the_same_frames_have_one_origin():
    short = Group(7, "makeProcessedDark", "k", tuple(replace(m, frame_id=50 + m.frame_id) for m in DARKS))
    flat = decide(group("makeProcessedFlat", ON + OFF)).makes
    mask = decide(group("makeProcessedBPM", ON + OFF), World(darks=[short])).makes
    assert flat.origin == mask.origin != ""
    assert (flat.kind, mask.kind) == (CalKind.FLAT, CalKind.MADE_BPM)


def test_science_takes_the_mask_of_the_flats_that_its_flat_was_made_of():
    flat = replace(FLAT, origin="those flats")
    masks = [
        calibration(CalKind.MADE_BPM, "near"),
        calibration(CalKind.MADE_BPM, "own", 2, origin="those flats"),
    ]
    spec = decide(group("science", SCIENCE), World([flat, DARK, *masks])).spec
    assert {c.name for c in spec.calibrations} == {"flat", "dark", "own"}


def test_short_darks_need_a_reason():
    short = [member("dark", n, exposure_time=1.0) for n in range(1, 5)]
    assert decide(group("makeProcessedDark", short), World(wanted=False)).action == "idle"
    assert decide(group("makeProcessedDark", short), World(wanted=True)).action == "plan"
    assert decide(group("makeProcessedDark", DARKS), World(wanted=False)).action == "plan"
