"""Arithmetic of calibration: the numbers of the fact sheet, the truth, and the noise that is claimed."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import niri
from pipeline.algorithms import calibrate
from tests.plain.calibrate import divide_plain, linearize_plain, noise_plain

SHAPE = (120, 130)


def random_planes(seed, level=1000.0, sigma=30.0):
    rng = np.random.default_rng(seed)
    sci = rng.normal(level, sigma, SHAPE).astype(np.float32)
    var = rng.uniform(0.5, 1.5, SHAPE).astype(np.float32) * np.float32(sigma**2)
    dq = (rng.integers(0, 128, SHAPE) * (rng.random(SHAPE) < 0.1)).astype(np.uint16)
    return sci, var, dq


def unchanged(function, *args):
    copies = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    result = function(*args)
    for a, copy in zip(args, copies, strict=True):
        np.testing.assert_array_equal(a, copy)
    return result


@pytest.mark.parametrize(("gain", "pedestal"), [(1.0, 0.0), (12.3, 0.0), (12.3, 980.0), (1.0, np.inf)])
def test_noise(gain, pedestal):
    sci, _, _ = random_planes(1)
    out = unchanged(calibrate.noise, sci, 35.0, gain, pedestal)
    np.testing.assert_allclose(out, noise_plain(sci, 35.0, gain, pedestal), rtol=1e-6)
    expected = 35.0**2 / gain**2 + max(1000.0 - pedestal, 0) / gain
    assert np.median(out) == pytest.approx(expected, rel=0.01)


def test_linearity_of_the_fact_sheet():
    # High Background, 1024, Shallow: 61500 e in 20.002 s -> 63148.332 -> 63117.732 e.
    law = niri.LINEARITY["High Background", 1024, "Shallow"]
    gamma, eta, s = law.gamma, law.eta, 20.002 / (20.002 + law.time_delta)
    sci = np.full((1, 1), 61500.0, np.float32)
    out, var = calibrate.linearize(sci, np.full((1, 1), 100.0, np.float32), 1.0, 1, gamma, eta, s)
    assert out[0, 0] == pytest.approx(63117.732, abs=0.004)
    assert var is not None
    assert var[0, 0] == pytest.approx((100 + 1648.332) * s**2, rel=1e-6)
    assert calibrate.linearized(199998.0, gamma, eta) == pytest.approx(234423.193, abs=1e-3)
    assert calibrate.linearized(139998.6, gamma, eta) == pytest.approx(153259.698, abs=1e-3)


@pytest.mark.parametrize(("gain", "coadds"), [(1.0, 1), (12.3, 1), (12.3, 4)])
def test_linearity_compiled_says_the_same(gain, coadds):
    sci, var, _ = random_planes(2, level=9000, sigma=3000)
    for planes in ((sci, var), (sci, None)):
        args = (*planes, gain, coadds, 5.5e-7, 1.4e-12, 0.98)
        out, out_var = unchanged(calibrate.linearize, *args)
        plain, plain_var = linearize_plain(*args)
        np.testing.assert_allclose(out, plain, rtol=1e-6)
        if planes[1] is None:
            assert out_var is None
        else:
            np.testing.assert_allclose(out_var, plain_var, rtol=1e-6)


def test_linearity_does_not_care_for_the_unit():
    sci = np.random.default_rng(3).uniform(0, 15000, SHAPE).astype(np.float32)
    in_adu, _ = calibrate.linearize(sci, None, 12.3, 2, 2.8e-7, 3.2e-12, 0.99)
    in_electrons, _ = calibrate.linearize(sci * np.float32(12.3), None, 1.0, 2, 2.8e-7, 3.2e-12, 0.99)
    np.testing.assert_allclose(in_adu * 12.3, in_electrons, rtol=1e-6)


def test_subtract():
    a, b = random_planes(4), random_planes(5)
    sci, var, dq = unchanged(calibrate.subtract, *a, *b)
    np.testing.assert_array_equal(sci, a[0] - b[0])
    np.testing.assert_array_equal(var, a[1] + b[1])
    np.testing.assert_array_equal(dq, a[2] | b[2])
    assert calibrate.subtract(a[0], None, a[2], b[0], None, b[2])[1] is None
    np.testing.assert_array_equal(calibrate.subtract(a[0], None, a[2], *b)[1], b[1])
    np.testing.assert_array_equal(calibrate.subtract(*a, b[0], None, b[2])[1], a[1])


@pytest.mark.parametrize("known", [(True, True), (True, False), (False, True), (False, False)])
def test_divide(known):
    a, f = random_planes(6), random_planes(7, level=1.0, sigma=0.1)
    f[0][3, 4], f[0][3, 5] = 0.0, np.nan
    args = (a[0], a[1] if known[0] else None, a[2], f[0], f[1] if known[1] else None, f[2])
    out, plain = unchanged(calibrate.divide, *args), divide_plain(*args)
    for x, y in zip(out, plain, strict=True):
        if y is None:
            assert x is None
        else:
            np.testing.assert_allclose(x, y, rtol=1e-6)
    assert out[0][3, 4] == 0
    assert out[2][3, 4] & 1
    assert out[2][3, 5] & 1


def test_variance_of_dark_and_flat_is_the_scatter():
    rng = np.random.default_rng(8)
    electrons, dark, flat = 20000.0, 400.0, 0.8
    n = 400
    raw = rng.normal(electrons * flat + dark, np.sqrt(electrons * flat + dark + 35**2), (n, n)).astype("f4")
    master = rng.normal(dark, np.sqrt((dark + 35**2) / 10), (n, n)).astype("f4")
    response = rng.normal(flat, 0.005, (n, n)).astype("f4")
    none = np.zeros((n, n), np.uint16)
    raw_var = calibrate.noise(raw, 35.0, 1.0, 0.0)
    master_var = calibrate.noise(master, 35.0, 1.0, 0.0) / np.float32(10)
    sci, var, _ = calibrate.subtract(raw, raw_var, none, master, master_var, none)
    sci, var, _ = calibrate.divide(sci, var, none, response, np.full((n, n), 0.005**2, np.float32), none)
    assert var is not None
    pull = (sci - electrons) / np.sqrt(var)
    assert abs(np.median(pull)) < 0.02
    assert pull.std() == pytest.approx(1, abs=0.015)
