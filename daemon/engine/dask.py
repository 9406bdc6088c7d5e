"""A Dask cluster as the engine: each of its workers is one worker of ours, wherever it runs.

The database stays here, files go by shared path, and a job goes to one worker by name. Dask tells which
workers are there and carries the messages; the ledger decides how often a job is tried. A worker that is lost
("killed") or a scheduler ("stopped") costs its job no attempt, and is tried again for ever. What no engine
can do is end a process that hangs in the kernel with a dead network folder: its job is given up after the
time limit, the worker is not used until it answers, and what it may write in the end is never published, as
the name of a staged file has the attempt in it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from typing import Any, Protocol

from daemon import logs
from daemon.engine import WorkersDoNotStart
from daemon.engine.limits import Limits
from daemon.engine.link import News
from daemon.engine.local import STOP_SECONDS
from daemon.engine.software import versions
from daemon.model.jobs import Ending, Outcome, Spec, Ticket

GRACE_SECONDS = 30.0  # beyond a limit that the worker itself enforces, until it is given up
BATCH_SECONDS = 60.0  # that --until-idle waits for a first worker


class Cluster(Protocol):
    """What the engine wants of a `daemon.engine.link.Link`."""

    address: str
    read_end: Any

    def start(self) -> None: ...
    def take(self) -> list[News]: ...
    def give(self, worker: str, key: str, text: str) -> None: ...
    def greet(self, worker: str) -> None: ...
    def ask_to_stop(self, worker: str, key: str) -> None: ...
    def close(self) -> None: ...


@dataclass
class _Running:
    job_id: int
    attempt: int
    key: str
    worker: str
    started: float
    give_up_at: float
    asked: bool = False


@dataclass
class DaskEngine:
    """See `daemon.engine.Engine` for the methods.

    on_change : told why no worker can be used, and "" when one can
    batch : give up when for BATCH_SECONDS there is no worker and none is getting ready
    """

    link: Cluster
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    on_change: Callable[[str], None] = lambda problem: None
    batch: bool = False
    problem: str = ""
    _free: dict[str, None] = field(default_factory=dict)  # workers, the longest idle first
    _greeted: set[str] = field(default_factory=set)  # that have not answered
    _unusable: dict[str, str] = field(default_factory=dict)  # and why
    _running: dict[str, _Running] = field(default_factory=dict)  # by key
    _down: str | None = "it has not answered yet"
    _alone_since: float | None = None
    _stopping: bool = False
    # Another daemon, or this one before a restart, may have had jobs of the same number.
    _session: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        self.problem = self._why_not()  # at the start nothing is known yet

    def start(self) -> None:
        self.link.start()

    def free(self) -> int:
        return 0 if self._stopping else len(self._free)

    def busy(self) -> int:
        return len(self._running)

    def waitables(self) -> Sequence[Any]:
        return [self.link.read_end]

    def submit(self, job_id: int, attempt: int, spec: Spec) -> None:
        if not self.free():
            raise RuntimeError("no worker is free")
        worker = next(iter(self._free))
        del self._free[worker]
        now, key, job = self.clock(), f"job-{job_id}-{attempt}-{self._session}", spec.to_json()
        give_up_at = now + self.limits.seconds_for(job) + GRACE_SECONDS
        self._running[key] = _Running(job_id, attempt, key, worker, now, give_up_at)
        logs.get().debug("job_given", job=Ticket.of(job_id).shown, attempt=attempt, worker=worker)
        text = json.dumps({"job_id": job_id, "attempt": attempt, "spec": job})
        self.link.give(worker, key, text)

    def cancel(self, job_id: int) -> None:
        for running in self._running.values():
            if running.job_id == job_id:
                self._ask_to_stop(running, STOP_SECONDS + GRACE_SECONDS)

    def _ask_to_stop(self, running: _Running, give_up_after: float) -> None:
        running.give_up_at = min(running.give_up_at, self.clock() + give_up_after)
        if not running.asked:
            running.asked = True
            self.link.ask_to_stop(running.worker, running.key)

    def poll(self) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for news in self.link.take():
            outcomes += self._heard(news)
        now = self.clock()
        for running in [r for r in self._running.values() if now >= r.give_up_at]:
            ending: Ending = "stopped" if running.asked else "timeout"
            outcomes.append(self._end(running, ending, f"the Dask worker {running.worker} does not answer"))
            self._greeted.add(running.worker)
            self.link.greet(running.worker)
        if not self._stopping:
            self._tell()
        return outcomes

    def stop(self, timeout: float) -> list[Outcome]:
        """What has not stopped in time is given up: its worker kills its child a little later."""
        self._stopping = True
        for running in self._running.values():
            self._ask_to_stop(running, timeout)
        outcomes: list[Outcome] = []
        while self._running:
            until = min(r.give_up_at for r in self._running.values())
            wait(self.waitables(), timeout=max(0.0, until - self.clock()) + 0.01)
            outcomes += self.poll()
        self.link.close()
        return outcomes

    # -- news ---------------------------------------------------------------------------------

    def _heard(self, news: News) -> list[Outcome]:
        outcomes: list[Outcome] = []
        worker = news.about
        if news.kind == "up":
            self._down = None
        elif news.kind == "down":
            self._down = str(news.said["why"])
            self._free.clear()
            self._greeted.clear()
            self._unusable.clear()
            error = f"the Dask scheduler is gone: {self._down}"
            outcomes = [self._end(running, "stopped", error) for running in list(self._running.values())]
        elif news.kind == "joined":
            self._greeted.add(worker)
        elif news.kind == "ready":
            self._greeted.discard(worker)
            self._unusable.pop(worker, None)
            self._free[worker] = None
            logs.get().info("worker_ready", worker=worker, host=news.said["host"])
        elif news.kind == "unusable":
            self._greeted.discard(worker)
            self._unusable[worker] = news.said["problem"]
            logs.get().warning("worker_unusable", worker=worker, reason=news.said["problem"])
        elif news.kind == "left":
            self._greeted.discard(worker)
            self._unusable.pop(worker, None)
            self._free.pop(worker, None)
            logs.get().info("worker_left", worker=worker)
            lost = [running for running in self._running.values() if running.worker == worker]
            outcomes = [self._end(r, "killed", f"the Dask worker {worker} died") for r in lost]
        elif running := self._running.get(news.about):
            outcomes = [self._ended(running, news.said)]
        return outcomes

    def _ended(self, running: _Running, said: Mapping[str, Any]) -> Outcome:
        if "lost" in said:  # told by Dask, not by the worker
            ending: Ending = "killed" if said["killed"] else "stopped"
            outcome = self._end(running, ending, said["lost"])
            self._greeted.add(running.worker)
            self.link.greet(running.worker)
            return outcome
        self._free[running.worker] = None
        del self._running[running.key]
        more = {**said, "job_id": running.job_id, "attempt": running.attempt}
        return Outcome(**{**more, "seconds": self.clock() - running.started})

    def _end(self, running: _Running, ending: Ending, error: str) -> Outcome:
        del self._running[running.key]
        seconds = self.clock() - running.started
        return Outcome(running.job_id, running.attempt, ending, seconds, error=error)

    # -- how it stands ------------------------------------------------------------------------

    def _tell(self) -> None:
        """Say what has changed, once. Raises WorkersDoNotStart in a batch, when nothing will."""
        problem = "" if self._free or self._running else self._why_not()
        if problem != self.problem:
            if problem:
                logs.get().warning("cluster_waiting", reason=problem)
            else:
                logs.get().info("cluster_ready", scheduler=self.link.address)
            self.problem = problem
            self.on_change(problem)
        if not problem or self._greeted:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = self.clock()
        elif self.batch and self.clock() - self._alone_since >= BATCH_SECONDS:
            raise WorkersDoNotStart(f"no job can be done: {problem}")

    def _why_not(self) -> str:
        where = f"the Dask scheduler {self.link.address}"
        if self._down is not None:
            return f"{where} cannot be used: {self._down}"
        if self._greeted:
            return f"the workers of {where} are getting ready"
        if self._unusable:
            worker, why = next(iter(self._unusable.items()))
            return f"none of the {len(self._unusable)} workers of {where} can be used: {worker}: {why}"
        return f"{where} has no workers"


def greeting(
    limits: Limits,
    log: Mapping[str, str],
    folders: Sequence[str],
    runner: str = "daemon.work.worker:run",
) -> str:
    """What each worker is told first; see `daemon.engine.remote.greet`."""
    said = {"versions": versions(), "folders": list(folders), "limits": asdict(limits), "log": dict(log)}
    return json.dumps({**said, "runner": runner})
