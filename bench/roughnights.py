"""Nights in which one thing is wrong: sequences of nine frames in J, 512 x 512, and their calibrations."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bench import common
from pipeline.simulate import Fault, Motion, Preset, Run, Shot, simulate_night
from pipeline.simulate.runs import NINE, Offsets, at, dark_run, flat_runs, scaled, shifted, short_darks
from pipeline.simulate.sky import Field, Galaxy, random_stars

TARGET = (83.1250, 34.1400)
BASE = Shot(shape=(512, 512), target=TARGET, port=3, pa=30.0, filter="J", exposure=30.001,
            program="GN-2015B-Q-906", observation=12, object_name="SIM-ROUGH")  # fmt: skip
DITHER = scaled(NINE, 0.8)
SEED = 20160120
NIGHT = "N20160120"
FULL_WIDTH = 59.6  # arcsec that the array sees
FAINT = {
    "faint 25": 25.0,
    "faint 15": 15.0,
    "faint 10": 10.0,
    "faint 5": 5.0,
}  # S/N in a frame, aperture of 10 pixels
GALAXIES = {"galaxy 30": 0.30, "galaxy 60": 0.60}  # share of the field that it fills


@dataclass(frozen=True)
class Case:
    """A sequence, and what is wrong with it.

    faults : by the place in the sequence;  skies : so many frames follow on a field beside the target, their
        places go on counting
    """

    name: str
    faults: Mapping[int, Fault] = field(default_factory=dict)
    what: str = "stars"
    offsets: Offsets = DITHER
    skies: int = 0
    motion: Motion | None = None
    kind: str = "object"

    @property
    def victims(self) -> list[str]:
        return [frame_name(place) for place in self.faults]


def frame_name(place: int) -> str:
    return f"{NIGHT}S{101 + place:04d}"


def fields(rng: np.random.Generator) -> dict[str, Field]:
    """Fields of one target: stars, one star, a galaxy."""
    ra, dec, mag = random_stars(
        rng, TARGET, count=150, radius=46.0, brightest=13.6, faintest=19.5, around=((0.0, 0.0), (-200.0, 0.0))
    )
    found = {"stars": Field("stars", TARGET, ra, dec, mag)}
    few = np.hypot((ra - TARGET[0]) * 3600 * np.cos(np.deg2rad(TARGET[1])), (dec - TARGET[1]) * 3600) < 60
    few &= np.arange(len(ra)) % 4 == 0
    for name, share in GALAXIES.items():
        galaxy = disc(share)
        found[name] = Field(name, TARGET, ra[few], dec[few], mag[few], galaxy)
    # For a target that moves: a star of magnitude 14 in its way.
    beside = TARGET[0] + 3.5 / 3600 / np.cos(np.deg2rad(TARGET[1])), TARGET[1] + 2.5 / 3600, 14.0
    far = np.hypot((ra - TARGET[0]) * 3600 * np.cos(np.deg2rad(TARGET[1])), (dec - TARGET[1]) * 3600) > 15
    found["mover"] = Field(
        "mover",
        TARGET,
        *(np.append(column[far], one) for column, one in zip((ra, dec, mag), beside, strict=True)),
    )
    here = TARGET[0] + rng.uniform(-1, 1) / 3600, TARGET[1] + rng.uniform(-1, 1) / 3600
    for name, ratio in FAINT.items():
        found[name] = Field(name, TARGET, *(np.array([v]) for v in (*here, magnitude_of(ratio))))
    return found


def disc(share: float) -> Galaxy:
    """A disc that is brighter than 2 percent of the sky over a share of the field."""
    mu0 = 15.5 - 2.5 * np.log10(0.6)  # 0.6 of the sky
    axis = 0.7
    reach = np.sqrt(share * FULL_WIDTH**2 / (np.pi * axis))
    return Galaxy(float(mu0), float(reach / np.log(0.6 / 0.02)), 1 - axis, 40.0)


def magnitude_of(ratio: float) -> float:
    """Magnitude of a star with this S/N in one frame, in an aperture of 10 pixels, which holds 0.96 of it."""
    sky = 30.0 * 408.0 + 35.0**2  # variance of a pixel, electrons
    return float(26.69 - 2.5 * np.log10(ratio * np.sqrt(sky * np.pi * 10.0**2) / 0.96 / 30.0))


def plan(case: Case, number: int) -> Preset:
    shot = replace(BASE, kind=case.kind, observation=12 if case.kind == "object" else 13)
    runs = [
        Run(shot, frame_name(0), at("2016-01-20T07:40:20"), case.offsets, case.what, 13.0,
            faults=case.faults, motion=case.motion)
    ]  # fmt: skip
    if case.skies:
        first = len(case.offsets)
        offsets = shifted(DITHER[: case.skies], -200.0, 0.0)
        faults = {place - first: fault for place, fault in case.faults.items() if place >= first}
        start = at("2016-01-20T07:48:20")
        runs.append(Run(shot, frame_name(first), start, offsets, case.what, 13.0, 1 + first, faults))
    return Preset(case.name, case.name, tuple(runs), fields, SEED + number)


def science(folder: Path, case: Case, number: int) -> Path:
    """The night of a case, written into a folder."""
    simulate_night(folder, plan(case, number))
    return folder


def calibrations(data: Path, number: int) -> dict[str, Path]:
    """Products of clean calibration frames by role, made when they are not there."""
    folder = data / f"rough-calibrations-{number:03d}"
    made = {
        "static_bpm": folder / "bpm_20010317_niri_niri_11_full_1amp.fits",
        "processed_dark": folder / "products" / "dark.fits",
        "processed_bpm": folder / "products" / "bpm.fits",
        "processed_flat": folder / "products" / "flat.fits",
    }
    if (folder / ".whole").exists():
        return made
    shutil.rmtree(folder, ignore_errors=True)
    night = calibration_night(folder, number)
    (folder / "products").mkdir()
    lamps, darks, short = night

    def make(recipe: str, files: list[Path], known: dict[str, Path]) -> None:
        common.by_recipe(recipe, files, known, folder / "products" / recipe[13:].lower())

    make("makeProcessedDark", darks, {})
    masks = {"static_bpm": made["static_bpm"]}
    make("makeProcessedBPM", lamps + short, masks)
    make("makeProcessedFlat", lamps, masks | {"processed_bpm": made["processed_bpm"]})
    (folder / ".whole").touch()
    return made


def calibration_night(folder: Path, number: int) -> tuple[list[Path], list[Path], list[Path]]:
    """(lamps off and on, darks, short darks), five frames of each and ten darks."""
    other = replace(BASE, observation=41)
    runs = (
        *flat_runs(other, NIGHT, 220, "2016-01-20T17:05:10", 5, 4.001),
        dark_run(other, f"{NIGHT}S0260", "2016-01-20T17:40:00", 10, 30.001),
        short_darks(BASE, "N20160121S0301", "2016-01-21T18:00:30", 5),
    )
    simulate_night(folder, Preset("rough-calibrations", "", runs, fields, SEED + number))
    files = [
        [folder / f"{name}.fits" for name in _names(run)]
        for run in (runs[0], runs[1], runs[2], runs[3])
    ]  # fmt: skip
    return files[0] + files[1], files[2], files[3]


def _names(run: Run) -> list[str]:
    return [f"{run.first[:10]}{int(run.first[10:]) + k:04d}" for k in range(len(run.offsets))]
