"""Files that are there whole or not at all."""

import errno
import os

import pytest

from pipeline.files import disk

ODD = [os.fsdecode(b"caf\xe9.fits"), "x" * 251 + ".fit", "\u00e9toile.fits", "two\nlines"]


@pytest.mark.parametrize("name", ["a.fits", *ODD])
def test_a_file_is_replaced_whole_whatever_it_is_called(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    with disk.replacing(path) as part:
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        assert part.name.isascii()
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_has_left_of_a_file_that_one_process_writes_is_written_over(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *_: os._exit(1))
    if (child := os.fork()) == 0:
        disk.write_whole(tmp_path / "a", b"half", alone=True)
    os.waitpid(child, 0)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [".a.part"]
    disk.write_whole(tmp_path / "a", b"whole", alone=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.fits"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step != "write":
        monkeypatch.setattr(os, step, full)

    def write():
        with disk.replacing(path) as part:
            part.write_bytes(b"new")
            if step == "write":
                full()

    with pytest.raises(OSError, match="No space left"):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_on_the_disk_before_they_have_the_name(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.fstat(fd).st_size), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda one, other: (done.append("renamed"), replace(one, other)))
    disk.write_whole(tmp_path / "a", b"12345")
    disk.write_whole(tmp_path / "b", b"12345", flush=False)
    assert done == [5, "renamed", "renamed"]


def test_others_may_read_it_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        disk.write_whole(tmp_path / "a", b"x", mode=0o644)
        disk.write_whole(tmp_path / "b", b"x")
    finally:
        os.umask(before)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o644, 0o600]


@pytest.mark.parametrize("number", disk.NO_LINKS)
def test_where_links_are_refused_there_is_a_copy(tmp_path, monkeypatch, number):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x")
    disk.link_or_copy(source, target)
    assert os.path.samefile(source, target)
    target.unlink()

    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refused)
    disk.link_or_copy(source, target)
    assert target.read_bytes() == b"x"
    assert not os.path.samefile(source, target)
