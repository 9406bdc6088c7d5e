"""A running stack: what a job of its group would make of the frames so far, made early.

When the group turns quiet and the very same job is planned, that job takes the stack over, and nothing is
made a second time.

| state | what it is | when a job takes it over |
|---|---|---|
| Begun | under way | its end will be the job's: Adopted |
| Made | done, and there to look at | its end is the job's at once |
| Adopted | under way, for a job | |
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from daemon.ledger.jobs import Claim
from daemon.model.jobs import SHOWN, Look, Outcome


@dataclass(frozen=True)
class Begun:
    """Under way: it may be stopped for something more urgent."""


@dataclass(frozen=True)
class Made:
    outcome: Outcome


@dataclass(frozen=True)
class Adopted:
    job: Claim


State: TypeAlias = Begun | Made | Adopted
BEGUN = Begun()


@dataclass
class RunningStack:
    look: Look
    state: State = BEGUN

    def take_over(self, job: Claim) -> Outcome | None:
        """It is what this job is to make: the outcome of the job, or None while the stack is under way."""
        if isinstance(self.state, Made):
            return _as_outcome_of(job, self.look, self.state.outcome)
        self.state = Adopted(job)
        return None

    def ended(self, outcome: Outcome) -> Outcome | None:
        """It is no longer under way: the outcome of the job that has taken it over, where there is one."""
        if isinstance(self.state, Adopted):
            return _as_outcome_of(self.state.job, self.look, outcome)
        self.state = Made(outcome)
        return None

    @property
    def job(self) -> int | None:
        """The job that waits for its end."""
        return self.state.job.job_id if isinstance(self.state, Adopted) else None


def _as_outcome_of(job: Claim, look: Look, outcome: Outcome) -> Outcome:
    """What is staged goes to where the job stages its product."""
    if outcome.ending == "done":
        try:
            for suffix in (".png", ".fits"):
                os.replace(f"{look.spec.staging}{suffix}", f"{job.spec.staging}{suffix}")
        except OSError as error:
            outcome = replace(outcome, ending="io", error=str(error), result=None)
        else:
            with contextlib.suppress(OSError):
                Path(f"{look.spec.staging}{SHOWN}").unlink(missing_ok=True)
    return replace(outcome, job_id=job.job_id, attempt=job.attempt)


def discard(look: Look) -> None:
    """Remove what is staged of a look."""
    with contextlib.suppress(OSError):  # the next start tidies
        for suffix in (".png", ".fits", SHOWN):
            Path(f"{look.spec.staging}{suffix}").unlink(missing_ok=True)
