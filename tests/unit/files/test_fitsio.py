"""Frames from files of every make; products that are whole, the same bits each time, readable by others."""

import bz2
import datetime
import gzip
import hashlib
import os
import warnings

import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import DamagedFile, RefusedFile
from pipeline.files.read import read_frame, read_provenance, tiled_data_sha
from pipeline.files.structure import read_file
from pipeline.files.write import encode_checksum, verify_product, write_product
from pipeline.frame import Frame
from tests.fitsfiles import DARK, frame_bytes, header_bytes, image_bytes, noise

SHA = "ab" * 32
STAMP = "2016-01-02T06:03:08.004"
WCS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 20.5, "CRPIX2": 32.5, "CRVAL1": 55.7, "CRVAL2": 0.6,
    "CD1_1": -3.25e-5, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 3.25e-5,
}  # fmt: skip


def product(kind: str = "PROCDARK", **changes) -> Frame:
    rng = np.random.default_rng(1)
    shape = (64, 40)
    header = fits.Header(list({**DARK, **WCS, kind: STAMP, "GAIN": 1.0, "NCOMBINE": 3}.items()))
    header.add_history("a word")
    planes = {
        "sci": rng.normal(100, 5, shape).astype("f4"),
        "var": rng.uniform(1, 2, shape).astype("f4"),
        "dq": rng.integers(0, 128, shape).astype("u2"),
    }
    return Frame(**{**planes, "header": header, "unit": "electron", "name": "N1_dark.fits", **changes})


def write(path, frame: Frame, **changes) -> str:
    given = {
        "provenance": [("N20160102S0423.fits", SHA, "input"), ("bpm.fits", SHA, "static_bpm")],
        "history": [
            ("prepare", {"a": 1, "b": None}, "0.1.0"),
            ("stackDarks", {"operation": "mean"}, "0.1.0"),
        ],
        "time_stamp": STAMP,
        "cards": {"JOBKEY": ("abc", "identity of the job")},
    }
    return write_product(path, frame, **{**given, **changes})


# ---------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", ["f4", "i4", "i2", "f8"])
def test_raw_pixels_of_every_kind_come_as_native_float32(tmp_path, kind):
    pixels = noise().astype(kind)
    path = tmp_path / "N20160102S0270.fits"
    path.write_bytes(frame_bytes(pixels=pixels))
    frame = read_frame(path)
    assert frame.sci.dtype == np.dtype("=f4")
    assert frame.sci.flags.c_contiguous
    np.testing.assert_array_equal(frame.sci, pixels.astype("f4"))
    assert (frame.unit, frame.var, frame.dq.max(), frame.name) == ("adu", None, 0, "N20160102S0270.fits")


def test_unsigned_integers_by_bzero(tmp_path):
    path = tmp_path / "a.fits"
    stored = np.arange(-32768, -32768 + 64 * 64).reshape(64, 64).astype("i2")
    path.write_bytes(frame_bytes(pixels=stored, ext={"BZERO": 32768, "BSCALE": 1}))
    np.testing.assert_array_equal(read_frame(path).sci, np.arange(64 * 64).reshape(64, 64))


@pytest.mark.parametrize(("ending", "squeeze"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_files_give_the_same_frame(tmp_path, ending, squeeze):
    path = tmp_path / f"N20160102S0270.fits{ending}"
    path.write_bytes(squeeze(frame_bytes()))
    frame = read_frame(path)
    assert frame.name == "N20160102S0270.fits"
    np.testing.assert_array_equal(frame.sci, noise())


def test_tiles_give_the_same_pixels_and_the_same_hash(tmp_path):
    plain, tiled = tmp_path / "a.fits", tmp_path / "a.fits.fz"
    pixels = noise().astype("i4")
    plain.write_bytes(frame_bytes(pixels=pixels))
    image = fits.CompImageHDU(pixels, compression_type="RICE_1", tile_shape=(16, 64))
    fits.HDUList([fits.PrimaryHDU(header=fits.Header(list(DARK.items()))), image]).writeto(tiled)
    frame = read_frame(tiled)
    np.testing.assert_array_equal(frame.sci, pixels)
    assert frame.header["OBSTYPE"] == "DARK"
    assert "ZIMAGE" not in frame.header
    assert tiled_data_sha(tiled) == read_file(plain).data_sha != read_file(tiled).data_sha
    assert read_frame(tiled, expect_data_sha=read_file(plain).data_sha).shape == (64, 64)


def test_other_pixels_than_expected_are_an_error(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(frame_bytes())
    sha = read_file(path).data_sha
    assert read_frame(path, expect_data_sha=sha).shape == (64, 64)
    path.write_bytes(frame_bytes(pixels=noise(seed=1)))
    with pytest.raises(DamagedFile, match="wanted"):
        read_frame(path, expect_data_sha=sha)


def test_pixels_that_are_no_number_are_masked(tmp_path):
    pixels = noise()
    pixels[3, 4], pixels[5, 6] = np.nan, np.inf
    path = tmp_path / "a.fits"
    path.write_bytes(frame_bytes(pixels=pixels))
    frame = read_frame(path)
    assert np.flatnonzero(frame.dq).tolist() == [3 * 64 + 4, 5 * 64 + 6]
    assert frame.dq[3, 4] == 16
    assert np.isfinite(frame.sci).all()


@pytest.mark.parametrize(
    ("name", "kind"), [("DQ", "i2"), ("SCI", "i2"), ("", "i4"), ("MASK", "u1"), ("DQ", "f4")]
)
def test_a_mask_is_bits_whatever_it_is_called_and_stored_as(tmp_path, name, kind):
    mask = np.zeros((64, 64), kind)
    mask[1, 2], mask[3, 4] = 1, 5
    path = tmp_path / "bpm.fits"
    path.write_bytes(frame_bytes({**DARK, "BPMASK": True}, mask, {"EXTNAME": name} if name else None))
    frame = read_frame(path)
    assert (frame.dq[1, 2], frame.dq[3, 4], np.count_nonzero(frame.dq)) == (1, 5, 2)
    assert frame.dq.dtype == np.uint16
    assert not frame.sci.any()


def test_a_mask_in_two_extensions_is_both(tmp_path):
    first, second = np.zeros((8, 8), "i2"), np.zeros((8, 8), "i2")
    first[0, 0], second[0, 0], second[1, 1] = 1, 4, 64
    head = header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0, **DARK, "PROCBPM": STAMP})
    path = tmp_path / "bpm.fits"
    path.write_bytes(head + image_bytes(first, {"EXTNAME": "SCI"}) + image_bytes(second, {"EXTNAME": "DQ"}))
    assert (read_frame(path).dq[0, 0], read_frame(path).dq[1, 1]) == (5, 64)


def test_a_text_with_a_colon_stays_a_text(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(frame_bytes({**DARK, "OBJECT": "M31: 0.5"}))
    header = read_frame(path).header
    assert header["OBJECT"] == "M31: 0.5"
    assert "OBJECT" in list(header)  # and not OBJECT.M31, which is what astropy makes of it by itself


def test_a_file_without_an_image_is_refused(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}))
    with pytest.raises(RefusedFile, match="no image"):
        read_frame(path)


def test_products_of_dragons_are_read(shared):
    folder = shared / "reference/dragons-tiny/products"
    flat = read_frame(folder / "N20160102S0366_flat.fits")
    with fits.open(folder / "N20160102S0366_flat.fits") as file:
        np.testing.assert_array_equal(flat.sci, file["SCI"].data)
        np.testing.assert_array_equal(flat.var, file["VAR"].data)
        np.testing.assert_array_equal(flat.dq, file["DQ"].data)
    assert flat.unit == "electron"
    mask = read_frame(folder / "N20160102S0366_bpm.fits")
    with fits.open(folder / "N20160102S0366_bpm.fits") as file:
        np.testing.assert_array_equal(mask.dq, file["SCI"].data)
    image = read_frame(folder / "N20160102S0271_image.fits")
    assert image.catalog is not None
    assert len(image.catalog) == 5
    assert image.objmask.any()


# ---------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("cards", "unit"), [({}, "adu"), ({"PREPARE": STAMP}, "electron"), ({"PROCDARK": STAMP}, "electron")]
)
def test_raw_frames_are_in_adu_whatever_their_header_claims(tmp_path, cards, unit):
    (tmp_path / "a.fits").write_bytes(frame_bytes({**DARK, "BUNIT": "electrons", **cards}, noise()))
    assert read_frame(tmp_path / "a.fits").unit == unit


def test_what_is_written_is_read_back(tmp_path):
    catalog = np.array([(1, 2.5, True, b"star")], [("ID", "i4"), ("X", "f8"), ("GOOD", "?"), ("CLASS", "S6")])
    frame = product("PROCSCI", coverage=np.full((64, 40), 65535, "u2"), catalog=catalog)
    path = tmp_path / "p.fits"
    write(path, frame)
    back = read_frame(path)
    for plane in ("sci", "var", "dq", "coverage"):
        np.testing.assert_array_equal(getattr(back, plane), getattr(frame, plane))
    assert back.catalog.tolist() == [(1, 2.5, True, b"star")]
    assert back.unit == "electron"
    assert {**WCS, "JOBKEY": "abc", "OBJECT": "Dark"}.items() <= dict(back.header).items()
    assert back.descriptors.exposure_time == frame.descriptors.exposure_time
    inputs, steps = read_provenance(path)
    assert inputs == [("N20160102S0423.fits", SHA, "input"), ("bpm.fits", SHA, "static_bpm")]
    assert steps[1] == ("stackDarks", {"operation": "mean"}, "0.1.0")


def test_astropy_agrees_with_checksums_and_structure(tmp_path):
    frame = product()
    write(tmp_path / "p.fits", frame)
    with fits.open(tmp_path / "p.fits", checksum=True) as file:  # a wrong checksum warns, and so raises here
        file.verify("exception")
        assert [hdu.name for hdu in file] == ["PRIMARY", "SCI", "VAR", "DQ", "PROVENANCE", "HISTORY"]
        assert file[0].header["NEXTEND"] == 5
        assert file["DQ"].data.dtype == np.uint16
        np.testing.assert_array_equal(file["DQ"].data, frame.dq)
        np.testing.assert_array_equal(file["SCI"].data, frame.sci)
        assert file["SCI"].header["CD2_2"] == 3.25e-5
        assert "CD2_2" not in file[0].header
        assert file[0].header["HISTORY"][0] == "a word"
        # by place, as Gemini's tools take them
        assert file["PROVENANCE"].columns.names[:2] == ["timestamp", "filename"]
        assert file["HISTORY"].columns.names[:4] == ["primitive", "args", "timestamp_start", "timestamp_stop"]
        assert file["PROVENANCE"].data[0][2] == SHA


def test_the_same_product_is_the_same_bytes_whenever_it_is_made(tmp_path):
    first = write(tmp_path / "a.fits", product())
    second = write(tmp_path / "b.fits", product())
    assert first == second == hashlib.sha256((tmp_path / "a.fits").read_bytes()).hexdigest()
    text = (tmp_path / "a.fits").read_bytes()
    assert STAMP.encode() in text
    assert str(datetime.date.today()).encode() not in text


def test_a_mask_is_one_int16_extension(tmp_path):
    frame = product("BPMASK", var=None)
    write(tmp_path / "b.fits", frame)
    with fits.open(tmp_path / "b.fits") as file:
        assert [hdu.name for hdu in file][:2] == ["PRIMARY", "SCI"]
        assert "DQ" not in file
        assert file["SCI"].data.dtype == np.dtype(">i2")
    np.testing.assert_array_equal(read_frame(tmp_path / "b.fits").dq, frame.dq)
    verify_product(tmp_path / "b.fits")


def test_nothing_is_overwritten_and_nothing_half_is_left(tmp_path, monkeypatch):
    path = tmp_path / "p.fits"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write(path, product())
    assert path.read_bytes() == b"mine"

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "q.fits", product())
    assert not (tmp_path / "q.fits").exists()


def test_short_writes_are_carried_on(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:1000]))
    sha = write(tmp_path / "p.fits", product())
    assert verify_product(tmp_path / "p.fits", sha).verified


def test_the_file_is_flushed_before_its_hash_is_told(tmp_path, monkeypatch):
    flushed = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flushed.append(os.fstat(fd).st_size), real(fd)))
    write(tmp_path / "p.fits", product())
    assert flushed == [(tmp_path / "p.fits").stat().st_size]


def test_a_product_is_judged(tmp_path):
    path = tmp_path / "p.fits"
    sha = write(path, product())
    verify_product(path, sha)
    with pytest.raises(DamagedFile, match="wanted"):
        verify_product(path, SHA)
    whole = path.read_bytes()
    path.write_bytes(whole[:-2880])
    with pytest.raises(DamagedFile):
        verify_product(path)
    flipped = bytearray(whole)
    flipped[9000] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(DamagedFile):
        verify_product(path)
    path.write_bytes(frame_bytes())
    with pytest.raises(DamagedFile, match="has no SCI, DQ, PROVENANCE"):
        verify_product(path)
    var = whole.index(b"XTENSION", whole.index(b"'SCI"))
    end = whole.index(b"XTENSION", whole.index(b"'VAR"))
    path.write_bytes(whole[:var] + whole[end:])
    with pytest.raises(DamagedFile, match="4 extensions, 5 wanted"):
        verify_product(path)
    path.unlink()
    write(path, product(var=None))  # an intermediate frame, before addVAR
    verify_product(path)
    path.unlink()
    write(path, product(), provenance=[])
    with pytest.raises(DamagedFile, match="provenance is empty"):
        verify_product(path)


def test_comments_that_are_too_long_are_cut_quietly(tmp_path):
    frame = product()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(tmp_path / "p.fits", frame.evolve(cards={"OBJECT": ("x" * 50, "y" * 60)}))
    assert read_frame(tmp_path / "p.fits").header["OBJECT"] == "x" * 50


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFFF, 0x12345678, 0x3A5B6040])
def test_checksum_letters_are_letters_and_sum_to_the_value(value):
    text = encode_checksum(value)
    assert text.isalnum()
    words = np.frombuffer((text[1:] + text[0]).encode(), ">u4")  # the file has them one place on
    assert (int(words.sum(dtype=np.uint64)) - 4 * 0x30303030 - value) % 0xFFFFFFFF == 0
