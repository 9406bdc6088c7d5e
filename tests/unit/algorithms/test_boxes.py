"""Small filters say what scipy's say."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.algorithms import boxes, evidence, skyfill


@pytest.mark.parametrize("shape", [(40, 31), (9, 64)])
@pytest.mark.parametrize("size", [3, 5, 9])
def test_means_and_highest(shape, size):
    image = np.random.default_rng(1).normal(0, 10, shape).astype(np.float32)
    np.testing.assert_allclose(
        boxes.mean(image, size), ndimage.uniform_filter(image.astype(float), size, mode="nearest"), atol=1e-9
    )
    np.testing.assert_array_equal(
        boxes.highest(image, size), ndimage.maximum_filter(image, size, mode="nearest")
    )


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_opening(share):
    mask = np.random.default_rng(2).random((60, 41)) < share
    np.testing.assert_array_equal(boxes.opened(mask, 3), ndimage.binary_opening(mask, np.ones((3, 3))))


def test_with_and_without_a_tree_the_neighbours_are_the_same(monkeypatch):
    places = np.random.default_rng(3).normal(0, 2, (300, 3))
    counts, around = evidence._neighbours(places)
    monkeypatch.setattr(evidence, "FEW_PAIRS", 0)
    other, by_tree = evidence._neighbours(places)
    np.testing.assert_array_equal(counts, other)
    for point in places[:20]:
        np.testing.assert_array_equal(around(point), by_tree(point))


def test_lines_between_the_middles_of_cells():
    rng = np.random.default_rng(4)
    cells, y, x = rng.normal(0, 5, (9, 7)), rng.integers(0, 144, 500), rng.integers(0, 112, 500)
    places = np.stack([(y + 0.5) / skyfill.CELL - 0.5, (x + 0.5) / skyfill.CELL - 0.5])
    expected = ndimage.map_coordinates(cells, places, order=1, mode="nearest")
    np.testing.assert_allclose(skyfill._at(cells, y, x), expected, atol=1e-9)
