"""Warnings travel: what is wrong in a calibration is a note of everything that is made with it.

    travelling("N20160102S0363_flat", ("no frame with the lamp off",))
    # ("N20160102S0363_flat: no frame with the lamp off",)

One rule: every note of a product travels but the ordinary ones listed here.
Each product on the way puts its name before it, so that the note of an image reads like a path to its cause.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ORDINARY = re.compile(
    r"left out: the first exposure of a sequence is often bad$"
    r"|^first frame \S+ (kept: only|left out$)"
    r"|^sky borrowed from "
    r"|as told by \w+:do_cal=skip$"  # why is in another note
    r"|has been through \w+ before"
    r"|^zero point of .* used: |^the night was not photometric|^no standard of the night "
)


def once(notes: Iterable[str]) -> list[str]:
    """Notes without those that only say of a calibration what another says of the product itself."""
    known = list(dict.fromkeys(notes))
    own = set(known)
    return [text for text in known if not _is_told(text, own)]


def _is_told(text: str, own: set[str]) -> bool:
    while ": " in text:
        text = text.partition(": ")[2]
        if text in own:
            return True
    return False


def travelling(name: str, notes: Iterable[str]) -> tuple[str, ...]:
    """Those notes of a calibration that are warnings for what is made with it, its name before each."""
    return tuple(f"{name.removesuffix('.fits')}: {text}" for text in notes if not ORDINARY.search(text))
