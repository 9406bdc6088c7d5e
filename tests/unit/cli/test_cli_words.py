"""What is typed: nights, states, folders, parameters, files; what makes no sense is told in one line."""

import click
import pytest

from daemon import cli
from daemon.cli.words import Night, existing, sorted_out, state_of_a_file
from daemon.model.states import FileState
from pipeline.errors import NiridError
from pipeline.simulate import PRESETS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["status", "--foo"], "No such option '--foo' (nirid status --help)"),
        (["statsu"], "No such command 'statsu'"),
        (["caldb", "foo"], "No such command 'foo'"),
        (["reduce"], "Missing argument 'FILES...' (nirid reduce --help)"),
        (["explain"], "Missing argument 'TARGET'"),
        (["requeue"], "give a TARGET, or --outdated"),
        (["demo", "--speed", "0"], "Invalid value for '--speed'"),
        (["simulate", "x", "--preset", "tny"], "no preset tny; did you mean tiny?"),
        (["ledger", "--night", "20160132"], "20160132 is no night; wanted is a UT date as 20160102"),
        (["requeue", "--outdated", "--night", "yesterday"], "yesterday is no night"),
        (["ledger", "--state", "redy"], "no state redy; did you mean ready?"),
        (["typewalk", "--tags", "DRAK"], "DRAK is no tag of a NIRI frame; did you mean DARK?"),
        (["dataselect", "a*.fits", "--xtags", "FLTA"], "FLTA is no tag of a NIRI frame; did you mean FLAT?"),
        (["dataselect", "absent*.fits"], "no file matches absent*.fits"),
        (["reduce", "absent*.fits"], "no file matches absent*.fits"),
        (["reduce", "a:b=1"], "a:b=1: no such file; is it meant for -p?"),
        (["reduce", "-p", "a:b=1", "c=2"], "no files"),
    ],
)
def test_wrong_usage_is_one_line_and_2(nirid, words, said):
    done = nirid(*words, code=2)
    assert done.out == ""
    assert done.err.startswith("nirid: ")
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_group_without_a_command_shows_its_help(nirid):
    assert "Keep processed calibrations" in "".join(nirid("caldb", code=2))


@pytest.mark.parametrize("command", [["reduce"], ["dataselect"], ["showd", "-d", "object"]])
def test_a_file_that_is_not_there_is_an_error_among_others_too(nirid, tmp_path, command):
    (tmp_path / "here.fits").write_bytes(b"")
    done = nirid(*command, "here.fits", "absent.fits", code=1)
    assert done.err == "nirid: absent.fits: no such file or directory\n"
    (tmp_path / "l.lis").write_text("here.fits\ngone.fits\nlost.fits\n")
    assert "gone.fits: no such file or directory (and 1 more)" in nirid(*command, "@l.lis", code=1).err
    with pytest.raises(click.UsageError, match=r"no file matches x\*"):
        existing(["here.fits", "x*"])
    with pytest.raises(NiridError, match="absent"):
        existing(["absent"])


def test_several_parameters_may_follow_one_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.fits").touch()
    words = ["@x.lis", "b:c=[1, 2]", "a=b.fits", "d=\n", "zero_point:std.fits"]
    assert sorted_out(words, True, True) == (
        ["@x.lis", "a=b.fits"],
        ["b:c=[1, 2]", "d=\n"],
        ["zero_point:std.fits"],
    )
    with pytest.raises(click.UsageError, match="meant for --user-cal"):
        sorted_out(words, True, False)


@pytest.mark.parametrize("said", ["20160102", "2016-01-02", "2016/01/02", " 2016.01.02 "])
def test_a_night_is_typed_as_people_write_dates(said):
    assert Night().convert(said, None, None) == "20160102"


@pytest.mark.parametrize(
    "said", ["00010101", "10000101", "19491231", "21000101", "99991231", "20160230", "２０１６０１０２"]
)
def test_a_night_that_cannot_have_been_is_refused_in_words(said):
    """Before and after it there would be no day to count from."""
    with pytest.raises(click.UsageError, match="is no night"):
        Night().convert(said, None, None)
    assert Night().convert("19500101", None, None) == "19500101"
    assert Night().convert("20991231", None, None) == "20991231"


def test_state_means_what_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "st").mkdir()
    (tmp_path / "ready").mkdir()
    assert state_of_a_file(["st", "ready"]) == (FileState.READY, "st")
    assert state_of_a_file(["./ready"]) == (None, "./ready")
    assert state_of_a_file([]) == (None, None)


def test_ledger_takes_the_folder_and_a_state(nirid):
    assert "else/where/nirid.db" in nirid("ledger", "--state", "else/where", "--state", "ready", code=1).err
    assert "first/nirid.db" in nirid("--state", "first", "ledger", "--state", "ready", code=1).err


@pytest.mark.parametrize("command", [["status"], ["run", "--drop", "d"], ["health"], ["backup", "b"]])
def test_a_state_folder_that_is_a_file_is_one_line(nirid, tmp_path, command):
    (tmp_path / "st").write_text("not a folder")
    for folder, said in (("st", "st is a file"), ("st/a/b", f"st/a/b: {tmp_path / 'st'} is a file")):
        done = nirid("--state", folder, *command, code=cli.BAD_CONFIG)
        assert done.out == ""
        assert done.err == f"nirid: state folder {tmp_path}/{said}, not a folder\n"
    assert (tmp_path / "st").read_text() == "not a folder"


def test_the_help_of_simulate_lists_the_presets(nirid):
    said = nirid("simulate", "--help").out
    assert all(f"\n  {name} " in said for name in PRESETS)
