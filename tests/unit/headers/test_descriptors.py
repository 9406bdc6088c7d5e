"""Descriptors of headers: the rules, and the odd headers that real files have."""

from datetime import UTC, datetime

import pytest

from pipeline.headers.descriptors import Descriptors, describe, describes, strip_ids
from pipeline.headers.merged import facts_digest, merge
from pipeline.headers.values import sane_wcs

WCS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 512.5, "CRPIX2": 512.5, "CRVAL1": 148.9,
    "CRVAL2": 69.7, "CD1_1": -3.2528e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 3.2528e-5,
}  # fmt: skip


def facts(**cards) -> Descriptors:
    return describe(cards, shape=(1024, 1024))


def test_exposure_is_of_all_coadds_until_prepared():
    assert facts(EXPTIME=15.001, COADDS=3).exposure_time == pytest.approx(45.003)
    assert facts(EXPTIME=45.003, COADDS=3, PREPARE="x").exposure_time == pytest.approx(45.003)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "INDEF", None, True])
def test_exposure_that_is_no_time_is_none(value):
    assert facts(EXPTIME=value).exposure_time is None


@pytest.mark.parametrize(
    ("lnrs", "ndavgs", "mode", "noise"),
    [
        (16, 16, "Low Background", 12.3),
        (1, 16, "Medium Background", 35.0),
        (1, 1, "High Background", 70.0),
        (8, 1, "Unknown", 35.0),
    ],
)
def test_read_mode_and_noise(lnrs, ndavgs, mode, noise):
    found = facts(LNRS=lnrs, NDAVGS=ndavgs, COADDS=4)
    assert found.read_mode == mode
    assert found.read_noise == pytest.approx(2 * noise)


@pytest.mark.parametrize(
    ("vdduc", "vdet", "well"),
    [
        (-3.4065, -2.8072, "Shallow"),
        (-3.491, "-2.602", "Deep"),
        (-3.4, -2.4, "Unknown"),
        (None, -2.4, "Unknown"),
    ],
)
def test_well_depth_also_from_a_voltage_written_as_text(vdduc, vdet, well):
    assert facts(A_VDDUC=vdduc, A_VDET=vdet).well_depth == well


def test_levels_are_whole_adu_times_coadds():
    shallow = {"A_VDDUC": -3.4, "A_VDET": -2.8}
    one = facts(**shallow)
    assert (one.saturation_level, one.non_linear_level) == (16260, 11382)
    assert facts(**shallow, COADDS=100).saturation_level == 1626016
    assert facts(A_VDDUC=-3.47, A_VDET=-2.6).saturation_level == 22764
    assert facts().saturation_level is None


@pytest.mark.parametrize(
    ("wheels", "name", "pretty"),
    [
        (("Kprime_G0206", "open", "pupil38_G5207"), "Kprime_G0206", "K(prime)"),
        (("open", "Kprime_G0206", "Pupil38_G5207"), "Kprime_G0206", "K(prime)"),
        (("PK50_G0201", "open", "CH4long_G0229"), "CH4long_G0229&PK50_G0201", "CH4(long)"),
        (("PK50_G0201", "CH4long_G0229", "Pupil38"), "CH4long_G0229&PK50_G0201", "CH4(long)"),
        (("K_G0204", "H2v=1-0S1_G0216", "Pupil38"), "H2v=1-0S1_G0216&K_G0204", "H2 1-0 S1"),
        (("PK50_G0201", "open", "blank"), "blank", "blank"),
        (("Ksort_G0211", "blank_G1234", "Kgrism_G5204"), "blank", "blank"),
        (("open", "open", "pupil38"), "open", "open"),
        (("J_G0202", "open", "pup38_G5103"), "J_G0202&pup38_G5103", "J&pup38"),
    ],
)
def test_filter_name(wheels, name, pretty):
    found = facts(FILTER1=wheels[0], FILTER2=wheels[1], FILTER3=wheels[2])
    assert found.filter_name == name
    assert found.filter_pretty == pretty


def test_strip_ids_of_a_combination():
    assert strip_ids("CH4long_G0229&PK50_G0201") == "CH4long&PK50"


@pytest.mark.parametrize(
    ("lamp", "shutter", "told"),
    [
        ("IRhigh", "OPEN", "IRhigh"),
        ("IRhigh", "CLOSED", "Off"),
        ("QH", "OPEN", "QH"),
        ("No Value", "OPEN", "Off"),
        ("Ar", "CLOSED", "Ar"),
    ],
)
def test_lamp(lamp, shutter, told):
    assert facts(GCALLAMP=lamp, GCALSHUT=shutter).gcal_lamp == told


def test_sub_array_is_centred_whatever_the_window_cards_say():
    found = describe({"LOWROW": 0, "LOWCOL": 0}, shape=(256, 256))
    assert found.array_section == "[385:640,385:640]"
    assert found.data_section == "[1:256,1:256]"
    assert found.detector_roi_setting == "Central256"


@pytest.mark.parametrize(
    ("cards", "when"),
    [
        ({"DATE-OBS": "2016-01-02", "UT": "06:02:11.5"}, datetime(2016, 1, 2, 6, 2, 11, 500000)),
        ({"DATE-OBS": "2016-01-02T06:02:11", "UT": "01:00:00"}, datetime(2016, 1, 2, 6, 2, 11)),
        ({"DATE-OBS": "02/01/99", "TIME-OBS": "06:02:11"}, datetime(1999, 1, 2, 6, 2, 11)),
        ({"DATE-OBS": "rubbish", "DATE": "2016-01-02", "UT": "06:02:11"}, datetime(2016, 1, 2, 6, 2, 11)),
        ({"DATE-OBS": "2016-01-02", "UT": "23:59:60.3"}, datetime(2016, 1, 2, 23, 59, 59, 300000)),
        ({"MJD_OBS": 57389.25}, datetime(2016, 1, 2, 6)),
    ],
)
def test_time_of_exposure(cards, when):
    assert describe(cards).ut_datetime == when.replace(tzinfo=UTC)


def test_time_falls_back_to_the_file_name_then_to_none():
    assert describe({}, filename="N20160102S0270.fits").ut_datetime == datetime(2016, 1, 2, tzinfo=UTC)
    assert describe({}, filename="whatever.fits").ut_datetime is None


def test_end_after_midnight_is_the_next_day():
    found = facts(**{"DATE-OBS": "2016-01-02", "UT": "23:59:50", "UTEND": "00:00:12"}, EXPTIME=20.0)
    assert found.ut_end == datetime(2016, 1, 3, 0, 0, 12, tzinfo=UTC)


@pytest.mark.parametrize("odd", [{"EXPTIME": 4.2e16}, {"EXPTIME": 9e11}, {"DATE-OBS": "9999-12-31"}])
def test_an_end_beyond_the_calendar_is_unknown(odd):
    given = {"DATE-OBS": "2016-01-02", "UT": "23:59:50", "EXPTIME": 20.0, **odd}
    assert facts(**given, UTEND="00:00:12" if "DATE-OBS" in odd else "").ut_end is None


def test_offsets_on_the_detector_and_the_mirrored_port():
    cards = {**WCS, "POFFSET": 5.0, "QOFFSET": 3.0, "INPORT": 5}
    found = facts(**cards)
    scale = found.pixel_scale
    assert scale == pytest.approx(0.1171, rel=1e-4)
    assert (found.detector_x_offset, found.detector_y_offset) == pytest.approx((5 / scale, -3 / scale))
    assert facts(**{**cards, "INPORT": 1}).detector_x_offset == pytest.approx(-5 / scale)
    assert facts(**{**cards, "INPORT": 1}, AOFOLD="IN").detector_x_offset == pytest.approx(5 / scale)


def test_target_moves_with_its_proper_motion():
    found = facts(
        **{"DATE-OBS": "2010-01-01", "UT": "00:00:00"}, RA=10.0, DEC=0.0, EPOCH=2000.0, PMRA=0.1, PMDEC=-1.0
    )
    assert found.target_ra == pytest.approx(10.0 + 0.1 * 15 * 10 / 3600, abs=1e-6)
    assert found.target_dec == pytest.approx(-10 / 3600, abs=1e-6)


def test_coordinates_as_sexagesimal_text():
    found = facts(RA="08:51:19.3", DEC="-00:11:52.0")
    assert found.ra == pytest.approx(132.8304, abs=1e-3)
    assert found.dec == pytest.approx(-0.19778, abs=1e-4)


@pytest.mark.parametrize(
    ("pi", "gemini", "state"),
    [
        ("YES", "USABLE", "Pass"),
        ("NO", "USABLE", "Usable"),
        ("NO", "BAD", "Fail"),
        ("CHECK", "USABLE", "CHECK"),
        ("UNKNOWN", "BAD", "Undefined"),
        (None, None, "Undefined"),
    ],
)
def test_quality_assessment(pi, gemini, state):
    assert facts(RAWPIREQ=pi, RAWGEMQA=gemini).qa_state == state


def test_descriptors_survive_json():
    found = facts(**WCS, **{"DATE-OBS": "2016-01-02", "UT": "06:02:11.5"}, EXPTIME=20.002)
    assert Descriptors.from_json(found.to_json()) == found
    assert Descriptors.from_json({**found.to_json(), "of_a_later_release": 1}) == found


class TestMerge:
    """One mapping from the two headers of a file."""

    def test_a_corrupt_extension_wcs_gives_way_to_the_primary_copy(self):
        merged = merge({**WCS, "OBJECT": "x"}, {**WCS, "CD1_1": -3.2524270027565e-55, "LOWROW": 0})
        assert merged["CD1_1"] == WCS["CD1_1"]
        assert merged["LOWROW"] == 0

    def test_a_sane_extension_wcs_wins(self):
        assert merge(WCS, {**WCS, "CRPIX1": 500.0})["CRPIX1"] == 500.0

    def test_degenerate_wcs_is_not_sane(self):
        none = {**WCS, "CRPIX1": 0.0, "CRVAL1": 0.0, "CD1_1": 1.0, "CD2_2": 1.7}
        assert not sane_wcs(none)
        assert sane_wcs(WCS)

    def test_storage_cards_stay_out(self):
        merged = merge({"SIMPLE": True, "OBJECT": "x"}, {"XTENSION": "IMAGE", "ZBITPIX": -32, "BZERO": 32768})
        assert merged == {"OBJECT": "x"}
        ours = {"ZPSTAR": "FS 17", "ZENFWHM": 0.5, "ZPMAG": 12.3, "ZD": 10.0}
        assert merge(ours, {"ZNAXIS1": 1024, "ZTILE1": 1024, "ZCMPTYPE": "RICE_1"}) == ours

    def test_facts_digest_sees_values_not_writing(self):
        first = {"OBJECT": "FS 17  ", "COADDS": 1, "RAWGEMQA": "USABLE", "COMMENT": "a"}
        again = {"COADDS": 1.0, "RAWGEMQA": "BAD", "OBJECT": "FS 17"}
        assert facts_digest(first) == facts_digest(again)
        assert facts_digest({**first, "OBJECT": "FS 18"}) != facts_digest(first)


class Watched(dict):
    """Cards that remember what was asked of them."""

    def __init__(self, *given, **cards):
        super().__init__(*given, **cards)
        self.asked = set()

    def get(self, key, default=None):
        self.asked.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.asked.add(key)
        return super().__contains__(key)


def test_every_card_that_descriptors_come_from_makes_them_anew():
    times = {"DATE-OBS": "2016-01-02", "UT": "06:00:00", "EXPTIME": 20.0, "FRAME": "FK5"}
    for cards in (Watched(), Watched(WCS | times, PREPARE="x", SATLEVEL=1.0, PMRA=0.1)):
        describe(cards)
        assert cards.asked
        assert [key for key in cards.asked if not describes([key])] == []
    assert describes(["PREPARE"])
    assert not describes(["GEM-TLM", "SKYLEVEL"])
