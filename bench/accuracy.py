"""How right the products are: against the truth of simulated nights, beside Gemini's package and the goals.

    python bench/accuracy.py [--seeds N] [--preset NAME] [--night NAME] [--json]

Nights with their truth are kept in the data folder. Products are made in this process and its workers by
the recipes, without a daemon.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).parents[1])

from bench import common
from pipeline.simulate import PRESETS, Shot, simulate_night
from pipeline.simulate.runs import (
    FIVE,
    FS17,
    FS17_KPRIME,
    Preset,
    Run,
    at,
    dark_run,
    flat_runs,
    scaled,
    short_darks,
)
from pipeline.simulate.sky import Field
from pipeline.simulate.truth import Product, Truth
from pipeline.simulate.verify import check_products
from pipeline.simulate.verify_frames import check_frames

SEEDS = 3
STEPS = ("adjustWCSToReference", "scaleCountsToReference")  # after which frames are looked at
Record = dict[str, Any]


# -- nights -----------------------------------------------------------------------------------------------


def few_stars(rng: np.random.Generator) -> dict[str, Field]:
    """A standard alone in its field, one with a companion, and two faint stars."""
    ra, dec = FS17
    there = {"one": [(0.0, 0.0, FS17_KPRIME)]}
    there["two"] = [*there["one"], (12.0, -9.0, 14.5)]
    there["faint"] = [(0.0, 0.0, 14.5), (-11.0, 8.0, 15.0)]
    fields = {}
    for name, stars in there.items():
        east, north, mag = np.array(stars).T
        moved = east + rng.uniform(-3, 3, len(east)) * (mag > mag[0])
        fields[name] = Field(name, FS17, ra + moved / 3600 / np.cos(np.deg2rad(dec)), dec + north / 3600, mag)
    return fields


def sparse() -> Preset:
    """Fields with hardly a star, and darks in every read mode; 512 x 512."""
    base = Shot(shape=(512, 512), kind="standard", exposure=3.001, target=FS17, object_name="FS 17")
    dithers = scaled(FIVE, 1.4)
    dark = replace(base, observation=61)
    runs = [
        Run(replace(base, observation=30 + k, object_name=called), f"N20160115S{101 + 10 * k:04d}",
            at(f"2016-01-15T1{k}:20:05"), dithers, name, 7.5)
        for k, (name, called) in enumerate({"one": "FS 17", "two": "FS 17", "faint": "GSC 0814"}.items())
    ]  # fmt: skip
    modes = ("Low Background", "Medium Background", "High Background")
    darks = [
        dark_run(replace(dark, read_mode=mode, observation=70 + k), f"N20160115S{301 + 20 * k:04d}",
                 f"2016-01-15T18:{10 + 15 * k}:00", 10, 10.001)
        for k, mode in enumerate(modes)
    ]  # fmt: skip
    return Preset(
        "sparse",
        "standards in fields of one and two stars, darks of every read mode; 512 x 512",
        (
            *runs,
            *flat_runs(dark, "N20160115", 201, "2016-01-15T17:20:03", 10, 2.001),
            *darks,
            short_darks(base, "N20160116S0463", "2016-01-16T18:11:09", 10),
        ),
        few_stars,
        seed=20160115,
    )


NIGHTS = {name: PRESETS[name] for name in ("example1", "stellar", "two-programs")} | {"sparse": sparse()}
SMALL: dict[str, Any] = {"nights": ("tiny",), "seeds": 1, "presets": ("nirid",)}


def night(data: Path, name: str, number: int) -> Path:
    """The folder of a simulated night with its truth, written when it is not there."""
    folder = data / f"truth-{name}-{number:03d}"
    if not (folder / ".whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        plan = NIGHTS.get(name) or PRESETS[name]
        simulate_night(folder, plan, plan.seed + number)
        (folder / ".whole").touch()
    return folder


# -- products ---------------------------------------------------------------------------------------------


@dataclass
class Reduced:
    """kind : as verify names it; what : group of frames, for people"""

    kind: str
    what: str
    path: Path
    seen: dict[str, list[Any]]


def reduce_night(folder: Path, preset: str, work: Path) -> Iterator[Reduced]:
    """Every product of a night, calibrations first."""
    truth = Truth(folder)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, facts in truth.frames.items():
        kind = "flat" if facts["kind"].startswith("flat") else facts["kind"]
        who = facts["obsid"] if kind in ("object", "standard") else facts["filter"]
        setting = () if kind == "flat" else (facts["exptime"], facts["coadds"], facts["read_mode"])
        groups.setdefault((kind, who, *setting), []).append(name)
    flats = {key[1]: names for key, names in groups.items() if key[0] == "flat"}
    darks = {key[2:]: names for key, names in groups.items() if key[0] == "dark"}
    short = next(names for key, names in darks.items() if key[0] * key[1] <= 2)
    made: dict[Any, Path] = {}

    def run(kind: str, recipe: str, names: Sequence[str], cals: dict[str, Path], what: str) -> Reduced:
        files = [folder / f"{name}.fits" for name in sorted(names)]
        return _reduced(kind, recipe, files, cals, preset, work / f"{kind}-{len(list(work.iterdir()))}", what)

    for key, names in darks.items():
        if names is not short:
            yield (done := run("dark", "makeProcessedDark", names, {}, f"{key[2]}, {key[0]:g} s"))
            made[key] = done.path
    masks = {"static_bpm": next(folder.glob("bpm*"))}
    yield (done := run("bpm", "makeProcessedBPM", next(iter(flats.values())) + short, {}, ""))
    masks["processed_bpm"] = done.path
    for filt, names in flats.items():
        yield (done := run("flat", "makeProcessedFlat", names, masks, filt))
        made[filt] = done.path
    for (kind, _, *setting), names in groups.items():
        if kind in ("object", "standard"):
            facts = truth.frames[names[0]]
            cals = masks | {"processed_flat": made[facts["filter"]]}
            if dark := made.get(tuple(setting)):
                cals["processed_dark"] = dark
            what = f"{facts['field']}, {facts['filter']}"
            yield run("standard" if kind == "standard" else "science", "reduce", names, cals, what)


def _reduced(
    kind: str, recipe: str, files: list[Path], cals: dict[str, Path], preset: str, stem: Path, what: str
) -> Reduced:
    parameters: dict[str, Any] = {}
    if recipe == "reduce":
        if "processed_dark" not in cals:
            parameters["darkCorrect:do_cal"] = "skip"
        if preset == "dragons" and what.startswith("galaxy"):
            parameters["skyCorrect:scale_sky"] = False  # as the tutorial has it
    made = common.by_recipe(recipe, files, cals, stem, parameters, preset, STEPS)
    return Reduced(kind, what, made.path, made.seen)


def records(data: Path, name: str, number: int, preset: str) -> list[Record]:
    """Every figure of one night."""
    folder, found = night(data, name, number), []
    with common.scratch() as work:
        for done in reduce_night(folder, preset, work):
            checks = check_products(folder, {done.kind: done.path})
            if set(STEPS) <= done.seen.keys():
                more = check_frames(Truth(folder), *(done.seen[s] for s in STEPS), Product.read(done.path))
                checks += [c._replace(name=f"{done.kind}: {c.name}") for c in more]
            for c in checks:
                product, _, quantity = c.name.partition(": ")
                found.append(
                    {"night": name, "seed": number, "preset": preset, "product": product, "of": done.what,
                     "quantity": re.sub(r"\d+$", "n", quantity), "value": c.value, "low": c.low,
                     "high": c.high, "ok": c.ok}
                )  # fmt: skip
    return found


def measure(
    data: Path,
    nights: Sequence[str] = tuple(NIGHTS),
    seeds: int = SEEDS,
    presets: Sequence[str] = ("nirid", "dragons"),
) -> dict[str, Any]:
    """All figures, one record each, and the table of them."""
    common.compiled(data)
    chosen = [(data, name, number) for name in nights for number in range(seeds)]
    tasks = [(*one, preset) for one in chosen for preset in presets]
    found: list[Record] = []
    if len(tasks) == 1:
        found = records(*tasks[0])
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(common.processors(), context) as pool:
            list(pool.map(night, *zip(*chosen, strict=True)))
            for part in pool.map(records, *zip(*tasks, strict=True)):
                found += part
    rows = [_row(row, found) for row in ROWS]
    return {"nights": list(nights), "seeds": seeds, "rows": rows, "records": found}


# -- the table --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One quantity. name : as verify calls it; DRAGONS' figure and the goal as the reference states them"""

    title: str
    product: str
    name: str
    dragons: str
    goal: str
    of: str = ""

    def takes(self, record: Record) -> bool:
        pairs = ((self.product, "product"), (self.name, "quantity"), (self.of, "of"))
        return all(re.search(wanted, record[key]) for wanted, key in pairs)


IMAGE, FEW = "science|standard", "one|two|faint"
ROWS = (
    Row("dark: median residual, e-", "dark", "median residual", "+0.08", "0 +- 0.15"),
    Row("dark: pull, Medium and High background", "dark", "^pull", "0.95", "0.93 to 1.03", "Medium|High"),
    Row("dark: pull, Low background", "dark", "^pull", "0.74", "0.70 to 1.03", "Low"),
    Row("flat: median ratio to truth - 1", "flat", "median ratio", "2e-6", "0 +- 1e-5"),
    Row("flat: scatter of the ratio", "flat", "scatter", "0.0015", "as counts allow"),
    Row("flat: pull", "flat", "^pull", "0.975", "0.97 to 1.03"),
    Row("BPM: dead pixels found", "bpm", "dead", "all", "all"),
    Row("BPM: hot pixels found", "bpm", "hot", "all", "all"),
    Row("BPM: good pixels flagged", "bpm", "good", "0", "0"),
    Row("star flux / truth", IMAGE, "^star flux", "0.9987 to 1.004", "1 +- 0.002"),
    Row("scatter of star fluxes", IMAGE, "scatter of star", "0.009 to 0.012", "not larger"),
    Row("pull of star fluxes", IMAGE, "pull of star", "1.10 to 1.26", "0.90 to 1.10"),
    Row("offset of stars, pix", IMAGE, "offset of stars", "up to 0.08", "below 0.02"),
    Row("scatter of positions, pix", IMAGE, "scatter of pos", "0.010 to 0.016", "not larger"),
    Row("registration, 1 or 2 stars, pix", "standard", "registration", "0.7 to 2.5", "below 0.05", FEW),
    Row("registration, other fields, pix", IMAGE, "registration", "-", "below 0.05", f"^(?!{FEW})"),
    Row("background of star fields, e-", IMAGE, "^background$", "+0.07 to +0.30", "0 +- 0.1"),
    Row("worst box of 128 pixels, e-", IMAGE, "worst box", "1.3", "1", "^(?!galaxy)"),
    Row("background less drift, offset sky, e-", IMAGE, "drift", "-", "2 % of the drift"),
    Row("worst box, offset sky, e-", IMAGE, "worst box", "-", "1", "galaxy"),
    Row("pixel noise / sqrt(VAR) / NOISECOR", IMAGE, "pixel noise", "0.74", "0.95 to 1.05"),
    Row("noise of 8 x 8 blocks / predicted", IMAGE, "8 x 8", "0.76 to 0.96", "0.95 to 1.05"),
    Row("cosmic rays left", IMAGE, "cosmic", "all", "below 0.01"),
    Row("good samples rejected near stars", IMAGE, "near stars", "-", "below 0.001"),
    Row("good samples rejected on plain sky", IMAGE, "plain sky", "-", "below 0.001"),
    Row("zero point - true, mag", IMAGE, "zero point - true", "-", "0 +- 0.01"),
    Row("zero point, in its errors", IMAGE, "zero point in", "-", "honest"),
    Row("FWHM of single frames / true", IMAGE, "FWHM of single", "-", "0.97 to 1.03"),
    Row("FWHM of stacks / true", IMAGE, "FWHM of the stack", "-", "at most 1.05"),
)  # fmt: skip


def _row(row: Row, found: list[Record]) -> dict[str, Any]:
    """A row of the table: by preset the median, the extremes, and how many figures miss their limits."""
    answer: dict[str, Any] = {"title": row.title, "dragons_measured": row.dragons, "goal": row.goal}
    for preset in dict.fromkeys(r["preset"] for r in found):
        here = [r for r in found if r["preset"] == preset and row.takes(r)]
        values = [r["value"] for r in here]
        answer[preset] = {
            "figures": len(values),
            "missed": sum(not r["ok"] for r in here),
        }
        if values:
            median = float(np.median(values))
            answer[preset] |= {"median": median, "least": min(values), "most": max(values)}
    return answer


def tables(answer: dict[str, Any]) -> list[common.Table]:
    presets = list(dict.fromkeys(r["preset"] for r in answer["records"]))
    columns = ["quantity", "DRAGONS", "goal"]
    for preset in presets:
        columns += [preset, "from", "to", "missed"]
    rows = []
    for row in answer["rows"]:
        cells = [row["title"], row["dragons_measured"], row["goal"]]
        for preset in presets:
            part = row[preset]
            cells += [part.get(key, "-") for key in ("median", "least", "most")]
            cells.append(f"{part['missed']} of {part['figures']}")
        rows.append(cells)
    title = f"{', '.join(answer['nights'])}; {answer['seeds']} seeds each"
    missed = [
        [f"{r['night']} {r['seed']}", r["product"], r["of"], r["quantity"], r["value"],
         f"{r['low']:.4g} to {r['high']:.4g}"]
        for r in answer["records"] if not r["ok"] and r["preset"] == "nirid"
    ]  # fmt: skip
    return [
        (title, columns, rows),
        ("missed by preset nirid", ("night", "product", "of", "quantity", "value", "limits"), missed),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"nights of each kind ({SEEDS})")
    parser.add_argument("--night", action="append", choices=[*NIGHTS, "tiny"], help="only this, repeatable")
    parser.add_argument("--preset", action="append", choices=("nirid", "dragons"), help="only this one")
    parser.add_argument("--data", type=Path, default=Path("run/bench/data"), help="nights are kept here")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the tables")
    chosen = parser.parse_args()
    answer = measure(
        chosen.data.absolute(),
        tuple(chosen.night or NIGHTS),
        chosen.seeds,
        tuple(chosen.preset or ("nirid", "dragons")),
    )
    if chosen.json:
        print(json.dumps(answer, indent=1))
    else:
        print(*(common.table(*one) for one in tables(answer)), sep="\n")


if __name__ == "__main__":
    main()
