"""Which pixels and which exposures not to trust."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import CalibrationNotFound, FrameMismatch
from pipeline.primitive import Calibrations
from pipeline.steps.prepare import prepare
from pipeline.steps.quality import add_dq, remove_first_frame
from tests.unit.steps.shots import SHAPE, SHOT, frame_of, frames_of, with_pixels


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
