"""Keys of jobs, borrowed sky; roles, names and groups of frames."""

from dataclasses import replace
from datetime import timedelta

import pytest

from daemon.ledger.outdated import PLANNED
from daemon.model.groups import Point
from daemon.model.names import canonical_name, name_order, night_of
from daemon.model.rules import DEFAULT_RULES
from daemon.plan.grouping import admits, partition
from pipeline.association import CalKind
from pipeline.headers.roles import role_of
from pipeline.recipes import RECIPES as REAL
from tests.night import NIGHT, describe
from tests.unit.plan.helpers import (
    DARK,
    FLAT,
    SCIENCE,
    TAGS,
    World,
    calibration,
    current,
    decide,
    group,
    member,
)


def test_keys_hold_content_and_nothing_else():
    world = World([FLAT, DARK])
    key = decide(group("science", SCIENCE), world).spec.key
    moved = [replace(m, path="/elsewhere", name="other.fits", file_sha="x") for m in SCIENCE]
    assert decide(group("science", moved), world).spec.key == key
    assert decide(group("science", list(reversed(SCIENCE))), world).spec.key == key
    for changed in (
        decide(group("science", SCIENCE[:-1]), world),
        decide(group("science", [replace(SCIENCE[0], facts="x"), *SCIENCE[1:]]), world),
        decide(group("science", SCIENCE), World([FLAT, calibration(CalKind.DARK, "other")])),
        decide(group("science", SCIENCE), World([FLAT, DARK], overrides={"a:b": 1})),
        decide(group("science", SCIENCE), world, preset="dragons"),
        decide(group("science", SCIENCE, remake=1), world),
    ):
        assert changed.spec.key != key


def test_a_new_release_or_override_remakes_nothing_by_itself():
    made = decide(group("science", SCIENCE), World([FLAT, DARK])).spec
    again = group("science", SCIENCE, current=current(made))
    assert decide(again, World([FLAT, DARK], overrides={"a:b": 1})).action == "idle"
    grown = group("science", [*SCIENCE, member("science", 9)], current=current(made))
    assert decide(grown, World([FLAT, DARK], overrides={"a:b": 1})).spec.parameters["a:b"] == 1


def test_a_group_without_sky_borrows_it():
    still = [member("science", n, ra=148.0) for n in range(1, 6)]
    far = member("science", 21, 200, ra=148.0, dec=10.04, observation_id="sky")
    late = member("science", 22, 5000, ra=148.0, dec=10.04, observation_id="sky")
    close = member("science", 23, 210, ra=148.0, dec=10.01, observation_id="sky")
    bad = replace(far, frame_id=24, usable=False)
    spec = decide(group("science", still), World([FLAT, DARK], near=[late, close, bad, far])).spec
    assert spec.parameters["separateSky:ref_sky"] == far.name
    # The step drops the first of the list, which may be a borrowed one: so it is left out here.
    assert spec.parameters["removeFirstFrame:remove_first"] is False
    assert [i.name for i in spec.inputs] == [m.name for m in (*still[1:], far)]
    assert spec.name == "N20160102S0002_image"
    dithered = decide(group("science", SCIENCE), World([FLAT, DARK], near=[far])).spec
    assert "separateSky:ref_sky" not in dithered.parameters


@pytest.mark.parametrize(
    ("changes", "role"),
    [
        ({}, "science"),
        ({"observation_class": None}, "science"),
        ({"observation_class": "partnerCal", "object": "HIP 1"}, "standard"),
        ({"observation_class": None, "object": "fs17"}, "standard"),
        ({"observation_class": "progCal", "object": "HIP 1"}, "standard"),
        ({"observation_class": "acq"}, ""),
        ({"observation_class": "acqCal", "object": "FS 17"}, ""),
        ({"observation_class": "dayCal"}, ""),
        ({"object": "Focus run"}, ""),
        ({"observation_type": "FLAT"}, ""),
    ],
)
def test_roles(changes, role):
    assert role_of(frozenset(TAGS["science"]), describe("science", 1, 0, **changes))[0] == role


@pytest.mark.parametrize("tag", ["TWILIGHT", "ACQUISITION", "SPECT"])
def test_no_role_for_some_tags(tag):
    assert role_of(frozenset({*TAGS["science"], tag}), describe("standard", 1, 0))[0] == ""


@pytest.mark.parametrize(
    ("kind", "more", "rules"),
    [
        ("science", set(), {"science"}),
        ("science", {"LAMPOFF", "CAL"}, {"science"}),  # lamp "No Value" behind a closed shutter
        ("dark", set(), {"makeProcessedDark"}),
        ("dark", {"FLAT", "LAMPOFF"}, {"makeProcessedDark"}),  # a dark whose header still names a lamp
        ("lampon", set(), {"makeProcessedFlat", "makeProcessedBPM"}),
        ("lampon", {"TWILIGHT"}, set()),
        ("lampon", {"PROCESSED"}, set()),
    ],
)
def test_who_is_admitted(kind, more, rules):
    tags = frozenset(TAGS[kind] | more)
    assert {r.title for r in DEFAULT_RULES if admits(r, tags, describe(kind, 1, 0))} == rules


def cut(*frames, gap=3600.0):
    points = [Point(float(ut), f"{i}", exposure, i) for i, (ut, exposure) in enumerate(frames)]
    return [[p.frame_id for p in g] for g in partition(points, gap)]


def test_sequences_are_cut_at_gaps_and_exposures():
    assert cut((0, 1), (3600, 1), (7201, 1)) == [[0, 1], [2]]
    assert cut((0, 1), (10, 5), (20, 1), (30, 5)) == [[0, 2], [1, 3]]  # interleaved
    assert cut((0, 1.0), (10, 1.008), (20, 1.016), (30, 1.004)) == [[0, 1, 3], [2]]  # not chained
    assert cut((0, 1.0), (10, 1.012), (20, 1.007)) == [[0], [1, 2]]  # the nearest of two that agree


def test_names_and_nights():
    assert (
        canonical_name("N20160102S0270.fits.gz")
        == canonical_name("N20160102S0270.FITS")
        == "N20160102S0270.fits"
    )
    assert canonical_name("new\nline \u65e5\udcff.fits.gz") == "new\\nline \\u65e5\\udcff.fits"
    assert sorted(["copy.fits", "N20160102S0270.fits"], key=name_order)[0] == "N20160102S0270.fits"
    assert night_of("N20160102S0270.fits", NIGHT + timedelta(days=9)) == "20160102"
    assert night_of("copy.fits", NIGHT) == "20160102"
    assert replace(SCIENCE[0], name="../../.evil name;.fits").stem == "_.._.evil_name_"


def test_what_the_planner_decides_for_each_group_are_parameters_of_the_recipe():
    assert {name for name in PLANNED if not REAL["reduce"].has(name)} == set()
