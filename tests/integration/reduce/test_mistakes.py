"""Mistakes are one line of our own, and leave nothing behind."""

import shutil

import pytest
from astropy.io import fits

from daemon.ledger.store import Ledger
from pipeline import Reduce
from pipeline.calibrations.stores import StoreError
from pipeline.errors import DamagedFile, FrameMismatch, NiridError, OverrideError
from pipeline.reduce import ReduceError
from pipeline.toolkit.dataset import CannotOpen
from tests.integration.reduce.helpers import DARK, STATIC, frames, science, written


def copy_as(work, night, instrument):
    path = work / "other" / "N20160102S0001.fits"
    path.parent.mkdir(exist_ok=True)
    shutil.copy(science(night)[0], path)
    with fits.open(path, mode="update") as file:
        file[0].header["INSTRUME"] = instrument
    return str(path)


MISTAKES = {
    "no files": (dict, ReduceError, "no files to reduce"),
    "none readable": (lambda n, w: {"files": ["absent.fits"]}, ReduceError, "absent.fits: no such file"),
    "two instruments": (
        lambda n, w: {"files": [*science(n), copy_as(w, n, "GNIRS")]},
        ReduceError,
        r"2 instruments: NIRI \(N20160102S0270.fits\) and GNIRS",
    ),
    "another instrument": (
        lambda n, w: {"files": [copy_as(w, n, "GNIRS")]},
        ReduceError,
        "is of GNIRS, and only NIRI is reduced",
    ),
    "a recipe that is none": (
        lambda n, w: {"files": frames(n, 423, 425), "recipename": "makeProcesedDark"},
        ReduceError,
        "no recipe makeProcesedDark; did you mean makeProcessedDark",
    ),
    "a recipe in a file that is none": (
        lambda n, w: {"files": frames(n, 423, 425), "recipename": "mine.dark"},
        ReduceError,
        "there is no file mine.py",
    ),
    "a frame without a recipe": (
        lambda n, w: {"files": [str(n / STATIC)]},
        ReduceError,
        "no recipe for bpm_.* whose tags are BPM CAL",
    ),
    "out of range": (
        lambda n, w: {"files": frames(n, 423, 425), "uparms": {"stackDarks:hsigma": -1}},
        OverrideError,
        "stackDarks:hsigma=-1: must be greater than 0",
    ),
    "a spelling mistake": (
        lambda n, w: {"files": frames(n, 423, 425), "uparms": [("stackDarks:hsgma", 3)]},
        OverrideError,
        "no such parameter; did you mean hsigma",
    ),
    "a step of another recipe": (
        lambda n, w: {"files": frames(n, 423, 425), "uparms": {"darkCorrect:dark": DARK}},
        OverrideError,
        "makeProcessedDark has no step darkCorrect",
    ),
    "what the recipe fixes": (
        lambda n, w: {"files": frames(n, 423, 425), "uparms": {"addVAR:read_noise": False}},
        OverrideError,
        "fixed to True by recipe makeProcessedDark",
    ),
    "a kind that is none": (
        lambda n, w: {"files": science(n), "ucals": {"processed_drak": DARK}},
        ReduceError,
        "no kind of calibration processed_drak; did you mean processed_dark",
    ),
    "a calibration that is not there": (
        lambda n, w: {"files": science(n), "ucals": {"processed_dark": "absent.fits"}},
        CannotOpen,
        "absent.fits: no such file",
    ),
    "a calibration of another kind": (
        lambda n, w: {"files": science(n), "ucals": {"processed_dark": str(n / STATIC)}},
        ReduceError,
        "is given as processed_dark, and is static_bpm",
    ),
    "a mode": (lambda n, w: {"files": science(n), "mode": "qq"}, ReduceError, "must be one of sq, ql, qa"),
    "a preset": (lambda n, w: {"files": science(n), "preset": "best"}, ReduceError, "one of nirid, dragons"),
    "frames that do not go together": (
        lambda n, w: {"files": [*frames(n, 423, 425), *frames(n, 463, 465)]},
        FrameMismatch,
        r"stackDarks: N20160103S0463.* has 1.001 s, wanted 20.002 s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_of_our_own_and_leaves_nothing(work, night, mistake):
    what, kind, why = MISTAKES[mistake]
    arguments = {} if what is dict else what(night, work)
    reduction = Reduce(**arguments)
    with pytest.raises(kind, match=why) as caught:
        reduction.runr()
    assert isinstance(caught.value, NiridError)
    assert "\n" not in str(caught.value)
    assert reduction.output_filenames is None
    assert written(work) <= {"other"}


def test_a_store_that_is_the_daemons_is_refused_first(work, night):
    (work / "state").mkdir()
    Ledger(work / "state" / "nirid.db").close()
    (work / "rc").write_text("[calibs]\ndatabases = state/nirid.db get store\n")
    with pytest.raises(StoreError, match="the daemon's database"):
        Reduce(files=frames(night, 423, 425), config_file="rc").runr()
    (work / "rc").write_text("[calibs]\ndatabases = absent.db get store\n")
    with pytest.raises(StoreError, match="no calibration database"):
        Reduce(files=frames(night, 423, 425), config_file="rc").runr()
    assert written(work) == {"state"}


@pytest.mark.parametrize("where", ["produce.verify_product", "files.preview.drawn", "files.disk.write_whole"])
def test_a_product_that_does_not_come_out_right_leaves_what_was_there(work, night, monkeypatch, where):
    (work / DARK).write_bytes(b"the one before")

    def broken(*args, **options):
        raise DamagedFile("not as it was written")

    monkeypatch.setattr(f"pipeline.{where}", broken)
    with pytest.raises(DamagedFile):
        Reduce(files=frames(night, 423, 425), preview=True, overwrite=True).runr()
    assert (work / DARK).read_bytes() == b"the one before"
    assert written(work) == {DARK}
