"""The smooth sky of dithered frames, told apart from a target that fills much of the field."""

import numpy as np
import pytest

from pipeline.algorithms import skyfill, skymodel, skypattern, targetlight

SIZE, NOISE, LEVEL = 256, 60.0, 4000.0
DITHERS = [(0, 0), (30, 4), (-28, 8), (-6, -30), (6, 28), (24, -22)]
Y, X = np.mgrid[0:SIZE, 0:SIZE]
U, V = (X + 0.5 - SIZE / 2) / (SIZE / 2), (Y + 0.5 - SIZE / 2) / (SIZE / 2)


def galaxy(shift, peak=3000.0, scale=18.0):
    """A disc in the middle of the field; shift : pixels of the sky at which the frame's corner lies."""
    x, y = X + shift[0] - SIZE / 2, Y + shift[1] - SIZE / 2
    return peak * np.exp(-np.hypot(x, y / 0.7) / scale)


def frames(skies, target=galaxy, noise=NOISE):
    rng = np.random.default_rng(11)
    return [
        (sky + target(shift) + rng.normal(0, noise, (SIZE, SIZE))).astype(np.float32)
        for sky, shift in zip(skies, DITHERS, strict=True)
    ]


def fitted(skies, target=galaxy, shifts=DITHERS):
    images = frames(skies, target)
    cells = skymodel.cells_of(images, [np.zeros((SIZE, SIZE), bool)] * len(images), shifts)
    levels = [float(np.median(image)) for image in images]
    return cells, skymodel.fit(cells, levels, shifts, 30.0 * np.arange(len(images)))


def drifting(amount):
    return [LEVEL * (1 + amount * (k / 5 - 0.3) * (0.8 * U + 0.6 * V)) for k in range(6)]


def test_the_sky_under_a_galaxy_is_found_and_the_galaxy_is_not_eaten():
    skies = [LEVEL * (1 + 0.01 * k + 0.005 * U - 0.003 * V + 0.001 * (U**2 + V**2)) for k in range(6)]
    cells, model = fitted(skies)
    errors = [skymodel.surface(s, (SIZE, SIZE)) - sky for s, sky in zip(model.surfaces, skies, strict=True)]
    claimed = np.sqrt(skymodel.variance(model.covariance, (SIZE, SIZE)))
    assert np.abs(np.mean(errors, axis=0)).max() < 0.25 * NOISE
    assert np.abs(np.mean(errors, axis=0)[96:160, 96:160]).max() < 0.1 * NOISE
    assert (np.abs(np.mean(errors, axis=0)) < 3 * claimed).all()
    assert np.abs(errors - np.mean(errors, axis=0)).max() < 0.05 * NOISE  # no steps between frames
    assert not model.drifts
    found = targetlight.extended(model, cells.noise, LEVEL)
    assert 0.15 < found.sum() / np.isfinite(model.target).sum() < 0.6


@pytest.mark.parametrize("amount", [0.01, 0.04])
@pytest.mark.parametrize("target", [galaxy, lambda shift: np.zeros((SIZE, SIZE))])
def test_a_slope_that_drifts_is_told_from_the_target(amount, target):
    skies = drifting(amount)
    _, model = fitted(skies, target)
    assert model.drifts
    errors = [skymodel.surface(s, (SIZE, SIZE)) - sky for s, sky in zip(model.surfaces, skies, strict=True)]
    assert np.abs(errors - np.mean(errors, axis=0)).max() < 0.15 * NOISE


def test_a_quiet_sky_does_not_drift_and_an_empty_field_has_no_target():
    cells, model = fitted([LEVEL * (1 + 0.01 * k) + 0 * U for k in range(6)], lambda shift: 0 * U)
    assert not model.drifts
    assert not targetlight.extended(model, cells.noise, LEVEL).any()
    assert model.misfit == pytest.approx(0.85, abs=0.25)


def test_a_header_that_is_wrong_harms_neither_its_frame_nor_the_others():
    skies = [np.full((SIZE, SIZE), LEVEL)] * 6
    told = [*DITHERS[:3], (30, -50), *DITHERS[4:]]
    _, model = fitted(skies, shifts=told)
    errors = model.surfaces[:, 0] - LEVEL
    assert np.abs(errors).max() < 0.4 * NOISE


def test_one_frame_alone_has_a_smooth_sky():
    image = frames(drifting(0.02))[:1]
    cells = skymodel.cells_of(image, [np.zeros((SIZE, SIZE), bool)], DITHERS[:1])
    model = skymodel.fit(cells, [LEVEL], DITHERS[:1], [0.0])
    assert model.surfaces[0, 0] == pytest.approx(LEVEL, abs=0.3 * NOISE)


def test_stars_and_bad_pixels_do_not_move_the_cells():
    image = np.random.default_rng(3).normal(100, 5, (SIZE, SIZE)).astype(np.float32)
    mask = np.zeros((SIZE, SIZE), bool)
    mask[:, ::3] = True
    image[mask] = 1e6
    image[100:103, 100:103] = 1e5
    cells = skymodel.cells_of([image], [mask], [(0, 0)])
    pulls = (cells.values - 100) / cells.errors
    assert np.nanstd(pulls) == pytest.approx(1.0, abs=0.15)
    assert np.nanmax(np.abs(pulls)) < 5


# --- the fixed pattern ---


def test_the_pattern_is_what_frames_have_left_in_common():
    pattern = np.random.default_rng(5).normal(0, 40, (SIZE, SIZE)).astype(np.float32)
    lights = [image - np.float32(LEVEL) + pattern for image in frames([LEVEL + 0 * U] * 6)]
    good = np.ones((SIZE, SIZE), bool)
    mosaic = skypattern.Mosaic((SIZE, SIZE), DITHERS)
    for k, light in enumerate(lights):
        mosaic.add(k, light, good)
    left = []
    for k, light in enumerate(lights):
        others, number = mosaic.others(k, [(j, lights[j], good) for j in mosaic.near(k)])
        left.append(skypattern.residual(light, ~good, others, number, NOISE))
    common, single = skypattern.pattern_variance([a for a, _ in left], [b for _, b in left])
    assert common == pytest.approx(40**2, rel=0.15)
    assert single == pytest.approx((NOISE**2 + 40**2) * 1.2, rel=0.1)
    known = ~np.logical_or.reduce([b for _, b in left])
    found = np.mean([a for a, _ in left], axis=0)
    assert np.corrcoef(found[known], pattern[known])[0, 1] > 0.8


def test_frames_of_one_place_are_left_out_together():
    shifts = [(0, 0), (40, 0), (1, 0), (40, 1)]
    lights = [np.full((32, 64), float(10**k), np.float32) for k in range(4)]
    good = np.ones((32, 64), bool)
    mosaic = skypattern.Mosaic((32, 64), shifts)
    for k, light in enumerate(lights):
        mosaic.add(k, light, good)
    near = mosaic.near(0)
    assert near == [0, 2]
    others, number = mosaic.others(0, [(j, lights[j], good) for j in near])
    assert number[5, 50] == 2
    assert others[5, 50] == pytest.approx((10 + 1000) / 2, abs=0.01)
    assert number[5, 10] == 0


# --- small holes ---


def test_a_hole_is_filled_from_around_it_with_an_honest_variance():
    rng = np.random.default_rng(8)
    smooth = 1000 + 20 * U + 10 * V
    sci = (smooth + rng.normal(0, np.sqrt(50.0), (SIZE, SIZE))).astype(np.float32)
    pattern = rng.normal(0, np.sqrt(30.0), (SIZE, SIZE))
    hole = np.hypot(X - 100, Y - 140) < 18
    var = np.full((SIZE, SIZE), 50, np.float32)
    sci = (sci + pattern).astype(np.float32)
    sci[hole] += 500
    filled = skyfill.fill(sci, var, hole, hole)
    truth = (smooth + pattern)[hole]
    pulls = (filled.sci - truth) / np.sqrt(filled.var)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.2)
    assert abs(np.mean(filled.sci - truth)) < 1.5
    assert np.mean(skyfill.fill(sci, var, hole, hole, known=30.0).var) < 0.2 * np.mean(filled.var)


def test_a_sky_of_which_nothing_is_seen_is_an_error():
    everything = np.ones((64, 64), bool)
    plane = np.zeros((64, 64), np.float32)
    with pytest.raises(ValueError, match="no pixel of the sky"):
        skyfill.fill(plane, plane, everything, everything)


def test_a_slope_all_over_the_field_is_the_sky_and_a_disc_on_it_is_a_target():
    rows, columns = np.indices((40, 39)) - 19.5
    errors = np.full(rows.shape, 3.0)
    noise = np.random.default_rng(2).normal(0, 3.0, rows.shape)
    slope = 600 + 11.0 * rows + 16.0 * columns
    disc = 4000.0 * np.exp(-np.hypot(rows, columns) / 5)

    def found(target):
        model = skymodel.SkyModel(np.zeros((5, 6)), np.zeros((6, 6)), target + noise, errors, 1.0)
        return targetlight.extended(model, 170.0, 30000.0)

    assert not found(slope).any()
    assert found(disc)[15:25, 15:25].all()
    assert found(slope + disc)[15:25, 15:25].all()
