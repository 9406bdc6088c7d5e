"""When a calibration has a finished product made again: levels first, then what is near."""

from dataclasses import replace
from datetime import timedelta

import pytest

from daemon.model.rules import Policy
from pipeline.association import CalKind
from pipeline.levels import Breakpoint
from tests.night import NIGHT
from tests.unit.plan.helpers import DARK, FLAT, SCIENCE, World, calibration, current, decide, group, thermal

DARKS = CalKind.DARK


def again(made, *stored, gone=(), rule="science", levels=None, **more):
    """What is decided about a product that was made with some calibrations, when others are there."""
    spec = decide(group(rule, SCIENCE, waited=99.0), World(list(made)), **more).spec
    product = replace(current(spec), levels=levels or {})
    now = group(rule, SCIENCE, waited=99.0, current=product, last_arrival=1e9)
    decision = decide(now, World(list(stored), gone=set(gone)), **more)
    return decision.action, decision.better


def dark(name, days, **more):
    return calibration(DARKS, name, days, **more)


@pytest.mark.parametrize(
    ("old", "new", "action"),
    [
        (-20, 0.1, "plan"),  # level 2 -> 0
        (-20, 5, "plan"),  # -> 1
        (-100, -20, "plan"),  # 3 -> 2
        (-100, 25, "plan"),
        (None, 100, "plan"),  # a risk is better than none
        (-20, -10, "idle"),  # level 2, nearer
        (-100, -50, "idle"),
        (-6, 5, "idle"),  # level 1, nearer, and taken later
        (-0.7, 0.1, "idle"),  # level 0
        (0.5, 0.6, "idle"),
    ],
)
def test_a_better_level_remakes_and_a_nearer_one_of_the_same_does_not(old, new, action):
    there = [FLAT] if old is None else [FLAT, dark("old", old)]
    assert again(there, *there, dark("new", new))[0] == action


@pytest.mark.parametrize(("old", "new"), [(5, -6), (-6, -5), (0.5, -0.6), (0.5, 0.4)])
def test_at_level_0_and_1_what_comes_late_remakes_whatever_came_first(old, new):
    """They were taken in the other order: without it the product would tell which came first."""
    there = [FLAT, dark("old", old)]
    assert again(there, *there, dark("new", new))[0] == "plan"
    assert again([FLAT, dark("new", new)], *there, dark("new", new))[0] == "idle"


def test_of_a_worse_level_only_what_is_within_the_days_of_the_policy():
    there, late = [FLAT, dark("old", -20)], dark("late", -10)
    assert again(there, *there, late) == ("idle", ("processed_dark late",))
    assert again(there, *there, late, policy=Policy(healing_days=11))[0] == "plan"


def test_a_newer_version_of_what_was_used_remakes_at_level_0_and_1():
    for days, action in ((0.5, "plan"), (-6, "plan"), (-8, "idle")):
        assert again([FLAT, dark("old", days)], FLAT, dark("newer", days))[0] == action


def test_what_was_withdrawn_is_replaced_at_any_level():
    there = [FLAT, dark("old", -20)]
    assert again(there, FLAT, dark("far", -100), gone={"ident of old"})[0] == "plan"
    assert again(there, FLAT, dark("far", -100))[0] == "idle"


def test_a_level_that_the_header_tells_counts_where_the_calibration_is_gone():
    there, new = [FLAT, dark("old", -100)], dark("new", -20)
    assert again(there, FLAT, new, levels={"DARKLEV": 3})[0] == "plan"
    assert again(there, FLAT, new, levels={"DARKLEV": 2})[0] == "idle"
    assert again(there, FLAT, new)[0] == "idle"


CHANGE = Breakpoint(NIGHT - timedelta(days=1), frozenset({DARKS}), "warmed up")


def test_a_breakpoint_makes_what_lies_beyond_it_level_3():
    there, right = [FLAT, dark("old", -2)], dark("right", 25)
    assert again(there, *there, right)[0] == "idle"
    assert again(there, *there, right, policy=Policy(breakpoints=(CHANGE,)))[0] == "plan"
    spec = decide(group("science", SCIENCE), World(there), policy=Policy(breakpoints=(CHANGE,))).spec
    assert spec.levels[DARKS] == (3, f"risk: across breakpoint of {CHANGE.at:%Y-%m-%d}")


@pytest.mark.parametrize(("days", "action"), [(0.1, "plan"), (6, "plan"), (8, "idle"), (100, "idle")])
def test_a_standard_without_a_dark_is_remade_by_a_good_one_only(days, action):
    """All that has its zero point would be made again."""
    assert again([FLAT], FLAT, dark("new", days), rule="standard")[0] == action


@pytest.mark.parametrize(
    ("mask", "action"),
    [
        (calibration(CalKind.MADE_BPM, "mask", -2), "plan"),
        (calibration(CalKind.MADE_BPM, "mask", -2, pending=True), "wait"),
        (calibration(CalKind.MADE_BPM, "mask", -9), "plan"),
        (calibration(CalKind.STATIC_BPM, "b", -5000, added=1e9), "plan"),
        (calibration(CalKind.STATIC_BPM, "b", -5000, added=2e9), "idle"),  # it came much later
    ],
)
def test_masks(mask, action):
    assert again([FLAT, DARK], FLAT, DARK, mask)[0] == action


def test_a_static_mask_that_comes_long_after_is_only_told():
    mask = calibration(CalKind.STATIC_BPM, "b", -5000, added=2e9)
    assert again([FLAT, DARK], FLAT, DARK, mask) == ("idle", ("static_bpm b",))


def test_a_flat_of_a_lamp_takes_the_place_of_one_of_the_sky_at_any_level():
    science = [replace(m, descriptors=replace(m.descriptors, filter_name="Lprime_G0207")) for m in SCIENCE]
    sky = thermal("sky")
    sky = replace(sky, facts=sky.facts | {"sky": True})
    spec = decide(group("science", science), World([sky, DARK])).spec
    product = group("science", science, current=current(spec), last_arrival=1e9)
    assert decide(product, World([sky, DARK, thermal("lamp", 100)])).action == "plan"


def test_the_levels_of_a_job_are_of_what_it_was_given():
    own = calibration(CalKind.MADE_BPM, "own", -9, origin="us")
    world = World([replace(FLAT, origin="us"), dark("dark", -2), own])
    spec = decide(group("science", SCIENCE), world).spec
    assert {kind: number for kind, (number, _) in spec.levels.items()} == {
        "processed_dark": 1,
        "processed_flat": 0,
        "processed_bpm": 0,
    }
    assert spec.levels["processed_bpm"][1] == "of the same flats (0 best, 3 risk)"
    assert type(spec).from_json(spec.to_json()) == spec
