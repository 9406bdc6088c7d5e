"""Which calibration belongs to which frame, as a table of small examples."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from astropy.io import fits

from pipeline import levels
from pipeline.association import (
    RULES,
    CalibrationKey,
    CalKind,
    Candidate,
    Found,
    Missing,
    NotApplicable,
    best_match,
    of_the_night,
)
from pipeline.headers.descriptors import Descriptors
from pipeline.levels import Breakpoint
from pipeline.niri import is_thermal

NOW = datetime(2016, 1, 2, tzinfo=UTC)
TARGET = Descriptors(
    ut_datetime=NOW,
    exposure_time=20.002,
    coadds=2,
    read_mode="Low Background",
    well_depth="Shallow",
    filter_name="Kprime_G0206",
    camera="f6",
    focal_plane_mask="f6-cam_G5208",
    data_section="[1:1024,1:1024]",
    shape=(1024, 1024),
)


def candidate(kind, name="cal", days=0.0, target=TARGET, **facts):
    values = {f: getattr(target, f) for f in (*RULES[kind].match, *RULES[kind].tolerance)}
    more = {k: facts.pop(k) for k in ("made", "pending", "origin") if k in facts}
    return Candidate(kind, name, name, values | facts, NOW + timedelta(days=days), **more)


def chosen(kind, *candidates, target=TARGET, **how):
    answer = best_match(RULES[kind], target, candidates, **how)
    return answer.candidate.name if isinstance(answer, Found) else type(answer).__name__


@pytest.mark.parametrize(
    ("kind", "difference", "failing"),
    [
        (CalKind.DARK, {}, ""),
        (CalKind.DARK, {"exposure_time": 20.0}, ""),
        (CalKind.DARK, {"exposure_time": 20.0121}, "exposure_time"),
        (CalKind.DARK, {"coadds": 1}, "coadds"),
        (CalKind.DARK, {"read_mode": "High Background"}, "read_mode"),
        (CalKind.DARK, {"well_depth": "Deep"}, "well_depth"),
        (CalKind.DARK, {"data_section": "[1:512,1:512]"}, "data_section"),
        (CalKind.DARK, {"days": 181}, "days"),
        (CalKind.DARK, {"days": -179}, ""),
        (CalKind.FLAT, {}, ""),
        (CalKind.FLAT, {"read_mode": "High Background"}, ""),  # need not agree
        (CalKind.FLAT, {"filter_name": "Kprime_G9999"}, "filter_name"),  # component numbers count
        (CalKind.FLAT, {"camera": "f14"}, "camera"),
        (CalKind.FLAT, {"gcal_lamp": "Off"}, "lamp"),
        (CalKind.FLAT, {"gcal_lamp": "IRhigh"}, ""),
        (CalKind.MADE_BPM, {"days": 9}, ""),
        (CalKind.MADE_BPM, {"days": 11}, "days"),
        (CalKind.MADE_BPM, {"well_depth": "Deep"}, "well_depth"),
        (CalKind.STATIC_BPM, {"days": -5400}, ""),
        (CalKind.STATIC_BPM, {"days": 1}, "valid only from"),
        (CalKind.STATIC_BPM, {"days": -1, "shape": [256, 256]}, "does not cover"),
        (CalKind.STATIC_BPM, {"days": -1, "shape": [1024, 1024]}, ""),
    ],
)
def test_what_must_agree(kind, difference, failing):
    answer = best_match(RULES[kind], TARGET, [candidate(kind, **difference)])
    if failing:
        assert isinstance(answer, Missing)
        assert failing in " ".join(answer.rejected[0].failed)
    else:
        assert isinstance(answer, Found)


def level(kind, days, breakpoints=(), **how):
    found = best_match(RULES[kind], TARGET, [candidate(kind, days=days)], breakpoints=breakpoints, **how)
    return found.level


@pytest.mark.parametrize(
    ("kind", "days", "number"),
    [
        (CalKind.DARK, 0.75, 0),
        (CalKind.DARK, -0.7501, 1),
        (CalKind.DARK, 7, 1),
        (CalKind.DARK, -7.001, 2),
        (CalKind.DARK, 30, 2),
        (CalKind.DARK, 30.001, 3),
        (CalKind.DARK, 179, 3),
        (CalKind.FLAT, -0.74, 0),
        (CalKind.FLAT, 30.001, 2),
        (CalKind.FLAT, 60, 2),
        (CalKind.FLAT, -60.001, 3),
        (CalKind.MADE_BPM, 0, 1),
        (CalKind.MADE_BPM, -9.9, 1),
        (CalKind.STATIC_BPM, -5400, 2),
        (CalKind.STATIC_BPM, 0, 2),
        (CalKind.ZERO_POINT, 0.12, 0),
        (CalKind.ZERO_POINT, -0.13, 1),
        (CalKind.ZERO_POINT, 0.51, 2),
    ],
)
def test_how_good_one_is_by_its_distance(kind, days, number):
    found = level(kind, days)
    assert found.number == number
    assert str(found).startswith(f"level {number}, {('tonight', 'good', 'usable', 'risk')[number]}: ")
    assert len(found.comment) <= 47


def test_every_criterion_of_time_ends_where_the_levels_do():
    for rule in RULES.values():
        assert rule.levels[0] <= rule.levels[1] <= rule.levels[2]
        assert rule.within is None or rule.levels[2] <= rule.within


def test_the_better_level_wins_then_what_was_taken_before_then_the_nearest():
    tonight, week, after = (candidate(CalKind.DARK, n, d) for n, d in (("0", 0.7), ("7", -6), ("2", 2)))
    assert chosen(CalKind.DARK, tonight, week, after) == "0"
    assert chosen(CalKind.DARK, week, after) == "7"
    assert chosen(CalKind.DARK, candidate(CalKind.DARK, "8", -8), after) == "2"
    assert chosen(CalKind.DARK, week, candidate(CalKind.DARK, "3", -3)) == "3"
    assert chosen(CalKind.DARK, after, candidate(CalKind.DARK, "4", 4)) == "2"
    answer = best_match(RULES[CalKind.DARK], TARGET, [after, week])
    assert str(answer.level) == "level 1, good: 6.0 days before the frame"
    assert answer.rejected[0].failed == (
        "level 1, 2.0 days after the frame; 7 is preferred: level 1, 6.0 days before the frame",
    )


@pytest.mark.parametrize("kind", [CalKind.DARK, CalKind.FLAT])
@pytest.mark.parametrize("seed", range(20))
def test_in_the_order_in_which_they_are_taken_only_a_better_level_takes_the_place_of_one(kind, seed):
    """What is in use when the frame is there is given up for a better level alone."""
    chance = random.Random(seed)
    taken = sorted(chance.choice([-1, 1]) * 10 ** chance.uniform(-2, 2.2) for _ in range(30))
    found = [candidate(kind, f"{days}", days, made=n) for n, days in enumerate(taken)]
    used = None
    for there in range(1, len(found) + 1):
        best = best_match(RULES[kind], TARGET, chance.sample(found[:there], there))
        if found[there - 1].ut > NOW and used and best.candidate is not used.candidate:
            assert best.level.number < used.level.number
        used = best


def test_of_equally_near_ones_the_newer_product():
    both = [candidate(CalKind.DARK, "before", -1, made=1), candidate(CalKind.DARK, "after", 1, made=9)]
    assert chosen(CalKind.DARK, *both) == chosen(CalKind.DARK, *reversed(both)) == "before"
    versions = [candidate(CalKind.DARK, "first", made=1), candidate(CalKind.DARK, "second", made=2)]
    assert chosen(CalKind.DARK, *versions) == "second"
    remake = candidate(CalKind.DARK, "being made", pending=True)
    assert chosen(CalKind.DARK, *versions, remake) == "being made"


RAISED = Breakpoint(NOW - timedelta(days=1), frozenset({CalKind.FLAT}), "GCAL exposures raised")


def test_across_a_breakpoint_is_level_3():
    across = level(CalKind.FLAT, -1.1, [RAISED])
    assert across.number == 3
    assert str(across).startswith("level 3, risk: 1.1 days before the frame, ")
    assert str(across).endswith(", across the breakpoint of 2016-01-01 (GCAL exposures raised)")
    assert across.comment == "risk: across breakpoint of 2016-01-01"
    assert level(CalKind.FLAT, -1, [RAISED]).number == 1  # it belongs to what comes after
    assert level(CalKind.DARK, -1.1, [RAISED]).number == 1  # not of its kind
    near, far = candidate(CalKind.FLAT, "near", -1.1), candidate(CalKind.FLAT, "far", 50)
    assert chosen(CalKind.FLAT, near, far) == "near"
    assert chosen(CalKind.FLAT, near, far, breakpoints=[RAISED]) == "far"
    assert chosen(CalKind.FLAT, near, breakpoints=[RAISED]) == "near"


def test_the_mask_of_the_own_flats_is_level_0_unless_a_breakpoint_lies_between():
    own, other = candidate(CalKind.MADE_BPM, "own", -5, origin="us"), candidate(CalKind.MADE_BPM, "other", 2)
    both, change = [other, own], replace(RAISED, kinds=frozenset({CalKind.MADE_BPM}))
    found = best_match(RULES[CalKind.MADE_BPM], TARGET, both, prefer_origin="us")
    assert (found.candidate.name, str(found.level)) == (
        "own",
        "level 0: 5.0 days before the frame, of the same flats",
    )
    found = best_match(RULES[CalKind.MADE_BPM], TARGET, both, prefer_origin="us", breakpoints=[change])
    assert (found.candidate.name, found.level.number) == ("other", 1)


def test_zero_points_beyond_a_breakpoint_only_where_there_are_no_others():
    rule, change = RULES[CalKind.ZERO_POINT], replace(RAISED, kinds=frozenset({CalKind.ZERO_POINT}))
    change = replace(change, at=NOW + timedelta(days=0.1))
    here, beyond = candidate(CalKind.ZERO_POINT, "here", -0.5), candidate(CalKind.ZERO_POINT, "beyond", 0.2)
    night = of_the_night(rule, TARGET, [here, beyond], [change])
    assert [c.name for c in night] == ["here"]
    assert [c.name for c in of_the_night(rule, TARGET, [here, beyond])] == ["beyond"]
    assert [c.name for c in of_the_night(rule, TARGET, [beyond], [change])] == ["beyond"]


@pytest.mark.parametrize(
    ("told", "takes", "expected"),
    [
        ({"processed_dark": (1, "d")}, {"processed_dark"}, {"DARKLEV": (1, "d")}),
        ({}, {"processed_dark", "processed_flat"}, {}),
        ({}, {"static_bpm"}, {"BPMLEV": (3, "risk: no bad-pixel mask (0 best, 3 risk)")}),
        ({"static_bpm": (2, "s"), "processed_bpm": (1, "m")}, set(CalKind), {"BPMLEV": (1, "m")}),
        ({"static_bpm": (2, "s"), "processed_bpm": (3, "m")}, set(CalKind), {"BPMLEV": (2, "s")}),
    ],
)
def test_cards_of_what_was_used(told, takes, expected):
    assert levels.cards(told, takes) == expected


def test_the_mask_of_the_own_flats_comes_first():
    near, own = candidate(CalKind.MADE_BPM, "near", 0.1), candidate(CalKind.MADE_BPM, "own", 4, origin="us")
    assert chosen(CalKind.MADE_BPM, near, own) == "near"
    assert chosen(CalKind.MADE_BPM, near, own, prefer_origin="us") == "own"
    assert chosen(CalKind.MADE_BPM, near, own, prefer_origin="them") == "near"


def test_unknown_settings_match_nothing():
    unknown = replace(TARGET, read_mode="Unknown")
    assert chosen(CalKind.DARK, candidate(CalKind.DARK, target=unknown), target=unknown) == "Missing"


@pytest.mark.parametrize(
    "name", ["Lprime_G0207", "Lprime", "Bra_G0238", "Bracont_G0237", "PK50&hydrocarb_G0231"]
)
def test_thermal_filters_take_a_flat_that_matches_and_else_none(name):
    thermal = replace(TARGET, filter_name=name)
    assert is_thermal(name)
    assert isinstance(best_match(RULES[CalKind.FLAT], thermal, []), NotApplicable)
    assert chosen(CalKind.FLAT, candidate(CalKind.FLAT, target=thermal), target=thermal) == "cal"
    assert isinstance(best_match(RULES[CalKind.DARK], thermal, []), Missing)
    assert not is_thermal("Brgamma_G0218")


def test_keys_are_stable_text():
    key = CalibrationKey.of(CalKind.DARK, TARGET)
    assert str(key) == 'processed_dark:["[1:1024,1:1024]","Low Background","Shallow",2]'
    assert str(key) == str(CalibrationKey.of(CalKind.DARK, candidate(CalKind.DARK).facts))
    assert str(CalibrationKey.of(CalKind.STATIC_BPM, TARGET)) == "static_bpm:[]"


def test_a_header_gives_back_the_cards_that_it_was_given_in_their_order():
    """By it a product is made again bit for bit."""
    made = levels.cards({kind: (n, f"said {n}") for n, kind in enumerate(sorted(CalKind))}, set(CalKind))
    header = fits.Header([(card, *told) for card, told in reversed(made.items())])
    assert list(levels.cards(levels.of_header(header), set(CalKind)).items()) == list(made.items())
