"""A ledger of its own for each test, and a daemon on it."""

import pytest

from daemon.ledger.store import Ledger
from tests.night import Daemon


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "nirid.db")
    yield made
    made.close()


@pytest.fixture
def daemon(tmp_path):
    made = Daemon(tmp_path)
    yield made
    made.close()
