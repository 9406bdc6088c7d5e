"""What is no product of ours, cannot be read, or is damaged."""

import errno
import hashlib
import os
import sqlite3

import numpy as np
import pytest
from astropy.io import fits

from daemon.ledger import questions
from daemon.ledger.cells import damaged
from daemon.ledger.store import Ledger
from daemon.upkeep import provenance as upkeep_provenance
from daemon.upkeep import rebuild
from daemon.work import moving
from tests.integration.rebuild.helpers import DARK, FLAT, Disk, lose
from tests.night import FINAL, example1, static_bpm


def test_a_calibration_whose_raw_frames_have_been_archived_stays_in_use(daemons):
    daemon = daemons()
    daemon.land(*example1())
    daemon.until_idle()
    kept = [r for r in example1() if not 423 <= int(r.path[-9:-5]) <= 432]
    again = lose(daemon, daemons, kept)
    assert set(again.current()) == FINAL
    names = {row["name"] for row in again.rows("SELECT name FROM calibration WHERE removed IS NULL")}
    assert DARK in names


def test_what_is_no_product_of_ours_is_left_and_told(daemons):
    daemon = daemons()
    stranger = daemon.products / "20160102" / "mine.fits"
    stranger.parent.mkdir(parents=True)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.zeros((2, 2)))]).writeto(stranger)
    answer = rebuild.take_back(daemon.ledger, Disk(daemon, []), daemon.setting, daemon.main_loop.overrides)
    (left,) = answer["left"]
    assert left["path"] == str(stranger)
    assert stranger.exists()


def test_a_product_that_cannot_be_read_now_is_not_gone_on_without(night, daemons, monkeypatch):
    before, read, records = night.current(), upkeep_provenance.read, [*example1(), static_bpm()]

    def fails(path, products):
        if path.name.startswith(DARK):
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return read(path, products)

    with monkeypatch.context() as patch:
        patch.setattr(upkeep_provenance, "read", fails)
        with pytest.raises(OSError, match="Too many open files"):
            lose(night, daemons, records)
    again = daemons()
    answer = rebuild.take_back(again.ledger, Disk(again, records), again.setting, again.main_loop.overrides)
    assert answer["left"] == []
    again.until_idle()
    assert again.current() == before
    assert again.engine.ran == []


def test_a_folder_that_cannot_be_listed_now_is_not_gone_on_without(night, daemons, monkeypatch):
    def fails(folder):
        raise OSError(errno.EIO, "Input/output error", str(folder))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fails)
        with pytest.raises(OSError, match="Input/output error"):
            lose(night, daemons, [*example1(), static_bpm()])
    patch.setattr(Disk, "unlisted", {"/drop": "Stale file handle"})
    with pytest.raises(OSError, match="cannot be listed now: Stale file handle: '/drop'"):
        lose(daemons(), daemons, [*example1(), static_bpm()])
    patch.undo()


def test_what_is_being_published_or_withdrawn_is_finished_otherwise(night):
    def die(*_):
        raise KeyboardInterrupt

    night.decide("reject", DARK, reason="light leak")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "withdraw", die)
        with pytest.raises(KeyboardInterrupt):
            night.until_idle()
    path = night.products / "20160102" / f"{DARK}.fits"
    assert rebuild.unknown(night.ledger, night.products) == ([path], [])
    disk = Disk(night, [])
    rebuild.take_back(night.ledger, disk, night.setting, night.main_loop.overrides)
    night.dispatcher.publisher.at = lambda point: die() if point == "renamed" else None
    night.decide("requeue", FLAT)
    with pytest.raises(KeyboardInterrupt):
        night.until_idle()
    assert rebuild.unknown(night.ledger, night.products) == ([], [])
    night.dispatcher.publisher.at = lambda point: None
    night.dispatcher.recover(night.products)
    night.until_idle()
    assert rebuild.unknown(night.ledger, night.products) == ([], [])
    assert DARK not in night.current()
    on_disk = {str(p) for p in night.products.rglob("*.fits")}
    assert {p["path"] for p in night.ask(questions.products, current=False)} == on_disk


def test_a_ledger_that_knows_everything_is_left_alone(night):
    assert rebuild.unknown(night.ledger, night.products) == ([], [])


@pytest.mark.parametrize("damage", [0, 40_000])
def test_a_damaged_database_is_known_and_put_aside(tmp_path, damage):
    path = tmp_path / "nirid.db"
    assert damaged(path) == ""
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.executemany("INSERT INTO meta VALUES (?, 1)", [(f"{n:0200}",) for n in range(1000)])
    db.close()
    assert damaged(path) == ""
    with path.open("r+b") as file:
        file.seek(damage or 0)
        file.write(os.urandom(60_000))
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    assert damaged(path)
    aside = rebuild.put_aside(path, rebuild.datetime(2016, 1, 2))
    assert not path.exists()
    assert hashlib.sha256(aside.read_bytes()).hexdigest() == before
