"""skyCorrect on rough fields: an extended target, nods of two positions, a slope that drifts, lost skies."""

import numpy as np
import pytest

from pipeline.params import build
from pipeline.primitive import Calibrations
from pipeline.steps.align import resample_to_common_frame
from pipeline.steps.sky import associate_sky, separate_sky, sky_correct
from pipeline.steps.skysubtract import SkyCorrectParams
from pipeline.steps.stack import stack_frames
from tests.skyframes import FIVE, READ, calibrated, star_field

SKY = 4000.0
NODS = {"A": (0.0, 0.0), "B": (7.0, 5.0)}
STARS = star_field(12, radius=13.0)


def galaxy(x, y):
    return 3000 * np.exp(-np.hypot(x, y / 0.7) / 20)


def ready(frames, **params):
    return associate_sky.run(separate_sky.run(frames), **params)


def light_of(frame, offset, **scene):
    """What a frame shows without its sky."""
    return calibrated(int(frame.name[10:14]), offset, sky=0.0, **scene).var - READ**2


def residuals(frames, offsets, **scene):
    return [f.sci - light_of(f, o, **scene) for f, o in zip(frames, offsets, strict=True)]


def stacked(frames):
    return stack_frames.run(resample_to_common_frame.run(frames))[0]


# --- an extended target ---


def galaxies(count=5, **choices):
    return [calibrated(k, o, scene=galaxy, sky=SKY, **choices) for k, o in enumerate(FIVE[:count], 1)]


@pytest.mark.parametrize("count", [3, 5])
def test_a_galaxy_wider_than_the_dithers_keeps_its_light_and_has_no_hole(count):
    out = sky_correct.run(ready(galaxies(count, stars=STARS)))
    noise = np.sqrt(SKY + READ**2)
    for left, frame in zip(residuals(out, FIVE[:count], scene=galaxy, stars=STARS), out, strict=True):
        assert frame.header["SKYHOW"] == "model"
        assert not frame.dq.any()
        assert abs(np.median(left[96:160, 96:160])) < 0.25 * noise  # of 3000 in the middle
    assert any("sky under the target is a model" in text for text in out[0].notes)
    stack = stacked(out)
    seen = (stack.dq & 16) == 0
    assert (stack.var[seen] > 0).all()
    assert not (stack.dq[seen] & 1).any()


def test_without_the_model_the_galaxy_is_eaten():
    (_, _, left, *_) = residuals(sky_correct.run(ready(galaxies()), model=False), FIVE, scene=galaxy)
    assert np.median(left[96:160, 96:160]) < -100


def test_no_ring_stands_out_where_the_target_begins():
    out = sky_correct.run(ready(galaxies()))
    left = np.concatenate([r.ravel() for r in residuals(out, FIVE, scene=galaxy)])
    light = np.concatenate([light_of(f, o, scene=galaxy).ravel() for f, o in zip(out, FIVE, strict=True)])
    rings = [left[(light > low) & (light <= 1.6 * low)].mean() for low in 3 * 1.6 ** np.arange(13)]
    assert np.abs(np.diff(rings)).max() < 0.1 * np.sqrt(SKY + READ**2)


def test_the_noise_under_the_target_is_what_var_says():
    out = sky_correct.run(ready(galaxies()))
    pulls = np.concatenate(
        [
            (r / np.sqrt(f.var))[96:160, 96:160].ravel()
            for r, f in zip(residuals(out, FIVE, scene=galaxy), out, strict=True)
        ]
    )
    assert np.std(pulls) == pytest.approx(1.0, abs=0.1)


def test_a_pattern_that_the_flat_has_left_is_taken_off_where_it_stands_out():
    rng = np.random.default_rng(4)
    hot = np.where(rng.random((256, 256)) < 0.003, 900.0, 0.0)
    frames = [f.evolve(sci=(f.sci + hot).astype(np.float32)) for f in galaxies()]
    out = sky_correct.run(ready(frames))
    for frame, left in zip(out, residuals(out, FIVE, scene=galaxy), strict=True):
        assert np.mean(left[hot > 0]) < 100
        assert np.std(left[hot > 0] / np.sqrt(frame.var[hot > 0])) < 2.5


def test_a_star_field_has_no_model():
    for frame in sky_correct.run(
        ready(galaxies()[:0] + [calibrated(k, o, stars=STARS) for k, o in enumerate(FIVE, 1)])
    ):
        assert frame.header["SKYHOW"] == "scaled"
        assert frame.header["SKYMODEL"] < 0.005 * frame.sci.size
        assert not frame.notes


# --- nods ---


@pytest.mark.parametrize("order", ["ABABAB", "ABBA"])
def test_nods_of_two_positions_lose_no_pixel_and_have_the_noise_that_var_says(order):
    offsets = [NODS[letter] for letter in order]
    frames = [calibrated(k, o, sky=SKY, stars=STARS) for k, o in enumerate(offsets, 1)]
    out = sky_correct.run(ready(frames))
    for frame, left in zip(out, residuals(out, offsets, stars=STARS), strict=True):
        assert np.mean(frame.dq != 0) < 0.001
        assert frame.header["SKYMODEL"] > 0
        faint = light_of(frame, NODS[order[int(frame.name[10:14]) - 1]], stars=STARS) < 2
        assert np.std(left[faint] / np.sqrt(frame.var[faint])) == pytest.approx(1.0, abs=0.05)
    assert any("objects on all" in text for text in out[0].notes) or len(order) == 4
    stack = stacked(out)
    both = stack.coverage == len(order)
    assert not (stack.dq[both] & 1).any()
    # Where only one position is, all frames have one sky; NOISECOR is that of the whole.
    for where, close in ((both, 0.06), (stack.coverage == len(order) // 2, 0.1)):
        plain = where & (stack.sci < 150) & (stack.var > 0)
        pulls = stack.sci[plain] / np.sqrt(stack.var[plain]) / stack.header["NOISECOR"]
        assert 1.4826 * np.median(np.abs(pulls - np.median(pulls))) == pytest.approx(1.0, abs=close)


# --- a slope that drifts ---


@pytest.mark.parametrize(("amount", "limit"), [(0.01, 2.0), (0.04, 5.0)])
def test_a_slope_that_drifts_leaves_even_boxes(amount, limit):
    v, u = (np.indices((256, 256)) - 127.5) / 128
    frames = []
    for k, offset in enumerate(FIVE, 1):
        frame = calibrated(k, offset, sky=SKY, stars=STARS)
        slope = SKY * amount * (k / 5 - 0.4) * (0.7 * u + 0.7 * v)
        frames.append(frame.evolve(sci=(frame.sci + slope).astype(np.float32)))
    out = sky_correct.run(ready(frames))
    assert any("the slope of the sky drifts" in text for text in out[0].notes)
    left = residuals(out, FIVE, stars=STARS)
    boxes = [
        np.mean([np.median(r[y : y + 64, x : x + 64]) for r in left])
        for y in (0, 64, 128, 192)
        for x in (0, 64, 128, 192)
    ]
    assert np.abs(boxes).max() < limit + 1.5  # 3 sigma of the noise of such a box
    plain = residuals(sky_correct.run(ready(frames), gradient=False), FIVE, stars=STARS)
    assert np.std([np.median(r[:64, :64]) for r in plain]) > 3 * np.std(
        [np.median(r[:64, :64]) for r in left]
    )


def test_a_quiet_night_is_left_alone_to_the_bit():
    frames = ready([calibrated(k, o, stars=STARS) for k, o in enumerate(FIVE, 1)])
    for a, b in zip(sky_correct.run(frames), sky_correct.run(frames, gradient=False), strict=True):
        np.testing.assert_array_equal(a.sci, b.sci)


# --- skies that are lost ---


def test_frames_barred_as_sky_are_none_and_the_last_sky_gets_a_model():
    frames = separate_sky.run([calibrated(k, o, stars=STARS) for k, o in enumerate(FIVE, 1)])
    frames = [f if k == 2 else f.evolve(roles=frozenset({"object"})) for k, f in enumerate(frames)]
    associated = associate_sky.run(frames)
    assert [len(f.skies) for f in associated] == [1, 1, 0, 1, 1]
    assert len(associate_sky.run(frames, keep=False)) == 4
    out = sky_correct.run(associated)
    assert [f.header["SKYHOW"] for f in out] == ["scaled", "scaled", "model", "scaled", "scaled"]
    for left in residuals(out, FIVE, stars=STARS):
        assert abs(np.median(left)) < 3
    assert any("S0003.fits: no sky frame belongs to it" in text for text in out[0].notes)


def test_a_doubled_and_a_halved_sky_serve_as_well():
    skies = [SKY, 2 * SKY, SKY, SKY / 2, SKY]
    frames = [
        calibrated(k, o, sky=s, stars=STARS) for k, (o, s) in enumerate(zip(FIVE, skies, strict=True), 1)
    ]
    out = sky_correct.run(ready(frames))
    assert all(f.header["SKYHOW"] == "scaled" for f in out)
    for left in residuals(out, FIVE, stars=STARS):
        assert abs(np.median(left)) < 2


def test_preset_dragons_does_none_of_this():
    params = build(SkyCorrectParams, {}, preset="dragons")[0]
    assert not params.model
    assert not params.gradient
    out = sky_correct.body(ready(galaxies(), keep=False), params, Calibrations())
    assert all(f.header["SKYHOW"] == "scaled" and f.header["SKYMODEL"] == 0 for f in out)
