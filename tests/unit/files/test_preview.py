"""Previews: the right size, the sky grey, stars bright, bad pixels seen, the same bytes each time."""

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from pipeline.files.preview import EMPTY, STRIP, caption_of, kind_of, raw_beside_stack, write_preview
from pipeline.frame import Frame
from tests.fitsfiles import DARK, frame_bytes


def frame(sci=None, dq=None, **cards) -> Frame:
    if sci is None:
        sci = np.random.default_rng(0).normal(1000, 10, (120, 200)).astype("f4")
        sci[100:104, 20:24] += 5000  # a star near the top left, where row 0 is at the bottom
    header = fits.Header(list({**DARK, "OBSTYPE": "OBJECT", "OBJECT": "M 82", **cards}.items()))
    dq = np.zeros(sci.shape, "u2") if dq is None else dq
    return Frame(sci=sci, dq=dq, header=header, unit="electron", name="N20160102S0271_image.fits")


def pixels(path, shape) -> np.ndarray:
    with Image.open(path) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (shape[1], shape[0] + STRIP))
        return np.asarray(picture)[: shape[0]][::-1]


def test_sky_is_grey_stars_are_white_and_the_rest_is_dark(tmp_path):
    dq = np.zeros((120, 200), "u2")
    dq[:10] = 16
    write_preview(tmp_path / "a.png", frame(dq=dq))
    grey = pixels(tmp_path / "a.png", (120, 200))
    assert grey[101, 21] == 255
    assert 40 < np.median(grey[20:90]) < 140
    assert (grey[:10] == EMPTY).all()


def test_the_same_frame_gives_the_same_bytes_and_nothing_is_left_beside_it(tmp_path):
    write_preview(tmp_path / "a.png", frame())
    write_preview(tmp_path / "b.png", frame())
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_mask_shows_its_bad_pixels(tmp_path):
    dq = np.zeros((64, 64), "u2")
    dq[3, 5] = 1
    mask = frame(np.zeros((64, 64), "f4"), dq, BPMASK="x")
    write_preview(tmp_path / "a.png", mask)
    assert np.argwhere(pixels(tmp_path / "a.png", (64, 64)) == 255).tolist() == [[3, 5]]
    assert "1 bad pixels" in caption_of(mask)


@pytest.mark.parametrize("kind", ["DARK", "FLAT"])
def test_darks_and_flats_use_the_whole_range(tmp_path, kind):
    sci = np.random.default_rng(0).normal(1, 0.02, (64, 64)).astype("f4")
    write_preview(tmp_path / "a.png", frame(sci, OBSTYPE=kind))
    grey = pixels(tmp_path / "a.png", (64, 64))
    assert grey.min() == EMPTY
    assert grey.max() == 255
    assert kind_of(frame(OBSTYPE=kind)) == kind.lower()


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_is_a_picture_too(tmp_path, value):
    write_preview(tmp_path / "a.png", frame(np.full((40, 40), value, "f4")))
    assert np.ptp(pixels(tmp_path / "a.png", (40, 40))) == 0


def test_a_frame_that_is_all_bad_is_a_picture_too(tmp_path):
    write_preview(tmp_path / "a.png", frame(np.zeros((8, 8), "f4"), np.full((8, 8), 16, "u2")))
    assert (pixels(tmp_path / "a.png", (8, 8)) == EMPTY).all()


def test_the_caption_says_what_it_is():
    cards = {"FILTER1": "K_G0204", "FILTER3": "pupil38_G5207", "NCOMBINE": 4, "MEANFWHM": 0.5123}
    assert caption_of(frame(VREASON="no light: closed shutter?")).endswith("   no light: closed shutter?")
    words = caption_of(frame(**cards))
    assert words.split("   ") == [
        "N20160102S0271_image", "M 82", "K", "20 s", "4 frames", 'FWHM 0.51"',
    ]  # fmt: skip


def test_raw_beside_stack(tmp_path):
    for name in ("raw.fits", "stack.fits"):
        (tmp_path / name).write_bytes(frame_bytes())
    raw_beside_stack(tmp_path / "raw.fits", tmp_path / "stack.fits", tmp_path / "both.png")
    with Image.open(tmp_path / "both.png") as picture:
        assert picture.width > 2 * (picture.height - STRIP)
