"""First looks and running stacks on their way: something to see while a sequence is still being taken.

They never serve as calibrations, and the ledger has a record of them and no more (`ledger.looks`): what is
lost with the daemon is made again when the next frame comes, and one that is no longer useful is not begun.
They lie in PRODUCTS/NIGHT/quicklook until the product of their group is there.

A running stack of all frames is the group's product, made early: see `runningstack`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from daemon.ledger import looks as ledger_looks
from daemon.ledger.jobs import Claim
from daemon.ledger.store import Ledger
from daemon.model.groups import Group, Member, Setting, World
from daemon.model.jobs import FIRST_LOOK_NUMBER, SHOWN, JobSpec, Look, Outcome, Ticket
from daemon.model.names import FIRST, QUICKLOOK, RUNNING, look_staging_path, night_of, paths, stem_of
from daemon.plan.previews import early
from daemon.work.runningstack import RunningStack, discard
from pipeline.files.disk import link_or_copy, make_folder, replacing

PAUSE = 0.3  # s without a new frame before a stack is begun: several may be landing together
MOST_WAITING = 8  # first looks that may wait; older ones are dropped, as observers want the newest


@dataclass(frozen=True)
class Ended:
    """What came of a look that has ended.

    shown : it is in its place; error : why it is not, "" of one that was stopped
    of_job : the outcome of the job that has taken it over, where one has
    """

    shown: bool = False
    error: str = ""
    of_job: Outcome | None = None


@dataclass
class Looks:
    """What is wanted, under way and made. All methods are called by the main_loop.

    first, running : whether such are made at all
    """

    products: Path
    setting: Setting
    first: bool = True
    running: bool = True
    clock: Callable[[], float] = time.monotonic
    _first: dict[str, tuple[int, JobSpec]] = field(default_factory=dict)  # waiting, by key, the newest last
    _stacks: dict[int, tuple[JobSpec, float]] = field(default_factory=dict)  # waiting, by group; until when
    _first_begun: dict[int, Look] = field(default_factory=dict)  # first looks under way, by number
    _begun: dict[int, RunningStack] = field(default_factory=dict)  # under way, by number
    _made: dict[int, RunningStack] = field(default_factory=dict)  # the latest, by group
    _given_up: dict[int, str] = field(default_factory=dict)  # keys of stacks that have failed, by group
    _overdue: set[Path] = field(default_factory=set)  # could not be removed
    _seen: dict[int, set[tuple[str, str]]] = field(default_factory=dict)  # frames that have had their look
    last: int = FIRST_LOOK_NUMBER  # number that was given away

    # -- what is wanted -----------------------------------------------------------------------

    def consider(self, group: Group, world: World) -> None:
        """A group that is not quiet, with the frames and calibrations of this moment."""
        seen = self._seen.setdefault(group.id, set())

        def looked_at(member: Member) -> bool:
            path = self._path(member.night, f"{member.stem}_{FIRST}")
            return not self.first or (member.data_sha, member.facts) in seen or os.path.exists(path)

        found = early(group, self.setting, world, looked_at)
        if found is None:
            return
        seen |= {(m.data_sha, m.facts) for m in group.members}
        self._first |= {spec.key: (group.id, spec) for spec in reversed(found.first)}
        for key in list(self._first)[:-MOST_WAITING]:
            del self._first[key]
        before = self._stacks.pop(group.id, None)
        looks = [stack.look for stack in (*self._begun.values(), *self._made.values())]
        known = {self._given_up.get(group.id), *(look.spec.key for look in looks if look.group == group.id)}
        if self.running and found.running is not None and found.running.key not in known:
            same = before is not None and before[0].key == found.running.key
            due = before[1] if before and same else self.clock() + PAUSE
            self._stacks[group.id] = (found.running, due)

    def settled(self, group: int) -> None:
        """The group is quiet: what has not begun is not wanted any more."""
        self._stacks.pop(group, None)
        self._seen.pop(group, None)
        self._given_up.pop(group, None)
        self._first = {key: item for key, item in self._first.items() if item[0] != group}

    # -- on their way -------------------------------------------------------------------------

    def next_first(self) -> Look | None:
        """The newest frame that waits for its look."""
        if not self._first:
            return None
        _, (group, spec) = self._first.popitem()
        look = self._begin(group, spec, FIRST)
        self._first_begun[look.number] = look
        return look

    def next_stack(self) -> Look | None:
        """One at a time, the group that has changed last first: the other workers are for fresh work."""
        now = self.clock()
        due = [group for group, (_, when) in self._stacks.items() if when <= now]
        if not due or self._begun:
            return None
        look = self._begin(due[-1], self._stacks.pop(due[-1])[0], RUNNING)
        self._begun[look.number] = RunningStack(look)
        return look

    def next_due(self) -> float | None:
        """When a stack that waits for more frames has waited long enough; None when none does."""
        now = self.clock()
        return min((when for _, when in self._stacks.values() if when > now), default=None)

    def _begin(self, group: int, spec: JobSpec, kind: str) -> Look:
        self.last += 1
        staging = look_staging_path(self.products, spec.key, Ticket.of(self.last).number)
        return Look(self.last, group, replace(spec, attempt=1, staging=staging, group_id=group), kind)

    def waiting(self) -> bool:
        return bool(self._first)

    def in_the_way(self) -> int | None:
        """A running stack that may be stopped when something more urgent finds no worker."""
        return next((number for number, stack in self._begun.items() if stack.job is None), None)

    def stacks(self) -> list[RunningStack]:
        """Running stacks, made or under way, that may prove to be what a job is to make."""
        return [*self._made.values(), *(stack for stack in self._begun.values() if stack.job is None)]

    def take_over(self, stack: RunningStack, job: Claim) -> Outcome | None:
        """A job is what this running stack was made for: its outcome, or None while it is under way."""
        outcome = stack.take_over(job)
        if outcome is not None:
            del self._made[stack.look.group]
        return outcome

    def job_of(self, number: int) -> int | None:
        """The job that has taken over the running stack of this number, where one has."""
        stack = self._begun.get(number)
        return stack.job if stack else None

    def ended(self, outcome: Outcome) -> Ended:
        """What came of one that has ended."""
        if (stack := self._begun.pop(outcome.job_id, None)) is not None:
            return self._stack_ended(stack, outcome)
        look = self._first_begun.pop(outcome.job_id)
        came = self._came(look, outcome)
        discard(look)
        return came

    def _stack_ended(self, stack: RunningStack, outcome: Outcome) -> Ended:
        look = stack.look
        if stack.job is not None:
            return Ended(of_job=stack.ended(outcome))
        came = self._came(look, outcome)
        if outcome.ending == "done":
            stack.ended(outcome)
            self._forget_made(look.group)
            self._made[look.group] = stack
            return came
        discard(look)
        if outcome.ending != "stopped":
            self._given_up[look.group] = look.spec.key
        elif look.group in self._seen:  # it was stopped for something more urgent: it waits again
            self._stacks.setdefault(look.group, (look.spec, self.clock()))
        return came

    def _came(self, look: Look, outcome: Outcome) -> Ended:
        """Puts one in its place, if it was made."""
        if outcome.ending == "stopped":
            return Ended()
        if outcome.ending != "done":
            return Ended(error=outcome.error or outcome.ending)
        try:
            self._put_in_place(look)
        except OSError as error:
            return Ended(error=str(error))
        return Ended(shown=True)

    def _forget_made(self, group: int) -> None:
        if before := self._made.pop(group, None):
            discard(before.look)

    def path_of(self, look: Look) -> Path:
        """Where it is seen."""
        return self._path(look.spec.night, look.name)

    # -- what is there to see -----------------------------------------------------------------

    def _put_in_place(self, look: Look) -> None:
        path = self.path_of(look)
        make_folder(path.parent)
        shown = Path(f"{look.spec.staging}{SHOWN}")
        picture = shown if shown.exists() else Path(f"{look.spec.staging}.png")
        for source, suffix in ((picture, ".png"), (Path(f"{look.spec.staging}.fits"), ".fits")):
            _put(source, path.with_suffix(suffix))
        if look.kind == RUNNING:  # the name goes by the first frame used, which may be another one now
            self._clear(((i.name, datetime.fromisoformat(i.ut)) for i in look.spec.inputs), (RUNNING,), path)

    def published(self, ledger: Ledger, job: int) -> None:
        """The product of a job is there, and shows more than the looks at its frames.

        Those too of frames of its group that cannot be used, and so will be in no product, go.
        """
        with ledger.read() as db:
            group, frames = ledger_looks.made_needless(db, job)
        if not frames:
            return
        self._forget_made(group)
        self._clear(frames, (FIRST, RUNNING))
        with contextlib.suppress(OSError):  # the next start tries again
            for night in {night_of(*frame) for frame in frames}:
                self.forget_renamed(ledger, night)

    def tidy(self, ledger: Ledger) -> None:
        """At start: the looks of groups whose product is there go, if a crash has left them."""
        images = [name for name, recipe in self.setting.recipes.items() if recipe.makes is None]
        left: list[Path] = []
        with contextlib.suppress(OSError):  # another start tidies
            left = list(self.products.glob(f"*/{QUICKLOOK}/*"))
        for path in left:
            if path.name.startswith("."):  # was being put there
                with contextlib.suppress(OSError):  # another start tidies
                    path.unlink(missing_ok=True)
                continue
            name = f"{path.stem.rpartition('_')[0]}.fits"
            with ledger.read() as db:
                done = ledger_looks.is_in_a_product(db, name, images)
            if done:
                self._remove(path)
        for folder in self.products.glob(f"*/{QUICKLOOK}"):
            self.forget_renamed(ledger, folder.parent.name)

    def forget_renamed(self, ledger: Ledger, night: str) -> None:
        """Looks that are called after no frame any more go: it has got another name since. Raises OSError."""
        folder = self.products / night / QUICKLOOK
        found = {path: path.stem.rpartition("_")[0] for path in folder.glob("[!.]*.fits")}
        try:
            begin, day = datetime.strptime(f"{night}+0000", "%Y%m%d%z").timestamp(), 86400
        except ValueError:  # names may have any digits for a date
            return
        with ledger.read() as db:
            known = {stem_of(name) for name in ledger_looks.frames_between(db, begin - day, begin + 2 * day)}
            for path, stem in found.items():  # a clock may have been wrong, and a stem has _ for what is odd
                if stem not in known and not ledger_looks.any_frame_begins(db, stem):
                    self._remove(path)

    def _clear(
        self, frames: Iterable[tuple[str, datetime]], kinds: Sequence[str], but: Path | None = None
    ) -> None:
        for name, ut in frames:
            for path in paths(self.products, name, ut, kinds):
                if path != but:
                    self._remove(path)

    def _remove(self, path: Path) -> None:
        if not remove(path):
            self._overdue.add(path)

    def try_again(self) -> None:
        """Remove what could not be removed before."""
        self._overdue = {path for path in self._overdue if not remove(path)}

    def _path(self, night: str, name: str) -> Path:
        return self.products / night / QUICKLOOK / f"{name}.fits"


def remove(path: Path) -> bool:
    """One look, with its preview. False when that cannot be now."""
    gone = True
    for suffix in (".fits", ".png"):
        try:
            path.with_suffix(suffix).unlink(missing_ok=True)
        except OSError:
            gone = False
    return gone


def _put(source: Path, target: Path) -> None:
    """The same file under a second name, in place of what lies there."""
    with replacing(target, flush=False, alone=True) as part:
        link_or_copy(source, part, flush=False)
