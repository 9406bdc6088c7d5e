"""Puts what was made in its place, brings back what was made before, and takes away what is to go.

What cannot be finished now keeps its intent in the ledger, and is tried again after a wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from daemon.ledger import jobs, publications, wishes
from daemon.ledger.store import Ledger, LedgerBusy
from daemon.model.jobs import Outcome, Ticket
from daemon.model.names import STAGING, staging_path
from daemon.model.publication import PublishPlan, StagedFileGone
from daemon.model.rules import DEFAULT_POLICY, Policy
from daemon.work.backoff import BackOff
from daemon.work.moving import move_files


@dataclass
class Publisher:
    """All its methods are called by the main loop.

    on_published : called with each plan that is carried out
    on_error : called with the text of an error that may be one of a full disk
    at : called with the name of each point of a publication, for tests that stop there
    """

    ledger: Ledger
    back_off: BackOff
    on_published: Callable[[PublishPlan], None]
    on_error: Callable[[str], None]
    policy: Policy = DEFAULT_POLICY
    at: Callable[[str], None] = lambda point: None
    unfinished: dict[int, PublishPlan] = field(default_factory=dict)  # by job

    def recover(self) -> int:
        """At start: finish what had begun. Returns how many."""
        with self.ledger.read() as db:
            plans = publications.begun(db)
        for plan in plans:
            self.publish(plan)
        return len(plans)

    def tidy(self, products: Path) -> None:
        """Delete from the staging folder what no job owns."""
        waiting = {Path(plan.staged).name for plan in self.unfinished.values()}
        with contextlib.suppress(OSError):  # what cannot be tidied now is tidied at another start
            for stray in (products / STAGING).iterdir():
                if stray.name not in waiting and stray.with_suffix(".fits").name not in waiting:
                    stray.unlink(missing_ok=True)

    def try_again(self) -> int:
        """What could not be finished before and has waited long enough. Returns how many are finished."""
        waiting = self.back_off.waiting()
        return sum(self.publish(plan) for job, plan in list(self.unfinished.items()) if job not in waiting)

    def fulfil_wishes(self) -> int:
        """Bring back products that are wanted again, take away those that are wrong now. Returns how many."""
        with self.ledger.read() as db:
            wanted = wishes.wishes(db)
        for wish in wanted:
            intend = publications.intend_restoration if wish.back else publications.intend_withdrawal
            plan = self.ledger.write(partial(intend, group=wish.group))
            if plan is not None:
                self.publish(plan)
        return len(wanted)

    def publish(self, plan: PublishPlan) -> int:
        """Carry out a plan; returns 0 when that cannot be now: then it is tried again."""
        try:
            try:
                self.carry_out(plan)
            except StagedFileGone as error:
                self.ledger.write(partial(jobs.abandon, plan=plan, error=str(error)))
        except OSError as error:  # LedgerBusy is one: the intent stays, and is finished later
            self.on_error(str(error))
            first = plan.job not in self.unfinished
            self.unfinished[plan.job] = plan
            self.back_off.later(
                Ticket("job", plan.job), f"{Path(plan.final).name} cannot be put in its place: {error}"
            )
            if first:
                with contextlib.suppress(LedgerBusy):
                    self._say_delayed(plan, str(error))
            return 0
        self.unfinished.pop(plan.job, None)
        self.back_off.forget(Ticket("job", plan.job))
        return 1

    def carry_out(self, plan: PublishPlan) -> None:
        self.at("intended")
        move_files(plan, self.at)
        self.ledger.write(lambda tx: publications.commit(tx, plan, self.policy))
        self.at("committed")
        self.on_published(plan)

    def _say_delayed(self, plan: PublishPlan, error: str) -> None:
        self.ledger.write(
            lambda tx: tx.event("publish_delayed", job=plan.job, product=plan.final, error=error)
        )

    def discard(self, outcome: Outcome) -> None:
        """Delete staged files that are not needed; what cannot be deleted now is deleted at the
        next start."""
        with self.ledger.read() as db:
            spec = jobs.spec_of(db, outcome.job_id)
        if spec is None:
            return
        stem = staging_path(spec, outcome.attempt)
        with contextlib.suppress(OSError):
            for suffix in (".png", ".fits"):
                Path(f"{stem}{suffix}").unlink(missing_ok=True)

    def may_finish(self) -> bool:
        """True while something is still to be published, and not given up."""
        return bool(self.unfinished.keys() - set(self.back_off.given_up()))
