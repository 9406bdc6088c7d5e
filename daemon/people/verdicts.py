"""Whether the night was what was asked for, as people ask it.

answer(db, None, requests, now)        # what `nirid verdict` shows: a row for each sequence of the night
of_group(db, 7, requests)              # the same of one sequence, with its frames
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from daemon.config.options import ConditionsRequest
from daemon.judgement import nights
from daemon.judgement.nights import Judged, Request
from daemon.ledger import measures as ledger_measures
from daemon.ledger.answers import current_product
from daemon.ledger.measures import FrameRow
from daemon.ledger.store import Reader
from daemon.people import tonight
from pipeline.conditions import Asked, Verdict
from pipeline.headers.descriptors import Descriptors

Answer = dict[str, Any]

_NIGHTS = re.compile(r", percentile \d+ of 2004 to 2024")  # no room for it in a line of `status`


def answer(db: Reader, night: str | None, requests: Sequence[ConditionsRequest], now: float) -> Answer:
    """Plain data: the night, and a row for each of its sequences of objects. now : seconds since the epoch"""
    named, groups = tonight.objects(db, night, now)
    found = ledger_measures.of_groups(db, groups, nights.USED)
    return {"night": named, "sequences": [_row(db, group, found.get(group), requests) for group in groups]}


def of_group(
    db: Reader, group: int, requests: Sequence[ConditionsRequest], *, frames: bool = False
) -> Answer:
    """The verdicts on one sequence: {"IQ": {...}, "CC": ..., "suggested": ...}; frames : with each
    frame's."""
    found = ledger_measures.of_groups(db, [group], nights.USED)
    return _row(db, group, found.get(group), requests, frames=frames)


def _row(
    db: Reader,
    group: int,
    found: tuple[Descriptors, Sequence[FrameRow]] | None,
    requests: Sequence[ConditionsRequest],
    *,
    frames: bool = False,
) -> Answer:
    if found is None:
        empty: Answer = {"not_met_since": None, "light_lost": None, "suggested": "", "states": {}}
        return {"group": group, "frames": 0, "verdicts": {}, **empty}
    facts = found[0]
    judged = [Judged(f.name, f.at, facts, f.measures, f.airmass, f.natural) for f in found[1]]
    asked = nights.request_of(facts, configured(requests, facts.program_id))
    product = current_product(db, group)
    of_it = ledger_measures.of(db, "product", product.id) if product else None
    course, lost = nights.course(judged, asked, of_it), nights.light_lost(judged)
    made: Answer = {
        "group": group,
        "program": facts.program_id or "",
        "object": facts.object or "",
        "filter": facts.filter_pretty,
        "first": judged[0].name,
        "last": judged[-1].name,
        "frames": len(judged),
        "measured": sum(bool(frame.measures) for frame in judged),
        "verdicts": {name: dict(vars(verdict)) for name, verdict in course.verdicts.items()},
        "states": dict(course.states),
        "not_met_since": _iso(course.spell.begin) if course.spell else None,
        "light_lost": None if lost is None else {"magnitudes": round(lost[0], 2), "since": _iso(lost[1])},
        "suggested": suggested(course.verdicts, facts.qa_state),
    }
    if frames:
        made["each"] = [
            {"name": f.name, "taken": _iso(f.at)}
            | {name: dict(vars(verdict)) for name, verdict in nights.of_frame(f, asked).items()}
            for f in judged
        ]
    return made


def latest(db: Reader, rows: Sequence[Mapping[str, Any]], requests: Sequence[ConditionsRequest]) -> list[str]:
    """Image quality and cloud of the latest science sequence among those of a night, in words."""
    groups = [row["group"] for row in rows if row["role"] == "science"]
    if not groups:
        return []
    row = of_group(db, groups[-1], requests)
    known = {k: row["verdicts"][k] for k in ("IQ", "CC") if k in row["verdicts"]}
    return [in_short(words) for words in lines({**row, "verdicts": known})]


def in_short(words: str) -> str:
    """Words of a verdict where there is little room."""
    return _NIGHTS.sub("", words)


def in_words(db: Reader, explained: Mapping[str, Any], requests: Sequence[ConditionsRequest]) -> list[str]:
    """The verdicts on the sequence that `explain` has answered about, a line each; none of calibrations."""
    group = sequence_of(explained)
    return [] if group is None else lines(of_group(db, group, requests))


def sequence_of(explained: Mapping[str, Any]) -> int | None:
    """The group of science that `explain` has answered about; None of calibrations."""
    group = explained.get("group")
    if explained["kind"] == "group":
        group = explained
    elif explained["kind"] == "file":
        group = next(iter(explained["groups"]), None)
    if not isinstance(group, Mapping) or not str(group.get("rule", "")).startswith(("science", "reduce")):
        return None
    return int(group["group"])


def configured(requests: Sequence[ConditionsRequest], program: str | None) -> Request | None:
    """What the configuration asks for a programme; of several tables the last that fits."""
    found = [r for r in requests if fnmatch.fnmatchcase(program or "", r.program or "*")]
    if not found:
        return None
    own = found[-1]
    return Request(Asked(own.iq, own.iq_arcsec), Asked(own.cc, own.cloud_mag), Asked(own.bg), Asked(own.wv))


def suggested(verdicts: Mapping[str, Verdict], qa_state: str) -> str:
    """What a person may want to set as the QA state; "" where nothing is to be said. Never Fail."""
    if qa_state not in ("Undefined", "CHECK"):
        return ""
    states = {verdicts[name].state for name in ("IQ", "CC") if name in verdicts}
    if "not met" in states:
        return "Usable"
    return "Pass" if "met" in states and states <= {"met", "not asked"} else ""


def lines(row: Mapping[str, Any]) -> list[str]:
    """The verdicts of a sequence in words, one line each, what is not asked and not known left out."""
    said = []
    for name, verdict in row["verdicts"].items():
        words = verdict["words"]
        if name == "IQ" and row["not_met_since"] and verdict["state"] == "not met":
            words = words.replace("not met", f"not met since {row['not_met_since'][11:16]} UT", 1)
        if name == "IQ" and verdict["limit"] is not None:
            words = _with_count(words, row["states"], verdict["state"])
        if name == "WV" and verdict["state"] == "not asked":
            continue
        if verdict["value"] is None and not verdict["asked"] and name != "IQ":
            continue
        said.append(words)
    if lost := row["light_lost"]:
        said.append(f"{lost['magnitudes']:.1f} mag down since {lost['since'][11:16]} UT")
    if row["suggested"]:
        said.append(f"suggested: {row['suggested']}")
    return said


def _with_count(words: str, states: Mapping[str, int], state: str) -> str:
    """In how many frames it is so, of those that tell: "(...; 6 of 9 frames)"."""
    told = sum(states.get(one, 0) for one in ("met", "borderline", "not met"))
    return f"{words[:-1]}; {states.get(state, 0)} of {told} frames)" if told > 1 else words


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
