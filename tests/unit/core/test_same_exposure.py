"""What is grouped by exposure time is stacked, dark-subtracted and given skies: one rule for all of them."""

from dataclasses import replace
from functools import cache

import pytest

from daemon.model.groups import Point
from daemon.plan.grouping import partition
from pipeline.association import RULES, CalKind, Candidate, Found, best_match
from pipeline.errors import FrameMismatch
from pipeline.headers.times import same_exposure
from pipeline.steps.badpixels import stack_bpm_darks
from pipeline.steps.darks import stack_darks
from pipeline.steps.sky import associate_sky, separate_sky
from pipeline.steps.stack import require_same
from tests.skyframes import FIVE, calibrated
from tests.unit.core.test_association import NOW, TARGET
from tests.unit.steps.shots import SHOT, frames_of, ready

# 0.01 s apart, or 0.02 with a first frame between them: in binary a little more or less than that.
SAME = [(n / 100, (n + 1) / 100) for n in (2, 3, 5, 29, 57, 100, 201, 2000, 6000, 6001)]
GROUP = [(a, b, round(b + 0.01, 2)) for a, b in SAME]
OTHER = [(20.0, 20.0101), (0.05, 0.0601), (60.0, 60.02)]


@cache
def darks():
    return tuple(ready(frames_of(replace(SHOT, kind="dark", exposure=1.001), 2)))


@cache
def dithers():
    return tuple(calibrated(k, offset) for k, offset in enumerate(FIVE[:2], 1))


def with_times(frames, *seconds):
    return [
        f.stamped("TIMED", cards={"EXPTIME": (t, "[s]"), "COADDS": (1, "")})
        for f, t in zip(frames, seconds, strict=True)
    ]


def dark_of(seconds):
    facts = {n: getattr(TARGET, n) for n in RULES[CalKind.DARK].match} | {"exposure_time": seconds}
    return Candidate(CalKind.DARK, "dark", "dark", facts, NOW)


@pytest.mark.parametrize(("a", "b"), SAME)
def test_two_that_are_grouped_match_everywhere(a, b):
    for first, second in ((a, b), (b, a)):
        assert len(partition([Point(0, "1", first, 1), Point(9, "2", second, 2)], 100)) == 1
        assert same_exposure(first, second)
        target = replace(TARGET, exposure_time=first)
        assert isinstance(best_match(RULES[CalKind.DARK], target, [dark_of(second)]), Found)


@pytest.mark.parametrize(("low", "first", "high"), GROUP)
def test_what_a_group_may_hold_is_reduced_whole(low, first, high):
    points = [Point(n, str(n), seconds, n) for n, seconds in enumerate((first, low, high))]
    assert len(partition(points, 100)) == 1
    frames = with_times(darks(), low, high)  # the first is left out: broken, say
    require_same(frames, "exposure_time")
    assert stack_darks.run(frames)[0].descriptors.exposure_time == low
    assert len(stack_bpm_darks.run(frames)) == 1
    out = associate_sky.run(separate_sky.run(with_times(dithers(), low, high)), distance=0.0)
    assert [len(f.skies) for f in out] == [1, 1]


@pytest.mark.parametrize(("a", "b"), OTHER)
def test_others_are_not_the_same(a, b):
    assert not same_exposure(a, b)
    assert len(partition([Point(0, "1", a, 1), Point(9, "2", b, 2)], 100)) == 2
    assert not isinstance(
        best_match(RULES[CalKind.DARK], replace(TARGET, exposure_time=a), [dark_of(b)]), Found
    )


def test_darks_of_clearly_other_times_are_refused():
    with pytest.raises(FrameMismatch, match=r"has 20\.03 s"):
        stack_darks.run(with_times(darks(), 20.0, 20.03))


@pytest.mark.parametrize("other", [None, 20.0])
def test_an_unknown_time_is_like_none(other):
    assert not same_exposure(None, other)
