"""The NIRI reduction toolkit: raw frames in, calibrated images out, from a script, a notebook or the daemon.

    import pipeline
    from pipeline import Reduce, cal_service, dataselect, logutils

It has three rings, and imports go inward only. `algorithms` is array mathematics. Around it are frames
and what is done to them: `headers` (what a header says), `frame` (the one type that everything passes
along), `association` (which calibration belongs to which frame), `steps` and `recipes` (what is done). The
edge touches files: `files` (reading and writing), `calibrations` (the store), `produce` (from paths to a
written product), and what a person uses:

    pipeline.open(path)     a file with its tags, descriptors, header and planes       (toolkit)
    dataselect              choose files by tags and expressions                       (select, toolkit)
    Reduce                  run a recipe on files                                      (reduce, reduction)
    cal_service             the calibration store of a person                          (cal_service)
    logutils                what is written to the screen and to a log                 (logutils)

The names below are loaded when they are first used, so that `import pipeline` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline import cal_service, logutils
    from pipeline import select as dataselect
    from pipeline.errors import NiridError, ReductionError
    from pipeline.frame import Frame
    from pipeline.recipes import RECIPES
    from pipeline.reduce import Reduce
    from pipeline.toolkit.dataset import CannotOpen
    from pipeline.toolkit.dataset import Dataset as open
    from pipeline.toolkit.tokens import ExpressionError

# Public name -> (module, name in it; "" is the module itself).
_WHERE = {
    "CannotOpen": ("pipeline.toolkit.dataset", "CannotOpen"),
    "ExpressionError": ("pipeline.toolkit.tokens", "ExpressionError"),
    "Frame": ("pipeline.frame", "Frame"),
    "NiridError": ("pipeline.errors", "NiridError"),
    "RECIPES": ("pipeline.recipes", "RECIPES"),
    "Reduce": ("pipeline.reduce", "Reduce"),
    "ReductionError": ("pipeline.errors", "ReductionError"),
    "cal_service": ("pipeline.cal_service", ""),
    "dataselect": ("pipeline.select", ""),
    "logutils": ("pipeline.logutils", ""),
    "open": ("pipeline.toolkit.dataset", "Dataset"),
}

__all__ = [
    "RECIPES",
    "CannotOpen",
    "ExpressionError",
    "Frame",
    "NiridError",
    "Reduce",
    "ReductionError",
    "cal_service",
    "dataselect",
    "logutils",
    "open",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        from pipeline.params import suggest

        hint = "" if name.startswith("_") else suggest(name, _WHERE)
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}{hint}")
    module, attribute = _WHERE[name]
    loaded = importlib.import_module(module)
    value = getattr(loaded, attribute) if attribute else loaded
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
