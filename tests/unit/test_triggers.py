"""The planner, without a database: small groups in, decisions out."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from daemon.ledger.outdated import PLANNED
from daemon.model.groups import Current, Group, Member, Point, Setting, forced_in
from daemon.model.names import canonical_name, name_order, night_of
from daemon.model.rules import DEFAULT_RULES
from daemon.plan.grouping import admits, partition, role_of
from daemon.plan.planner import plan, quiet_needed, rank
from pipeline import association
from pipeline.association import RULES, SKY_FACTS, CalKind, Candidate
from pipeline.params import bounded
from pipeline.primitive import Primitive, Step
from pipeline.recipes import RECIPES as REAL
from tests.night import NIGHT, RECIPES, describe, sha

RULE = {rule.title: rule for rule in DEFAULT_RULES}
TAGS = {
    "science": {"NIRI", "RAW", "IMAGE"},
    "dark": {"NIRI", "RAW", "DARK", "CAL"},
    "lampon": {"NIRI", "RAW", "FLAT", "IMAGE", "LAMPON"},
    "lampoff": {"NIRI", "RAW", "FLAT", "IMAGE", "LAMPOFF"},
}


def member(kind, number, seconds=None, *, usable=True, **changes):
    d = describe(kind, number, 30 * number if seconds is None else seconds, **changes)
    tags = frozenset(TAGS.get(kind, TAGS["science"]))
    name = f"N20160102S{number:04d}.fits"
    return Member(
        number, d.data_label, sha(name), sha(d), name, d.ut_datetime, tags, d, f"/drop/{name}", sha(1), usable
    )


def group(rule, members, **more):
    return Group(1, rule, "key", tuple(sorted(members, key=lambda m: m.order)), **more)


@dataclass
class World:
    stored: list = field(default_factory=list)
    darks: list = field(default_factory=list)
    near: list = field(default_factory=list)
    overrides: dict = field(default_factory=dict)
    gone: set = field(default_factory=set)
    accepted: set = field(default_factory=set)
    wanted: bool = True

    def candidates(self, kind, target):
        return [c for c in self.stored if c.kind is kind]

    def joined(self, join, group):
        return self.darks

    def needed(self, kind, descriptors):
        return self.wanted

    def neighbours(self, group):
        return self.near

    def parameters(self, recipe, descriptors):
        return self.overrides

    def forced_in(self, member):
        return member.name in self.accepted

    def withdrawn(self, ident):
        return ident in self.gone


def decide(the_group, world=None, **setting):
    made = Setting(RULE, RECIPES, products="/products", **setting)
    return plan([the_group], made, world or World())[0]


def calibration(kind, name="cal", days=0.0, **more):
    facts = {f: getattr(describe("science", 1, 0), f) for f in (*RULES[kind].match, *RULES[kind].tolerance)}
    return Candidate(kind, name, f"ident of {name}", facts, NIGHT + timedelta(days=days), **more)


FLAT, DARK = calibration(CalKind.FLAT, "flat"), calibration(CalKind.DARK, "dark")
SCIENCE = [member("science", n) for n in range(1, 6)]
DARKS = [member("dark", n) for n in range(1, 4)]
ON = [member("lampon", n) for n in range(11, 14)]
OFF = [member("lampoff", n) for n in range(1, 4)]


# -- enough, and quiet -------------------------------------------------------------------------


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


# -- the first frame, names, notes ---------------------------------------------------------------


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


# -- calibrations: need, prefer, want ----------------------------------------------------------


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


# -- a flat of the sky -------------------------------------------------------------------------

LPRIME = {"filter_name": "Lprime_G0207"}
THERMAL = [member("science", n, ra=148.0 + 0.001 * n, **LPRIME) for n in range(1, 8)]


def thermal(name, days=0.0, **more):
    made = calibration(CalKind.FLAT, name, days, **more)
    return replace(made, facts=made.facts | LPRIME)


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


# -- keys and healing --------------------------------------------------------------------------


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


def current(spec):
    return Current(
        spec.key,
        tuple((i.data_sha, i.facts) for i in spec.inputs),
        {role: tuple(c.key for c in spec.calibrations if c.role == role) for role in CalKind},
        spec.parameters.get("removeFirstFrame:remove_first"),
        forced_in(spec.parameters),
    )


@pytest.mark.parametrize(
    ("stored", "gone", "action", "better"),
    [
        ([FLAT, DARK], set(), "idle", ()),
        ([FLAT, calibration(CalKind.DARK, "near", 0.0001)], set(), "plan", ()),
        ([FLAT, calibration(CalKind.DARK, "far", 4)], set(), "idle", ("processed_dark far",)),
        ([FLAT, calibration(CalKind.DARK, "far", 4)], {"ident of dark"}, "plan", ()),
        ([FLAT, DARK, calibration(CalKind.MADE_BPM, "mask", -2)], set(), "plan", ()),
        ([FLAT, DARK, calibration(CalKind.MADE_BPM, "mask", -2, pending=True)], set(), "wait", ()),
        ([FLAT, DARK, calibration(CalKind.MADE_BPM, "mask", -8)], set(), "idle", ("processed_bpm mask",)),
        (
            [FLAT, DARK, calibration(CalKind.MADE_BPM, "m", -8, pending=True)],
            set(),
            "idle",
            ("processed_bpm m",),
        ),
        ([FLAT, DARK, calibration(CalKind.STATIC_BPM, "b", -5000, added=1e9)], set(), "plan", ()),
        (
            [FLAT, DARK, calibration(CalKind.STATIC_BPM, "b", -5000, added=2e9)],
            set(),
            "idle",
            ("static_bpm b",),
        ),
    ],
)
def test_healing_stays_within_days(stored, gone, action, better):
    made = decide(group("science", SCIENCE), World([FLAT, DARK])).spec
    again = group("science", SCIENCE, current=current(made), last_arrival=1e9)
    decision = decide(again, World(stored, gone=gone))
    assert (decision.action, decision.better) == (action, better)


def test_a_new_release_or_override_remakes_nothing_by_itself():
    made = decide(group("science", SCIENCE), World([FLAT, DARK])).spec
    again = group("science", SCIENCE, current=current(made))
    assert decide(again, World([FLAT, DARK], overrides={"a:b": 1})).action == "idle"
    grown = group("science", [*SCIENCE, member("science", 9)], current=current(made))
    assert decide(grown, World([FLAT, DARK], overrides={"a:b": 1})).spec.parameters["a:b"] == 1


def test_what_the_planner_decides_for_each_group_are_parameters_of_the_recipe():
    assert {name for name in PLANNED if not REAL["reduce"].has(name)} == set()


# -- borrowed sky --------------------------------------------------------------------------------


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


# -- roles, names, groups ------------------------------------------------------------------------


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
