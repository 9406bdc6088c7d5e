"""The scatter of empty circles is what was put in: correlated noise, slopes and sources among it."""

import numpy as np
import pytest

from pipeline.algorithms.emptyapertures import scatter

SIDE, SIGMA = 512, 10.0


@pytest.fixture
def rng():
    return np.random.default_rng(20161128)


def noise(rng):
    return rng.normal(0.0, SIGMA, (SIDE, SIDE)).astype("f4")


def all_good():
    return np.ones((SIDE, SIDE), np.bool_)


def var():
    return np.full((SIDE, SIDE), SIGMA**2, "f4")


@pytest.mark.parametrize("radius", [1.5, 3.0, 4.7])
def test_white_noise_adds_with_the_area(rng, radius):
    found = scatter(noise(rng), var(), all_good(), radius)
    truth = SIGMA * np.sqrt(np.pi) * radius
    assert abs(found.noise - truth) < 3 * found.error + 0.02 * truth
    assert found.expected == pytest.approx(truth, rel=0.02)
    assert found.error < 0.04 * truth


def test_what_neighbours_have_in_common_counts(rng):
    """Every pixel twice, in a square of four: sums scatter twice as much as VAR says."""
    coarse = rng.normal(0.0, SIGMA, (SIDE // 2, SIDE // 2)).astype("f4")
    found = scatter(np.kron(coarse, np.ones((2, 2), "f4")), var(), all_good(), 5.0)
    assert found.noise / found.expected == pytest.approx(2.0, rel=0.12)


def test_a_slope_is_no_noise(rng):
    image = noise(rng)
    flat = scatter(image, var(), all_good(), 6.0).noise
    image += np.linspace(0.0, 400.0, SIDE, dtype="f4")
    assert scatter(image, var(), all_good(), 6.0).noise == pytest.approx(flat, rel=1e-3)


def test_sources_that_are_masked_do_not_count(rng):
    image, good = noise(rng), all_good()
    flat = scatter(image, var(), good, 3.0)
    for y, x in rng.integers(20, SIDE - 20, (150, 2)):
        image[y - 3 : y + 4, x - 3 : x + 4] += 5000.0
        good[y - 3 : y + 4, x - 3 : x + 4] = False
    found = scatter(image, var(), good, 3.0)
    assert found.number < flat.number - 100
    assert found.noise == pytest.approx(flat.noise, rel=0.04)


def test_too_few_tell_nothing_and_var_still_does(rng):
    good = np.zeros((SIDE, SIDE), np.bool_)
    good[:40, :40] = True
    found = scatter(noise(rng), var(), good, 3.0)
    assert np.isnan(found.noise)
    assert found.expected == pytest.approx(SIGMA * np.sqrt(np.pi) * 3.0, rel=0.02)
    assert found.number < 40
    assert np.isnan(scatter(noise(rng), var(), np.zeros_like(good), 3.0).expected)
    assert scatter(noise(rng)[:5, :5], var()[:5, :5], all_good()[:5, :5], 4.0).number == 0
