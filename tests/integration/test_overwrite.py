"""No command replaces what it did not make: every writer against every kind of file in its way."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from daemon import cli
from daemon.ledger.store import Ledger
from pipeline.files import outputs
from pipeline.simulate import simulate_night

DARKS = [f"night/N20160102S{n:04d}.fits" for n in (423, 424, 425)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A night, the database of a daemon, a product and its picture."""
    top = tmp_path_factory.mktemp("made")
    simulate_night(top / "night", "tiny")
    (top / "state").mkdir()
    Ledger(top / "state" / "nirid.db").close()
    (top / "state" / "daemon.json").write_text("{}")
    with contextlib.chdir(top):
        assert run("reduce", *DARKS, "--preview") == 0
    return top


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    for name in ("night", "state"):
        shutil.copytree(made / name, tmp_path / name)
    shutil.copy(made / "N20160102S0423_dark.fits", tmp_path / "ours.fits")
    shutil.copy(made / "N20160102S0423_dark.png", tmp_path / "ours.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    """The exit code of a command."""
    try:
        cli.main(words)
    except SystemExit as end:
        return end.code or 0
    return 0


def text(path):
    path.write_text("my only copy")


def foreign(path):
    """A processed file of another program."""
    phu = fits.PrimaryHDU()
    phu.header.update({"INSTRUME": "NIRI", "OBSTYPE": "DARK", "PREPARE": "x", "PROCDARK": "x"})
    fits.HDUList([phu, fits.ImageHDU(np.zeros((4, 4), np.float32), name="SCI")]).writeto(path)


def raw(path):
    shutil.copy("night/N20160102S0270.fits", path)


def torn(path):
    path.write_bytes(Path("night/N20160102S0270.fits").read_bytes()[:9000])


def packed(path):
    path.write_bytes(b"\x1f\x8b" + bytes(100))


def live(path):
    shutil.copy("state/nirid.db", path)
    Path(f"{path}-wal").write_bytes(b"")


def copied(path):
    shutil.copy("state/nirid.db", path)


def other_database(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")


def folder(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def dangling(path):
    path.symlink_to("/nowhere/at/all")


def link_to_raw(path):
    path.symlink_to(Path("night/N20160102S0270.fits").absolute())


def picture(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))


NEVER = (raw, torn, packed, live, folder, pipe)
ALLOWED_WITH = (text, foreign, other_database, dangling, picture)
EVERYTHING = (*NEVER, *ALLOWED_WITH, copied, link_to_raw)

# name: (the words of the command, what it writes, what of its own it replaces, whether it has --overwrite)
WRITERS = {
    "reduce": (("reduce", *DARKS), "N20160102S0423_dark.fits", "ours.fits", True),
    "reduce --suffix": (("reduce", *DARKS, "--suffix", "_x"), "N20160102S0423_x.fits", "ours.fits", True),
    "reduce --out": (("reduce", *DARKS, "--out", "o"), "o/N20160102S0423_dark.fits", "ours.fits", True),
    "preview": (("reduce", *DARKS, "--preview"), "N20160102S0423_dark.png", "ours.png", True),
    "write_outputs": (
        ("reduce", *DARKS, "-p", "prepare:write_outputs=True"),
        "N20160102S0424_prepared.fits",
        "ours.fits",
        True,
    ),
    "dataselect": (("dataselect", *DARKS, "-o", "darks.lis"), "darks.lis", None, True),
    "backup": (("--state", "state", "backup", "b.db"), "b.db", "state/nirid.db", True),
    "replay": (
        ("replay", "night", "--into", "drop", "--speed", "0"),
        "drop/N20160102S0424.fits",
        None,
        False,
    ),
    "simulate": (("simulate", "again", "--preset", "tiny"), "again/N20160102S0424.fits", None, False),
    "truth": (("simulate", "again", "--preset", "tiny"), "again/truth.json", None, False),
    "demo --picture": (("demo", "--picture", "p.png", "--folder", "f"), "p.png", None, False),
}


def contents(top):
    """Every file but what programs keep beside a database."""
    return {
        path: (path.read_bytes() if path.is_file() and not path.is_symlink() else os.lstat(path).st_mode)
        for path in sorted(top.rglob("*"))
        if not path.name.endswith(("-shm", ".lock"))
    }


@pytest.mark.parametrize("victim", EVERYTHING, ids=lambda f: f.__name__)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_in_the_way_is_left_as_it_is(place, writer, victim, capsys):
    words, target, _, may_overwrite = WRITERS[writer]
    if (writer, victim) == ("backup", copied):
        pytest.skip("that is what it replaces")
    path = place / target
    path.parent.mkdir(exist_ok=True)
    victim(path)
    before = contents(place)
    assert run(*words) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert path.name in told
    assert told.startswith("nirid: ")
    after = contents(place)
    assert {p: after[p] for p in before} == before
    if may_overwrite and victim in NEVER:
        assert run(*words, "--overwrite") == 1
        assert {p: v for p, v in contents(place).items() if p in before} == before


@pytest.mark.parametrize("victim", ALLOWED_WITH, ids=lambda f: f.__name__)
@pytest.mark.parametrize("writer", [name for name, values in WRITERS.items() if values[3]])
def test_overwrite_replaces_what_is_nobodys_raw_frame(place, writer, victim):
    words, target, _, _ = WRITERS[writer]
    path = place / target
    path.parent.mkdir(exist_ok=True)
    victim(path)
    before = os.lstat(path).st_ino
    assert run(*words, "--overwrite") == 0
    assert os.lstat(path).st_ino != before


@pytest.mark.parametrize("writer", [name for name, values in WRITERS.items() if values[3]])
def test_its_own_is_replaced_as_always(place, writer):
    words, target, own, _ = WRITERS[writer]
    if own:
        (place / target).parent.mkdir(exist_ok=True)
        shutil.copy(own, place / target)
    assert run(*words) == 0
    assert run(*words) == 0


def test_an_input_is_never_replaced_however_it_is_called(place, monkeypatch):
    """An empty suffix, and raw frames whose names end in the suffix of the recipe."""
    monkeypatch.chdir("night")
    for name in DARKS:
        os.link(Path(name).name, Path(name).name.replace(".fits", "_dark.fits"))
    before = contents(place)
    plain = [Path(name).name for name in DARKS]
    named = [name.replace(".fits", "_dark.fits") for name in plain]
    assert run("reduce", *plain, "--suffix", "") == 1
    assert run("reduce", *plain, "--suffix", "", "--overwrite") == 1
    assert run("reduce", *named) == 1
    assert run("reduce", *named, "--overwrite") == 1
    assert run("dataselect", "@mine", "-o", "mine") == 2  # there is none
    Path("mine").write_text("\n".join(plain))
    assert run("dataselect", "@mine", "-o", "mine", "--overwrite") == 1
    assert run("dataselect", *plain, "-o", plain[0], "--overwrite") == 1
    after = contents(place)
    assert {p: after[p] for p in before} == before


def test_the_live_database_is_never_the_target_of_its_own_copy(place):
    state = place / "state"
    before = (state / "nirid.db").read_bytes()
    os.link(state / "nirid.db", place / "linked.db")
    for target in ("state/nirid.db", "state/nirid.db-wal", "state/nirid.db-shm", "linked.db"):
        assert run("--state", "state", "backup", target, "--overwrite") in (0, 1)
        assert (state / "nirid.db").read_bytes() == before
    assert run("--state", "state", "backup", "state/nirid.db") == 1


def test_no_text_is_added_to_what_is_no_log(place):
    before = contents(place)
    for name in (DARKS[0], "state/nirid.db", "ours.png"):
        assert run("reduce", *DARKS, "--logfile", name) == 1
    after = contents(place)
    assert {p: after[p] for p in before} == before


def test_a_store_is_made_only_of_a_store(place):
    for name in (DARKS[0], "state/nirid.db"):
        before = Path(name).read_bytes()
        assert run("caldb", "init", "-w", "-d", name) == 1
        assert Path(name).read_bytes() == before


def test_a_simulated_night_once_more_changes_nothing_another_is_refused(place):
    before = contents(place)
    assert run("simulate", "night", "--preset", "tiny") == 0
    assert contents(place) == before
    assert run("simulate", "night", "--preset", "tiny", "--seed", "7") == 1
    assert contents(place) == before


def test_a_replay_goes_on_where_it_was_cut_short(place):
    (place / "drop").mkdir()
    shutil.copy(DARKS[0], "drop")
    kept = (place / "drop" / "N20160102S0423.fits").stat().st_ino
    assert run("replay", "night", "--into", "drop", "--speed", "0") == 0
    assert (place / "drop" / "N20160102S0423.fits").stat().st_ino == kept


def test_the_rule_names_the_file(tmp_path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(outputs.WouldOverwrite, match="x is there already"):
        outputs.check(tmp_path / "x", "product")
    outputs.check(tmp_path / "free" / "y", "product")
