"""The guard of calibrations: what is usual, what cannot be, and what is held back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from bench import drift as bench
from daemon.judgement.drift import Past, Setup, State, breakpoint_at, judged
from pipeline.algorithms import masterfigures

SETUP = Setup("Medium Background", 1, 1024 * 1024, 60.0)
BEGAN = datetime(2016, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def rates():
    return bench.measured(nights=14, tries=1)


def test_every_planted_fault_is_held_within_one_master(rates):
    assert rates.caught == dict.fromkeys(bench.FAULTS, (1, 1))


def test_no_normal_night_is_held(rates):
    assert (rates.held, rates.cold) == (0, 0)
    assert rates.masters == 18


def line(nights=8, **figures):
    """Accepted masters whose figures scatter by 1 %."""
    rng = np.random.default_rng(3)
    return [
        Past(
            {n: (v * (1 + 0.01 * rng.normal()), 0.001 * abs(v)) for n, v in figures.items()},
            BEGAN + timedelta(days=30 * k),
        )
        for k in range(nights)
    ]


def alike(value, *names):
    return {name: (value, 0.001 * abs(value)) for name in names}


NOISES = ("read_noise", *(f"read_noise_q{k}" for k in range(1, 5)))
RATES = ("rate", *(f"rate_q{k}" for k in range(1, 5)))


def test_a_cold_start_knows_only_what_cannot_be():
    few = line(4, **dict.fromkeys(NOISES, 35.0))
    assert judged("DARK", SETUP, alike(50.0, *NOISES), few).state is State.ACCEPTED
    verdict = judged("DARK", SETUP, alike(60.0, *NOISES), few)
    assert verdict.state is State.HELD
    assert verdict.reasons[0] == "read noise is 60 e-, can be 24.5 to 56"
    assert judged("DARK", SETUP, alike(50.0, *NOISES), line(5, **dict.fromkeys(NOISES, 35.0))).state == "held"


def test_one_figure_alone_warns():
    verdict = judged("DARK", SETUP, alike(50.0, "read_noise"), line(**dict.fromkeys(NOISES, 35.0)))
    assert verdict.state is State.WARNING
    assert verdict.off[0].name == "read_noise"


def test_a_lamp_never_holds_and_is_told():
    past = line(lamp=1000.0)
    verdict = judged("FLAT", SETUP, {"lamp": (500.0, 0.1)}, past)
    assert verdict.state is State.ACCEPTED
    assert verdict.told == ("lamp down 50% since 2016-01-01: its exposure may need raising",)


def test_a_level_that_shifts_is_told_from_new_bad_pixels():
    past = line(**dict.fromkeys(RATES, 0.25), hot=500.0, hot_both=500.0)
    shifted = judged("DARK", SETUP, alike(2.0, *RATES) | alike(500.0, "hot", "hot_both"), past)
    spotted = judged("DARK", SETUP, alike(0.25, *RATES) | alike(1500.0, "hot", "hot_both"), past)
    assert (shifted.state, spotted.state) == (State.HELD, State.HELD)
    assert shifted.reasons[0].startswith("the level as a whole has shifted by +1.75 e-/s, without structure")
    assert spotted.reasons[0] == "1000 more hot pixels than usual, at the usual level"


def test_two_that_agree_with_a_held_one_propose_a_breakpoint():
    past = line(**dict.fromkeys(NOISES, 35.0))
    later = [BEGAN + timedelta(days=300 + k) for k in range(3)]
    held = [Past(alike(50.0 + 0.1 * k, *NOISES), at) for k, at in enumerate(later)]
    assert "[[breakpoint]] at = 2016-10-27" in breakpoint_at(held, past, "DARK")
    assert breakpoint_at(held[:2], past, "DARK") == ""
    assert breakpoint_at([*held[:2], Past(alike(80.0, *NOISES), later[2])], past, "DARK") == ""


def test_noise_and_level_are_measured_through_whole_counts():
    rng = np.random.default_rng(1)
    frames = [(np.rint(rng.normal(50.0, 12.0, (256, 256)) / 12.3) * 12.3).astype("f4") for _ in range(8)]
    found = masterfigures.of_darks(frames, [np.zeros((256, 256), "u2")] * 8, 10.0)
    told = np.hypot(12.0, 12.3 / np.sqrt(12.0))  # the step of the counts is noise as well
    assert abs(found["read_noise"].value - told) < 4 * found["read_noise"].error
    assert found["rate"].value == pytest.approx(5.0, abs=0.3)  # less the highest of eight, 1.4 sigma / 7
    assert found["hot_both"].value == 0


def mask(number, seed=3):
    """A mask of so many bad pixels, anywhere."""
    bad = np.zeros(512 * 512, "u2")
    bad[np.random.default_rng(seed).choice(bad.size, number, replace=False)] = 1
    return {name: tuple(m) for name, m in masterfigures.of_mask(bad.reshape(512, 512)).items()}


@pytest.mark.parametrize(
    ("number", "state"),
    [(2000, State.ACCEPTED), (2060, State.ACCEPTED), (3000, State.HELD), (900, State.HELD)],
)
def test_a_mask_with_many_more_bad_pixels_or_fewer_is_held(number, state):
    past = [Past(mask(2000 + 10 * n, n), BEGAN + timedelta(days=n)) for n in range(8)]
    verdict = judged("MADE_BPM", SETUP, mask(number), past)
    assert verdict.state is state
    assert judged("MADE_BPM", SETUP, mask(number), past[:4]).state is State.ACCEPTED


def test_a_first_mask_that_leaves_hardly_a_pixel_is_held():
    verdict = judged("MADE_BPM", SETUP, mask(150_000), [])
    assert verdict.state is State.HELD
    assert verdict.reasons[0] == "bad pixels is 0.5722 of all, can be 0 to 0.3"
