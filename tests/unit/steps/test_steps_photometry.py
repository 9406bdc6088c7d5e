"""measureQuality and cleanReadout: what they say of frames whose stars, sky and pattern are known."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from pipeline.frame import SATURATED
from pipeline.headers import standards, zeropoint
from pipeline.primitive import Calibrations
from pipeline.steps.photometry import filter_magnitude, measure_quality
from pipeline.steps.readout import clean_readout
from tests.skyframes import calibrated, star_field

SECONDS = 20.002
ZERO_POINT = 26.40 - 0.1  # K', through a thin cloud
FS17_KPRIME = 12.290 + 0.22 * (12.363 - 12.290)


def standard(airmass=1.3, **cards):
    """FS 17 in the middle, nothing else."""
    rate = 10 ** (0.4 * (ZERO_POINT - FS17_KPRIME - 0.06 * (airmass - 1)))
    frame = calibrated(
        1, stars=[(0.0, 0.0, rate * SECONDS)], sky=0.0, kind="standard", object_name="FS 17", filter="Kprime"
    )
    return frame.evolve(cards={"AIRMASS": airmass, "SKYLEVEL": 30000.0, **cards})


def measured(frame):
    return measure_quality.run([frame])[0]


def test_zero_point_of_a_standard():
    out = measured(standard()).header
    assert out["ZPSTAR"] == "FS 17"
    assert out["ZPMAG"] == pytest.approx(FS17_KPRIME, abs=1e-4)
    assert out["MAGZPT"] == pytest.approx(ZERO_POINT, abs=0.01)
    assert abs(out["MAGZPT"] - ZERO_POINT) < 2 * out["MAGZERR"]
    assert 0.01 < out["MAGZERR"] < 0.03
    assert out["CLOUDEXT"] == pytest.approx(0.1, abs=0.015)
    assert out["CCBIN"] == "CC70"


def test_sharpness_and_background():
    frame = calibrated(1, stars=star_field(12, faintest=5e4), sky=0.0).evolve(
        cards={"SKYLEVEL": 30000.0, "AIRMASS": 1.5}
    )
    out = measured(frame)
    assert out.header["NSTARS"] >= 5
    assert out.header["FWHMPIX"] == pytest.approx(4.55, rel=0.03)  # 4.5 as the pixels see it
    assert out.header["MEANFWHM"] == pytest.approx(out.header["FWHMPIX"] * 0.1167, rel=0.01)
    assert out.header["ZENFWHM"] == pytest.approx(out.header["MEANFWHM"] * 1.5**-0.6, rel=1e-3)
    assert out.header["IQBIN"] == "IQ70"
    assert out.header["ELLIPTIC"] < 0.05
    assert 0 < out.header["FWHMERR"] < 0.1
    assert out.header["BGRATE"] == pytest.approx(30000 / SECONDS, rel=1e-3)
    assert out.header["BGMAG"] == pytest.approx(26.40 - 2.5 * np.log10(30000 / SECONDS / 0.1167**2), abs=0.02)
    assert out.header["MFWHMERR"] == pytest.approx(out.header["FWHMERR"] * 0.1167, rel=0.01, abs=1e-4)
    assert out.header["BGFRAMES"] == 1
    assert "BGRERR" not in out.header, "one exposure cannot say how far off it is"
    assert "MAGZPT" not in out.header
    assert out.objmask.any()
    assert len(out.catalog) == out.header["NSOURCES"]
    out.header.tostring()  # every card fits


def test_background_of_a_stack_is_the_mean_of_its_frames_with_their_scatter():
    levels = [30000.0, 30060.0, 30120.0, 30120.0]  # two took the level of one sky frame
    members = np.array([(level,) for level in levels], dtype=[("SKYLEVEL", "f4")])
    frame = calibrated(1, stars=star_field(3), sky=0.0).evolve(members=members, cards={"SKYLEVEL": 1.0})
    out = measured(frame).header
    assert out["BGRATE"] == pytest.approx(30060 / SECONDS, rel=1e-5)
    assert out["BGRERR"] == pytest.approx(60 / 3**0.5 / SECONDS, rel=1e-3)
    assert out["BGFRAMES"] == 3
    assert out["BGMAGERR"] == pytest.approx(0.0326, abs=1e-3)


def test_saturated_pixels_are_counted_and_give_no_zero_point():
    frame = standard()
    burnt = frame.evolve(dq=np.where(frame.sci > 0.7 * frame.sci.max(), SATURATED, np.uint16(0)))
    out = measured(burnt)
    assert out.header["SATFRAC"] > 0
    assert "MAGZPT" not in out.header
    assert "it is saturated" in out.notes[0]


def test_no_zero_point_in_a_filter_without_magnitudes():
    narrow = {"FILTER1": "Brgamma_G0218", "FILTER2": "open", "FILTER3": "pupil38_G5207"}
    out = measured(standard(**narrow))
    assert "MAGZPT" not in out.header
    assert "magnitude in Br(gamma) is not known" in out.notes[0]


def test_no_zero_point_with_a_bad_pixel_in_the_aperture():
    frame = standard()
    y, x = np.unravel_index(np.argmax(frame.sci), frame.shape)
    dq = frame.dq.copy()
    dq[y + 7, x + 3] = 1
    out = measured(frame.evolve(dq=dq))
    assert "MAGZPT" not in out.header
    assert "bad pixels or no sky" in out.notes[0]


def test_an_empty_field_has_no_stars_and_no_error():
    out = measured(calibrated(1, sky=0.0))
    assert out.header["NSTARS"] == 0
    assert out.catalog is None
    assert "MEANFWHM" not in out.header


def test_magnitudes_in_the_filters_of_niri():
    fs17, red = standards.find("FS 17"), standards.find("FS 143")
    assert filter_magnitude(fs17, "K") == (12.290, 0.011)
    assert filter_magnitude(fs17, "K(prime)")[0] == pytest.approx(FS17_KPRIME)
    assert filter_magnitude(fs17, "K(short)")[0] == pytest.approx(12.290 + 0.002 + 0.026 * (12.668 - 12.290))
    assert filter_magnitude(fs17, "L(prime)") is None
    assert filter_magnitude(red, "K")[0] == 12.923
    assert filter_magnitude(red, "K(prime)") is None  # too red for a colour term


def test_clean_readout_is_off_unless_asked():
    frame = calibrated(1, sky=0.0)
    assert clean_readout.run([frame])[0] is frame


def test_stripes_go_and_a_star_stays():
    frame = calibrated(1, stars=[(0.0, 0.0, 3e5)], sky=0.0)
    stripes = np.tile(30 * np.cos(2 * np.pi * np.arange(8) / 8), (256, 32)).astype(np.float32)
    (out,) = clean_readout.run([frame.evolve(sci=frame.sci + stripes)], clean="fft")
    assert np.std(out.sci - frame.sci) < 0.3 * np.std(stripes)
    assert out.header["PATTRMS"] == pytest.approx(np.std(stripes), rel=0.15)
    middle = np.s_[108:148, 108:148]
    assert out.sci[middle].sum() == pytest.approx(frame.sci[middle].sum(), rel=0.01)


def test_boxes_go():
    frame = calibrated(1, sky=0.0)
    box = np.random.default_rng(1).normal(0, 60, (4, 16))
    pattern = np.tile(box - box.mean(), (64, 16)).astype(np.float32)
    (out,) = clean_readout.run([frame.evolve(sci=frame.sci + pattern)], clean="default")
    assert out.header["PATTQUAD"] == 4
    left = out.sci - frame.sci
    assert np.std(left - np.median(left)) < 0.35 * np.std(pattern)


def test_other_images_carry_the_zero_point_of_a_standard():
    """Near the zenith, by a standard at airmass 2: the extinction between them is the error."""
    given = zeropoint.read(dict(measured(standard(airmass=2.0)).header), "N20160102S0296_image.fits")
    assert given.at(2.0, 0.06, 0.03)[1] < given.error  # of the extinction below it nothing is felt there
    science = calibrated(1, stars=star_field(12), sky=0.0).evolve(cards={"AIRMASS": 1.2})
    out = measure_quality.run([science], cals=Calibrations(zero_points=(given,)))[0].header
    assert out["MAGZPT"] == pytest.approx(ZERO_POINT, abs=0.01)
    measured_at_2 = given.at(2.0, 0.06, 0.03)[1]
    assert out["MAGZERR"] == pytest.approx(np.hypot(measured_at_2, 0.03 * 0.8), abs=2e-4)
    carried = ("ZPSTAR", "ZPIMAGE", "ZPAIRMAS", "CCBIN", "KEXT")
    assert [out[key] for key in carried] == ["FS 17", "N20160102S0296_image", 2.0, "CC70", 0.06]
    assert out["CLOUDEXT"] == pytest.approx(0.1, abs=0.015)
    assert zeropoint.read(dict(out), "science") is None, "it has none of its own to give"
    out.tostring()


def members(*transparency):
    rows = np.zeros(len(transparency), [("SKYLEVEL", "f4"), ("TRANSPARENCY", "f8"), ("TRANSP_ERR", "f8")])
    rows["SKYLEVEL"], rows["TRANSPARENCY"] = 30000.0, transparency
    return rows


def test_the_scatter_between_the_frames_of_a_standard_is_in_its_error():
    steady = measured(standard().evolve(members=members(1.0, 1.0, 1.0, 1.0)))
    cloudy = measured(standard().evolve(members=members(1.0, 0.8, 0.7, 0.9)))
    scatter = np.std(-2.5 * np.log10([1.0, 0.8, 0.7, 0.9]), ddof=1)
    assert cloudy.header["ZPFSCAT"] == pytest.approx(scatter, abs=1e-4)
    expected = np.hypot(steady.header["MAGZERR"], scatter / 2)
    assert cloudy.header["MAGZERR"] == pytest.approx(expected, abs=2e-4)
    assert any("in cloud" in text and "limit 0.05" in text for text in cloudy.notes)
    assert not steady.notes
    given = zeropoint.read(dict(cloudy.header), "cloudy_image")
    science = calibrated(1, stars=star_field(12), sky=0.0)
    (out,) = measure_quality.run([science], cals=Calibrations(zero_points=(given,)))
    assert out.header["PHOTOM"] is False
    assert any("not photometric" in text for text in out.notes)


def test_a_zero_point_that_no_sky_gives_has_no_cloud_cover_and_is_passed_on_to_nobody():
    dream = measured(standard(EXPTIME=SECONDS / 1.9))  # the exposure was longer than its header says
    assert dream.header["CLOUDEXT"] == pytest.approx(0.1 - 2.5 * np.log10(1.9), abs=0.02)
    assert "CCBIN" not in dream.header
    assert any("impossible" in text and "above nominal 26.40" in text for text in dream.notes)
    given = zeropoint.read(dict(dream.header), "dream_image")
    science = calibrated(1, stars=star_field(12), sky=0.0)
    (out,) = measure_quality.run([science], cals=Calibrations(zero_points=(given,)))
    assert "MAGZPT" not in out.header
    assert out.header["ZPLEV"] == 3
    assert any("dream_image" in text and "not used: impossible" in text for text in out.notes)
    fine = zeropoint.read(dict(measured(standard()).header), "fine_image")
    (out,) = measure_quality.run([science], cals=Calibrations(zero_points=(given, fine)))
    assert (out.header["ZPIMAGE"], out.header["ZPNSTD"]) == ("fine_image", 1)
    assert out.header["MAGZPT"] == pytest.approx(ZERO_POINT, abs=0.01)


@pytest.mark.parametrize(
    ("hours", "airmass", "level"),
    [(2.9, 1.2, 0), (-2.9, 1.51, 1), (3.1, 1.2, 1), (-12.1, 1.2, 2), (None, 1.2, 3)],
)
def test_how_good_a_zero_point_is_by_its_time_and_airmass(hours, airmass, level):
    science = calibrated(1, stars=star_field(12), sky=0.0).evolve(cards={"AIRMASS": 1.2})
    given = zeropoint.read(dict(measured(standard()).header), "fine_image")
    when = science.descriptors.ut_datetime
    ut = None if hours is None else when + timedelta(hours=hours)
    given = replace(given, ut=ut, airmass=airmass)
    (out,) = measure_quality.run([science], cals=Calibrations(zero_points=(given,)))
    assert out.header["ZPLEV"] == level


def test_without_a_standard_only_the_nominal_zero_point_is_known_and_a_standard_has_its_own():
    out = measured(calibrated(1, stars=star_field(12), sky=0.0))
    assert (out.header["ZPLEV"], "MAGZPT" in out.header) == (3, False)
    assert "no standard" in out.header.comments["ZPLEV"]
    assert "ZPLEV" not in measured(standard()).header


def test_what_was_wrong_with_the_standard_is_said_of_the_image():
    given = replace(zeropoint.read(dict(measured(standard()).header), "std_image"), notes=("no dark",))
    (out,) = measure_quality.run([calibrated(1, sky=0.0)], cals=Calibrations(zero_points=(given,)))
    assert "std_image: no dark" in out.notes


def test_another_extinction_moves_the_zero_point_as_the_standard_saw_it():
    given = zeropoint.ZeroPoint(26.0, 0.02, "FS 17", 12.3, airmass=1.5, extinction=0.06,
                                extinction_error=0.0, image="x")  # fmt: skip
    assert given.at(1.0, 0.10, 0.0) == pytest.approx((26.02, 0.02))


def test_a_standard_has_its_own_zero_point():
    other = zeropoint.ZeroPoint(20.0, 0.02, "FS 18", 12.3, 1.5, 0.06, 0.03, "x")
    out = measure_quality.run([standard()], cals=Calibrations(zero_points=(other,)))[0].header
    assert out["ZPSTAR"] == "FS 17"
    assert "ZPIMAGE" not in out
