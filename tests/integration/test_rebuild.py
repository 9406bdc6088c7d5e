"""With the ledger gone, everything is learnt again from disk, and nothing is reduced again."""

import errno
import hashlib
import json
import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from astropy.io import fits

from daemon.ledger import contents, questions
from daemon.ledger.cells import damaged
from daemon.ledger.store import Ledger
from daemon.model.jobs import JobSpec, job_key
from daemon.upkeep import backup, rebuild
from daemon.upkeep import provenance as upkeep_provenance
from daemon.work import moving
from daemon.work.worker import _cards
from pipeline.files.write import write_product
from pipeline.frame import Frame
from tests.night import FINAL, Daemon, FakeEngine, example1, frame, static_bpm

DARK, FLAT, SCIENCE = "N20160102S0423_dark", "N20160102S0373_flat", "N20160102S0271_image"


class FitsEngine(FakeEngine):
    """Makes products that are real files, with the provenance of real ones, of few pixels."""

    def stage(self, spec):
        told = super().stage(spec)
        path = Path(told["fits"])
        path.unlink()
        steps = {"prepare": {}}
        for name, value in spec.parameters.items():
            step, _, parameter = name.partition(":")
            steps.setdefault(step, {})[parameter] = value
        header = fits.Header([("INSTRUME", "NIRI"), ("OBJECT", "x"), ("DATE-OBS", spec.inputs[0].ut[:10])])
        header["UT"] = spec.inputs[0].ut[11:19]
        header.update(told["quality"])
        for note in spec.notes:
            header.add_history(note)
        plane = np.zeros((4, 4), np.float32)
        mask = np.zeros((4, 4), np.uint16)
        sources = [(i.name, i.file_sha, "input") for i in spec.inputs]
        sources += [(c.name, c.sha, c.role) for c in spec.calibrations]
        sha = write_product(
            path,
            Frame(sci=plane, dq=mask, header=header, unit="electron", name=spec.name),
            provenance=sources,
            history=[(step, values, "nirid") for step, values in steps.items()],
            time_stamp=spec.time_stamp,
            cards=_cards(spec),
        )
        return {**told, "sha256": sha}


class Disk:
    """What the landing does in `take_back`: every raw file that lies about is read."""

    as_of = None
    unlisted: ClassVar = {}

    def __init__(self, daemon, records):
        self.daemon, self.records = daemon, records

    def take_all(self):
        self.daemon.land(*self.records)
        return len(self.records)


@pytest.fixture
def daemons(tmp_path, keep):
    return lambda **more: keep(Daemon(tmp_path, engine=FitsEngine(), **more))


def rows(daemon):
    """What counts: jobs by key, products by place, files by state; without numbers and times."""
    jobs = daemon.rows("SELECT key, recipe, state, remake FROM job ORDER BY key")
    products = daemon.ask(questions.products, current=False)
    shown = ("path", "name", "night", "sha256", "version", "current", "key", "notes", "quality")
    states = {
        (r["sha256"], r["state"], r["runs"]) for r in daemon.ask(lambda db: list(contents.everything(db)))
    }
    cals = daemon.rows(
        """SELECT kind, key, name, ident, origin, facts, ut FROM calibration
        WHERE removed IS NULL ORDER BY name"""
    )
    return {
        "jobs": [job for job in jobs if job["state"] == "done"],
        "products": sorted([str({k: p[k] for k in shown}) for p in products]),
        "files": sorted(states),
        "calibrations": cals,
    }


def lose(daemon, daemons, records):
    """Forget the ledger, and learn everything again."""
    daemon.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{daemon.ledger.path}{side}").unlink(missing_ok=True)
    again = daemons()
    answer = rebuild.take_back(again.ledger, Disk(again, records), again.setting, again.main_loop.overrides)
    assert answer["left"] == []
    return again


@pytest.fixture
def night(daemons):
    """Made, a frame rejected, a dark made again on demand, a mask withdrawn."""
    daemon = daemons()
    daemon.land(*example1(), static_bpm())
    daemon.until_idle()
    daemon.decide("reject", "N20160102S0425", reason="trailed")
    daemon.until_idle()
    daemon.decide("requeue", DARK)
    daemon.until_idle()
    daemon.decide("requeue", DARK)
    daemon.until_idle()
    daemon.decide("reject", "N20160102S0373_bpm", reason="not nice")
    daemon.until_idle()
    assert set(daemon.current()) == FINAL - {"N20160102S0373_bpm"}
    return daemon


@pytest.fixture(autouse=True)
def _current_as_bytes(monkeypatch):
    def current(self):
        return {p["name"]: Path(p["path"]).read_bytes() for p in self.ask(questions.products)}

    monkeypatch.setattr(Daemon, "current", current)


def test_everything_is_there_again_and_nothing_is_made_again(night, daemons):
    before, made = rows(night), night.current()
    again = lose(night, daemons, [*example1(), static_bpm()])
    assert rows(again) == before
    again.until_idle()
    assert again.engine.ran == []
    assert again.current() == made
    assert rows(again) == before
    assert again.rows("SELECT MAX(runs) AS n FROM accounting") == [{"n": 1}]
    for row in again.rows("SELECT key, spec, remake FROM job"):
        spec = JobSpec.from_json(json.loads(row["spec"]))
        content = (spec.recipe, spec.recipe_version, spec.inputs, spec.calibrations, spec.parameters)
        assert job_key(*content, spec.preset, row["remake"]) == row["key"]
    assert max(row["remake"] for row in again.rows("SELECT remake FROM job")) == 2


def test_what_people_decided_can_be_taken_back_afterwards(night, daemons):
    again = lose(night, daemons, [*example1(), static_bpm()])
    again.decide("accept", "N20160102S0373_bpm")
    again.decide("accept", "N20160102S0425")
    again.until_idle()
    assert set(again.current()) == FINAL
    sha = next(r.file_sha for r in example1() if "S0425" in r.path)
    provenance = fits.getdata(again.products / "20160102" / f"{DARK}.fits", "PROVENANCE")
    assert sha in [row["sha256"] for row in provenance]


def test_an_edited_comment_meanwhile_changes_nothing_an_edited_fact_does(night, daemons):
    records = example1()
    edited = [replace(r, file_sha="c" * 64) if "S0426" in r.path else r for r in records]
    again = lose(night, daemons, [*edited, static_bpm()])
    again.until_idle()
    assert again.engine.ran == []
    edited = [replace(r, file_sha="d" * 64, facts="d" * 64) if "S0427" in r.path else r for r in records]
    third = lose(again, daemons, [*edited, static_bpm()])
    third.until_idle()
    assert DARK in [spec.name for spec in third.engine.ran]


def test_what_was_asked_for_and_not_made_yet_is_made(night, daemons):
    night.decide("requeue", FLAT)
    night.engine.held = True
    night.run(1)
    assert night.rows("SELECT COUNT(*) AS n FROM decision WHERE action = 'requeue'") == [{"n": 3}]
    again = lose(night, daemons, [*example1(), static_bpm()])
    again.until_idle()
    assert [spec.name for spec in again.engine.ran][:1] == [FLAT]
    assert [spec.name for spec in again.engine.ran].count(DARK) == 0


def test_a_publication_that_was_cut_short_by_the_loss(daemons):
    daemon = daemons()
    darks = [frame("dark", n, 30 * n) for n in range(1, 7)]
    daemon.land(*darks[1:])
    daemon.until_idle()
    folder = daemon.products / "20160102"
    old, kept = folder / "N20160102S0002_dark.fits", folder / "superseded" / "N20160102S0002_dark.v0001.fits"
    older = old.read_bytes()
    preview = old.with_suffix(".png").read_bytes()
    times = old.stat()
    daemon.land(darks[0])
    daemon.until_idle()
    old.write_bytes(older)  # linked and renamed, not yet unlinked
    old.with_suffix(".png").write_bytes(preview)
    os.utime(old, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
    newer = folder / "N20160102S0001_dark.fits"
    os.utime(newer, ns=(times.st_atime_ns + 10**10, times.st_mtime_ns + 10**10))
    again = lose(daemon, daemons, darks)
    again.until_idle()
    assert again.engine.ran == []
    assert set(again.current()) == {"N20160102S0001_dark"}
    assert {p.name for p in folder.glob("*.fits")} == {"N20160102S0001_dark.fits"}
    assert {p.name for p in folder.rglob("superseded/*.fits")} == {kept.name}
    assert again.rows("SELECT name FROM calibration WHERE removed IS NULL") == [{"name": newer.stem}]
    known = {p["path"] for p in again.ask(questions.products, current=False)}
    assert known == {str(newer), str(kept)}


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
