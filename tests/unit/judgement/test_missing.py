"""What a night still needs: the Sun, Gemini's lamps, and each need from the frames that are there."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from daemon.judgement import lamps, sun
from daemon.judgement.missing import missing
from daemon.judgement.needs import FrameSet
from daemon.people.missing import table
from pipeline.association import CalKind
from pipeline.errors import NiridError
from tests.night import NIGHT, describe

TONIGHT = "20160102"
LATE = NIGHT + timedelta(hours=5)
MORNING = datetime(2016, 1, 2, 19, tzinfo=UTC)
OVER = datetime(2016, 1, 3, 0, tzinfo=UTC)


class Nothing:
    """Other nights of which nothing is known, or a master so many days away."""

    def __init__(self, days=None, flat=None):
        self.days, self.flat = days, flat

    def master(self, kind, facts):
        assert kind in CalKind
        return None if self.days is None else facts.ut_datetime.timestamp() - self.days * 86400

    def last_flat(self, facts):
        return self.flat


def some(kind, n=10, seconds=0.0, **changes):
    facts = describe(kind, 1, seconds, **changes)
    what = {"lampon": "flat", "lampoff": "flat"}.get(kind, kind)
    start = facts.ut_datetime.timestamp()
    return FrameSet(what, facts, n, start, start + 30 * (n - 1), kind == "lampon")


def needs(*sets, now=LATE, past=None):
    return missing(sets, TONIGHT, now, table(), past or Nothing())


def one(kind, *sets, **more):
    (need,) = [n for n in needs(*sets, **more) if n.kind == kind and n.state != "not needed"]
    return need


# -- the Sun -------------------------------------------------------------------------------------------


def test_the_height_of_the_sun_is_that_of_astropy():
    import astropy.units as u
    from astropy.coordinates import AltAz, EarthLocation, get_sun
    from astropy.time import Time
    from astropy.utils import iers

    when = [datetime(2016, 1, 1, tzinfo=UTC) + timedelta(days=9.37 * k) for k in range(80)]
    with iers.conf.set_temp("auto_download", False):
        times = Time(when)
        site = EarthLocation.from_geodetic(sun.LONGITUDE * u.deg, sun.LATITUDE * u.deg, 0 * u.m)
        truth = get_sun(times).transform_to(AltAz(obstime=times, location=site)).alt.deg
    worst = max(abs(sun.sun_altitude(w) - t) for w, t in zip(when, truth, strict=True))
    assert worst < 0.03


def test_dawn_is_where_the_sun_rises_through_12_degrees():
    for month in range(1, 13):
        at = sun.dawn(f"2016{month:02d}15")
        assert sun.sun_altitude(at) == pytest.approx(-12.0, abs=0.02)
        assert sun.sun_altitude(at + timedelta(minutes=5)) > -12.0
        assert (
            timedelta(hours=14, minutes=30) < at - sun.day_of(f"2016{month:02d}15")[0] < timedelta(hours=16.5)
        )


@pytest.mark.parametrize(
    ("hours", "phase"),
    [(0, "night"), (5, "night"), (15.9, "night"), (16.3, "morning"), (23.99, "morning"), (24, "finished")],
)
def test_the_phase_goes_from_night_to_morning_to_finished(hours, phase):
    assert sun.phase(datetime(2016, 1, 2, tzinfo=UTC) + timedelta(hours=hours), TONIGHT) == phase


# -- Gemini's lamps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("camera", "filter_", "words"),
    [
        ("f6", "J", "IR grey body high, ND1.0, 1.4 s, 10 open + 10 closed"),
        ("f6", "H", "IR grey body high, ND4-5, 42 s, 10 open + 10 closed"),
        ("f6", "H2 1-0 S1", "IR grey body high, ND2.0, 1.7 s, 10 open + 10 closed"),
        ("f6", "CH4(long)", "IR grey body high, ND2.0, 1.2 s, 10 open + 10 closed"),
        ("f6", "Kcon(209)", "IR grey body high, ND2.0, 1.6 s, 10 open + 10 closed"),
        ("f32", "J", "IR grey body high, no filter, 5.2 s, 10 open + 10 closed"),
        ("f32", "Y", "quartz halogen, ND2.0, 1.6 s, 10 open + 10 closed (closed may say IRhigh)"),
    ],
)
def test_the_table_has_what_gemini_says(camera, filter_, words):
    assert lamps.in_words(table()[camera, filter_]) == words


def test_what_has_no_lamp_has_no_row():
    none = ["L(prime)", "M(prime)", "Br(alpha)", "Br(alpha)Con", "hydrocarb", "Pa(gamma)"]
    assert not [setup for setup in table() if setup[1] in none]
    assert ("f6", "Jcon(1065)") in table()
    assert not {("f14", "Jcon(1065)"), ("f32", "Jcon(1065)")} & set(table())
    assert ("f6", "H2O ice") in table()


def flat(camera, filter_name, gcal_filter, seconds, lamp="IRhigh"):
    more = {"gcal_filter": gcal_filter, "exposure_time": seconds, "coadds": 1, "gcal_lamp_raw": lamp}
    return describe("lampon", 1, 0, camera=camera, filter_name=filter_name, **more)


@pytest.mark.parametrize(
    ("facts", "said"),
    [  # the four real lamp flats whose headers are known
        (flat("f13.9", "PK50_G0001&Jcon(112)_G0235", "ND2.0", 2.101, "QH"), ""),
        (flat("f6", "K_G0204&H2v=1-0S1_G0216", "ND2.0", 1.701), ""),
        (flat("f6", "PK50_G0001&CH4long_G0229", "ND4-5", 42.001), "ND4-5 (table ND2.0), 42 s (table 1.2 s)"),
        (flat("f6", "kcon(209)_G0217", "ND4-5", 5.001), "ND4-5 (table ND2.0), 5 s (table 1.6 s)"),
    ],
)
def test_real_flats_against_the_table(facts, said):
    facts = replace(facts, filter_name="&".join(sorted(facts.filter_name.split("&"))))
    assert lamps.differences(table()[lamps.setup_of(facts)], facts) == said


def test_a_table_that_cannot_be_read_names_the_line():
    with pytest.raises(NiridError, match="f6,J,IRhigh"):
        lamps.table_of("camera,filter,lamp,closed,gcal_filter,seconds\nf6,J,IRhigh,IRhigh,ND1.0,long\n")
    with pytest.raises(NiridError, match="first line"):
        lamps.table_of("")


# -- darks ---------------------------------------------------------------------------------------------


def test_an_empty_night_needs_nothing():
    assert needs() == []
    assert needs(some("dark"), some("lampon")) == []
    assert needs(some("science", 0)) == []  # all of them were rejected


def test_a_dark_is_wanted_until_the_day_is_over_then_missing():
    science = some("science")
    assert [one("dark", science, now=now).state for now in (LATE, MORNING, OVER)] == [
        "wanted",
        "wanted",
        "missing",
    ]
    need = one("dark", science)
    assert need.what == "10 darks, 10.001 s x 2, low background, shallow, 1024 x 1024"
    assert need.frames == 10
    assert "medium background" in need.how  # 10 s: the template would read them otherwise
    assert need.to_json(LATE)["left_seconds"] == 14 * 3600


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"coadds": 1}, {}),
        ({"exposure_time": 20.0 + 0.013}, {"exposure_time": 20.002 + 0.005}),
        ({"well_depth": "Deep"}, {}),
        ({"read_mode": "Medium Background"}, {}),
        ({"data_section": "[1:512,1:512]"}, {}),
    ],
)
def test_only_darks_of_the_same_setting_count(wrong, right):
    science = some("science")
    assert one("dark", science, some("dark", **wrong)).state == "wanted"
    assert one("dark", science, some("dark", **wrong), some("dark", **right)).state == "there"


def test_a_set_is_being_taken_while_more_may_follow():
    dark = some("dark", 4, 3600)
    soon = NIGHT + timedelta(seconds=3600 + 5 * 60)
    need = one("dark", some("science"), dark, now=soon)
    assert (need.state, need.told) == ("being taken", "being taken 4 of 10")
    later = soon + timedelta(hours=1)
    assert one("dark", some("science"), dark, now=later).state == "there"  # 4 make a master
    assert one("dark", some("science"), some("dark", 2, 3600), now=later).state == "wanted"


@pytest.mark.parametrize(
    ("days", "pending", "finished", "level"),
    [
        (0.5, "there", "there", 0),
        (3, "wanted", "there", 1),
        (23, "wanted", "stale", 2),
        (90, "wanted", "stale", 3),
    ],
)
def test_masters_of_other_nights_count_by_their_level(days, pending, finished, level):
    past = Nothing(days)
    assert one("dark", some("science"), past=past).state == pending
    need = one("dark", some("science"), past=past, now=OVER)
    assert need.state == finished
    assert f"level {level}" in need.have


def test_one_dark_set_serves_all_filters_and_names_their_programmes():
    other = some("science", 6, 600, filter_name="J_G0202", program_id="GN-2")
    need = one("dark", some("science"), other)
    assert need.frames == 16
    assert [(u.program, u.filter, u.frames) for u in need.users] == [
        ("GN-2015B-Q-1", "K(prime)", 10),
        ("GN-2", "J", 6),
    ]


def test_an_unknown_setting_is_said_and_nothing_clears_it():
    odd = some("science", well_depth="Unknown")
    need = one("dark", odd, some("dark", well_depth="Unknown"))
    assert need.state == "wanted"
    assert need.warnings == ("the header does not say the well depth: nothing can match it",)


def test_standards_need_flats_but_no_darks():
    found = {n.kind: n for n in needs(some("standard", 5))}
    assert (found["dark"].state, found["flat"].state) == ("not needed", "wanted")
    assert found["flat"].frames == 0  # no science would be hurt
    assert "standard" not in found


# -- flats ---------------------------------------------------------------------------------------------


def test_a_thermal_filter_needs_no_lamp_flat_but_a_dark():
    found = {n.kind: n for n in needs(some("science", filter_name="Lprime_G0207"))}
    assert (found["flat"].state, found["dark"].state) == ("not needed", "wanted")


LAMPS = {"exposure_time": 5.501, "coadds": 1, "gcal_filter": "ND4-5", "read_mode": "High Background"}


def test_flats_need_both_halves_of_one_recipe():
    on, off = some("lampon", **LAMPS), some("lampoff", **LAMPS)
    assert one("flat", some("science"), on).state == "wanted"
    assert one("flat", some("science"), on).taken == "10 + 0 of 10 + 10"
    assert one("flat", some("science"), on, off).state == "there"
    assert (
        one("flat", some("science"), on, some("lampoff", **LAMPS | {"exposure_time": 4.5})).state == "wanted"
    )
    assert one("flat", some("science"), on, off).warnings == ()


def test_closed_frames_may_name_another_lamp():
    setup = {"camera": "f32", "filter_name": "PK50_G0001&Y_G0241", "focal_plane_mask": "f32-cam"}
    lamp = {**setup, "exposure_time": 1.601, "coadds": 1, "gcal_filter": "ND2.0"}
    on, off = some("lampon", gcal_lamp_raw="QH", **lamp), some("lampoff", gcal_lamp_raw="IRhigh", **lamp)
    need = one("flat", some("science", **setup), on, off)
    assert (need.state, need.warnings) == ("there", ())
    halves = [some("lampon", 5, gcal_lamp_raw=name, **lamp) for name in ("QH", "IRhigh")]
    assert one("flat", some("science", **setup), *halves, off).taken == "5 + 10 of 10 + 10"


def test_a_flat_that_disagrees_with_the_table_counts_and_is_said():
    other = LAMPS | {"gcal_filter": "ND2.0", "exposure_time": 42.001}
    need = one("flat", some("science"), some("lampon", **other), some("lampoff", **other))
    assert need.state == "there"
    assert need.warnings == (
        "not as in Gemini's table: tonight's flats have ND2.0 (table ND4-5), 42 s (table 5.5 s)",
    )


def test_without_a_row_the_last_flat_of_this_kind_is_the_hint():
    setup = {"filter_name": "PaGamma_G0234"}
    assert "no flat of this kind is known" in one("flat", some("science", **setup)).how
    last = describe("lampon", 1, 0, exposure_time=3.001, coadds=1, **setup)
    how = one("flat", some("science", **setup), past=Nothing(flat=last)).how
    assert how.startswith("lamp recipe of f/6 Pa(gamma) not in our table: as the last flat of this kind (")
    assert "ND2.0, 3 s" in how


# -- standards, and the order --------------------------------------------------------------------------


def test_a_standard_is_missing_when_the_night_is_over():
    assert one("standard", some("science")).state == "wanted"
    assert one("standard", some("science"), now=MORNING).state == "missing"
    assert one("standard", some("science"), some("standard", 5), now=MORNING).state == "there"
    other = some("standard", 5, filter_name="J_G0202")
    assert one("standard", some("science"), other, now=MORNING).state == "missing"


def test_what_would_hurt_most_frames_comes_first_and_what_is_there_last():
    few = some("science", 4, 900, filter_name="J_G0202", exposure_time=60.0, coadds=1)
    found = needs(some("science", 9), few, some("standard", 5), some("dark"))
    assert [(n.kind, n.frames, n.state) for n in found] == [
        ("flat", 9, "wanted"),
        ("dark", 4, "wanted"),
        ("flat", 4, "wanted"),
        ("standard", 4, "wanted"),
        ("dark", 9, "there"),
        ("standard", 9, "there"),
        ("dark", 0, "not needed"),
    ]


@pytest.mark.parametrize(("on", "off"), [(1.005, 1.0051), (1.995, 2.004), (41.9949, 42.0), (0.02, 0.03)])
def test_halves_of_a_flat_whose_times_round_apart_belong_together(on, off):
    def half(kind, seconds):
        return some(kind, **LAMPS | {"exposure_time": seconds})

    lit = half("lampon", on)
    assert one("flat", some("science"), lit, half("lampoff", off)).taken == "10 + 10 of 10 + 10"
    assert one("flat", some("science"), lit, half("lampoff", on + 0.011)).taken == "10 + 0 of 10 + 10"
