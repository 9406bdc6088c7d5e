"""The night for an observer: its sequences with seeing and zero point, and which pictures there are.

    night, rows = sequences(db, None, now)        # the latest night, and what was taken since
    night, rows = sequences(db, "20160102", now)  # or this one
    looks = to_look_at(db, rows)

Plain data; where a number is not of a product yet, it says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from daemon.ledger import looks as ledger_looks
from daemon.ledger import night as ledger_night
from daemon.ledger.night import Taken
from daemon.ledger.store import Reader
from daemon.model.names import night_of
from daemon.model.records import ProductRecord
from daemon.people.whyframe import left_out
from pipeline import levels
from pipeline.headers.descriptors import Descriptors

Row = dict[str, Any]

BEFORE = 20 * 3600.0  # a night and the calibrations of its day, before its latest science frame
AHEAD = 86400.0  # a frame of later than tomorrow has a wrong clock, and is not tonight


def sequences(db: Reader, night: str | None, now: float) -> tuple[str, list[Row]]:
    """(night, its groups): those of objects first, each in order of time. night : "" when there is none.

    now : seconds since the epoch

    group, rule, role, state, reason : as `questions.groups` has them
    name : of the product, "" when there is none; path, version : of it
    first, last : names of the first and the last frame
    what : the object, or "dark", "flat", "bad-pixel mask"; filter, exposure_time
    frames : how many came; used : how many are in the product, or can be
    seeing, zero_point, zero_point_error : arcsec and magnitudes, None where unknown
    levels : card -> level of each calibration of the product, as DARKLEV; poor : those of 2 and 3, in words
    of : "product", "look" when they are of a running stack or first look, "" when there are none
    """
    low, high = _span(db, night, now)
    made = [_sequence(group) for group in ledger_night.taken(db, low, high)]
    if night is not None:
        made = [row for row in made if row["night"] == night]
    named = night or max((row["night"] for row in made if row["role"]), default="")
    named = named or max((row["night"] for row in made), default="")
    _add_looks(db, made)
    return named, sorted(made, key=lambda row: not row["role"])


def objects(db: Reader, night: str | None, now: float) -> tuple[str, list[int]]:
    """(night, its groups of science and standards in order of time), as `sequences` has them, for less."""
    low, high = _span(db, night, now)
    rows = [
        (night_of(name, datetime.fromtimestamp(ut, UTC)), group)
        for group, name, ut in ledger_night.of_objects(db, low, high)
    ]
    if night is None and not rows:
        return sequences(db, None, now)[0], []
    named = night or max(of_night for of_night, _ in rows)
    return named, [group for of_night, group in rows if night is None or of_night == night]


def _span(db: Reader, night: str | None, now: float) -> tuple[float, float]:
    if night is not None:
        begin = datetime.strptime(f"{night}+0000", "%Y%m%d%z").timestamp()
        return begin - 86400.0, begin + 2 * 86400.0  # names are given by the observatory's clock
    until = now + AHEAD
    last = ledger_night.latest_frame(db, until)
    return (0.0, 0.0) if last is None else (last - BEFORE, until)


def _sequence(group: Taken) -> Row:
    made: Row = {
        "group": group.group,
        "rule": group.rule,
        "role": group.role,
        "night": night_of(group.frames[0], datetime.fromtimestamp(group.ut, UTC)),
        "state": group.state,
        "reason": group.reason,
        "first": group.frames[0],
        "last": group.frames[-1],
        **_what(group.rule, group.facts),
        "frames": len(group.frames),
        "used": len(group.usable),
        "better": group.better,
    }
    return made | _product(group.product, set(group.frames))


def _product(product: ProductRecord | None, members: set[str]) -> Row:
    if product is None:
        return {"name": "", "path": None, "version": None, **_worth({}), "levels": {}, "poor": "", "of": ""}
    inputs = {i["name"] for i in product.spec.get("inputs", [])} & members
    used = inputs - set(left_out(product.spec, product.quality))
    return {
        "name": product.name,
        "path": product.path,
        "version": product.version,
        **({"used": len(used)} if inputs else {}),
        **_worth(product.quality),
        "levels": (found := levels.read(product.quality)),
        "poor": levels.poor(found),
        "of": "product",
    }


def _worth(quality: Mapping[str, Any]) -> Row:
    keys = {"seeing": "MEANFWHM", "zero_point": "MAGZPT", "zero_point_error": "MAGZERR"}
    return {name: quality.get(key) for name, key in keys.items()}


def _what(rule: str, facts: Descriptors) -> Row:
    kind = facts.observation_type
    if "BPM" in rule:
        return {"what": "bad-pixel mask", "filter": "", "exposure_time": None}
    what = facts.object or "no name" if kind == "OBJECT" else str(kind or "frame").lower()
    pretty = "" if kind == "DARK" else facts.filter_pretty
    return {"what": what, "filter": pretty, "exposure_time": facts.exposure_time}


def _add_looks(db: Reader, made: Sequence[Row]) -> None:
    """What a running stack, or the newest first look, has for those without a product."""
    without = {row["group"]: row for row in made if not row["name"]}
    for look in _looks(db, list(without)):
        worth = _worth(look["quality"])
        if any(value is not None for value in worth.values()):
            without[look["group"]].update(worth, of="look")


def _looks(db: Reader, groups: Sequence[int]) -> list[Row]:
    """Those whose files are there, stacks after first looks, the newest last."""
    found = [look for look in ledger_looks.done(db, groups) if look["there"]]
    return sorted(found, key=lambda look: (look["kind"] == "running", look["number"]))


def to_look_at(db: Reader, rows: Sequence[Row]) -> list[Row]:
    """Of the groups of `sequences` the running stack of each, and the newest first look of all."""
    looks = _looks(db, [row["group"] for row in rows])
    stacks = {look["group"]: look for look in looks if look["kind"] == "running"}
    first = [look for look in looks if look["kind"] != "running"]
    newest = max(first, key=lambda look: (look["night"], look["frames"]), default=None)
    return [*stacks.values(), *([newest] if newest else [])]


def unfinished_elsewhere(db: Reader, rows: Sequence[Row]) -> int:
    """How many groups of other nights have a job to do."""
    return ledger_night.unfinished(db, [row["group"] for row in rows])
