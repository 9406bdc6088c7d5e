"""Which calibration belongs to which frame, as a table of small examples."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.association import (
    RULES,
    CalibrationKey,
    CalKind,
    Candidate,
    Found,
    Missing,
    NotApplicable,
    best_match,
    is_thermal,
)
from pipeline.headers.descriptors import Descriptors

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


def test_the_nearest_in_time_wins_before_or_after():
    early, late = candidate(CalKind.DARK, "early", -3), candidate(CalKind.DARK, "late", 2)
    assert chosen(CalKind.DARK, early, late) == "late"
    answer = best_match(RULES[CalKind.DARK], TARGET, [early, late])
    assert answer.rejected[0].failed == (
        "3.0 days from the frame; late is preferred: 2.0 days from the frame",
    )


def test_of_equally_near_ones_the_later_exposure_then_the_newer_product():
    both = [candidate(CalKind.DARK, "before", -1, made=9), candidate(CalKind.DARK, "after", 1, made=1)]
    assert chosen(CalKind.DARK, *both) == chosen(CalKind.DARK, *reversed(both)) == "after"
    versions = [candidate(CalKind.DARK, "first", made=1), candidate(CalKind.DARK, "second", made=2)]
    assert chosen(CalKind.DARK, *versions) == "second"
    remake = candidate(CalKind.DARK, "being made", pending=True)
    assert chosen(CalKind.DARK, *versions, remake) == "being made"


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
