"""What a descriptor is in an expression: its kind, its value for a frame, and when two values are equal."""

from __future__ import annotations

import datetime as dt
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from pipeline.toolkit.methods import DESCRIPTORS, Described

Kind = Literal["number", "text", "bool", "date", "time", "datetime", "None", "list", "any"]

EXPOSURE_TOLERANCE = 0.01  # of the larger value
WAVELENGTH_TOLERANCE = 1e-5


def equality(names: set[str], strict: bool) -> Callable[[Any, Any], bool]:
    tolerance = 0.0
    if not strict and "exposure_time" in names:
        tolerance = EXPOSURE_TOLERANCE
    if not strict and names & {"central_wavelength", "effective_wavelength"}:
        tolerance = WAVELENGTH_TOLERANCE
    if not tolerance:
        return lambda a, b: bool(a == b)

    def close(a: Any, b: Any) -> bool:
        if a is None or b is None:
            return a is b
        return bool(abs(a - b) <= tolerance * max(abs(a), abs(b)))

    return close


_BY_DISPLAY_NAME = ("filter_name", "disperser", "detector_name")


def reader(name: str, strict: bool) -> Callable[[Described], Any]:
    """Asks a frame, of an extension's values the first; sections as text."""

    def read(ad: Described) -> Any:
        if name == "tags":
            return ad.tags
        if name == "filename":
            return ad.filename
        options = {}
        if name.endswith("_section") or (not strict and name in _BY_DISPLAY_NAME):
            options["pretty"] = True
        value = getattr(ad, name)(**options)
        return value[0] if isinstance(value, list) and len(value) == 1 else value

    return read


def _kind(annotation: Any) -> Kind:
    """What a descriptor is, from what its method says that it returns."""
    found = [
        part
        for option in (typing.get_args(annotation) if _union(annotation) else (annotation,))
        for part in (typing.get_args(option) if typing.get_origin(option) is list else (option,))
    ]
    kinds: dict[Any, Kind] = {
        bool: "bool", int: "number", float: "number", str: "text",
        dt.datetime: "datetime", dt.date: "date", dt.time: "time",
    }  # fmt: skip
    return next((kinds[part] for part in found if part in kinds), "any")


def _union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (types.UnionType, typing.Union)


KINDS: dict[str, Kind] = {
    **{name: _kind(inspect.signature(getattr(Described, name), eval_str=True).return_annotation)
       for name in DESCRIPTORS},
    **dict.fromkeys((name for name in DESCRIPTORS if name.endswith("_section")), "text"),
    "filename": "text",
    "tags": "list",
}  # fmt: skip
