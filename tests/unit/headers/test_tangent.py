"""The tangent plane against astropy's."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.headers.tangent import affine_between, separation, tangent


def cards(ra=132.8, dec=67.5, pa=0.4, crpix=(512.0, 500.0), parity=-1, scale=0.1171):
    s = scale / 3600
    return {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": ra, "CRVAL2": dec,
        "CRPIX1": crpix[0], "CRPIX2": crpix[1],
        "CD1_1": parity * s * np.cos(pa), "CD1_2": s * np.sin(pa),
        "CD2_1": -parity * s * np.sin(pa), "CD2_2": s * np.cos(pa),
    }  # fmt: skip


@pytest.mark.parametrize("header", [cards(), cards(ra=359.99, dec=-20, parity=1), cards(dec=89.9, pa=2.0)])
def test_is_astropys(header):
    x, y = np.array([0.0, 1023.0, 300.5]), np.array([0.0, 10.0, 900.25])
    ours, theirs = tangent(header), WCS(fits.Header(header))
    ra, dec = ours.to_sky(x, y)
    expected = theirs.pixel_to_world_values(x, y)
    assert separation(ra, dec, *expected).max() < 1e-6
    np.testing.assert_allclose(ours.to_pixel(ra, dec), [x, y], atol=1e-6)
    assert ours.pixel_scale == pytest.approx(0.1171)


def test_no_projection_from_a_degenerate_header():
    assert tangent({**cards(), "CD1_1": -3e-55, "CD1_2": 0.0}) is None
    assert tangent({}) is None


def test_affine_between_two_pointings():
    a, b = tangent(cards(dec=80, crpix=(512, 512))), tangent(cards(dec=80.01, ra=132.9, crpix=(512, 512)))
    c = affine_between(a, b, (511.5, 511.5))
    x, y = np.array([0.0, 1023.0]), np.array([1023.0, 5.0])
    exact = b.to_pixel(*a.to_sky(x, y))
    np.testing.assert_allclose([c[0] * x + c[1] * y + c[2], c[3] * x + c[4] * y + c[5]], exact, atol=2e-3)


def test_separation():
    assert separation(10.0, 0.0, 10.0, 1 / 3600) == pytest.approx(1.0)
    assert separation(0.0, 60.0, 1 / 3600, 60.0) == pytest.approx(0.5)
