"""Words that a descriptor can be: what an expression compares with another word never holds.

unknown("filter_name", "Kprme")     # "no NIRI frame has filter_name 'Kprme'; did you mean Kprime?"
"""

from __future__ import annotations

import re

from pipeline import niri
from pipeline.headers.tags import RULES
from pipeline.params import suggest

_ID = re.compile(r"_G\d{4}$")
FEW = 7  # words that are all listed where none is near

KNOWN: dict[str, frozenset[str]] = {
    "filter_name": frozenset(
        {*niri.FILTERS, *(entry.pretty for entry in niri.FILTERS.values()), "blank", "open"}
    ),
    "camera": frozenset(niri.PIXEL_SCALES),
    "read_mode": frozenset(niri.READ_NOISE_ELECTRONS),
    "well_depth_setting": frozenset({*niri.WELL_ELECTRONS, "Unknown"}),
    "observation_type": frozenset({"OBJECT", "DARK", "FLAT", "ARC", "MASK", "BIAS", "CAL"}),
    "observation_class": frozenset({"science", "partnerCal", "progCal", "acq", "acqCal", "dayCal"}),
    "qa_state": frozenset({"Pass", "Usable", "Fail", "CHECK", "Undefined"}),
    "instrument": frozenset({"NIRI"}),
    "tags": frozenset(tag for rule in RULES for tag in rule.tags.split()),
}


def unknown(descriptor: str, word: str) -> str:
    """Why this word is never the descriptor's value, with the nearest that may be; "" where it may be."""
    known = KNOWN.get(descriptor)
    if known is None or "&" in word or _ID.sub("", word) in known or word in known:
        return ""
    near = suggest(word, known) or suggest(word.lower(), known) or suggest(word.upper(), known)
    if not near and len(known) <= FEW:
        near = f"; there are {', '.join(sorted(known))}"
    return f"no NIRI frame has {descriptor} {word!r}{near}"
