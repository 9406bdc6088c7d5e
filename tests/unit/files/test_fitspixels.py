"""Pixels without a value, in all the ways that software writes them; values of masks that are none."""

import warnings

import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import DamagedFile, RefusedFile
from pipeline.files.read import read_frame
from tests.fitsfiles import DARK, frame_bytes, header_bytes, image_bytes, noise

HOLE = (slice(10, 14), slice(10, 30))
LOWEST = -(2**31)


def read(path, pixels, cards=None, phu=None):
    path.write_bytes(frame_bytes(phu, pixels, cards))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_frame(path)


def holed(kind: str, value: float) -> np.ndarray:
    pixels = np.rint(noise()).astype(kind)
    pixels[HOLE] = value
    return pixels


def expect_hole(frame, told):
    wanted = np.zeros(frame.shape, "u2")
    wanted[HOLE] = 16
    np.testing.assert_array_equal(frame.dq, wanted)
    assert not frame.sci[HOLE].any()
    np.testing.assert_array_equal(frame.sci[wanted == 0], told[wanted == 0].astype("f4"))


@pytest.mark.parametrize(
    ("kind", "value", "blank"),
    [
        ("i4", LOWEST, LOWEST),
        ("i4", -1, -1),
        ("i2", -32768, -32768),
        ("i2", -9999, "-9999"),
        ("u1", 255, 255.0),
        ("f4", LOWEST, LOWEST),
        ("f8", -9999, -9999),
        ("i4", LOWEST, None),
        ("i4", 2**31 - 1, None),
        ("i2", -32768, None),
        ("f4", LOWEST, None),
        ("f4", 2.0**31, None),
        ("f8", -32768, None),
        *[(kind, sign * value, None) for kind in ("f4", "f8") for sign in (1, -1)
          for value in (np.nan, np.inf, 1e30, 3e38, 3.4028235e38)],
        ("f8", 1e300, None),
    ],
)  # fmt: skip
def test_a_pixel_without_a_value_is_no_data(tmp_path, kind, value, blank):
    told = np.rint(noise() / (10 if kind == "u1" else 1))
    pixels = told.astype(kind)
    pixels[HOLE] = value
    frame = read(tmp_path / "a.fits", pixels, {} if blank is None else {"BLANK": blank})
    expect_hole(frame, told)


def test_a_blank_in_the_primary_header_is_one_too(tmp_path):
    frame = read(tmp_path / "a.fits", holed("f4", -9999), phu={**DARK, "BLANK": -9999})
    expect_hole(frame, np.rint(noise()))


def test_blank_is_of_the_stored_numbers(tmp_path):
    pixels = holed("i2", 77)
    frame = read(tmp_path / "a.fits", pixels, {"BLANK": 77, "BSCALE": 2.0, "BZERO": 32768.0})
    assert (frame.dq[HOLE] == 16).all()
    assert np.count_nonzero(frame.dq) == 80
    assert frame.sci[0, 0] == pixels[0, 0] * 2.0 + 32768


def test_the_lowest_of_unsigned_integers_is_a_count(tmp_path):
    frame = read(tmp_path / "a.fits", np.full((8, 8), -32768, "i2"), {"BZERO": 32768})
    assert not frame.dq.any()
    assert not frame.sci.any()


@pytest.mark.parametrize("blank", [{"BLANK": "none"}, {"BLANK": True}, {"BLANK": 5e40}, {"BLANK": 12345678}])
def test_a_blank_that_no_pixel_holds_takes_nothing(tmp_path, blank):
    frame = read(tmp_path / "a.fits", np.rint(noise()).astype("i2"), blank)
    assert not frame.dq.any()


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "HCOMPRESS_1"])
def test_blank_in_tiles(tmp_path, kind):
    pixels = holed("i4", -7)
    image = fits.CompImageHDU(pixels, fits.Header({"BLANK": -7}), compression_type=kind, tile_shape=(16, 64))
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(list(DARK.items()))), image]).writeto(
        tmp_path / "a.fits.fz"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expect_hole(read_frame(tmp_path / "a.fits.fz"), pixels)


@pytest.mark.parametrize("value", [np.nan, -np.inf, 3e38, -1.0, LOWEST])
def test_a_variance_that_is_none_is_no_data_either(tmp_path, value):
    head = header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, **DARK, "PROCDARK": "now"})
    var, dq = np.full((64, 64), 4.0, "f4"), np.zeros((64, 64), "i2")
    var[HOLE], dq[0, 0] = value, 1
    planes = (("SCI", noise()), ("VAR", var), ("DQ", dq))
    (tmp_path / "a.fits").write_bytes(head + b"".join(image_bytes(p, {"EXTNAME": n}) for n, p in planes))
    frame = read_frame(tmp_path / "a.fits")
    assert (frame.dq[HOLE] == 16).all()
    assert (frame.dq[0, 0], np.count_nonzero(frame.dq)) == (1, 81)
    assert frame.var is not None
    assert not frame.var[HOLE].any()


@pytest.mark.parametrize("name", ["VAR", "DQ", "OBJMASK", "COVERAGE", "MINE"])
@pytest.mark.parametrize("kind", ["PROCDARK", "BPMASK"])
def test_planes_of_other_sizes_are_not_dropped_in_silence(tmp_path, name, kind):
    head = header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, **DARK, kind: True})
    planes = (("SCI", noise() if kind == "PROCDARK" else noise() * 0), (name, np.zeros((32, 64), "i2")))
    (tmp_path / "a.fits").write_bytes(head + b"".join(image_bytes(p, {"EXTNAME": n}) for n, p in planes))
    used = {"PROCDARK": ("VAR", "DQ", "OBJMASK", "COVERAGE"), "BPMASK": ("DQ", "MINE")}[kind]
    if name in used:
        with pytest.raises(RefusedFile, match=r"SCI has 64x64 pixels, .* has 64x32 pixels"):
            read_frame(tmp_path / "a.fits")
    else:
        assert read_frame(tmp_path / "a.fits").shape == (64, 64)


@pytest.mark.parametrize(
    "cards",
    [{"BSCALE": 0.0}, {"BSCALE": "two"}, {"BZERO": "none"}, {"BZERO": b"BZERO   =                 1E999"}],
)
def test_a_scale_that_is_none_is_damage(tmp_path, cards):
    with pytest.raises(DamagedFile, match=next(iter(cards))):
        read(tmp_path / "a.fits", np.zeros((8, 8), "i2"), cards)


@pytest.mark.parametrize(
    ("kind", "value", "cards"),
    [
        ("i4", 65536, {}),
        ("i4", -1, {}),
        ("i2", -5, {}),
        ("i2", 1, {"BZERO": 65536}),
        ("i2", 1, {"BZERO": 0.5}),
        ("f4", 0.5, {}),
        ("f4", np.nan, {}),
        ("f8", np.inf, {}),
        ("f8", 1e300, {}),
    ],
)
def test_values_that_are_no_bits_are_no_mask(tmp_path, kind, value, cards):
    mask = np.zeros((64, 64), kind)
    mask[3:5, 3:6] = value
    bad = 6 if not cards else mask.size
    with pytest.raises(RefusedFile, match=rf"{bad} values of a mask are no 16 bits, such as"):
        read(tmp_path / "bpm.fits", mask, cards, {**DARK, "BPMASK": True})


@pytest.mark.parametrize(
    ("kind", "value", "cards"),
    [("u1", 255, {}), ("i2", 32767, {}), ("i4", 65535, {}), ("f4", 64.0, {}), ("i2", 5, {"BSCALE": 2.0})],
)
def test_sixteen_bits_are_a_mask_whatever_they_are_stored_as(tmp_path, kind, value, cards):
    mask = np.zeros((64, 64), kind)
    mask[3:5, 3:6] = value
    frame = read(tmp_path / "bpm.fits", mask, cards, {**DARK, "BPMASK": True})
    assert (frame.dq[3:5, 3:6] == value * cards.get("BSCALE", 1)).all()
    assert np.count_nonzero(frame.dq) == 6
