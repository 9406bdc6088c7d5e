"""Fixtures that several folders of tests use."""

import os
from pathlib import Path

import pytest

from pipeline import cal_service

os.environ.pop("COLUMNS", None)  # what runs tests side by side sets it: output is as wide as in a file
os.environ["NIRID_ROOT"] = "none"  # a service of this machine is nothing to the tests, nor to what they start


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real headers and reference products beside the repository; skips without it."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder `shared` with real headers and reference data is not here")
    return folder


def _no_configuration():
    """Whatever databases an earlier test has loaded, this one begins without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cal_service, "_loaded", None)
        patch.delenv("NIRIDRC", raising=False)
        yield


# Twice: fixtures of a module are made before those of its first test.
_for_modules = pytest.fixture(scope="module", autouse=True)(_no_configuration)
_for_tests = pytest.fixture(autouse=True)(_no_configuration)
