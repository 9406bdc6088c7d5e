"""Nights in which one thing is wrong: what the products are then, beside what they must be.

    python bench/rough.py [--seeds N] [--row NAME] [--json]

Sequences of nine frames with known truth and one fault, reduced by the recipe in this process. A figure
holds at its limit or within three of its own errors. Rows of standards and lamps run the daemon.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).parents[1])

from bench import common
from bench.roughfigures import (
    Figure,
    Outcome,
    fluxes,
    left_out,
    places,
    reduced,
    registration,
    same_as,
    stars_in_place,
    transparencies,
    typical_registration,
    unchanged,
)
from bench.roughimages import extended, gradients, nodded
from bench.roughnights import DITHER, FAINT, GALAXIES, NINE, Case, calibrations, scaled
from bench.roughstandards import LAMPS, SECOND, lamp_names, standards
from pipeline.simulate import Fault, Motion
from pipeline.simulate.faults import drifting_gradient, nods
from pipeline.simulate.verify import check_products

SEEDS = 3
SMALL: dict[str, Any] = {"seeds": 1, "rows": ("clean",)}
Measure = Callable[[Outcome], Iterator[Figure]]


@dataclass(frozen=True)
class Row:
    """A row of the table: its cases, and what is measured of each."""

    title: str
    cases: tuple[Case, ...]
    measure: Callable[[Case, int, Mapping[str, Path], Path], Iterator[Figure]]


def simply(*parts: Measure) -> Callable[[Case, int, Mapping[str, Path], Path], Iterator[Figure]]:
    """Reduce once, and measure this of it."""

    def measure(case: Case, number: int, cals: Mapping[str, Path], work: Path) -> Iterator[Figure]:
        outcome = reduced(case, number, cals, work)
        for part in parts:
            yield from part(outcome)

    return measure


def good(outcome: Outcome) -> Iterator[Figure]:
    """All that a clean sequence reaches."""
    yield from registration(outcome, 0.05)
    yield from fluxes(outcome)
    yield from stars_in_place(outcome, 0.02)
    for check in check_products(outcome.truth.folder, {"science": outcome.product.path}):
        if any(part in check.name for part in ("noise", "worst box", "star flux /", "background")):
            half = (check.high - check.low) / 2
            middle = (check.high + check.low) / 2
            yield Figure(outcome.case.name, check.name, check.value - middle, half)


def beside_without(case: Case, number: int, cals: Mapping[str, Path], work: Path) -> Iterator[Figure]:
    """A frame without light: as if it had not been there."""
    outcome = reduced(case, number, cals, work)
    other = reduced(case, number, cals, work, without=case.victims)
    yield from left_out(outcome)
    yield from same_as(outcome, other)
    yield unchanged(outcome, other)


def not_the_reference(outcome: Outcome) -> Iterator[Figure]:
    found = places(outcome)
    wrong = [name for name in outcome.case.victims if name in found and found[name].how == "reference"]
    yield Figure(outcome.case.name, "the reference is a spoilt frame", len(wrong), 0)


def without_them(outcome: Outcome) -> Iterator[Figure]:
    """Trailed and double frames: left out as objects; the rest as good as ever."""
    inputs = outcome.product.inputs()
    kept = [name for name in outcome.case.victims if name in inputs]
    yield Figure(outcome.case.name, "used against the table", len(kept), 0)
    unsaid = [name for name in outcome.case.victims if not outcome.noted(name)]
    yield Figure(outcome.case.name, "not noted with figure and limit", len(unsaid), 0)


def noted(outcome: Outcome) -> Iterator[Figure]:
    unsaid = [name for name in outcome.case.victims if not outcome.noted(name)]
    yield Figure(outcome.case.name, "not noted with figure and limit", len(unsaid), 0)


def by_truth(limit: float) -> Measure:
    return lambda outcome: registration(outcome, limit)


SPOILT = (by_truth(0.1), fluxes, not_the_reference, lambda o: stars_in_place(o, 0.05))
TRAILS = (3.0, 8.0, 15.0)
ERRORS = (10.0, 40.0, 80.0, 150.0, 250.0)


def _at(place: int) -> str:
    return {0: "first", 4: "middle"}.get(place, f"{place}")


def _dead() -> tuple[Case, ...]:
    dead = Fault(dead=True)
    four = DITHER[:4]
    return (
        *(Case(f"dead, {_at(k)} of 9", {k: dead}) for k in (4, 0)),
        Case("dead, 1 of 4", {2: dead}, offsets=four),
        Case("dead, of 6 with 6 skies", {2: dead}, "galaxy 30", DITHER[:6], skies=6),
        Case("dead sky, of 6 with 6 skies", {8: dead}, "galaxy 30", DITHER[:6], skies=6),
        Case("dead, standard, 1 of 5", {1: dead}, offsets=DITHER[:5], kind="standard"),
    )


def _clouds() -> tuple[Case, ...]:
    found = []
    for mag in (0.4, 0.8, 1.5, 2.0, 3.0):
        cloud = Fault(cloud=mag)
        found.append(Case(f"cloud {mag}, one frame", {4: cloud}))
        found.append(Case(f"cloud {mag}, all but one", {k: cloud for k in range(9) if k != 5}))
    return tuple(found)


def _spoilt(fault: Callable[[int], Fault], name: str) -> tuple[Case, ...]:
    return tuple(Case(f"{name}, {_at(k)}", {k: fault(k)}) for k in (4, 0))


def _trails() -> tuple[Case, ...]:
    found: tuple[Case, ...] = ()
    for length in TRAILS:
        found += _spoilt(lambda k, n=length: Fault(trail=n, trail_angle=25.0 + 30 * k), f"trail {length:g}")  # type: ignore[misc]
    return found


def _doubles() -> tuple[Case, ...]:
    found: tuple[Case, ...] = ()
    for apart, share in (((9.0, 4.0), 0.5), ((6.0, 3.0), 0.35)):
        found += _spoilt(
            lambda k, d=apart, s=share: Fault(double=d, share=s),
            f"double {np.hypot(*apart):.0f} pix, {share:g}",  # type: ignore[misc]
        )
    return found


def _headers() -> tuple[Case, ...]:
    found: tuple[Case, ...] = ()
    for size in ERRORS:
        wrong = Fault(header=(float(0.8 * size), float(-0.6 * size)))
        found += _spoilt(lambda k, w=wrong: w, f"header {size:g} pix")  # type: ignore[misc]
    return found


def _movers() -> tuple[Case, ...]:
    """2 arcsec a frame, passing a brighter star of the field at some place."""
    rate = (150.0, -90.0)
    return tuple(
        Case(f"moving, {follows} follow", what="mover", motion=Motion(rate, 16.0, (2.0, 1.0), follows))
        for follows in ("telescope", "offsets")
    )


def faint_star(outcome: Outcome) -> Iterator[Figure]:
    if outcome.case.what == "faint 5":  # may not be found; then by offsets, and said so
        yield from registration(outcome, 1.0)
        return
    yield typical_registration(outcome, 0.15)
    yield from list(registration(outcome))[1:]


def mover(outcome: Outcome) -> Iterator[Figure]:
    worst = max(place.off for place in places(outcome).values())
    yield Figure(outcome.case.name, "registration of the target, farthest frame, pix", worst, 0.15)
    yield from list(registration(outcome))[2:]


SKIES = tuple(
    Case(name, {4: fault})
    for name, fault in (
        ("saturated", Fault(saturated=True)), ("sky doubled", Fault(sky=2.0)), ("sky halved", Fault(sky=0.5))
    )
)  # fmt: skip
NODS = tuple(Case(f"nods {pattern}", offsets=nods(pattern * 2, (18.0, 6.0))) for pattern in ("ABAB", "ABBA"))
DRIFTS = tuple(Case(f"gradient {100 * change:g} %", drifting_gradient(9, change)) for change in (0.01, 0.04))

ROWS = (
    Row("clean", (Case("clean"),), simply(good, transparencies)),
    Row("dead frame", _dead(), beside_without),
    Row("saturated, other sky", SKIES, simply(good)),
    Row("cloud", _clouds(), simply(by_truth(0.1), fluxes, transparencies, noted)),
    Row("header", _headers(), simply(by_truth(0.1), fluxes, lambda o: stars_in_place(o, 0.05))),
    Row("trail", _trails(), simply(without_them, *SPOILT)),
    Row("double", _doubles(), simply(without_them, *SPOILT)),
    Row("blur", _spoilt(lambda k: Fault(blur=2.5), "blur 2.5"), simply(noted, *SPOILT)),
    Row("galaxy", tuple(Case(n, what=n, offsets=scaled(NINE, 1.1)) for n in GALAXIES), simply(extended)),
    Row("nods", NODS, simply(by_truth(0.1), nodded)),
    Row("moving target", _movers(), simply(mover)),
    Row("faint star", tuple(Case(name, what=name) for name in FAINT), simply(faint_star)),
    Row("gradient", DRIFTS, simply(gradients)),
    Row("standards", tuple(map(Case, SECOND)), standards),
    Row("lamp names", tuple(map(Case, LAMPS)), lamp_names),
)  # fmt: skip
NAMES = tuple(row.title for row in ROWS)


def figures(data: Path, row: str, case: str, number: int) -> list[dict[str, Any]]:
    """All of one case of one night."""
    chosen = next(r for r in ROWS if r.title == row)
    one = next(c for c in chosen.cases if c.name == case)
    with common.scratch() as work:
        try:
            found = list(chosen.measure(one, number, calibrations(data, number), work))
        except Exception as error:  # a recipe that fails is a finding of its own
            found = [Figure(case, f"{type(error).__name__}: {error}"[:90], np.inf, 0)]
    return [{"row": row, "seed": number, "ok": f.ok, **f._asdict()} for f in found]


def measure(data: Path, seeds: int = SEEDS, rows: Sequence[str] = NAMES) -> dict[str, Any]:
    """Every figure, one record each."""
    common.compiled(data)
    for number in range(seeds):
        calibrations(data, number)
    tasks = [
        (data, row.title, case.name, number)
        for row in ROWS
        if row.title in rows
        for case in row.cases
        for number in range(seeds)
    ]
    found: list[dict[str, Any]] = []
    if len(tasks) <= 2:
        for task in tasks:
            found += figures(*task)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(common.processors(), context) as pool:
            for part in pool.map(figures, *zip(*tasks, strict=True)):
                found += part
    return {"seeds": seeds, "rows": list(rows), "records": found}


def tables(answer: dict[str, Any]) -> list[common.Table]:
    """A line for each case and quantity: the worst of the seeds."""
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in answer["records"]:
        lines.setdefault((record["case"], record["what"]), []).append(record)
    rows = []
    for (case, what), records in lines.items():
        worst = max(records, key=lambda r: (not r["ok"], abs(r["value"])))
        missed = sum(not r["ok"] for r in records)
        answer_of = "ok" if not missed else f"MISSED {missed} of {len(records)}"
        rows.append([case, what, worst["limit"], worst["value"], answer_of])
    failed = sum(row[-1] != "ok" for row in rows)
    title = f"one thing wrong; {answer['seeds']} seeds; {failed} of {len(rows)} lines missed"
    return [(title, ("case", "what", "limit", "measured", "ok"), rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"nights of each kind ({SEEDS})")
    parser.add_argument("--row", action="append", choices=NAMES, help="only this one, repeatable")
    parser.add_argument(
        "--data", type=Path, default=Path("run/bench/data"), help="calibrations are kept here"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    chosen = parser.parse_args()
    answer = measure(chosen.data.absolute(), chosen.seeds, tuple(chosen.row or NAMES))
    if chosen.json:
        print(json.dumps(answer, indent=1))
    else:
        print(*(common.table(*one) for one in tables(answer)), sep="\n")


if __name__ == "__main__":
    main()
