"""Rows of the bench of rough nights that need the daemon: standards that disagree, lamps that are named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import common
from bench.roughfigures import Figure
from bench.roughnights import SEED, Case
from pipeline.simulate import Fault, Preset, Run, Shot, simulate_night
from pipeline.simulate.runs import FIVE, FS17, FS17_KPRIME, at, dark_run, flat_runs, scaled, short_darks
from pipeline.simulate.sky import Field, random_stars
from pipeline.simulate.truth import Product, Truth

NIGHT = "N20160122"
SECOND = {  # what all frames of the second standard, the nearer one, are like
    "standards: clean": Fault(),
    "standards: 0.4 mag of cloud": Fault(cloud=0.4),
    "standards: 0.17 mag of cloud": Fault(cloud=0.17),
    "standards: 0.5 mag too bright": Fault(cloud=-0.5),
}
LAMPS = {"lamp names": True, "no lamp-off": False}  # whether there are lamp-off frames


def _fields(rng: np.random.Generator) -> dict[str, Field]:
    ra, dec, mag = random_stars(rng, FS17, count=9, radius=35.0, brightest=15.5, faintest=18.5)
    ra[0], dec[0], mag[0] = *FS17, FS17_KPRIME
    target = (FS17[0] + 1.0, FS17[1])
    stars = random_stars(rng, target, count=80, radius=45.0, brightest=13.5, faintest=19.0)
    return {"FS 17": Field("FS 17", FS17, ra, dec, mag), "stars": Field("stars", target, *stars)}


BASE = Shot(shape=(512, 512), target=(FS17[0] + 1.0, FS17[1]), port=3, program="GN-2015B-Q-907",
            observation=21, object_name="SIM-ROUGH 2")  # fmt: skip


def _science(number: int = 101) -> Run:
    return Run(BASE, f"{NIGHT}S{number:04d}", at("2016-01-22T12:20:11"), scaled(FIVE, 0.9), "stars", 8.0)


def _calibrations(lamp: Sequence[Run]) -> tuple[Run, ...]:
    other = replace(BASE, observation=61)
    return (
        *lamp,
        dark_run(other, f"{NIGHT}S0423", "2016-01-22T18:02:00", 3, 20.002),
        short_darks(BASE, "N20160123S0463", "2016-01-23T18:11:09", 3),
    )


def standards(case: Case, number: int, cals: Mapping[str, Path], work: Path) -> Iterator[Figure]:
    """Two sequences of one standard, of which the second is spoilt: what the science takes, and says."""
    shot = replace(BASE, kind="standard", exposure=3.001, target=FS17, object_name="FS 17", observation=34)
    five = scaled(FIVE, 0.9)
    spoilt = dict.fromkeys(range(5), SECOND[case.name])
    runs = (
        Run(shot, f"{NIGHT}S0050", at("2016-01-22T11:50:05"), five, "FS 17", 7.5),
        Run(replace(shot, observation=35), f"{NIGHT}S0060", at("2016-01-22T12:12:05"), five, "FS 17", 7.5,
            faults=spoilt),
        _science(),
        *_calibrations(flat_runs(replace(BASE, observation=61), NIGHT, 363, "2016-01-22T17:20:03", 5, 2.001)),
    )  # fmt: skip
    night, made = _run(Preset(case.name, "", runs, _fields, SEED + number), work)
    truth = Truth(night)
    first, second, science = (_product_of(made, f"{NIGHT}S{n:04d}") for n in (50, 60, 101))
    if science is None or first is None or second is None:
        yield Figure(case.name, "products missing", 1, 0)
        return
    wanted = (first, second) if case.name == "standards: clean" else (first,)
    value, error = science.phu.get("MAGZPT"), float(science.phu.get("MAGZERR", np.inf))
    if not isinstance(value, float):
        yield Figure(case.name, "science without a zero point", 1, 0)
        return
    true = float(np.mean([zero_point(truth, product) for product in wanted]))
    yield Figure(case.name, "zero point of the science - true, mag", value - true, 0.02, error)
    taken = str(science.phu.get("ZPIMAGE", ""))
    if case.name != "standards: clean":
        yield Figure(case.name, "the spoilt standard is taken", int(second.path.stem in taken), 0)
        yield Figure(
            case.name, "the spoilt standard is not named", int(second.path.stem not in notes(science)), 0
        )
    if "bright" in case.name:
        banded = int("CCBIN" in second.phu)
        yield Figure(case.name, "cloud band of an impossible zero point", banded, 0)
        yield Figure(case.name, "nothing said of it", int("zero point" not in notes(second)), 0)


def zero_point(truth: Truth, product: Product) -> float:
    """The true one of a standard's frames."""
    frames = [truth.frames[name] for name in product.inputs()]
    field = next(f for f in truth.facts["fields"] if f["field"] == frames[0]["field"])
    clear = float(np.mean([frame["cloud_transparency"] for frame in frames]))
    flat = truth.image("flat", frames[0]["roi"])
    level = 1.0 if flat is None else float(np.median(flat))
    return float(field["zeropoint_e"] + 2.5 * np.log10(clear * level))


def lamp_names(case: Case, number: int, cals: Mapping[str, Path], work: Path) -> Iterator[Figure]:
    """Lamp-on frames of a quartz lamp, lamp-off ones that name the grey body, or none at all."""
    off, on = flat_runs(replace(BASE, observation=61), NIGHT, 363, "2016-01-22T17:20:03", 5, 2.001)
    on = replace(on, shot=on.shot.with_cards(GCALLAMP="QH"))
    runs = (_science(), *_calibrations((off, on) if LAMPS[case.name] else (on,)))
    _, made = _run(Preset(case.name, "", runs, _fields, SEED + number), work)
    flats = [product for product in made if product.path.stem.endswith("_flat")]
    yield Figure(case.name, "flats made, less one", len(flats) - 1, 0)
    science = _product_of(made, f"{NIGHT}S0101")
    yield Figure(case.name, "science missing", int(science is None), 0)
    if science is not None and not LAMPS[case.name]:
        yield Figure(
            case.name, "science silent about lamp-off frames", int("lamp off" not in notes(science)), 0
        )


def _run(plan: Preset, work: Path) -> tuple[Path, list[Product]]:
    """(the night, every product that the daemon made of it)."""
    night = work / "night"
    simulate_night(night, plan)
    common.until_idle(night, work / "run", common.processors())
    return night, [Product.read(path) for path in sorted((work / "run" / "products").rglob("*.fits"))]


def _product_of(made: Sequence[Product], first: str) -> Product | None:
    """The stack of the sequence that begins with a frame; of which the daemon may leave out the first."""
    names = {f"{first[:10]}{int(first[10:]) + k:04d}_image" for k in range(3)}
    return next((p for p in made if p.path.stem in names), None)


def notes(product: Product) -> str:
    return " ".join(str(line) for line in product.phu.get("HISTORY", []))
