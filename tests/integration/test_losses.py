"""Products that somebody deletes or damages: noticed, made again, and waited for."""

import contextlib
import errno
import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from daemon.ledger import files, questions
from daemon.ledger.store import connect_readonly
from daemon.model.jobs import Outcome
from daemon.upkeep import schedule
from daemon.upkeep.audit import audit
from daemon.work import losses
from pipeline.files import preview, read
from tests.night import Daemon, FakeEngine, frame, static_bpm

LAMPS = {"exposure_time": 42.0, "coadds": 1}


class Engine(FakeEngine):
    """Reads its calibrations, as the worker does."""

    def run(self, job_id, attempt, spec):
        for cal in spec.calibrations:
            try:
                if hashlib.sha256(Path(cal.path).read_bytes()).hexdigest() != cal.sha:
                    raise OSError("replaced since this job was planned")
            except OSError as error:
                return Outcome(job_id, attempt, "io", 0.1, error=str(error))
        return super().run(job_id, attempt, spec)


@pytest.fixture
def daemon(tmp_path):
    made = Daemon(tmp_path, engine=Engine())
    made.land(*(frame("lampoff", n, 20_000 + n, **LAMPS) for n in range(11, 14)))
    made.land(*(frame("lampon", n, 20_100 + n, **LAMPS) for n in range(21, 24)))
    made.land(*(frame("dark", n, 30_000 + n) for n in range(41, 44)))
    made.run(300)
    assert set(made.current()) == {"N20160102S0021_flat", "N20160102S0041_dark"}
    yield made
    made.close()


def path_of(daemon, name):
    return next(Path(p["path"]) for p in daemon.ask(questions.products) if p["name"] == name)


def science_lands(daemon):
    daemon.land(*(frame("science", n, 30 * n) for n in range(1, 5)))
    daemon.run(600)


def accounted(daemon):
    """Every product on record is there, as published, and nothing else that is called a product."""
    with contextlib.closing(connect_readonly(daemon.folder / "nirid.db")) as db:
        answer = audit(db, [], daemon.products)
    wrong = [item for item in answer["products"]["broken"] if item["why"] == "not on disk"]
    return not wrong and not answer["unaccounted"]


def lose(path):
    path.unlink()


def damage(path):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("spoil", [lose, damage])
def test_a_calibration_that_a_job_cannot_use_is_made_again_and_waited_for(daemon, spoil):
    dark = path_of(daemon, "N20160102S0041_dark")
    before = dark.read_bytes()
    spoil(dark)
    science_lands(daemon)
    assert "N20160102S0001_image" in daemon.current()
    assert dark.read_bytes() != before  # of another key
    again = next(p for p in daemon.ask(questions.products) if p["name"] == "N20160102S0041_dark")
    assert again["sha256"] in daemon.current()["N20160102S0001_image"]
    assert daemon.rows("SELECT * FROM job WHERE state NOT IN ('done', 'dropped')") == []
    assert [fields["reason"] for event, fields in daemon.events if event == "product_lost"]
    assert accounted(daemon)
    kept = [p.name for p in daemon.products.rglob("*.damaged")]
    assert kept == (["N20160102S0041_dark.v0001.fits.damaged"] if spoil is damage else [])


def test_what_was_made_with_it_is_made_with_the_new_one(daemon):
    science_lands(daemon)
    path_of(daemon, "N20160102S0041_dark").unlink()
    daemon.dispatcher.recover(daemon.products)  # as at the start
    daemon.run(600)
    again = next(p for p in daemon.ask(questions.products) if p["name"] == "N20160102S0041_dark")
    assert again["sha256"] in daemon.current()["N20160102S0001_image"]
    assert accounted(daemon)


def test_the_deep_check_finds_what_nobody_uses(daemon, monkeypatch):
    dark = path_of(daemon, "N20160102S0041_dark")
    damage(dark)
    config = SimpleNamespace(
        database=daemon.folder / "nirid.db", drop_folders=[], product_folder=daemon.products
    )
    assert not schedule.deep_check(config, daemon.dispatcher.suspect)
    daemon.run(100)
    assert len([spec for spec in daemon.engine.ran if spec.recipe == "makeProcessedDark"]) == 2
    assert accounted(daemon)


def test_a_disk_that_is_not_mounted_is_not_believed(daemon, tmp_path):
    paths = [p["path"] for p in daemon.ask(questions.products)]
    ran = len(daemon.engine.ran)
    os.rename(daemon.products, tmp_path / "away")
    daemon.products.mkdir()
    daemon.dispatcher.recover(daemon.products)
    daemon.run(100)
    assert len(daemon.engine.ran) == ran
    shutil.rmtree(daemon.products)
    os.rename(tmp_path / "away", daemon.products)
    assert [p["path"] for p in daemon.ask(questions.products)] == paths
    assert all(losses.harm(Path(path), "") for path in paths)
    daemon.run(100)
    assert len(daemon.engine.ran) == ran


def test_asking_for_a_deleted_product_again_leaves_nothing_that_never_was(daemon):
    path_of(daemon, "N20160102S0041_dark").unlink()
    daemon.decide("requeue", "N20160102S0041_dark")
    daemon.run(100)
    assert "N20160102S0041_dark" in daemon.current()
    assert accounted(daemon)


def test_rejecting_a_deleted_product_leaves_nothing_that_never_was(daemon):
    path_of(daemon, "N20160102S0041_dark").unlink()
    daemon.decide("reject", "N20160102S0041_dark", reason="it is gone anyway")
    daemon.run(100)
    assert set(daemon.current()) == {"N20160102S0021_flat"}
    assert accounted(daemon)


@pytest.fixture
def outside(daemon, tmp_path):
    """A mask from outside that is in the store, and in its place."""
    path = tmp_path / "mask.fits"
    path.write_bytes(b"mask")
    record = replace(static_bpm(), path=str(path), file_sha=hashlib.sha256(b"mask").hexdigest())
    daemon.land(record)
    daemon.run(600)
    return record


def test_a_calibration_from_outside_is_used_where_it_lies_now(daemon, outside, tmp_path):
    moved = replace(outside, path=str(tmp_path / "moved.fits"))
    Path(outside.path).rename(moved.path)
    daemon.land(moved)
    daemon.ledger.write(lambda tx: files.gone(tx, outside.path, daemon.setting))
    science_lands(daemon)
    assert outside.file_sha in daemon.current()["N20160102S0001_image"]
    assert daemon.rows("SELECT * FROM attempt WHERE outcome = 'io'") == []


def test_a_calibration_from_outside_that_is_gone_keeps_nobody_waiting(daemon, outside):
    made = daemon.current()
    Path(outside.path).unlink()
    science_lands(daemon)  # the sweep has not seen yet that it is gone
    assert "N20160102S0001_image" not in daemon.current()
    daemon.ledger.write(lambda tx: files.gone(tx, outside.path, daemon.setting))
    daemon.run(600)
    assert outside.file_sha not in daemon.current()["N20160102S0001_image"]
    assert daemon.current().items() >= made.items()  # what was made with it stays
    Path(outside.path).write_bytes(b"mask")
    daemon.land(outside)
    daemon.run(600)
    assert outside.file_sha in daemon.current()["N20160102S0001_image"]


@pytest.mark.parametrize("links", [True, False])
def test_a_preview_that_was_deleted_alone_is_drawn_again(daemon, monkeypatch, links):
    """Nothing is reduced for it, what lies there is left alone, and of a damaged product none is drawn."""
    database, told = daemon.folder / "nirid.db", []
    dark, flat = path_of(daemon, "N20160102S0041_dark"), path_of(daemon, "N20160102S0021_flat")
    other = path_of(daemon, "N20160102S0021_flat").with_suffix(".png")
    monkeypatch.setattr(read, "read_frame", lambda path: path.name)
    monkeypatch.setattr(preview, "drawn", lambda frame: f"picture of {frame}".encode())
    if not links:
        monkeypatch.setattr(os, "link", refuse_link)
    assert losses.draw_previews(database, told.append) == []
    dark.with_suffix(".png").unlink()
    assert losses.draw_previews(database, told.append) == [str(dark.with_suffix(".png"))]
    assert dark.with_suffix(".png").read_bytes() == b"picture of N20160102S0041_dark.fits"
    assert other.read_bytes() == b"png"
    flat.with_suffix(".png").unlink()
    damage(flat)
    assert losses.draw_previews(database, told.append) == []
    assert told == [str(flat)]
    assert [p.name for p in dark.parent.glob(".*")] == []


def refuse_link(source, target):
    raise PermissionError(errno.EPERM, "no links here", str(target))


def test_a_preview_that_came_meanwhile_stays(daemon, monkeypatch):
    dark = path_of(daemon, "N20160102S0041_dark")
    png = dark.with_suffix(".png")
    png.unlink()
    monkeypatch.setattr(read, "read_frame", lambda path: png.write_bytes(b"newer"))
    monkeypatch.setattr(preview, "drawn", lambda frame: b"older")
    assert losses.draw_previews(daemon.folder / "nirid.db") == []
    assert png.read_bytes() == b"newer"
    assert [p.name for p in dark.parent.glob(".*")] == []


def test_previews_that_cannot_be_drawn_now_are_logged_and_nothing_stops(daemon, monkeypatch):
    path_of(daemon, "N20160102S0041_dark").with_suffix(".png").unlink()
    monkeypatch.setattr(read, "read_frame", lambda path: refuse_link(path, path))
    with structlog.testing.capture_logs() as logged:
        assert losses.draw_previews(daemon.folder / "nirid.db") == []
    assert [line["event"] for line in logged] == ["previews_not_drawn"]
