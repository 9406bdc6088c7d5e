"""Sequences of simulated frames, to be judged."""

from __future__ import annotations

import numpy as np

from tests.skyframes import FIVE, READ, calibrated, star_field

BOTH = frozenset({"object", "sky"})


STARS = star_field(14, seed=3, radius=11.0, faintest=4e4)


def dimmed(light):
    return [(east, north, light * flux) for east, north, flux in STARS]


def sequence(count=5, **of_frame):
    """Dithered frames of a field; of_frame : what is different, of all or, as _2=dict(sky=...), of one."""
    common = {k: v for k, v in of_frame.items() if not k.startswith("_")}
    frames = []
    for k in range(count):
        other = {"stars": STARS, "sky": 2000.0} | common | of_frame.get(f"_{k}", {})
        frame = calibrated(k + 1, FIVE[k % 5], roles=BOTH, **other)
        frames.append(frame.evolve(cards={"DARKCORR": "2016"}))
    return frames


def verdict_of(frames, number):
    return {v.frame: v for v in frames[0].verdicts}.get(f"N20160102S{number + 1:04d}.fits")


def dead(frame):
    """What a closed shutter leaves: read-out noise about zero."""
    noise = np.random.default_rng(99).normal(0, READ, frame.shape).astype(np.float32)
    return frame.evolve(sci=noise, var=np.full(frame.shape, READ**2, np.float32))
