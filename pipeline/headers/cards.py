"""FITS header cards -> values, for cards of any writer: nothing raises, and all text is printable.

The value grammar is that of the FITS standard 4.0, section 4.2, with what real writers add to it: D
exponents, text that goes on in CONTINUE cards, HIERARCH keywords, values of no known form.
"""

from __future__ import annotations

import math
import re

CARD = 80
LONGEST = 8192  # characters of a text in CONTINUE cards

Value = str | int | float | bool | None
_CLEAN = dict.fromkeys((*range(32), *range(127, 256)), "?")
_INT = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d+)?", re.ASCII)


def parse_cards(
    header: bytes,
) -> tuple[dict[str, Value], dict[str, str], tuple[str, ...], tuple[str, ...]]:
    """cards, comments, duplicates, odd of a header, as `files.structure.Hdu` has them; nothing raises.

    Of a doubled keyword the first counts. Commentary cards are left out. What cannot be printed
    becomes "?", so that a header can neither move a terminal's cursor nor break a line of a log.
    """
    cards: dict[str, Value] = {}
    comments: dict[str, str] = {}
    duplicates: list[str] = []
    odd: list[str] = []
    text = header.decode("latin-1").translate(_CLEAN)
    open_string = ""  # the keyword whose text ends in "&" and may go on
    for at in range(0, len(text) - CARD + 1, CARD):
        card = text[at : at + CARD]
        key = card[:8].rstrip()
        if key == "END":
            break
        if key == "CONTINUE" and open_string:
            more, comment, _ = _value(card[8:])
            whole = str(cards[open_string])[:-1] + str(more or "")
            cards[open_string] = whole
            comments[open_string] += comment
            open_string = open_string if whole.endswith("&") and len(whole) < LONGEST else ""
            continue
        rest = card[10:]
        if key == "HIERARCH" and "=" in card:
            key, rest = card[8:].split("=", 1)
            key = key.strip().upper()
        elif card[8:10] != "= ":
            if card[8] != "=":
                continue  # COMMENT, HISTORY, blank
            rest = card[9:]
        if not key or key in ("COMMENT", "HISTORY"):
            continue
        open_string = ""
        if key in cards:
            duplicates.append(key)
            continue
        cards[key], comments[key], sound = _value(rest)
        if not sound:
            odd.append(key)
        if isinstance(cards[key], str) and str(cards[key]).endswith("&"):
            open_string = key
    return cards, comments, tuple(duplicates), tuple(odd)


def _value(field: str) -> tuple[Value, str, bool]:
    """Value, comment, and whether the value made sense (else it is the text as it stands)."""
    field = field.lstrip()
    if field.startswith("'"):
        end = field.find("'", 1)
        while end >= 0 and field[end + 1 : end + 2] == "'":  # a doubled quote is one quote in the text
            end = field.find("'", end + 2)
        if end < 0:
            return field[1:].rstrip(), "", False
        _, _, comment = field[end + 1 :].partition("/")
        return field[1:end].replace("''", "'").rstrip(), comment.strip(), True
    token, _, comment = field.partition("/")
    token, comment = token.strip(), comment.strip()
    if not token:
        return None, comment, True
    if token in ("T", "F"):
        return token == "T", comment, True
    if _INT.fullmatch(token):
        return int(token), comment, True
    if _FLOAT.fullmatch(token):
        number = float(token.replace("D", "E").replace("d", "e"))
        if math.isfinite(number):
            return number, comment, True
    return token, comment, False


def has_end(block: bytes) -> bool:
    """True where a block of a header holds its END card."""
    at = block.find(b"END     ")
    while at > 0 and at % CARD:
        at = block.find(b"END     ", at + 1)
    return at >= 0
