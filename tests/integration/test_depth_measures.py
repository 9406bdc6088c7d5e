"""The figures of depth of a real reduction, held to what fell on the detector."""

import math

import numpy as np
import pytest

from daemon.judgement.depth import DIAMETER
from daemon.work import depthmeasures
from pipeline import medians
from pipeline.algorithms.photometry import moffat_inside
from pipeline.primitive import Calibrations, run_recipe
from pipeline.recipes import REDUCE
from pipeline.simulate.sky import ZERO_POINTS
from pipeline.steps.photometry import MeasureQualityParams
from tests.integration.test_special_cases import (
    FWHM,
    OFFSETS,
    SECONDS,
    STARS,
    Star,
    dark,
    field,
    flat,
    frame_of,
    shots,
)

LIGHT, READ = 700.0, 35.0
TARGET = Star(0.4, -0.3, 15.4)
NINE = tuple((x + 0.9 * k, y - 0.7 * k) for k in range(2) for x, y in OFFSETS)[:9]
ONE = LIGHT * SECONDS + READ**2  # variance of a pixel in one frame


def measured(offsets=NINE, stars=(*STARS, TARGET), **parameters):
    found = {}

    def on_step(step, done, frames, notes):
        if step == "stackFrames" and not done:
            found.update(depthmeasures.of_frames(frames))

    told = {"removeFirstFrame:remove_first": False} | parameters
    made = run_recipe(
        REDUCE.bind(told),
        [frame_of(shot) for shot in shots(offsets, field=field(stars), light=LIGHT)],
        Calibrations(dark=dark(), flat=flat()),
        on_step,
    )
    return found | depthmeasures.of_stack(made.frame, found), made.frame


@pytest.fixture(scope="module")
def nine():
    return measured()


def test_noise_goes_from_the_frames_through_their_skies_to_the_stack(nine):
    found, _ = nine
    own = found["frame_noise"][0] ** 2 - found["sky_noise"][0] ** 2
    assert own == pytest.approx(ONE, rel=0.05)
    of_sky = found["sky_noise"][0] ** 2 / (medians.variance(8) * ONE)
    assert 0.95 < of_sky < 1.35  # flat and dark, of three frames each, are in it as well
    assert found["skies"][0] == 8
    assert found["stack_noise"][0] == pytest.approx(found["frame_noise"][0] / 3, rel=0.02)
    assert found["light"][0] == pytest.approx(1.0, abs=0.02)


def test_the_depth_is_that_of_what_fell_on_the_detector(nine):
    """By arithmetic: noise of nine frames in a circle of 1.5 FWHM, a Moffat star of beta 3."""
    found, frame = nine
    assert "MAGZPT" not in frame.header
    pixel = math.sqrt(ONE * (1 + medians.variance(8)) / 9)
    noise = pixel * math.sqrt(math.pi) * DIAMETER / 2 * FWHM
    assert abs(found["circle_noise"][0] - noise) < 2 * found["circle_noise"][1] + 0.03 * noise
    inside = float(moffat_inside(DIAMETER / 2, 1.0, 3.0))
    assert abs(found["circle_light"][0] - inside) < 3 * found["circle_light"][1]
    faintest = (25 / 9 + math.sqrt((25 / 9) ** 2 + 100 * noise**2)) / 2
    air = MeasureQualityParams().extinction * (frame.descriptors.airmass - 1)  # there is none in these frames
    truth = ZERO_POINTS["Kprime"] - air - 2.5 * math.log10(faintest / inside / SECONDS)
    value, error, unit = found["depth"]
    assert unit == "mag"
    assert abs(value - truth) < 2.5 * error
    assert error < 0.12


def test_the_target_is_the_source_at_its_place(nine):
    light, error, _ = nine[0]["target_light"]
    rate = 10 ** (0.4 * (ZERO_POINTS["Kprime"] - TARGET.mag))
    truth = rate * SECONDS * float(moffat_inside(DIAMETER / 2, 1.0, 3.0))
    assert light == pytest.approx(truth, rel=0.06)
    assert 0 < error < 0.02 * light
    nothing, _ = measured(NINE[:4], STARS)
    assert "target_light" not in nothing


def test_frames_of_one_sky_have_less_in_common_where_they_are_more(nine):
    four, _ = measured(NINE[:4])
    assert four["skies"][0] == 3
    assert four["sky_noise"][0] > 1.1 * nine[0]["sky_noise"][0]
    assert four["depth"][0] < nine[0]["depth"][0] - 0.3


def test_nothing_is_said_of_what_cannot_be(nine):
    _, frame = nine
    assert depthmeasures.of_frames([frame]) == {}
    assert depthmeasures.of_stack(frame.evolve(catalog=None), {}) == {}
    assert depthmeasures.of_stack(frame.evolve(var=None), {}) == {}
    nowhere = frame.evolve(dq=np.full_like(frame.dq, 16))
    assert "depth" not in depthmeasures.of_stack(nowhere, {})
