"""Where a job runs. The main loop talks to an `Engine`; local processes are one, a Dask cluster is another.

An engine knows nothing of the ledger: it takes a job specification, and later tells in an `Outcome`
what became of it. All its methods are called from one thread, the main loop's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from daemon.model.jobs import Outcome, Spec
from pipeline.errors import NiridError

# Failures of the machine: they say nothing of the data. Tried again like other troubles of the system.
OF_THE_MACHINE = ("io", "killed", "memory", "timeout")


class WorkersDoNotStart(NiridError):
    """No worker comes up: the installation is broken, a limit is too low, or nothing answers."""


class Engine(Protocol):
    """The way from the main loop to the workers."""

    def start(self) -> None:
        """Begin to make workers ready. Returns at once; jobs wait until one is."""

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
