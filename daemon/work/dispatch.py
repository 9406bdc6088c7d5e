"""Keeps the engine busy: claims jobs, hands them out, and publishes what comes back.

What it writes down of a job is in `ledger.jobs`, where the table of endings is; here are the waits between
tries, publications that cannot be finished now, looks, and what is to be done first.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from daemon.ledger import looks as ledger_looks
from daemon.ledger import products as ledger_products
from daemon.ledger import publications, searches
from daemon.ledger.jobs import abandon, claim, claim_made, end, recover_interrupted
from daemon.ledger.publications import CalibrationReplaced
from daemon.ledger.searches import PENDING
from daemon.ledger.store import Ledger, LedgerBusy, Tx, placeholders
from daemon.model.groups import Setting
from daemon.model.jobs import BACKLOG, FIRST_LOOK_NUMBER, JobSpec, Look, Outcome
from daemon.model.names import STAGING, night_of, staging_path
from daemon.model.publication import PublishPlan, StagedFileGone
from daemon.model.rules import DEFAULT_POLICY, Policy
from daemon.work import losses
from daemon.work.diskguard import DiskGuard, tells_of_full_disk
from daemon.work.engine import OF_THE_MACHINE, Engine
from daemon.work.moving import move_files
from daemon.work.previews import Looks

BACK_OFF = (1.0, 300.0)  # first and longest, s
OLDEST_EVERY = 8  # one claim in so many is the oldest of the backlog
LOOK_AGAIN = 30.0  # s, at products that may be lost
ALONE_SECONDS = 300.0  # after a worker was killed for memory, or was too slow
HURRIED_TRIES = 3  # with --until-idle, where back-off counts as elapsed


@dataclass
class _Delay:
    until: float
    seconds: float
    tries: int = 1
    why: str = ""


@dataclass
class Dispatcher:
    """Keeps the engine busy and publishes what it returns. All its methods are called by the heart.

    hurry : --until-idle, back-off counts as elapsed
    setting : rules and recipes; without it no failed job is halved
    guard : says when there is no room to work in; on_pause is told why, and "" when it goes on
    at : called with the name of each point of a publication, for tests that stop there
    looks : first looks and running stacks; None makes none
    """

    ledger: Ledger
    engine: Engine
    hurry: bool = False
    policy: Policy = DEFAULT_POLICY
    clock: Callable[[], float] = time.monotonic
    at: Callable[[str], None] = lambda point: None
    setting: Setting | None = None
    guard: DiskGuard | None = None
    on_pause: Callable[[str], None] = lambda why: None
    looks: Looks | None = None
    claims: int = 0
    paused: str = ""
    _alone_until: float = float("-inf")
    _owed: bool = False  # the last to start was a first look: when more wait, a job is next
    _trying: int = 0  # the failed job of which a part is being tried
    _delays: dict[int, _Delay] = field(default_factory=dict)
    _unpublished: dict[int, PublishPlan] = field(default_factory=dict)
    _suspects: deque[str] = field(default_factory=deque)  # paths of products that may be lost
    _doubtful: set[str] = field(default_factory=set)  # those of which nothing can be said now
    _again_at: float = 0.0
    _ended: list[Outcome] = field(default_factory=list)  # told by the engine once, not yet in the ledger

    def recover(self, products: Path) -> int:
        """At start: finish publications that had begun, take up what was running, tidy the staging folder."""
        with self.ledger.read() as db:
            plans = [PublishPlan.from_json(row[0]) for row in db.execute("SELECT plan FROM intent")]
        for plan in plans:
            self._publish_or_wait(plan)
        count = self.ledger.write(recover_interrupted)
        if self.looks is not None:
            self.looks.last = self.ledger.write(ledger_looks.recover)
        waiting = {Path(plan.staged).name for plan in self._unpublished.values()}
        with contextlib.suppress(OSError):  # what cannot be tidied now is tidied at another start
            for stray in (products / STAGING).iterdir():
                if stray.name not in waiting and stray.with_suffix(".fits").name not in waiting:
                    stray.unlink(missing_ok=True)
        with self.ledger.read() as db:
            self._suspects.extend(ledger_products.gone(db))
        return count + len(plans)

    def suspect(self, path: str) -> None:
        """The product at a path may be lost: that is looked into soon. From any thread."""
        self._suspects.append(path)

    def dispatch(self) -> int:
        """Hand out jobs while a worker is free and there is room. Returns how many."""
        started = 0
        if self._look_for_room():
            return 0
        if self.looks is not None:
            started += self._take_what_is_made(self.looks) + self._look_first(self.looks)
        started += self._try_a_part()
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
            skip = self._delayed()
            if not self._claimable(skip, last):  # only reads: an idle daemon writes nothing
                break
            claimed = self.ledger.write(partial(claim, skip=skip, oldest=oldest, until=last))
            if claimed is None:
                break
            self.claims += 1
            self._owed = False
            started += 1
            try:
                self.engine.submit(claimed.job_id, claimed.attempt, claimed.spec)
            except RuntimeError as error:
                self._ended.append(Outcome(claimed.job_id, claimed.attempt, "stopped", 0.0, error=str(error)))
                break
        return started

    def _delayed(self) -> list[int]:
        now = self.clock()
        return [job for job, delay in self._delays.items() if delay.until > now]

    # -- looks --------------------------------------------------------------------------------

    def _take_what_is_made(self, looks: Looks) -> int:
        """Jobs that need not run, or run already: they are what the running stack of all frames is."""
        taken = 0
        for look in looks.early():
            if not self._planned(look.spec.key):
                continue
            claimed = self.ledger.write(partial(claim_made, look=look))
            if claimed is None:
                continue
            taken += 1
            outcome = looks.adopt(look, claimed.job_id, claimed.attempt, claimed.spec.staging)
            ledger_looks.adopted(self.ledger, look.number, claimed.job_id)
            if outcome is not None:
                self._ended.append(outcome)
        return taken

    def _planned(self, key: str) -> bool:
        with self.ledger.read() as db:
            found = db.execute("SELECT 1 FROM job WHERE key = ? AND state = 'planned'", (key,))
            return found.fetchone() is not None

    def _look_first(self, looks: Looks) -> int:
        """Fresh frames go before all else; but when more come than can be looked at, every other time."""
        started = 0
        while self._free() > 0 and not (self._owed and self._claimable(self._delayed())):
            if (look := looks.next_first()) is None:
                break
            self._owed = True
            started += self._submit_look(look)
        return started

    def _make_room(self, looks: Looks) -> None:
        """A running stack is stopped for a fresh frame, or a job that is not of the backlog."""
        number = looks.in_the_way()
        if number is None or self.engine.free() > 0:
            return
        if looks.waiting() or self._claimable(self._delayed(), BACKLOG - 1):
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
        """A look has ended; when a job has adopted it, that job has."""
        stem, adopted = "", looks.adopted_by(outcome.job_id)
        ledger_looks.ended(self.ledger, outcome, adopted[0] if adopted else None)
        if adopted:
            with self.ledger.read() as db:
                row = db.execute("SELECT spec FROM job WHERE id = ?", adopted[:1]).fetchone()
            stem = staging_path(JobSpec.from_json(json.loads(row["spec"])), adopted[1])
        if (of_job := looks.ended(outcome, stem)) is not None:
            self._ended.append(of_job)  # the look is over, whether this can be written down now or not

    def _try_a_part(self) -> int:
        """Go on with the search for a frame to blame, one try at a time."""
        if self._trying or self._free() == 0 or not self._searches():
            return 0
        now = self.clock()
        skip = [-job for job, delay in self._delays.items() if job < 0 and delay.until > now]
        found = self.ledger.write(partial(searches.next_try, skip=skip))
        if found is None:
            return 0
        self._trying, number, spec = found
        with contextlib.suppress(RuntimeError):  # no worker after all: tried again
            self.engine.submit(-self._trying, number, spec)
            return 1
        self._trying = 0
        return 0

    def _tried(self, outcome: Outcome) -> None:
        """How a try ended. Its product is thrown away."""
        job = -outcome.job_id
        for path in ("fits", "png"):
            if outcome.result and outcome.result.get(path):
                with contextlib.suppress(OSError):
                    Path(outcome.result[path]).unlink()
        if outcome.ending in OF_THE_MACHINE:  # says nothing of the frames
            self._of_the_machine(outcome)
            self._delay(outcome.job_id, outcome.error)
        elif outcome.ending not in ("stopped", "cache") and self.setting is not None:
            setting = self.setting
            if self.ledger.write(lambda tx: searches.told(tx, job, outcome, setting)):
                self._delays.pop(outcome.job_id, None)
            else:
                self._delay(outcome.job_id, outcome.error)
        self._trying = 0

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

    def _searches(self) -> bool:
        never = [-job for job, delay in self._delays.items() if job < 0 and math.isinf(delay.until)]
        with self.ledger.read() as db:
            rows = db.execute(PENDING).fetchall()
        return self.setting is not None and any(row["job_id"] not in never for row in rows)

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
        now, changed = self.clock(), 0
        for job, plan in list(self._unpublished.items()):
            if self._delays[job].until <= now:
                changed += self._publish_or_wait(plan)
        changed += self._restore()  # first: what goes leaves its name to what comes
        self._ended += self.engine.poll()
        while self._ended:  # one that cannot be written down now is there the next time
            self.finish(self._ended[0])
            del self._ended[0]
            changed += 1
        return changed + self._make_up_for_losses()

    def _make_up_for_losses(self) -> int:
        """What is lost is used no longer, and made again. Returns how many."""
        count = 0
        if self.clock() >= self._again_at:
            self._suspects.extend(self._doubtful)
            self._doubtful.clear()
        for _ in range(len(self._suspects)):
            path, again = self._suspects[0], False
            with self.ledger.read() as db:
                sql = "SELECT group_id, sha256 FROM product WHERE path = ? AND current"
                row = db.execute(sql, (os.fsencode(path),)).fetchone()
            try:
                why = losses.harm(Path(path), row["sha256"]) if row else ""
            except OSError:
                why, again = "", True
            if why:
                intend = partial(publications.intend_withdrawal, group=row["group_id"], lost=why)
                plan = self.ledger.write(intend)
                again = plan is None  # another one is being made; if that fails, it is still lost
                count += self._publish_or_wait(plan) if plan else 0
            self._suspects.popleft()
            if again:
                self._doubtful.add(path)
                self._again_at = self.clock() + LOOK_AGAIN
        return count

    def _restore(self) -> int:
        """Bring back products that are wanted again, take away those that are wrong now. Returns how many."""
        with self.ledger.read() as db:
            wanted = db.execute("SELECT id, restore FROM frame_group WHERE restore IS NOT NULL").fetchall()
        for group, job in wanted:
            intend = publications.intend_restoration if job else publications.intend_withdrawal
            plan = self.ledger.write(partial(intend, group=group))
            if plan is not None:
                self._publish_or_wait(plan)
        return len(wanted)

    def finish(self, outcome: Outcome) -> None:
        """What follows from one ending."""
        result = outcome.result
        if self.looks is not None and outcome.job_id > FIRST_LOOK_NUMBER:
            self._looked(self.looks, outcome)
            return
        if outcome.job_id < 0:
            self._tried(outcome)
            return
        if outcome.ending != "done" or result is None:
            self._end(outcome)
            return
        try:
            plan = self.ledger.write(
                lambda tx: publications.intend(tx, outcome.job_id, outcome.attempt, result)
            )
        except CalibrationReplaced as error:
            self._end(replace(outcome, ending="stopped", error=str(error), result=None))
            self._discard(outcome)
            return
        except (KeyError, ValueError) as error:  # a worker's answer that makes no sense
            self._end(
                replace(outcome, ending="failed", error=f"{type(error).__name__}: {error}", result=None)
            )
            return
        if plan is not None:
            self._publish_or_wait(plan)
        else:
            self._discard(outcome)

    def _discard(self, outcome: Outcome) -> None:
        """What was staged for nothing goes; what cannot go now goes at the next start."""
        with self.ledger.read() as db:
            row = db.execute("SELECT spec FROM job WHERE id = ?", (outcome.job_id,)).fetchone()
        if row is None or not row["spec"]:
            return
        stem = staging_path(JobSpec.from_json(json.loads(row["spec"])), outcome.attempt)
        with contextlib.suppress(OSError):
            for suffix in (".png", ".fits"):
                Path(f"{stem}{suffix}").unlink(missing_ok=True)

    def next_due(self) -> float | None:
        """Seconds until there is something to do whatever happens: a back-off ends, a stack may begin."""
        if self._ended:
            return 0.0
        now = self.clock()
        ends = [delay.until - now for delay in self._delays.values() if delay.until > now]
        if self.looks is not None and (due := self.looks.next_due()) is not None:
            ends.append(due - now)
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
        never = [job for job, delay in self._delays.items() if math.isinf(delay.until)]
        return self._claimable(never) or self._searches()

    def busy(self) -> bool:
        """True while something runs or is still to be published."""
        waits = any(math.isfinite(self._delays[job].until) for job in self._unpublished)
        return self.engine.busy() > 0 or bool(self._ended) or waits

    def _claimable(self, skip: Sequence[int], until: int = BACKLOG) -> bool:
        with self.ledger.read() as db:
            row = db.execute(
                f"""SELECT 1 FROM job j JOIN frame_group g ON g.id = j.group_id WHERE j.state = 'planned'
                AND g.settled AND NOT g.closed AND j.id NOT IN ({placeholders(skip)})
                AND NOT EXISTS (SELECT 1 FROM job r WHERE r.group_id = j.group_id AND r.state = 'running')
                AND j.priority <= ? LIMIT 1""",
                (*skip, until),
            ).fetchone()
        return row is not None

    def _end(self, outcome: Outcome) -> None:
        self.ledger.write(lambda tx: end(tx, outcome, self.setting))
        if outcome.ending in OF_THE_MACHINE:
            self._of_the_machine(outcome)
            self._delay(outcome.job_id, outcome.error)
            with self.ledger.read() as db:
                self._suspects.extend(ledger_products.used_by(db, outcome.job_id))
        else:
            self._delays.pop(outcome.job_id, None)

    def left_undone(self) -> list[str]:
        """What the system has kept from being done, in words; back-off is over in a batch."""
        with self.ledger.read() as db:  # a job that was planned anew meanwhile needs nobody any more
            rows = db.execute("SELECT id FROM job WHERE state IN ('planned', 'waiting', 'running')")
            wanted = {row["id"] for row in rows} | {-row["job_id"] for row in db.execute(PENDING)}
        wanted |= self._unpublished.keys()
        left = sorted(job for job in self._delays if job in wanted)
        done = [f"job {abs(job)}: {self._delays[job].why}" for job in left]
        return done + [f"work is paused: {self.paused}"] * bool(self.paused)

    def _delay(self, job: int, why: str = "") -> None:
        before = self._delays.get(job)
        seconds = min(BACK_OFF[1], before.seconds * 2) if before else BACK_OFF[0]
        tries = before.tries + 1 if before else 1
        if self.hurry:
            until = math.inf if tries >= HURRIED_TRIES else self.clock()
        else:
            until = self.clock() + seconds
        self._delays[job] = _Delay(until, seconds, tries, why)

    def _publish_or_wait(self, plan: PublishPlan) -> int:
        try:
            try:
                self._publish(plan)
            except StagedFileGone as error:
                self.ledger.write(partial(abandon, plan=plan, error=str(error)))
        except OSError as error:  # LedgerBusy is one: the intent stays, and is finished later
            self.full(str(error))
            first = plan.job not in self._unpublished
            self._unpublished[plan.job] = plan
            self._delay(plan.job, f"{Path(plan.final).name} cannot be put in its place: {error}")
            if first:
                with contextlib.suppress(LedgerBusy):
                    self.ledger.write(_not_published(plan, str(error)))
            return 0
        self._unpublished.pop(plan.job, None)
        self._delays.pop(plan.job, None)
        return 1

    def _publish(self, plan: PublishPlan) -> None:
        self.at("intended")
        move_files(plan, self.at)
        self.ledger.write(lambda tx: publications.commit(tx, plan, self.policy))
        self.at("committed")
        if self.guard:
            with contextlib.suppress(OSError):
                size = Path(plan.final).stat().st_size
                self.guard.biggest_job = max(self.guard.biggest_job, size)
        if self.looks is not None:
            self._forget_looks(self.looks, plan.job)

    def _forget_looks(self, looks: Looks, job: int) -> None:
        """Of every frame that is in the product, and of those of its group that will not be."""
        with self.ledger.read() as db:
            rows = db.execute(
                """SELECT j.group_id, f.name, f.ut FROM job j JOIN job_input i ON i.job_id = j.id
                JOIN frame f ON f.id = i.frame_id WHERE j.id = ?
                UNION SELECT j.group_id, f.name, f.ut FROM job j JOIN membership m ON m.group_id = j.group_id
                JOIN frame f ON f.id = m.frame_id WHERE j.id = ? AND NOT f.usable""",
                (job, job),
            ).fetchall()
        if rows:
            frames = [(row["name"], datetime.fromtimestamp(row["ut"] or 0.0, UTC)) for row in rows]
            looks.published(rows[0]["group_id"], frames)
            with contextlib.suppress(OSError):  # the next start tries again
                for night in {night_of(*frame) for frame in frames}:
                    looks.forget_renamed(self.ledger, night)


def _not_published(plan: PublishPlan, error: str) -> Callable[[Tx], Any]:
    return lambda tx: tx.event("publish_delayed", job=plan.job, product=plan.final, error=error)
