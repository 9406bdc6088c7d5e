"""Shifts between images of one field, against the shift that was put in."""

import numpy as np
import pytest

from pipeline.algorithms import matching as mt


def points(x, y, flux, error=0.02, seed=0):
    rng = np.random.default_rng(seed)
    x, y, flux = (np.asarray(v, float) for v in (x, y, flux))
    jitter = rng.normal(0, error, (2, x.size))
    return mt.Points(x + jitter[0], y + jitter[1], np.full(x.size, error), flux * rng.normal(1, 0.02, x.size))


def field(n, seed=1, size=1000):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, size, n), rng.uniform(0, size, n), 10 ** rng.uniform(3.5, 6, n)


@pytest.mark.parametrize("n", [1, 2, 3, 60])
def test_shift_of_few_and_many_sources(n):
    x, y, flux = field(n)
    found = mt.match_sources(
        points(x, y, flux, seed=2), points(x + 17.31, y - 23.84, flux, seed=3), search=43, radius=4.3
    )
    assert found.number == n
    off = np.hypot(found.dx - 17.31, found.dy + 23.84)
    assert off < 0.09 / np.sqrt(n) + 0.005
    assert off < 4 * found.error


def test_sources_of_one_image_only_do_not_mislead():
    x, y, flux = field(4)
    others = field(60, seed=8)
    cosmic = field(60, seed=9)
    a = points(*(np.append(p, q) for p, q in zip((x, y, flux * 30), others, strict=True)), seed=2)
    b = points(
        *(np.append(p, q) for p, q in zip((x + 5.5, y - 7.25, flux * 30), cosmic, strict=True)), seed=3
    )
    found = mt.match_sources(a, b, search=43, radius=4.3)
    assert abs(found.dx - 5.5) < 0.05
    assert abs(found.dy + 7.25) < 0.05


def test_two_equal_answers_are_no_answer():
    # One star here, two alike there: which of them?
    assert (
        mt.match_sources(
            points([500], [500], [1e5]), points([490, 520], [500, 505], [1e5, 1.01e5]), search=43, radius=4
        )
        is None
    )


def test_nothing_to_match():
    none = points([], [], [])
    assert mt.match_sources(none, points([1], [2], [3]), search=43, radius=4) is None
    assert (
        mt.match_sources(points([100], [100], [1e4]), points([900], [900], [1e4]), search=43, radius=4)
        is None
    )
    assert (
        mt.match_sources(
            points([100], [100], [1e4]), points([101], [100], [1e4]), search=43, radius=4, least=3
        )
        is None
    )


def test_a_source_that_moved_is_left_out():
    x, y, flux = field(12)
    bx, by = x + 3.0, y + 1.0
    bx[0] += 1.5
    found = mt.match_sources(points(x, y, flux), points(bx, by, flux, seed=5), search=20, radius=4)
    assert found.number == 11
    assert abs(found.dx - 3.0) < 0.03


def test_turn_of_the_field():
    x, y, flux = field(40)
    truth = mt.Match(4.0, -2.0, 0, 0, 0.002, (500.0, 500.0))
    found = mt.match_sources(
        points(x, y, flux),
        points(*truth.to_image(x, y), flux, seed=4),
        search=20,
        radius=4,
        rotate=True,
        centre=(500, 500),
    )
    assert found.angle == pytest.approx(0.002, abs=5e-5)
    assert found.dx == pytest.approx(4.0, abs=0.02)


def galaxy(dx, dy, seed, noise=8.0, size=200):
    y, x = np.indices((size, size)).astype(float)
    r = np.hypot((x - 100.0 - dx), (y - 96.0 - dy) / 0.7)
    knots = [(60, 140, 300), (130, 60, 200), (150, 150, 150)]
    image = 800 * np.exp(-r / 30)
    for kx, ky, peak in knots:
        image += peak * np.exp(-0.5 * ((x - kx - dx) ** 2 + (y - ky - dy) ** 2) / 9.0)
    return (image + np.random.default_rng(seed).normal(0, noise, image.shape)).astype(np.float32)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.37, -5.61), (-30.25, 22.5)])
def test_shift_of_a_galaxy_from_its_pixels(shift):
    guess = (round(shift[0]) + 1.0, round(shift[1]) - 2.0) if max(map(abs, shift)) > 10 else (0.0, 0.0)
    clear = np.zeros((200, 200), bool)
    found = mt.match_images(galaxy(0, 0, 1), galaxy(*shift, 2), clear, clear, guess=guess, search=12)
    assert np.hypot(found.dx - shift[0], found.dy - shift[1]) < 0.08
    assert np.hypot(found.dx - shift[0], found.dy - shift[1]) < 4 * found.error


def test_bad_pixels_do_not_lock_the_shift_to_the_detector():
    bad = np.random.default_rng(5).random((200, 200)) < 0.02
    a, b = galaxy(0, 0, 1), galaxy(4.4, 2.2, 2)
    a[bad], b[bad] = 1e5, 1e5
    found = mt.match_images(a, b, bad, bad, search=12)
    assert np.hypot(found.dx - 4.4, found.dy - 2.2) < 0.06


def test_noise_has_no_shift():
    clear = np.zeros((200, 200), bool)
    a, b = (np.random.default_rng(s).normal(0, 1, (200, 200)).astype(np.float32) for s in (1, 2))
    assert mt.match_images(a, b, clear, clear, search=12) is None


def test_error_of_the_pixel_match_is_its_scatter():
    clear = np.zeros((200, 200), bool)
    found = [
        mt.match_images(galaxy(0, 0, s, 60), galaxy(1.3, 0.6, s + 50, 60), clear, clear, search=8)
        for s in range(8)
    ]
    scatter = np.std([m.dx for m in found] + [m.dy + 0.7 for m in found])
    assert 0.3 < scatter / np.mean([m.error for m in found]) < 1.6
