"""Enough yet: states and words, how long a frame takes, and what became worse since when."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from daemon.judgement import overheads, weather
from daemon.judgement.depth import Goal, Known, Pace, Stack, depth
from daemon.judgement.enough import judged, span
from daemon.judgement.weather import Taken
from tests.night import describe

BEGAN = datetime(2016, 1, 5, 7, 0, tzinfo=UTC).timestamp()
STACK = Stack(9, 30.0, Known(26.69, 0.03), Known(0.5, 0.005), Known(250.0, 5.0), Known(0.6, 0.01), skies=8.0)
NOW = depth(STACK).value
PACE = Pace(90.0, 900.0)
NIGHT = 6 * 3600.0


def taken(n=9, **series):
    frames = [Taken(BEGAN + 90.0 * k, 0.5, 12000.0, 1.0, 35.0) for k in range(n)]
    for name, values in series.items():
        frames = [replace(f, **{name: v}) for f, v in zip(frames, values, strict=True)]
    return frames


def asked(goal, left=NIGHT, waiting=0, frames=None):
    return judged(STACK, frames or taken(), goal, PACE, left, waiting)


def test_without_a_goal_it_says_so():
    assert asked(None).words == "no goal set"


def test_enough_is_at_least_what_was_asked_and_says_how_surely():
    found = asked(Goal(depth=NOW - 0.2))
    assert (found.state, found.words, found.more) == ("enough", "enough", 0)
    assert found.probability > 0.95
    assert asked(Goal(depth=NOW)).probability == pytest.approx(0.5, abs=0.01)


def test_more_frames_with_their_minutes():
    found = asked(Goal(depth=NOW + 0.12))
    assert found.state == "more"
    assert found.words == f"{found.more} more frames ({math.ceil(1.5 * found.more)} min)"
    assert found.minutes == pytest.approx(1.5 * found.more)
    assert found.short == pytest.approx(0.12)
    assert asked(Goal(depth=NOW + 0.01)).words == "1 more frame (2 min)"


def test_frames_that_wait_to_be_stacked_are_not_taken_again():
    goal = Goal(depth=NOW + 0.12)
    most = asked(goal).more
    assert asked(goal, waiting=1).words == (
        f"{most - 1} more frame{'s' if most > 2 else ''} ({span(90.0 * (most - 1))}), "
        "with 1 frame that waits to be stacked"
    )
    done = asked(goal, waiting=most)
    assert (done.state, done.minutes) == ("enough", 0.0)


def test_what_the_night_has_no_room_for_is_not_reachable():
    found = asked(Goal(depth=NOW + 0.5), left=600.0)
    assert found.state == "not reachable"
    assert found.words == (
        f"not reachable tonight: it takes {span(60 * found.minutes)}, 10 min are left to dawn"
    )


def test_why_it_is_not_reachable_is_what_has_become_worse():
    bright = taken(12, sky=[12000.0] * 5 + [24000.0] * 7)
    found = asked(Goal(depth=NOW + 0.5), left=600.0, frames=bright)
    assert found.words.startswith("not reachable tonight: sky 2.0 × brighter since 07:07 UT; it takes")
    wide = taken(12, fwhm=[0.5] * 5 + [0.8] * 7)
    assert "seeing 1.6 × wider since 07:07 UT" in asked(Goal(depth=NOW + 0.5), 600.0, 0, wide).words
    cloud = taken(12, light=[1.0] * 5 + [0.63] * 7)
    assert "0.5 mag of light lost since 07:07 UT" in asked(Goal(depth=NOW + 0.5), 600.0, 0, cloud).words
    assert asked(Goal(depth=40.0), frames=bright).words == (
        "not reachable tonight: sky 2.0 × brighter since 07:07 UT"
    )


def test_a_night_that_is_over_was_too_short():
    found = asked(Goal(depth=NOW + 0.3), left=-1.0)
    assert found.state == "not reached"
    assert found.words == (
        f"not reached: 0.30 mag short, {found.more} frames ({span(60 * found.minutes)}) were missing"
    )
    assert asked(Goal(depth=40.0), left=-1.0).state == "not reached"
    assert asked(Goal(depth=NOW - 0.1), left=-1.0).state == "enough"


def test_a_time_is_told_upwards():
    assert [span(s) for s in (1.0, 60.0, 61.0, 3600.0, 7200.0, 9000.5)] == [
        "1 min", "1 min", "2 min", "60 min", "2 h 0 min", "2 h 31 min",
    ]  # fmt: skip


# -- what the frames say of the next ---------------------------------------------------------------


def test_steady_frames_have_not_become_worse():
    assert weather.changes(taken(12)) == []
    assert weather.changes(taken(4, sky=[1.0, 1.0, 9.0, 9.0])) == []  # too few to tell


def test_a_sky_goes_on_with_its_slope_within_limits():
    falling = taken(10, sky=[12000.0 - 200.0 * k for k in range(10)])
    ahead = weather.ahead(falling, 2, 90.0)
    mean = 12000.0 - 200.0 * 4.5
    assert ahead.sky * mean == pytest.approx(12000.0 - 200.0 * 10.5, rel=0.01)
    far = weather.ahead(falling, 500, 90.0)  # as far as it was seen, not to darkness
    assert far.sky * mean > 0.75 * (12000.0 - 200.0 * 9)
    steep = taken(10, sky=[4000.0 * 1.35**k for k in range(10)])
    latest = 4000.0 * 1.35**7
    assert weather.ahead(steep, 50, 90.0).sky * (sum(f.sky for f in steep) / 10) == pytest.approx(
        1.5 * latest
    )


def test_what_is_expected_and_its_doubt_hold_the_frames_to_come():
    """Drawn: seeing that wanders by 12 % within 17 minutes and jumps by 5 % from frame to frame."""
    rng, pulls = np.random.default_rng(5), []
    times = 90.0 * np.arange(24)
    alike = np.exp(-np.abs(np.subtract.outer(times, times)) / 1020.0)
    for drawn in rng.multivariate_normal(np.zeros(24), 0.12**2 * alike, 400):
        fwhm = 0.5 * np.exp(drawn + rng.normal(0.0, 0.05, 24))
        frames = taken(12, fwhm=[float(value) for value in fwhm[:12]])
        expected = weather.ahead(frames, 12, 90.0).fwhm * np.exp(np.log(fwhm[:12]).mean())
        off = np.log(fwhm[12:]).mean() - np.log(expected)
        pulls.append(off / weather.doubt(frames, 12, 90.0).fwhm)
    assert 0.75 < np.sqrt(np.mean(np.square(pulls))) < 1.1
    assert abs(np.mean(pulls)) < 0.15


def test_one_odd_frame_is_not_the_seeing_to_come():
    odd = taken(9, fwhm=[0.5] * 7 + [1.5, 0.5])
    assert weather.ahead(odd, 5, 90.0).fwhm < 1.0  # the median, under a mean that has the odd one
    assert weather.ahead([Taken(0.0)], 5, 90.0) == weather.Ahead()


def test_read_noise_is_no_sky():
    faint = taken(9, sky=[1225.0] * 9)
    assert weather.ahead(faint, 1, 90.0).photons == pytest.approx(0.5)


# -- how long a frame takes --------------------------------------------------------------------------


def facts(**changes):
    return describe("science", 1, 0, **changes)


@pytest.mark.parametrize(
    ("mode", "side", "coadds", "readout", "write"),
    [
        ("Low Background", 1024, 2, 22.32, 2.78),
        ("Medium Background", 768, 1, 0.41, 2.50),
        ("High Background", 256, 50, 2.2, 2.96),
        ("Unknown", 512, 1, 0.21, 2.38),
    ],
)
def test_overheads_are_those_of_gemini_s_table(mode, side, coadds, readout, write):
    own = overheads.of(facts(read_mode=mode, shape=(side, side), coadds=coadds, exposure_time=30.0))
    assert (own.readout, own.write, own.offset) == (pytest.approx(readout), write, 7.0)
    assert own.total == pytest.approx(30.0 + readout + write + 7.0)


def test_the_pace_is_the_table_s_until_the_sequence_shows_it():
    own = facts(exposure_time=30.0, coadds=1, read_mode="Medium Background")
    table = overheads.of(own).total
    assert overheads.pace(own, [0.0, 60.0, 120.0], 2) == (pytest.approx(table), False)
    assert overheads.pace(own, [0.0, 60.0, 120.0, 500.0, 560.0], 4) == (pytest.approx(60.0), True)
    assert overheads.pace(own, [0.0, 1.0, 2.0, 3.0, 4.0], 4)[0] == pytest.approx(table)  # clocks that lie


def test_frames_of_sky_are_time_of_the_target():
    """Ten frames, half of them beside the target, the first left out: four count."""
    own = facts(exposure_time=30.0)
    seconds, seen = overheads.pace(own, [60.0 * k for k in range(10)], 4)
    assert seen
    assert seconds == pytest.approx(60.0 * 9 / 4)
