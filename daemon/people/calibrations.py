"""Which calibrations there are: by kind, key and setting, with those held back and how their figures went.

answer(db, breakpoints, key=None)     # what /api/v1/calibrations says

The points of a figure are those of `nirid trend`, of the calibrations that are listed; its band is where the
next one may lie without a word, as `daemon.judgement.drift` judges it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC
from typing import Any

from daemon.judgement import drift
from daemon.judgement.limits import OF_KIND
from daemon.ledger import masters, measures
from daemon.ledger.guarding import ASK, setup_of
from daemon.ledger.masters import Master
from daemon.ledger.questions import iso
from daemon.ledger.store import Reader
from daemon.markup import short
from daemon.people import trends
from pipeline.association import CalKind
from pipeline.headers.descriptors import Descriptors
from pipeline.headers.times import exposure_among
from pipeline.levels import Breakpoint

Answer = dict[str, Any]

KEYS = 40  # of one answer about all of them
LATEST = 4  # calibrations that are listed of each there, beside those that are held
DRAWN, RECENT = 6, 50  # keys of which figures are told there, and calibrations that they are of
MOST = 200  # calibrations of a key that is asked for alone
WORDS = {
    CalKind.DARK: "dark",
    CalKind.FLAT: "flat",
    CalKind.MADE_BPM: "mask",
    CalKind.STATIC_BPM: "static mask",
    CalKind.ZERO_POINT: "zero point",
}
# What is drawn where all keys are shown: the level, the noise or shape, and pixels.
FIRST = {
    CalKind.DARK: ("rate", "read_noise", "hot"),
    CalKind.FLAT: ("lamp", "gain", "outside"),
    CalKind.MADE_BPM: ("bad", "new"),
    CalKind.ZERO_POINT: ("zero_point",),
}


def answer(db: Reader, breakpoints: Sequence[Breakpoint], key: str | None = None) -> Answer:
    """rows, the newest first, in order of kind; breakpoints, of the configuration; more : there are more keys

    key : one calibration key with all its figures and up to 200 calibrations; None is all keys, with less
    masters : how many were looked at, of the newest of the key; latest : those that are listed
    """
    known = [one for one in masters.keys(db) if key in (None, one.key)]
    order = list(WORDS)
    # Curves of what is newest; what is older by its names, and with curves when it is asked for alone.
    most = {one.key: MOST if key else RECENT if n < DRAWN else LATEST for n, one in enumerate(known[:KEYS])}
    shown = sorted(known[:KEYS], key=lambda one: order.index(CalKind(one.kind)))
    return {
        "rows": [
            row
            for one in shown
            for row in _rows(db, CalKind(one.kind), one.key, most[one.key], whole=key is not None)
        ],
        "breakpoints": [
            {"at": b.at.astimezone(UTC).isoformat(), "kinds": sorted(b.kinds), "reason": b.reason}
            for b in breakpoints
        ],
        "more": len(known) > len(shown),
    }


def _rows(db: Reader, kind: CalKind, key: str, most: int, *, whole: bool) -> Iterator[Answer]:
    """A row for each setting of a key: darks of one key differ in exposure, flats in none.

    most : calibrations that are looked at; figures are told from RECENT on
    """
    found = masters.of_key(db, key, most)
    names = _figures(kind, whole=whole) if most >= RECENT and found else ()
    points = {name: measures.trend(db, name, key=key, since=found[-1].taken) for name in names}
    for setting, of_it in _parted(found).items():
        held = [one for one in of_it if one.held]
        yield {
            "kind": WORDS[kind],
            "key": key,
            "what": f"{WORDS[kind]} {setting}".strip(),
            "masters": len(of_it),
            "held": len(held),
            "latest": [_master(one) for one in (of_it if whole else _some(of_it, held))],
            "figures": list(_of_points(kind, of_it, points)),
        }


def _figures(kind: CalKind, *, whole: bool) -> tuple[str, ...]:
    return tuple(OF_KIND.get(kind.name, ())) if whole and kind.name in OF_KIND else FIRST.get(kind, ())


def _parted(found: Sequence[Master]) -> dict[str, list[Master]]:
    """By what a person would call their setting; the newest first."""
    parts: dict[str, list[Master]] = {}
    exposures: list[float] = []
    for one in found:
        facts = one.facts
        seconds = facts.get("exposure_time")
        told = []
        if seconds is not None and one.kind == CalKind.DARK:
            told.append(f"{exposure_among(exposures, seconds):.6g} s × {facts.get('coadds') or 1}")
        if filter_name := facts.get("filter_name"):
            pretty = Descriptors(filter_name=filter_name).filter_pretty
            told.append(f"of flats {pretty}" if one.kind == CalKind.MADE_BPM else pretty)
        for name in ("camera", "focal_plane_mask", "read_mode", "well_depth", "data_section"):
            if facts.get(name):
                told.append(str(facts[name]))
        parts.setdefault(short(", ".join(told)), []).append(one)
    return parts


def _some(found: Sequence[Master], held: Sequence[Master]) -> list[Master]:
    """The latest, and all that are held."""
    return [one for n, one in enumerate(found) if n < LATEST or one in held]


def _master(one: Master) -> Answer:
    state = "held" if one.held else "in use" if one.group is not None else "from outside"
    return {
        "name": short(one.name),
        "night": one.night,
        "taken": iso(one.taken),
        "path": one.path,
        "state": state,
        "reason": short(one.held, 400),
        "do": f"compare it with the one before; {ASK}" if one.held else "",
        "since": iso(one.since),
        "version": one.version,
        "product": one.product,
        "group": one.group,
        "sha256": one.sha256,
    }


def _of_points(kind: CalKind, of_it: Sequence[Master], points: dict[str, list[Any]]) -> Iterator[Answer]:
    """Each figure that is known of these, in order of time, with the band of the next one."""
    numbers = {one.product: bool(one.held) for one in of_it if one.product is not None}
    if not numbers:
        return
    setup = setup_of(of_it[0].facts)
    for name, all_ in points.items():
        mine = [p for p in all_ if p.of == "product" and p.number in numbers]
        if not mine:
            continue
        limit = OF_KIND.get(kind.name, {}).get(name)
        accepted = [p.measure.value for p in mine if not numbers[p.number]]
        band = drift.band(kind.name, setup, name, mine[-1].measure.error or 0.0, accepted)
        told = None
        if band is not None:
            told = asdict(band)
            told["from"] = told.pop("of")
        yield {
            "metric": name,
            "what": limit.what if limit else name.replace("_", " "),
            "unit": limit.unit if limit else mine[0].measure.unit,
            "points": [trends.plain(p) for p in mine],
            "band": told,
        }
