"""The audit: clean when all is well, and every way in which disk and ledger can differ is found."""

import contextlib
import os
import shutil

import pytest

from daemon.arrivals.read import ingest
from daemon.config import load
from daemon.ledger.store import Ledger, connect_readonly
from daemon.upkeep import schedule
from daemon.upkeep.audit import audit, is_clean
from pipeline.simulate import simulate_night
from tests.night import Daemon, FakeEngine, example1


@pytest.fixture
def place(tmp_path):
    """A drop folder with the tiny night's darks, all of them in the ledger."""
    simulate_night(tmp_path / "night", "tiny")
    drop = tmp_path / "drop"
    drop.mkdir()
    for path in (tmp_path / "night").glob("N20160102S042*.fits"):
        shutil.copy(path, drop)
    return drop


@pytest.fixture
def daemon(tmp_path):
    (tmp_path / "d").mkdir()
    made = Daemon(tmp_path / "d", engine=FakeEngine())
    yield made
    made.close()


def register(daemon, drop):
    daemon.land(*(ingest(str(path)) for path in sorted(drop.iterdir())))


def look(daemon, drop, **more):
    with contextlib.closing(connect_readonly(daemon.folder / "nirid.db")) as db:
        return audit(db, [drop], daemon.products, **more)


def found(answer):
    return {os.path.basename(item["path"]): item["why"] for item in answer["unaccounted"]}


def test_a_clean_folder(daemon, place):
    register(daemon, place)
    answer = look(daemon, place, deep=True)
    assert is_clean(answer)
    assert answer["files"] == {"total": 3, "by_state": {"ready": 3}}


def test_a_file_that_nobody_has_seen(daemon, place):
    register(daemon, place)
    shutil.copy(place / "N20160102S0423.fits", place / "new.fits")
    (place / "not-ours.txt").touch()
    answer = look(daemon, place)
    assert not is_clean(answer)
    assert found(answer) == {"new.fits": "not in the ledger yet"}
    assert answer["files"]["total"] == 4


def test_a_file_that_has_changed_since(daemon, place):
    register(daemon, place)
    with (place / "N20160102S0424.fits").open("ab") as file:
        file.write(b"x")
    assert found(look(daemon, place)) == {"N20160102S0424.fits": "changed since it was found ready"}


def test_bits_that_turned_without_a_trace_are_found_by_the_deep_one(daemon, place):
    register(daemon, place)
    path = place / "N20160102S0425.fits"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(50_000)
        file.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    # Our own write leaves a trace in the change time of the inode, a bad disk does not.
    values = path.stat().st_ctime_ns, os.fsencode(path)
    daemon.ledger.write(lambda tx: tx.run("UPDATE sighting SET ctime_ns = ? WHERE path = ?", *values))
    assert is_clean(look(daemon, place))
    assert found(look(daemon, place, deep=True)).keys() == {"N20160102S0425.fits"}


def test_products_that_are_lost_torn_or_strange(daemon, tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    daemon.land(*example1()[:35])
    daemon.until_idle()
    flat = daemon.products / "20160102" / "N20160102S0373_flat.fits"
    standard = daemon.products / "20160102" / "N20160102S0296_image.fits"
    shutil.copy(standard, flat.with_name("N20160102S9999_image.fits"))
    flat.unlink()
    answer = look(daemon, drop)
    broken = {os.path.basename(item["path"]): item["why"] for item in answer["products"]["broken"]}
    assert broken[flat.name] == "not on disk"
    assert standard.name in broken  # what the pretended engine writes is no FITS
    assert found(answer) == {"N20160102S9999_image.fits": "a product that the ledger does not know"}


def test_the_nightly_check_logs_and_never_raises(tmp_path, capsys):
    given = {"watch.folders": [str(tmp_path / "drop")], "products.folder": str(tmp_path / "products")}
    settings = load.load(None, {**given, "state.folder": str(tmp_path / "state")})
    assert schedule.deep_check(settings) is False  # there is no database
    (tmp_path / "state").mkdir()
    (tmp_path / "drop").mkdir()
    Ledger(settings.database).close()
    assert schedule.deep_check(settings) is True


def test_a_file_that_gave_way_to_a_link(daemon, place):
    """Nobody follows the link, so what it leads to is no frame of ours."""
    register(daemon, place)
    raw = place / "N20160102S0424.fits"
    raw.rename(place.parent / "elsewhere.fits")
    raw.symlink_to(place.parent / "elsewhere.fits")
    answer = look(daemon, place, deep=True)
    assert is_clean(answer)
    assert answer["files"] == {"total": 2, "by_state": {"ready": 2}}
