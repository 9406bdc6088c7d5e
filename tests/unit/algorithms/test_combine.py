"""Stacking: the truth is recovered, with the noise that is claimed, and fast means the same as plain."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from pipeline.algorithms.combine import Method, Stack, combine, median_variance
from pipeline.algorithms.combine_rows import sorting_network
from pipeline.algorithms.levels import frame_levels, median, relative_scales, relative_zeros
from tests.plain.combine import combine_plain

OPERATIONS = ("mean", "median", "wtmean", "lmedian")
REJECTIONS = ("none", "sigclip", "varclip", "minmax", "ccdclip")


def make(n, shape=(24, 40), level=1000.0, sigma=20.0, seed=1):
    rng = np.random.default_rng(seed)
    sci = [rng.normal(level, sigma, shape).astype(np.float32) for _ in range(n)]
    var = [np.full(shape, sigma**2, np.float32) for _ in range(n)]
    dq = [np.zeros(shape, np.uint16) for _ in range(n)]
    return sci, var, dq


def make_messy(n, seed=3, shape=(20, 30)):
    """Outliers, every DQ bit, ties, unequal variances, a few NaN."""
    rng = np.random.default_rng(seed)
    sci, var, dq = make(n, shape, seed=seed)
    for k in range(n):
        sci[k] = np.round(sci[k] * (1 + 0.001 * k))
        sci[k][rng.random(shape) < 0.05] += 2000
        sci[k][rng.random(shape) < 0.02] -= 500
        var[k] = (var[k] * rng.uniform(0.5, 2.0, shape) + np.maximum(sci[k] - 1000, 0)).astype(np.float32)
        for bit in (1, 2, 4, 8, 16, 32, 64):
            dq[k][rng.random(shape) < 0.06] |= bit
        dq[k][2, 3] |= 16
        sci[k][rng.random(shape) < 0.01] = np.nan
        sci[k][4, 5] = np.nan
    return sci, var, dq


def same(a: Stack, b: Stack):
    np.testing.assert_array_equal(a.coverage, b.coverage)
    np.testing.assert_array_equal(a.dq, b.dq)
    np.testing.assert_allclose(a.sci, b.sci, rtol=3e-7, atol=1e-4)
    np.testing.assert_allclose(a.var, b.var, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 10, 30])
def test_compiled_says_the_same_as_plain(n):
    sci, var, dq = make_messy(n)
    before = [plane.copy() for plane in (*sci, *var, *dq)]
    for operation, reject in itertools.product(OPERATIONS, REJECTIONS):
        method = Method(operation, reject, nlow=int(n > 2), nhigh=int(n > 3), gradient=0.3)
        for variant in (
            method,
            dataclasses.replace(method, mclip=False, max_iters=2, exact_median=False, lsigma=2.0),
        ):
            same(combine(sci, var, dq, variant), combine_plain(sci, var, dq, variant))
        same(combine(sci, None, dq, method), combine_plain(sci, None, dq, method))
        scale, zero = np.linspace(1, 1.2, n).tolist(), np.linspace(-5, 5, n).tolist()
        same(combine(sci, var, dq, method, scale, zero), combine_plain(sci, var, dq, method, scale, zero))
        weights = np.linspace(1, 0.1, n).tolist()
        of_all = (sci, var, dq, method, scale, zero, weights)
        same(combine(*of_all), combine_plain(*of_all))
    for plane, copy in zip((*sci, *var, *dq), before, strict=True):
        np.testing.assert_array_equal(plane, copy)


def test_weights_that_go_with_the_noise_make_the_best_mean_and_its_variance():
    sigmas = np.array([10.0, 10.0, 40.0, 80.0])
    rng = np.random.default_rng(5)
    shape = (100, 100)
    sci = [rng.normal(100.0, s, shape).astype(np.float32) for s in sigmas]
    var = [np.full(shape, s * s, np.float32) for s in sigmas]
    dq = [np.zeros(shape, np.uint16)] * 4
    weighted = combine(sci, var, dq, Method(), weights=(1 / sigmas**2).tolist())
    expected = 1 / np.sum(1 / sigmas**2)
    np.testing.assert_allclose(weighted.var, expected, rtol=1e-5)
    assert weighted.sci.var() == pytest.approx(expected, rel=0.05)
    assert combine(sci, var, dq, Method()).sci.var() > 10 * expected
    alike = combine(sci, var, dq, Method(), weights=[0.3] * 4)
    np.testing.assert_array_equal(alike.sci, combine(sci, var, dq, Method()).sci)
    with pytest.raises(ValueError, match="above 0"):
        combine(sci, var, dq, Method(), weights=[1.0, 1.0, 1.0, 0.0])


def test_bands_do_not_show(monkeypatch):
    sci, var, dq = make_messy(4, shape=(23, 17))
    method = Method("mean", "ccdclip", gradient=1.0)
    whole = combine(sci, var, dq, method)
    for samples in (1, 4 * 17 * 2, 4 * 17 * 5):
        monkeypatch.setattr("pipeline.algorithms.combine.BAND_SAMPLES", samples)
        pieces = combine(sci, var, dq, method)
        for name in ("sci", "var", "dq", "coverage"):
            np.testing.assert_array_equal(getattr(whole, name), getattr(pieces, name))


@pytest.mark.parametrize("n", range(1, 12))
def test_network_sorts_everything(n):
    # The 0-1 principle: a network that sorts all sequences of zeros and ones sorts all sequences.
    cases = np.array(list(itertools.product([0, 1], repeat=n)))
    for i, j in sorting_network(n):
        cases[:, [i, j]] = np.sort(cases[:, [i, j]], axis=1)
    assert (np.diff(cases, axis=1) >= 0).all()


def test_hierarchy_takes_the_least_bad():
    order = [(2, 4, 6, 0), (8, 10), (32, 40), (1, 41), (64, 127 - 16), (16, 17, 255)]
    for better, worse in itertools.combinations(range(6), 2):
        for a, b in itertools.product(order[better], order[worse]):
            sci = [np.full((1, 1), 5.0, np.float32), np.full((1, 1), 99.0, np.float32)]
            out = combine(sci, None, [np.full((1, 1), a, np.uint16), np.full((1, 1), b, np.uint16)], Method())
            assert out.sci[0, 0] == 5.0
            assert out.dq[0, 0] == a
            assert out.coverage[0, 0] == 1


def test_saturated_samples_are_averaged_and_flag_the_result():
    sci = [np.full((1, 1), v, np.float32) for v in (10, 20)]
    out = combine(sci, None, [np.zeros((1, 1), np.uint16), np.full((1, 1), 4, np.uint16)], Method())
    assert (out.sci[0, 0], out.dq[0, 0], out.coverage[0, 0]) == (15.0, 4, 2)


def test_no_data_anywhere():
    sci = [np.full((1, 2), v, np.float32) for v in (np.nan, np.nan)]
    dq = [np.array([[0, 16]], np.uint16)] * 2
    out = combine(sci, sci, dq, Method("mean", "ccdclip"))
    assert (out.sci == 0).all()
    assert (out.dq == 16).all()
    assert (out.coverage == 0).all()


@pytest.mark.parametrize("operation", ["mean", "median", "wtmean"])
@pytest.mark.parametrize("n", [3, 4, 5, 7, 9])
def test_variance_is_the_scatter(operation, n):
    sci, var, dq = make(n, (150, 200), seed=n)
    out = combine(sci, var, dq, Method(operation))
    pull = (out.sci - 1000) / np.sqrt(out.var)
    assert abs(pull.mean()) < 0.02
    assert pull.std() == pytest.approx(1, abs=0.015)


def test_variance_of_a_median_after_minmax_is_that_of_all():
    # The table of rules.md section 7: 0.449, 0.298, 0.287, 0.210, 0.166 of V for n = 3, 4, 5, 7, 9.
    for n, factor in ((3, 0.449), (4, 0.298), (5, 0.287), (7, 0.210), (9, 0.166)):
        sci, var, dq = make(n, (4, 4))
        out = combine(sci, var, dq, Method("median", "minmax", nlow=1, nhigh=1))
        np.testing.assert_allclose(out.var, 400 * factor, rtol=4e-3)
        plain = combine(sci, var, dq, Method("median", "minmax", nlow=1, nhigh=1, exact_median=False))
        np.testing.assert_allclose(plain.var, 400 * np.pi / 2 / (n - 2), rtol=1e-6)


def test_table_of_median_variances():
    x = np.linspace(-8, 8, 801)
    density = np.exp(-0.5 * x * x)
    below = np.cumsum(density) / density.sum()
    below -= 0.5 * density / density.sum()
    table = median_variance(101)
    for n in (1, 3, 5, 7, 9, 21, 31, 33, 101):
        weight = density * (below * (1 - below)) ** ((n - 1) // 2)
        assert table[n] == pytest.approx((weight * x * x).sum() / weight.sum(), rel=2e-3)
    for n in (2, 4, 6, 10, 32, 34, 100):
        low, high = density * below ** (n // 2 - 1), density * (1 - below) ** (n // 2 - 1)
        weight = np.triu(np.outer(low / low.max(), high / high.max()))
        weight[np.diag_indices_from(weight)] *= 0.5
        square = (0.5 * (x[:, None] + x)) ** 2
        assert table[n] == pytest.approx((weight * square).sum() / weight.sum(), rel=4e-3)
    assert (np.diff(table[1:33]) < 0).all()


def test_variance_without_noise_planes_comes_from_the_scatter():
    sci, _, dq = make(10, (100, 100))
    assert np.median(combine(sci, None, dq, Method()).var) == pytest.approx(400 / 10, rel=0.1)
    single = combine(sci[:1], None, dq[:1], Method())
    np.testing.assert_array_equal(single.sci, sci[0])
    assert (single.var == 0).all()


def test_dark_of_the_fact_sheet():
    # niri-facts.md E.4: 4 frames of 369 electrons with read noise 70 -> 1317.
    sci, _, dq = make(4, (3, 3), level=369, sigma=0)
    var = [np.full((3, 3), 70**2 + 369, np.float32)] * 4
    np.testing.assert_allclose(combine(sci, var, dq, Method("mean", "varclip")).var, 1317.25)


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7])
def test_ccdclip_rejects_a_lone_hit_where_sigma_clipping_cannot(n):
    sci, var, dq = make(n, (64, 64), level=100, sigma=10, seed=n)
    rng = np.random.default_rng(n)
    hits = rng.random((64, 64)) < 0.02
    frame = rng.integers(0, n, (64, 64))
    for k in range(n):
        energy = np.where(hits & (frame == k), 10 ** rng.uniform(2.0, 4.5, (64, 64)), 0).astype(np.float32)
        sci[k] += energy
        var[k] += energy  # as addVAR counts it: a hit brings its own Poisson noise
    clipped = combine(sci, var, dq, Method("mean", "ccdclip", lsigma=4, hsigma=4))
    left = np.abs(clipped.sci - 100) > 4 * np.sqrt(100 / n)
    assert (left & hits).sum() < 0.01 * hits.sum() + 1
    wrongly = n * (~hits).sum() - clipped.coverage[~hits].sum(dtype=int)
    assert wrongly < 1e-3 * n * (~hits).sum()
    spared = combine(sci, var, dq, Method("mean", "sigclip"))
    assert (np.abs(spared.sci - 100) > 4 * np.sqrt(100 / n))[hits].mean() > 0.5


def star(shape, x, y, fwhm, flux):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    width = fwhm / 2.3548
    return flux / (2 * np.pi * width**2) * np.exp(-0.5 * ((xx - x) ** 2 + (yy - y) ** 2) / width**2)


@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_ccdclip_spares_stars_that_change_with_the_seeing(n):
    shape, rng = (100, 100), np.random.default_rng(n)
    places = [(x + 0.37 * x % 1, y + 0.41 * y % 1) for x in range(12, 90, 25) for y in range(12, 90, 25)]
    truths, sci, var = [], [], []
    for _ in range(n):
        fwhm, dx, dy = 4.2 * rng.normal(1, 0.08), *rng.normal(0, 0.1, 2)
        truth = sum(
            star(shape, x + dx, y + dy, fwhm, 10 ** (4 + 0.15 * i)) for i, (x, y) in enumerate(places)
        )
        noise = truth + 170.0**2
        truths.append(truth)
        sci.append((truth + rng.normal(0, np.sqrt(noise))).astype(np.float32))
        var.append(noise.astype(np.float32))
    dq = [np.zeros(shape, np.uint16)] * n
    near = np.zeros(shape, bool)
    for x, y in places:
        near |= star(shape, x, y, 2.3548, 2 * np.pi) > np.exp(-0.5 * 8.4**2)
    out = combine(sci, var, dq, Method("mean", "ccdclip", lsigma=4, hsigma=4, gradient=1.5))
    assert (n - out.coverage.astype(int))[near].sum() <= 1e-3 * n * near.sum()
    strict = combine(sci, var, dq, Method("mean", "ccdclip", lsigma=4, hsigma=4, gradient=0.0))
    assert (n - strict.coverage.astype(int))[near].sum() > 1e-3 * n * near.sum()


def test_ccdclip_takes_no_drift_of_a_whole_frame_for_outliers():
    sci, var, dq = make(5, (64, 64))
    sci[2] += 400  # 20 sigma
    levels = frame_levels(sci, dq, [1.0] * 5, [0.0] * 5)
    assert levels[2] - np.median(levels) == pytest.approx(400, abs=12)  # half a sigma of the samples
    out = combine(sci, var, dq, Method("mean", "ccdclip", lsigma=4, hsigma=4))
    assert out.coverage.mean() > 4.99
    assert out.sci.mean() == pytest.approx(1080, abs=1)


def test_minmax_in_proportion_to_what_is_there():
    # 4 good of 5 with 1/1: int(0.8 + 0.001) = 0 of them are rejected.
    sci = [np.full((1, 2), v, np.float32) for v in (1, 2, 3, 4, 100)]
    dq = [np.zeros((1, 2), np.uint16) for _ in range(5)]
    dq[0][0, 1] = 1
    out = combine(sci, None, dq, Method("mean", "minmax", nlow=1, nhigh=1))
    assert out.coverage.tolist() == [[3, 4]]
    assert out.sci.tolist() == [[3.0, 27.25]]


def test_everything_rejected_means_nothing_is():
    sci = [np.full((1, 1), v, np.float32) for v in (0, 100)]
    var = [np.full((1, 1), 1, np.float32)] * 2
    dq = [np.zeros((1, 1), np.uint16)] * 2
    out = combine(sci, var, dq, Method("mean", "varclip"))
    assert (out.sci[0, 0], out.coverage[0, 0]) == (50.0, 2)


def test_refusals():
    sci, var, dq = make(2, (3, 3))
    with pytest.raises(ValueError, match="cannot reject 1 low and 1 high of 2"):
        combine(sci, var, dq, Method("median", "minmax", nlow=1, nhigh=1))
    with pytest.raises(ValueError, match="differ in shape"):
        combine(sci, var, [dq[0], dq[1][:2]], Method())
    with pytest.raises(ValueError, match="nothing"):
        combine([], [], [], Method())


def test_scales_and_offsets_come_back():
    rng = np.random.default_rng(5)
    sky = rng.uniform(500, 1500, (60, 60))
    truth = [1.0, 1.1, 0.8, 1.5]
    sci = [(sky * s + rng.normal(0, 3, sky.shape)).astype(np.float32) for s in truth]
    dq = [np.zeros(sky.shape, np.uint16) for _ in truth]
    sci[1][:20] = 1e6
    dq[1][:20] = 1
    np.testing.assert_allclose(relative_scales(sci, dq), 1 / np.array(truth), rtol=1e-3)
    moved = [(sky + z).astype(np.float32) for z in (0, 30, -70)]
    np.testing.assert_allclose(relative_zeros(moved, dq[:1] * 3), [0, -30, 70], atol=0.01)
    assert relative_scales([-plane for plane in sci], dq) == [1.0] * 4
    same(
        combine(sci, None, dq, Method(), scale=relative_scales(sci, dq)),
        combine_plain(sci, None, dq, Method(), scale=relative_scales(sci, dq)),
    )


@pytest.mark.parametrize("kind", ["narrow", "few values", "one value", "wild", "two heaps", "not finite"])
@pytest.mark.parametrize("n", [20001, 20002])
def test_the_median_by_counting_is_numpys(kind, n):
    rng = np.random.default_rng(n)
    values = {
        "narrow": rng.normal(1, 0.01, n),
        "few values": rng.integers(0, 3, n),
        "one value": np.full(n, 3.0),
        "wild": rng.standard_cauchy(n),
        "two heaps": np.where(np.arange(n) % 2, 1.0, 2.0),
        "not finite": np.where(np.arange(n) == 7, np.nan, 1.0),
    }[kind].astype(np.float32)
    assert np.array_equal(median(values), np.median(values), equal_nan=True)


def test_pairs_that_are_known_are_not_compared_again():
    rng = np.random.default_rng(1)
    sci = [rng.normal(100 * k, 5, (40, 40)).astype(np.float32) for k in (1, 2, 3)]
    dq = [np.zeros((40, 40), np.uint16)] * 3
    made = {}

    def known(i, j, compare):
        return made.setdefault((i, j), None) or made.update({(i, j): compare()}) or made[i, j]

    first = relative_scales(sci, dq, known=known)
    assert sorted(made) == [(0, 1), (0, 2), (1, 2)]
    made[0, 1] = (made[0, 1][0] + 0.3, made[0, 1][1])
    assert relative_scales(sci, dq, known=known) != first
    assert first == relative_scales(sci, dq)
