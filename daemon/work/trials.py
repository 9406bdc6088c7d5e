"""Parts of a failed job are tried, one after the other, to find the bad frame (`ledger.searches`)."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from daemon.engine import OF_THE_MACHINE, Engine
from daemon.ledger import searches
from daemon.ledger.store import Ledger
from daemon.model.groups import Setting
from daemon.model.jobs import Outcome, Ticket
from daemon.work.backoff import BackOff


@dataclass
class Trials:
    """setting : rules and recipes; without it no failed job is searched"""

    ledger: Ledger
    engine: Engine
    back_off: BackOff
    setting: Setting | None = None
    _trying: int = 0  # the failed job of which a part is being tried

    def pending(self) -> bool:
        """True while a search goes on, and is not given up."""
        never = self.back_off.given_up("part")
        with self.ledger.read() as db:
            jobs = searches.pending(db)
        return self.setting is not None and any(job not in never for job in jobs)

    def start(self) -> int:
        """Try the next part, one at a time. Returns how many were started."""
        if self._trying or not self.pending():
            return 0
        found = self.ledger.write(partial(searches.next_try, skip=self.back_off.waiting("part")))
        if found is None:
            return 0
        self._trying, number, spec = found
        with contextlib.suppress(RuntimeError):  # no worker after all: tried again
            self.engine.submit(Ticket("part", self._trying).engine_number, number, spec)
            return 1
        self._trying = 0
        return 0

    def ended(self, outcome: Outcome) -> None:
        """How a try ended. Its product is thrown away."""
        job, setting = outcome.ticket.number, self.setting
        for path in ("fits", "png"):
            if outcome.result and outcome.result.get(path):
                with contextlib.suppress(OSError):
                    Path(outcome.result[path]).unlink()
        if outcome.ending in OF_THE_MACHINE:  # says nothing of the frames
            self.back_off.later(outcome.ticket, outcome.error)
        elif outcome.ending not in ("stopped", "cache") and setting is not None:
            if self.ledger.write(lambda tx: searches.told(tx, job, outcome, setting)):
                self.back_off.forget(outcome.ticket)
            else:
                self.back_off.later(outcome.ticket, outcome.error)
        self._trying = 0
