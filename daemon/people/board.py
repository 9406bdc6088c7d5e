"""The night at one glance, as the page shows it: plain data, from the night's own rows only.

    answer = board(db, setting, config, now)     # what /api/v1/tonight says
    rows = frames(db, "20160102", requests)      # fifty frames, the newest first

Numbers are those of `nirid status`, `verdict` and `missing`: they come from the same functions. What headers
say is cut to 200 letters here, and escaped where it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from daemon.config.options import ConditionsRequest, Config, DepthGoal
from daemon.judgement import nights, sun
from daemon.judgement.needs import OPEN
from daemon.judgement.nights import Judged, Request
from daemon.ledger import answers, measures
from daemon.ledger import board as rows_of
from daemon.ledger.board import NightFrame, Shown
from daemon.ledger.questions import iso
from daemon.ledger.store import Reader
from daemon.markup import short
from daemon.model.groups import Setting
from daemon.model.names import FIRST, RUNNING
from daemon.people import enough, missing, tonight, verdicts, whyframe
from pipeline.conditions import IQ_LIMITS

Row = dict[str, Any]

FRAMES, PRODUCTS, POINTS = 50, 12, 240
DAY = 86400.0


def board(db: Reader, setting: Setting, config: Config, now: float) -> Row:
    """night : "" where nothing has come yet; tonight : whether it is the one that goes on

    newest : the newest picture of the sky, of calibrations where there is none
    sequence : the one that is being taken, or was last
    verdicts : of that sequence; missing, frames, products, curves : of the night
    now : seconds since the epoch
    """
    night, groups = tonight.sequences(db, None, now)
    night = night or ""
    sequence = _sequence(db, groups, config.goal, now)
    last = rows_of.arrival(db)
    looks = rows_of.looks(db, 1)
    products = rows_of.products(db, night, PRODUCTS) if night else []
    taken = _taken(db, night)
    judged = _judged(db, night, taken, config.request)
    return {
        "version": 1,
        "now": iso(now),
        "night": night,
        "tonight": night == f"{datetime.fromtimestamp(now, UTC):%Y%m%d}",
        "last_frame": {"name": short(last[0]), "at": last[1]} if last else None,
        "newest": _newest([*looks, *(p for p in products if p.name.endswith("_image"))] or products, judged),
        "sequence": sequence,
        "verdicts": verdicts.of_group(db, sequence["group"], config.request) if sequence else None,
        "sequences": groups,
        "missing": _missing(db, setting, night, now),
        "frames": [row for _, row in zip(range(FRAMES), judged.values(), strict=False)],
        "more_frames": len(taken) > FRAMES,
        "products": [shown(product) for product in products],
        "curves": curves(db, night, taken, judged, now),
    }


def _sequence(
    db: Reader, groups: Sequence[Mapping[str, Any]], goals: Sequence[DepthGoal], now: float
) -> Row | None:
    """Of the sequences of objects the latest, with pictures and depth; of calibrations where there are
    none.

    stack : its product, or what it is so far; look : its newest frame, while no product has it
    """
    last = next((row for row in reversed(groups) if row["role"]), groups[-1] if groups else None)
    if last is None:
        return None
    looks = rows_of.looks_of_group(db, last["group"], 20)
    stack = next((look for look in looks if look.of == RUNNING), None)
    made = next((p for p in rows_of.versions(db, last["group"]) if p.current), None)
    best = made or stack
    of_frames = [look for look in looks if look.of == FIRST]
    look = max(of_frames, key=lambda look: (look.newest, look.id), default=None)  # names go with the time
    deep = enough.of_group(db, last["group"], goals, now) if last["role"] == "science" else None
    stacked = last["used"] if made else stack.frames if stack else 0  # less what its reduction has left out
    told = {"stack": shown(best) if best else None, "stacked": stacked, "enough": deep}
    return {**last, **told, "look": shown(look) if look else None}


def _newest(found: Sequence[Shown], judged: Mapping[str, Row]) -> Row | None:
    """The latest that has a picture, with the row of its last frame."""
    best = max(found, key=lambda one: one.at, default=None)
    return {**shown(best), "row": judged.get(best.newest)} if best else None


def shown(one: Shown) -> Row:
    """Something with a picture; `picture` is its address without the size."""
    return {
        "kind": one.kind,
        "id": one.id,
        "of": one.of,
        "name": short(one.name),
        "night": one.night,
        "group": one.group,
        "at": one.at,
        "frames": one.frames,
        "frame": short(one.newest),
        "version": one.version,
        "current": one.current,
        "picture": f"/image/{one.kind}/{one.id}/{one.key}",
        "fits": f"/fits/{one.kind}/{one.id}/{one.key}",
        "path": one.path,
    }


def _missing(db: Reader, setting: Setting, night: str, now: float) -> Row:
    told = missing.answer(
        db, setting.rules, night or None, datetime.fromtimestamp(now, UTC), setting.policy.breakpoints
    )
    told["needs"] = [need for need in told["needs"] if need["state"] in (*OPEN, "there")]
    return told


# -- frames ----------------------------------------------------------------------------------


def frames(
    db: Reader,
    night: str,
    requests: Sequence[ConditionsRequest],
    *,
    limit: int = FRAMES,
    after: tuple[float, int] | None = None,
) -> list[Row]:
    """A part of a night's frames, the newest first. after : (ut, id) of the last that is known"""
    low, high = _span(night)
    taken = rows_of.frames(db, low, high, limit=limit, after=after)
    return list(_judged(db, night, taken, requests).values())


def _span(night: str) -> tuple[float, float]:
    begin, end = sun.day_of(night)
    return begin.timestamp(), end.timestamp()


def _taken(db: Reader, night: str) -> list[NightFrame]:
    return rows_of.frames(db, *_span(night), limit=POINTS) if night else []


def _judged(
    db: Reader, night: str, taken: Sequence[NightFrame], requests: Sequence[ConditionsRequest]
) -> dict[str, Row]:
    """{name: what is known of the frame}, in the order of `taken`."""
    if not taken:
        return {}
    known = measures.of_frames(db, taken[-1].ut, taken[0].ut + 1e-3)
    asked: dict[Any, Request] = {}
    found = {}
    for frame in taken:
        facts = frame.facts
        who = (facts.program_id, facts.req_iq, facts.req_cc, facts.req_bg, facts.req_wv)
        if who not in asked:
            asked[who] = nights.request_of(facts, verdicts.configured(requests, facts.program_id))
        found[frame.name] = _row(frame, known.get(frame.id, {}), asked[who])
    for group in {frame.group for frame in taken if frame.group}:
        for name, said in _left_out(db, group).items():
            if name in found:
                found[name]["left_out"] = said
    return found


def _left_out(db: Reader, group: int) -> dict[str, Row]:
    """{frame: {by, reason}} of frames that the product of a group is made without; until there is one, of
    those whose first look would leave them out."""
    product = answers.current_product(db, group)
    if product is None:
        return {
            n: {"by": "first look", "reason": short(why)} for n, why in rows_of.odd_looks(db, group).items()
        }
    why = {
        n: whyframe.judged(product, n).get("judged", {})
        for n in whyframe.left_out(product.spec, product.quality)
    }
    return {n: {"by": "product", "reason": short(said.get("reason") or "")} for n, said in why.items()}


def _row(frame: NightFrame, known: Mapping[str, Any], asked: Request) -> Row:
    facts, kind = frame.facts, frame.facts.observation_type or "frame"
    row: Row = {
        "id": frame.id,
        "name": short(frame.name),
        "label": short(frame.label),
        "at": frame.ut,
        "taken": iso(frame.ut),
        "program": short(frame.program),
        "what": short(facts.object or "no name") if kind == "OBJECT" else kind.lower(),
        "filter": "" if kind == "DARK" else short(facts.filter_pretty, 40),
        "exposure_time": facts.exposure_time,
        "coadds": facts.coadds,
        "airmass": facts.airmass,
        "role": frame.role,
        "state": frame.state,
        "reason": short(frame.reason),
        "came": frame.came,
        "group": frame.group,
        "left_out": None,
        "verdicts": {},
        "measures": {m.name: {"value": m.value, "error": m.error, "unit": m.unit} for m in known.values()},
    }
    if kind == "OBJECT":
        one = Judged(frame.name, frame.ut, facts, known, facts.airmass, facts.ao_seeing)
        said = nights.of_frame(one, asked)
        row["verdicts"] = {
            name: {"state": v.state, "words": v.words, "value": v.value, "error": v.error, "limit": v.limit}
            for name, v in said.items()
        }
    return row


# -- curves ----------------------------------------------------------------------------------


def curves_of(db: Reader, night: str, requests: Sequence[ConditionsRequest], now: float, most: int) -> Row:
    """The curves of any night, of its latest frames. now : seconds since the epoch"""
    taken = rows_of.frames(db, *_span(night), limit=most)
    return curves(db, night, taken, _judged(db, night, taken, requests), now)


def curves(db: Reader, night: str, taken: Sequence[NightFrame], judged: Mapping[str, Row], now: float) -> Row:
    """Of each curve its points [time, value, error or None], the first of the night first.

    fwhm : arcsec at zenith; limits : of image quality in the band of the newest frame
    transparency : against the clearest; sky : mag/arcsec2; latency : seconds from landing to the first look
    """
    points: Row = {"fwhm": [], "transparency": [], "sky": [], "latency": []}
    seen = rows_of.first_looks(db, min((f.came for f in taken if f.came), default=now))
    limits: Row = {}
    for frame in reversed(taken):
        row = judged[frame.name]
        quality = row["verdicts"].get("IQ", {})
        if quality.get("value") is not None:
            points["fwhm"].append([frame.ut, quality["value"], quality["error"]])
            limits = {
                str(bin): limit for bin, limit in IQ_LIMITS.get(frame.facts.filter_pretty[:1], {}).items()
            }
        for name, measure in (("transparency", "transparency"), ("sky", "sky_magnitude")):
            if found := row["measures"].get(measure):
                points[name].append([frame.ut, found["value"], found["error"]])
        if frame.came and frame.name in seen and 0 <= seen[frame.name] - frame.came < rows_of.LATE:
            points["latency"].append([frame.ut, round(seen[frame.name] - frame.came, 2), None])
    return {**points, "limits": limits}
