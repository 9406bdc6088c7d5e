"""Errors, classed by what the caller should do next.

Every message names the file or frame, the value found and the value wanted.
"""

from __future__ import annotations

from typing import Any


class NiridError(Exception):
    """Anything that this project raises on purpose."""


class ReductionError(NiridError):
    """These data cannot be reduced so; the same inputs would fail the same way."""


class FrameMismatch(ReductionError):
    """Frames that cannot go together: shape, unit, exposure, filter ..."""


class NotEnoughFrames(ReductionError):
    """Fewer usable frames than the step needs."""


class BadFrame(ReductionError):
    """One frame cannot be used; `frame` is its name."""

    def __init__(self, frame: str, why: str) -> None:
        super().__init__(f"{frame}: {why}")
        self.frame = frame


class CalibrationNotFound(ReductionError):
    """A step needs a calibration that it was not given."""


class OverrideError(NiridError):
    """A parameter override that cannot be honoured: the operator must act."""


class ConfigError(NiridError):
    """A configuration that cannot be used: the operator must act."""


class RefusedFile(NiridError):
    """A whole file that is no frame of ours: another instrument, spectroscopy, processed science ..."""


class DamagedFile(NiridError):
    """A file that is broken and will stay so until its bytes change.

    hdus : `files.structure.Hdu` of the headers before the damage
    """

    hdus: tuple[Any, ...] = ()


class IncompleteFile(DamagedFile):
    """A file shorter than its headers say; it may still be growing.

    expected, actual : bytes
    """

    def __init__(self, message: str, expected: int, actual: int) -> None:
        super().__init__(message)
        self.expected = expected
        self.actual = actual


class StopRequested(NiridError):
    """The operator or systemd asked the recipe to stop between two steps."""
