"""Resampling: flux, place and width of stars, noise against VAR, bad pixels."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.algorithms import grids as gr
from pipeline.algorithms import interpolate as ip
from pipeline.algorithms import resampling as rs
from tests.plain.resampling import resample_plain

SHAPE = (256, 256)
CLEAR = np.zeros(SHAPE, np.uint16)
SHIFTS = [(0.0, 0.0), (3.0, -2.0), (10.3, -7.6), (-0.5, 0.5)]
TURN = gr.Mapping(np.cos(0.01), -np.sin(0.01), 3.2, np.sin(0.01), np.cos(0.01), -1.7)
BARREL = gr.Mapping(distortion=1e-4, centre=(127.5, 127.5))


def star(x, y, fwhm=3.5, flux=1e5):
    rows, columns = np.indices(SHAPE)
    sigma = fwhm / 2.3548
    return (
        flux / (2 * np.pi * sigma**2) * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / sigma**2)
    ).astype(np.float32)


def moments(image):
    rows, columns = np.indices(image.shape)
    total = image.sum(dtype=float)
    x, y = (columns * image).sum(dtype=float) / total, (rows * image).sum(dtype=float) / total
    return total, x, y, ((columns - x) ** 2 * image).sum(dtype=float) / total


@pytest.mark.parametrize("mapping", [gr.Mapping(c=dx, f=dy) for dx, dy in SHIFTS] + [TURN, BARREL])
@pytest.mark.parametrize("how", [rs.resample, ip.resample_plainly])
def test_star_keeps_flux_and_width_and_lands_where_told(mapping, how):
    image = star(120.3, 130.8)
    grid = gr.union_grid([gr.Mapping(), mapping], SHAPE)
    out = how(image, image + 100, CLEAR, mapping, grid)
    total, x, y, width = moments(out.sci)
    where = mapping.to_output(120.3, 130.8)
    assert total == pytest.approx(1e5, rel=3e-3 if mapping is BARREL and how is ip.resample_plainly else 3e-4)
    assert x + grid.x0 == pytest.approx(where[0], abs=3e-3)
    assert y + grid.y0 == pytest.approx(where[1], abs=3e-3)
    assert width == pytest.approx((3.5 / 2.3548) ** 2, rel=0.02)


@pytest.mark.parametrize("mapping", [gr.Mapping(c=10.3, f=-7.6), gr.Mapping(c=-4.0, f=0.25), TURN])
def test_compiled_loops_are_the_plain_statement(mapping):
    image = np.random.default_rng(1).normal(0, 100, SHAPE).astype(np.float32)
    grid = gr.union_grid([gr.Mapping(), mapping], SHAPE)
    out = rs.resample(image, None, CLEAR, mapping, grid, conserve=False)
    good = out.dq == 0
    assert good.mean() > 0.9
    np.testing.assert_allclose(out.sci[good], resample_plain(image, mapping, grid)[good], atol=1e-3)


def test_a_shift_is_the_general_case():
    rng = np.random.default_rng(2)
    image, flags = (
        rng.normal(0, 1, SHAPE).astype(np.float32),
        (rng.random(SHAPE) < 0.01).astype(np.uint16) * np.uint16(5),
    )
    grid = gr.Grid(-10, -10, (270, 270))
    fast = rs.resample(image, image**2, flags, gr.Mapping(c=2.4, f=-3.3), grid)
    nearly = gr.Mapping(a=1 + 1e-7, c=2.4, f=-3.3)
    assert not nearly.is_shift
    slow = rs.resample(image, image**2, flags, nearly, grid)
    np.testing.assert_array_equal(fast.dq, slow.dq)
    np.testing.assert_allclose(fast.sci, slow.sci, atol=2e-3)
    np.testing.assert_allclose(fast.var, slow.var, atol=5e-3)


@pytest.mark.parametrize("mapping", [gr.Mapping(c=0.5, f=0.3), TURN])
def test_var_answers_for_block_sums_and_noise_for_pixels(mapping):
    rng = np.random.default_rng(3)
    grid = gr.Grid(20, 20, (200, 200))
    blocks, singles = [], []
    for _ in range(12):
        out = rs.resample(
            rng.normal(0, 10, SHAPE).astype(np.float32), np.full(SHAPE, 100, np.float32), CLEAR, mapping, grid
        )
        blocks.append(
            out.sci.reshape(10, 20, 10, 20).sum((1, 3)) / np.sqrt(out.var.reshape(10, 20, 10, 20).sum((1, 3)))
        )
        singles.append(np.std(out.sci) / np.sqrt(out.var.mean()))
    assert np.std(blocks) == pytest.approx(1.0, abs=0.05)
    assert np.mean(singles) == pytest.approx(out.noise, rel=0.03)
    assert 0.6 < out.noise < 0.9


def test_a_bad_pixel_stays_where_it_is():
    image, bad = np.full(SHAPE, 50, np.float32), CLEAR.copy()
    image[100, 80], bad[100, 80] = 1e6, 1
    out = rs.resample(image, image, bad, gr.Mapping(c=0.3, f=0.6), gr.Grid(0, 0, SHAPE))
    inside = out.dq != 16
    np.testing.assert_allclose(out.sci[inside], 50, rtol=1e-5)
    np.testing.assert_allclose(out.var[inside], 50, rtol=1e-5)
    flagged = np.argwhere(out.dq == 1)
    assert 1 <= len(flagged) <= 6
    assert np.abs(flagged - [99.4, 79.7]).max() < 1.5


def test_what_is_flagged_holds_what_could_be_wrong():
    image, bad = star(80.2, 100.3, flux=1e6), CLEAR.copy()
    truth = rs.resample(image, None, CLEAR, gr.Mapping(c=0.37, f=0.44), gr.Grid(0, 0, SHAPE))
    image[100, 81], bad[100, 81] = 0, 1  # beside the peak, where the neighbours are a poor guess
    out = rs.resample(image, None, bad, gr.Mapping(c=0.37, f=0.44), gr.Grid(0, 0, SHAPE))
    wrong = np.abs(out.sci - truth.sci)
    assert wrong[out.dq == 0].max() < 0.02 * image.max()


def test_saturated_pixels_are_kept_and_flagged():
    image, flags = star(80.2, 100.3), CLEAR.copy()
    flags[99:102, 79:82] = 6
    out = rs.resample(image, None, flags, gr.Mapping(c=0.37, f=0.44), gr.Grid(0, 0, SHAPE))
    assert out.sci.sum(dtype=float) == pytest.approx(1e5, rel=1e-3)
    assert 9 <= (out.dq == 6).sum() <= 20


def test_outside_is_no_data():
    image = np.ones(SHAPE, np.float32)
    mapping = gr.Mapping(c=30.5, f=0)
    grid = gr.union_grid([gr.Mapping(), mapping], SHAPE)
    assert grid == gr.Grid(-30, 0, (256, 286))
    for how in (rs.resample, ip.resample_plainly):
        out = how(image, image, CLEAR, mapping, grid)
        assert set(np.unique(out.dq)) == {0, 16}
        assert (out.dq[:, -30:] == 16).all()
        assert (out.sci[out.dq == 16] == 0).all()
        assert (out.var[out.dq == 16] == 0).all()


def test_reference_is_copied():
    image = np.random.default_rng(4).normal(0, 1, SHAPE).astype(np.float32)
    flags = (image > 3).astype(np.uint16) * np.uint16(2)
    for how in (rs.resample, ip.resample_plainly):
        out = how(image, image**2, flags, gr.Mapping(), gr.Grid(-5, -3, (262, 270)))
        np.testing.assert_array_equal(out.sci[3:259, 5:261], image)
        np.testing.assert_array_equal(out.dq[3:259, 5:261], flags)
        np.testing.assert_allclose(out.var[3:259, 5:261], image**2, rtol=1e-6)
        assert out.noise == 1.0


def test_spline_is_scipys_with_bits_one_by_one():
    rng = np.random.default_rng(5)
    image, flags = rng.normal(0, 1, SHAPE).astype(np.float32), CLEAR.copy()
    flags[100, 100], flags[50, 60] = 1, 6
    out = ip.resample_plainly(
        image, image**2, flags, gr.Mapping(c=0.4, f=0.3), gr.Grid(0, 0, SHAPE), interpolant="spline3"
    )
    expected = ndimage.affine_transform(image, np.eye(2), [0.3, 0.4], order=3)
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(out.sci[inner], expected[inner], atol=1e-6)
    plane = ndimage.affine_transform((flags == 6).astype(np.float32), np.eye(2), [0.3, 0.4], order=3)
    np.testing.assert_array_equal((out.dq & 6 == 6)[inner], (np.abs(plane) > 0.001)[inner])
    assert (out.var >= 0).all()


@pytest.mark.parametrize("interpolant", ["linear", "poly3", "poly5", "spline3", "spline5"])
def test_no_good_pixel_beside_a_bright_one_is_without_variance(interpolant):
    var = np.full(SHAPE, 100.0, np.float32)
    var[90:93, 90:93] = 1e5
    mapping, grid = gr.Mapping(c=0.4, f=0.3), gr.Grid(0, 0, SHAPE)
    out = ip.resample_plainly(var, var, CLEAR, mapping, grid, interpolant=interpolant)
    assert out.var[out.dq == 0].min() >= 0.1 * 100


def test_polynomials_are_exact_on_polynomials_up_to_the_edge():
    y, x = np.indices(SHAPE) / 100.0
    cubic, plane = (1 + x**3 - 2 * y**3 + x * y).astype(np.float32), (3 + x - 2 * y).astype(np.float32)
    mapping, grid = gr.Mapping(c=0.4, f=-0.3), gr.Grid(0, 0, SHAPE)
    inner = (slice(4, -4), slice(4, -4))
    for name in ("poly3", "poly5", "cubic"):
        how = {} if name == "cubic" else {"interpolant": name}
        out = (rs.resample if name == "cubic" else ip.resample_plainly)(
            cubic, None, CLEAR, mapping, grid, **how
        )
        u, v = x + 0.004, y - 0.003
        exact = 1 + u**3 - 2 * v**3 + u * v
        np.testing.assert_allclose(out.sci[inner], exact[inner], atol=2e-5 if name != "cubic" else 2e-3)
        flat = ip.resample_plainly(plane, None, CLEAR, mapping, grid, interpolant="poly3")
        inside = flat.dq == 0
        np.testing.assert_allclose(flat.sci[inside], (3 + u - 2 * v)[inside], atol=1e-5)
        assert inside.sum() == 255 * 255


def test_a_bad_pixel_of_a_polynomial_spoils_four_by_four():
    flags = CLEAR.copy()
    flags[100, 100] = 1
    out = ip.resample_plainly(
        np.ones(SHAPE, np.float32), None, flags, gr.Mapping(c=0.4, f=0.3), gr.Grid(0, 0, SHAPE)
    )
    assert (out.dq == 1).sum() == 16
    nearest = ip.resample_plainly(
        np.ones(SHAPE, np.float32),
        None,
        flags,
        gr.Mapping(c=0.4, f=0.3),
        gr.Grid(0, 0, SHAPE),
        interpolant="nearest",
    )
    assert (nearest.dq == 1).sum() == 1


def test_barrel_goes_there_and_back():
    x, y = BARREL.to_output(*BARREL.to_input(np.array([3.0, 200.0]), np.array([250.0, 7.0])))
    np.testing.assert_allclose([x, y], [[3, 200], [250, 7]], atol=1e-9)
    r = 150.0
    assert gr.distorted(r + 1e-4 * r * r, 1e-4) * (r + 1e-4 * r * r) == pytest.approx(r)


def test_inputs_are_not_modified():
    image, var, bad = star(50, 50), star(50, 50) + 1, CLEAR.copy()
    bad[50, 50] = 1
    copies = [a.copy() for a in (image, var, bad)]
    rs.resample(image, var, bad, TURN, gr.Grid(0, 0, SHAPE))
    ip.resample_plainly(image, var, bad, TURN, gr.Grid(0, 0, SHAPE))
    for now, before in zip((image, var, bad), copies, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize("interpolant", ["poly5", "spline3", "spline5"])
@pytest.mark.parametrize("contrast", [1e2, 1e4, 1e6])
def test_no_good_pixel_is_without_variance_beside_a_bright_one(interpolant, contrast):
    var = np.full(SHAPE, 4.0, np.float32)
    var[40, 50] = 4.0 * contrast
    out = ip.resample_plainly(
        np.zeros(SHAPE, np.float32), var, CLEAR, TURN, gr.Grid(0, 0, SHAPE), interpolant=interpolant
    )
    good = out.dq == 0
    assert good.mean() > 0.5
    assert out.var[good].min() > 0.3
    assert np.median(out.var[good]) == pytest.approx(4.0, rel=0.01)
