"""The bounded reader: whole, cut short, damaged and hostile files, judged by hand-made bytes."""

import bz2
import gzip
import hashlib
import os
import resource
import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import DamagedFile, IncompleteFile, NiridError, RefusedFile
from pipeline.files import streams, structure
from pipeline.files.structure import hash_file, load, read_file, read_structure
from pipeline.headers.cards import parse_cards
from tests.fitsfiles import BLOCK, frame_bytes, header_bytes, image_bytes, noise, padded


@pytest.fixture
def put(tmp_path):
    """Write bytes to a file, return its path."""

    def write(data: bytes, name: str = "N20160102S0270.fits"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def cards_of(*cards: bytes) -> dict:
    return parse_cards(b"".join(card.ljust(80) for card in cards) + b"END".ljust(80))[0]


def test_structure_and_both_hashes(put):
    data = frame_bytes()
    facts = read_file(put(data))
    pixels = noise().astype(">f4").tobytes()
    assert facts.hdus[1].shape == (64, 64)
    assert facts.hdus[1].offset == len(data) - len(padded(pixels))
    assert facts.image == 1
    assert facts.phu["OBSTYPE"] == "DARK"
    assert facts.file_sha == hashlib.sha256(data).hexdigest()
    assert facts.data_sha == hashlib.sha256(pixels).hexdigest()
    assert facts.size == len(data)
    assert read_structure(put(data)).hdus == facts.hdus


def test_an_edited_header_changes_the_file_and_not_the_pixels(put):
    before = read_file(put(frame_bytes()))
    after = read_file(put(frame_bytes().replace(b"'Dark    '", b"'Gloom   '")))
    assert before.file_sha != after.file_sha
    assert before.data_sha == after.data_sha


@pytest.mark.parametrize("squeeze", [gzip.compress, bz2.compress])
def test_compression_is_told_by_the_bytes_and_does_not_change_the_pixels(put, squeeze):
    delivered = squeeze(frame_bytes())
    plain, packed = read_file(put(frame_bytes())), read_file(put(delivered, "odd name.fits"))
    assert packed.compression == squeeze.__module__.removeprefix("_").replace("bz2", "bzip2")
    assert (packed.data_sha, packed.size) == (plain.data_sha, plain.size)
    assert packed.file_sha == hashlib.sha256(delivered).hexdigest()


def test_gzip_of_several_members(put):
    data = frame_bytes()
    packed = gzip.compress(data[:5000]) + gzip.compress(data[5000:]) + bytes(100)
    assert read_file(put(packed)).data_sha == read_file(put(data)).data_sha


@pytest.mark.parametrize("squeeze", [gzip.compress, bz2.compress])
def test_a_cut_or_flipped_stream(put, squeeze):
    packed = bytearray(squeeze(frame_bytes()))
    with pytest.raises(IncompleteFile, match="before its end mark"):
        read_file(put(bytes(packed[:-40])))
    packed[len(packed) // 2] ^= 0x10
    with pytest.raises(DamagedFile):
        read_file(put(bytes(packed)))


@pytest.mark.parametrize("squeeze", [gzip.compress, bz2.compress])
def test_a_bomb_is_refused_with_little_work(put, squeeze, monkeypatch):
    monkeypatch.setattr(streams, "RATIO_FREE", 1 << 20)
    whole = image_bytes(np.zeros((2000, 2000), "f4"))
    with pytest.raises(RefusedFile, match="grows to more"):
        read_file(put(squeeze(header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}) + whole)))


# 64 x 64 float32 pixels: two header blocks and 16,384 bytes padded to six blocks.
# Cut between them it is a FITS file without an image, which ingest takes for incomplete.
@given(st.integers(0, 8 * BLOCK - 1).filter(lambda length: length != BLOCK))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_is_incomplete(put, length):
    with pytest.raises(IncompleteFile) as caught:
        read_file(put(frame_bytes()[:length]))
    assert caught.value.actual <= length < caught.value.expected
    assert caught.value.expected <= len(frame_bytes())


def test_the_evidence_names_expected_and_actual_bytes(put):
    with pytest.raises(IncompleteFile, match="cut short") as caught:
        read_structure(put(frame_bytes()[:-3000]))
    assert (caught.value.expected, caught.value.actual) == (len(frame_bytes()), len(frame_bytes()) - 3000)


def test_reserved_space_without_a_header_is_incomplete(put):
    with pytest.raises(IncompleteFile, match="all zeros"):
        read_file(put(bytes(20 * BLOCK)))
    with pytest.raises(IncompleteFile, match="all zeros"):
        read_file(put(header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}, end=False) + bytes(10 * BLOCK)))


def test_zeros_at_the_end_are_counted(put):
    pixels = noise()
    pixels[50:] = 0
    assert read_file(put(frame_bytes(pixels=pixels))).zero_tail == 14 * 64 * 4
    assert read_file(put(frame_bytes() + bytes(BLOCK))).trailing >= BLOCK


@pytest.mark.parametrize("junk", [b"no FITS at all", b"\x89PNG\r\n\x1a\n" + bytes(5000), b"SIMPLE = T"])
def test_what_is_not_fits_is_damaged(put, junk):
    with pytest.raises(DamagedFile, match="not FITS") as caught:
        read_file(put(junk.ljust(3000)))
    assert not isinstance(caught.value, IncompleteFile)


def test_bytes_after_the_end_are_damage(put):
    with pytest.raises(DamagedFile, match="no extension"):
        read_file(put(frame_bytes() + b"x" * BLOCK))


@pytest.mark.parametrize(
    "cards",
    [
        {"BITPIX": 12},
        {"BITPIX": "8"},
        {"BITPIX": 8, "NAXIS": -1},
        {"BITPIX": 8, "NAXIS": 1000},
        {"BITPIX": 8, "NAXIS": 2, "NAXIS1": 5},
        {"BITPIX": 8, "NAXIS": 2, "NAXIS1": -5, "NAXIS2": 5},
        {"BITPIX": 8, "NAXIS": 2, "NAXIS1": 99999999, "NAXIS2": 99999999},
        {"BITPIX": -64, "NAXIS": 3, "NAXIS1": 10**17, "NAXIS2": 10**17, "NAXIS3": 10**17},
        {"BITPIX": 8, "NAXIS": 2, "NAXIS1": 1.5, "NAXIS2": 5},
    ],
)
def test_impossible_sizes_are_damage_and_cost_nothing(put, cards):
    path = put(header_bytes({"SIMPLE": True, **cards}) + bytes(BLOCK))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFile) as caught:
        read_file(path)
    assert not isinstance(caught.value, IncompleteFile)  # nobody waits for 10 petabytes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 65536  # KiB


def test_headers_and_units_without_end_are_damage(put):
    with pytest.raises(DamagedFile, match="without an end"):
        read_file(
            put(header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}, end=False) + b" " * (BLOCK * 500))
        )
    empty = header_bytes({"XTENSION": "IMAGE", "BITPIX": 8, "NAXIS": 0, "PCOUNT": 0, "GCOUNT": 1})
    with pytest.raises(DamagedFile, match="more than 64"):
        read_file(put(header_bytes({"SIMPLE": True, "BITPIX": 8, "NAXIS": 0}) + empty * 100))


def test_links_pipes_and_folders_are_not_read(put, tmp_path):
    link, pipe = tmp_path / "link.fits", tmp_path / "pipe.fits"
    link.symlink_to(put(frame_bytes()))
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="symbolic links"):
        read_file(link, follow=False)
    assert read_file(link).image == 1
    for odd in (pipe, tmp_path):
        with pytest.raises((RefusedFile, IsADirectoryError)):
            read_file(odd, follow=False)


def test_a_huge_file_is_refused_before_it_is_read(put):
    path = put(b"")
    os.truncate(path, streams.MAX_BYTES + 1)  # sparse
    with pytest.raises(RefusedFile, match="more than"):
        read_file(path)


def test_checksums_are_verified_where_they_are(put, tmp_path):
    path = tmp_path / "sum.fits"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(noise())]).writeto(path, checksum=True)
    assert read_file(path).verified is True
    assert read_file(put(frame_bytes())).verified is None
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-4000] ^= 1
    with pytest.raises(DamagedFile, match="DATASUM"):
        read_file(put(bytes(flipped)))
    with pytest.raises(DamagedFile, match="CHECKSUM does not hold"):
        read_file(put(whole.replace(b"array data type", b"arrax data type")))


def test_zeroed_page_is_found_by_the_checksum(put, tmp_path):
    path = tmp_path / "sum.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(noise())]).writeto(path, checksum=True)
    torn = bytearray(path.read_bytes())
    torn[8192:12288] = bytes(4096)
    with pytest.raises(DamagedFile, match="DATASUM"):
        read_file(put(bytes(torn)))


def test_load_gives_the_uncompressed_bytes(put):
    hdus, data = load(put(gzip.compress(frame_bytes())))
    assert bytes(data) == frame_bytes()
    assert tuple(hdus) == read_structure(put(frame_bytes())).hdus
    assert hash_file(put(b"anything")) == hashlib.sha256(b"anything").hexdigest()


# ------------------------------------------------------------------------------------------ cards


def test_values_of_all_kinds():
    cards = cards_of(
        b"TEXT    = 'it''s so  '           / a comment",
        b"SLASH   = 'a/b'",
        b"INT     =                  -42 / n",
        b"FLOAT   =              1.5E-3",
        b"DOUBLE  =              1.5D+3",
        b"YES     =                    T",
        b"NOTHING =                      / undefined",
        b"BARE    = INDEF",
        b"COMMENT  not a value = 3",
        b"HIERARCH ESO LONG NAME = 7 / x",
        b"TIGHT   =5",
    )
    assert cards == {
        "TEXT": "it's so", "SLASH": "a/b", "INT": -42, "FLOAT": 1.5e-3, "DOUBLE": 1500.0, "YES": True,
        "NOTHING": None, "BARE": "INDEF", "ESO LONG NAME": 7, "TIGHT": 5,
    }  # fmt: skip


def test_the_first_of_doubled_cards_counts_and_the_others_are_known():
    block = b"".join(c.ljust(80) for c in (b"FRAME   = 'AZEL_TOPO'", b"FRAME   = 'FK5'", b"END"))
    cards, _, duplicates, odd = parse_cards(block)
    assert (cards, duplicates, odd) == ({"FRAME": "AZEL_TOPO"}, ("FRAME",), ())


def test_long_text_goes_on_in_continue_cards():
    cards = cards_of(
        b"LONG    = 'one &'", b"CONTINUE  'two &'", b"CONTINUE  'three' / c", b"CONTINUE  'lost'"
    )
    assert cards == {"LONG": "one two three"}


@pytest.mark.parametrize("value", [b"1e400", b"NaN", b"'open", b"1.2.3", b"(1, 2)", b"99999999999999999999x"])
def test_senseless_values_stay_text_and_are_marked(value):
    block = (b"EXPTIME = " + value).ljust(80) + b"END".ljust(80)
    cards, _, _, odd = parse_cards(block)
    assert isinstance(cards["EXPTIME"], str)
    assert odd == ("EXPTIME",)


def test_nothing_unprintable_comes_out():
    cards = cards_of(b"OBJECT  = 'M\x1b[31m31\n\xff'")
    assert cards["OBJECT"] == "M?[31m31??"


@given(st.binary(min_size=0, max_size=400))
@settings(max_examples=200, deadline=None)
def test_cards_of_random_bytes_never_raise(noise_bytes):
    cards, comments, _, _ = parse_cards(noise_bytes + b"END".ljust(80))
    assert all(isinstance(v, str | int | float | bool | None) for v in cards.values())
    assert cards.keys() == comments.keys()


@given(st.integers(0, 2 * BLOCK - 1), st.binary(min_size=1, max_size=12))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_damaged_at_random_gets_a_verdict_and_never_a_crash(put, at, junk):
    data = bytearray(frame_bytes())
    data[at : at + len(junk)] = junk
    try:
        facts = read_file(put(bytes(data)))
    except NiridError:
        return
    assert len(facts.hdus) <= structure.MAX_HDUS


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
@settings(max_examples=100, deadline=None)
def test_texts_written_by_astropy_come_back(text):
    image = fits.Card("OBJECT", text).image
    if "OBJECT." in image:
        return  # astropy took "name: number" for one of its record-valued cards
    assert parse_cards(image.encode() + b"END".ljust(80))[0]["OBJECT"] == text.rstrip()
