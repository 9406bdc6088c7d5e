"""Tags: what kind of frame a header describes, in Gemini's vocabulary.

A table of rules, one line each: the tags, the condition, what the rule blocks and what blocks it.
Source: the tag set of Gemini's astrodata for NIRI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from pipeline.headers.values import Cards, number, text

Tags = frozenset[str]


class Rule(NamedTuple):
    """tags : what the rule gives; when : its condition; blocks, blocked_by : other tags."""

    tags: str
    when: Callable[[Cards], bool]
    blocks: str = ""
    blocked_by: str = ""


_PROCESSED = (
    "PROCARC", "PROCBIAS", "GBIAS", "PROCDARK", "PROCFLAT", "GIFLAT", "PROCFRNG",
    "GIFRINGE", "PROCPNHL", "PROCSTND", "PROCILLM",
)  # fmt: skip


def _is(key: str, *values: str) -> Callable[[Cards], bool]:
    return lambda h: text(h, key) in values


def _any(*keys: str) -> Callable[[Cards], bool]:
    return lambda h: any(key in h for key in keys)


def _upper(h: Cards, *keys: str) -> tuple[str, ...]:
    return tuple((text(h, key) or "").upper() for key in keys)


def _grism(h: Cards) -> bool:
    return "grism" in (text(h, "FILTER3") or "")


def _infrared_lamp(h: Cards, *, low: bool = True) -> bool:
    lamp = text(h, "GCALLAMP") or ""
    return lamp == "IRhigh" or lamp.startswith("QH") or (low and lamp == "IRlow")


def _lamp_closed(h: Cards) -> bool:
    return text(h, "GCALSHUT") == "CLOSED"


def _at_zenith(h: Cards) -> bool:
    return text(h, "FRAME") == "AZEL_TOPO" and number(h, "AIRMASS") == 1.0


def _tracked(h: Cards) -> bool:
    return text(h, "FRAME") in ("FK5", "APPT") or text(h, "TRKFRAME") in ("FK5", "APPT")


def _still(h: Cards) -> bool:
    return number(h, "RATRACK") == 0.0 and number(h, "DECTRACK") == 0.0


def _prepared(h: Cards) -> bool:
    return any("PREPAR" in key for key in h)


RULES = (
    Rule("NIRI", lambda h: _upper(h, "INSTRUME")[0] == "NIRI"),
    Rule("GEMINI", lambda h: bool({"GEMINI-NORTH", "GEMINI-SOUTH"} & set(_upper(h, "OBSERVAT", "TELESCOP")))),
    Rule("NORTH", lambda h: _upper(h, "OBSERVAT")[0] == "GEMINI-NORTH"),
    Rule("SOUTH", lambda h: _upper(h, "OBSERVAT")[0] == "GEMINI-SOUTH"),
    Rule("DARK CAL", _is("OBSTYPE", "DARK"), blocks="IMAGE SPECT"),
    Rule("FLAT CAL", _is("OBSTYPE", "FLAT")),
    Rule("ARC", _is("OBSTYPE", "ARC")),
    Rule("IMAGE", lambda h: not _grism(h) and _upper(h, "OBJECT")[0] != "TWILIGHT"),
    Rule("IMAGE TWILIGHT FLAT CAL", lambda h: not _grism(h) and _upper(h, "OBJECT")[0] == "TWILIGHT"),
    Rule("SPECT LS", _grism),
    Rule("GCALFLAT FLAT CAL", lambda h: _infrared_lamp(h, low=False)),
    Rule(
        "GCAL_IR_ON LAMPON",
        lambda h: _infrared_lamp(h) and text(h, "GCALSHUT") == "OPEN",
        blocked_by="PROCESSED",
    ),
    Rule(
        "GCAL_IR_OFF LAMPOFF",
        lambda h: _infrared_lamp(h) and _lamp_closed(h),
        blocked_by="PROCESSED PINHOLE",
    ),
    Rule(
        "GCAL_IR_OFF LAMPOFF",
        lambda h: text(h, "GCALLAMP") == "No Value" and _lamp_closed(h),
        blocked_by="PROCESSED",
    ),
    Rule("ACQUISITION", _is("OBSCLASS", "acq", "acqCal")),
    Rule("AZEL_TARGET", _is("FRAME", "AZEL_TOPO")),
    Rule("AT_ZENITH AZEL_TARGET", _at_zenith),
    Rule("SIDEREAL", lambda h: _tracked(h) and _still(h)),
    Rule("NON_SIDEREAL", lambda h: _tracked(h) and not _still(h)),
    Rule(
        "BPM CAL PROCESSED",
        _any("BPMASK", "PROCBPM"),
        blocks="IMAGE SPECT NON_SIDEREAL AZEL_TARGET GCALFLAT LAMPON GCAL_IR_ON GCAL_IR_OFF DARK",
    ),
    Rule("PROCESSED", _any(*_PROCESSED)),
    Rule(
        "PROCESSED_SCIENCE PROCESSED",
        lambda h: text(h, "OBSTYPE") == "OBJECT" and ("PROCSCI" in h or "GMOSAIC" in h),
        blocks="RAW",
    ),
    Rule("FRINGE CAL", _any("GIFRINGE", "PROCFRNG")),
    Rule("TELLURIC CAL", _any("PROCTELL")),
    Rule("EXTRACTED", _any("EXTRACT")),
    Rule("MASK", _is("OBSTYPE", "MASK"), blocks="IMAGE SPECT"),
    Rule("RAW", lambda h: "GEM-TLM" not in h),
    Rule("PREPARED", _prepared),
    Rule("UNPREPARED", lambda h: not _prepared(h)),
)


# Cards whose value a rule reads, and those that only have to be there.
_READ = frozenset((
    "INSTRUME", "OBSERVAT", "TELESCOP", "OBSTYPE", "OBJECT", "FILTER3", "GCALLAMP", "GCALSHUT",
    "OBSCLASS", "FRAME", "AIRMASS", "TRKFRAME", "RATRACK", "DECTRACK",
))  # fmt: skip
_THERE = frozenset((*_PROCESSED, "BPMASK", "PROCBPM", "PROCSCI", "GMOSAIC", "PROCTELL", "EXTRACT", "GEM-TLM"))


def retags(cards: Cards, changes: Mapping[str, object]) -> bool:
    """True when setting these cards (None: removing them) may change the tags."""
    return any(
        key in _READ or ((key in _THERE or "PREPAR" in key) and (value is None or key not in cards))
        for key, value in changes.items()
    )


def tags_of(cards: Cards) -> Tags:
    """The tags of a frame from its header cards.

    All rules are evaluated, then those blocked by a tag that is present are dropped, then what the
    remaining rules block is taken out.
    """
    holding = [rule for rule in RULES if rule.when(cards)]
    present = {tag for rule in holding for tag in rule.tags.split()}
    active = [rule for rule in holding if not present & set(rule.blocked_by.split())]
    # A rule that gives a blocked tag falls as a whole: the twilight flat goes with its IMAGE.
    blocked = {tag for rule in active for tag in rule.blocks.split()}
    standing = [rule for rule in active if not ("TWILIGHT" in rule.tags and "IMAGE" in blocked)]
    return frozenset(tag for rule in standing for tag in rule.tags.split()) - blocked
