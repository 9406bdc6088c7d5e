"""Tar files: frames come out whole under plain names, and nothing else of what is in one has any effect."""

import io
import os
import shutil
import tarfile
from collections import namedtuple

import pytest

from daemon.arrivals import tarfiles
from daemon.arrivals.tarfiles import CannotUnpack, folder_of, found, unpack


def member(name, data=b"frame", kind=tarfile.REGTYPE, link=""):
    one = tarfile.TarInfo(name)
    one.type, one.linkname, one.mode, one.uid = kind, link, 0o4777, 0
    one.size = len(data) if kind == tarfile.REGTYPE else 0
    return one, data


def tar(path, *members, mode="w"):
    with tarfile.open(path, mode) as made:
        for one, data in members:
            made.addfile(one, io.BytesIO(data))
    return path


def test_frames_come_out_and_the_tar_file_stays(tmp_path):
    path = tar(
        tmp_path / "gemini_data.tar",
        member("N20160102S0001.fits.bz2", b"one"),
        member("sub/N20160102S0002.fits", b"two"),
        member("README.txt"),
        member("md5sums.txt"),
    )
    made = unpack(path)
    assert (made.folder, made.new, made.files) == (tmp_path / "gemini_data", True, 2)
    assert made.left_out == {"name of another kind than *.fits": 2}
    assert {p.name: p.read_bytes() for p in made.folder.iterdir()} == {
        "N20160102S0001.fits.bz2": b"one",
        "N20160102S0002.fits": b"two",
    }
    assert all(p.stat().st_mode & 0o7000 == 0 for p in made.folder.iterdir())
    assert sorted(os.listdir(tmp_path)) == ["gemini_data", "gemini_data.tar"]
    again = unpack(path)
    assert (again.new, again.files) == (False, 2)


def test_what_is_hostile_has_no_effect(tmp_path):
    (tmp_path / "secret.fits").write_bytes(b"mine")
    here = tmp_path / "drop"
    here.mkdir()
    path = tar(
        here / "a.tar",
        member("../secret.fits", b"yours"),
        member("/etc/cron.fits", b"absolute"),
        member("link.fits", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("hard.fits", kind=tarfile.LNKTYPE, link="../secret.fits"),
        member("pipe.fits", kind=tarfile.FIFOTYPE),
        member("disk.fits", kind=tarfile.BLKTYPE),
        member("bad\nname.fits"),
        member(".hidden.fits"),
        member("secret.fits", b"second"),
        member("SECRET.FITS", b"third"),
    )
    made = unpack(path)
    assert {p.name: p.read_bytes() for p in made.folder.iterdir()} == {
        "secret.fits": b"yours",
        "cron.fits": b"absolute",
    }
    assert made.left_out == {
        "link or no regular file": 4,
        "name of another kind than *.fits": 2,
        "second of its name": 2,
    }
    assert (tmp_path / "secret.fits").read_bytes() == b"mine"
    assert not os.path.lexists("/etc/cron.fits")


@pytest.mark.parametrize("spoil", ["cut", "none", "empty"])
def test_a_damaged_tar_file_leaves_nothing(tmp_path, spoil):
    path = tar(tmp_path / "a.tar", member("a.fits", b"x" * 5000), member("b.fits", b"y" * 50_000))
    data = path.read_bytes()
    path.write_bytes({"cut": data[:20_000], "none": b"not a tar file" * 100, "empty": b""}[spoil])
    with pytest.raises(CannotUnpack, match=r"a\.tar: cannot be unpacked"):
        unpack(path)
    assert os.listdir(tmp_path) == ["a.tar"]


def test_no_more_than_there_is_room_for(tmp_path, monkeypatch):
    path = tar(tmp_path / "a.tar", member("a.fits", b"x" * 5000))
    usage = namedtuple("usage", "total used free")(100_000, 91_000, 9_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CannotUnpack, match="there is no room"):
        unpack(path)
    assert os.listdir(tmp_path) == ["a.tar"]
    monkeypatch.setattr(tarfiles, "MAX_BYTES", 1000)
    assert unpack(path).left_out == {"larger than 0 MB": 1}


def test_a_compressed_one_and_what_a_killed_run_left(tmp_path):
    path = tar(tmp_path / "n.tgz", member("a.fits", b"frame" * 100), mode="w:gz")
    (tmp_path / ".n.part").mkdir()
    (tmp_path / ".n.part" / "half.fits").write_bytes(b"")
    assert unpack(path).files == 1
    assert sorted(os.listdir(tmp_path)) == ["n", "n.tgz"]


def test_tar_files_are_found_where_frames_are(tmp_path):
    for name in ("b.tar", "sub/a.TAR.GZ", ".x.tar", ".hidden/c.tar", "no.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link.tar").symlink_to(tmp_path / "b.tar")
    assert [p.name for p in found([tmp_path])] == ["b.tar", "a.TAR.GZ"]
    assert folder_of(tmp_path / "a.TAR.GZ").name == "a"
