"""How often the registration by sources is right, silent, and wrong: on catalogues whose shift is known.

Three kinds of catalogues: "plain", stars of one field and what of them the shifted, clouded image still
shows; "rough", where stars enter with the shift, sources are blended, doubled, missed or made of noise, and
positions have outliers; and "clumped", the same of clusters. An answer is wrong where it is off by more than
5 claimed errors + 0.05 pixel.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import common
from pipeline.algorithms.matching import Points, match_sources

SMALL: dict[str, Any] = {"trials": 40}
DEPTH = 6.2  # magnitudes between the brightest star and the faintest that is detected
ERROR = 0.03  # pixels, of a coordinate
RADIUS = 4.27  # pixels, 0.5 arcsec with f/6
NEAR = 42.7  # pixels, 5 arcsec
COMMON = (0, 1, 2, 3, 6, 12)  # classes of the number of sources that both frames show, from
Row = dict[str, Any]


def measure(data: Path, trials: int = 10_000, seed: int = 1, proposal: str = "evidence") -> dict[str, Any]:
    """trials : of each kind; proposal : of `match_sources`

    Each trial has 1 to 100 stars, 0 to 3 mag of cloud in either frame, 0 to 500 pixels of shift; fields have
    512 or 1024 pixels a side; most searches reach across the field, the others 5 arcsec.
    """
    rows = []
    for number, kind in enumerate(KINDS):
        rng = np.random.default_rng([seed, number])
        rows += [trial(rng, kind, proposal) for _ in range(trials)]
    wrong = [row for row in rows if row["answer"] == "wrong"]
    return {"trials": trials, "proposal": proposal, "classes": summary(rows), "wrong": wrong}


def trial(rng: np.random.Generator, kind: str, proposal: str = "evidence") -> Row:
    """One pair of catalogues and what came of it."""
    size = int(rng.choice([512, 1024]))
    stars, cloud = int(rng.integers(1, 101)), float(rng.uniform(0, 3))
    # A third as most nights have it, nearly half within half the field, the rest anywhere.
    most = float(rng.choice([20.0, 0.5 * size, 500.0], p=[0.3, 0.5, 0.2]))
    away, angle = float(rng.uniform(0, most)), float(rng.uniform(0, 2 * math.pi))
    shift = away * math.cos(angle), away * math.sin(angle)
    search = 0.75 * size if rng.random() < 0.7 else NEAR
    first, second, both = KINDS[kind](rng, stars, cloud, shift, size)
    if rng.random() < 0.5:  # the cloud was before the reference
        first, second, shift = second, first, (-shift[0], -shift[1])
    began = time.process_time()
    found = match_sources(
        first, second, search=search, radius=RADIUS, shape=(size, size),
        proposal=proposal,  # type: ignore[arg-type]
    )  # fmt: skip
    row: Row = {
        "kind": kind, "size": size, "stars": stars, "cloud": cloud, "shift": away, "common": both,
        "sources": [int(first.x.size), int(second.x.size)], "within": away <= search, "answer": "none",
        "seconds": time.process_time() - began,
    }  # fmt: skip
    if found is not None:
        off = math.hypot(found.dx - shift[0], found.dy - shift[1])
        row |= {"off": off, "error": found.error, "number": found.number, "chance": found.chance}
        row["answer"] = "right" if off <= 5 * found.error + 0.05 else "wrong"
    return row


def plain(
    rng: np.random.Generator, stars: int, cloud: float, shift: tuple[float, float], size: int
) -> tuple[Points, Points, int]:
    """(reference, image, sources in common): the image shows what stays in the field above the limit."""
    flux = _fluxes(rng, stars)
    x, y = rng.uniform(0, size, (2, stars))
    dimmed = flux * 10 ** (-0.4 * cloud)
    u, v = x + shift[0] + rng.normal(0, ERROR, stars), y + shift[1] + rng.normal(0, ERROR, stars)
    seen = (dimmed > 1.0) & (u > 0) & (u < size) & (v > 0) & (v < size)
    errors = np.full(stars, ERROR)
    first = Points(x, y, errors, flux)
    return first, Points(u[seen], v[seen], errors[seen], dimmed[seen]), int(seen.sum())


def rough(
    rng: np.random.Generator, stars: int, cloud: float, shift: tuple[float, float], size: int
) -> tuple[Points, Points, int]:
    """The same with all that catalogues of real frames have besides."""
    wide = size + 2 * max(map(abs, shift))
    total = max(1, round(stars * (wide / size) ** 2))
    flux = _fluxes(rng, total) * 0.5  # fainter than the limit too
    x, y = rng.uniform(-0.5 * (wide - size), 0.5 * (wide + size), (2, total))
    first, one = _catalogue(rng, x, y, flux, size)
    second, two = _catalogue(rng, x + shift[0], y + shift[1], flux * 10 ** (-0.4 * cloud), size)
    return first, second, len(one & two)


def clumped(
    rng: np.random.Generator, stars: int, cloud: float, shift: tuple[float, float], size: int
) -> tuple[Points, Points, int]:
    """Rough catalogues of clusters, whose crowds lie on one another by any shift that lays the clumps so."""
    clumps = int(rng.integers(1, 4))
    total = 2 * stars
    centres, which = rng.uniform(0.1 * size, 0.9 * size, (clumps, 2)), rng.integers(0, clumps, total)
    x, y = (centres[which] + rng.normal(0, rng.uniform(0.03, 0.15) * size, (total, 2))).T
    flux = _fluxes(rng, total) * 0.5
    first, one = _catalogue(rng, x, y, flux, size)
    second, two = _catalogue(rng, x + shift[0], y + shift[1], flux * 10 ** (-0.4 * cloud), size)
    return first, second, len(one & two)


def _fluxes(rng: np.random.Generator, count: int) -> Any:
    magnitude = np.log10(1 + rng.random(count) * (10 ** (0.25 * DEPTH) - 1)) / 0.25
    return 10 ** (0.4 * (DEPTH - magnitude))


def _catalogue(rng: np.random.Generator, x: Any, y: Any, flux: Any, size: int) -> tuple[Points, set[int]]:
    """What one frame shows of stars: noise, misses, doubles, sources that are none; and which stars."""
    noise = 0.1 * np.sqrt(flux + 1)  # signal to noise 10 at the limit
    measured = flux + rng.normal(0, 1, flux.size) * np.maximum(noise, 0.03 * flux)
    inside = (x > 0) & (x < size) & (y > 0) & (y < size)
    seen = inside & (measured > rng.normal(1.0, 0.1, flux.size)) & (rng.random(flux.size) > 0.05)
    error = ERROR * np.maximum(1.0, 5 * noise / flux)
    u, v = x + rng.normal(0, 1, flux.size) * error, y + rng.normal(0, 1, flux.size) * error
    astray = rng.random(flux.size) < 0.05
    u, v = (
        np.where(astray, u + rng.normal(0, 0.5, flux.size), u),
        np.where(astray, v + rng.normal(0, 0.5, flux.size), v),
    )
    lists = [np.column_stack([u, v, error, measured])[seen]]
    twice = seen & (rng.random(flux.size) < 0.08)
    aside, turn = rng.uniform(3, 10, twice.sum()), rng.uniform(0, 2 * np.pi, twice.sum())
    lists.append(np.column_stack([
        u[twice] + aside * np.cos(turn), v[twice] + aside * np.sin(turn),
        np.full(twice.sum(), 0.1), measured[twice] * rng.uniform(0.05, 0.8, twice.sum()),
    ]))  # fmt: skip
    others = rng.poisson(0.1 * seen.sum() + 0.3)
    lists.append(np.column_stack([
        *rng.uniform(0, size, (2, others)), np.full(others, 0.1), 0.8 + rng.exponential(1.0, others),
    ]))  # fmt: skip
    table = np.concatenate(lists)
    return Points(*table.T), set(np.flatnonzero(seen).tolist())


KINDS = {"plain": plain, "rough": rough, "clumped": clumped}


def summary(rows: list[Row]) -> list[Row]:
    """Right, none and wrong by kind and by the number of sources in common."""
    out = []
    for kind in KINDS:
        for low, high in zip(COMMON, (*COMMON[1:], math.inf), strict=True):
            some = [r for r in rows if r["kind"] == kind and low <= r["common"] < high]
            out.append(
                {"kind": kind, "common": f"{low} or more" if math.isinf(high) else f"{low} to {high - 1:g}"}
                | _counts(some)
            )
        out.append({"kind": kind, "common": "all"} | _counts([r for r in rows if r["kind"] == kind]))
    return out


def _counts(rows: list[Row]) -> Row:
    reachable = [r for r in rows if r["within"] and half(r)]
    right = [r for r in rows if r["answer"] == "right"]
    # Of a Gaussian error in each coordinate the median distance is 1.18 of it.
    pulls = [r["off"] / 1.1774 / r["error"] for r in right]
    return {
        "trials": len(rows),
        "right": len(right),
        "none": sum(r["answer"] == "none" for r in rows),
        "wrong": sum(r["answer"] == "wrong" for r in rows),
        "half common": len(reachable),
        "right of them": sum(r["answer"] == "right" for r in reachable),
        "pull": round(float(np.median(pulls)), 2) if pulls else None,
        "ms": round(1e3 * float(np.mean([r["seconds"] for r in rows])), 1) if rows else None,
    }


def half(row: Row) -> bool:
    """At least half of the sources of the poorer frame are in both."""
    return row["common"] > 0 and row["common"] >= 0.5 * min(row["sources"])


def tables(answer: dict[str, Any]) -> list[common.Table]:
    classes = answer["classes"]
    title = f"registration by sources, {answer['trials']} trials of each kind, by {answer['proposal']}"
    wrong = [
        [row["kind"], row["size"], row["common"], row["shift"], row["off"], row["error"], row["number"]]
        for row in answer["wrong"][:20]
    ]
    return [
        (title, tuple(classes[0]), [list(row.values()) for row in classes]),
        (
            "wrong answers (at most 20 of them)",
            ("kind", "size", "common", "shift", "off", "claimed", "matched"),
            wrong,
        ),
    ]
