"""Read-out patterns put into noise come out again, and nothing else does."""

import numpy as np
import pytest

from pipeline.algorithms import patterns as pt

SHAPE = (256, 256)
CLEAR = np.zeros(SHAPE, bool)


def noise(seed, sigma=60.0):
    return np.random.default_rng(seed).normal(0, sigma, SHAPE).astype(np.float32)


def boxed(seed, amplitude=60.0, rows=None):
    """Noise with a 16 x 4 pattern in every quadrant, on the given rows, with a step of level."""
    pattern = np.random.default_rng(99).normal(0, amplitude, (4, 16))
    pattern -= pattern.mean()
    quadrant = np.tile(pattern, (32, 8))
    if rows is not None:
        quadrant = np.where(np.isin(np.arange(128), rows)[:, None], quadrant + 40, 0)
    both = np.hstack([quadrant, quadrant])
    return noise(seed), np.vstack([both, both[::-1].reshape(32, 4, -1)[:, ::-1].reshape(128, -1)]).astype(
        np.float32
    )


def test_box_pattern_is_removed():
    image, pattern = boxed(1)
    cleaned, quadrants = pt.clean_boxes(image + pattern, CLEAR, None, pt.Boxes())
    assert quadrants == 4
    assert np.std(cleaned - image) < 0.15 * np.std(pattern)


def test_box_pattern_on_some_rows_is_removed_there_and_levelled():
    rows = np.arange(40, 128)
    image, pattern = boxed(2, rows=rows)
    cleaned, quadrants = pt.clean_boxes(image + pattern, CLEAR, None, pt.Boxes())
    assert quadrants == 4
    left = cleaned - image
    left -= np.median(left)
    assert np.std(left) < 0.35 * np.std(pattern)
    assert abs(np.median(left[:36]) - np.median(left[48:120])) < 12


def test_weak_pattern_is_left_alone_unless_forced():
    image, pattern = boxed(3, amplitude=5.0)
    cleaned, quadrants = pt.clean_boxes(image + pattern, CLEAR, None, pt.Boxes())
    assert quadrants == 0
    np.testing.assert_array_equal(cleaned, image + pattern)
    assert pt.clean_boxes(image + pattern, CLEAR, None, pt.Boxes(), force=True)[1] == 4


def test_edges_of_a_pattern():
    strength = np.where(np.arange(512) < 200, 0.0, 1.0) + np.random.default_rng(1).normal(0, 0.05, 512)
    edges, affected = pt.find_edges(strength, 3.0, 0.6, 4)
    assert len(edges) == 1
    assert abs(edges[0] - 199) <= 1
    assert affected[210:].all()
    assert not affected[:190].any()
    assert pt.find_edges(np.ones(512), 3.0, 0.6, 4)[1].all()


def test_stripes_that_change_from_row_to_row_are_removed():
    rng = np.random.default_rng(4)
    image = noise(5, 20.0)
    stripes = np.tile(rng.normal(0, 30, (256, 1)) * np.cos(2 * np.pi * np.arange(8) / 8), (1, 32)).astype(
        np.float32
    )
    cleaned, removed = pt.clean_stripes(image + stripes, CLEAR)
    assert np.std(cleaned - image) < 0.25 * np.std(stripes)
    assert removed == pytest.approx(np.std(stripes), rel=0.1)


def test_clean_noise_and_stars_stay_as_they_are():
    image = noise(6, 20.0)
    y, x = np.indices(SHAPE)
    star = (2e4 * np.exp(-0.5 * ((x - 100.3) ** 2 + (y - 90.7) ** 2) / 4)).astype(np.float32)
    cleaned, removed = pt.clean_stripes(image + star, CLEAR, star > 10)
    assert removed < 1.0
    assert np.abs(cleaned - image - star).max() < 12
    assert abs((cleaned - image - star)[80:100, 90:110].sum()) < 2e-3 * star.sum()


def test_bad_pixels_do_not_count():
    image, pattern = boxed(7)
    bad = np.random.default_rng(8).random(SHAPE) < 0.05
    dirty = (image + pattern).copy()
    dirty[bad] = 1e6
    cleaned, _ = pt.clean_boxes(dirty, bad, None, pt.Boxes())
    assert np.std((cleaned - image)[~bad]) < 0.2 * np.std(pattern)
    striped, _ = pt.clean_stripes(dirty, bad)
    assert np.std((striped - image)[~bad]) < 1.5 * np.std(pattern)


def test_inputs_are_not_modified():
    image, pattern = boxed(9)
    both = image + pattern
    before = both.copy()
    pt.clean_boxes(both, CLEAR, None, pt.Boxes())
    pt.clean_stripes(both, CLEAR)
    np.testing.assert_array_equal(both, before)
