"""Two product files compared: every kind of difference is named, and nothing else."""

import numpy as np
import pytest
from astropy.io import fits

from pipeline.files.differences import differences


def product(path, edit=lambda hdus: None):
    y, x = np.mgrid[:8, :9]
    sci = (x + 10 * y).astype(np.float32)
    sci[0, 0] = np.nan
    rows = np.array([(b"a", 1.5), (b"b", np.nan)], dtype=[("NAME", "S4"), ("FLUX", "f8")])
    hdus = fits.HDUList(
        [
            fits.PrimaryHDU(header=fits.Header([("OBJECT", "M 82", "target"), ("LONG", "x" * 200)])),
            fits.ImageHDU(sci, name="SCI"),
            fits.ImageHDU(np.full((8, 9), 4, np.float32), name="VAR"),
            fits.ImageHDU(np.zeros((8, 9), np.uint16), name="DQ"),
            fits.BinTableHDU(rows, name="OBJCAT"),
        ]
    )
    hdus[0].header.add_history("one")
    edit(hdus)
    hdus.writeto(path, checksum=True)
    return path


def apart(tmp_path, edit):
    found = differences(product(tmp_path / "a.fits"), product(tmp_path / "b.fits", edit))
    return [(d.part, d.kind, d.what, d.count) for d in found], found


def test_no_number_is_like_no_number_and_checksums_follow(tmp_path):
    assert apart(tmp_path, lambda hdus: None)[0] == []


def test_a_pixel_in_units_of_its_noise(tmp_path):
    def edit(hdus):
        hdus["SCI"].data[2, 3] += 1
        hdus["SCI"].data[4, 5] -= 3

    where, (found,) = apart(tmp_path, edit)
    assert where == [("SCI", "pixels", "pixels", 2)]
    assert found.sigma == pytest.approx(1.5)
    assert (found.was, found.now) == ("at x 6, y 5 45", "42")
    assert "2 pixels differ, by up to 1.5 sqrt(VAR)" in found.words


def test_a_pixel_that_has_become_no_number(tmp_path):
    where, (found,) = apart(tmp_path, lambda hdus: hdus["SCI"].data.__setitem__((1, 1), np.nan))
    assert where == [("SCI", "pixels", "pixels", 1)]
    assert found.now == "nan"


def test_without_a_variance_there_is_no_size_in_noise(tmp_path):
    one = product(tmp_path / "a.fits", lambda hdus: hdus["VAR"].data.fill(0))

    def edit(hdus):
        hdus["VAR"].data.fill(0)
        hdus["SCI"].data[1, 1] = 7

    (found,) = differences(one, product(tmp_path / "b.fits", edit))
    assert found.sigma is None
    assert found.now == "7"


def test_masks_as_they_are_meant(tmp_path):
    where, (found,) = apart(tmp_path, lambda hdus: hdus["DQ"].data.__setitem__((1, 1), 4))
    assert where == [("DQ", "pixels", "pixels", 1)]
    assert (found.was, found.now) == ("at x 2, y 2 0", "4")


def test_cards_with_comments_long_texts_and_those_that_come_again(tmp_path):
    def edit(hdus):
        header = hdus[0].header
        header["OBJECT"] = ("M 82", "the target")
        header["LONG"] = "x" * 150 + "y" + "x" * 49
        header["NEW"] = 1
        header.add_history("two")

    where, found = apart(tmp_path, edit)
    assert [(part, what) for part, _, what, _ in where] == [
        ("primary", "OBJECT"),
        ("primary", "LONG"),
        ("primary", "HISTORY"),
        ("primary", "NEW"),
    ]
    by_what = {d.what: d for d in found}
    assert "y" in by_what["LONG"].now
    assert "y" not in by_what["LONG"].was
    assert by_what["HISTORY"].was == "not there"
    assert by_what["NEW"].words == "primary NEW: not there -> 1"


def test_cells_parts_and_sizes(tmp_path):
    def edit(hdus):
        hdus["OBJCAT"].data["FLUX"][0] = 2.5
        hdus["OBJCAT"].data["NAME"][1] = "c"
        hdus["VAR"] = fits.ImageHDU(np.ones((8, 8), np.float32), name="VAR")
        hdus.append(fits.ImageHDU(np.ones((2, 2), np.float32), name="MORE"))

    where, found = apart(tmp_path, edit)
    assert ("OBJCAT", "cells", "FLUX", 1) in where
    assert ("OBJCAT", "cells", "NAME", 1) in where
    words = [d.words for d in found]
    assert "OBJCAT FLUX: 1 cells differ; in row 1 1.5 -> 2.5" in words
    assert "VAR: 9 x 8 pixels -> 8 x 8 pixels" in words
    assert "MORE: not there -> there" in words


def test_rows_that_are_not_there(tmp_path):
    def edit(hdus):
        hdus["OBJCAT"] = fits.BinTableHDU(hdus["OBJCAT"].data[:1], name="OBJCAT")

    assert "OBJCAT: 2 rows -> 1 rows" in [d.words for d in apart(tmp_path, edit)[1]]
