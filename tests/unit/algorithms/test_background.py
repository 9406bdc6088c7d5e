"""Sky level and noise, against what was put in."""

import numpy as np
import pytest

from pipeline.algorithms import background as bg
from tests.plain.background import histogram_plain

SHAPE = (256, 256)


def sky(seed: int, level: float = 20000.0, sigma: float = 140.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, sigma, SHAPE).astype(np.float32)


def with_stars(image: np.ndarray, seed: int, n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.indices(SHAPE)
    out = image.astype(np.float64)
    for px, py, peak in zip(
        rng.uniform(0, 256, n), rng.uniform(0, 256, n), rng.exponential(2000, n), strict=True
    ):
        out += peak * np.exp(-0.5 * ((x - px) ** 2 + (y - py) ** 2) / 4.0)
    return out.astype(np.float32)


@pytest.mark.parametrize("estimate", [bg.sky_level, bg.ogive_level])
def test_recovers_level_and_noise_of_an_empty_sky(estimate):
    found = np.array([estimate(sky(seed))[:2] for seed in range(6)])
    tolerance = 0.5 if estimate is bg.sky_level else 6.0  # one pixel in a hundred only
    assert found[:, 0].mean() == pytest.approx(20000, abs=2 * tolerance)
    assert found[:, 1].mean() == pytest.approx(140, rel=0.01 if estimate is bg.sky_level else 0.05)


def test_error_of_the_level_is_what_it_says():
    levels = [bg.sky_level(sky(seed)) for seed in range(40)]
    assert np.std([one.level for one in levels]) == pytest.approx(levels[0].error, rel=0.3)


def test_stars_hardly_move_it():
    biased = [bg.sky_level(with_stars(sky(s), s), high=1.5).level - 20000 for s in range(5)]
    assert abs(np.mean(biased)) < 0.06 * 140
    assert abs(np.mean([with_stars(sky(s), s).mean() - 20000 for s in range(5)])) > 8 * abs(np.mean(biased))


def test_masked_pixels_and_nan_do_not_count():
    image, bad = sky(1), np.zeros(SHAPE, bool)
    bad[:100] = True
    expected = bg.sky_level(image[100:])
    image[:100] = 1e6
    found = bg.sky_level(image, bad)
    assert found.level == pytest.approx(expected.level, abs=0.5)
    image[:100] = np.nan
    assert bg.sky_level(image, bad).level == pytest.approx(expected.level, abs=0.5)
    assert np.isnan(bg.sky_level(image, np.ones(SHAPE, bool)).level)
    assert np.isnan(bg.ogive_level(image, np.ones(SHAPE, bool)).level)


def test_level_of_a_difference_needs_no_temporary_image():
    image, other = sky(1), sky(2)
    direct = bg.sky_level((image - np.float32(0.9) * other).astype(np.float32))
    assert bg.sky_level(image, sky=other, factor=0.9).level == pytest.approx(direct.level, abs=0.05)


def test_compiled_histogram_is_the_plain_one():
    image, other, bad = sky(1), sky(2), np.random.default_rng(0).random(SHAPE) < 0.2
    arguments = (image, other, 0.3, bad, 13000.0, 0.2, 300)
    for compiled, plain in zip(bg._histogram(*arguments), histogram_plain(*arguments), strict=True):
        np.testing.assert_allclose(compiled, plain, atol=0.2)


def test_sky_factor_brings_the_residual_to_zero():
    scene, pattern = with_stars(sky(1, 0.0), 1), sky(2, 1000.0, 3.0)
    image = scene + np.float32(1.234) * pattern
    factor = bg.sky_factor(lambda f: bg.sky_level(image, sky=pattern, factor=f, high=1.5).level, 1000.0)
    assert factor == pytest.approx(1.234, abs=0.006)
    with pytest.raises(ValueError, match="no usable sky pixel"):
        bg.sky_factor(lambda f: float("nan"), 1.0)


def test_inputs_are_not_modified():
    image, bad = sky(3), np.zeros(SHAPE, bool)
    before = image.copy()
    bg.sky_level(image, bad)
    bg.ogive_level(image, bad)
    np.testing.assert_array_equal(image, before)
    assert not bad.any()


@pytest.mark.parametrize(("high", "low_by"), [(3.0, 0.04), (1.5, 0.26)])
def test_skewed_noise_of_photons(high, low_by):
    levels = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        # Spread over the step between counts, as a flat field does; third moment over variance is 2.
        image = 2 * (rng.poisson(400.0, (512, 512)) + rng.uniform(-0.5, 0.5, (512, 512)))
        levels.append(bg.sky_level(image.astype(np.float32), high=high).level)
    assert np.mean(levels) == pytest.approx(800 - 2 * low_by, abs=0.09)
