"""Calibrations and masks that a person gives, or that the store has, for each frame."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline import Reduce
from pipeline.errors import CalibrationNotFound, FrameMismatch, NiridError
from pipeline.files.read import read_provenance
from pipeline.reduction.inputs import ReduceError
from tests.integration.inputs.helpers import BPM, DARK, FLAT, copy, history, patch, science


def test_the_first_frame_that_is_dropped_decides_nothing(top, work):
    files = [copy(path, work / Path(path).name) for path in science(top)]
    copy(science(top)[0], files[0], EXPTIME=1.001)
    Reduce(files=files).runr()
    header = fits.getheader("N20160102S0271_image.fits")
    assert header["DARKIM"] == DARK


def test_each_frame_gets_its_own_dark(top, work):
    files = [copy(path, work / Path(path).name) for path in science(top)]
    for number in (2, 3, 6, 7):
        copy(science(top)[number], files[number], EXPTIME=1.001)
    uparms = {"darkCorrect:write_outputs": True, "stackFrames:skip_primitive": True}
    Reduce(files=files, uparms=uparms).runr()
    used = {p.name[:14]: fits.getval(p, "DARKIM") for p in work.glob("*_darkCorrected.fits")}
    short = "N20160103S0463_dark.fits"
    assert used == {f"N20160102S{270 + i:04d}": short if i in (2, 3, 6, 7) else DARK for i in range(1, 8)}
    product = next(work.glob("*_image.fits"))
    assert "2 of kind processed_dark are used" in history(product)
    assert {row[0] for row in read_provenance(product)[0]} >= {DARK, short}


@pytest.mark.parametrize(
    "cards",
    [{"EXPTIME": 10.001}, {"COADDS": 2, "EXPTIME": 10.001}, {"A_VDDUC": -2.0}, {"NDAVGS": 1, "LNRS": 1}],
)
def test_a_frame_without_its_dark_is_named(top, work, cards):
    files = [copy(path, work / Path(path).name) for path in science(top)]
    copy(science(top)[5], files[5], **cards)
    with pytest.raises((CalibrationNotFound, FrameMismatch), match="N20160102S0275"):
        Reduce(files=files).runr()
    assert not list(work.glob("*_image.fits"))


def test_a_dark_by_hand_that_does_not_match_is_told(top, work):
    short = str(top / "cals" / "N20160103S0463_dark.fits")
    Reduce(files=science(top), ucals={"processed_dark": short}).runr()
    text = history("N20160102S0271_image.fits")
    assert "does not match 7 frames, from N20160102S0271.fits: exposure_time 1.001, wanted 20.002" in text
    with pytest.raises(ReduceError, match="does not match 7 frames"):
        Reduce(files=science(top), ucals={"processed_dark": short}, strict_cals=True).runr()
    right = {"processed_dark": str(top / "cals" / DARK), "processed_flat": str(top / "cals" / FLAT)}
    Reduce(files=science(top), ucals=right, strict_cals=True).runr()
    assert "does not match" not in history("N20160102S0271_image.fits")


@pytest.mark.parametrize(
    ("kind", "which", "cards", "why"),
    [
        ("processed_dark", DARK, {"EXPTIME": 10.0}, "exposure_time 10.0, wanted 20.002"),
        ("processed_dark", DARK, {"COADDS": 2}, "coadds 2, wanted 1"),
        ("processed_dark", DARK, {"LNRS": 16, "NDAVGS": 16}, "read_mode Low Background, wanted Medium"),
        ("processed_dark", DARK, {"A_VDDUC": -2.0}, "well_depth Unknown, wanted Shallow"),
        ("processed_flat", FLAT, {"A_VDDUC": -2.0}, "well_depth Unknown, wanted Shallow"),
        ("processed_flat", FLAT, {"CAMERA": "f32"}, "camera f32, wanted f6"),
        ("processed_flat", FLAT, {"FILTER1": "H_G0203"}, "filter_name H_G0203, wanted Kprime_G0206"),
        ("processed_bpm", BPM, {"A_VDDUC": -2.0}, "well_depth Unknown, wanted Shallow"),
    ],
)
def test_a_calibration_by_hand_that_does_not_match_is_a_warning_or_an_error(
    top, work, kind, which, cards, why
):
    by_hand = [(kind, copy(top / "cals" / which, work / "mine.fits", **cards))]
    with pytest.raises(ReduceError, match=f"does not match 3 frames, from .*: {why}.*strict_cals is set"):
        Reduce(files=science(top)[:4], ucals=by_hand, strict_cals=True).runr()
    Reduce(files=science(top)[:4], ucals=by_hand).runr()
    assert why in history("N20160102S0271_image.fits")


def mask(top, path, values):
    header = fits.getheader(top / "cals" / BPM)
    for key in ("CHECKSUM", "DATASUM"):
        header.pop(key, None)
    fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(values, name="DQ")]).writeto(path)
    return str(path)


@pytest.mark.parametrize("role", ["addDQ:user_bpm", "addDQ:static_bpm"])
@pytest.mark.parametrize(
    ("what", "why"),
    [
        (lambda top, w: science(top)[0], "is no bad-pixel mask: "),
        (lambda top, w: str(top / "cals" / DARK), "is no bad-pixel mask: processed_dark"),
        (lambda top, w: str(top / "cals" / FLAT), "is no bad-pixel mask: processed_flat"),
        (lambda top, w: mask(top, w / "m.fits", patch("i4", 65536)), "900 values of a mask are no 16 bits"),
        (lambda top, w: mask(top, w / "m.fits", patch("i2", -1)), "900 values of a mask are no 16 bits"),
        (lambda top, w: mask(top, w / "m.fits", patch("f4", 0.5)), "900 values of a mask are no 16 bits"),
        (lambda top, w: mask(top, w / "m.fits", patch("f4", np.nan)), "900 values of a mask are no 16 bits"),
        (lambda top, w: mask(top, w / "m.fits", patch("u1", 1, 128)), "128x128 pixels do not cover 256x256"),
        (lambda top, w: mask(top, w / "m.fits", patch("u1", 1, 257)), "257x257 pixels do not cover 256x256"),
        (lambda top, w: mask(top, w / "m.fits", np.zeros((256, 258), "u1")), "258x256 pixels do not"),
        (lambda top, w: mask(top, w / "m.fits", np.zeros((512, 256), "u1")), "256x512 pixels do not"),
        (lambda top, w: str(w / "absent.fits"), "no such file"),
        (lambda top, w: str(w), "not a regular file"),
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused(top, work, role, what, why):
    prepared = Reduce(files=science(top)[:1], recipename="prepare")
    prepared.runr()
    for recipe, files in (("addDQ", prepared.output_filenames), ("_default", science(top))):
        shutil.rmtree(work / "m.fits", ignore_errors=True)
        (work / "m.fits").unlink(missing_ok=True)
        with pytest.raises(NiridError, match=why) as caught:
            Reduce(files=files, recipename=recipe, uparms={role: what(top, work)}).runr()
        assert "\n" not in str(caught.value)
    assert not list(work.glob("*_dqAdded.fits")) + list(work.glob("*_image.fits"))


@pytest.mark.parametrize(("kind", "value"), [("u1", 1), ("i2", 1), ("f4", 1.0), ("i4", 65535)])
def test_a_mask_of_any_whole_numbers_is_used(top, work, kind, value):
    prepared = Reduce(files=science(top)[:1], recipename="prepare")
    prepared.runr()
    path = mask(top, work / "m.fits", patch(kind, value, 512))
    uparms = {"addDQ:user_bpm": Path(path), "addDQ:static_bpm": None}
    done = Reduce(files=prepared.output_filenames, recipename="addDQ", uparms=uparms)
    done.runr()
    dq = fits.getdata(done.output_filenames[0], "DQ")
    assert dq.max() == value or not dq[60:90, 60:90].any()  # of 512 the middle is cut out
    assert os.path.exists(path)
