"""A small night with its calibrations, and a folder to work in."""

import pytest

from pipeline import Reduce, cal_service, logutils
from pipeline.cal_service import LocalDB
from pipeline.simulate import simulate_night
from tests.integration.inputs.helpers import raw


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """raw: a small night; cals: a store with its darks of 20 s and 1 s, its flat and its mask."""
    top = tmp_path_factory.mktemp("top")
    simulate_night(top / "raw", "tiny")
    (top / "cals").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top / "cals")
        patch.delenv("NIRIDRC", raising=False)
        patch.setattr(cal_service, "_loaded", None)
        LocalDB("cal_manager.db").init()
        for numbers, recipe in (
            (range(423, 426), "_default"),
            (range(463, 466), "_default"),
            ((*range(363, 369), *range(463, 466)), "makeProcessedBPM"),
            (range(363, 369), "_default"),
        ):
            Reduce(files=raw(top, numbers), recipename=recipe).runr()
    return top


@pytest.fixture
def work(top, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cal_service, "_loaded", None)
    (tmp_path / "rc").write_text(f"[calibs]\ndatabases = {top / 'cals' / 'cal_manager.db'} get\n")
    monkeypatch.setenv("NIRIDRC", str(tmp_path / "rc"))
    logutils.config()
    return tmp_path
