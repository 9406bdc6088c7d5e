"""Where a job runs. The heart talks to an `Engine`; local processes are one, a Dask cluster is another.

An engine knows nothing of the ledger: it takes a job specification, and later tells in an `Outcome`
what became of it. All its methods are called from one thread, the heart's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pipeline.errors import NiridError

Ending = Literal[
    "done",  # `result` is the worker's answer, the staged product is on disk
    "failed",  # ReductionError or a bug: the same inputs would fail again
    "io",  # OSError, or a library that cannot be loaded: the world is briefly unwell, not counted
    "died",  # the worker is gone by itself (segmentation fault, exit)
    "killed",  # by a signal from outside: the kernel's, when memory runs out, a limit's, or a person's
    "timeout",  # over the time limit, killed
    "memory",  # over the memory limit, or no thread to be had
    "cache",  # compiled code on disk is damaged: it was thrown away, the job is for another try
    "stopped",  # asked to stop, and did
]


# Failures of the machine: they say nothing of the data. Tried again like other troubles of the system.
OF_THE_MACHINE = ("io", "killed", "memory", "timeout")


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt at a job."""

    job_id: int
    attempt: int
    ending: Ending
    seconds: float  # wall time, by the monotonic clock
    result: Mapping[str, Any] | None = None  # only of "done"
    error: str = ""  # one line: class and message
    traceback: str = ""
    data_error: bool = False  # of "failed": True for a ReductionError, False for a bug


class Spec(Protocol):
    """A job specification, as `daemon.jobspec.JobSpec`: an engine only hands it on."""

    def to_json(self) -> dict[str, Any]: ...


class WorkersDoNotStart(NiridError):
    """No worker comes up: the installation is broken, a limit is too low, or nothing answers."""


class Engine(Protocol):
    """The way from the heart to the workers."""

    def start(self) -> None:
        """Begin to make workers ready. Returns at once; jobs wait, the daemon does not."""

    def free(self) -> int:
        """How many jobs may be submitted now."""

    def submit(self, job_id: int, attempt: int, spec: Spec) -> None:
        """Start a job. RuntimeError when `free()` is 0."""

    def poll(self) -> list[Outcome]:
        """What has ended since the last call; replaces dead workers and enforces the limits. Never blocks."""

    def waitables(self) -> Sequence[Any]:
        """Objects for `multiprocessing.connection.wait`, ready when `poll` has something to do."""

    def cancel(self, job_id: int) -> None:
        """Ask a job to stop between two steps; its outcome follows from `poll`."""

    def busy(self) -> int:
        """How many jobs are running."""

    def stop(self, timeout: float) -> list[Outcome]:
        """Ask all to stop, kill what has not after `timeout` seconds, and return the last outcomes."""
