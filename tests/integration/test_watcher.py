"""A real folder, a real observer: events are quick, sweeps miss nothing, the watch survives its folder."""

import logging
import os
import threading
import time
from pathlib import Path

import pytest

from daemon.arrivals.sweep import is_ours, next_sweep
from daemon.arrivals.watcher import Watcher
from daemon.filesystems import filesystem_of
from daemon.model.files import signature_of
from tests.fitsfiles import frame_bytes

PATIENCE = 5.0  # s; only a failure takes this long


class Drop:
    """A drop folder, its watcher, and the event that the watcher sets."""

    def __init__(self, folder: Path, **options) -> None:
        self.folder = folder
        self.woken = threading.Event()
        self.seen: set[str] = set()  # all that was ever hinted
        self.moved: set[str] = set()  # of these, what came by rename
        self.watcher = Watcher([str(folder)], wake=self.woken.set, **{"poll_seconds": 0.02, **options})

    def hinted(self, *names: str) -> bool:
        """True as soon as events have named all of these."""
        missing, until = set(names), time.monotonic() + PATIENCE
        while missing and time.monotonic() < until:
            self.woken.clear()
            hints = self.watcher.drain()
            self.seen |= {os.path.relpath(path, self.folder) for path in hints.paths}
            self.moved |= {os.path.relpath(path, self.folder) for path in hints.moved}
            missing -= self.seen
            if missing:
                self.woken.wait(0.2)
        return not missing

    def asked_to_sweep(self) -> bool:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            self.woken.clear()
            if self.watcher.drain().rescan:
                return True
            self.woken.wait(0.2)
        return False

    def put(self, name: str, data: bytes = b"x") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def swept(self) -> list[str]:
        return [os.path.relpath(path, self.folder) for path, _ in self.watcher.sweep().candidates]

    def settle(self, *names: str) -> None:
        for name in names:
            path = str(self.folder / name)
            self.watcher.settle(path, signature_of(os.lstat(path)))


@pytest.fixture
def make(tmp_path):
    """Start a watched folder; all are stopped at the end."""
    drops = []

    def start(start: bool = True, **options) -> Drop:
        folder = tmp_path / f"drop{len(drops)}"
        folder.mkdir()
        drop = Drop(folder, **options)
        drops.append(drop)
        if start:
            drop.watcher.start()
        return drop

    yield start
    for drop in drops:
        drop.watcher.stop()


# ----------------------------------------------------------------------------------------- events


def test_every_way_of_delivery_is_hinted(make, tmp_path):
    drop = make()
    assert drop.watcher.modes == {str(drop.folder): "native"}
    drop.put("written.fits", frame_bytes())
    drop.put(".hidden.fits.Xy12").rename(drop.folder / "renamed.fits")
    (tmp_path / "outside.fits").write_bytes(b"x")
    os.link(tmp_path / "outside.fits", drop.folder / "linked.fits")
    os.rename(tmp_path / "outside.fits", drop.folder / "moved.FITS.GZ")
    assert drop.hinted("written.fits", "renamed.fits", "linked.fits", "moved.FITS.GZ")
    assert drop.moved == {"renamed.fits"}


def test_names_that_are_not_ours_are_not_hinted(make):
    drop = make()
    for name in (".N1.fits", "N1.fits.part", "notes.txt", "N1.fits~"):
        drop.put(name)
    drop.put("N1.fits")
    assert drop.hinted("N1.fits")
    assert drop.seen == {"N1.fits"}


def test_a_folder_moved_in_is_found_with_all_inside(make, tmp_path):
    drop = make()
    night = tmp_path / "20160102"
    night.mkdir()
    for i in range(5):
        (night / f"N{i}.fits").write_bytes(b"x")
    night.rename(drop.folder / "20160102")
    assert drop.asked_to_sweep()
    assert drop.swept() == [f"20160102/N{i}.fits" for i in range(5)]
    drop.put("20160102/N9.fits")
    assert drop.hinted("20160102/N9.fits")


def test_names_that_are_no_text(make):
    drop = make()
    with open(os.fsencode(drop.folder) + b"/N\xff\n.fits", "wb"):
        pass
    assert drop.hinted(os.fsdecode(b"N\xff\n.fits"))
    assert len(drop.swept()) == 1


def test_a_burst_beyond_the_limit_asks_for_a_sweep_instead(make):
    drop = make(hint_limit=10)
    for i in range(50):
        drop.put(f"N{i:02}.fits")
    assert drop.asked_to_sweep()
    assert drop.watcher.overflows
    assert len(drop.swept()) == 50


def test_events_that_the_kernel_dropped_ask_for_a_sweep(make, caplog):
    caplog.set_level(logging.ERROR)  # also when our own log is quiet
    drop = make()
    logging.getLogger("watchdog.observers.inotify_c").warning(
        "Inotify queue overflowed; filesystem events were lost"
    )
    assert drop.asked_to_sweep()
    assert drop.watcher.overflows == 1


def test_an_error_in_the_handler_does_not_kill_the_observer(make, monkeypatch):
    drop = make()
    monkeypatch.setattr(drop.watcher, "hint", None)  # not callable: the handler fails
    drop.put("N1.fits")
    assert drop.asked_to_sweep()
    monkeypatch.undo()
    drop.put("N2.fits")
    assert drop.hinted("N2.fits")
    assert drop.watcher.healthy()[0]


# ------------------------------------------------------------------------------------------ sweep


def test_the_sweep_lists_what_is_new_or_changed_and_is_silent_about_what_is_settled(make):
    drop = make(start=False)
    drop.put("a.fits")
    drop.put("20160102/b.fits.bz2")
    assert drop.swept() == ["20160102/b.fits.bz2", "a.fits"]
    drop.settle("a.fits", "20160102/b.fits.bz2")
    assert drop.swept() == []
    drop.put("a.fits", b"other")
    assert drop.swept() == ["a.fits"]
    drop.settle("a.fits")
    os.chmod(drop.folder / "a.fits", 0o600)  # ctime: what could not be read may be readable now
    assert drop.swept() == ["a.fits"]


def test_the_sweep_passes_over_and_counts_what_is_not_for_us(make, tmp_path):
    drop = make(start=False)
    (tmp_path / "secret.fits").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/c.fits").write_bytes(b"x")
    (drop.folder / "link.fits").symlink_to(tmp_path / "secret.fits")
    (drop.folder / "folder").symlink_to(tmp_path / "elsewhere")
    (drop.folder / "loop").symlink_to(drop.folder)
    os.mkfifo(drop.folder / "pipe.fits")
    (drop.folder / "dir.fits").mkdir()
    for name in (".a.fits", ".partial/b.fits", "c.txt", "d.fits.tmp", "good.fits"):
        drop.put(name)
    found = drop.watcher.sweep()
    assert [os.path.basename(path) for path, _ in found.candidates] == ["good.fits"]
    assert found.files == 1
    assert found.ignored == {"symbolic link": 3, "not a regular file": 1, "hidden": 2, "other name": 2}


def test_what_is_gone_is_said_once(make):
    drop = make(start=False)
    names = ["a.fits", "b.fits", "n/c.fits", "n/d.fits"]
    for name in names:
        drop.put(name)
    drop.settle(*names)
    (drop.folder / "a.fits").unlink()
    for name in ("n/c.fits", "n/d.fits"):
        (drop.folder / name).unlink()
    (drop.folder / "n").rmdir()
    assert sorted(drop.watcher.sweep().gone) == [
        str(drop.folder / n) for n in ("a.fits", "n/c.fits", "n/d.fits")
    ]
    assert drop.watcher.sweep().gone == []


def test_what_gave_way_to_a_link_is_gone(make):
    drop = make(start=False)
    for name in ("a.fits", "b.fits"):
        drop.put(name)
    drop.settle("a.fits", "b.fits")
    (drop.folder / "a.fits").rename(drop.folder.parent / "elsewhere.fits")
    (drop.folder / "a.fits").symlink_to(drop.folder.parent / "elsewhere.fits")
    found = drop.watcher.sweep()
    assert [os.path.basename(path) for path in found.gone] == ["a.fits"]
    assert drop.watcher.sweep().gone == []


def test_an_empty_folder_is_a_suspect_mount_and_nothing_is_gone(make):
    drop = make(start=False)
    path = drop.put("a.fits")
    drop.settle("a.fits")
    before = signature_of(path.stat())
    path.rename(drop.folder.parent / "kept")
    found = drop.watcher.sweep()
    assert found.gone == []
    assert "empty, but 1 files were here" in found.suspect[str(drop.folder)]
    (drop.folder.parent / "kept").rename(path)
    assert signature_of(path.stat())[:4] == before[:4]
    drop.settle("a.fits")
    found = drop.watcher.sweep()
    assert (found.gone, found.suspect, found.files) == ([], {}, 1)


def test_a_missing_folder_is_suspect_and_a_replaced_one_is_not_believed_at_once(make):
    drop = make(start=False)
    for name in ("a.fits", "b.fits"):
        drop.put(name)
    drop.settle("a.fits", "b.fits")
    drop.swept()
    drop.folder.rename(drop.folder.parent / "away")
    found = drop.watcher.sweep()
    assert found.gone == []
    assert "is missing: No such file" in found.suspect[str(drop.folder)]
    drop.folder.mkdir()
    drop.put("a.fits")
    found = drop.watcher.sweep()
    assert [os.path.basename(p) for p, _ in found.candidates] == ["a.fits"]  # another inode
    assert found.gone == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_keeps_its_files(make):
    drop = make(start=False)
    drop.put("open.fits")
    drop.put("closed/a.fits")
    drop.settle("closed/a.fits")
    (drop.folder / "closed").chmod(0)
    found = drop.watcher.sweep()
    (drop.folder / "closed").chmod(0o755)
    assert found.gone == []
    assert "Permission denied" in found.errors[str(drop.folder / "closed")]
    assert len(found.candidates) == 1


def test_a_folder_that_fails_keeps_its_files(make, monkeypatch):
    drop = make(start=False)
    for name in ("open.fits", "stale/a.fits", "stale/deep/b.fits"):
        drop.put(name)
    drop.settle("stale/a.fits", "stale/deep/b.fits")
    real = os.scandir

    def scandir(folder):
        if os.path.basename(folder) == "stale":
            raise OSError(116, "Stale file handle")
        return real(folder)

    monkeypatch.setattr("daemon.arrivals.sweep.os.scandir", scandir)
    found = drop.watcher.sweep()
    assert found.gone == []
    assert found.errors == {str(drop.folder / "stale"): "Stale file handle"}
    assert len(found.candidates) == 1


def test_hints_about_what_is_settled_are_dropped(make):
    drop = make()
    drop.put("a.fits")
    assert drop.hinted("a.fits")
    drop.settle("a.fits")
    drop.watcher.hint(str(drop.folder / "a.fits"))
    assert drop.watcher.drain().paths == []
    drop.seen.clear()
    drop.put("a.fits", b"other")
    assert drop.hinted("a.fits")


def test_what_only_the_sweep_found_is_counted_once(make, monkeypatch):
    drop = make()
    drop.swept()
    drop.put("hinted.fits")
    assert drop.hinted("hinted.fits")
    monkeypatch.setattr(drop.watcher, "hint", lambda *a, **k: None)  # this event is lost
    drop.put("leaked.fits")
    for _ in range(4):
        drop.swept()
    assert drop.watcher.found_only_by_sweep == 1


# ------------------------------------------------------------------------------------ supervision


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
    assert is_ours(name) is ours


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
