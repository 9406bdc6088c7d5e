"""The sweep: what is new, what is gone, and which absence is not believed."""

import os

import pytest

from daemon.model.files import signature_of


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
