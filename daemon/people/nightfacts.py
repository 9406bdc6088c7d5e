"""The figures of a night's report: time in and out of what was asked, masters against those of before, what
was told to be missing and when it came, latencies, versions.

Plain data, from the rows of the night; `daemon.people.nightreport` puts them together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from statistics import median
from typing import Any

from daemon.config.options import ConditionsRequest
from daemon.judgement import nights
from daemon.judgement.needs import OPEN, iso
from daemon.judgement.nights import Judged
from daemon.ledger import board, lastmasters, measures
from daemon.ledger import needs as ledger_needs
from daemon.ledger.lastmasters import Master
from daemon.ledger.nightly import NightGroup
from daemon.ledger.store import Reader
from daemon.people import board as people_board
from daemon.people import verdicts
from pipeline.conditions import State

Row = dict[str, Any]

STATES: tuple[State, ...] = ("met", "borderline", "not met", "not measured", "not asked")
MOST = 1000  # frames of a curve, and products of a night
IMAGE = "_image"  # end of the names of products of the sky
LIBRARIES = ("nirid", "numpy", "scipy", "astropy", "numba", "sep")
TO_TELL = 86400.0  # s after the day of a night, in which its needs are still told


def seconds_in(
    db: Reader, group: int, requests: Sequence[ConditionsRequest], cloud: State | None
) -> dict[str, float]:
    """{state: seconds of exposure} of the usable frames of a sequence: by the image quality of each, and by
    cloud where that is known and says worse.

    cloud : the state of the sequence, for frames of which it is not measured
    """
    found = dict.fromkeys(STATES, 0.0)
    frames = measures.frames_of_group(db, group)
    if not frames:
        return {}
    last = frames[-1][2]  # the sequence is judged by what its last frame asks, as everywhere
    asked = nights.request_of(last, verdicts.configured(requests, last.program_id))
    for name, at, facts, known in frames:
        said = nights.of_frame(Judged(name, at, last, known, facts.airmass, facts.ao_seeing), asked)
        clear = said["CC"].state if said["CC"].value is not None else cloud
        seconds = (facts.exposure_time or 0.0) * (facts.coadds or 1)
        found[worse(said["IQ"].state, clear)] += seconds
    return {state: round(seconds, 1) for state, seconds in found.items() if seconds}


_WORST: tuple[State, ...] = ("not met", "borderline", "not measured", "met", "not asked")


def worse(quality: State, cloud: State | None) -> State:
    """Of both the one that says more against a frame; cloud that is not measured says nothing."""
    known = [quality] if cloud in (None, "not measured") else [quality, cloud]
    return min((state for state in known if state), key=_WORST.index)


def by_programme(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{programme: {state: seconds}} of the science sequences of a night."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["role"] == "science":
            total = found.setdefault(row["program"], {})
            for state, seconds in row["seconds"].items():
                total[state] = round(total.get(state, 0.0) + seconds, 1)
    return found


# -- masters -----------------------------------------------------------------------------------


def masters(db: Reader, groups: Sequence[NightGroup], low: float) -> list[Row]:
    """Each dark, flat and mask of the night, with its figures against the last accepted one before.

    figures : {name: {value, error, unit, before, difference, sigma}}; the last three are None without an
    older one; sigma is the difference over the errors of both, None where no error is known
    """
    found = []
    for group in groups:
        if group.product is None or group.role in ("science", "standard"):
            continue
        pair = lastmasters.before(db, group.product.job, low)
        if pair is not None:
            made, older = pair
            old: Mapping[str, Any] = older.figures if older else {}
            found.append(
                {"name": made.name, "group": group.group, "before": _named(older)}
                | {
                    "figures": {
                        name: _against(figure, old.get(name)) for name, figure in made.figures.items()
                    }
                }
            )
    return found


def _named(older: Master | None) -> Row | None:
    return {"name": older.name, "night": older.night} if older else None


def _against(figure: Sequence[Any], before: Sequence[Any] | None) -> Row:
    value, error, unit = float(figure[0]), figure[1], str(figure[2])
    row: Row = {"value": value, "error": error, "unit": unit}
    if before is None:
        return row | {"before": None, "difference": None, "sigma": None}
    difference = value - float(before[0])
    noise = math.hypot(error or 0.0, before[1] or 0.0)
    sigma = round(difference / noise, 2) if noise else None
    return row | {"before": float(before[0]), "difference": difference, "sigma": sigma}


# -- the rest ----------------------------------------------------------------------------------


def told(db: Reader, night: str, low: float, high: float) -> list[Row]:
    """What the daemon has told to be missing: what, since when, what became of it, and when.

    what : in words; since : when it was told first; state, at : what was told last; came : when it was there,
    None where it did not come
    """
    last: dict[str, Row] = {}
    for fields in ledger_needs.history(db, night, low, high + TO_TELL):
        row = last.setdefault(fields["key"], {"what": fields["what"], "since": iso(fields["at"])})
        row |= {"state": fields["state"], "at": iso(fields["at"])}
        row["came"] = iso(fields["at"]) if fields["state"] == "there" else None
        row["open"] = fields["state"] in OPEN
    return list(last.values())


def products(db: Reader, night: str) -> list[Row]:
    """The current products of a night, the first of it first, with the depth and seeing that they have."""
    found = []
    for one in reversed(board.products(db, night, MOST)):
        known = measures.of(db, "product", one.id)
        values = {n: known[n].value for n in ("depth", "fwhm", "zero_point") if n in known}
        shown = people_board.shown(one)
        kept = ("name", "of", "group", "frames", "version", "picture")
        row = {name: shown[name] for name in kept} | {"at": iso(one.at), "measures": values}
        found.append(row)
    return found


def curves(db: Reader, night: str, requests: Sequence[ConditionsRequest], now: float) -> Row:
    """As the page has them, of all frames of the night. now : seconds since the epoch"""
    return people_board.curves_of(db, night, requests, now, MOST)


def spread(times: Sequence[float], count: str) -> Row:
    """{count: how many, "median", "p95", "longest"} of some times in seconds; None where there are none."""
    told = sorted(t for t in times if t >= 0)
    if not told:
        return {count: 0, "median": None, "p95": None, "longest": None}
    late = told[math.ceil(0.95 * len(told)) - 1]
    return {
        count: len(told),
        "median": round(median(told), 1),
        "p95": round(late, 1),
        "longest": round(told[-1], 1),
    }


def versions() -> dict[str, str]:
    """Of the program that makes the report, and of the libraries that products depend on."""
    return {name: _installed(name) for name in LIBRARIES}


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
