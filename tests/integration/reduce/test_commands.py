"""The toolkit from a shell."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import cli
from tests.integration.reduce.helpers import BPM, DARK, FLAT, STATIC, frames, science, written


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


def test_options_that_users_of_gemini_s_scripts_reach_for(work, night, made):
    every = json.loads(nirid("typewalk", "-d", night, "--tags", "DARK,FLAT", "--or", "--json")[0])
    assert every
    assert all({"DARK", "FLAT"} & set(row["tags"]) for row in every)
    assert {"DARK", "FLAT"} <= {tag for row in every for tag in row["tags"]}
    one = json.loads(
        nirid("typewalk", night, "-f", r"N20160102S042[34]\.fits", "--out", "a.lis", "--json")[0]
    )
    assert [row["filename"] for row in one] == frames(night, 423, 424)
    assert (work / "a.lis").read_text().splitlines()[-2:] == frames(night, 423, 424)
    assert "is no regular expression" in nirid("typewalk", night, "-f", "(", code=1)[1]
    assert "have commas between them: --tags A,FLAT" in nirid("typewalk", "--tags", "DARK", "FLAT", code=2)[1]
    assert "given twice" in nirid("typewalk", night, "-d", night, code=2)[1]
    dark = frames(night, 423, 423)[0]
    assert "\nRaises FrameMismatch" in nirid("showpars", dark, "stackDarks", "-d")[0]
    assert "Raises FrameMismatch" not in nirid("showpars", dark, "stackDarks")[0]
    assert "ultradeep" not in nirid("showrecipes", dark, "--all", "-m", "qa")[0].split()
    assert "ultradeep" in nirid("showrecipes", dark, "--all")[0].split()


def test_caldb_config_says_which_databases_are_asked(work, monkeypatch):
    monkeypatch.setenv("HOME", str(work))
    alone = json.loads(nirid("caldb", "config", "--json")[0])
    path = str(work / "cal_manager.db")
    assert alone == {
        "configuration": None,
        "databases": [{"path": path, "get": True, "store": True, "exists": False, "daemon": False}],
    }
    (work / "nirirc").write_text("[calibs]\ndatabases = a.db get store\n            b.db get\n")
    named = json.loads(nirid("caldb", "config", "--json")[0])
    assert named["configuration"] == "nirirc"
    assert [(d["path"], d["store"]) for d in named["databases"]] == [
        (str(work / "a.db"), True),
        (str(work / "b.db"), False),
    ]
    assert "not there yet: nirid caldb init" in nirid("caldb", "config")[0]


def test_provenance_prints_the_ancestry_of_a_product(work, night, made):
    answer = json.loads(nirid("provenance", made / FLAT, "--json")[0])
    mask = next(r for r in answer["provenance"] if r["name"].startswith(BPM.removesuffix(".fits")))
    assert (mask["path"], mask["same"]) == (str(made / BPM), True)
    assert {r["name"] for r in mask["made_of"]} >= {Path(p).name for p in frames(night, 463, 465)}
    assert [row["step"] for row in answer["history"]][-1] == "thresholdFlatfield"
    only = nirid("provenance", "-p", made / FLAT)[0]
    assert "thresholdFlatfield" not in only
    assert "thresholdFlatfield" in nirid("provenance", "--history", made / FLAT)[0]
    assert "is not a product" in nirid("provenance", frames(night, 423, 423)[0], code=1)[1]
    (work / "n").mkdir()
    (work / "n" / FLAT).write_bytes((made / FLAT).read_bytes())
    (work / "n" / BPM).write_bytes((made / DARK).read_bytes())
    assert "is another file now" in nirid("provenance", "-p", work / "n" / FLAT)[0]


def test_a_picture_of_any_frame(work, night, made):
    nirid("picture", made / FLAT)
    nirid("picture", frames(night, 423, 423)[0], "--dq", "-o", "raw.png")
    assert (work / FLAT.replace(".fits", ".png")).read_bytes()[:4] == b"\x89PNG"
    nirid("picture", made / DARK, "--dq", "-o", "raw.png")  # ours is replaced, another's is not
    (work / "mine.png").write_bytes(b"mine")
    assert "mine.png" in nirid("picture", made / DARK, "-o", "mine.png", code=1)[1]


@pytest.mark.parametrize(
    "command",
    [
        "reduce",
        "dataselect",
        "showd",
        "typewalk",
        "showpars",
        "showrecipes",
        "caldb",
        "completion",
        "provenance",
        "picture",
    ],
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
