"""nirid replay: order of observation, pace, and files that are whole when they have a name."""

import json
import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from daemon.cli.replay import replay as command
from daemon.demo.replay import in_order, replay
from pipeline.errors import NiridError
from pipeline.simulate import Shot

START = datetime(2016, 1, 2, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Three frames whose names are not in the order of their times, and a file that is no frame."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "more").mkdir()
    base = Shot(kind="dark", shape=(256, 256), exposure=10.0)
    for name, minutes in (("N20160102S0003", 0), ("more/N20160102S0001", 5), ("N20160102S0002", 20)):
        shot = replace(base, name=name.rsplit("/", 1)[-1], start=START + timedelta(minutes=minutes))
        shot.render(1).write(folder / f"{name}.fits")
    (folder / "junk.fits").write_bytes(b"no FITS")
    (folder / ".hidden.fits").write_bytes(b"")
    (folder / "truth.json").write_text("{}")
    return folder


class Clock:
    """Time passes only in sleep; what was there at each moment is remembered."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert 0 < seconds <= 1
        self.now += seconds


def test_files_land_in_the_order_and_at_the_pace_of_the_night(archive, tmp_path):
    clock, landed = Clock(), []
    replay(
        in_order(archive), archive, tmp_path / "drop", speed=60,
        on_file=lambda path: landed.append((path.name, round(clock.now - 100, 3))),
        clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    assert landed == [
        ("junk.fits", 0),
        ("N20160102S0003.fits", 0),
        ("N20160102S0001.fits", 5),
        ("N20160102S0002.fits", 20),
    ]
    assert (tmp_path / "drop/more/N20160102S0001.fits").read_bytes() == (
        archive / "more/N20160102S0001.fits"
    ).read_bytes()


@pytest.mark.parametrize("speed", [0, math.inf])
def test_without_waiting(archive, tmp_path, speed):
    clock = Clock()
    assert len(replay(in_order(archive), archive, tmp_path, speed, clock=clock, sleep=clock.sleep)) == 4
    assert clock.now == 100
    assert [p.name for p in tmp_path.rglob("*") if p.is_file() and p.name.startswith(".")] == []


def test_a_copy_that_fails_leaves_nothing_behind(archive, tmp_path, monkeypatch):
    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        replay(in_order(archive), archive, tmp_path, 0)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("into", [".", "more", ".."])
def test_a_folder_is_not_replayed_into_itself(archive, into):
    with pytest.raises(NiridError, match="the other way round"):
        replay(in_order(archive), archive, archive / into, 0)


def test_the_command_says_what_has_landed(archive, tmp_path):
    answer = CliRunner().invoke(command, [str(archive), "--into", str(tmp_path), "--speed", "0", "--json"])
    assert answer.exit_code == 0
    assert [f.removeprefix(f"{tmp_path}/") for f in json.loads(answer.stdout)["files"]] == [
        "junk.fits", "N20160102S0003.fits", "more/N20160102S0001.fits", "N20160102S0002.fits",
    ]  # fmt: skip
    assert (
        CliRunner().invoke(command, [str(archive), "--into", str(tmp_path), "--speed", "-1"]).exit_code == 2
    )


def test_a_mask_of_another_year_comes_first_and_nobody_waits_for_it(archive, tmp_path):
    folder = tmp_path / "night"
    shutil.copytree(archive, folder)
    (folder / ".truth").mkdir()
    base = Shot(kind="dark", shape=(256, 256), exposure=10.0)
    for name, year in (("mask", 2001), ("later", 2020)):
        shot = replace(base, name=name, start=START.replace(year=year))
        shot.render(1).write(folder / f"{name}.fits")
        shot.render(1).write(folder / ".truth" / f"{name}.fits")
    clock, landed = Clock(), []
    replay(
        in_order(folder), folder, tmp_path / "drop", speed=60,
        on_file=lambda path: landed.append((path.name, round(clock.now - 100, 3))),
        clock=clock, sleep=clock.sleep,
    )  # fmt: skip
    assert landed == [
        ("junk.fits", 0),
        ("mask.fits", 0),
        ("later.fits", 0),
        ("N20160102S0003.fits", 0),
        ("N20160102S0001.fits", 5),
        ("N20160102S0002.fits", 20),
    ]
