"""The nights that can be made: which frames, of what, when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from pipeline.simulate.rough import rough
from pipeline.simulate.runs import (
    FIVE,
    FS17,
    FS17_KPRIME,
    NINE,
    MakeFields,
    Offsets,
    Preset,
    Run,
    at,
    dark_run,
    flat_runs,
    scaled,
    shifted,
    short_darks,
)
from pipeline.simulate.shot import Shot
from pipeline.simulate.sky import Field, Galaxy, random_stars

# Flat lamp and thermal background, e-/s: the lamp fills a quarter of the well in the exposures below.
LAMP_RATE = {"J": 12_000.0, "H": 20_000.0, "Kprime": 24_000.0}
THERMAL_RATE = {"J": 20.0, "H": 60.0, "Kprime": 700.0}

# --- the nights -------------------------------------------------------------------------------------------

M82_LIKE = (148.9688, 69.6797)
OFF_TARGET = (-420.0, 300.0)


def galaxy_field(
    rng: np.random.Generator, *, count: int, radius: float, off: tuple[float, float]
) -> dict[str, Field]:
    ra, dec, mag = random_stars(
        rng, M82_LIKE, count=count, radius=radius, faintest=19.0, around=((0.0, 0.0), off)
    )
    # The supernova, and a star that burns out, leaves residual images and is in every frame.
    ra[:2] = M82_LIKE[0] + np.array([-6.0, 9.0]) / 3600 / np.cos(np.deg2rad(M82_LIKE[1]))
    dec[:2] = M82_LIKE[1] + np.array([4.0, -8.5]) / 3600
    mag[:2] = 13.9, 11.3
    galaxy = Galaxy(16.2, 38.0, 0.55, 65.0, (4.0, -7.0), bulge_mu0=15.3, bulge_scale=4.5, arms=0.35)
    return {"galaxy": Field("galaxy", M82_LIKE, ra, dec, mag, galaxy)}


def example1_fields(rng: np.random.Generator) -> dict[str, Field]:
    fields = galaxy_field(rng, count=150, radius=75.0, off=OFF_TARGET)
    ra, dec, mag = random_stars(rng, FS17, count=9, radius=70.0, brightest=15.5, faintest=18.5)
    ra[0], dec[0], mag[0] = *FS17, FS17_KPRIME
    return fields | {"FS 17": Field("FS 17", FS17, ra, dec, mag)}


def example1() -> Preset:
    base = Shot(shape=(1024, 1024), target=M82_LIKE)
    standard = replace(
        base, kind="standard", exposure=3.001, target=FS17, object_name="FS 17", observation=34
    )
    flats = replace(base, observation=61)
    dithers = shifted(FIVE, *OFF_TARGET)
    return Preset(
        "example1",
        "the tutorial's night: a galaxy with sky frames, FS 17, flats, darks and short darks; 1024 x 1024",
        (
            Run(base, "N20160102S0270", at("2016-01-02T11:50:11"), FIVE, "galaxy", 12.5),
            Run(base, "N20160102S0275", at("2016-01-02T11:53:41"), dithers, "galaxy", 12.5, number=6),
            Run(standard, "N20160102S0295", at("2016-01-02T12:20:05"), scaled(FIVE, 2), "FS 17", 7.5),
            *flat_runs(flats, "N20160102", 363, "2016-01-02T17:20:03", 10, 2.001),
            dark_run(flats, "N20160102S0423", "2016-01-02T18:02:00", 10, 20.002),
            short_darks(base, "N20160103S0463", "2016-01-03T18:11:09", 10),
        ),
        example1_fields,
    )


def tiny() -> Preset:
    base = Shot(shape=(256, 256), target=M82_LIKE, port=3)
    flats = replace(base, observation=61)
    on: Offsets = ((0, 0), (5, 3), (-4, 3), (-3, -4))
    return Preset(
        "tiny",
        "4 on and 4 off a galaxy, 3 darks, 3 + 3 flats, 3 short darks; 256 x 256, for fast tests",
        (
            Run(base, "N20160102S0270", at("2016-01-02T11:50:11"), on, "galaxy", 12.5),
            Run(
                base,
                "N20160102S0274",
                at("2016-01-02T11:52:51"),
                shifted(on, *OFF_TARGET),
                "galaxy",
                12.5,
                number=5,
            ),
            *flat_runs(flats, "N20160102", 363, "2016-01-02T17:20:03", 3, 2.001),
            dark_run(flats, "N20160102S0423", "2016-01-02T18:02:00", 3, 20.002),
            short_darks(base, "N20160103S0463", "2016-01-03T18:11:09", 3),
        ),
        lambda rng: galaxy_field(rng, count=60, radius=26.0, off=OFF_TARGET),
    )


def star_field(name: str, target: tuple[float, float], **choices: float) -> MakeFields:
    def make(rng: np.random.Generator) -> dict[str, Field]:
        ra, dec, mag = random_stars(rng, target, count=240, radius=85.0, **choices)  # type: ignore[arg-type]
        return {name: Field(name, target, ra, dec, mag)}

    return make


def stellar() -> Preset:
    target = (83.1250, 34.1400)
    base = Shot(
        shape=(1024, 1024),
        target=target,
        port=3,
        pa=30.0,
        filter="J",
        exposure=30.001,
        program="GN-2015B-Q-902",
        observation=12,
        object_name="SIM-CLUSTER 7",
    )
    flats = replace(base, observation=41)
    return Preset(
        "stellar",
        "a star field in J, nine dithers that are each other's sky, with its calibrations; 1024 x 1024",
        (
            Run(base, "N20160105S0101", at("2016-01-05T07:40:20"), NINE, "stars", 13.0),
            *flat_runs(flats, "N20160105", 220, "2016-01-05T17:05:10", 10, 4.001),
            dark_run(flats, "N20160105S0260", "2016-01-05T17:40:00", 10, 30.001),
            short_darks(base, "N20160106S0301", "2016-01-06T18:00:30", 10),
        ),
        star_field("stars", target, faintest=19.5, brightest=13.2),
        seed=20160105,
    )


def two_programs() -> Preset:
    first, second = (83.1250, 34.1400), (101.2900, 16.7200)
    a = Shot(
        shape=(1024, 1024),
        target=first,
        filter="J",
        exposure=10.001,
        coadds=2,
        read_mode="Low Background",
        program="GN-2015B-Q-903",
        observation=7,
        object_name="SIM-EMBEDDED 1",
    )
    b = replace(
        a,
        target=second,
        filter="Kprime",
        exposure=15.001,
        coadds=1,
        read_mode="Medium Background",
        program="GN-2015B-C-4",
        observation=22,
        object_name="SIM-EMBEDDED 2",
    )
    blocks = []
    for k in range(6):
        shot, field = ((a, "first"), (b, "second"))[k % 2]
        number = 3 * (k // 2)
        start = at(f"2016-01-08T09:{10 + 3 * k:02d}:15")
        dithers = NINE[number : number + 3]
        blocks.append(
            Run(shot, f"N20160108S{110 + 3 * k:04d}", start, dithers, field, 12.5, number=number + 1)
        )
    return Preset(
        "two-programs",
        "two programmes interleaved, J 2 x 10 s and K' 15 s, each with its own flats and darks; 1024 x 1024",
        (
            *blocks,
            *flat_runs(replace(a, observation=51), "N20160108", 300, "2016-01-08T17:10:00", 5, 4.001),
            *flat_runs(replace(b, observation=61), "N20160108", 310, "2016-01-08T17:16:00", 5, 2.001),
            dark_run(replace(a, observation=51), "N20160108S0330", "2016-01-08T17:40:00", 5, 10.001),
            dark_run(replace(b, observation=61), "N20160108S0340", "2016-01-08T17:50:00", 5, 15.001),
            short_darks(b, "N20160109S0201", "2016-01-09T18:00:30", 5),
        ),
        lambda rng: (
            star_field("first", first, faintest=19.5, brightest=13.2)(rng)
            | star_field("second", second, faintest=18.8, brightest=13.0)(rng)
        ),
        seed=20160108,
    )


def thermal() -> Preset:
    target = (83.1250, 34.1400)
    base = Shot(
        shape=(256, 256),
        target=target,
        port=3,
        filter="Lprime",
        exposure=0.03,
        coadds=50,
        read_mode="High Background",
        well="Deep",
        program="GN-2015B-Q-905",
        observation=15,
        object_name="SIM-THERMAL 1",
    )
    dithers: Offsets = ((0, 0), (6, 4), (-5, 4), (-4, -6), (5, -5), (-1, 6), (2, -2))

    def fields(rng: np.random.Generator) -> dict[str, Field]:
        ra, dec, mag = random_stars(rng, target, count=25, radius=20.0, brightest=7.5, faintest=10.5)
        return {"stars": Field("stars", target, ra, dec, mag)}

    return Preset(
        "thermal",
        "stars in L' under a bright sky, seven dithers of 50 coadds, 5 darks, no flats; 256 x 256",
        (
            Run(base, "N20160111S0101", at("2016-01-11T07:40:20"), dithers, "stars", 8.0),
            dark_run(replace(base, observation=61), "N20160111S0260", "2016-01-11T17:40:00", 5, 0.03),
        ),
        fields,
        seed=20160111,
    )


PRESETS: Mapping[str, Preset] = {
    preset.name: preset for preset in (example1(), stellar(), two_programs(), tiny(), thermal(), rough())
}
