"""A copy of the database put back: checked, with all that came after it, and nothing that is there is lost.
Up to a newer schema, and down again."""

import os
import shutil
import sqlite3
import subprocess
import tempfile
import traceback
from contextlib import closing
from pathlib import Path

import pytest

from daemon import app, instance, owner, run
from daemon.cli import main
from daemon.config import load
from daemon.ledger import contents as ledger_contents
from daemon.ledger import copy as ledger_copy
from daemon.ledger import questions, upgrade
from daemon.ledger.store import Ledger, connect_readonly
from daemon.ledger.upgrade import STEPS, VERSION
from daemon.people.requests import submit
from daemon.restore import restore
from daemon.upkeep import backup
from pipeline.calibrations.caldb import open_store
from pipeline.errors import ConfigError, NiridError
from pipeline.simulate import simulate_night

DARKS = [f"N20160102S{n:04d}.fits" for n in (423, 424, 425)]


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    simulate_night(folder, "tiny")
    return folder


@pytest.fixture
def place(tmp_path, night, monkeypatch):
    """The configuration of a service that knows two raw frames, with a copy of its database in copy.db."""
    monkeypatch.chdir(tmp_path)
    return made(tmp_path, night)


def made(folder, night):
    drop = folder / "drop"
    drop.mkdir()
    for name in DARKS[:2]:
        shutil.copy(night / name, drop)
    settings = load.load(
        None, {n: str(folder / n.split(".")[0]) for n in ("state.folder", "products.folder")}
    )
    settings = load.load(None, {"watch.folders": [str(drop)], **given(settings)})
    app.rebuild_offline(settings)
    backup.backup(settings.database, folder / "copy.db")
    return settings


def given(settings):
    return {"state.folder": str(settings.state_folder), "products.folder": str(settings.product_folder)}


def decide(settings, *decisions):
    for action, target in decisions:
        submit(settings.state_folder, {"action": action, "target": target, "reason": "looked again"})
    daemon = app.build(settings, batch=True)
    daemon.main_loop.requests.apply()
    daemon.close()


def states(settings):
    with closing(connect_readonly(settings.database)) as db:
        return {Path(row["paths"][0]).name: row["state"] for row in ledger_contents.everything(db)}


def contents(folder):
    return {
        p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in ("lock", "daemon.json")
    }


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


def folder(path):
    path.unlink()
    path.mkdir()


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


# -- ownership -------------------------------------------------------------------------------


@pytest.fixture
def owned(night, monkeypatch, tmp_path):
    """As `place`, of an account of its own, where that can reach it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another account")
    folder = Path(tempfile.mkdtemp(prefix="nirid-test-"))
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # of root, closed to the account
    monkeypatch.setattr(
        owner, "__file__", shutil.copy(owner.__file__, folder)
    )  # this one may be root's alone
    settings = made(folder, night)
    (folder / "copy.db").chmod(0o600)
    for path in (settings.state_folder, settings.product_folder):
        subprocess.run(["chown", "-R", "54321:54321", path], check=True)
    yield settings
    shutil.rmtree(folder)


def in_a_child(work):
    """Run it in a process of its own, which may lose its rights; answers with the error, "" for none."""
    read_end, write_end = os.pipe()
    if (child := os.fork()) == 0:
        said = ""
        try:
            work()
        except NiridError as error:
            said = f"{type(error).__name__}: {error}"
        except BaseException:
            said = traceback.format_exc()
        os.write(write_end, said.encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with open(read_end) as file:
        return file.read()


@pytest.mark.parametrize("reached", [True, False])
def test_what_root_restores_belongs_to_the_service(owned, reached):
    """Also where its account cannot go, as in the home folder of root."""
    copy = owned.state_folder.parent / "copy.db"  # which only root can read
    owned.state_folder.parent.chmod(0o755 if reached else 0o700)

    def still_root(work):
        work()
        if (os.geteuid() == 0) is reached:
            raise NiridError(f"goes on as {os.geteuid()}")

    for work in (lambda: restore(owned, copy), lambda: app.rebuild_offline(owned)):
        assert in_a_child(lambda work=work: still_root(work)) == ""
        for top in (owned.state_folder, owned.product_folder):
            assert [p for p in (top, *top.rglob("*")) if p.lstat().st_uid != 54321] == []
    assert copy.stat().st_uid == 0
    assert set(states(owned)) == set(DARKS[:2])


def test_who_may_not_read_is_told_who_may(owned):
    owned.state_folder.chmod(0o750)

    def by_another():
        os.setgroups([])
        os.setuid(54322)
        try:
            connect_readonly(owned.database)
        except PermissionError as error:
            raise NiridError(owner.in_words(error)) from None

    assert in_a_child(by_another) == (
        f"NiridError: {owned.database}: permission denied: {owned.state_folder} is for uid 54321 "
        "and members of the group 54321 only (usermod -aG 54321 NAME)"
    )


def test_who_may_not_write_is_told_and_changes_nothing(owned):
    copy = owned.state_folder.parent / "copy.db"
    copy.chmod(0o644)
    owned.state_folder.chmod(0o755)
    before = contents(owned.state_folder)

    def by_another(work):
        os.setgroups([])
        os.setgid(54322)
        os.setuid(54322)
        work()

    for work in (lambda: restore(owned, copy), lambda: app.rebuild_offline(owned), lambda: run.serve(owned)):
        said = in_a_child(lambda work=work: by_another(work))
        assert said.startswith(
            f"ConfigError: {owned.state_folder} belongs to uid 54321, and uid 54322 may not"
        )
        assert "\n" not in said
    assert contents(owned.state_folder) == before


def test_a_database_that_root_has_copied_there_is_told_at_the_start(owned):
    os.chown(owned.database, 0, 0)
    owned.database.chmod(0o600)

    def as_the_service():
        os.setgroups([])
        os.setgid(54321)
        os.setuid(54321)
        run.serve(owned)

    said = in_a_child(as_the_service)
    assert said == (
        f"ConfigError: {owned.database} belongs to root, and uid 54321 may not write it: "
        f"chown 54321 {owned.database}"
    )


# -- from one schema to the next, and back ---------------------------------------------------


@pytest.fixture
def next_release(monkeypatch):
    """Whatever is called within is the program of the next release, with a column more."""

    class Release:
        def __enter__(self):
            more = f"ALTER TABLE job ADD COLUMN colour{VERSION} TEXT NOT NULL DEFAULT ''"
            self.patch = pytest.MonkeyPatch()
            self.patch.setattr(upgrade, "STEPS", {**STEPS, VERSION: (more,)})
            self.patch.setattr(upgrade, "VERSION", VERSION + 1)

        def __exit__(self, *_):
            self.patch.undo()

    return Release()


def test_up_and_down_again(place, tmp_path, night, next_release, capsys):
    old, kept = upgrade.versions(place.database), place.state_folder / f"nirid.db.schema-{VERSION}"
    assert not kept.exists()  # nothing was older than it should be
    with next_release:
        decide(place, ("reject", DARKS[0]))
        assert upgrade.versions(place.database) == {**old, "ledger": old["ledger"] + 1}
    assert upgrade.versions(kept) == old
    upgraded = place.database.read_bytes()
    tree = sorted(p.name for p in place.state_folder.iterdir())
    words = [
        ["run", "--until-idle"],
        ["run"],
        ["status"],
        ["health"],
        ["audit"],
        ["ledger"],
        ["explain", "job:1"],
    ]
    for command in words:
        folders = ["--drop", "drop", "--products", "products"] if command[0] == "run" else []
        with pytest.raises(SystemExit) as end:
            main(["--state", str(place.state_folder), *command, *folders])
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nirid:")]
        assert (end.value.code, len(said)) == (78, 1), (command, said)
        assert f"schema {old['ledger'] + 1}; this program knows {old['ledger']}" in said[0]
        assert f"nirid restore {kept}" in said[0]
    assert place.database.read_bytes() == upgraded
    assert sorted(p.name for p in place.state_folder.iterdir()) == tree
    answer = restore(place, kept)
    assert upgrade.versions(place.database) == old
    assert Path(answer["kept"]).read_bytes() == upgraded
    assert states(place) == {DARKS[0]: "excluded", DARKS[1]: "ready"}  # decided with the newer release
    with next_release:
        decide(place, ("accept", DARKS[0]))
        assert states(place)[DARKS[0]] == "ready"


def test_without_room_for_the_copy_nothing_is_brought_up_to_date(place, next_release, monkeypatch):
    before = place.database.read_bytes()

    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(ledger_copy, "copy_whole", full)
    with next_release, pytest.raises(NiridError, match=r"not brought up to schema \d+: .*No space left"):
        Ledger(place.database)
    assert place.database.read_bytes() == before


def test_a_reader_of_the_next_release_says_what_is_to_be_done(place, next_release, monkeypatch, capsys):
    def new(db, *args, **more):
        return db.execute("SELECT colour FROM job").fetchall()

    monkeypatch.setattr(questions, "counts", new)
    with next_release, pytest.raises(SystemExit) as end:
        main(["--state", str(place.state_folder), "status"])
    assert end.value.code == 1
    assert (
        "of an older schema (no such column: colour); the next start of the daemon" in capsys.readouterr().err
    )
