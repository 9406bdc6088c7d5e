"""Profile fits, apertures and zero points against stars of known flux, place and shape."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from pipeline.algorithms import photometry as ph
from pipeline.algorithms import profiles as pf

SKY, READ = 2000.0, 35.0


def scene(seed, stars, shape=(256, 256), fwhm=4.5, beta=2.8, q=1.0, angle=0.0, oversample=5):
    """Stars (x, y, flux) integrated over pixels, with photon and read noise; also the variance."""
    grid = (np.arange(oversample) + 0.5) / oversample - 0.5
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    a, b = alpha / np.sqrt(q), alpha * np.sqrt(q)
    y, x = np.indices(shape)
    truth = np.zeros(shape)
    for sx, sy, flux in stars:
        for gy in grid:
            for gx in grid:
                dx, dy = x + gx - sx, y + gy - sy
                u, v = dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle)
                truth += (
                    flux
                    * (beta - 1)
                    / (np.pi * a * b)
                    * (1 + (u / a) ** 2 + (v / b) ** 2) ** -beta
                    / oversample**2
                )
    rng = np.random.default_rng(seed)
    image = rng.poisson(truth + SKY) + rng.normal(0, READ, shape) - SKY
    return image.astype(np.float32), (truth + SKY + READ**2).astype(np.float32)


GOOD = np.zeros((256, 256), bool)


def test_fit_recovers_place_size_shape_and_flux():
    stars = [(60.3, 70.8, 3e5), (150.5, 90.0, 1e5), (200.1, 200.9, 5e4)]
    image, var = scene(1, stars, q=0.8, angle=0.5)
    x, y, flux = (np.array(c) for c in zip(*stars, strict=True))
    fit = pf.fit_stars(image, var, GOOD, np.rint(x), np.rint(y), np.full(3, 4.0))
    np.testing.assert_array_less(np.hypot(fit.x - x, fit.y - y), 5 * fit.error)
    assert (fit.error < [0.01, 0.02, 0.04]).all()
    # The pixel widens the profile; its own second moment is 1/12 a axis.
    np.testing.assert_allclose(fit.fwhm, 4.55, rtol=0.03)
    np.testing.assert_allclose(fit.ellipticity, 0.2, atol=0.03)
    np.testing.assert_allclose(fit.theta[:2], 0.5, atol=0.12)
    np.testing.assert_allclose(fit.flux, flux, rtol=0.06)


def test_errors_of_places_are_their_scatter():
    deviations, errors = [], []
    for seed in range(25):
        image, var = scene(seed, [(30.3, 29.7, 4e4)], (61, 61), oversample=3)
        fit = pf.fit_stars(
            image, var, np.zeros((61, 61), bool), np.array([30.0]), np.array([30.0]), np.array([5.0])
        )
        deviations += [fit.x[0] - 30.3, fit.y[0] - 29.7]
        errors.append(fit.error[0])
    assert np.std(deviations) == pytest.approx(np.mean(errors), rel=0.3)


def test_compiled_fit_is_scipys():
    image, var = scene(3, [(30.3, 29.7, 1e5)], (61, 61), oversample=3)
    fit = pf.fit_stars(
        image, var, np.zeros((61, 61), bool), np.array([30.0]), np.array([30.0]), np.array([4.0])
    )
    yy, xx = np.indices(image.shape)
    use = np.hypot(xx - 30, yy - 30) <= 10
    p, cov = curve_fit(
        lambda xy, *p: pf.moffat(np.array(p), *xy), (xx[use], yy[use]), image[use], sigma=np.sqrt(var[use]),
        absolute_sigma=True, p0=[image.max(), 30, 30, 0.1, 0, 0.1, 0.33, 0],
        bounds=([0, 25, 25, 1e-3, -0.01, 1e-3, 0.05, -1e4], [1e6, 35, 35, 1, 0.01, 1, 0.8, 1e4]),
    )  # fmt: skip
    assert fit.x[0] == pytest.approx(p[1], abs=2e-4)
    assert fit.y[0] == pytest.approx(p[2], abs=2e-4)
    assert fit.peak[0] == pytest.approx(p[0], rel=2e-3)
    assert fit.error[0] == pytest.approx(np.sqrt(cov[1, 1]), rel=0.15)


def test_a_bad_pixel_in_the_core_does_not_move_the_star():
    image, var = scene(4, [(30.3, 29.7, 3e5)], (61, 61), oversample=3)
    bad = np.zeros((61, 61), bool)
    bad[31, 30], image[31, 30] = True, 1e6
    fit = pf.fit_stars(image, var, bad, np.array([30.0]), np.array([30.0]), np.array([5.0]))
    assert np.hypot(fit.x[0] - 30.3, fit.y[0] - 29.7) < 0.02


def test_nothing_to_fit_is_nan():
    empty = np.zeros((61, 61), np.float32)
    fit = pf.fit_stars(empty, empty + 1, empty > 1, np.array([30.0]), np.array([30.0]), np.array([5.0]))
    assert np.isnan(fit.x[0])
    assert np.isnan(fit.fwhm[0])


@pytest.mark.parametrize("beta", [2.5, 3.5])
def test_curve_of_growth_reaches_the_total(beta):
    image, var = scene(5, [(128.2, 127.6, 2e6)], beta=beta, oversample=3)
    image += 50  # left-over sky
    fit = pf.fit_stars(image, var, GOOD, np.array([128.0]), np.array([128.0]), np.array([4.0]))
    growth = ph.curve_of_growth(image, var, GOOD, fit.x[0], fit.y[0], fit.fwhm[0], fit.beta[0])
    assert growth.total == pytest.approx(2e6, rel=0.006)
    assert abs(growth.total - 2e6) < 3 * growth.error
    assert growth.flux[0] < growth.flux[-1]


def test_curve_of_growth_allows_for_wings_in_the_annulus():
    _, var = scene(5, [(128.2, 127.6, 2e6)], beta=2.0, fwhm=6.0, oversample=3)
    smooth = (var - SKY - READ**2).astype(np.float32)  # the star without noise
    growth = ph.curve_of_growth(smooth, var, GOOD, 128.2, 127.6, 6.05, 2.0, aperture=3.0)
    held = ph.moffat_inside(3.0 * 6.05, 6.05, 2.0)
    assert growth.total == pytest.approx(2e6, rel=0.002)
    assert growth.missing > 1.03 * (1 - held)  # of the wings some were taken for sky


def test_aperture_errors_are_their_scatter():
    sums, errors = [], []
    for seed in range(30):
        image, var = scene(seed, [(30.3, 29.7, 4e4)], (61, 61), oversample=1)
        found = ph.apertures(
            image, var, np.zeros((61, 61), bool), np.array([30.3]), np.array([29.7]), np.array([10.0])
        )
        sums.append(found.flux[0, 0])
        errors.append(found.error[0, 0])
    assert np.std(sums) == pytest.approx(np.mean(errors), rel=0.35)


def test_bad_pixel_in_the_aperture_is_told():
    image, var = scene(5, [(30.3, 29.7, 1e5)], (61, 61), oversample=1)
    bad = np.zeros((61, 61), bool)
    bad[30, 36] = True
    found = ph.apertures(image, var, bad, np.array([30.3]), np.array([29.7]), np.array([3.0, 8.0]))
    assert found.clean.tolist() == [[True, False]]
    assert ph.curve_of_growth(image, var, bad, 30.3, 29.7, 4.5, 3.0) is None


def test_zero_point_is_that_of_the_formula():
    rate = 10 ** (0.4 * (26.40 - 12.3 - 0.06 * 0.5))
    value, error = ph.zero_point(12.3, 0.01, rate * 3, rate * 0.003, 3.0, 1.5, 0.06, 0.03)
    assert value == pytest.approx(26.40)
    assert error == pytest.approx(np.hypot(np.hypot(0.01, 0.00109), 0.015), rel=0.01)
    with pytest.raises(ValueError, match="no zero point"):
        ph.zero_point(12, 0, -1, 0, 3, 1, 0.06, 0.03)
