"""Watches are set up again; where there are no events, folders are polled."""

import os
import time

import pytest

from daemon.arrivals.sweep import next_sweep
from daemon.filesystems import filesystem_of
from pipeline.names import is_fits
from tests.integration.watcher.helpers import PATIENCE, Drop


def test_a_folder_that_is_replaced_is_watched_again(make):
    drop = make()
    drop.folder.rename(drop.folder.parent / "away")
    drop.folder.mkdir()
    assert drop.watcher.supervise() == [f"{drop.folder} was replaced by another folder"]
    assert drop.watcher.rearmed == 1
    assert drop.watcher.drain().rescan
    drop.put("a.fits")
    assert drop.hinted("a.fits")


def test_a_folder_that_goes_and_comes_is_watched_again(make):
    drop = make()
    drop.folder.rmdir()
    drop.swept()
    assert not drop.watcher.healthy()[0]
    drop.folder.mkdir()
    drop.swept()
    assert drop.watcher.healthy() == (True, f"{drop.folder}: native")
    drop.put("a.fits")
    assert drop.hinted("a.fits")


def test_a_dead_observer_is_replaced(make):
    drop = make()
    drop.watcher._observer.stop()
    drop.watcher._observer.join(PATIENCE)
    assert not drop.watcher.healthy()[0]
    assert drop.watcher.supervise() == ["the observer is dead"]
    drop.put("a.fits")
    assert drop.hinted("a.fits")


def test_without_inotify_it_polls_by_itself(make, monkeypatch):
    def none_left():
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("daemon.arrivals.watcher.Observer", none_left)
    drop = make()
    assert "polling: events cannot be had" in drop.watcher.modes[str(drop.folder)]
    drop.put("a.fits")
    assert drop.hinted("a.fits")
    assert drop.watcher.healthy()[0]


def test_polling_sees_what_comes_into_folders_old_and_new(make):
    drop = make(observer="polling")
    drop.put("top.fits")
    drop.put("20160102/a.fits")
    assert drop.asked_to_sweep()
    assert drop.swept() == ["20160102/a.fits", "top.fits"]
    drop.settle("20160102/a.fits", "top.fits")
    drop.put("20160102/.b.fits.Xy").rename(drop.folder / "20160102/b.fits")
    assert drop.hinted("20160102/b.fits")
    assert not drop.seen & {"20160102/a.fits"}
    drop.put("20160102/.a").replace(drop.folder / "20160102/a.fits")
    assert drop.hinted("20160102/a.fits")
    assert drop.watcher.found_only_by_sweep == 0


def test_network_file_systems_are_polled(make, monkeypatch):
    monkeypatch.setattr("daemon.filesystems.filesystem_of", lambda path: "nfs4")
    assert make().watcher.modes.popitem()[1] == "polling: nfs4 sends no events"
    assert make(observer="native").watcher.modes.popitem()[1] == "native"


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path):
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        f"2 1 0:5 / {tmp_path}/raw\\040data rw - nfs4 host:/x rw\n"
        f"3 1 0:6 / {tmp_path}/raw rw - tmpfs x rw\n"
    )
    for name in ("raw data/n", "raw", "rawer"):
        (tmp_path / name).mkdir(parents=True)
    found = [filesystem_of(str(tmp_path / name), str(table)) for name in ("raw data/n", "raw", "rawer")]
    assert found == ["nfs4", "tmpfs", "ext4"]
    assert filesystem_of("/", str(tmp_path / "none")) == "unknown"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("N1.fits", True), ("n1.FITS.GZ", True), ("a.fits.bz2", True), ("a b.Fits.fz", True),
        ("N\n1.fits", True),
        (".N1.fits", False), (".fits", False), ("N1.fits.tmp", False), ("N1.fit", False), ("N1fits", False),
        ("N1.fits.gz.part", False), ("N1.fits.zip", False),
    ],
)  # fmt: skip
def test_names(name, ours):
    assert is_fits(name) is ours


def test_sweeps_take_at_most_one_per_cent_of_the_time():
    assert next_sweep(30.0, 0.01) == 30.0
    assert next_sweep(30.0, 1.0) == 100.0


def test_a_drop_folder_that_is_a_link_or_lies_behind_one_has_events(tmp_path):
    (tmp_path / "real" / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in (tmp_path / "link", tmp_path / "link" / "inside"):
        drop = Drop(folder)
        drop.watcher.start()
        try:
            assert drop.watcher.modes[str(folder)] == "native"
            drop.put("a.fits")
            assert drop.hinted("a.fits"), folder  # by the name that sweeps give it
        finally:
            drop.watcher.stop()


def test_events_pass_over_what_sweeps_pass_over(tmp_path):
    for name in ("drop/.~tmp~/deep", "drop/plain", "aside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "drop" / "linked").symlink_to(tmp_path / "aside")
    drop = Drop(tmp_path / "drop")
    drop.watcher.start()
    try:
        for name in (".~tmp~/a.fits", ".~tmp~/deep/b.fits", ".c.fits", "linked/d.fits"):
            drop.put(name)
        (drop.folder / "e.fits").symlink_to(drop.put("plain/f.fits"))
        assert drop.hinted("plain/f.fits")
        time.sleep(0.1)
        drop.hinted()
        assert drop.seen == {"plain/f.fits"}
        os.rename(drop.folder / ".~tmp~" / "a.fits", drop.folder / "a.fits")
        assert drop.hinted("a.fits")
    finally:
        drop.watcher.stop()


def test_a_link_that_leads_elsewhere_by_now_is_watched_anew(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "one")
    drop = Drop(link)
    drop.watcher.start()
    try:
        link.unlink()
        link.symlink_to(tmp_path / "two")
        assert drop.watcher.supervise()
        (tmp_path / "two" / "a.fits").write_bytes(b"x")
        assert drop.hinted("a.fits")
    finally:
        drop.watcher.stop()
