"""Work pauses before a disk is full, and goes on when there is room: no flutter at the threshold."""

from pathlib import Path

import pytest

from daemon.work.diskguard import DiskGuard, Room, room, tells_of_full_disk

FOLDERS = {"products": Path("/products"), "state": Path("/state")}


class Disks:
    def __init__(self):
        self.now = {path: Room(10_000, 1_000_000) for path in FOLDERS.values()}

    def __call__(self, folder):
        if isinstance(self.now[folder], Exception):
            raise self.now[folder]
        return self.now[folder]


@pytest.fixture
def disks():
    return Disks()


@pytest.fixture
def guard(disks):
    return DiskGuard(FOLDERS, low=2_000, inodes=500, look=disks)


@pytest.mark.parametrize("folder", FOLDERS.values())
def test_it_pauses_below_low_water_and_resumes_well_above(guard, disks, folder):
    assert guard.check(0.0) == ""
    disks.now[folder] = Room(1_999, 1_000_000)
    assert "0.00 GB free" in guard.check(100.0)
    disks.now[folder] = Room(2_500, 1_000_000)
    assert guard.check(300.0)  # above low water, not above 1.5 times
    disks.now[folder] = Room(3_000, 1_000_000)
    assert guard.check(400.0) == ""


def test_inodes_count_like_bytes_where_there_are_any(guard, disks):
    disks.now[FOLDERS["products"]] = Room(10_000, 499)
    assert "499 inodes free for products" in guard.check(0.0)
    disks.now[FOLDERS["products"]] = Room(10_000, None)
    assert guard.check(100.0) == ""


def test_three_of_the_biggest_jobs_must_find_room(guard, disks):
    guard.biggest_job = 4_000
    assert guard.check(0.0)
    disks.now = dict.fromkeys(FOLDERS.values(), Room(18_000, None))
    assert guard.check(100.0) == ""


def test_a_sawtooth_at_the_threshold_changes_at_most_once_a_minute(guard, disks):
    before, changes = "", 0
    for second in range(600):
        full = second % 10 < 5
        disks.now[FOLDERS["products"]] = Room(1_000 if full else 9_000, None)
        now = guard.check(float(second))
        changes += bool(now) != bool(before)
        before = now
    assert 2 <= changes <= 11


def test_a_failed_write_pauses_at_once_whatever_the_numbers_say(guard):
    assert guard.check(0.0) == ""
    guard.full("OSError: [Errno 28] No space left on device", 1.0)
    assert "a disk is full" in guard.check(2.0)
    assert guard.check(50.0)
    assert guard.check(62.0) == ""


def test_a_folder_that_does_not_answer_is_no_room(guard, disks):
    disks.now[FOLDERS["state"]] = OSError(5, "Input/output error")
    assert "Input/output error" in guard.check(0.0)


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        ("OSError: [Errno 28] No space left on device: 'x'", True),
        ("OSError: [Errno 122] Disk quota exceeded", True),
        ("database: database or disk is full", True),
        ("OSError: [Errno 5] Input/output error", False),
        ("FileNotFoundError: [Errno 2] No such file or directory", False),
    ],
)
def test_which_errors_more_room_would_cure(error, is_full):
    assert tells_of_full_disk(error) is is_full


def test_a_real_disk_answers(tmp_path):
    assert room(tmp_path).bytes > 0
