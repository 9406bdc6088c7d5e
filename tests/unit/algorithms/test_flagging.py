"""Data quality from pixel values: against the plain statements, and on cases that can be read off."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.algorithms import flagging
from tests.plain.flagging import dilate_plain, hidden_saturation_plain, level_flags_plain


def test_levels():
    sci = np.array([[1, 99.9, 100, 199, 200, 1e9, np.nan, -5]], np.float32)
    dq = np.array([[1, 0, 0, 1, 0, 0, 0, 64]], np.uint16)
    before = dq.copy()
    out, number = flagging.level_flags(sci, dq, 100.0, 200.0)
    assert out.tolist() == [[1, 0, 2, 3, 4, 4, 16, 64]]
    assert number == 4
    np.testing.assert_array_equal(dq, before)
    plain, same = level_flags_plain(sci, dq, 100.0, 200.0)
    np.testing.assert_array_equal(plain, out)
    assert same == number


def ring(shape, y, x, inner, outer):
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    r = np.hypot(yy - y, xx - x)
    return np.where((r >= inner) & (r <= outer), 2000.0, 10.0).astype(np.float32)


def test_hidden_saturation_is_the_hole_in_a_star():
    sci = ring((150, 160), 60, 70, 4, 9)
    hidden = flagging.hidden_saturation(sci, 1000.0)
    yy, xx = np.mgrid[:150, :160]
    np.testing.assert_array_equal(hidden, np.hypot(yy - 60, xx - 70) < 4)
    assert not flagging.hidden_saturation(np.full((150, 160), 10, np.float32), 1000.0).any()


def test_a_large_hole_is_no_star():
    sci = ring((400, 400), 200, 200, 60, 63)  # 11000 pixels inside
    assert not flagging.hidden_saturation(sci, 1000.0).any()


@pytest.mark.parametrize("fill", [0.002, 0.3, 0.5, 0.9])
def test_hidden_saturation_compiled_says_the_same(fill):
    rng = np.random.default_rng(4)
    sci = np.where(rng.random((90, 70)) < fill, 2000, 10).astype(np.float32)
    for largest in (1, 5, 10_000):
        np.testing.assert_array_equal(
            flagging.hidden_saturation(sci, 1000.0, largest),
            hidden_saturation_plain(sci, 1000.0, largest),
        )


def test_latency():
    dq = np.array([[0, 1, 8, 0]], np.uint16)
    earlier = [np.array([[4, 0, 4, 3]], np.uint16), np.array([[0, 6, 0, 0]], np.uint16)]
    saturated = [flagging.pixels_with(mask, 4) for mask in earlier]
    assert flagging.latent(dq, saturated).tolist() == [[8, 9, 8, 0]]
    assert flagging.latent(dq, [flagging.pixels_with(earlier[0], 6)]).tolist() == [[8, 1, 8, 8]]
    assert flagging.latent(dq, []).tolist() == dq.tolist()
    assert dq.tolist() == [[0, 1, 8, 0]]


@pytest.mark.parametrize("radius", [0, 1, 1.5, 2, 2.3, 5, 10])
def test_dilation_is_an_exact_disc(radius):
    mask = np.zeros((41, 45), bool)
    mask[20, 22] = True
    yy, xx = np.mgrid[:41, :45]
    disc = (yy - 20) ** 2 + (xx - 22) ** 2 <= radius**2
    np.testing.assert_array_equal(flagging.dilate(mask, radius), disc)
    crowded = np.random.default_rng(1).random((41, 45)) < 0.02
    before = crowded.copy()
    np.testing.assert_array_equal(flagging.dilate(crowded, radius), dilate_plain(crowded, radius))
    np.testing.assert_array_equal(crowded, before)


def test_cut_is_centred():
    plane = np.arange(1024 * 1024).reshape(1024, 1024)
    for size, first in ((1024, 0), (768, 128), (512, 256), (256, 384)):
        part = flagging.cut(plane, (size, size))
        assert part.shape == (size, size)
        assert part[0, 0] == plane[first, first]
    for shape in ((1025, 1024), (1024, 1026), (511, 512)):
        with pytest.raises(ValueError, match="no centred part"):
            flagging.cut(plane, shape)
