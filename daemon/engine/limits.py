"""What a job may take: time, memory, jobs a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGE_GROUP = 50  # frames; a job of more may take longer in proportion


@dataclass(frozen=True)
class Limits:
    """What one job may take, and when a worker is replaced by a fresh one."""

    seconds: float = 900.0
    memory_mb: int = 1500  # private memory, compiled code included; more is a MemoryError in the job
    jobs_per_worker: int = 200

    def seconds_for(self, job: Mapping[str, Any]) -> float:
        """What this job may take."""
        return self.seconds * max(1.0, len(job.get("inputs", ())) / LARGE_GROUP)
