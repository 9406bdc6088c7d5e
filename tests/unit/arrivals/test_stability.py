"""When a file has stopped changing: a clock and a stat of the test's own, no disk, no sleep."""

import errno
import stat
from types import SimpleNamespace

import pytest

from daemon.arrivals.settle import Due, Tracker
from daemon.model.files import signature_of

P = "/drop/N20160102S0270.fits"


class Disk:
    """One file as lstat shows it."""

    def __init__(self) -> None:
        self.st = {"st_dev": 1, "st_ino": 7, "st_size": 10, "st_mtime_ns": 0, "st_ctime_ns": 0, "st_nlink": 1}
        self.mode = stat.S_IFREG
        self.error: OSError | None = None
        self.looks = 0

    def change(self, **fields) -> None:
        self.st.update(fields)

    def __call__(self, path: str):
        self.looks += 1
        if self.error:
            raise self.error
        return SimpleNamespace(**self.st, st_mode=self.mode)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def tracker(disk) -> Tracker:
    return Tracker(stat=disk)


def run(tracker: Tracker, start: float, end: float, step: float = 0.1) -> list[tuple[float, Due]]:
    """Tick through a stretch of time; when what was due."""
    found, now = [], start
    while now <= end + 1e-9:
        found += [(round(now, 3), due) for due in tracker.tick(now).due]
        now += step
    return found


def test_a_file_is_due_when_it_has_not_changed_for_the_settle_time(tracker, disk):
    tracker.offer(P, 0.0)
    found = run(tracker, 0.0, 5.0)
    assert [when for when, _ in found] == [pytest.approx(2.0, abs=0.11)]
    assert found[0][1] == Due(P, signature_of(disk(P)), "live")


@pytest.mark.parametrize(
    "change", [{"st_size": 11}, {"st_mtime_ns": 5}, {"st_ctime_ns": 5}, {"st_ino": 8}, {"st_dev": 2}]
)
def test_every_change_starts_the_time_anew(tracker, disk, change):
    tracker.offer(P, 0.0)
    assert not run(tracker, 0.0, 1.5)
    disk.change(**change)
    assert [when for when, _ in run(tracker, 1.6, 9.0)] == [pytest.approx(4.0, abs=0.5)]


def test_a_slow_writer_is_due_once_and_a_hint_does_not_hasten_it(tracker, disk):
    for second in range(10):
        tracker.offer(P, float(second))
        disk.change(st_size=second)
        assert not tracker.tick(second).due
    assert len(run(tracker, 10.0, 20.0)) == 1


@pytest.mark.parametrize("whole", [{"st_ctime_ns": 50_000_000}, {"st_nlink": 2}])
def test_what_came_by_rename_or_link_settles_fast(tracker, disk, whole):
    disk.change(**whole)
    tracker.offer(P, 0.0)
    assert run(tracker, 0.0, 3.0)[0][0] == pytest.approx(0.3, abs=0.11)


def test_what_an_event_says_was_renamed_settles_fast(tracker):
    """Written and renamed within a tick of the clock, its stat does not tell."""
    tracker.offer(P, 0.0, moved=True)
    assert run(tracker, 0.0, 3.0)[0][0] == pytest.approx(0.3, abs=0.11)


def test_a_rename_onto_a_file_that_is_watched_settles_fast(tracker, disk):
    tracker.offer(P, 0.0)
    assert not run(tracker, 0.0, 1.0)
    disk.change(st_ino=8)
    tracker.offer(P, 1.0, moved=True)
    assert run(tracker, 1.0, 5.0)[0][0] == pytest.approx(1.3, abs=0.11)


def test_what_is_written_after_its_rename_settles_slowly(tracker, disk):
    tracker.offer(P, 0.0, moved=True)
    assert not run(tracker, 0.0, 0.2)
    disk.change(st_size=11)
    assert run(tracker, 0.25, 9.0)[0][0] == pytest.approx(2.25, abs=0.3)


def test_a_rename_that_is_told_while_the_file_is_read_does_not_make_it_be_read_again(tracker):
    tracker.offer(P, 0.0)
    (_, due), *_ = run(tracker, 0.0, 3.0)
    tracker.offer(P, 3.0, moved=True)
    tracker.conclude(due, "ready", "", 4.0)
    assert not run(tracker, 4.0, 10.0)


def test_a_file_being_read_is_not_due_again(tracker):
    tracker.offer(P, 0.0)
    assert len(run(tracker, 0.0, 600.0, 1.0)) == 1
    assert tracker.unsettled() == 1


def test_a_final_verdict_ends_the_watch(tracker):
    tracker.offer(P, 0.0)
    (_, due), *_ = run(tracker, 0.0, 3.0)
    tracker.conclude(due, "ready", "", 3.0)
    assert (tracker.pending(), tracker.next_look(), tracker.unsettled()) == ([], None, 0)


def test_a_hint_while_reading_leads_to_one_more_look_and_only_a_change_to_one_more_reading(tracker, disk):
    tracker.offer(P, 0.0)
    (_, due), *_ = run(tracker, 0.0, 3.0)
    tracker.offer(P, 3.0)
    tracker.conclude(due, "ready", "", 4.0)
    assert not run(tracker, 4.0, 10.0)
    assert not tracker.pending()

    tracker.offer(P, 20.0)
    (_, due), *_ = run(tracker, 20.0, 23.0)
    tracker.offer(P, 23.0)
    disk.change(st_size=12)
    tracker.conclude(due, "ready", "", 24.0)
    assert len(run(tracker, 24.0, 30.0)) == 1


def test_a_sweep_that_sees_the_same_says_nothing_new(tracker, disk):
    tracker.offer(P, 0.0)
    (_, due), *_ = run(tracker, 0.0, 3.0)
    tracker.offer(P, 3.0, due.signature)
    tracker.conclude(due, "ready", "", 4.0)
    assert not tracker.pending()


def test_incomplete_is_watched_with_back_off_then_overdue_once(tracker, disk):
    tracker.offer(P, 0.0)
    (_, due), *_ = run(tracker, 0.0, 3.0)
    tracker.conclude(due, "incomplete", "cut short", 3.0)
    assert tracker.pending()[0][1:3] == ("incomplete", "cut short")
    disk.looks = 0
    assert not run(tracker, 3.0, 890.0, 0.5)
    assert disk.looks < 50
    found = run(tracker, 890.0, 960.0, 0.5)
    assert [(when, d.patience) for when, d in found] == [(pytest.approx(900.0, abs=1.0), "overdue")]
    tracker.conclude(found[0][1], "quarantined", "", 960.0)
    assert not tracker.pending()


def test_a_stalled_writer_who_goes_on_within_the_grace_is_read_again_as_new(tracker, disk):
    tracker.offer(P, 0.0)
    (_, due), *_ = run(tracker, 0.0, 3.0)
    tracker.conclude(due, "incomplete", "cut short", 3.0)
    assert not run(tracker, 3.0, 800.0, 1.0)
    disk.change(st_size=999)
    assert [d.patience for _, d in run(tracker, 800.0, 850.0, 0.5)] == ["live"]


def test_a_file_may_have_a_grace_of_its_own(tracker):
    tracker.offer(P, 0.0)
    (_, due), *_ = run(tracker, 0.0, 3.0)
    tracker.conclude(due, "incomplete", "all zeros", 3.0, watch=10.0)
    assert run(tracker, 3.0, 30.0)[0][0] == pytest.approx(10.0, abs=1.1)


def test_gone_before_it_was_read(tracker, disk):
    tracker.offer(P, 0.0)
    disk.error = FileNotFoundError(errno.ENOENT, "No such file")
    assert tracker.tick(0.0).vanished == [P]
    assert not tracker.pending()


def test_what_cannot_be_looked_at_is_tried_for_ever_ever_more_rarely_and_visibly(tracker, disk):
    tracker.offer(P, 0.0)
    disk.error = PermissionError(errno.EACCES, "Permission denied")
    assert tracker.tick(0.0).blocked == [(P, "Permission denied")]
    run(tracker, 0.0, 7200.0, 1.0)
    assert 8 + 20 < disk.looks < 8 + 30
    assert tracker.pending()[0].reason == "Permission denied"
    disk.error = None
    assert len(run(tracker, 7200.0, 7600.0, 1.0)) == 1


def test_an_error_of_reading_backs_off_and_comes_back(tracker):
    tracker.offer(P, 0.0)
    (_, due), *_ = run(tracker, 0.0, 3.0)
    tracker.retry(due, "Input/output error", 3.0)
    again = run(tracker, 3.0, 6.0)
    assert again[0][0] == pytest.approx(4.0, abs=0.11)
    tracker.retry(again[0][1], "Input/output error", 4.0)
    assert run(tracker, 4.0, 9.0)[0][0] == pytest.approx(6.0, abs=0.11)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFDIR])
def test_what_is_no_file_is_said_to_be_gone(tracker, disk, kind):
    tracker.offer(P, 0.0)
    disk.mode = kind
    assert tracker.tick(0.0) == ([], [P], [])
    assert not tracker.pending()


def test_nothing_is_due_before_the_next_look(tracker, disk):
    tracker.offer(P, 5.0)
    assert tracker.next_look() == 5.0
    tracker.tick(5.0)
    assert tracker.next_look() == 7.0
    disk.looks = 0
    tracker.tick(6.9)
    assert disk.looks == 0
