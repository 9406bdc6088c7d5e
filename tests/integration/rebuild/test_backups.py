"""A ledger from a backup learns what has happened since."""

import os
import shutil
from pathlib import Path

import pytest

from daemon.ledger import questions
from daemon.upkeep import backup, rebuild
from tests.integration.rebuild.helpers import SCIENCE, Disk, rows
from tests.night import example1, static_bpm


def test_a_backup_learns_what_has_happened_since(daemons, tmp_path):
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    copy = tmp_path / "copy.db"
    backup.backup(daemon.ledger.path, copy)
    daemon.decide("reject", "N20160102S0425", reason="trailed")
    daemon.until_idle()
    for path in daemon.products.rglob("*.fits"):  # as though the backup were of another day
        now = path.stat().st_mtime_ns
        os.utime(path, ns=(now, now + 10**10))
    made, files = daemon.current(), rows(daemon)["files"]
    daemon.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{daemon.ledger.path}{side}").unlink(missing_ok=True)
    shutil.copy(copy, daemon.ledger.path)
    again = daemons()
    assert rebuild.unknown(again.ledger, again.products)[1]
    rebuild.take_back(
        again.ledger, Disk(again, [*example1(), static_bpm()]), again.setting, again.main_loop.overrides
    )
    again.until_idle()
    assert again.engine.ran == []
    assert again.current() == made
    assert rows(again)["files"] == files
    on_disk = {str(p) for p in again.products.rglob("*.fits")}
    assert {p["path"] for p in again.ask(questions.products, current=False)} == on_disk


BPM = "N20160102S0373_bpm"


@pytest.mark.parametrize(
    ("before", "since", "target"),
    [
        ("reject accept", "reject", "N20160102S0425"),
        ("reject", "accept", "N20160102S0425"),
        ("reject", "accept reject accept", "N20160102S0425"),
        ("", "accept", "N20160102S0275"),  # used whatever the pipeline finds of it
        ("", "reject", BPM),
        ("reject", "accept", BPM),
        ("", "reject accept", BPM),
        ("reject", "accept reject", BPM),
        ("", "reject accept", SCIENCE),
        ("", "requeue", SCIENCE),
        ("", "reject", "static_bpm"),
    ],
)
def test_a_backup_learns_every_decision_since_in_order(daemons, tmp_path, before, since, target):
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    target = target if target != "static_bpm" else Path(static_bpm().path).name
    for action in before.split():
        daemon.decide(action, target, reason="trailed")
        daemon.until_idle()
    backup.backup(daemon.ledger.path, copy := tmp_path / "copy.db")
    there = {path: path.stat().st_ino for path in daemon.products.rglob("*.fits")}
    for action in since.split():
        daemon.decide(action, target, reason="looked again")
        daemon.until_idle()
    for path in daemon.products.rglob("*.fits"):  # as though the backup were of another day
        if there.get(path) != path.stat().st_ino:
            os.utime(path, ns=(path.stat().st_mtime_ns + 10**10,) * 2)
    made, files = daemon.current(), rows(daemon)["files"]
    daemon.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{daemon.ledger.path}{side}").unlink(missing_ok=True)
    shutil.copy(copy, daemon.ledger.path)
    again = daemons()
    disk = Disk(again, [*example1(), static_bpm()])
    rebuild.take_back(again.ledger, disk, again.setting, again.main_loop.overrides)
    again.until_idle()
    assert again.engine.ran == []
    assert rows(again)["files"] == files
    assert again.current() == made


def test_what_retention_has_removed_since_the_backup_is_not_missed(night, daemons, tmp_path):
    gone, other = sorted(night.products.rglob("superseded/*_dark.v*.fits"))[:2]
    backup.backup(night.ledger.path, copy := tmp_path / "copy.db")
    gone.unlink()
    night.close()
    shutil.copy(copy, night.ledger.path)
    again = daemons()
    disk = Disk(again, [*example1(), static_bpm()])
    rebuild.take_back(again.ledger, disk, again.setting, again.main_loop.overrides)
    known = {p["path"] for p in again.ask(questions.products, current=False)}
    assert str(gone) not in known
    assert str(other) in known


@pytest.mark.parametrize("action", ["accept", "reject"])
def test_a_decision_that_nothing_was_made_of_yet_is_not_forgotten(daemons, tmp_path, action):
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    backup.backup(daemon.ledger.path, copy := tmp_path / "copy.db")
    daemon.engine.ran.clear()
    daemon.decide(action, "N20160102S0275", reason="looked again")  # used whatever the pipeline finds of it
    daemon.main_loop.requests.apply()
    daemon.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{daemon.ledger.path}{side}").unlink(missing_ok=True)
    shutil.copy(copy, daemon.ledger.path)
    again = daemons()
    disk = Disk(again, [*example1(), static_bpm()])
    rebuild.take_back(again.ledger, disk, again.setting, again.main_loop.overrides)
    again.until_idle()
    assert [spec.name for spec in again.engine.ran] == [SCIENCE]
