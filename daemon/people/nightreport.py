"""The report of a night: what was taken, what came of it, what is missing, and what went wrong.

answer(db, rules, requests, "20160102", now)     # plain data; a night without frames has a report, too
lines(answer)                                     # the same in words
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from daemon.config.options import ConditionsRequest
from daemon.judgement import sun
from daemon.judgement.needs import OPEN
from daemon.ledger import held, nightly
from daemon.ledger.nightly import NightGroup
from daemon.ledger.store import Reader
from daemon.people import missing, nightfacts, verdicts
from daemon.people.whyframe import left_out
from pipeline.levels import Breakpoint

Answer = dict[str, Any]


def answer(
    db: Reader,
    rules: missing.Rules,
    requests: Sequence[ConditionsRequest],
    night: str,
    now: datetime,
    breakpoints: Sequence[Breakpoint] = (),
) -> Answer:
    """night : a UT date, 20160102; now : aware

    frames, programmes {id: frames}, programme_seconds {id: {state: seconds}} in and out of what was asked,
    sequences (with verdicts, seconds, product, latency in seconds from the arrival of the last frame to the
    product), calibrations, product_list, masters against those of before, needs, told (what was missing, and
    whether it came), held, rejected, outages, versions, curves, and `before`: the same counts of the night
    before, with the difference.
    """
    low, high = (when.timestamp() for when in sun.day_of(night))
    groups = nightly.groups(db, low, high)
    rows = [_row(db, group, requests) for group in groups]
    wanted = missing.needs_of(db, rules, night, now, breakpoints) if groups else []
    needs = [need.to_json(now) for need in wanted]
    programmes: dict[str, int] = {}
    for group in groups:
        if group.role in ("science", "standard"):
            programmes[group.program] = programmes.get(group.program, 0) + group.frames
    sequences = [row for row in rows if row["role"] in ("science", "standard")]
    counts = _counts(nightly.frames(db, low, high), groups)
    curves = nightfacts.curves(db, night, requests, now.timestamp())
    out = [*nightly.out_of_use(db, low, high), *nightly.damaged(db, night, low, high), *_rejected(db, night)]
    return {
        "night": night,
        "made": now.isoformat(timespec="seconds"),
        "sunrise": sun.sunrise(night).isoformat(timespec="seconds"),
        **counts,
        "programmes": programmes,
        "programme_seconds": nightfacts.by_programme(sequences),
        "sequences": sequences,
        "calibrations": [row for row in rows if row not in sequences],
        "product_list": nightfacts.products(db, night),
        "masters": nightfacts.masters(db, groups, low),
        "missing": sum(need["state"] in OPEN for need in needs),
        "needs": needs,
        "told": nightfacts.told(db, night, low, high),
        "held": [{**h, "since": _iso(h["since"])} for h in held.everything(db) if h["night"] == night],
        "rejected": out,
        "latency": _latency(rows, curves),
        "outages": [
            {"from": _iso(begin), "until": None if end is None else _iso(end), "stopped": orderly}
            for begin, end, orderly in nightly.outages(db, low, high)
        ],
        "versions": nightfacts.versions(),
        "curves": curves,
        "before": _before(db, night, counts),
    }


def _row(db: Reader, group: NightGroup, requests: Sequence[ConditionsRequest]) -> Answer:
    """One sequence, or group of calibrations."""
    made = group.product
    row: Answer = {
        "group": group.group,
        "rule": group.rule,
        "role": group.role,
        "program": group.program,
        "object": group.object,
        "filter": group.filter,
        "first": group.sample,
        "frames": group.frames,
        "begins": _iso(group.first),
        "ends": _iso(group.last),
        "product": made.name if made else None,
        "reason": "" if made else group.reason,
        "left_out": left_out(made.spec, made.quality) if made else [],
        "notes": list(made.notes) if made else [],
        # A product that is made again for a later calibration was there before: only the first counts.
        "latency": made.published - group.came if made and made.version == 1 else None,
    }
    if group.role not in ("science", "standard"):
        return row
    judged = verdicts.of_group(db, group.group, requests)
    cloud = judged["verdicts"].get("CC", {}).get("state")
    row["seconds"] = nightfacts.seconds_in(db, group.group, requests, cloud)
    quality = made.quality if made else {}
    row["depth"] = {name: quality[card] for name, card in _DEPTH.items() if card in quality}
    if deep := (quality.get("measures") or {}).get("depth"):
        row["depth"] |= {"depth": deep[0], "depth_error": deep[1]}
    told = ("verdicts", "states", "not_met_since", "light_lost", "suggested")
    return row | {name: judged.get(name) for name in told}


_DEPTH = {"seeing": "MEANFWHM", "zero_point": "MAGZPT", "zero_point_error": "MAGZERR", "frames": "NCOMBINE"}


def _rejected(db: Reader, night: str) -> list[Answer]:
    return [
        {"name": r["name"], "state": "rejected", "reason": f"rejected by {r['user']}: {r['reason']}"}
        for r in nightly.rejected_products(db, night)
    ]


def _counts(frames: int, groups: Sequence[NightGroup]) -> Answer:
    science = [g for g in groups if g.role == "science"]
    return {
        "frames": frames,
        "science_frames": sum(g.frames for g in science),
        "groups": len(groups),
        "products": sum(g.product is not None for g in groups),
    }


def _before(db: Reader, night: str, counts: Answer) -> Answer:
    """The counts of the night before, and by how much this one differs."""
    day = f"{sun.day_of(night)[0] - timedelta(days=1):%Y%m%d}"
    low, high = (when.timestamp() for when in sun.day_of(day))
    then = _counts(nightly.frames(db, low, high), nightly.groups(db, low, high))
    return {"night": day, **then, "difference": {name: counts[name] - then[name] for name in then}}


def _latency(rows: Sequence[Answer], curves: Mapping[str, Any]) -> Answer:
    """Seconds from the arrival of the last frame to the product, of all first versions; and of looks from the
    arrival of their frame."""
    made = nightfacts.spread([row["latency"] for row in rows if row["latency"] is not None], "products")
    return made | {"looks": nightfacts.spread([point[1] for point in curves["latency"]], "looks")}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


# -- in words --------------------------------------------------------------------------------


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report as text, a heading and its lines at a time."""
    change = report["before"]["difference"]
    yield f"night {report['night']}"
    counted = ("frames", "science_frames", "products")
    yield "; ".join(f"{report[n]} {n.replace('_', ' ')} ({change[n]:+d})" for n in counted)
    yield f"in brackets: more or fewer than on {report['before']['night']}"
    if not report["frames"]:
        yield "no frames were taken"
    for title, text in (
        ("programmes", [_programme(p, n, report) for p, n in report["programmes"].items()]),
        ("sequences", [line for row in report["sequences"] for line in _sequence(row)]),
        ("missing", [f"{n['state']}: {n['what']}" for n in report["needs"] if n["state"] in OPEN]),
        ("there", [n["what"] for n in report["needs"] if n["state"] == "there"]),
        ("was missing", [_told(row) for row in report["told"]]),
        ("held back", [f"{h['name']}: {h['reason']}" for h in report["held"]]),
        ("out of use", [f"{r['name']}, {r['state']}: {r['reason']}" for r in report["rejected"]]),
        ("no product", [f"{_range(r)}: {r['reason']}" for r in report["calibrations"] if not r["product"]]),
        ("daemon down", [outage(o) for o in report["outages"]]),
    ):
        if text:
            yield ""
            yield title
            yield from (f"  {line}" for line in text)
    took = report["latency"]
    if took["products"]:
        yield ""
        late = f"95 % {took['p95']} s, longest {took['longest']} s"
        yield f"last frame to product: median {took['median']} s, {late}"
    if took["looks"]["looks"]:
        yield f"frame to first look: median {took['looks']['median']} s, 95 % {took['looks']['p95']} s"


def _programme(name: str, frames: int, report: Mapping[str, Any]) -> str:
    spent = report["programme_seconds"].get(name, {})
    said = ", ".join(f"{state} {seconds / 60:.0f} min" for state, seconds in spent.items())
    return f"{name or 'no programme'}: {frames} frames{f' ({said})' if said else ''}"


def _told(row: Mapping[str, Any]) -> str:
    became = f"came at {row['came'][11:16]} UT" if row["came"] else row["state"]
    return f"{row['what']}: missing since {row['since'][11:16]} UT, {became}"


def _sequence(row: Mapping[str, Any]) -> Iterator[str]:
    begins, ends = row["begins"][11:16], row["ends"][11:16]
    yield f"{begins} to {ends} UT  {row['program']}  {row['object']} {row['filter']}  {row['frames']} frames"
    yield f"    {row['product'] or 'no product: ' + row['reason']}{_depth(row['depth'])}"
    if row["left_out"]:
        yield f"    left out: {', '.join(row['left_out'])}"
    if row["verdicts"]:
        yield from (f"    {words}" for words in verdicts.lines(row))


def _depth(depth: Mapping[str, Any]) -> str:
    told = [f'seeing {depth["seeing"]:.2f}"'] if "seeing" in depth else []
    told += [f"zero point {depth['zero_point']:.2f}"] if "zero_point" in depth else []
    told += [f"depth {depth['depth']:.2f} ± {depth['depth_error']:.2f} mag"] if "depth" in depth else []
    return f"  {', '.join(told)}" if told else ""


def _range(row: Mapping[str, Any]) -> str:
    return f"{row['rule']}, {row['frames']} frames from {row['first']}"


def outage(outage: Mapping[str, Any]) -> str:
    """A time without a daemon, in words."""
    how = "stopped" if outage["stopped"] else "ended by accident"
    until = f"until {outage['until'][:16].replace('T', ' ')}" if outage["until"] else "not back yet"
    return f"from {outage['from'][:16].replace('T', ' ')} {until} UT ({how})"
