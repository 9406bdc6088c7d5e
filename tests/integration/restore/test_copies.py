"""A copy of the database put back: what it learns, and what is refused."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from daemon import instance
from daemon.cli import main
from daemon.restore import restore
from pipeline.calibrations.caldb import open_store
from pipeline.errors import ConfigError, NiridError
from tests.integration.restore.helpers import DARKS, contents, decide, folder, states


def test_a_copy_learns_what_came_after_it(place, tmp_path, night):
    decide(place, ("reject", DARKS[0]), ("accept", DARKS[0]), ("reject", DARKS[1]))
    shutil.copy(night / DARKS[2], place.drop_folders[0])
    (tmp_path / "state/nirid.db-wal").write_bytes(b"")  # as a kill leaves it
    (tmp_path / "state/.nirid.db.1.restored").write_bytes(b"")
    was = place.database.read_bytes()
    answer = restore(place, tmp_path / "copy.db")
    assert states(place) == {DARKS[0]: "ready", DARKS[1]: "excluded", DARKS[2]: "ready"}
    assert Path(answer["kept"]).read_bytes() == was
    assert answer["decisions"] == 4  # an accept is of the exposure and of the file
    assert answer["audit"]["unaccounted"] == []
    again = restore(place, Path(answer["kept"]))
    assert again["kept"] != answer["kept"]
    assert states(place)[DARKS[1]] == "excluded"
    assert not list(place.state_folder.glob(".nirid.db.*"))


def test_the_command_says_what_it_did(place, tmp_path, capsys):
    decide(place, ("reject", DARKS[0]))
    shutil.copy(place.drop_folders[0] / DARKS[0], place.drop_folders[0] / "copy.fits")
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:  # the folders are those of the last run
        main(["--state", str(place.state_folder), "restore", "copy.db"])
    said = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert said[0] == f"copy.db is in the place of {place.database}"
    assert said[1].startswith(f"the database that was there is {place.database}.")
    assert said[2:] == [
        "taken in: 1 files, 0 products, 1 decisions",
        "every file is in one known state, every product is whole",
    ]
    assert states(place)[DARKS[0]] == "excluded"


def test_onto_a_new_disk(place, tmp_path):
    shutil.rmtree(place.state_folder)
    assert restore(place, tmp_path / "copy.db")["kept"] is None
    assert set(states(place)) == set(DARKS[:2])


def nothing(path):
    path.unlink()


def text(path):
    path.write_text("not a database\n" * 1000)


def empty(path):
    path.write_bytes(b"")


def torn(path):
    path.write_bytes(path.read_bytes()[:30_000])


def store(path):
    path.unlink()
    open_store(path).db.close()


def cell(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE content SET tags = 'no JSON'")
        db.commit()


def newer(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE schema SET version = 99 WHERE component = 'ledger'")
        db.commit()


@pytest.mark.parametrize(
    ("harm", "said", "kind"),
    [
        (nothing, "no such file", NiridError),
        (folder, "no plain file", NiridError),
        (text, "no copy of a database: file is not a database", NiridError),
        (empty, "no copy of a daemon's database", NiridError),
        (torn, "malformed", NiridError),
        (store, "no copy of a daemon's database", NiridError),
        (cell, "content.tags of row 1", NiridError),
        (newer, "ledger is of schema 99; this program knows", ConfigError),
    ],
)
def test_what_is_no_whole_copy_changes_nothing(place, tmp_path, harm, said, kind):
    harm(copy := tmp_path / "copy.db")
    before = contents(place.state_folder)
    with pytest.raises(kind, match=said) as error:
        restore(place, copy)
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(place.state_folder) == before


def test_the_database_is_no_copy_of_itself(place):
    before = contents(place.state_folder)
    with pytest.raises(NiridError, match="is the database itself"):
        restore(place, place.database)
    assert contents(place.state_folder) == before


def test_nothing_is_changed_while_a_daemon_runs(place, tmp_path, capsys):
    before = contents(place.state_folder)
    with instance.only_one(place), pytest.raises(SystemExit) as end:
        main(["--state", str(place.state_folder), "restore", "copy.db"])
    assert end.value.code == 75
    assert capsys.readouterr().err == f"nirid: a daemon runs on {place.state_folder}: stop it first\n"
    assert contents(place.state_folder) == before


@pytest.mark.parametrize("name", ["drop", "products"])
def test_nothing_is_changed_without_the_folders(place, tmp_path, name):
    shutil.move(tmp_path / name, tmp_path / "gone")
    before = contents(place.state_folder)
    with pytest.raises(NiridError, match=f"{name}: no such {name} folder"):
        restore(place, tmp_path / "copy.db")
    assert contents(place.state_folder) == before
