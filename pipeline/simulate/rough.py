"""The night `rough`: one of each thing that can be wrong with a frame, in short sequences."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np

from pipeline.simulate.faults import Fault, Motion, drifting_gradient, nods
from pipeline.simulate.runs import (
    FIVE,
    FS17,
    FS17_KPRIME,
    Offsets,
    Preset,
    Run,
    at,
    dark_run,
    flat_runs,
    scaled,
    short_darks,
)
from pipeline.simulate.shot import Shot
from pipeline.simulate.sky import Field, Galaxy, random_stars

NIGHT = "N20160125"
TARGET = (131.4000, 12.3000)
SIX = (*scaled(FIVE, 0.9), (-2.0, 3.0))
EIGHT = (*SIX, (2.0, -1.0), (-1.0, -2.5))  # of which three spoilt ones are fewer than half
FAINT_MAG = 18.6  # alone in its field, signal to noise about 12 in a frame
PASSED_MAG, MOVER_MAG = 14.0, 16.0  # of a star, and of the target that passes it


def rough_fields(rng: np.random.Generator) -> dict[str, Field]:
    ra, dec, mag = random_stars(rng, TARGET, count=110, radius=45.0, brightest=13.3, faintest=18.8)
    few = np.arange(len(ra)) % 4 == 0
    galaxy = Galaxy(14.4, 8.0, 0.3, 40.0)  # brighter than 2 percent of the sky over 60 percent of the field
    beside = TARGET[0] + 3.5 / 3600 / np.cos(np.deg2rad(TARGET[1])), TARGET[1] + 2.5 / 3600
    passed = np.append(ra[few], beside[0]), np.append(dec[few], beside[1]), np.append(mag[few], PASSED_MAG)
    alone = np.array([TARGET[0]]), np.array([TARGET[1]]), np.array([FAINT_MAG])
    found = {
        "stars": Field("stars", TARGET, ra, dec, mag),
        "disc": Field("disc", TARGET, ra[few], dec[few], mag[few], galaxy),
        "alone": Field("alone", TARGET, *alone),
        "passed": Field("passed", TARGET, *passed),
    }
    ra, dec, mag = random_stars(rng, FS17, count=6, radius=35.0, brightest=15.5, faintest=18.0)
    ra[0], dec[0], mag[0] = *FS17, FS17_KPRIME
    return found | {"FS 17": Field("FS 17", FS17, ra, dec, mag)}


def rough() -> Preset:
    base = Shot(shape=(512, 512), target=TARGET, port=3, program="GN-2015B-Q-908")
    runs: list[Run] = []

    def add(name: str, field: str, offsets: Offsets = SIX, **more: Any) -> None:
        shot = replace(base, observation=11 + len(runs), object_name=name)
        start = at("2016-01-25T09:00:11") + len(runs) * timedelta(minutes=6)
        runs.append(Run(shot, f"{NIGHT}S{101 + 10 * len(runs):04d}", start, offsets, field, 12.5, **more))

    # The pipeline takes the second exposure for the first: that of a sequence is left out for being so.
    unsharp = Fault(double=(9.0, 4.0)), Fault(trail=10.0, trail_angle=30.0), Fault(blur=2.5)
    add("SIM-DARK AND CLOUDY", "stars", faults={2: Fault(dead=True), 4: Fault(cloud=1.5)})
    add("SIM-UNSHARP", "stars", EIGHT, faults=dict(zip((1, 3, 4), unsharp, strict=True)))
    add("SIM-HEADER", "stars", faults={1: Fault(header=(64.0, -48.0))})
    add("SIM-SKY", "stars", faults={1: Fault(sky=2.0), 3: Fault(saturated=True)})
    add("SIM-GRADIENT", "stars", faults=drifting_gradient(6, 0.04))
    add("SIM-DISC", "disc")
    add("SIM-NODS", "stars", nods("ABBA", (18.0, 6.0)))
    add("SIM-MOVING", "passed", motion=Motion((150.0, -90.0), MOVER_MAG, (2.0, 1.0)))
    add("SIM-FAINT", "alone")
    return Preset(
        "rough",
        "one of each that can be wrong with a frame, nine sequences and calibrations; 512 x 512",
        (*runs, *_standards(base), *_calibrations(replace(base, observation=61))),
        rough_fields,
        seed=20160125,
    )


def _standards(base: Shot) -> tuple[Run, Run]:
    """One under a clear sky, and one behind a cloud."""
    shot = replace(base, kind="standard", exposure=3.001, target=FS17, object_name="FS 17", observation=34)
    five = scaled(FIVE, 0.9)
    clear = Run(shot, f"{NIGHT}S0051", at("2016-01-25T08:50:05"), five, "FS 17", 7.5)
    cloudy = replace(
        clear, shot=replace(shot, observation=35), first=f"{NIGHT}S0061", start=at("2016-01-25T10:00:05")
    )
    return clear, replace(cloudy, faults=dict.fromkeys(range(5), Fault(cloud=0.4)))


def _calibrations(base: Shot) -> tuple[Run, ...]:
    """A lamp that is not lit once and drifts, and is named otherwise than without light; a dark too high."""
    off, on = flat_runs(base, NIGHT, 363, "2016-01-25T17:20:03", 5, 2.001)
    on = replace(on, shot=on.shot.with_cards(GCALLAMP="QH"))
    dark = dark_run(base, f"{NIGHT}S0423", "2016-01-25T18:02:00", 6, 20.002)
    return (
        off,
        replace(on, faults={1: Fault(lamp=0.0), 3: Fault(lamp=0.98)}),
        replace(dark, faults={3: Fault(add=40.0)}),
        short_darks(base, "N20160126S0463", "2016-01-26T18:11:09", 3),
    )
