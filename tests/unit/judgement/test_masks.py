"""The guard of bad-pixel masks: what a night does to a mask is usual, what a fault does holds it back."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from daemon.judgement.drift import LOOKS_BACK, Past, Setup, State, judged
from daemon.judgement.limits import OF_KIND
from pipeline.algorithms import masterfigures

SIDE = 256
SETUP = Setup("", 1, SIDE * SIDE, 0.0)
BEGAN = datetime(2016, 1, 1, tzinfo=UTC)


def of_mask(now, before=None):
    return masterfigures.of_mask(now) | ({} if before is None else masterfigures.against(now, before))


def mask(response):
    return np.where((response < 0.8) | (response > 1.25), 1, 0).astype(np.uint16)


class Detector:
    """One pixel in a hundred is weak, some near the limit; the flats have noise; one in two nights dies."""

    def __init__(self, rng):
        self.rng = rng
        self.response = rng.normal(1.0, 0.03, (SIDE, SIDE))
        weak = rng.choice(SIDE * SIDE, SIDE * SIDE // 100, replace=False)
        self.response.flat[weak] = rng.uniform(0.2, 1.0, weak.size)

    def night(self):
        self.response.flat[self.rng.choice(SIDE * SIDE, self.rng.poisson(0.5))] = 0.1
        return self.response + self.rng.normal(0.0, 0.003, self.response.shape)


def dead_quadrant(response, rng):
    response[: SIDE // 2, SIDE // 2 :] = 0.0


def dead_pixels(response, rng):
    """A thousand of a detector of 1024 x 1024, as many on as much of it."""
    response.flat[rng.choice(response.size, round(1000 * response.size / 1024**2), replace=False)] = 0.1


def dead_columns(response, rng):
    """Every eighth of a quadrant, as of the ALADDIN array of NACO."""
    response[SIDE // 2 :, : SIDE // 2 : 8] = 0.0


def verdicts(seed, nights):
    """(verdicts on `nights` normal nights, those of each fault on the night after them)"""
    rng = np.random.default_rng(seed)
    detector, line, before, said = Detector(rng), [], None, []
    for night in range(nights):
        new = mask(detector.night())
        figures = of_mask(new, before)
        said.append(judged("MADE_BPM", SETUP, figures, line))
        line = [*line, Past(figures, BEGAN + timedelta(days=night))][-LOOKS_BACK:]
        before = new
    faults = {}
    for spoil in (dead_quadrant, dead_pixels, dead_columns):
        response = detector.night()
        spoil(response, rng)
        faults[spoil.__name__] = judged("MADE_BPM", SETUP, of_mask(mask(response), before), line)
    return said, faults


@pytest.mark.parametrize("seed", range(4))
def test_no_normal_night_is_held_and_every_fault_is(seed):
    said, faults = verdicts(seed, 50)
    assert [v.reasons for v in said if v.state is State.HELD] == []
    assert sum(v.state is State.WARNING for v in said) <= 2
    assert {name: v.state for name, v in faults.items()} == dict.fromkeys(faults, State.HELD)
    assert "bad pixels that the mask before had not" in " ".join(faults["dead_pixels"].reasons)


def test_of_the_first_masks_only_what_cannot_be_is_held():
    rng = np.random.default_rng(1)
    good = mask(Detector(rng).night())
    assert judged("MADE_BPM", SETUP, of_mask(good), []).state is State.ACCEPTED
    worse = good.copy()
    worse.flat[rng.choice(worse.size, worse.size // 100)] = 1
    assert judged("MADE_BPM", SETUP, of_mask(worse), []).state is State.ACCEPTED, "there is no mask before"
    verdict = judged("MADE_BPM", SETUP, of_mask(worse, good), [])
    assert verdict.state is State.HELD
    assert "can be 0 to 0.005" in verdict.reasons[0]


def test_the_figures_of_a_mask_are_shares():
    now, before = np.zeros((2, 8, 8), np.uint16)
    now[:4, :8], before[:4, :4] = 1, 4
    found = of_mask(now, before)
    assert set(found) == set(OF_KIND["MADE_BPM"])
    assert found["bad"].value == pytest.approx(32 / 64)
    assert found["bad_q1"].value == 1
    assert found["bad_q4"].value == 0
    assert found["new"] == pytest.approx((16 / 64, 17**0.5 / 64))
    assert found["more"] == pytest.approx((16 / 64, 17**0.5 / 64))
    assert "new" not in of_mask(now)
    assert "new" not in of_mask(now, before[:4])
