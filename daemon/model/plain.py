"""Text and plain data from outside, cleaned so that nothing that reads it later can fail on it.

    word = clean(argument)            # text that SQLite, JSON, a log and a terminal can hold
    values = loads(bytes)             # JSON of anybody, or a ValueError; nothing else
    check(Descriptors, values)        # the types of a dataclass's fields, or a TypeError

What arrives from a command line, a file or a header may hold bytes that are no text (Python keeps them as
half surrogates), numbers without end, and lists a thousand deep.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

DEEPEST = 40  # levels of nesting; our own files have fewer than ten
_LARGEST = 1 << 63  # SQLite's whole numbers


def clean(text: str) -> str:
    r"""`text` as UTF-8 can hold it: the byte E9 that was no text is written out as \xe9, a NUL as \x00."""
    return "".join(_written_out(c) if "\ud800" <= c <= "\udfff" or c == "\0" else c for c in text)


def _written_out(c: str) -> str:
    code = ord(c)
    return f"\\x{code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code:02x}"


def is_path(text: str) -> bool:
    """True when `text` can be the name of a file: bytes that are no text may be in it, a NUL may not."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def loads(text: str | bytes) -> Any:
    """JSON of unknown origin. Raises ValueError whatever is wrong with it, also for nesting without end."""
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _look_through(values, DEEPEST)
    return values


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _look_through(value: Any, deepest: int) -> None:
    if deepest < 0:
        raise ValueError("nested too deeply")
    if isinstance(value, float) and not math.isfinite(value):  # 1e400
        raise ValueError("a number beyond all bounds")
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError("a number beyond all bounds")
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    for item in value:
        _look_through(item, deepest - 1)


def cleaned(value: Any) -> Any:
    """Plain data with all its text, keys too, made clean."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): cleaned(item) for key, item in value.items()}
    return [cleaned(item) for item in value] if isinstance(value, (list, tuple)) else value


def check(cls: type, values: Mapping[str, Any]) -> None:
    """Raises TypeError unless every value has the type of the field of its name in a dataclass.

    Times may be ISO texts, tuples lists, as JSON has them; a number is finite; unknown names are passed over.
    """
    wanted = _hints(cls)
    for name, value in values.items():
        if name in wanted and not _is(value, wanted[name]):
            raise TypeError(f"{name} is {clean(repr(value))[:60]}, which makes no sense")


@lru_cache(maxsize=16)
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _is(value: Any, kind: Any) -> bool:
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is(value, one) for one in inside)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST
    if kind is datetime:
        return isinstance(value, datetime) or (isinstance(value, str) and _is_time(value))
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        each = inside[:1] * len(value) if inside[-1:] == (Ellipsis,) else inside
        return len(value) == len(each) and all(map(_is, value, each))
    if origin in (frozenset, set, list):
        return isinstance(value, (list, tuple, set, frozenset)) and all(_is(v, inside[0]) for v in value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    if kind is Any:
        return True
    return isinstance(value, kind) if isinstance(kind, type) else True


def _is_time(text: str) -> bool:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return False
    return when.tzinfo is not None
