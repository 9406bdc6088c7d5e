"""What is given to `Reduce` is looked at, every file of it: identity, kinds, calibrations, masks."""

import bz2
import gzip
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline import Reduce, cal_service, logutils
from pipeline import open as open_dataset
from pipeline.cal_service import LocalDB
from pipeline.calibrations.stores import StoreError
from pipeline.errors import BadFrame, CalibrationNotFound, FrameMismatch, NiridError, OverrideError
from pipeline.files.outputs import WouldOverwrite
from pipeline.files.read import read_provenance
from pipeline.reduction.inputs import ReduceError
from pipeline.select import fits_files
from pipeline.simulate import simulate_night

DARK, FLAT, BPM = "N20160102S0423_dark.fits", "N20160102S0366_flat.fits", "N20160102S0366_bpm.fits"


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """raw: a small night; cals: a store with its darks of 20 s and 1 s, its flat and its mask."""
    top = tmp_path_factory.mktemp("top")
    simulate_night(top / "raw", "tiny")
    (top / "cals").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top / "cals")
        patch.delenv("NIRIDRC", raising=False)
        patch.setattr(cal_service, "_loaded", None)
        LocalDB("cal_manager.db").init()
        for numbers, recipe in (
            (range(423, 426), "_default"),
            (range(463, 466), "_default"),
            ((*range(363, 369), *range(463, 466)), "makeProcessedBPM"),
            (range(363, 369), "_default"),
        ):
            Reduce(files=raw(top, numbers), recipename=recipe).runr()
    return top


@pytest.fixture
def work(top, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cal_service, "_loaded", None)
    (tmp_path / "rc").write_text(f"[calibs]\ndatabases = {top / 'cals' / 'cal_manager.db'} get\n")
    monkeypatch.setenv("NIRIDRC", str(tmp_path / "rc"))
    logutils.config()
    return tmp_path


def raw(top, numbers):
    return [str(next((top / "raw").glob(f"N*S{number:04d}.fits"))) for number in numbers]


def science(top):
    return raw(top, range(270, 278))


def copy(source, target, **cards):
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    if cards:
        with fits.open(target, mode="update") as file:
            file[0].header.update(cards)
    return str(target)


def history(path):
    return "".join(str(line).ljust(72) for line in fits.getheader(path)["HISTORY"])


def digest(paths):
    return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]


# --- identity ---------------------------------------------------------------------------------------------
def test_frames_of_one_name_in_two_folders_are_not_mixed(top, work):
    Reduce(files=science(top)).runr()
    names = [f"{'on' if i < 4 else 'off'}/img{i % 4}.fits" for i in range(8)]
    files = [copy(path, work / name) for path, name in zip(science(top), names, strict=True)]
    before = digest(files)
    reduction = Reduce(files=files, uparms={"skyCorrect:write_outputs": True})
    reduction.runr()
    assert reduction.output_filenames == ["img1_image.fits"]
    with fits.open("img1_image.fits") as ours, fits.open("N20160102S0271_image.fits") as plain:
        np.testing.assert_array_equal(ours["SCI"].data, plain["SCI"].data)
        assert {row[0] for row in read_provenance(Path("img1_image.fits"))[0]} >= set(names)
    assert digest(files) == before
    assert len(list(work.glob("*_skyCorrected.fits"))) == 3


def test_every_frame_of_a_step_is_written(top, work):
    files = [
        copy(path, work / f"{folder}/M82_1.fits") for path, folder in zip(science(top), "abc", strict=False)
    ]
    reduction = Reduce(files=files, recipename="prepare")
    reduction.runr()
    assert reduction.output_filenames == [f"{folder}-M82_1_prepared.fits" for folder in "abc"]
    times = {fits.getheader(path)["UT"] for path in reduction.output_filenames}
    assert len(times) == 3


def test_a_product_of_another_exposure_is_not_replaced(top, work, capsys):
    long = [copy(p, work / f"l/dark_{i}.fits") for i, p in enumerate(raw(top, range(423, 426)))]
    short = [copy(p, work / f"s/dark_{i}.fits") for i, p in enumerate(raw(top, range(463, 466)))]
    for _ in range(2):  # again is the same names
        one, two = Reduce(files=long), Reduce(files=short)
        one.runr()
        two.runr()
        assert one.output_filenames == ["dark_0_dark.fits"]
        assert "dark_0_dark.fits is of the exposure of 2016-01-02" in capsys.readouterr().err
    assert len(list(work.glob("*_dark.fits"))) == 2
    assert [fits.getval(p, "EXPTIME") for p in (*one.output_filenames, *two.output_filenames)] == [
        20.002,
        1.001,
    ]


@pytest.mark.parametrize("kind", ["other name", "other folder", "gzip", "bzip2", "tiles", "type", "comment"])
def test_an_exposure_counts_once(top, work, kind):
    darks = raw(top, range(423, 426))
    Reduce(files=darks).runr()
    again = []
    for path in darks:
        name, content = Path(path).name, Path(path).read_bytes()
        copied = work / "c" / {"other name": f"{name[:-5]}-1.fits", "comment": f"A{name}"}.get(kind, name)
        copied.parent.mkdir(exist_ok=True)
        if kind in ("gzip", "bzip2"):
            content = gzip.compress(content) if kind == "gzip" else bz2.compress(content)
            copied = Path(f"{copied}{'.gz' if kind == 'gzip' else '.bz2'}")
        copied.write_bytes(content)
        if kind == "comment":
            fits.setval(copied, "OBSERVER", value="somebody else")
        if (
            kind == "type"
        ):  # as software leaves it that turns integers into floats, or floats into longer ones
            with fits.open(path) as file:
                file[1].data = file[1].data.astype("f8")
                file.writeto(copied, overwrite=True)
        if kind == "tiles":
            with fits.open(path) as file:
                image = fits.CompImageHDU(
                    file[1].data, file[1].header, compression_type="GZIP_1", quantize_level=0
                )
                fits.HDUList([fits.PrimaryHDU(header=file[0].header), image]).writeto(copied, overwrite=True)
        again.append(str(copied))
    reduction = Reduce(files=[*again, *darks], out="o")
    reduction.runr()
    with fits.open(DARK) as once, fits.open(reduction.output_filenames[0]) as twice:
        assert Path(reduction.output_filenames[0]).name == DARK
        np.testing.assert_array_equal(once["VAR"].data, twice["VAR"].data)
        assert twice[0].header["NCOMBINE"] == 3
    assert "left out: the same exposure as" in history(reduction.output_filenames[0])


@pytest.mark.parametrize(
    "name", ["a\x01.fits", "b\n.fits", "\u00e9.fits", "\udcff.fits", "%s 'q'.fits", "", "none.fits"]
)
def test_what_is_left_out_is_told_in_the_product_whatever_it_is_called(top, work, name):
    darks = raw(top, range(423, 426))
    if name and name != "none.fits":
        shutil.copy(darks[0], work / name)
    Reduce(files=[*darks, name], out="o").runr()
    told = ascii(name)[1:-1] if name else "it is empty; left out"
    assert told.replace("\\'", "'") in history(work / "o" / DARK)
    assert "left out" in history(work / "o" / DARK)


def test_exposures_that_look_alike_are_all_used(top, work):
    """The same pixels, as of a shutter that stays closed, but other times and labels; or one time alone."""
    darks = raw(top, range(423, 426))
    blank = [copy(path, work / Path(path).name) for path in darks]
    for path in blank[:2]:
        with fits.open(path, mode="update") as file:
            file[1].data[:] = 5
    reduction = Reduce(files=blank, uparms={"judgeFrames:skip_primitive": True})
    reduction.runr()
    assert fits.getval(reduction.output_filenames[0], "NCOMBINE") == 3
    same_time = [copy(path, work / f"t{i}.fits", UT="01:02:03") for i, path in enumerate(darks)]
    reduction = Reduce(files=same_time)
    reduction.runr()
    assert fits.getval(reduction.output_filenames[0], "NCOMBINE") == 3


def test_what_a_step_writes_replaces_nothing_of_other_exposures(top, work):
    one = [copy(path, work / "a" / f"img{i}.fits") for i, path in enumerate(raw(top, range(423, 426)))]
    two = [copy(path, work / "b" / f"img{i}.fits") for i, path in enumerate(raw(top, range(463, 466)))]
    for files in (one, two, one):
        Reduce(files=files, uparms={"prepare:write_outputs": True}).runr()
    found = {path.name: fits.getval(path, "EXPTIME") for path in sorted(work.glob("*_prepared.fits"))}
    assert len(found) == 6
    assert all(seconds == (1.001 if "-" in name else 20.002) for name, seconds in found.items())
    for path in work.glob("*_prepared.fits"):
        path.unlink()
    (work / "img1_prepared.fits").write_text("mine")
    with pytest.raises(WouldOverwrite, match="img1_prepared"):
        Reduce(files=one, uparms={"prepare:write_outputs": True}).runr()
    assert [path.read_text() for path in work.glob("*_prepared.fits")] == ["mine"]


# --- every frame of a list ---------------------------------------------------------------------------------
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


# --- calibrations ------------------------------------------------------------------------------------------
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


# --- masks ---------------------------------------------------------------------------------------------
def mask(top, path, values):
    header = fits.getheader(top / "cals" / BPM)
    for key in ("CHECKSUM", "DATASUM"):
        header.pop(key, None)
    fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(values, name="DQ")]).writeto(path)
    return str(path)


def patch(kind, value, size=256):
    values = np.zeros((size, size), kind)
    values[60:90, 60:90] = value
    return values


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


# --- words, and what is odd in a header ---------------------------------------------------------------------
@pytest.mark.parametrize(
    "word",
    ["removeFirstFrame:remove_files", "separateSky:ref_sky", "separateSky:ref_obj", "associateSky:sky"],
)
def test_a_name_that_no_frame_has_is_an_error(top, work, word):
    with pytest.raises(OverrideError, match=r"no frame is called N20160102S0299.fits; did you mean N2016"):
        Reduce(files=science(top), uparms={word: ["N20160102S0271.fits", "N20160102S0299.fits"]}).runr()


@pytest.mark.parametrize(
    "how", [str, Path, lambda p: [p], lambda p: (Path(p),), lambda p: f"{p}, 0273", os.path.relpath]
)
def test_a_frame_may_be_named_by_its_path(top, work, how):
    path = science(top)[2]
    Reduce(files=science(top), uparms={"removeFirstFrame:remove_files": how(path)}).runr()
    assert "N20160102S0272.fits left out, as told by" in history("N20160102S0271_image.fits")


def test_scalars_of_numpy_and_paths_are_taken(top, work):
    uparms = {
        "stackDarks:hsigma": np.float32(2.5),
        "stackDarks:max_iters": np.int64(3),
        "stackDarks:mclip": np.bool_(False),
        "stackDarks:operation": np.str_("median"),
    }
    files = [Path(path) for path in raw(top, range(423, 426))]
    Reduce(files=files, uparms=uparms, out=work / "o").runr()
    assert (work / "o" / DARK).exists()


@pytest.mark.parametrize(
    ("cards", "why"),
    [
        ({"EXPTIME": 0.0}, "EXPTIME is 0.0, wanted seconds"),
        ({"EXPTIME": -1.0}, "EXPTIME is -1.0"),
        ({"EXPTIME": 1e300}, r"EXPTIME is 1e\+300"),
        ({"EXPTIME": "long"}, "EXPTIME is 'long'"),
    ],
)
def test_what_is_no_exposure_is_one_line(top, work, cards, why):
    for numbers in (range(423, 426), range(363, 369)):
        files = [copy(path, work / Path(path).name, **cards) for path in raw(top, numbers)]
        with pytest.raises(BadFrame, match=why):
            Reduce(files=files).runr()
    assert not list(work.glob("*_*.fits"))


@pytest.mark.parametrize(
    ("date", "said"),
    [
        ("2016/01/02", ""),
        (" 2016-01-02 ", ""),
        ("2016-01-02Z", ""),
        ("2016-1-2", ""),
        ("2016-01-02T06:02:45", ""),
        ("2016-01-02T06:02:45Z", ""),
        ("2016-01-02T06:02:45+00:00", ""),
        ("2016-01-01 20:02:45-10:00", ""),
        ("2016-13-45", "DATE-OBS '2016-13-45' is no date; 2016-01-02 06:02:45, from elsewhere, is taken"),
        ("soon", "DATE-OBS 'soon' is no date"),
        ("", ""),
    ],
)
def test_a_date_is_read_or_said(top, work, date, said):
    files = [copy(path, work / Path(path).name) for path in raw(top, range(423, 426))]
    for path in files:
        with fits.open(path, mode="update") as file:
            file[0].header["DATE-OBS"] = date
            file[0].header["UT"] = "06:02:45"
    one = copy(files[0], work / "one" / Path(files[0]).name)
    Reduce(files=[one]).runr()
    assert open_dataset(one).ut_datetime().isoformat() == "2016-01-02T06:02:45"
    assert open_dataset(DARK).ut_datetime().isoformat() == "2016-01-02T06:02:45"
    assert ("is no date" in history(DARK)) == bool(said)
    assert said in history(DARK)


@pytest.mark.parametrize("numbers", [range(423, 426), range(363, 369)])
@pytest.mark.parametrize("value", [np.nan, 3e38])
def test_frames_without_any_value_make_no_product(top, work, numbers, value):
    files = [copy(path, work / Path(path).name) for path in raw(top, numbers)]
    for path in files:
        with fits.open(path, mode="update") as file:
            file[1].data[:] = value
    with pytest.raises(NiridError, match="no pixel") as caught:
        Reduce(files=files).runr()
    assert "\n" not in str(caught.value)
    assert not list(work.glob("*_*.fits"))


def test_products_go_elsewhere_from_a_folder_that_is_read_only(top, work, monkeypatch, capsys):
    """root may write everywhere, so that the folder is only said to be so."""
    monkeypatch.delenv("NIRIDRC")
    (work / "here").mkdir()
    monkeypatch.chdir(work / "here")
    true = os.access
    ours = str(work / "here")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != ours and true(path, mode))
    reduction = Reduce(files=raw(top, range(423, 426)), out=work / "there")
    reduction.runr()
    assert (work / "there" / DARK).exists()
    assert "N20160102S0423_dark is registered nowhere" in capsys.readouterr().err
    assert not list((work / "here").iterdir())
    (work / "rc").write_text("[calibs]\ndatabases = cal_manager.db get store\n")
    LocalDB(work / "here" / "cal_manager.db").init()
    with pytest.raises(StoreError, match="is to store calibrations, and cannot be written"):
        Reduce(files=raw(top, range(423, 426)), out=work / "no", config_file=str(work / "rc")).runr()
    assert not (work / "no").exists()


def test_a_name_as_long_as_names_may_be(top, work):
    name = "x" * 245
    long = copy(raw(top, [423])[0], work / f"{name}.fits")
    Reduce(files=[long], preview=True).runr()
    assert (work / f"{name}_dark.fits").exists()
    assert (work / f"{name}_dark.png").exists()
    with pytest.raises(OSError, match="name too long"):
        Reduce(files=[long], suffix="_flat_field").runr()
    assert len(list(work.iterdir())) == 4


def test_a_name_in_capitals(top, work):
    files = [copy(path, work / f"{Path(path).stem}.FITS") for path in raw(top, range(423, 426))]
    Reduce(files=files).runr()
    assert (work / DARK).exists()
    found = list(fits_files(work))
    assert len([path for path in found if path.endswith(".FITS")]) == 3
