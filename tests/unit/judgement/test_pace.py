"""Frames that stop and looks that come late, by their times alone."""

import pytest

from daemon.judgement import pace


def test_the_wait_is_three_times_what_is_usual():
    assert pace.longest_wait([0, 40, 80, 121, 160], 20) == pytest.approx(120)
    assert pace.longest_wait([0, 40, 80, 700, 740], 20) == pytest.approx(120)  # one pause tells nothing
    assert pace.longest_wait([0, 5, 10, 15], 2) == pace.LEAST
    assert pace.longest_wait([0, 1, 2, 3], 60) == 180  # they landed together: no faster than their exposures
    assert pace.longest_wait([0, 40], 20) is None
    assert pace.longest_wait([7.0, 7.0, 7.0], 20) is None


def test_pauses_that_come_again_are_of_its_pace():
    """Batches of ten every five minutes; one pause, as of a cloud, is none."""
    landed = [300.0 * batch + n for batch in range(4) for n in range(10)]
    assert pace.pause(landed) == pytest.approx(1.5 * 291)
    assert pace.pause([0, 40, 80, 700, 740]) == pytest.approx(60)
    assert pace.pause([0, 40]) == pace.pause([]) == 0
    assert pace.pause([0, 400, 800, *range(840, 840 + 40 * 40, 40)]) == pytest.approx(60), "those of long ago"


def test_of_twenty_looks_one_may_be_late():
    assert pace.p95([1.0] * 19 + [99.0]) == 1.0
    assert pace.p95([1.0] * 18 + [99.0] * 2) == 99.0
    assert pace.p95([1.0] * 4) is None


def test_an_alarm_begins_at_its_limit_and_ends_well_below():
    said, before = [], False
    for value in (9.9, 10.1, 9.9, 10.1, 8.1, 7.9, 9.9):
        before = pace.is_over(value, 10.0, before=before)
        said.append(before)
    assert said == [False, True, True, True, True, False, False]
