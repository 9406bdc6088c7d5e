"""Planes in a file of our own: the same pixels, no private memory, room that is used again."""

import errno
import mmap
import os
import tempfile

import numpy as np
import pytest
from astropy.io import fits

from pipeline.files import scratch
from pipeline.files.scratch import Scratch, planes_on_disk
from pipeline.frame import Frame


@pytest.fixture
def room(tmp_path):
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        yield Scratch(file.fileno())


def frame(value=1.0):
    sci = np.full((8, 9), value, np.float32)
    return Frame(sci, np.zeros((8, 9), np.uint16), fits.Header(), "adu", "a.fits")


def owner(plane):
    while isinstance(plane, np.ndarray):
        plane = plane.base
    return plane


def address(plane):
    return plane.__array_interface__["data"][0]


def test_planes_of_frames_are_in_the_file_and_the_file_has_no_name(tmp_path):
    given = frame()
    with planes_on_disk(tmp_path / "cache") as keep:
        moved = given.evolve(var=np.full((8, 9), 4.0, np.float32)).kept(keep)
        assert list((tmp_path / "cache").iterdir()) == []
        again = moved.evolve(name="b.fits").kept(keep)
    for name in ("sci", "var", "dq"):
        plane = getattr(moved, name)
        assert isinstance(owner(plane), mmap.mmap)
        assert not plane.flags.writeable
        assert address(getattr(again, name)) == address(plane)  # not moved a second time
    np.testing.assert_array_equal(moved.sci, given.sci)
    assert moved.kept(keep) is moved
    assert not isinstance(owner(moved.evolve(var=np.ones((8, 9), np.float32)).var), mmap.mmap)


def test_room_is_used_again_when_nothing_looks_at_it(room):
    first = room.keep(np.arange(1000.0))
    place, view = address(first), first[10:20].view()
    del first
    second = room.keep(np.zeros(1000))
    np.testing.assert_array_equal(view, np.arange(10.0, 20.0))  # a view keeps the room
    assert address(second) != place
    del view
    assert address(room.keep(np.ones(1000))) == place


def test_room_of_small_planes_serves_large_ones(room):
    planes = [room.keep(np.full(1000, k, float)) for k in range(9)]
    last = planes.pop()
    for k in (1, 0, 5, 3, 2, 7, 4, 6):
        planes[k] = None
    large = room.keep(np.arange(8000.0))
    assert address(large) < address(last)
    np.testing.assert_array_equal(last, np.full(1000, 8.0))


def test_planes_do_not_overlap(room, monkeypatch):
    monkeypatch.setattr(scratch, "SEGMENT", 1 << 16)
    rng = np.random.default_rng(1)
    given = [rng.random(int(size)) for size in rng.integers(1, 20_000, 40)]
    kept = [room.keep(plane) for plane in given]
    for gone in rng.permutation(40)[:20]:
        kept[gone] = None
        given[gone] = rng.random(int(rng.integers(1, 20_000)))
        if gone % 2:
            kept[gone] = room.keep(given[gone])
    kept = [room.keep(plane) if there is None else there for plane, there in zip(given, kept, strict=True)]
    for a, b in zip(given, kept, strict=True):
        np.testing.assert_array_equal(a, b)
    assert os.fstat(room.fd).st_blocks * 512 >= sum(plane.nbytes for plane in given), "room that was promised"


def test_what_takes_no_memory_stays(room):
    nothing = np.broadcast_to(np.float32(0), (5, 5))
    assert room.keep(nothing) is nothing


def test_a_full_disk_is_an_error_and_not_a_crash(room, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        room.keep(np.ones(10))
