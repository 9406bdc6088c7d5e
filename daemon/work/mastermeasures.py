"""The figures of a master, of the frames that its stack is about to be made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daemon import logs
from pipeline.errors import DamagedFile, RefusedFile
from pipeline.files.read import read_frame
from pipeline.frame import Frame, Frames

FEWEST = 2  # frames that tell of their own noise
MOST = 12  # frames that are looked at: more make no figure better than the detector is steady

Measures = dict[str, list[Any]]  # {name: [value, error, unit]}

_UNITS = {"rate": "electron/s", "lamp": "electron/s", "read_noise": "electron", "sigma": "electron",
          "hot": "pix", "hot_both": "pix", "cold": "pix"}  # fmt: skip
# high, low, rows, columns are of electrons in a dark, and of the level in a flat.
_OF_DARKS = _UNITS | {"high": "electron/s", "low": "electron/s", "rows": "electron", "columns": "electron"}


def of_step(step: str, frames: Frames) -> Measures:
    """{name: [value, error, unit]} of the frames that enter stackDarks or makeLampFlat; {} of any other step,
    and where they are too few or have no exposure time. See `pipeline.algorithms.masterfigures`.
    """
    how: dict[str, Callable[[Frames], Measures]] = {"stackDarks": _darks, "makeLampFlat": _flats}
    return how[step](frames) if step in how else {}


def of_mask(mask: Frame) -> Measures:
    """The same of a bad-pixel mask that is made."""
    from pipeline.algorithms import masterfigures

    return _plain(masterfigures.of_mask(mask.dq), _UNITS)


def against(mask: Frame, before: str) -> Measures:
    """What a mask has that another had not; {} without one. before : its path, "" where there is none"""
    from pipeline.algorithms import masterfigures

    if not before:
        return {}
    try:
        other = read_frame(Path(before))
    except (OSError, DamagedFile, RefusedFile) as error:  # no reason to make no mask
        logs.get().warning("mask_not_compared", before=before, error=str(error))
        return {}
    return _plain(masterfigures.against(mask.dq, other.dq), _UNITS)


def _darks(frames: Frames) -> Measures:
    from pipeline.algorithms import masterfigures

    some, seconds = _usable(frames)
    if len(some) < FEWEST or not seconds:
        return {}
    found = masterfigures.of_darks([f.sci for f in some], [f.dq for f in some], seconds)
    return _plain(found, _OF_DARKS)


def _flats(frames: Frames) -> Measures:
    from pipeline.algorithms import masterfigures

    on, seconds = _usable([f for f in frames if "LAMPON" in f.tags])
    off, _ = _usable([f for f in frames if "LAMPOFF" in f.tags])
    if len(on) < FEWEST or not seconds or (off and off[0].shape != on[0].shape):
        return {}
    found = masterfigures.of_flats([f.sci for f in on], [f.sci for f in off], [f.dq for f in on], seconds)
    return _plain(found, _UNITS)


def _usable(frames: Frames) -> tuple[list[Frame], float]:
    """(as many as are looked at, exposure of one in seconds; 0 where it is not known)."""
    same = [f for f in frames if f.shape == frames[0].shape][:MOST]
    return same, float((same[0].descriptors.exposure_time if same else None) or 0.0)


def _plain(found: Any, units: dict[str, str]) -> Measures:
    return {
        name: [float(m.value), float(m.error), units.get(name.partition("_q")[0], "")]
        for name, m in found.items()
        if math.isfinite(m.value) and math.isfinite(m.error)
    }
