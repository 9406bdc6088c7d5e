"""HTML from Python: every text is escaped by construction, so that no header can write into a page.

    tag("p", "seen by ", tag("b", name), class_="note")       # <p class="note">seen by <b>...</b></p>

What is a `Safe` is markup; every other text is data, whatever it holds. Characters that change the direction
of writing, or are no characters, are shown as what they are.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any, TypeAlias

LONGEST = 2000  # letters of one text; `short` cuts what headers say at 200

# Controls but for tab and line feed, marks of direction, surrogates and what is no character.
_ODD = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_VOID = {"wbr", "meta", "link", "img", "input", "br", "hr"}


class Safe(str):
    """Markup, made here."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Child] | None"


def tag(name: str, /, *children: Child, **attributes: Any) -> Safe:
    """An element. class_, for_ : class, for; data_x : data-x; True is an attribute alone, None is none

    A value that is Safe stands there as it is, however long: a path that was drawn here, a picture.
    """
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    return Safe(f"<{name}{told}>" if name in _VOID else f"<{name}{told}>{join(*children)}</{name}>")


def join(*children: Child) -> Safe:
    """One after the other; texts are escaped."""
    return Safe("".join(_one(child) for child in children))


def _one(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Safe):
        return child
    if isinstance(child, (str, int, float)):
        return text(str(child))
    return "".join(_one(each) for each in child)


def text(value: str) -> Safe:
    """Data as it may stand in a page."""
    shown = value if len(value) <= LONGEST else f"{value[:LONGEST]}…"
    return Safe(html.escape(_ODD.sub(lambda odd: f"\\u{ord(odd[0]):04x}", shown)))


def short(value: Any, most: int = 200) -> str:
    """What a header or a person says, cut to what a line can hold."""
    said = str(value)
    return said if len(said) <= most else f"{said[:most]}…"


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    said = value if isinstance(value, Safe) else text(str(value))
    return f" {name}" if value is True else f' {name}="{said}"'
