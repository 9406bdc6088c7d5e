"""Stacks of frames."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import params
from pipeline.errors import FrameMismatch, NotEnoughFrames
from pipeline.frame import Frame
from pipeline.primitive import Primitive
from pipeline.steps.counts import adu_to_electrons, nonlinearity_correct
from pipeline.steps.quality import add_dq, remove_first_frame
from pipeline.steps.stack import stack_frames
from tests.unit.steps.shots import SHOT, frames_of, ready, robust


def preset(primitive: Primitive, **values):
    """Parameters of the preset `dragons`."""
    built, problems = params.build(primitive.params, values, preset="dragons")
    assert not problems
    return built


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
