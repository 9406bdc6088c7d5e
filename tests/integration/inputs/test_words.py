"""Words on the command line, and what is odd in a header."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline import Reduce
from pipeline import open as open_dataset
from pipeline.cal_service import LocalDB
from pipeline.calibrations.stores import StoreError
from pipeline.errors import BadFrame, NiridError, OverrideError
from pipeline.select import fits_files
from tests.integration.inputs.helpers import DARK, copy, history, raw, science


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
