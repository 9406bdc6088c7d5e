"""Daemons with a clock that the test moves."""

import pytest


@pytest.fixture
def daemons(apart):
    return apart
