"""`Reduce`: what works, and what it does without a calibration."""

import os
import shutil
from pathlib import Path

import pytest
from astropy.io import fits

import pipeline
from pipeline import Reduce
from pipeline.cal_service import LocalDB
from pipeline.errors import CalibrationNotFound
from pipeline.files.read import read_provenance
from pipeline.reduce import ReduceError
from tests.integration.reduce.helpers import BPM, DARK, FLAT, STATIC, frames, science, written


@pytest.fixture
def ready(work, made):
    """The same, with the store of `made`, whose files may be read and not changed."""
    (work / "rc").write_text(f"[calibs]\ndatabases = {made / 'cal_manager.db'} get\n")
    os.environ["NIRIDRC"] = str(work / "rc")
    yield work
    del os.environ["NIRIDRC"]


def roles(path):
    return {role: name for name, _, role in read_provenance(path)[0]}


def levels(path):
    return {card: level for card, level in fits.getheader(path).items() if card.endswith("LEV")}


def test_a_dark_is_made_stored_and_named(work, night):
    reduction = Reduce()
    reduction.files.extend(frames(night, 423, 425)[::-1])
    assert reduction.output_filenames is None
    reduction.runr()
    assert reduction.output_filenames == [DARK]
    assert reduction.recipename == "makeProcessedDark"
    assert written(work) == {DARK, "cal_manager.db"}  # made as it was first needed
    assert [name for name, _ in LocalDB("cal_manager.db").list_files()] == [DARK]
    inputs, steps = read_provenance(work / DARK)
    assert [name for name, _, _ in inputs] == [f"N20160102S0{n}.fits" for n in (423, 424, 425)]
    assert steps[0][0] == "prepare"


def test_twice_is_the_same_bits_and_stored_once(work, night):
    for _ in range(2):
        Reduce(files=frames(night, 423, 425)).runr()
        bits = (work / DARK).read_bytes()
    Reduce(files=frames(night, 423, 425)).runr()
    assert (work / DARK).read_bytes() == bits
    assert len(list(LocalDB("cal_manager.db").list_files())) == 1


def test_calibrations_are_found_in_the_store(ready, night, made):
    reduction = Reduce(files=science(night))
    reduction.runr()
    assert reduction.output_filenames == ["N20160102S0271_image.fits"]
    found = roles(ready / "N20160102S0271_image.fits")
    assert found["processed_dark"] == DARK
    assert found["processed_flat"] == FLAT
    assert found["processed_bpm"] == BPM
    assert found["static_bpm"] == STATIC
    assert levels(ready / "N20160102S0271_image.fits") == {
        "DARKLEV": 0,
        "FLATLEV": 0,
        "BPMLEV": 1,
        "ZPLEV": 3,
    }
    assert written(ready) == {"N20160102S0271_image.fits"}  # `get` only: nothing is stored


def test_what_a_person_gives_comes_before_the_store(ready, night, made):
    for name, original in (("mine_dark.fits", DARK), ("mine_flat.fits", FLAT), ("mine_bpm.fits", BPM)):
        shutil.copy(made / original, ready / name)
    reduction = Reduce(files=science(night), suffix="_mine")
    reduction.ucals = {"processed_dark": "mine_dark.fits"}
    reduction.uparms = {
        "flatCorrect:flat": "mine_flat.fits",
        "addDQ:user_bpm": "mine_bpm.fits",
        "hsigma": "4",
    }
    reduction.runr()
    assert reduction.output_filenames == ["N20160102S0271_mine.fits"]
    found = roles(ready / "N20160102S0271_mine.fits")
    assert found["processed_dark"] == "mine_dark.fits"
    assert found["processed_flat"] == "mine_flat.fits"
    assert found["user_bpm"] == "mine_bpm.fits"
    assert "processed_bpm" not in found
    assert levels(ready / "N20160102S0271_mine.fits") == {"ZPLEV": 3}  # of what a person gives nobody knows
    steps = {step: values for step, values, _ in read_provenance(ready / "N20160102S0271_mine.fits")[1]}
    assert steps["stackFrames"]["hsigma"] == 4.0


def test_processed_bpm_as_user_calibration_is_the_user_bpm(work, night, made):
    Reduce(files=frames(night, 423, 425), ucals={"processed_bpm": str(made / BPM)}).runr()
    assert roles(work / DARK)["user_bpm"] == BPM


def test_no_mask_when_told_none(ready, night):
    Reduce(files=frames(night, 363, 368), uparms=[("addDQ:static_bpm", None)]).runr()
    assert "static_bpm" not in roles(ready / FLAT)


def test_overrides_of_the_tutorial(ready, night):
    reduction = Reduce(files=science(night), out="sub")
    reduction.uparms = [
        ("skyCorrect:scale_sky", "False"),
        ("stackFrames:skip_primitive", True),
        ("skyCorrect:write_outputs", "True"),
        ("removeFirstFrame:remove_first", False),
    ]
    (ready / "sub").mkdir()
    reduction.runr()
    made = written(ready / "sub")
    images = sorted(name for name in made if name.endswith("_image.fits"))
    assert [str(Path("sub") / name) for name in images] == sorted(reduction.output_filenames)
    assert len(images) == 4
    assert images[0] == "N20160102S0270_image.fits"
    assert {name for name in made if name.endswith("_skyCorrected.fits")} == {
        name.replace("_image", "_skyCorrected") for name in images
    }
    notes = " ".join(str(line) for line in fits.getheader(ready / "sub" / images[0])["HISTORY"])
    assert "stackFrames skipped" in notes


def test_a_single_step_and_a_recipe_of_ones_own(work, night):
    reduction = Reduce(files=frames(night, 423, 424), recipename="prepare")
    reduction.runr()
    assert reduction.output_filenames == ["N20160102S0423_prepared.fits", "N20160102S0424_prepared.fits"]
    (work / "mine.py").write_text(
        "from pipeline.primitive import Recipe\n"
        "from pipeline.steps.prepare import prepare\n"
        "from pipeline.steps.counts import adu_to_electrons\n"
        "ELECTRONS = Recipe('electrons', version=1, suffix='_e', steps=(prepare(), adu_to_electrons()))\n"
    )
    reduction = Reduce(files=frames(night, 423, 423), recipename="mine.ELECTRONS")
    reduction.runr()
    assert reduction.output_filenames == ["N20160102S0423_e.fits"]
    assert not pipeline.open("N20160102S0423_e.fits").is_in_adu()
    with pytest.raises(ReduceError, match="did you mean ELECTRONS"):
        Reduce(files=frames(night, 423, 423), recipename="mine.ELECTRON").runr()


def test_a_preview_when_asked(work, night):
    Reduce(files=frames(night, 423, 425), preview=True).runr()
    assert "N20160102S0423_dark.png" in written(work)


def test_unreadable_files_are_left_out_with_a_warning(work, night, capsys):
    (work / "note.fits").write_text("no")
    Reduce(files=[*frames(night, 423, 425), "note.fits", "absent.fits"]).runr()
    said = capsys.readouterr().err
    assert "WARNING - note.fits: " in said
    assert "WARNING - absent.fits: no such file or directory; left out" in said
    assert len([r for r in read_provenance(work / DARK)[0] if r[2] == "input"]) == 3


def test_the_preset_of_gemini(work, night):
    Reduce(files=frames(night, 423, 425), preset="dragons").runr()
    steps = {step: values for step, values, _ in read_provenance(work / DARK)[1]}
    assert steps["stackDarks"]["reject_method"] == "varclip"
    assert fits.getheader(work / DARK)["PRESET"] == "dragons"


def test_several_databases_and_where_new_ones_go(work, night, made):
    LocalDB(work / "mine.db").init()
    (work / "rc").write_text(f"[calibs]\ndatabases = {made / 'cal_manager.db'} get\n  mine.db get store\n")
    Reduce(files=frames(night, 423, 425), config_file="rc").runr()
    assert [name for name, _ in LocalDB("mine.db").list_files()] == [DARK]


def test_a_missing_calibration_is_told_before_anything_is_done(work, night):
    with pytest.raises(
        CalibrationNotFound, match=r"N20160102S0271.fits: no processed_(dark|flat) .*do_cal=skip"
    ) as caught:
        Reduce(files=science(night)).runr()
    assert "\n" not in str(caught.value)
    assert written(work) == set()


def test_it_goes_on_without_when_told(work, night, capsys):
    uparms = {"darkCorrect:do_cal": "skip", "flatCorrect:do_cal": "skip"}
    Reduce(files=science(night), uparms=uparms).runr()
    assert set(roles(work / "N20160102S0271_image.fits")) == {"input"}
    Reduce(files=science(night), mode="ql").runr()
    assert "WARNING - flatCorrect skipped: no processed_flat" in capsys.readouterr().err


def standard(folder, night):
    """The science frames, as though they were of a standard star."""
    paths = []
    for path in science(night)[:4]:
        shutil.copy(path, folder)
        paths.append(folder / Path(path).name)
        with fits.open(paths[-1], mode="update") as file:
            file[0].header["OBSCLASS"] = "partnerCal"
            file[0].header["OBJECT"] = "FS 17"
    return [str(path) for path in paths]


def test_a_standard_star_needs_no_dark(work, night, made):
    (work / "raw").mkdir()
    paths = standard(work / "raw", night)
    reduction = Reduce(files=paths, ucals={"processed_flat": str(made / FLAT)})
    reduction.runr()
    history = " ".join(fits.getheader(reduction.output_filenames[0])["HISTORY"])
    assert "darkCorrect skipped for the standard star FS 17" in history
    with pytest.raises(CalibrationNotFound):
        Reduce(files=paths, ucals={"processed_flat": str(made / FLAT)}, preset="dragons").runr()
    with pytest.raises(CalibrationNotFound):
        Reduce(files=paths).runr()  # a flat it does
