"""Who may restore, and from one schema to the next and back."""

import os
import shutil
import subprocess
import tempfile
import traceback
from pathlib import Path

import pytest

from daemon import app, owner, run
from daemon.cli import main
from daemon.ledger import copy as ledger_copy
from daemon.ledger import questions, upgrade
from daemon.ledger.store import Ledger, connect_readonly
from daemon.ledger.upgrade import STEPS, VERSION
from daemon.restore import restore
from pipeline.errors import NiridError
from tests.integration.restore.helpers import DARKS, contents, decide, made, states


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
