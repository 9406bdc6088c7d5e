"""Flats, bad-pixel masks, and calibrating with them."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import pytest

from pipeline.errors import BadFrame, CalibrationNotFound, FrameMismatch, NotEnoughFrames
from pipeline.frame import Frame
from pipeline.primitive import Calibrations
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
from pipeline.steps.quality import add_dq
from tests.unit.steps.shots import SHAPE, SHOT, frame_of, frames_of, ready, robust, with_pixels


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
