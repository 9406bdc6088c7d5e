"""A tiny night, its products, and a folder to work in."""

import pytest

from pipeline import Reduce, cal_service, logutils
from pipeline.cal_service import LocalDB
from pipeline.simulate import simulate_night
from tests.integration.reduce.helpers import STATIC, frames


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "raw"
    simulate_night(folder, "tiny")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, night):
    """A folder with dark, flat and mask, and a store that has them."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder / "home"))
        patch.delenv("NIRIDRC", raising=False)
        patch.setattr(cal_service, "_loaded", None)  # whatever another test has loaded
        LocalDB("cal_manager.db").init()
        LocalDB("cal_manager.db").add_cal(night / STATIC)
        for files, recipe in (
            (frames(night, 423, 425), "_default"),
            ([*frames(night, 363, 368), *frames(night, 463, 465)], "makeProcessedBPM"),
            (frames(night, 363, 368), "_default"),
        ):
            Reduce(files=files, recipename=recipe).runr()
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NIRIDRC", raising=False)
    monkeypatch.setattr(cal_service, "_loaded", None)
    logutils.config()
    return tmp_path
