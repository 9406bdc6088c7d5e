"""Depth and its forecast: what a star of that magnitude shows, and what more frames then have."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bench.enough import calibrated
from daemon.judgement.depth import Goal, Known, Pace, Stack, depth, forecast, more_frames, snr_at
from daemon.judgement.weather import Taken
from pipeline import medians

PACE = Pace(45.0, 900.0)
STACK = Stack(
    9, 30.0, Known(26.69, 0.03), Known(0.5, 0.005), Known(250.0, 5.0), Known(0.6, 0.02)
)  # fmt: skip


def steady(n, **changed):
    return [Taken(45.0 * k, 0.5, 12000.0, 1.0, 35.0) for k in range(n)]


def of_frames(n, own=13400.0, circle=5.56):
    """A stack whose frames are each other's sky, by the rule of medians."""
    sky = own * medians.variance(n - 1)
    pixel = math.sqrt((own + sky) / n)
    return replace(
        STACK, frames=n, noise=Known(circle * pixel, 0.0), frame_noise=math.sqrt(own + sky),
        sky_noise=math.sqrt(sky), stack_noise=pixel, skies=float(n - 1),
    )  # fmt: skip


def test_a_star_of_that_magnitude_has_5_sigma():
    """Drawn: its light in the circle, in Poisson noise of nine frames, on the noise of the sky."""
    rng = np.random.default_rng(1)
    rate = 10 ** (0.4 * (STACK.zero.value - depth(STACK).value))
    light = rate * STACK.seconds * STACK.inside.value
    seen = rng.poisson(light * STACK.frames, 200000) / STACK.frames
    seen = seen + rng.normal(0.0, STACK.noise.value, seen.size)
    assert seen.mean() / seen.std() == pytest.approx(5.0, rel=0.01)
    assert snr_at(STACK, depth(STACK), depth(STACK).value) == pytest.approx(5.0, rel=1e-6)


def test_the_error_has_that_of_the_zero_point_and_what_is_without_it():
    found = depth(STACK)
    own = 1.0857 * math.hypot(5.0 / 250.0, 0.02 / 0.6, 0.005 / 0.5)
    assert found.own_error == pytest.approx(own, rel=1e-3)
    assert found.error == pytest.approx(math.hypot(own, 0.03), rel=1e-3)


def test_thin_cloud_on_the_frames_makes_the_stack_shallower():
    assert depth(replace(STACK, light=0.8)).value == pytest.approx(
        depth(STACK).value + 2.5 * math.log10(0.8), abs=0.001
    )


# sigma of reductions of a simulated star field, n = 4 to 8 of nine dithers, each the sky of the others
REDUCED = {4: 69.76, 5: 60.81, 6: 53.81, 7: 49.02, 8: 45.14}


@pytest.mark.parametrize("total", [5, 6, 7, 8])
def test_the_noise_of_more_frames_is_that_of_reductions(total):
    four = of_frames(4)
    later = forecast(four, steady(4), total - 4, PACE)
    ratio = later.noise / four.noise.value
    assert ratio == pytest.approx(REDUCED[total] / REDUCED[4], rel=0.03)
    assert later.noise == pytest.approx(of_frames(total).noise.value, rel=1e-6)
    if total == 8:  # the root of n misses by 9 %
        assert ratio < 0.93 * math.sqrt(4 / 8)


def test_skies_stop_growing_where_they_are_too_far_in_time():
    """At 200 s a frame no more than nine are within 900 s: their number is that of nine, not of forty."""
    slow = Pace(200.0, 900.0)
    far, near = (forecast(of_frames(10), steady(10), 90, pace).noise for pace in (slow, PACE))
    assert far > 1.03 * near


def test_skies_that_were_limited_stay_so():
    nine = replace(of_frames(9), skies=4.0)
    later = forecast(nine, steady(9), 9, PACE)
    assert later.noise == pytest.approx(nine.noise.value / math.sqrt(2), rel=0.001)


def test_what_frames_have_in_common_does_not_average():
    """Hardly dithered frames beside one sky of five: the stack cannot be better than that sky."""
    own, sky = 13400.0, 13400.0 * medians.variance(5)
    pixel = math.sqrt((own + sky) / 4 + sky * 3 / 4)
    made = replace(
        STACK, frames=4, noise=Known(5.56 * pixel), frame_noise=math.sqrt(own + sky),
        sky_noise=math.sqrt(sky), stack_noise=pixel, skies=2.0,
    )  # fmt: skip
    floor = 5.56 * math.sqrt(sky)
    assert forecast(made, steady(4), 400, PACE).noise > 0.95 * floor
    alone = replace(made, stack_noise=math.sqrt((own + sky) / 4))
    assert forecast(alone, steady(4), 400, PACE).noise < 0.5 * floor


def test_seeing_sky_and_cloud_of_the_latest_frames_go_on():
    nine, level = of_frames(9), depth(of_frames(9)).value
    same = forecast(nine, steady(9), 9, PACE).value
    assert same > level
    wide = [*steady(9)[:4], *(replace(f, fwhm=0.8) for f in steady(9)[4:])]
    bright = [*steady(9)[:4], *(replace(f, sky=30000.0) for f in steady(9)[4:])]
    cloudy = [*steady(9)[:4], *(replace(f, light=0.7) for f in steady(9)[4:])]
    for worse, least in ((wide, 0.05), (bright, 0.1), (cloudy, 0.1)):
        assert forecast(nine, worse, 9, PACE).value < same - least


def test_the_error_grows_with_what_is_to_come_and_with_what_wandered():
    nine = of_frames(9)
    few, many = (forecast(nine, steady(9), more, PACE).own_error for more in (1, 20))
    assert few < many
    rng = np.random.default_rng(3)
    wandering = [replace(f, fwhm=0.5 * math.exp(0.3 * rng.normal())) for f in steady(9)]
    assert forecast(nine, wandering, 20, PACE).own_error > many


def test_the_fewest_frames_that_reach_a_goal():
    nine = of_frames(9)
    for wanted in (0.05, 0.3, 0.8):
        goal = Goal(depth=depth(nine).value + wanted)
        more = more_frames(nine, steady(9), goal, PACE)
        assert goal.short_by(nine, forecast(nine, steady(9), more, PACE)) <= 0
        assert goal.short_by(nine, forecast(nine, steady(9), more - 1, PACE)) > 0
    assert more_frames(nine, steady(9), Goal(depth=depth(nine).value - 0.01), PACE) == 0
    assert more_frames(nine, steady(9), Goal(depth=35.0), PACE) is None


def test_a_signal_to_noise_ratio_grows_as_the_square_root_for_bright_and_faint():
    nine = of_frames(9)
    for magnitude in (14.0, 22.0):
        now = snr_at(nine, depth(nine), magnitude)
        more = more_frames(nine, steady(9), Goal(snr=2 * now, magnitude=magnitude), PACE)
        assert 22 <= more <= 27  # 27 by the root of n; skies of more frames need a little less


def test_of_one_frame_nothing_of_skies_is_asked():
    one = replace(of_frames(2), frames=1, frame_noise=None, sky_noise=None, skies=None)
    assert forecast(one, steady(1), 3, PACE).value > depth(one).value
    assert forecast(one, [], 3, PACE).value > depth(one).value


def test_stated_errors_hold_the_end():
    """The short form of `python -m bench enough`, which says it with 200 sequences."""
    found = calibrated(48, side=96)
    for within in (found.within, found.own):
        assert within[0] >= 0.58  # 68 %, by what 48 can tell
        assert within[1] >= 0.90
    assert max(found.pulls) < 1.2
    assert abs(found.bias) < 0.03
    assert found.short[1] < 0.6 * found.short[0]  # the root of n alone is off, always to one side
