"""The waits between tries of what the machine has kept from being done: 1 s, doubled up to 5 min."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from daemon.model.jobs import Ticket

SECONDS = (1.0, 300.0)  # first and longest wait
BATCH_TRIES = 3  # with --until-idle, where waits count as elapsed; then it is given up


@dataclass
class _Wait:
    until: float
    seconds: float
    tries: int
    why: str


@dataclass
class BackOff:
    """Waits of jobs, or their publications, and of parts of failed jobs.

    batch : --until-idle
    """

    clock: Callable[[], float]
    batch: bool = False
    _waits: dict[Ticket, _Wait] = field(default_factory=dict)

    def later(self, ticket: Ticket, why: str) -> None:
        """It could not be done now: the next wait begins, twice as long as the one before."""
        before = self._waits.get(ticket)
        seconds = min(SECONDS[1], before.seconds * 2) if before else SECONDS[0]
        tries = before.tries + 1 if before else 1
        until = self.clock() + (0.0 if self.batch else seconds)
        if self.batch and tries >= BATCH_TRIES:
            until = math.inf
        self._waits[ticket] = _Wait(until, seconds, tries, why)

    def forget(self, ticket: Ticket) -> None:
        """It is done, or something else became of it."""
        self._waits.pop(ticket, None)

    def waiting(self, kind: str = "job") -> list[int]:
        """Numbers of the jobs, or of those whose parts, are not to be tried yet."""
        now = self.clock()
        return [t.number for t, wait in self._waits.items() if wait.until > now and t.kind == kind]

    def given_up(self, kind: str = "job") -> list[int]:
        """Numbers of the jobs, or of those whose parts, are tried no more before the end of this run."""
        return [t.number for t, wait in self._waits.items() if math.isinf(wait.until) and t.kind == kind]

    def next_end(self) -> float | None:
        """Seconds until the first wait ends; None when nothing waits."""
        now = self.clock()
        return min((wait.until - now for wait in self._waits.values() if wait.until > now), default=None)

    def in_words(self, wanted: Collection[Ticket]) -> list[str]:
        """Why each of these could not be done, where that is so."""
        waits = sorted(self._waits.items(), key=lambda item: item[0].engine_number)
        return [f"job {ticket.number}: {wait.why}" for ticket, wait in waits if ticket in wanted]
