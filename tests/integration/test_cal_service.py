"""The calibration store of a person: configuration, adding, finding, and what is refused and why."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from daemon.ledger.store import Ledger
from pipeline import cal_service, logutils
from pipeline.association import CalKind, Found, Missing
from pipeline.cal_service import LocalDB, NotACalibration
from pipeline.calibrations import stores
from pipeline.calibrations.stores import StoreError, find, store_in_all
from pipeline.errors import ConfigError, NiridError
from pipeline.toolkit.dataset import Dataset
from tests.fitsfiles import DARK, frame_bytes, noise

ROOT = Path(__file__).parents[2]
PROCESSED = {**DARK, "PREPARE": "2016-01-02T07:00:00", "GEM-TLM": "2016-01-02T07:00:00", "PROCDARK": "x"}
MASK = {
    "INSTRUME": "NIRI", "OBSTYPE": "BPM", "OBJECT": "BPM", "BPMASK": "x", "DATE-OBS": "2001-03-17",
    "UT": "00:00:00", "RAWPIREQ": "YES", "RAWGEMQA": "USABLE",
}  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory and home, and no configuration left by another test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NIRIDRC", raising=False)
    monkeypatch.setattr(cal_service, "_loaded", None)


def write(path, cards, seed=0):
    pixels = np.full((64, 64), seed, "i2") if "BPMASK" in cards else noise(seed=seed)
    path.write_bytes(frame_bytes(cards, pixels))
    return str(path)


@pytest.fixture
def dark(tmp_path):
    return write(tmp_path / "N20160102S0423_dark.fits", PROCESSED)


@pytest.fixture
def raw(tmp_path):
    return write(tmp_path / "N20160102S0270.fits", {**DARK, "OBSTYPE": "OBJECT", "OBSCLASS": "science"})


@pytest.fixture
def caldb():
    db = cal_service.set_local_database()
    db.init("w")
    return db


def test_the_tutorials_lines(caldb, dark, raw, tmp_path):
    assert (tmp_path / "cal_manager.db").exists()
    caldb.add_cal(dark)
    assert list(caldb.list_files()) == [("N20160102S0423_dark.fits", str(tmp_path))]
    assert caldb.get_cal(raw, "processed_dark") == dark
    assert caldb.get_calibrations([raw, raw], "processed_dark") == [dark, dark]
    assert caldb.get_cal(raw, "processed_flat") is None
    with pytest.raises(StoreError, match="is not in"):  # what was named is not there, and nothing else goes
        caldb.remove_cal("anywhere/N20160102S0423_dark.fits")
    caldb.remove_cal("N20160102S0423_dark.fits")
    assert list(caldb.list_files()) == []
    assert os.path.exists(dark)


def test_init_empties_only_when_told(caldb, dark):
    caldb.add_cal(dark)
    with pytest.raises(StoreError, match="exists already"):
        caldb.init()
    caldb.init(wipe=True)
    assert list(caldb.list_files()) == []


def test_only_what_was_named_is_removed(caldb, dark, tmp_path):
    paths = [dark]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(shutil.copy(dark, tmp_path / folder))
        caldb.add_cal(paths[-1])
    (tmp_path / "c").mkdir()
    caldb.add_cal(paths[0])
    with (
        contextlib.chdir(tmp_path / "c"),
        pytest.raises(StoreError, match=r"is 3 calibrations: .*by its path"),
    ):
        caldb.remove_cal("N20160102S0423_dark.fits")
    assert len(list(caldb.list_files())) == 3
    caldb.remove_cal(paths[1])
    assert {file.path for file in caldb.list_files()} == {str(tmp_path), str(tmp_path / "b")}
    with contextlib.chdir(tmp_path / "b"):
        caldb.remove_cal("N20160102S0423_dark.fits")
    assert [file.path for file in caldb.list_files()] == [str(tmp_path)]


def test_adding_twice_is_once_and_a_relative_path_is_the_same_file(caldb, dark):
    caldb.add_cal(dark)
    caldb.add_cal("N20160102S0423_dark.fits")
    assert len(list(caldb.list_files())) == 1


@pytest.mark.parametrize("call", ["add_cal", "remove_cal", "list_files", "get_cal"])
def test_a_store_that_does_not_exist_says_how_to_make_it(call, dark, tmp_path):
    db = LocalDB(tmp_path / "absent.db")
    arguments = {"list_files": (), "get_cal": (dark, "processed_dark")}.get(call, (dark,))
    with pytest.raises(StoreError, match=r"no calibration database .*absent\.db; `nirid caldb init`"):
        getattr(db, call)(*arguments)
    assert not (tmp_path / "absent.db").exists()


@pytest.mark.parametrize(
    ("cards", "why"),
    [
        (DARK, "it is a raw DARK; only processed calibrations"),
        ({**DARK, "INSTRUME": "GMOS-N"}, "it is of GMOS-N, not of NIRI"),
        ({**PROCESSED, "OBSTYPE": "OBJECT", "PROCSCI": "sq"}, "a processed science image, not a calibration"),
        ({**PROCESSED, "FILTER3": "Kgrism_G5204", "OBSTYPE": "FLAT"}, "spectroscopic"),
        ({**DARK, "PREPARE": "x", "GEM-TLM": "x"}, "a DARK processed in part"),
        ({**PROCESSED, "RAWGEMQA": "BAD"}, "its QA state is Fail"),
        ({**PROCESSED, "DATE-OBS": "", "UT": ""}, "no time of observation"),
    ],
)
def test_nothing_is_refused_in_silence(caldb, tmp_path, cards, why):
    path = write(tmp_path / "odd.fits", cards)
    with pytest.raises(NotACalibration, match=why) as caught:
        caldb.add_cal(path)
    assert "odd.fits" in str(caught.value)
    assert isinstance(caught.value, NiridError)
    assert list(caldb.list_files()) == []


def test_what_is_no_file_is_refused_by_name(caldb, tmp_path):
    (tmp_path / "note.fits").write_text("a note")
    for name in ("note.fits", "absent.fits"):
        with pytest.raises(NotACalibration, match=name):
            caldb.add_cal(name)


def test_kinds_of_masks(caldb, tmp_path, raw):
    static = write(tmp_path / "bpm_20010317_niri_niri_11_full_1amp.fits", MASK)
    made = write(tmp_path / "N20160102S0373_bpm.fits", {**PROCESSED, "OBSTYPE": "FLAT", "BPMASK": "x"})
    assert caldb.add_cal(static).kind is CalKind.STATIC_BPM
    assert caldb.add_cal(made).kind is CalKind.MADE_BPM  # before FLAT, whose tag it carries too
    assert caldb.get_cal(raw, "processed_bpm") == made
    caldb.remove_cal(made)
    assert caldb.get_cal(raw, "processed_bpm") == static
    with pytest.raises(StoreError, match="did you mean processed_dark"):
        caldb.get_cal(raw, "procesed_dark")


def test_what_is_called_a_mask_and_is_none_is_not_added(caldb, tmp_path):
    path = tmp_path / "mine_bpm.fits"
    for pixels in (
        np.full((64, 64), 65536, "i4"),
        np.full((64, 64), 0.5, "f4"),
        np.full((64, 64), np.nan, "f4"),
    ):
        path.write_bytes(frame_bytes(MASK, pixels))
        with pytest.raises(
            NotACalibration, match=r"not added: .*: 4096 values of a mask are no 16 bits, such as"
        ):
            caldb.add_cal(str(path))


def test_add_directory_tells_what_it_left_out(caldb, dark, raw, tmp_path, capsys):
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "N20160103S0001_dark.fits", PROCESSED, seed=1)
    logutils.config()
    assert len(caldb.add_directory(tmp_path)) == 1
    assert "N20160102S0270.fits was not added" in capsys.readouterr().err
    assert len(caldb.add_directory(tmp_path, walk=True)) == 2


def test_removing_what_is_not_there_suggests(caldb, dark):
    caldb.add_cal(dark)
    with pytest.raises(StoreError, match=r"is not in .*; did you mean N20160102S0423_dark.fits"):
        caldb.remove_cal("N20160102S0432_dark.fits")


def test_a_calibration_that_changed_or_went_is_passed_over(caldb, dark, raw, tmp_path, capsys):
    other = write(tmp_path / "N20160104S0001_dark.fits", {**PROCESSED, "DATE-OBS": "2016-01-04"}, seed=2)
    caldb.add_cal(dark)
    caldb.add_cal(other)
    assert caldb.get_cal(raw, "processed_dark") == dark
    write(tmp_path / "N20160102S0423_dark.fits", PROCESSED, seed=3)
    logutils.config()
    assert caldb.get_cal(raw, "processed_dark") == other
    assert "has changed since it was registered" in capsys.readouterr().err
    os.unlink(other)
    assert caldb.get_cal(raw, "processed_dark") is None
    assert "cannot be read" in capsys.readouterr().err


# --- configuration ------------------------------------------------------------------------------------
def config(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_where_the_configuration_is_found(tmp_path, monkeypatch):
    default = stores.read_config()
    assert [(d.path, d.get, d.store, d.named) for d in default] == [
        (tmp_path / "cal_manager.db", True, True, False)
    ]
    home = tmp_path / "home" / ".nirid" / "nirirc"
    for place in (home, tmp_path / "nirirc", tmp_path / "other", tmp_path / "given"):
        config(place, f"[calibs]\ndatabases = {place}.db get store\n")
        if place.name == "other":
            monkeypatch.setenv("NIRIDRC", str(place))
        given = place if place.name == "given" else None
        assert stores.read_config(given)[0].path == place.with_name(f"{place.name}.db")


def test_flags(tmp_path):
    (tmp_path / "folder").mkdir()
    file = config(
        tmp_path / "rc",
        "[calibs]\n# mine first\ndatabases = ~/cal.db get store\n    folder\n  new/ store  # only\n",
    )
    assert [(d.path, d.get, d.store) for d in stores.read_config(file)] == [
        (tmp_path / "home" / "cal.db", True, True),
        (tmp_path / "folder" / "cal_manager.db", True, False),
        (tmp_path / "new" / "cal_manager.db", False, True),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[calibs]\ndatabases = x.db get stor", "stor must be get or store; did you mean store"),
        ("[calib]\ndatabases = x.db", "no section"),
        ("[calibs]\n", "has no line such as: databases"),
        ("databases = x.db", "no section headers"),
        ("[calibs]\ndatabases = https://archive.example get", "only databases on this machine"),
        (None, "No such file"),
    ],
)
def test_a_bad_configuration_is_one_line(tmp_path, text, why):
    file = tmp_path / "rc"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=why) as caught:
        cal_service.set_local_database(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_which_of_several_is_meant(tmp_path):
    file = config(tmp_path / "rc", "[calibs]\ndatabases = a.db get\n    b.db get store\n")
    assert cal_service.set_local_database(file).path == tmp_path / "b.db"
    assert [d.path.name for d in cal_service.databases()] == ["a.db", "b.db"]  # Reduce uses these from now on
    file.write_text("[calibs]\ndatabases = a.db get store\n    b.db get store\n")
    with pytest.raises(ConfigError, match="which database is meant"):
        cal_service.set_local_database(file)


def test_several_databases_are_asked_in_order(tmp_path, dark, raw):
    nearer = write(tmp_path / "N20160102S0424_dark.fits", {**PROCESSED, "UT": "06:02:45.0"}, seed=1)
    far = write(tmp_path / "N20160101S0001_dark.fits", {**PROCESSED, "DATE-OBS": "2016-01-01"}, seed=2)
    for name, path in (("first.db", far), ("second.db", nearer)):
        LocalDB(name).init()
        LocalDB(name).add_cal(path)
    facts = Dataset(raw).facts
    first, second = (stores.Database(tmp_path / name) for name in ("first.db", "second.db"))
    found = find(CalKind.DARK, facts, [first, second])
    assert isinstance(found, Found)
    assert found.candidate.path == far  # the first that has one, though the other's is nearer
    assert isinstance(find(CalKind.FLAT, facts, [first, second]), Missing)
    silent = stores.Database(tmp_path / "first.db", get=False, store=True)
    found = find(CalKind.DARK, facts, [silent, second])
    assert isinstance(found, Found)
    assert found.candidate.path == nearer


def test_storing_goes_into_those_that_store(tmp_path, dark):
    LocalDB("a.db").init()
    where = [
        stores.Database(tmp_path / "a.db", store=False),
        stores.Database(tmp_path / "new.db", named=False),
    ]
    assert store_in_all(cal_service.as_calibration(dark), where) == [tmp_path / "new.db"]
    assert [name for name, _ in LocalDB("new.db").list_files()] == ["N20160102S0423_dark.fits"]
    assert list(LocalDB("a.db").list_files()) == []


# --- databases of others -------------------------------------------------------------------------------
@pytest.fixture
def ledger(tmp_path):
    path = tmp_path / "state" / "nirid.db"
    path.parent.mkdir()
    ledger = Ledger(path)
    yield ledger, path
    ledger.close()


def test_the_daemons_database_can_be_asked_and_not_written(ledger, dark, raw):
    book, path = ledger
    calibration = cal_service.as_calibration(dark)
    book.write(lambda tx: tx.cals.add(calibration))
    db = LocalDB(path)
    assert db.get_cal(raw, "processed_dark") == dark
    assert [name for name, _ in db.list_files()] == ["N20160102S0423_dark.fits"]
    for refused in (lambda: db.init("w"), db.init, lambda: db.add_cal(dark), lambda: db.remove_cal(dark)):
        with pytest.raises(
            StoreError, match=r"nirid\.db is the daemon's database, read-only .*drop folder.*nirid reject"
        ):
            refused()
    with pytest.raises(StoreError, match="the daemon's database"):
        stores.check([stores.Database(path, store=True)])
    stores.check([stores.Database(path, store=False)])
    assert db.get_cal(raw, "processed_dark") == dark


def test_it_stays_so_when_the_daemon_is_down(ledger, dark, raw):
    book, path = ledger
    calibration = cal_service.as_calibration(dark)
    book.write(lambda tx: tx.cals.add(calibration))
    book.close()
    assert LocalDB(path).get_cal(raw, "processed_dark") == dark
    with pytest.raises(StoreError, match="the daemon's database"):
        LocalDB(path).init("w")


def test_a_database_of_another_program_is_left_alone(tmp_path, dark):
    with sqlite3.connect(tmp_path / "cal_manager.db") as connection:
        connection.execute("CREATE TABLE diskfile (id INTEGER)")
    connection.close()
    before = (tmp_path / "cal_manager.db").read_bytes()
    db = cal_service.set_local_database()
    for refused in (lambda: db.init("w"), lambda: db.add_cal(dark), db.list_files):
        with pytest.raises(StoreError, match="no calibration database of nirid"):
            refused()
    assert (tmp_path / "cal_manager.db").read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_can_be_asked_by_somebody_who_may_not_write_there():
    with tempfile.TemporaryDirectory() as name:  # the folders of pytest are its own user's alone
        folder = Path(name)
        folder.chmod(0o755)
        dark, raw = (
            write(folder / "dark.fits", PROCESSED),
            write(folder / "raw.fits", {**DARK, "OBSTYPE": "OBJECT"}),
        )
        calibration = cal_service.as_calibration(dark)
        book = Ledger(folder / "nirid.db")
        book.write(lambda tx: tx.cals.add(calibration))
        book.close()
        (folder / "nirid.db").chmod(0o644)
        program = (
            "import os, sys; from pipeline.cal_service import LocalDB; os.setuid(65534); "
            "print(LocalDB(sys.argv[1]).get_cal(sys.argv[2], 'processed_dark'))"
        )
        run = [sys.executable, "-c", program, str(folder / "nirid.db"), raw]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert done.stdout.strip() == dark, done.stderr
