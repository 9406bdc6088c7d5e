"""One daemon to a state folder: the lock, and what is known of who holds it."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

from daemon import instance
from daemon.config.options import Config, Products, State, Watch
from daemon.instance import NOTE, AlreadyRunning, only_one, running, with_last_run


@pytest.fixture
def settings(tmp_path):
    return Config(
        watch=Watch(folders=(str(tmp_path / "drop"),)),
        products=Products(str(tmp_path / "products")),
        state=State(str(tmp_path / "state")),
    )


def test_the_second_one_is_told_who_is_there(settings):
    with only_one(settings):
        assert running(settings)["pid"] == os.getpid()
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as caught, only_one(settings):
            pass
        assert caught.value.exit_code == 75
    assert running(settings) is None
    with only_one(settings):
        pass


def test_a_lock_ends_with_its_process_however_it_ends(settings, tmp_path):
    program = (
        "import os, sys\nfrom daemon.config.load import Config, State\nfrom daemon.instance import only_one\n"
        f"with only_one(Config(state=State({str(tmp_path / 'state')!r}))):\n    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert running(settings) is None, "the number of a dead process is taken for a daemon"
    with only_one(settings):
        pass


def test_a_number_that_belongs_to_somebody_else_by_now_is_not_a_daemon(settings):
    with only_one(settings):
        note = settings.state_folder / NOTE
        held = json.loads(note.read_text())
        note.write_text(json.dumps(held | {"pid": 1}))  # as from another container
        assert running(settings) is not None
    note.write_text(json.dumps(held))  # our own number, and nobody holds the lock
    assert running(settings) is None


def test_a_full_disk_keeps_nobody_from_starting_or_ending(settings, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(instance, "_write", full)
    with only_one(settings), pytest.raises(AlreadyRunning), only_one(settings):
        pass


def test_a_state_folder_that_is_removed_or_replaced_is_held_no_longer(settings):
    folder = settings.state_folder
    with only_one(settings) as held:
        assert held()
        folder.rename(folder.with_name("aside"))
        assert not held()
        with only_one(settings) as other:
            assert other()
            assert not held()
        shutil.rmtree(folder)
        folder.with_name("aside").rename(folder)
        assert held()


def test_commands_that_look_use_the_folders_of_the_last_run(settings, tmp_path):
    with only_one(settings):
        pass
    bare = Config(state=settings.state)
    assert with_last_run(bare).drop_folders == settings.drop_folders
    assert with_last_run(bare).product_folder == settings.product_folder
    given = Config(state=settings.state, origins={"watch.folders": "command line"})
    assert with_last_run(given).watch == Watch()


def test_state_is_for_the_group_not_for_all(settings):
    with only_one(settings):
        assert settings.state_folder.stat().st_mode & 0o007 == 0
