"""Small copies and coordinates in the preview itself."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from pipeline.files import outputs, preview, thumbnails
from tests.unit.files.test_preview import frame

SKY = {
    "CRPIX1": 150.0, "CRPIX2": 100.0, "CRVAL1": 148.9, "CRVAL2": 69.6,
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
    "CD1_1": -3.25e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 3.25e-5,
}  # fmt: skip


@pytest.fixture
def picture(tmp_path):
    """A picture of 300 x 200 pixels with a star at the top right."""
    sci = np.zeros((200, 300), "f4")
    sci[:] = np.random.default_rng(1).normal(0, 1, sci.shape)
    sci[150:190, 250:290] = 500.0
    path = tmp_path / "a.png"
    preview.write_preview(path, frame(sci, **SKY))
    fd = os.open(path, os.O_RDONLY)
    yield path, fd
    os.close(fd)


@pytest.mark.parametrize("size", thumbnails.SIZES)
def test_each_copy_is_the_picture_in_small(picture, size):
    _, fd = picture
    small = Image.open(io.BytesIO(thumbnails.small(fd, size)))
    nx = min(size, 300)
    assert small.size == (nx, round(nx * 2 / 3))
    grey = np.asarray(small)
    star = grey[int(0.08 * small.height) : int(0.22 * small.height), int(0.86 * nx) : int(0.94 * nx)]
    assert star.mean() > 230
    assert grey[small.height // 2 :, : nx // 2].mean() < 120


def test_other_programs_see_an_ordinary_picture(picture):
    path, _ = picture
    shown = Image.open(path)
    shown.load()
    assert shown.width == 300
    assert shown.height > 200  # the strip of words below
    assert outputs.is_ours(path, "picture")


def test_north_is_up_and_east_left_as_the_cards_say(picture):
    _, fd = picture
    sky = thumbnails.known(fd)
    assert sky["north"] == [0.0, -1.0]
    assert sky["east"] == [-1.0, 0.0]
    assert sky["scale"] == pytest.approx(0.117, abs=1e-4)
    assert sky["shape"] == [200, 300]


def test_a_picture_without_copies_has_none(tmp_path):
    path = tmp_path / "old.png"
    Image.new("L", (20, 20)).save(path)
    fd = os.open(path, os.O_RDONLY)
    assert thumbnails.small(fd, 96) is None
    assert thumbnails.known(fd) == {}
    os.close(fd)


@pytest.mark.parametrize("cut", [0, 5, 30, 60, 200, 900])
def test_a_picture_that_is_cut_off_or_none_has_none_and_is_no_error(picture, tmp_path, cut):
    path = tmp_path / "cut.png"
    path.write_bytes(picture[0].read_bytes()[:cut])
    fd = os.open(path, os.O_RDONLY)
    assert thumbnails.small(fd, 512) is None
    assert thumbnails.known(fd) in ({}, thumbnails.known(picture[1]))
    os.close(fd)
