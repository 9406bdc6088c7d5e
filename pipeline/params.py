"""Typed parameters: dataclass fields with bounds, read from text or TOML, with errors that help.

Serves the parameters of recipe steps and, with nested tables added, the configuration file. Types:
bool, int, float, str, datetime, Literal, tuple[str, ...], and `X | None` of these.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import os
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Literal

_MISSING: Any = object()


def bounded(
    default: Any,
    *,
    doc: str,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    dragons: Any = _MISSING,
) -> Any:
    """A dataclass field with limits and one line of documentation.

    dragons : the value in the preset `dragons`, where it differs from the default
    """
    meta: dict[str, Any] = {"doc": doc, "gt": gt, "ge": ge, "lt": lt, "le": le}
    if dragons is not _MISSING:
        meta["dragons"] = dragons
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True)
class NoParams:
    """For a step that has none."""


def type_hints(cls: type) -> dict[str, Any]:
    """Field name -> type of a parameters dataclass."""
    return typing.get_type_hints(cls)


def allowed(kind: Any) -> str:
    """What a type accepts, in words: `one of mean, median`, `a number or None` ..."""
    options = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(o) for o in options)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " or ".join("None" if o is type(None) else allowed(o) for o in options)
    if typing.get_origin(kind) is tuple:
        return "names, separated by commas"
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    return (words | {datetime: "a date, as 2014-04-02, or a date and time (UT)"}).get(kind, str(kind))


def coerce(kind: Any, value: Any) -> Any:
    """The value as this type; text is parsed, paths and numpy's scalars are taken for what they hold.

    Raises ValueError saying what was wanted.
    """
    value = _plain(value)
    options = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        nothing = value is None or (isinstance(value, str) and value.strip().lower() in ("none", ""))
        if nothing and type(None) in options:
            return None
        for option in (o for o in options if o is not type(None)):
            try:
                return coerce(option, value)
            except ValueError:
                continue
    elif typing.get_origin(kind) is Literal:
        for option in options:
            if value == option or (isinstance(value, str) and value.strip() == str(option)):
                return option
    elif typing.get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        items = [_plain(item) for item in items] if isinstance(items, list | tuple) else items
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(item.strip() for item in items if item.strip())
    elif kind is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        if isinstance(value, str) and value.strip().lower() in words:
            return words[value.strip().lower()]
    elif kind in (int, float):
        result = _number(kind, value)
        if result is not None:
            return result
    elif kind is str and isinstance(value, str):
        return value.strip().strip("'\"")
    elif kind is datetime and (when := _moment(value)) is not None:
        return when
    raise ValueError(f"must be {allowed(kind)}")


def _plain(value: Any) -> Any:
    """A path as text, a scalar of numpy's as one of Python's."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _moment(value: Any) -> datetime | None:
    """A date is its first moment; without a time zone it is UT."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _number(kind: type, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(result) or (kind is int and result != int(result)):
        return None
    return kind(result)


def check_bounds(field: dataclasses.Field[Any], value: Any) -> None:
    """Raises ValueError when a number is outside the limits of its field."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    limits = (
        ("gt", "greater than", operator.gt),
        ("ge", "at least", operator.ge),
        ("lt", "less than", operator.lt),
        ("le", "at most", operator.le),
    )
    for key, words, holds in limits:
        limit = field.metadata.get(key)
        if limit is not None and not holds(value, limit):
            raise ValueError(f"must be {words} {limit}")


def build(cls: type, values: Mapping[str, Any], *, preset: str = "nirid") -> tuple[Any, list[str]]:
    """(instance of a parameters dataclass, problems) from values by name.

    Order of precedence: default, preset, `values`. A problem is a line such as
    `operation='avg': must be one of mean, median, wtmean`; with any, the instance is the default.
    """
    hints = type_hints(cls)
    problems, chosen = [], {}
    for field in dataclasses.fields(cls):
        value = field.default
        if preset == "dragons" and "dragons" in field.metadata:
            value = field.metadata["dragons"]
        chosen[field.name] = value
    for name, raw in values.items():
        if name not in chosen:
            problems.append(f"{name}: no such parameter{suggest(name, chosen)}")
            continue
        try:
            value = coerce(hints[name], raw)
            check_bounds(next(f for f in dataclasses.fields(cls) if f.name == name), value)
            chosen[name] = value
        except ValueError as error:
            problems.append(f"{name}={raw!r}: {error}")
    return cls(**({} if problems else chosen)), problems


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean hsigma?` or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
