"""Registration of moving targets, and by pixels."""

import numpy as np
import pytest

from pipeline.algorithms import matching as mt
from pipeline.steps.judgeimages import judge_images
from pipeline.steps.register import adjust_wcs_to_reference
from pipeline.steps.sources import detect_sources
from tests.skyframes import FIVE, add_star, calibrated, star_field
from tests.unit.steps.rough import CLEAR, JITTER, agreement, said


def moving(fainter, *, field=True, rate=(0.45, -0.35), count=5):
    """Frames that follow a target; the stars move by `rate` arcsec a frame, one of them a neighbour."""
    cards = {"FRAME": "APPT", "TRKFRAME": "APPT", "RATRACK": 0.01, "DECTRACK": -0.02}
    target = (0.0, 0.0, 1.2e5 * 10 ** (-0.4 * fainter))
    others = star_field(20, faintest=2e4) if field else []
    frames = []
    for k in range(count):
        stars = [(4.0, 2.5, 1.2e5), *others]
        then = [target] + [(e + rate[0] * k, n + rate[1] * k, f) for e, n, f in stars]
        frames.append(calibrated(k + 1, FIVE[k], stars=then, sky=0.0, error=JITTER[k]).evolve(cards=cards))
    return detect_sources.run(frames)


@pytest.mark.parametrize("field", [True, False], ids=["field", "alone"])
@pytest.mark.parametrize("fainter", [0.0, 1.0, 2.0, 3.0])
def test_a_moving_target_beside_a_brighter_star(fainter, field):
    out = adjust_wcs_to_reference.run(moving(fainter, field=field))
    assert {f.header["REGMETH"] for f in out} == {"reference", "target"}
    assert agreement(out).max() < (0.1 if fainter < 2 else 0.5)
    assert all(a < 5 * f.header["REGERR"] + 0.1 for a, f in zip(agreement(out), out, strict=True))


@pytest.mark.parametrize(("fainter", "field", "rate"), [
    (1.0, False, (-1.0, -0.7)), (1.0, True, (0.45, -0.35)),
    (2.0, True, (-0.9, -0.5)), (2.0, False, (0.45, -0.35)),
])  # fmt: skip
def test_a_star_that_a_target_passes_is_no_second_image_of_it_and_no_trail(fainter, field, rate):
    out = judge_images.run(adjust_wcs_to_reference.run(moving(fainter, field=field, rate=rate)))
    assert len(out) == 5
    assert not out[0].verdicts


def test_a_moving_target_that_is_trailed_is_left_out():
    frames = moving(0.0, field=False, rate=(0.0, 0.0))
    swept = sum(np.roll(frames[2].sci, s, axis=1) for s in range(-9, 10)) / 19
    frames[2] = detect_sources.run([frames[2].evolve(sci=swept.astype(np.float32))])[0]
    out = judge_images.run(adjust_wcs_to_reference.run(frames))
    assert [f.name for f in out] == [f.name for k, f in enumerate(frames) if k != 2]
    assert said(out, frames[2].name, "trailed")


def test_a_moving_target_that_is_not_seen_goes_by_the_offsets_and_not_by_a_star():
    out = adjust_wcs_to_reference.run(moving(9.0))
    assert {f.header["REGMETH"] for f in out} == {"reference", "offsets"}
    assert said(out, "N20160102S0002.fits", "nothing is seen that can be its moving target")
    assert agreement(out).max() < 4.0


def nebula(dx, dy, seed, bright=1.0, noise=10.0):
    y, x = np.indices((256, 256)).astype(float)
    rng = np.random.default_rng(11)
    image = np.zeros((256, 256))
    for cx, cy, w, f in zip(
        *rng.uniform(-40, 296, (2, 60)), rng.uniform(4, 14, 60), rng.uniform(20, 90, 60), strict=True
    ):
        image += bright * f * np.exp(-0.5 * ((x - cx - dx) ** 2 + (y - cy - dy) ** 2) / w**2)
    return (image + np.random.default_rng(seed).normal(0, noise, image.shape)).astype(np.float32)


@pytest.mark.parametrize(("shift", "bright"), [((2.3, -1.6), 1.0), ((2.3, -1.6), 0.15), ((-70.4, 55.2), 1.0)])
def test_pixels_through_clouds_and_across_the_field(shift, bright):
    found = mt.match_images(nebula(0, 0, 1), nebula(*shift, 2, bright), CLEAR, CLEAR, search=120)
    off = np.hypot(found.dx - shift[0], found.dy - shift[1])
    assert off < 0.6
    assert off < 3.5 * found.error


def test_pixels_of_a_dead_frame_or_another_field_are_no_answer():
    sky = np.random.default_rng(3).normal(0, 10, (256, 256)).astype(np.float32)
    assert mt.match_images(nebula(0, 0, 1), sky, CLEAR, CLEAR, search=120) is None
    assert mt.match_images(nebula(0, 0, 1), np.zeros_like(sky), CLEAR, CLEAR, search=43) is None
    other = nebula(0, 0, 4)[::-1, ::-1].T.copy()
    assert mt.match_images(nebula(0, 0, 1), other, CLEAR, CLEAR, search=43) is None


def test_pixels_of_a_doubled_image_are_ambiguous():
    double = 0.5 * nebula(-12, 0, 2) + 0.5 * nebula(12, 0, 3)
    assert mt.match_images(nebula(0, 0, 1), double.astype(np.float32), CLEAR, CLEAR, search=43) is None


def test_what_stays_on_the_detector_does_not_hold_a_shift():
    rng = np.random.default_rng(8)
    pattern = np.zeros((256, 256), np.float32)
    for x, y in rng.uniform(10, 245, (40, 2)):
        add_star(pattern, x, y, 4e4, 4.0)
    a, b = nebula(0, 0, 1) + pattern, nebula(31.0, -22.0, 2) + pattern
    found = mt.match_images(a, b, CLEAR, CLEAR, guess=(30.0, -22.0), search=43)
    assert found is None or np.hypot(found.dx - 31, found.dy + 22) < 5 * found.error + 0.05
