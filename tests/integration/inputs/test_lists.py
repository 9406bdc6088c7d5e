"""Every frame of a list: what does not belong is named."""

import shutil
from pathlib import Path

import pytest
from astropy.io import fits

from pipeline import Reduce
from pipeline.errors import FrameMismatch, NiridError
from pipeline.reduction.inputs import ReduceError
from tests.integration.inputs.helpers import DARK, FLAT, copy, history, raw, science


def test_the_same_command_again_gives_the_same_product(top, work, capsys):
    for path in science(top):
        shutil.copy(path, work)
    made = []
    for _ in range(2):
        files = sorted(map(str, work.glob("*.fits")))
        Reduce(files=files, uparms={"skyCorrect:write_outputs": True}).runr()
        made.append((work / "N20160102S0271_image.fits").read_bytes())
    assert made[0] == made[1]
    said = capsys.readouterr().err
    assert "N20160102S0271_image.fits left out: it is no raw frame" in said
    assert "N20160102S0271_skyCorrected.fits left out: it is no raw frame" in said


@pytest.mark.parametrize(
    ("what", "cards", "why"),
    [
        ("a dark", {"OBSTYPE": "DARK"}, "reduce is made of IMAGE frames, and odd.fits is DARK"),
        ("a flat", {"OBSTYPE": "FLAT"}, "odd.fits is FLAT"),
        ("an arc", {"OBSTYPE": "ARC"}, "odd.fits is ARC"),
        ("a spectrum", {"FILTER3": "Hgrism_G5203"}, "odd.fits is SPECT"),
        ("another filter", {"FILTER1": "H_G0203"}, "odd.fits: filter_name H"),
        ("another camera", {"CAMERA": "f14"}, "odd.fits: camera f14"),
        ("another mask", {"FPMASK": "f6-4pix_G5212"}, "odd.fits: focal_plane_mask f6-4pix_G5212"),
        ("adaptive optics", {"AOFOLD": "IN"}, "odd.fits: is_ao True"),
        ("another instrument", {"INSTRUME": "GNIRS"}, "files of 2 instruments"),
        ("no instrument", {"INSTRUME": "NOTHING"}, "files of 2 instruments"),
    ],
)
def test_a_frame_that_does_not_belong_is_named(top, work, what, cards, why):
    files = [*science(top), copy(science(top)[3], work / "odd.fits", DATALAB="X-1", UT="23:00:00", **cards)]
    with pytest.raises((ReduceError, FrameMismatch), match=why):
        Reduce(files=files).runr()
    assert not list(work.glob("*_image.fits"))


@pytest.mark.parametrize(
    ("cards", "why"),
    [
        ({"FILTER3": "Hgrism_G5203"}, "odd.fits is SPECT"),
        ({"OBSTYPE": "ARC"}, "odd.fits is ARC"),
        ({"OBSTYPE": "DARK"}, "odd.fits is DARK"),
        ({"FILTER1": "H_G0203"}, "odd.fits: filter_name H_G0203"),
        ({"A_VDDUC": -2.0}, "odd.fits: well_depth Unknown"),
        ({"FPMASK": "f6-4pix_G5212"}, "odd.fits: focal_plane_mask"),
        ({"LNRS": 16, "NDAVGS": 16}, "odd.fits has read mode Low Background"),
    ],
)
@pytest.mark.parametrize("number", [364, 367])  # with the lamp off, and on
def test_a_flat_that_does_not_belong_is_named(top, work, cards, why, number):
    files = [path for path in raw(top, range(363, 369)) if str(number) not in path]
    odd = copy(raw(top, [number])[0], work / "odd.fits", **cards)
    with pytest.raises((ReduceError, FrameMismatch), match=why):
        Reduce(files=[*files, odd]).runr()
    assert not list(work.glob("*_flat.fits"))


def test_lamps_of_other_names_are_told(top, work):
    files = [copy(path, work / Path(path).name) for path in raw(top, range(363, 369))]
    copy(
        files[4],
        files[4].replace("0367", "0399"),
        GCALLAMP="IRlow",
        GCALFILT="ND2",
        DATALAB="X",
        UT="23:00:00",
    )
    Reduce(files=[*files[:4], files[5], files[4].replace("0367", "0399")]).runr()
    assert "lamp-on frames differ in gcal_lamp_raw: IRhigh, IRlow" in history(FLAT)
    assert "lamp-on frames differ in gcal_filter: ND2, " in history(FLAT)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"suffix": "/../x"}, "suffix '/../x': must be the end"),
        ({"suffix": "_a\nb"}, "must be the end"),
        ({"suffix": "_a\0"}, "must be the end"),
        ({"suffix": 5}, "suffix 5: must be the end"),
        ({"out": "a\0"}, "is no folder"),
        ({"out": None}, "is no folder"),
        ({"out": "rc"}, "'rc' is no folder"),
        ({"ucals": "abc"}, "ucals 'abc': must be pairs"),
        ({"ucals": {5: "x"}}, "no kind of calibration 5"),
        ({"uparms": {"darkCorrect:drak": "x"}}, "did you mean dark?"),
        ({"uparms": {"stackDarks:skip_primitiv": "x"}}, "did you mean skip_primitive?"),
        ({"uparms": {"stackDarks:hsigma": 10**400}}, "must be a number"),
        ({"uparms": {"stackDarks:hsigma": "a/\0b"}}, "must be a number"),
    ],
)
def test_what_is_asked_for_is_one_line(top, work, how, why):
    numbers = range(270, 278) if "dark?" in why else range(423, 426)
    with pytest.raises(NiridError) as caught:
        Reduce(files=raw(top, numbers), **how).runr()
    assert why in str(caught.value)
    assert not list(work.rglob("*_*.fits"))


def test_nothing_asked_for_is_nothing(top, work):
    Reduce(files=raw(top, range(423, 426)), uparms=None, ucals=None).runr()
    assert (work / DARK).exists()


def test_another_size_is_named(top, work):
    odd = copy(science(top)[4], work / "odd.fits")
    with fits.open(odd) as file:
        small = fits.HDUList([file[0].copy(), fits.ImageHDU(file[1].data[:128, :128], file[1].header)])
        small.writeto(work / "small.fits")
    files = [path for path in science(top) if "0274" not in path]
    with pytest.raises(FrameMismatch, match=r"small.fits: shape \(128, 128\), wanted \(256, 256\)"):
        Reduce(files=[*files, str(work / "small.fits")]).runr()
