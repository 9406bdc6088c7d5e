"""The parts that judging is made of: figures, spots, verdicts, limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.algorithms import oddness
from pipeline.algorithms.figures import figures
from pipeline.algorithms.spots import bright_spots
from pipeline.steps.judgeclouds import clouded
from pipeline.steps.limits import LIMITS
from pipeline.verdict import LEFT_OUT, SCALED, Verdict, merged
from tests.skyframes import READ, add_star, calibrated
from tests.unit.steps.judging import sequence


def test_figures_of_a_frame():
    frame = calibrated(1, sky=2000.0)
    found = figures(frame.sci, frame.var, frame.dq)
    assert found.level == pytest.approx(2000, abs=15)
    assert found.noise == pytest.approx(np.sqrt(2000 + READ**2), rel=0.05)
    assert found.expected == pytest.approx(found.noise, rel=0.05)
    assert found.saturated == 0


def test_bright_spots_are_the_stars():
    rng = np.random.default_rng(2)
    image = rng.normal(3000, 50, (256, 256))
    stars = [(60.0, 80.0, 3e5), (150.3, 201.8, 1e5), (200.0, 40.0, 5e4)]
    for x, y, flux in stars:
        add_star(image, x, y, flux, 4.5)
    found = bright_spots(image.astype(np.float32), np.zeros(image.shape, bool), 50.0)
    assert len(found.x) == 3
    for k, (x, y, flux) in enumerate(stars):
        assert np.hypot(found.x[k] - x, found.y[k] - y) < 1.5
        assert found.flux[k] == pytest.approx(flux, rel=0.2)


def test_fewer_than_three_frames_are_not_compared_for_cloud():
    frames = sequence(2)
    assert clouded(frames, [figures(f.sci, f.var, f.dq) for f in frames], 0.7) == {}


def test_far_from_usual():
    assert oddness.far_from_usual(np.array([1.0, 1.1, 0.9, 9.0]), 1.0) == [
        None,
        None,
        None,
        pytest.approx(7.95),
    ]
    assert oddness.far_from_usual(np.array([1.0, 9.0]), 1.0) == [None, None]
    assert not any(oddness.far_from_usual(np.array([1.0, 1.1, 9.0, 9.2]), 1.0))


def test_the_harder_of_two_verdicts_is_kept():
    soft, hard = Verdict("a", sky=LEFT_OUT), Verdict("a", LEFT_OUT)
    kept = replace(hard, sky=LEFT_OUT)
    assert merged((soft,), (hard,)) == merged((hard,), (soft,)) == (kept,)
    assert merged((soft,), (replace(soft, frame="b"),)) == (soft, replace(soft, frame="b"))
    (both,) = merged((soft,), (Verdict("a", SCALED, weight=0.4),))
    assert (both.use, both.sky, both.weight) == (SCALED, LEFT_OUT, 0.4)


def test_every_limit_is_told_with_reason_and_source():
    for name, limit in LIMITS.items():
        assert limit.value > 0, name
        assert len(limit.reason) > 10, name
        assert limit.source, name
