"""What is on record of a job, a product, a file and a frame, as the ledger answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daemon.model.states import FileState


@dataclass(frozen=True)
class JobRecord:
    """spec : its JobSpec as JSON, {} as long as it waits
    remake : how often its group was to be made again when it was planned
    changed : seconds since the epoch
    """

    id: int
    key: str
    group: int
    recipe: str
    version: int
    state: str
    reason: str
    spec: Mapping[str, Any]
    remake: int
    attempts: int
    error: str
    seconds: float | None
    changed: float


@dataclass(frozen=True)
class ProductRecord:
    """key, spec : of the job that made it; published : seconds since the epoch"""

    id: int
    job: int
    key: str
    spec: Mapping[str, Any]
    group: int
    name: str
    night: str
    path: str
    sha256: str
    version: int
    current: bool
    published: float
    notes: list[str]
    quality: Mapping[str, Any]


@dataclass(frozen=True)
class ContentRecord:
    """Bytes that came, under whatever names. kind : of a calibration, "" of a raw frame

    frame : its exposure, None when it is of none; label, data_sha, name : of the exposure
    """

    id: int
    sha256: str
    state: FileState
    reason: str
    kind: str
    frame: int | None
    label: str
    data_sha: str
    name: str


@dataclass(frozen=True)
class FrameRecord:
    """An exposure, and what became of the first of its files that counts; "" when there is none."""

    label: str
    state: str
    reason: str
