"""Daemons in the test's own process, closed when it ends."""

import pytest

from tests.night import Daemon


@pytest.fixture
def keep():
    """keep(daemon) is the daemon, which is closed at the end."""
    made = []

    def keep(daemon):
        made.append(daemon)
        return daemon

    yield keep
    for daemon in made:
        daemon.close()


@pytest.fixture
def daemons(tmp_path, keep):
    """Daemons at one place, one after the other."""
    return lambda **more: keep(Daemon(tmp_path, **more))


@pytest.fixture
def apart(tmp_path, keep):
    """Daemons that know nothing of each other."""

    def make(**more):
        folder = tmp_path / str(sum(1 for _ in tmp_path.iterdir()))
        folder.mkdir()
        return keep(Daemon(folder, **more))

    return make
