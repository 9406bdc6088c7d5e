"""A drop folder with a watcher."""

import pytest

from tests.integration.watcher.helpers import Drop


@pytest.fixture
def make(tmp_path):
    """Start a watched folder; all are stopped at the end."""
    drops = []

    def start(start: bool = True, **options) -> Drop:
        folder = tmp_path / f"drop{len(drops)}"
        folder.mkdir()
        drop = Drop(folder, **options)
        drops.append(drop)
        if start:
            drop.watcher.start()
        return drop

    yield start
    for drop in drops:
        drop.watcher.stop()
