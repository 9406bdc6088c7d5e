"""Greys and values: what a picture keeps suffices to go from its own scale to the one that all share."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from pipeline.files import preview, thumbnails
from pipeline.files.stretch import DIMMED, EMPTY, Stretch, between, fixed_scale
from tests.unit.files.test_preview import field, frame


def test_greys_give_their_values_back():
    stretch = Stretch(-5.0, 4000.0, 0.01)
    values = np.array([-5.0, 0.0, 3.0, 80.0, 4000.0])
    grey = stretch.greys(values.astype("f4"))
    assert grey[0] == EMPTY
    assert grey[-1] == 255
    step = np.abs(stretch.values(grey + 1.0) - stretch.values(grey - 1.0))
    assert (np.abs(stretch.values(grey.astype(float)) - values) <= step).all()
    assert stretch.greys(np.array([-1e9, 1e9], "f4")).tolist() == [EMPTY, 255]


@pytest.mark.parametrize("softening", [0.0, 0.2])
def test_black_and_white_are_where_they_are_said_to_be(softening):
    stretch = Stretch(10.0, 20.0, softening)
    assert stretch.levels(np.array([0.0, 1.0])) == pytest.approx([EMPTY, 255])
    assert stretch.values(np.array([EMPTY, 255.0])) == pytest.approx([10, 20])


def test_the_fixed_scale_goes_from_minus_2_to_10_times_the_noise():
    scale = fixed_scale(3000.0, 20.0)
    assert (scale.black, scale.white) == (2960.0, 3200.0)
    same = [
        fixed_scale(sky, noise).greys(np.array([sky + 3 * noise], "f4"))[0] for sky, noise in ((0, 1), (9, 4))
    ]
    assert same[0] == same[1]


def test_eight_bits_at_one_scale_are_good_for_the_other():
    """To a twentieth of the noise as the fixed scale shows it, where white is 2500 times the noise."""
    values = np.random.default_rng(3).normal(0, 1, 20000).astype("f4")
    automatic, fixed = Stretch(-2.5, 2500.0, 4 / 2502.5), fixed_scale(0.0, 1.0)
    remapped = between(automatic, fixed)[automatic.greys(values)].astype(float)
    exact = fixed.greys(values).astype(float)
    assert np.std(remapped - exact) < exact.std() / 20
    assert abs(np.mean(remapped - exact)) < 0.5


@pytest.mark.parametrize("dimmed", [1, DIMMED])
def test_words_over_a_picture_stay_and_what_is_dim_stays_dim(dimmed):
    table = between(Stretch(0, 100, 0.1), Stretch(0, 10, 0.3), dimmed)
    assert table[0] == 0
    assert table[255] == 255
    assert table[EMPTY // dimmed] == EMPTY // dimmed
    own = table[-(-EMPTY // dimmed) : 255 // dimmed + 1]
    assert own.max() == 255 // dimmed
    assert (np.diff(own.astype(int)) >= 0).all()


def kept(path, made):
    preview.write_preview(path, made)
    fd = os.open(path, os.O_RDONLY)
    try:
        return thumbnails.known(fd), thumbnails.small(fd, thumbnails.FIXED)
    finally:
        os.close(fd)


def test_a_picture_keeps_both_scales_and_a_copy_at_the_fixed_one(tmp_path):
    made = field()
    told, small = kept(tmp_path / "a.png", made)
    assert told["shape"] == [300, 420]
    assert told["unit"] == "electron"
    black, white, _ = told["fixed"]
    assert (white - black) / 12 == pytest.approx(10, rel=0.05), "the noise of the sky"
    assert black == pytest.approx(-20, abs=2)
    assert told["automatic"][1] > white
    seen = np.asarray(Image.open(io.BytesIO(small))).astype(float)
    assert seen.shape == (300, 420)
    exact = Stretch(*told["fixed"]).greys(made.sci.copy())[::-1].astype(float)
    assert abs(np.median(seen) - np.median(exact)) < 3
    assert (seen - exact).std() < exact.std() / 2


def test_what_has_no_sky_has_no_fixed_scale(tmp_path):
    dark, small = kept(tmp_path / "a.png", frame(OBSTYPE="DARK"))
    assert ("fixed" in dark, "automatic" in dark, small) == (False, True, None)
    mask, small = kept(tmp_path / "b.png", frame(np.zeros((64, 64), "f4"), BPMASK="x"))
    assert ("fixed" in mask, "automatic" in mask, small) == (False, False, None)


def test_a_frame_without_light_is_dark_at_the_fixed_scale_too(tmp_path):
    dead, small = kept(
        tmp_path / "a.png", field(0.0, VERDICT="left out", VREASON="no light: closed shutter?")
    )
    assert dead["dimmed"] == DIMMED
    _, good = kept(tmp_path / "b.png", field())
    seen, bright = (np.asarray(Image.open(io.BytesIO(each)))[60:] for each in (small, good))
    assert np.percentile(seen, 99.9) < np.median(bright) + 10
    assert seen.max() < 255 / DIMMED + 25
