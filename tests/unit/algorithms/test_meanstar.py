"""The mean star tells width, elongation, second images and lost light, whatever single stars are like."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.algorithms import meanstar
from pipeline.algorithms.meanstar import Transparency, relative_light
from tests.skyframes import add_star

SIZE, NOISE = 300, 20.0
APART = (9.0, 5.0)  # pixels, of a second image


def field(seed=1, count=25, fwhm=4.2, light=1.0, trail=(0.0, 0.0), second=0.0, apart=APART):
    """(image, x, y, flux) of stars, each drawn along a trail and perhaps a second time."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(45, SIZE - 45, (2, count))
    flux = 10 ** rng.uniform(4, 5.5, count)
    image = np.zeros((SIZE, SIZE))
    steps = np.linspace(-0.5, 0.5, 9) if any(trail) else [0.0]
    for cx, cy, f in zip(x, y, flux, strict=True):
        for step in steps:
            for share, dx, dy in ((1 - second, 0.0, 0.0), (second, *apart)):
                if share:
                    at = cx + step * trail[0] + dx, cy + step * trail[1] + dy
                    add_star(image, *at, light * share * f / len(steps), fwhm)
    image += np.random.default_rng(seed + 100).normal(0, NOISE, image.shape)
    return image.astype(np.float32), x, y, flux


def shape_of(image, x, y, flux, bad=None):
    bad = np.zeros(image.shape, bool) if bad is None else bad
    pieces = meanstar.cutouts(image, bad, x, y, flux, 22)
    return meanstar.shape(pieces, NOISE / flux, 4.2)


@pytest.mark.parametrize("fwhm", [3.5, 4.2, 6.0, 10.0])
def test_width_and_roundness(fwhm):
    found = shape_of(*field(fwhm=fwhm))
    assert found.fwhm == pytest.approx(fwhm, rel=0.05)
    assert found.ellipticity < 0.03
    assert found.second < 0.05


@pytest.mark.parametrize(("length", "angle"), [(3, 0), (3, 60), (6, 120), (10, 30), (15, 90)])
def test_a_trail_is_seen_with_its_direction(length, angle):
    along = length * np.cos(np.radians(angle)), length * np.sin(np.radians(angle))
    found = shape_of(*field(trail=along))
    assert found.ellipticity > 0.09
    apart = (found.angle - angle + 90) % 180 - 90
    assert abs(apart) < 5
    assert found.second < 0.15


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_second_image_is_seen_and_a_neighbour_of_one_star_is_not(share):
    assert shape_of(*field(second=share)).second > 0.2
    image, x, y, flux = field()
    add_star(image, x[0] + 9, y[0] + 5, flux[0], 4.2)
    assert shape_of(image, x, y, flux).second < 0.05


def test_a_second_image_is_seen_where_the_frame_lies_at_the_light_of_both():
    image, x, y, flux = field(second=0.35)
    assert shape_of(image, x + 0.35 * APART[0], y + 0.35 * APART[1], flux).second > 0.3


def test_a_far_brighter_star_beside_the_only_one_is_no_second_image():
    image, x, y, flux = (values[:1] if k else values for k, values in enumerate(field()))
    add_star(image, x[0] + 12, y[0] + 5, 20 * flux[0], 4.2)
    found = shape_of(image, x, y, flux)
    assert found is None or found.second < 0.15


def test_bad_pixels_and_a_star_at_the_edge_do_no_harm():
    image, x, y, flux = field()
    bad = np.random.default_rng(3).random(image.shape) < 0.02
    image[bad] = 1e6
    x[0] = 1.0
    assert shape_of(image, x, y, flux, bad).fwhm == pytest.approx(4.2, rel=0.05)


def test_no_star_is_no_shape():
    image, x, y, flux = field(light=0.0)
    assert shape_of(image, x, y, flux) is None
    assert shape_of(image, x + 1000, y, flux) is None


@pytest.mark.parametrize("magnitudes", [0.0, 0.4, 1.5, 3.0])
def test_relative_light_and_its_error(magnitudes):
    rng = np.random.default_rng(4)
    pulls = []
    for _ in range(300):
        n = int(rng.integers(1, 30))
        reference = 10 ** rng.uniform(4.5, 6, n)
        flux = reference * 10 ** (-0.4 * magnitudes)
        error = np.full(n, 500.0)
        found = relative_light(
            flux + rng.normal(0, error), error, reference + rng.normal(0, error), error, floor=0.0
        )
        if found and np.isfinite(found.error):
            pulls.append((found.magnitudes + magnitudes) / found.error)
    assert len(pulls) > 100
    assert abs(np.mean(pulls)) < 0.25
    assert np.std(pulls) < 1.3


def test_a_variable_star_does_not_tell_the_light_of_all():
    reference, error = np.full(12, 1e5), np.full(12, 300.0)
    flux = reference.copy()
    flux[0] *= 3
    assert relative_light(flux, error, reference, error).magnitudes == pytest.approx(0, abs=0.005)


def test_no_light_left_is_an_upper_limit():
    reference, error = np.full(5, 1e5), np.full(5, 300.0)
    found = relative_light(np.zeros(5), error, reference, error)
    assert found.error == np.inf
    assert found.magnitudes < -4


def test_the_clear_frames_are_the_best_that_are_believed():
    def light(magnitudes, number=20, error=0.005):
        return Transparency(magnitudes, error, number)

    lights = [light(0.0), light(-0.03), light(-0.8), light(0.02), None]
    found = meanstar.of_the_clear(lights)
    assert found[0][0] == pytest.approx(1, abs=0.03)
    assert found[2][0] == pytest.approx(10**-0.32, rel=0.03)
    assert np.isnan(found[4][0])
    # One clear frame among clouded ones is believed with many stars, not with one.
    assert meanstar.of_the_clear([light(0.0), light(-0.8), light(-0.9)])[1][0] < 0.5
    assert meanstar.of_the_clear([light(0.0, 1), light(-0.8, 1), light(-0.82, 1)])[1][0] > 0.98


def test_what_an_aperture_holds_less_its_ring():
    image = np.zeros((201, 201))
    # Out to 40 pixels, which is all of the light to 1e-3 here.
    add_star(image, 100.0, 100.0, 1e5, 4.2)
    rows, columns = np.indices(image.shape) - 100
    away = np.hypot(rows, columns)
    ring = (away > 13) & (away < 20)
    expected = image[away < 10].sum() - image[ring].mean() * np.pi * 100
    assert meanstar.light_inside(10.0, 4.2, 3.0) == pytest.approx(expected / 1e5, abs=0.004)


def test_sources_that_repeat_are_a_double_image_and_chance_is_none():
    rng = np.random.default_rng(6)
    chance, double = [], []
    for _ in range(50):
        n = int(rng.integers(3, 40))
        x, y = rng.uniform(0, 512, (2, n))
        flux = 10 ** rng.uniform(3, 6, n)
        chance.append(meanstar.repeated(x, y, flux))
        again = x + 40 + rng.normal(0, 0.3, n), y - 25 + rng.normal(0, 0.3, n)
        both = np.concatenate([x, again[0]]), np.concatenate([y, again[1]])
        double.append(meanstar.repeated(*both, np.concatenate([flux, 0.6 * flux])))
    assert max(chance) < 0.4
    assert min(double) > 0.8


def test_a_cosmic_ray_beside_the_only_star_is_no_second_image():
    image, x, y, flux = field(count=1, second=0.0)
    image[int(y[0]) + 9, int(x[0]) + 6 : int(x[0]) + 9] += 0.04 * flux[0]
    assert shape_of(image, x, y, flux).second == 0
    image, x, y, flux = field(count=1, second=0.4, apart=(7.0, 9.0))
    assert shape_of(image, x, y, flux).second > 0.5


def test_two_pairs_alike_among_many_sources_are_chance():
    x = np.array([10.0, 16.0, 80.0, 86.0, 150.0, 40.0, 200.0])
    y = np.array([10.0, 14.0, 90.0, 94.0, 20.0, 220.0, 130.0])
    assert meanstar.repeated(x, y, np.ones(7)) == 0
    assert meanstar.repeated(x[:4], y[:4], np.ones(4)) == 1  # two stars, both twice


def test_the_noise_of_few_stars_does_not_put_the_others_in_cloud():
    steady = [Transparency(0.0, 0.01, 8)] * 4
    noisy = [Transparency(0.13, 0.07, 1), Transparency(0.1, 0.06, 1)]
    lights = [light for light, _ in meanstar.of_the_clear([*noisy, *steady])]
    assert lights[2:] == pytest.approx([1.0] * 4, abs=0.01)
