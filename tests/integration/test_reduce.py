"""Reduce on a small night: what is chosen, what is written where, and every mistake told at once."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from astropy.io import fits

import pipeline
from daemon import cli
from daemon.ledger.store import Ledger
from pipeline import Reduce, cal_service, logutils
from pipeline.cal_service import LocalDB
from pipeline.calibrations.stores import StoreError
from pipeline.errors import CalibrationNotFound, DamagedFile, FrameMismatch, NiridError, OverrideError
from pipeline.files.read import read_provenance
from pipeline.reduce import ReduceError
from pipeline.simulate import simulate_night
from pipeline.toolkit.dataset import CannotOpen

DARK, FLAT, BPM = "N20160102S0423_dark.fits", "N20160102S0366_flat.fits", "N20160102S0366_bpm.fits"
STATIC = "bpm_20010317_niri_niri_11_full_1amp.fits"


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "raw"
    simulate_night(folder, "tiny")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, night):
    """A folder with dark, flat and mask, and a store that has them."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder / "home"))
        patch.delenv("NIRIDRC", raising=False)
        patch.setattr(cal_service, "_loaded", None)  # whatever another test has loaded
        LocalDB("cal_manager.db").init()
        LocalDB("cal_manager.db").add_cal(night / STATIC)
        for files, recipe in (
            (frames(night, 423, 425), "_default"),
            ([*frames(night, 363, 368), *frames(night, 463, 465)], "makeProcessedBPM"),
            (frames(night, 363, 368), "_default"),
        ):
            Reduce(files=files, recipename=recipe).runr()
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NIRIDRC", raising=False)
    monkeypatch.setattr(cal_service, "_loaded", None)
    logutils.config()
    return tmp_path


@pytest.fixture
def ready(work, made):
    """The same, with the store of `made`, whose files may be read and not changed."""
    (work / "rc").write_text(f"[calibs]\ndatabases = {made / 'cal_manager.db'} get\n")
    os.environ["NIRIDRC"] = str(work / "rc")
    yield work
    del os.environ["NIRIDRC"]


def frames(night, first, last):
    return [str(path) for path in sorted(night.glob("N*.fits")) if first <= int(path.stem[-4:]) <= last]


def science(night):
    return frames(night, 270, 277)


def written(folder):
    return {path.name for path in folder.iterdir() if path.name != "rc"}


def roles(path):
    return {role: name for name, _, role in read_provenance(path)[0]}


# --- what works -----------------------------------------------------------------------------------------
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


# --- missing calibrations ---------------------------------------------------------------------------------
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


# --- mistakes ------------------------------------------------------------------------------------------
def copy_as(work, night, instrument):
    path = work / "other" / "N20160102S0001.fits"
    path.parent.mkdir(exist_ok=True)
    shutil.copy(science(night)[0], path)
    with fits.open(path, mode="update") as file:
        file[0].header["INSTRUME"] = instrument
    return str(path)


MISTAKES = {
    "no files": (dict, ReduceError, "no files to reduce"),
    "none readable": (lambda n, w: {"files": ["absent.fits"]}, ReduceError, "absent.fits: no such file"),
    "two instruments": (
        lambda n, w: {"files": [*science(n), copy_as(w, n, "GNIRS")]},
        ReduceError,
        r"2 instruments: NIRI \(N20160102S0270.fits\) and GNIRS",
    ),
    "another instrument": (
        lambda n, w: {"files": [copy_as(w, n, "GNIRS")]},
        ReduceError,
        "is of GNIRS, and only NIRI is reduced",
    ),
    "a recipe that is none": (
        lambda n, w: {"files": frames(n, 423, 425), "recipename": "makeProcesedDark"},
        ReduceError,
        "no recipe makeProcesedDark; did you mean makeProcessedDark",
    ),
    "a recipe in a file that is none": (
        lambda n, w: {"files": frames(n, 423, 425), "recipename": "mine.dark"},
        ReduceError,
        "there is no file mine.py",
    ),
    "a frame without a recipe": (
        lambda n, w: {"files": [str(n / STATIC)]},
        ReduceError,
        "no recipe for bpm_.* whose tags are BPM CAL",
    ),
    "out of range": (
        lambda n, w: {"files": frames(n, 423, 425), "uparms": {"stackDarks:hsigma": -1}},
        OverrideError,
        "stackDarks:hsigma=-1: must be greater than 0",
    ),
    "a spelling mistake": (
        lambda n, w: {"files": frames(n, 423, 425), "uparms": [("stackDarks:hsgma", 3)]},
        OverrideError,
        "no such parameter; did you mean hsigma",
    ),
    "a step of another recipe": (
        lambda n, w: {"files": frames(n, 423, 425), "uparms": {"darkCorrect:dark": DARK}},
        OverrideError,
        "makeProcessedDark has no step darkCorrect",
    ),
    "what the recipe fixes": (
        lambda n, w: {"files": frames(n, 423, 425), "uparms": {"addVAR:read_noise": False}},
        OverrideError,
        "fixed to True by recipe makeProcessedDark",
    ),
    "a kind that is none": (
        lambda n, w: {"files": science(n), "ucals": {"processed_drak": DARK}},
        ReduceError,
        "no kind of calibration processed_drak; did you mean processed_dark",
    ),
    "a calibration that is not there": (
        lambda n, w: {"files": science(n), "ucals": {"processed_dark": "absent.fits"}},
        CannotOpen,
        "absent.fits: no such file",
    ),
    "a calibration of another kind": (
        lambda n, w: {"files": science(n), "ucals": {"processed_dark": str(n / STATIC)}},
        ReduceError,
        "is given as processed_dark, and is static_bpm",
    ),
    "a mode": (lambda n, w: {"files": science(n), "mode": "qq"}, ReduceError, "must be one of sq, ql, qa"),
    "a preset": (lambda n, w: {"files": science(n), "preset": "best"}, ReduceError, "one of nirid, dragons"),
    "frames that do not go together": (
        lambda n, w: {"files": [*frames(n, 423, 425), *frames(n, 463, 465)]},
        FrameMismatch,
        r"stackDarks: N20160103S0463.* has 1.001 s, wanted 20.002 s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_of_our_own_and_leaves_nothing(work, night, mistake):
    what, kind, why = MISTAKES[mistake]
    arguments = {} if what is dict else what(night, work)
    reduction = Reduce(**arguments)
    with pytest.raises(kind, match=why) as caught:
        reduction.runr()
    assert isinstance(caught.value, NiridError)
    assert "\n" not in str(caught.value)
    assert reduction.output_filenames is None
    assert written(work) <= {"other"}


def test_a_store_that_is_the_daemons_is_refused_first(work, night):
    (work / "state").mkdir()
    Ledger(work / "state" / "nirid.db").close()
    (work / "rc").write_text("[calibs]\ndatabases = state/nirid.db get store\n")
    with pytest.raises(StoreError, match="the daemon's database"):
        Reduce(files=frames(night, 423, 425), config_file="rc").runr()
    (work / "rc").write_text("[calibs]\ndatabases = absent.db get store\n")
    with pytest.raises(StoreError, match="no calibration database"):
        Reduce(files=frames(night, 423, 425), config_file="rc").runr()
    assert written(work) == {"state"}


@pytest.mark.parametrize("where", ["produce.verify_product", "files.preview.drawn", "files.disk.write_whole"])
def test_a_product_that_does_not_come_out_right_leaves_what_was_there(work, night, monkeypatch, where):
    (work / DARK).write_bytes(b"the one before")

    def broken(*args, **options):
        raise DamagedFile("not as it was written")

    monkeypatch.setattr(f"pipeline.{where}", broken)
    with pytest.raises(DamagedFile):
        Reduce(files=frames(night, 423, 425), preview=True, overwrite=True).runr()
    assert (work / DARK).read_bytes() == b"the one before"
    assert written(work) == {DARK}


# --- from a shell ------------------------------------------------------------------------------------------
def nirid(*words, code=0):
    """The command, in this process: (standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["nirid", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert (end.value.code or 0) == code, out.getvalue() + err.getvalue()
    return out.getvalue(), err.getvalue()


def run(*words, **environment):
    """The installed program."""
    program = [str(Path(sys.executable).with_name("nirid")), *map(str, words)]
    done = subprocess.run(
        program, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    return done.stdout


def test_the_command_reduces_a_list_with_comments(work, night):
    lines = "\n".join(["# darks of 20 s", "", *frames(night, 423, 425)]).replace(
        "425.fits", "425.fits  # last"
    )
    (work / "darks.lis").write_text(lines)
    out, err = nirid("reduce", "@darks.lis", "--json", "--logfile", "log")
    assert json.loads(out) == {"recipe": "makeProcessedDark", "products": [DARK]}
    assert err.count("wrote") == (work / "log").read_text().count("wrote") == 1


def test_the_command_tells_mistakes_by_exit_code_and_one_line(work, night):
    dark = frames(night, 423, 423)[0]
    for words, code, why in (
        (["reduce", dark, "-p", "stackDarks:hsigma=-1"], 1, "must be greater than 0"),
        (["reduce", dark, "-p", "hsigma"], 2, "must be as step:param=value"),
        (["reduce", dark, "-r", "makeProcessedDrak"], 1, "did you mean makeProcessedDark"),
        (["reduce", "@absent.lis"], 2, "absent.lis: No such file"),
        (["reduce", *science(night)], 1, "add one to the calibration store"),
        (["reduce", dark, "--user-cal", "processed_dark"], 2, "must be as kind:path"),
        (
            ["dataselect", dark, "--expr", "exposure_tme==20"],
            1,
            "column 1: no descriptor exposure_tme; did you mean",
        ),
        (["showd", dark, "-d", "exposure_tme"], 1, "did you mean exposure_time"),
        (["showpars", dark, "stackDrks"], 1, "did you mean stackDarks"),
        (["caldb", "list"], 1, "no calibration database"),
        (["caldb", "add", dark, "-d", "absent.db"], 1, "no calibration database"),
    ):
        out, err = nirid(*words, code=code)
        assert why in err, (words, err)
        assert "Traceback" not in err
        assert out == ""
        if code == 1:
            assert len(err.splitlines()) == 1, err
    assert written(work) == set()


def test_commands_that_look(work, night, made):
    dark, flat = frames(night, 423, 423)[0], frames(night, 366, 366)[0]
    rows = json.loads(nirid("showd", dark, flat, "-d", "exposure_time,filter_name,ut_datetime", "--json")[0])
    assert [row["filename"] for row in rows] == [dark, flat]
    assert rows[0]["exposure_time"] == 20.002
    assert rows[0]["ut_datetime"].startswith("2016-01-0")
    assert "exposure_time" in nirid("showd", dark, "-d", "exposure_time")[0]
    assert (
        nirid("showd", dark, "-d", "exposure_time", "--csv")[0] == f"filename,exposure_time\n{dark},20.002\n"
    )
    rows = json.loads(nirid("typewalk", night, "--tags", "BPM", "--json")[0])
    assert [row["filename"] for row in rows] == [str(night / STATIC)]
    assert rows[0]["tags"] == sorted(rows[0]["tags"])
    chosen = json.loads(nirid("dataselect", f"{night}/*.fits", "--tags", "DARK", "--json")[0])
    assert chosen == frames(night, 423, 425) + frames(night, 463, 465)
    strict = nirid("dataselect", f"{night}/*.fits", "--expr", "exposure_time==20", "--strict", "--json")[0]
    assert json.loads(strict) == []
    said = nirid("dataselect", dark, "--tags", "DRAK", code=2)
    assert "is no tag of a NIRI frame; did you mean DARK" in said[1]
    answer = json.loads(nirid("showrecipes", flat, "--json")[0])
    assert answer["recipe"] == "makeProcessedFlat"
    assert [step["name"] for step in answer["steps"]][-1] == "thresholdFlatfield"
    known = json.loads(nirid("caldb", "list", "-d", made / "cal_manager.db", "--json")[0])
    assert {row["name"] for row in known} == {DARK, FLAT, BPM, STATIC}
    got = json.loads(nirid("caldb", "get", science(night)[0], "-d", made / "cal_manager.db", "--json")[0])
    assert got["processed_dark"]["path"] == str(made / DARK)
    _, err = nirid("caldb", "get", dark, "processed_flat", "-d", made / "cal_manager.db", code=1)
    assert "no processed_flat for" in err


def test_showpars_says_where_a_value_comes_from(work, night):
    dark = frames(night, 423, 423)[0]
    (work / "nirid.toml").write_text('[[override]]\nparameters = { "stackDarks:hsigma" = 2.5 }\n')
    answer = json.loads(run("--config", "nirid.toml", "showpars", dark, "stackDarks", "--json"))
    rows = {row["name"]: row for row in answer["parameters"]}
    assert rows["hsigma"]["value"] == 2.5
    assert rows["hsigma"]["default"] == 3.0
    assert rows["hsigma"]["from"] == "override in nirid.toml"
    assert rows["reject_method"]["dragons"] == "varclip"
    assert all(row["doc"] for row in rows.values())
    answer = json.loads(run("showpars", dark, "addVAR", "--json"))
    assert {row["from"] for row in answer["parameters"] if row["name"] == "read_noise"} == {
        "recipe makeProcessedDark"
    }
    assert "one of mean, median" in run("showpars", dark, "stackDarks")


def test_caldb_tells_every_file_that_it_refuses(work, night, made):
    nirid("caldb", "init")
    _, err = nirid("caldb", "add", made / DARK, *frames(night, 423, 424), code=1)
    assert f"added {made / DARK} as processed_dark" in err
    assert err.count("only processed calibrations") == 2
    assert nirid("caldb", "list")[0] == f"{DARK:<30} {made}\n"
    nirid("caldb", "remove", DARK)
    assert nirid("caldb", "list")[0] == ""
    nirid("caldb", "init", code=1)
    nirid("caldb", "init", "-w")


@pytest.mark.parametrize(
    "command", ["reduce", "dataselect", "showd", "typewalk", "showpars", "showrecipes", "caldb", "completion"]
)
def test_help_teaches_by_example(command):
    assert f"nirid {command} " in nirid(command, "--help")[0]


def test_the_shell_completes_names(work):
    def completed(line):
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return run(**words, _NIRID_COMPLETE="bash_complete")

    assert "plain,makeProcessedDark" in completed("nirid reduce -r make")
    assert "plain,exposure_time,filter_name" in completed("nirid showd x -d exposure_time,filt")
    assert "compdef" in nirid("completion", "zsh")[0]
