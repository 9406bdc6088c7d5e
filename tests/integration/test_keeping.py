"""Backups that can be restored while all goes on, and retention that removes nothing that is needed."""

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from daemon.config import load
from daemon.config.options import Retention
from daemon.ledger import questions
from daemon.ledger.store import Ledger, on_paper
from daemon.upkeep import backup, retention, schedule
from daemon.upkeep.audit import audit
from pipeline.errors import NiridError
from tests.night import FINAL, Daemon, example1, frame, static_bpm

DAY = 86400
DARK = "N20160102S0001_dark"


@pytest.fixture
def daemons(apart):
    return apart


# -- backup ----------------------------------------------------------------------------------


def test_a_copy_while_others_write_is_consistent(daemons):
    daemon = daemons()
    ended = threading.Event()

    def write():
        for night in range(30):
            daemon.land(
                *(frame("dark", n, 5000 * night + 30 * n, day=f"201601{night + 1:02}") for n in (1, 2, 3))
            )
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    copies = 0
    while not ended.is_set() or copies < 3:
        target = daemon.folder / f"copy{copies}.db"
        backup.backup(daemon.ledger.path, target)
        with sqlite3.connect(target) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            contents, seen = (
                db.execute(f"SELECT COUNT(*) FROM {table}").fetchone() for table in ("content", "sighting")
            )
            assert contents == seen, "half a transaction"
        db.close()
        copies += 1
    writer.join()
    left = {p.name for p in daemon.folder.iterdir() if p.name.startswith(".")}
    assert left == set()


def test_a_restored_copy_goes_on_where_it_was(daemons, tmp_path):
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    before = daemon.ask(questions.counts)
    copy = tmp_path / "copy.db"
    assert backup.backup(daemon.ledger.path, copy) == copy.stat().st_size
    folder = daemon.folder
    daemon.close()
    for side in ("", "-wal", "-shm"):
        (folder / f"nirid.db{side}").unlink(missing_ok=True)
    shutil.copy(copy, folder / "nirid.db")
    again = Daemon(folder)
    try:
        assert again.ask(questions.counts) == before
        again.land(*example1(), static_bpm())
        again.until_idle()
        assert again.engine.ran == []
        assert set(again.current()) == FINAL
        again.land(frame("dark", 433, 20300))
        again.until_idle()
        assert [spec.name for spec in again.engine.ran] == ["N20160102S0423_dark", "N20160102S0271_image"]
    finally:
        again.close()


def test_a_copy_that_fails_leaves_the_old_one(daemons, tmp_path, monkeypatch):
    daemon = daemons()
    target = tmp_path / "copy.db"
    target.write_bytes(b"the older copy")

    def full(source, to):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        backup.backup(daemon.ledger.path, target, overwrite=True)
    assert target.read_bytes() == b"the older copy"
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []
    with pytest.raises(NiridError, match="no database"):
        backup.backup(tmp_path / "nothing.db", target)
    with pytest.raises(NiridError, match="cannot be copied"):
        backup.backup(daemon.ledger.path, tmp_path / "no folder" / "copy.db")


def test_nightly_copies_are_seven(tmp_path):
    settings = load.load(None, {"state.folder": str(tmp_path / "state")})
    (tmp_path / "state" / "backups").mkdir(parents=True)
    Ledger(settings.database).close()
    for day in range(1, 10):
        (tmp_path / "state" / "backups" / f"nirid-201601{day:02}.db").touch()
    (tmp_path / "state" / "backups" / "mine.db").touch()
    made = backup.nightly(settings)
    assert backup.copies(settings)[0] == made
    assert len(backup.copies(settings)) == 7
    assert (tmp_path / "state" / "backups" / "mine.db").exists()


def test_the_calendar_has_its_jobs_and_a_first_backup(tmp_path):
    settings = load.load(None, {"state.folder": str(tmp_path / "state")})
    settings.state_folder.mkdir()
    ledger = Ledger(settings.database)
    scheduler = schedule.start(settings, ledger)
    try:
        assert {job.id for job in scheduler.get_jobs()} == {
            "backup",
            "retention",
            "deep check",
            "previews",
            "reports",
            "first backup",
        }
        assert all(job.coalesce and job.max_instances == 1 for job in scheduler.get_jobs())
        assert all(job.misfire_grace_time is None for job in scheduler.get_jobs())
        schedule.back_up(settings)
    finally:
        scheduler.shutdown()
    again = schedule.start(settings, ledger)
    assert "first backup" not in {job.id for job in again.get_jobs()}
    again.shutdown()
    ledger.close()


# -- retention -------------------------------------------------------------------------------


@pytest.fixture
def grown(daemons):
    """A dark that was made five times, as frames kept coming."""
    daemon = daemons()
    daemon.land(*(frame("dark", n, 30 * n) for n in (1, 2, 3)))
    daemon.run(300)
    for n in range(4, 8):
        daemon.land(frame("dark", n, 30 * n))
        daemon.run(300)
    assert versions(daemon) == [1, 2, 3, 4, 5]
    return daemon


def versions(daemon):
    rows = daemon.ask(questions.products, current=False)
    on_disk = {p for p in daemon.products.rglob("*.fits") if ".staging" not in p.parts}
    assert {Path(row["path"]) for row in rows} == on_disk
    return sorted(row["version"] for row in rows)


def test_old_ones_go_and_the_newest_stay(grown):
    assert retention.prune(grown.ledger, Retention()) == 0
    grown.now += 31 * DAY
    assert retention.prune(grown.ledger, Retention()) == 2
    assert versions(grown) == [3, 4, 5]
    assert retention.prune(grown.ledger, Retention()) == 0
    assert retention.prune(grown.ledger, Retention(keep_versions=0)) == 2
    assert versions(grown) == [5]
    previews = {p.name for p in grown.products.rglob("*.png")}
    assert previews == {f"{DARK}.png"}


def test_what_a_person_accepted_stays(grown):
    job = grown.rows("SELECT job_id AS id FROM product WHERE version = 1")[0]["id"]
    grown.decide("accept", f"job:{job}")
    grown.run(10)
    grown.now += 31 * DAY
    retention.prune(grown.ledger, Retention(keep_versions=0))
    assert versions(grown) == [1, 5]


def test_what_a_current_product_was_made_with_stays(daemons):
    daemon = daemons()
    # A dark of another night, of level 2: used at once, but a newer version of it remakes nothing.
    night, later = example1(), 10 * DAY
    darks = [frame("dark", n, later + 30 * n, day="20160112") for n in range(1, 5)]
    daemon.land(*night[15:35], *darks[:3])
    daemon.run(600)
    daemon.land(*night[:10])
    daemon.run(600)
    daemon.land(darks[3])
    daemon.run(600)
    dark = {
        p["version"]: p["key"] for p in daemon.ask(questions.products, current=False) if "dark" in p["name"]
    }
    used = daemon.rows("SELECT ident FROM job_calibration WHERE role = 'processed_dark'")
    assert [row["ident"] for row in used] == [dark[1]]
    daemon.now += 400 * DAY
    assert retention.prune(daemon.ledger, Retention(keep_versions=0)) == 0
    assert {p["version"] for p in daemon.ask(questions.products, current=False) if "dark" in p["name"]} == {
        1,
        2,
    }
    versions(daemon)


def test_a_kill_in_the_middle_is_finished_later(grown, monkeypatch):
    grown.now += 31 * DAY

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", die)
    with pytest.raises(KeyboardInterrupt):
        retention.prune(grown.ledger, Retention())
    monkeypatch.undo()
    assert grown.ask(audit, [], grown.products)["unaccounted"] == []  # what is on its way is accounted for
    assert retention.finish(grown.ledger) == 2
    assert versions(grown) == [3, 4, 5]
    with on_paper(grown.ledger.path) as tx:
        assert tx.rows("SELECT * FROM removal") == []


def test_what_was_removed_and_is_wanted_again_is_made_again(grown):
    grown.now += 31 * DAY
    retention.prune(grown.ledger, Retention(keep_versions=0))
    for n in range(4, 8):
        grown.decide("reject", f"N20160102S{n:04}.fits", reason="not wanted")
    ran = len(grown.engine.ran)
    grown.run(600)
    assert len(grown.engine.ran) == ran + 1
    assert set(grown.current()) == {DARK}
