"""Keeps the engine busy: claims jobs, hands them out, and publishes what comes back.

What it writes down of a job is in `ledger.jobs`, where the table of endings is; here is what is to be done
first, between jobs, looks and parts of failed jobs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import partial
from pathlib import Path

from daemon.engine import OF_THE_MACHINE, Engine
from daemon.ledger import jobs, publications, searches
from daemon.ledger import looks as ledger_looks
from daemon.ledger import products as ledger_products
from daemon.ledger.jobs import claim, claim_made, end, recover_interrupted
from daemon.ledger.publications import CalibrationReplaced
from daemon.ledger.store import Ledger, LedgerBusy
from daemon.model.groups import Setting
from daemon.model.jobs import BACKLOG, Look, Outcome, Ticket
from daemon.model.publication import PublishPlan
from daemon.model.rules import DEFAULT_POLICY, Policy
from daemon.work.backoff import BackOff
from daemon.work.diskguard import DiskGuard, tells_of_full_disk
from daemon.work.losses import Suspects
from daemon.work.previews import Looks
from daemon.work.publishing import Publisher
from daemon.work.trials import Trials

OLDEST_EVERY = 8  # one claim in so many is the oldest of the backlog
ALONE_SECONDS = 300.0  # after a worker was killed for memory, or was too slow


@dataclass
class Dispatcher:
    """Keeps the engine busy and publishes what it returns. All its methods are called by the main_loop.

    batch : --until-idle, waits between tries count as elapsed
    setting : rules and recipes; without it no failed job is halved
    guard : says when there is no room to work in; on_pause is told why, and "" when it goes on
    looks : first looks and running stacks; None makes none
    """

    ledger: Ledger
    engine: Engine
    batch: InitVar[bool] = False
    policy: InitVar[Policy] = DEFAULT_POLICY
    clock: Callable[[], float] = time.monotonic
    setting: Setting | None = None
    guard: DiskGuard | None = None
    on_pause: Callable[[str], None] = lambda why: None
    looks: Looks | None = None
    claims: int = 0
    paused: str = ""
    _alone_until: float = float("-inf")
    _last_was_look: bool = False  # of those started; while both wait, first looks and jobs alternate
    _ended: list[Outcome] = field(default_factory=list)  # told by the engine once, not yet in the ledger

    def __post_init__(self, batch: bool, policy: Policy) -> None:
        self.back_off = BackOff(self.clock, batch)
        self.publisher = Publisher(self.ledger, self.back_off, self._published, self.full, policy)
        self.suspects = Suspects(self.ledger, self.publisher, self.clock)
        self.trials = Trials(self.ledger, self.engine, self.back_off, self.setting)

    def until_idle(self) -> None:
        """From now on make no looks, and do not wait between tries."""
        self.back_off.batch = True
        self.looks = None

    def recover(self, products: Path) -> int:
        """At start: finish publications that had begun, take up what was running, tidy the staging folder."""
        finished = self.publisher.recover()
        count = self.ledger.write(recover_interrupted)
        if self.looks is not None:
            self.looks.last = self.ledger.write(ledger_looks.recover)
        self.publisher.tidy(products)
        with self.ledger.read() as db:
            self.suspects.add(*(p.path for p in ledger_products.current(db) if not os.path.lexists(p.path)))
        return count + finished

    def suspect(self, path: str) -> None:
        """The product at a path may be lost: that is looked into soon. From any thread."""
        self.suspects.add(path)

    def dispatch(self) -> int:
        """Hand out jobs while a worker is free and there is room. Returns how many."""
        started = 0
        if self._look_for_room():
            return 0
        if self.looks is not None:
            started += self._take_what_is_made(self.looks) + self._look_first(self.looks)
        started += self.trials.start() if self._free() > 0 else 0
        started += self._start(BACKLOG - 1 if self.looks else BACKLOG)
        if self.looks is not None:
            if self._free() > 0 and (look := self.looks.next_stack()):
                started += self._submit_look(look)
            started += self._start(BACKLOG)
            self._make_room(self.looks)
        return started

    def _start(self, until: int) -> int:
        """Jobs of the ledger, up to a priority, while a worker is free; one in eight is the oldest of all."""
        started = 0
        while self._free() > 0:
            oldest = self.claims % OLDEST_EVERY == OLDEST_EVERY - 1
            last = BACKLOG if oldest else until
            skip = self.back_off.waiting()
            if not self._claimable(skip, last):  # only reads: an idle daemon writes nothing
                break
            claimed = self.ledger.write(partial(claim, skip=skip, oldest=oldest, until=last))
            if claimed is None:
                break
            self.claims += 1
            self._last_was_look = False
            started += 1
            try:
                self.engine.submit(claimed.job_id, claimed.attempt, claimed.spec)
            except RuntimeError as error:
                self._ended.append(Outcome(claimed.job_id, claimed.attempt, "stopped", 0.0, error=str(error)))
                break
        return started

    # -- looks --------------------------------------------------------------------------------

    def _take_what_is_made(self, looks: Looks) -> int:
        """Jobs that a running stack of the same frames has made, or is making."""
        taken = 0
        for stack in looks.stacks():
            spec = stack.look.spec
            if not self._is_planned(spec.key):
                continue
            job = self.ledger.write(partial(claim_made, spec=spec))
            if job is None:
                continue
            taken += 1
            outcome = looks.take_over(stack, job)
            ledger_looks.adopted(self.ledger, stack.look.number, job.job_id)
            if outcome is not None:
                self._ended.append(outcome)
        return taken

    def _is_planned(self, key: str) -> bool:
        with self.ledger.read() as db:
            return jobs.is_planned(db, key)

    def _look_first(self, looks: Looks) -> int:
        """New frames get their first look before anything else; when many wait, looks and jobs alternate."""
        started = 0
        while self._free() > 0 and not (self._last_was_look and self._claimable(self.back_off.waiting())):
            if (look := looks.next_first()) is None:
                break
            self._last_was_look = True
            started += self._submit_look(look)
        return started

    def _make_room(self, looks: Looks) -> None:
        """A running stack is stopped for a fresh frame, or a job that is not of the backlog."""
        number = looks.in_the_way()
        if number is None or self.engine.free() > 0:
            return
        if looks.waiting() or self._claimable(self.back_off.waiting(), BACKLOG - 1):
            self.engine.cancel(number)

    def _submit_look(self, look: Look) -> int:
        try:
            self.engine.submit(look.number, 1, look.spec)
        except RuntimeError as error:
            self._ended.append(Outcome(look.number, 1, "stopped", 0.0, error=str(error)))
            return 0
        if self.looks is not None:
            ledger_looks.begun(self.ledger, look, str(self.looks.path_of(look)))
        return 1

    def _looked(self, looks: Looks, outcome: Outcome) -> None:
        """A look has ended, and the job that has taken it over, if any."""
        job, came = looks.job_of(outcome.job_id), looks.ended(outcome)
        if came.of_job is not None:
            self._ended.append(came.of_job)
        ledger_looks.ended(self.ledger, outcome, job, shown=came.shown, error=came.error)

    def _of_the_machine(self, outcome: Outcome) -> None:
        """A full disk: start nothing until there is room. Memory, time: one job at a time for a while."""
        if outcome.ending == "io":
            self.full(outcome.error)
        elif outcome.ending in OF_THE_MACHINE:
            self._alone_until = self.clock() + ALONE_SECONDS

    def _free(self) -> int:
        """How many jobs may be started now: after a worker was killed for memory, one at a time."""
        if self.clock() < self._alone_until and self.engine.busy() > 0:
            return 0
        return self.engine.free()

    def _look_for_room(self) -> str:
        """Why no job is started; "" when there is room. What has changed is told and logged."""
        why = self.guard.check(self.clock()) if self.guard else ""
        if bool(why) != bool(self.paused):
            event = "work_paused" if why else "work_resumed"
            with contextlib.suppress(LedgerBusy):  # which may be full as well
                self.ledger.write(lambda tx: tx.event(event, reason=why or self.paused))
            self.on_pause(why)
        self.paused = why
        return why

    def full(self, error: str) -> None:
        """If this is the error of a full disk, start nothing until there is room."""
        if self.guard and tells_of_full_disk(error):
            self.guard.full(error, self.clock())

    def collect(self) -> int:
        """Take in what has ended, and try again what could not be published. Returns how many changed."""
        if self.looks is not None:
            self.looks.try_again()
        changed = self.publisher.try_again()
        changed += self.publisher.fulfil_wishes()  # removals first: they free names for new products
        self._ended += self.engine.poll()
        while self._ended:  # what cannot be recorded now comes again the next time
            self.finish(self._ended[0])
            del self._ended[0]
            changed += 1
        return changed + self.suspects.make_up()

    def finish(self, outcome: Outcome) -> None:
        """What follows from one ending."""
        match outcome.ticket.kind:
            case "look" if self.looks is not None:
                self._looked(self.looks, outcome)
            case "part":
                self._of_the_machine(outcome)
                self.trials.ended(outcome)
            case _:
                self._finish_job(outcome)

    def _finish_job(self, outcome: Outcome) -> None:
        result = outcome.result
        if outcome.ending != "done" or result is None:
            self._end(outcome)
            return
        try:
            plan = self.ledger.write(
                lambda tx: publications.intend(tx, outcome.job_id, outcome.attempt, result)
            )
        except CalibrationReplaced as error:
            self._end(replace(outcome, ending="stopped", error=str(error), result=None))
            self.publisher.discard(outcome)
            return
        except (KeyError, ValueError) as error:  # a worker's answer that makes no sense
            self._end(
                replace(outcome, ending="failed", error=f"{type(error).__name__}: {error}", result=None)
            )
            return
        if plan is not None:
            self.publisher.publish(plan)
        else:
            self.publisher.discard(outcome)

    def next_due(self) -> float | None:
        """Seconds until there is something to do whatever happens: a back-off ends, a stack may begin."""
        if self._ended:
            return 0.0
        ends = [] if (end := self.back_off.next_end()) is None else [end]
        if self.looks is not None and (due := self.looks.next_due()) is not None:
            ends.append(due - self.clock())
        return min(ends, default=None)

    def stop(self, timeout: float) -> None:
        """Ask the running jobs to stop; they go back to planned. The next start does it for those that
        cannot be written down now."""
        self._ended += self.engine.stop(timeout)
        while self._ended:
            with contextlib.suppress(LedgerBusy):
                self.finish(self._ended.pop(0))

    def startable(self) -> bool:
        """True while a planned job waits for nothing but a worker or the end of a finite back-off."""
        return self._claimable(self.back_off.given_up()) or self.trials.pending()

    def busy(self) -> bool:
        """True while something runs or is still to be published."""
        return self.engine.busy() > 0 or bool(self._ended) or self.publisher.may_finish()

    def _claimable(self, skip: Sequence[int], until: int = BACKLOG) -> bool:
        with self.ledger.read() as db:
            return jobs.is_claimable(db, skip, until)

    def _end(self, outcome: Outcome) -> None:
        self.ledger.write(lambda tx: end(tx, outcome, self.setting))
        if outcome.ending in OF_THE_MACHINE:
            self._of_the_machine(outcome)
            self.back_off.later(outcome.ticket, outcome.error)
            with self.ledger.read() as db:
                self.suspects.add(*ledger_products.used_by(db, outcome.job_id))
        else:
            self.back_off.forget(outcome.ticket)

    def left_undone(self) -> list[str]:
        """What the system has kept from being done, in words; back-off is over in a batch."""
        with self.ledger.read() as db:  # a job that was planned again meanwhile needs no person
            wanted = {Ticket("job", number) for number in jobs.unfinished(db)}
            wanted |= {Ticket("part", number) for number in searches.pending(db)}
        wanted |= {Ticket("job", number) for number in self.publisher.unfinished}
        return self.back_off.in_words(wanted) + [f"work is paused: {self.paused}"] * bool(self.paused)

    def _published(self, plan: PublishPlan) -> None:
        if self.guard:
            with contextlib.suppress(OSError):
                size = Path(plan.final).stat().st_size
                self.guard.biggest_job = max(self.guard.biggest_job, size)
        if self.looks is not None:
            self.looks.published(self.ledger, plan.job)
