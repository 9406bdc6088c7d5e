"""Darks, flats, masks and stacks: the truth comes back, with the noise claimed, and the headers say so."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import pytest
from astropy.io import fits

from pipeline import params
from pipeline.errors import BadFrame, CalibrationNotFound, FrameMismatch, NotEnoughFrames
from pipeline.frame import Frame
from pipeline.headers.merged import merge
from pipeline.primitive import NO_CALIBRATIONS, Calibrations, Primitive
from pipeline.simulate import Shot
from pipeline.steps.badpixels import make_bpm, stack_bpm_darks
from pipeline.steps.counts import add_var, adu_to_electrons, nonlinearity_correct
from pipeline.steps.darks import dark_correct, stack_darks
from pipeline.steps.flats import (
    flat_correct,
    make_lamp_flat,
    normalize_flat,
    threshold_flatfield,
)
from pipeline.steps.prepare import prepare
from pipeline.steps.quality import add_dq, remove_first_frame
from pipeline.steps.stack import stack_frames

SHAPE = (256, 256)
SHOT = Shot(shape=SHAPE).with_dark(0.25, pedestal=131.0)


def frame_of(shot: Shot, seed: int) -> Frame:
    raw = shot.render(seed)
    header = fits.Header(list(merge(raw.phu, raw.ext).items()))
    return Frame(raw.adu, np.zeros(shot.shape, np.uint16), header, "adu", f"{shot.name}.fits")


def shots(shot: Shot, number: int, first: int = 1, gap: float = 40.0) -> list[Shot]:
    """The same exposure again and again, with names and times of their own."""
    return [
        dataclasses.replace(
            shot,
            name=f"N20160102S{first + i:04d}",
            start=shot.start + timedelta(seconds=i * gap),
            number=i + 1,
        )
        for i in range(number)
    ]


def frames_of(shot: Shot, number: int, first: int = 1, gap: float = 40.0) -> list[Frame]:
    return [frame_of(s, 100 * first + i) for i, s in enumerate(shots(shot, number, first, gap))]


def preset(primitive: Primitive, **values):
    """Parameters of the preset `dragons`."""
    built, problems = params.build(primitive.params, values, preset="dragons")
    assert not problems
    return built


def ready(frames: list[Frame], cals: Calibrations = NO_CALIBRATIONS, **noise) -> list[Frame]:
    """As the recipes for darks and flats begin."""
    for step in (prepare, add_dq, nonlinearity_correct, adu_to_electrons):
        frames = step.run(frames, None, cals)
    return add_var.run(frames, None, cals, read_noise=True, poisson_noise=True, **noise)


def robust(values: np.ndarray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


# ---- darks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_mode", ["Low Background", "Medium Background", "High Background"])
def test_dark_is_the_truth_with_its_noise(read_mode):
    shot = dataclasses.replace(SHOT, kind="dark", read_mode=read_mode).with_cosmic_rays()
    (dark,) = stack_darks.run(ready(frames_of(shot, 10)))
    good = dark.dq == 0
    residual = (dark.sci - (0.25 * 20.002 + 131))[good]
    assert good.mean() > 0.999
    # Means, for the counts of a perfectly even detector are whole ADU, and so are medians.
    assert abs(residual.mean()) < 0.15 + 3 * robust(residual) / np.sqrt(residual.size)
    pull = residual / np.sqrt(dark.var[good])
    assert (np.abs(pull) > 5).mean() < 1e-4  # no cosmic ray is left
    assert 0.97 < pull[np.abs(pull) < 5].std() < 1.03


def test_pedestal_is_photons_for_dragons():
    frames = ready(frames_of(dataclasses.replace(SHOT, kind="dark"), 1), pedestal=False)
    assert np.median(frames[0].var) == pytest.approx(35**2 + 131 + 5, rel=0.01)
    frames = ready(frames_of(dataclasses.replace(SHOT, kind="dark"), 1))
    assert np.median(frames[0].var) == pytest.approx(35**2 + 5, rel=0.01)


def test_pedestal_of_a_science_frame_is_that_of_its_dark():
    (dark,) = stack_darks.run(ready(frames_of(dataclasses.replace(SHOT, kind="dark"), 3)))
    frames = adu_to_electrons.run(prepare.run(frames_of(SHOT.with_sky(100), 1)))
    noise = {"read_noise": True, "poisson_noise": True}
    (frame,) = add_var.run(frames, None, Calibrations(dark=dark), **noise)
    assert np.median(frame.var) == pytest.approx(35**2 + 100.25 * 20, rel=0.01)
    (frame,) = add_var.run(frames, None, **noise)
    assert np.median(frame.var) == pytest.approx(35**2 + 100.25 * 20 + 131, rel=0.01)


def test_noise_is_scaled_with_the_counts():
    """A short exposure in the slowest read mode: linearity scales counts to 2/3, and so their noise."""
    shot = Shot(shape=(1024, 1024), read_mode="Low Background", exposure=2.5, kind="flaton").with_sky(4000)
    (frame,) = ready([frame_of(shot, 6)])
    pull = (frame.sci - frame.sci.mean()) / np.sqrt(frame.var)
    assert pull.std() == pytest.approx(1, abs=0.02)
    (frame,) = ready([frame_of(shot, 6)], time_scaled=False)
    pull = (frame.sci - frame.sci.mean()) / np.sqrt(frame.var)
    assert pull.std() == pytest.approx(np.sqrt(2.5 / (2.5 + 1.2663)), abs=0.02)


def test_header_of_a_dark():
    frames = ready(frames_of(dataclasses.replace(SHOT, kind="dark", coadds=4), 3))
    (dark,) = stack_darks.run(frames)
    header = dark.header
    assert header["NCOMBINE"] == 3
    assert [header[f"IMCMB{i:03d}"] for i in (1, 2, 3)] == [f"N20160102S000{i}.fits" for i in (1, 2, 3)]
    assert header["DATALAB"].endswith("-001-STACK")
    assert header["STACKFRM"] == frames[2].stamp
    assert header["EXPTIME"] == pytest.approx(4 * 20.002)
    assert header["RDNOISE"] == pytest.approx(70)  # of one frame: 35 for each of 4 coadds
    assert header["GAIN"] == 1.0
    assert header["VARNOISE"] == "read, Poisson"
    assert header["LINCORR"] == header["ADUTOELE"] or header["LINCORR"] == frames[0].stamp
    assert dark.coverage is None


def test_darks_that_do_not_go_together():
    dark = dataclasses.replace(SHOT, kind="dark")
    other = dataclasses.replace(dark, exposure=10.0)
    with pytest.raises(FrameMismatch, match=r"10\.0 s, wanted 20\.002 s"):
        stack_darks.run(prepare.run([frame_of(dark, 1), frame_of(other, 2)]))
    with pytest.raises(FrameMismatch, match="wanted DARK"):
        stack_darks.run(prepare.run([frame_of(dark, 1), frame_of(SHOT, 2)]))
    with pytest.raises(FrameMismatch, match="coadds"):
        stack_darks.run(
            prepare.run(
                [frame_of(dark, 1), frame_of(dataclasses.replace(dark, exposure=10.001, coadds=2), 2)]
            )
        )
    (lone,) = stack_darks.run(ready([frame_of(dark, 1)]))
    assert "only one dark" in lone.notes[0]


# ---- counts ------------------------------------------------------------------------------------------------


def test_electrons():
    (frame,) = adu_to_electrons.run(prepare.run([frame_of(SHOT, 1)]))
    assert frame.unit == frame.header["BUNIT"] == "electron"
    assert frame.header["SATLEVEL"] == 199998.0
    assert frame.header["NONLINEA"] == 139998.6
    assert adu_to_electrons.run([frame])[0] is frame
    assert frame.sci.dtype == np.float32


@pytest.mark.parametrize("light", [100.0, 6000.0])
@pytest.mark.parametrize("coadds", [1, 4])
def test_linearity_gives_back_what_fell_on_the_detector(light, coadds):
    shot = dataclasses.replace(SHOT, coadds=coadds, exposure=20.0).with_sky(light)
    truth = 20 * coadds * (light + 0.25) + 131 * coadds
    linear = nonlinearity_correct.run(prepare.run([frame_of(shot, 5)]))
    (before,) = adu_to_electrons.run(linear)
    (after,) = nonlinearity_correct.run(adu_to_electrons.run(prepare.run([frame_of(shot, 5)])))
    for frame in (before, after):  # it may stand on either side of the conversion
        # 1e-3: the time delta belongs to the exposure, the simulated pedestal is not scaled by it.
        assert frame.sci.mean() == pytest.approx(truth, rel=1e-3)
    np.testing.assert_allclose(before.sci, after.sci, rtol=1e-6)
    assert before.header["SATLEVEL"] == pytest.approx(after.header["SATLEVEL"], abs=0.02)
    assert after.header["EXPTIME"] == pytest.approx(20 * coadds)


def test_levels_are_linearised_with_the_pixels():
    shot = dataclasses.replace(SHOT, read_mode="High Background", shape=(1024, 1024))
    raw = shot.headers()
    header = fits.Header(list(merge(*raw).items()))
    flat = Frame(
        np.full((1024, 1024), 5000, np.float32), np.zeros((1024, 1024), np.uint16), header, "adu", "x.fits"
    )
    (frame,) = nonlinearity_correct.run(adu_to_electrons.run(prepare.run([flat])))
    assert frame.header["SATLEVEL"] == 234423.193
    assert frame.header["NONLINEA"] == 153259.698
    assert frame.sci[0, 0] == pytest.approx(63117.732, abs=0.01)


def test_no_coefficients_is_said():
    shot = dataclasses.replace(SHOT, well="Deep").with_sky(500)
    (before,) = prepare.run([frame_of(shot, 1)])
    (after,) = nonlinearity_correct.run([before])
    np.testing.assert_array_equal(after.sci, before.sci)
    assert after.header["LINCORR"] == "none"
    assert "no linearity coefficients" in after.notes[0]


def test_variance_is_added_once():
    (frame,) = adu_to_electrons.run(prepare.run([frame_of(SHOT.with_sky(100), 1)]))
    (read,) = add_var.run([frame], read_noise=True)
    assert read.header["VARNOISE"] == "read"
    np.testing.assert_array_equal(read.var, 35.0**2)
    (both,) = add_var.run([read], read_noise=True, poisson_noise=True)
    assert both.header["VARNOISE"] == "read, Poisson"
    np.testing.assert_allclose(both.var, 35**2 + frame.sci, rtol=1e-6)
    assert add_var.run([both], read_noise=True, poisson_noise=True)[0] is both
    assert add_var.run([frame])[0].var is None
    (adu,) = add_var.run(prepare.run([frame_of(SHOT.with_sky(100), 1)]), read_noise=True, poisson_noise=True)
    np.testing.assert_allclose(adu.var, both.var / 12.3**2, rtol=1e-5)


def test_no_read_noise_in_the_header():
    with pytest.raises(BadFrame, match="RDNOISE"):
        add_var.run([frame_of(SHOT, 1)], read_noise=True)


# ---- data quality ------------------------------------------------------------------------------------------


def with_pixels(frame: Frame, *values: tuple) -> Frame:
    sci = frame.sci.copy()
    for place, value in values:
        sci[place] = value
    return frame.evolve(sci=sci)


def test_dq_bits():
    star = np.s_[100:111, 100:111]
    (frame,) = prepare.run(
        [with_pixels(frame_of(SHOT, 1), ((5, 6), 12000), ((7, 8), 16300), ((9, 9), np.nan), (star, 20000))]
    )
    (frame,) = prepare.run([with_pixels(frame, (np.s_[103:106, 104:107], 30))])  # the hole in a star
    mask = np.zeros((1024, 1024), np.uint16)
    mask[384, 384], mask[385, 384] = 1, 64
    bpm = frame.evolve(sci=np.zeros((1024, 1024), np.float32), dq=mask, name="bpm.fits")
    user = frame.evolve(dq=np.eye(256, dtype=np.uint16))
    (out,) = add_dq.run([frame], None, Calibrations(static_bpm=bpm, user_bpm=user))
    assert (out.dq[5, 6], out.dq[7, 8], out.dq[9, 8]) == (2, 4, 0)
    assert out.dq[9, 9] == 16 | 1
    assert out.sci[9, 9] == 0
    assert (out.dq[0, 0], out.dq[1, 0]) == (1, 64)
    assert (out.dq[star] & 4 == 4).all()
    assert np.count_nonzero(out.dq & 4) == 11 * 11 + 1
    assert (frame.dq == 0).all()
    (alone,) = add_dq.run([frame], None, Calibrations(static_bpm=bpm), static_bpm=None)
    assert alone.dq[0, 0] == 0
    (again,) = add_dq.run([out], None, Calibrations(static_bpm=bpm))
    np.testing.assert_array_equal(again.dq, out.dq)
    assert "kept" in again.notes[0]


@pytest.mark.parametrize("value", [-17000, -99999, -1e9, -2.1e9, -np.inf, np.inf, np.nan])
def test_what_no_pixel_can_hold_is_no_data_before_any_arithmetic(value):
    frame = with_pixels(frame_of(SHOT, 1), (np.s_[3:5, 3:6], value), ((9, 9), -9999))
    (out,) = add_dq.run(prepare.run([frame]))
    assert (out.dq[3:5, 3:6] == 16).all()
    assert (out.sci[3:5, 3:6] == 0).all()
    assert (out.sci[9, 9], out.dq[9, 9]) == (-9999, 0)  # a pixel that was hit before it was read at first
    assert np.count_nonzero(out.dq & 16) == 6


@pytest.mark.parametrize(("value", "bit"), [(0, 16), (7, 16), (507, 16), (-5, 16), (16300, 4), (60000, 4)])
@pytest.mark.parametrize("others", [0, 500])  # hot pixels in an image of one number
def test_an_image_of_one_number_was_never_read(value, bit, others):
    (frame,) = prepare.run([frame_of(SHOT, 1)])
    sci = np.full(SHAPE, value, np.float32)
    sci.flat[np.random.default_rng(1).choice(sci.size, others, replace=False)] = 9000
    (out,) = add_dq.run([frame.evolve(sci=sci)])
    assert np.mean((out.dq & bit) > 0) > 0.99
    assert bool(out.notes) == (bit == 16)
    assert not out.notes or f"all are {value}, as where nothing was read out" in out.notes[0]


def test_masks_that_do_not_fit():
    (frame,) = prepare.run([frame_of(SHOT, 1)])
    small = frame.evolve(sci=np.zeros((128, 128), np.float32), dq=np.zeros((128, 128), np.uint16))
    with pytest.raises(FrameMismatch, match="does not cover"):
        add_dq.run([frame], None, Calibrations(static_bpm=small))
    with pytest.raises(CalibrationNotFound, match=r"mine\.fits"):
        add_dq.run([frame], user_bpm="mine.fits")


def test_latency_lasts_two_minutes():
    frames = prepare.run(frames_of(SHOT, 5, gap=40.0))
    frames[1] = with_pixels(frames[1], ((30, 40), 20000), ((31, 40), 13000))
    out = add_dq.run(frames)
    assert [int(frame.dq[30, 40]) for frame in out] == [0, 4, 8, 8, 0]  # strictly less than 120 s
    assert [int(frame.dq[31, 40]) for frame in out] == [0, 2, 0, 0, 0]
    assert [int(f.dq[31, 40]) for f in add_dq.run(frames, non_linear=True)] == [0, 2, 8, 8, 0]
    assert [int(f.dq[30, 40]) for f in add_dq.run(frames[::-1])] == [0, 8, 8, 4, 0]  # by time, not by order
    assert [int(f.dq[30, 40]) for f in add_dq.run(frames, latency=False)] == [0, 4, 0, 0, 0]


def test_first_frame():
    frames = frames_of(SHOT, 4)
    kept = remove_first_frame.run(frames[::-1])
    assert [frame.name for frame in kept] == [frame.name for frame in frames[:0:-1]]
    assert "N20160102S0001.fits left out" in kept[0].notes[0]
    assert len(remove_first_frame.run(frames, remove_first=False)) == 4
    kept = remove_first_frame.run(frames, remove_files=("S0003", "N20160102S0001.fits"))
    assert [frame.name for frame in kept] == ["N20160102S0004.fits"]
    assert len(remove_first_frame.run(frames[:1])) == 1


# ---- flats and masks ---------------------------------------------------------------------------------------


def lamp(number: int, response: np.ndarray, light: float = 24000.0) -> list[Frame]:
    shot = dataclasses.replace(SHOT, exposure=2.001).with_flat(response).with_cosmic_rays()
    on = dataclasses.replace(shot, kind="flaton").with_sky(light + 700)
    off = dataclasses.replace(shot, kind="flatoff", start=shot.start - timedelta(seconds=900)).with_sky(700)
    return frames_of(off, number, 11, 8.0) + frames_of(on, number, 51, 8.0)


def response_image(seed: int = 9) -> np.ndarray:
    response = np.random.default_rng(seed).normal(1, 0.03, SHAPE)
    return (response / np.median(response)).astype(np.float32)


@pytest.mark.parametrize("number", [3, 10])
def test_flat_is_the_response_with_its_noise(number):
    truth = response_image()
    frames = make_lamp_flat.run(ready(lamp(number, truth)))
    (flat,) = threshold_flatfield.run(normalize_flat.run(frames))
    good = flat.dq == 0
    ratio = (flat.sci / truth)[good]
    pull = ((flat.sci - truth) / np.sqrt(flat.var))[good]
    assert good.mean() > 0.999
    assert abs(np.median(ratio) - 1) < 1e-5 + 3 * 1.25 * robust(ratio) / np.sqrt(ratio.size)
    assert 0.97 < robust(pull) < 1.03
    assert (np.abs(pull) > 5.5).mean() < 1e-4
    assert flat.name == flat.header["IMCMB001"] == "N20160102S0051.fits"
    assert np.median(flat.sci[good]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "light", [(0.99, 1, 1.01), (1.01, 1, 0.99), (1, 1.02, 1), (0.9, 1.0, 1.15), "quarter"]
)
def test_a_lamp_that_drifts_or_lights_a_part_leaves_the_flat_right(light):
    frames = ready(lamp(3, response_image()))
    (clean,) = normalize_flat.run(make_lamp_flat.run(frames))
    other = list(frames)
    if light == "quarter":
        rows = np.arange(SHAPE[0])[:, None] < SHAPE[0] // 4
        other[4] = frames[4].evolve(sci=np.where(rows, np.float32(0), frames[4].sci))
    else:
        for k, factor in enumerate(light):
            other[3 + k] = frames[3 + k].evolve(sci=frames[3 + k].sci * np.float32(factor))
    (flat,) = normalize_flat.run(make_lamp_flat.run(other))
    good = (flat.dq | clean.dq) == 0
    ratio = np.where(good, flat.sci / clean.sci, np.nan)
    parts = np.nanmedian(ratio.reshape(4, -1), axis=1)  # a block of rows each: noise cancels, slopes do not
    assert np.abs(parts - 1).max() < 2e-4


def test_lamp_flat_of_one_kind():
    frames = ready(lamp(3, response_image()))
    (flat,) = make_lamp_flat.run(frames[3:])
    assert "lamp off" in flat.notes[-1]
    with pytest.raises(NotEnoughFrames, match="lamp on"):
        make_lamp_flat.run(frames[:3])
    (pair,) = make_lamp_flat.run([frames[0], frames[5]])
    np.testing.assert_allclose(pair.sci, frames[5].sci - frames[0].sci, rtol=1e-6)


def test_normalisation_looks_at_good_pixels_only():
    (flat,) = make_lamp_flat.run(ready(lamp(3, response_image())))
    dq = flat.dq.copy()
    dq[:200] = 1
    sci = flat.sci.copy()
    sci[:200] *= 7
    (out,) = normalize_flat.run([flat.evolve(sci=sci, dq=dq)])
    assert np.median(out.sci[200:]) == pytest.approx(1, abs=1e-6)
    assert out.var[300 - 60, 5] == pytest.approx(flat.var[240, 5] / np.median(flat.sci[200:]) ** 2, rel=1e-5)
    with pytest.raises(BadFrame, match="good"):
        normalize_flat.run([flat.evolve(dq=np.ones_like(dq))])
    with pytest.raises(BadFrame, match="level"):
        normalize_flat.run([flat.evolve(sci=-flat.sci)])


def test_threshold():
    (flat,) = normalize_flat.run(make_lamp_flat.run(ready(lamp(3, response_image()))))
    dq = flat.dq.copy()
    dq[1, :4] = 1
    flat = with_pixels(
        flat, *[((0, 0), 0.001), ((0, 1), 11), ((1, 0), 0.001), ((1, 1), 11), ((2, 2), 0.02)]
    ).evolve(dq=dq)
    (out,) = threshold_flatfield.run([flat])
    assert out.sci[0, :2].tolist() == [1, 1]
    assert out.dq[0, :2].tolist() == [64, 64]
    assert out.sci[1, :2].tolist() == [1, 11]
    assert out.dq[1, :2].tolist() == [1, 1]
    assert out.sci[2, 2] == np.float32(0.02)
    np.testing.assert_array_equal(out.var, flat.var)


def test_dark_and_flat_take_out_what_the_detector_put_in():
    truth = response_image()
    (dark,) = stack_darks.run(ready(frames_of(dataclasses.replace(SHOT, kind="dark"), 10)))
    flat = normalize_flat.run(make_lamp_flat.run(ready(lamp(10, truth))))[0]
    shot = SHOT.with_flat(truth).with_sky(1500.0)
    frames = add_dq.run(prepare.run([frame_of(shot, 77)]))
    frames = adu_to_electrons.run(frames)
    cals = Calibrations(dark=dark, flat=flat)
    frames = add_var.run(frames, None, cals, read_noise=True, poisson_noise=True)
    frames = flat_correct.run(dark_correct.run(nonlinearity_correct.run(frames), None, cals), None, cals)
    pull = (frames[0].sci - 1500 * 20.002) / np.sqrt(frames[0].var)
    assert abs(np.median(pull)) < 0.1
    assert 0.97 < robust(pull) < 1.03
    assert frames[0].header["DARKIM"] == dark.name
    assert frames[0].header["FLATIM"] == flat.name
    again = dark_correct.run(frames, None, cals)
    np.testing.assert_array_equal(again[0].sci, frames[0].sci)


def test_calibrations_that_lack_or_do_not_fit():
    (frame,) = adu_to_electrons.run(prepare.run([frame_of(SHOT, 1)]))
    for step in (dark_correct, flat_correct):
        with pytest.raises(CalibrationNotFound, match=frame.name):
            step.run([frame])
        (skipped,) = step.run([frame], do_cal="skip")
        np.testing.assert_array_equal(skipped.sci, frame.sci)
    (adu,) = prepare.run([frame_of(SHOT, 1)])
    with pytest.raises(FrameMismatch, match="is in electron"):
        dark_correct.run([frame], None, Calibrations(dark=adu))
    other = frame.evolve(cards={"FILTER1": "J_G0202"})
    (told,) = flat_correct.run([frame], None, Calibrations(flat=other))
    assert "is in filter Kprime_G0206, and its flat N20160102S0001.fits in J_G0202" in told.notes[0]
    part = frame.evolve(sci=frame.sci[64:192, 64:192], dq=frame.dq[64:192, 64:192])
    (cut,) = dark_correct.run([part], None, Calibrations(dark=frame))
    assert (cut.sci == 0).all()
    with pytest.raises(FrameMismatch, match="does not cover"):
        dark_correct.run([frame], None, Calibrations(dark=part))


def bpm_frames(pedestal: float = 131.0) -> tuple[list[Frame], np.ndarray]:
    response, rate = response_image(), np.full(SHAPE, 0.25, np.float32)
    rng = np.random.default_rng(2)
    bad = rng.permutation(SHAPE[0] * SHAPE[1])[:120]
    response.flat[bad[:60]] = rng.uniform(0, 0.7, 60)
    rate.flat[bad[60:]] = rng.uniform(1500, 9000, 60)
    expected = np.zeros(SHAPE, bool)
    expected.flat[bad] = True
    shot = SHOT.with_flat(response).with_dark(rate, pedestal=pedestal)
    on = dataclasses.replace(shot, kind="flaton", exposure=2.001).with_sky(40700)
    off = dataclasses.replace(shot, kind="flatoff", exposure=2.001).with_sky(700)
    short = dataclasses.replace(shot, kind="dark", exposure=1.001)
    frames = frames_of(off, 3, 11) + frames_of(on, 3, 21) + frames_of(short, 3, 31)
    return adu_to_electrons.run(prepare.run(frames)), expected


def test_bpm_finds_dead_and_hot_and_nothing_else():
    frames, expected = bpm_frames()
    (bpm,) = make_bpm.run(normalize_flat.run(make_lamp_flat.run(stack_bpm_darks.run(frames))))
    np.testing.assert_array_equal(bpm.dq == 1, expected)
    assert set(np.unique(bpm.dq)) == {0, 1}
    assert bpm.header["OBJECT"] == "BPM"
    assert "BPMASK" in bpm.header
    assert bpm.name == "N20160102S0021.fits"
    assert bpm.var is None
    assert bpm.notes == ()


def test_bpm_widens_a_limit_that_noise_would_reach():
    frames, expected = bpm_frames(pedestal=40.0)  # 3 sigma above -20 with 35 electrons in each of 3 frames
    steps = normalize_flat.run(make_lamp_flat.run(stack_bpm_darks.run(frames)))
    (bpm,) = make_bpm.run(steps)
    assert np.count_nonzero((bpm.dq == 1) & ~expected) <= 1
    assert "widened" in bpm.notes[-1]
    (strict,) = make_bpm.run(steps, widen=False)
    assert np.count_nonzero((strict.dq == 1) & ~expected) > 20


def test_bpm_needs_both():
    frames, _ = bpm_frames()
    with pytest.raises(NotEnoughFrames, match="no dark"):
        stack_bpm_darks.run(frames[:6])
    with pytest.raises(NotEnoughFrames, match="flat and a dark"):
        make_bpm.run(frames[6:])


# ---- stacks ------------------------------------------------------------------------------------------------


def sky_frames(number: int) -> list[Frame]:
    return ready(frames_of(SHOT.with_sky(1500.0), number))


def test_stack():
    frames = sky_frames(4)
    sci = frames[2].sci.copy()
    sci[50, 60] += 5000
    dq = frames[3].dq.copy()
    dq[70:80, 90] = 1
    frames[2], frames[3] = frames[2].evolve(sci=sci), frames[3].evolve(dq=dq)
    (stack,) = stack_frames.run(frames)
    truth = 1500.25 * 20.002 + 131
    pull = (stack.sci - truth) / np.sqrt(stack.var)
    assert robust(pull) == pytest.approx(1, abs=0.03)
    assert abs(pull[50, 60]) < 4.5
    assert stack.coverage[50, 60] == 3
    assert (stack.coverage[70:80, 90] == 3).all()
    assert (stack.dq[70:80, 90] == 0).all()
    assert stack.header["NCOMBINE"] == 4
    assert stack.header["DATALAB"].endswith("-001-STACK")
    (theirs,) = stack_frames.run(frames, preset(stack_frames))
    assert theirs.sci[50, 60] - truth > 1000  # a sigma clip of four keeps the hit
    (blind,) = stack_frames.run(frames, apply_dq=False)
    assert (blind.coverage[70:80, 90] == 4).all()


def test_stack_of_one_and_of_what_differs():
    frames = sky_frames(2)
    (one,) = stack_frames.run(frames[:1])
    np.testing.assert_array_equal(one.sci, frames[0].sci)
    assert one.name == frames[0].name
    assert (one.coverage == 1).all()
    assert one.notes
    other = frames[1].evolve(cards={"FILTER1": "J_G0202"})
    with pytest.raises(FrameMismatch, match=r"S0002.fits has filter name J_G0202, wanted Kprime"):
        stack_frames.run([frames[0], other])
    with pytest.raises(NotEnoughFrames, match="cannot reject"):
        stack_frames.run(frames, reject_method="minmax", nlow=1, nhigh=1)


def test_stack_brings_frames_to_one_level():
    frames = sky_frames(3)
    frames[1] = frames[1].evolve(sci=frames[1].sci * np.float32(1.2))
    frames[2] = frames[2].evolve(sci=frames[2].sci * np.float32(0.9))
    (scaled,) = stack_frames.run(frames, scale=True)
    assert np.median(scaled.sci) == pytest.approx(np.median(frames[0].sci), rel=1e-4)
    (moved,) = stack_frames.run(frames, zero=True, scale=True)
    assert np.median(moved.sci) == pytest.approx(np.median(frames[0].sci), rel=1e-4)


def test_no_step_touches_its_input():
    frames = sky_frames(3)
    planes = [np.array(plane) for frame in frames for plane in (frame.sci, frame.var, frame.dq)]
    cards = [frame.header.tostring() for frame in frames]
    for step in (stack_frames, remove_first_frame, add_dq, nonlinearity_correct, adu_to_electrons):
        first = step.run(frames)
        second = step.run(frames)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a.sci, b.sci)
            np.testing.assert_array_equal(a.dq & frames[0].dq, frames[0].dq)
    after = [plane for frame in frames for plane in (frame.sci, frame.var, frame.dq)]
    for plane, copy in zip(after, planes, strict=True):
        np.testing.assert_array_equal(plane, copy)
    assert [frame.header.tostring() for frame in frames] == cards
