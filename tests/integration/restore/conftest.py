"""A night with its products, and a folder for it."""

import pytest

from pipeline.simulate import simulate_night
from tests.integration.restore.helpers import made


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
