"""A simulated night for several tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.simulate import simulate_night


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    simulate_night(folder, "tiny")
    return folder
