"""N worker processes on this machine, each with a pipe and a process group of its own, replaced singly.

Not a process pool: in the executors of the standard library one killed worker fails the jobs of the
others, and a job that hangs cannot be killed. Here a job is one child; what happens to it happens to
that job only. Nothing blocks: `poll` looks, `waitables` tells when to look. What a worker prints is read by a
thread of its own (`daemon.engine.words`).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from daemon import logs
from daemon.engine import WorkersDoNotStart, compiled, deaths
from daemon.engine.compiled import AGAIN
from daemon.engine.deaths import Memory
from daemon.engine.limits import Limits
from daemon.engine.words import Words
from daemon.model.jobs import Ending, Outcome, Spec
from pipeline.files.places import home
from pipeline.parallel import cores as cores_here

LAST_WORDS_SECONDS = 0.5  # that a dead worker's last lines are waited for
BURY_SECONDS = 1.0  # that a killed process is waited for
STOP_SECONDS = 5.0  # between asking a job to stop and killing it
START_SECONDS = 600.0  # compiling everything takes about a minute; a worker that is silent for longer hangs
RESTART_SECONDS = (1.0, 60.0)  # first and longest pause after a worker that did not come up
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
# The C library shall keep the memory of planes and give it to the next ones: else the kernel takes it back
# after every step, and zeroes it again, for up to a third of a job's time. Not in large pages
# (glibc.malloc.hugetlb): in a virtual machine the first job of a worker takes 0.4 s longer with them, and
# the later ones 3 % less.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "1",  # one store for all threads of a job
}
CHILD = "daemon.engine.child"
# A worker looks for packages first where this process found them. It writes to no terminal, for which
# structlog would load rich: 0.03 s of each start.
BOOT = """import json, runpy, sys
path = json.loads(sys.argv[2])["path"]
sys.path[:] = path + [entry for entry in sys.path if entry not in path]
sys.modules["rich"] = None
runpy.run_module(sys.argv.pop(1), run_name="__main__")
"""
NOT_FOR_CHILDREN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # only the daemon talks to systemd


@dataclass
class _Running:
    job_id: int
    attempt: int
    started: float
    kill_at: float
    allowed: float  # s
    ending_if_killed: Ending = "timeout"


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    pipe: Connection
    born: float
    words: Words
    memory: Memory  # when it was started
    ready: bool = False
    jobs_begun: int = 0
    running: _Running | None = None


def _kill(worker: _Worker) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.process.pid, signal.SIGKILL)


@dataclass
class LocalEngine:
    """The engine of one machine; see `daemon.engine.Engine` for the methods.

    runner : "module:function" that a child calls with (spec as a dict, should_stop) and that answers
        with a JSON-able dict; `module.warm_up(compiled)`, if there is one, is called before the first job;
        `compiled` is True when the loops are on disk
    shared : what every job is told besides its specification
    cores : that all jobs together may use
    """

    workers: int
    limits: Limits = field(default_factory=Limits)
    runner: str = "daemon.work.worker:run"
    log: Mapping[str, str] = field(default_factory=dict)  # arguments of logs.configure in the child
    shared: Mapping[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    cores: int = field(default_factory=cores_here)
    idle_seconds: float = 30.0  # without a job, after which a worker gives memory back to the system
    most_failed_starts: int | None = None  # in a row, then `poll` raises; None is try for ever
    on_change: Callable[[str], None] = lambda problem: None  # told why no job can be done, "" when it can
    problem: str = ""
    failed_starts: int = 0
    _workers: list[_Worker] = field(default_factory=list)
    _hanging: list[subprocess.Popen[bytes]] = field(default_factory=list)  # killed, and not dead yet
    _next_start: float = 0.0
    _stopping: bool = False

    def start(self) -> None:
        self._fill()

    def free(self) -> int:
        return 0 if self._stopping else sum(w.ready and w.running is None for w in self._workers)

    def busy(self) -> int:
        return sum(w.running is not None for w in self._workers)

    def pids(self) -> dict[int, int | None]:
        """{process id: the job it runs, or None}."""
        return {w.process.pid: w.running.job_id if w.running else None for w in self._workers}

    def submit(self, job_id: int, attempt: int, spec: Spec) -> None:
        worker = next((w for w in self._workers if w.ready and w.running is None), None)
        if worker is None or self._stopping:
            raise RuntimeError("no worker is free")
        threads = max(1, self.cores // (self.busy() + 1))  # the cores that no other job wants now
        now, job = self.clock(), {**spec.to_json(), **self.shared, "job_id": job_id, "threads": threads}
        seconds = self.limits.seconds_for(job)
        worker.running = _Running(job_id, attempt, now, now + seconds, seconds)
        worker.jobs_begun += 1
        # A worker that died a moment ago is found by the next poll, which fails this attempt as "died".
        self._send(worker, {"job": job})

    def waitables(self) -> list[Connection]:
        return [w.pipe for w in self._workers]

    def cancel(self, job_id: int) -> None:
        for worker in self._workers:
            if worker.running and worker.running.job_id == job_id:
                self._ask_to_stop(worker, STOP_SECONDS)

    def poll(self) -> list[Outcome]:
        self._hanging = [process for process in self._hanging if process.poll() is None]
        outcomes: list[Outcome] = []
        for worker in list(self._workers):
            outcomes += self._look_at(worker)
        if self.most_failed_starts is not None and self.failed_starts >= self.most_failed_starts:
            raise WorkersDoNotStart(f"no job can be done: {self.problem}")
        if not self._stopping:
            self._fill()
        return outcomes

    def stop(self, timeout: float = STOP_SECONDS) -> list[Outcome]:
        self._stopping, self.most_failed_starts = True, None
        for worker in self._workers:
            self._ask_to_stop(worker, timeout)
        outcomes: list[Outcome] = []
        while self.busy():
            until = min(w.running.kill_at for w in self._workers if w.running)
            wait(self.waitables(), timeout=max(0.0, until - self.clock()) + 0.01)
            outcomes += self.poll()
        for worker in self._workers:
            _kill(worker)  # all of them, before the first is waited for
        for worker in list(self._workers):
            self._bury(worker)
        return outcomes

    # -- one worker ---------------------------------------------------------------------------

    def _look_at(self, worker: _Worker) -> list[Outcome]:
        outcomes: list[Outcome] = []
        try:
            while worker.pipe.poll():
                outcomes += self._heard(worker, json.loads(worker.pipe.recv_bytes()))
        except (EOFError, OSError, ValueError) as error:  # gone, or its message makes no sense: treated alike
            return outcomes + self._gone(worker, "died", type(error).__name__)
        running = worker.running
        if running and self.clock() >= running.kill_at:
            outcomes += self._gone(worker, running.ending_if_killed, "killed")
        elif not worker.ready and self.clock() >= worker.born + START_SECONDS:
            outcomes += self._gone(worker, "timeout", "silent")
        elif running is None and worker.jobs_begun >= self.limits.jobs_per_worker:
            self._bury(worker)
        return outcomes

    def _heard(self, worker: _Worker, message: dict[str, Any]) -> list[Outcome]:
        if "ready" in message:
            worker.ready, self.failed_starts = True, 0
            self._tell("")
            logs.get().debug("worker_ready", pid=worker.process.pid, seconds=message["ready"])
            return []
        running, worker.running = worker.running, None
        if running is None:
            return []
        return [Outcome(running.job_id, running.attempt, seconds=self.clock() - running.started, **message)]

    def _gone(self, worker: _Worker, ending: Ending, how: str) -> list[Outcome]:
        """The worker is dead or to be killed: clean up, and report what that means for its job."""
        running = worker.running
        code = self._bury(worker)
        if running is None:
            if code == AGAIN:
                return []
            if not worker.ready:
                self.failed_starts += 1
                first, longest = RESTART_SECONDS
                self._next_start = self.clock() + min(longest, first * 2 ** min(self.failed_starts - 1, 10))
            if not self._stopping:
                last = worker.words.last(LAST_WORDS_SECONDS)
                logs.get().warning(
                    "worker_died",
                    pid=worker.process.pid,
                    exit=code,
                    while_starting=not worker.ready,
                    last_words=last,
                )
                if not worker.ready and not any(w.ready for w in self._workers):
                    why = deaths.how(code, worker.memory, Memory.now())
                    why = "silent while it started" if how == "silent" else why
                    self._tell(
                        f"no worker can start ({self.failed_starts} tried; the last one: {why}"
                        + (f", {last!r})" if last else ", without a word)")
                    )
            return []
        said = {
            "timeout": f"over the time limit of {running.allowed:g} s, {how}",
            "stopped": "did not stop in time, killed",
        }
        error = said.get(ending, how)
        if ending == "died":
            last = worker.words.last(0.0 if code == -signal.SIGKILL else LAST_WORDS_SECONDS)
            ending, error = deaths.of(code, last, worker.memory, Memory.now())
        seconds = self.clock() - running.started
        return [Outcome(running.job_id, running.attempt, ending, seconds, error=error)]

    def _bury(self, worker: _Worker) -> int:
        """End the worker and all that it started; returns its exit code.

        What hangs in the kernel, with a network folder, dies when that answers: it is not waited for.
        """
        self._workers.remove(worker)
        worker.pipe.close()
        _kill(worker)
        try:
            return worker.process.wait(BURY_SECONDS)
        except subprocess.TimeoutExpired:
            self._hanging.append(worker.process)
            return -signal.SIGKILL

    def _ask_to_stop(self, worker: _Worker, grace: float) -> None:
        running = worker.running
        if running is None:
            return
        running.kill_at = min(running.kill_at, self.clock() + grace)
        running.ending_if_killed = "stopped"
        self._send(worker, {"stop": True})

    def _send(self, worker: _Worker, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a dead worker is found by the next poll
            worker.pipe.send_bytes(json.dumps(message).encode())

    def _homes(self) -> dict[str, str]:
        """Where a worker's libraries may keep what is theirs, when the account has no usable home."""
        cache = self.shared.get("cache")
        if home() is not None or not cache:
            return {}
        place = Path(cache) / "home"
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {"HOME": str(place), "XDG_CACHE_HOME": str(place / ".cache"), "XDG_CONFIG_HOME": str(place)}

    def _tell(self, problem: str) -> None:
        """What is new about whether jobs can be done."""
        if problem != self.problem:
            if not problem:
                logs.get().info("workers_start_again")
            elif not self.problem:
                logs.get().error("no_worker", reason=problem)
            self.problem = problem
            self.on_change(problem)

    # -- new workers --------------------------------------------------------------------------

    def _fill(self) -> None:
        """Replace what is missing. Until the compiled code is on disk, one worker goes first and makes it."""
        wanted = self.workers if any(w.ready for w in self._workers) or compiled.warm_marker().exists() else 1
        while len(self._workers) < wanted and self.clock() >= self._next_start:
            try:
                self._workers.append(self._spawn())
            except OSError as error:  # no process or descriptor to be had: go on with fewer
                self._next_start = self.clock() + RESTART_SECONDS[1]
                logs.get().error("worker_not_started", error=str(error))
                if not any(w.ready for w in self._workers):
                    self.failed_starts += 1
                    self._tell(f"no worker can be started: {error}")
                return

    def _spawn(self) -> _Worker:
        ours, theirs = Pipe()
        environment = {k: v for k, v in os.environ.items() if k not in NOT_FOR_CHILDREN}
        environment |= dict.fromkeys(ONE_THREAD, "1") | KEEP_MEMORY | self._homes()
        setup = {
            "fd": theirs.fileno(),
            "runner": self.runner,
            "memory_mb": self.limits.memory_mb,
            "idle_seconds": self.idle_seconds,
            "log": {**self.log, "format": "json"},  # `Words` reads it
            "path": [entry for entry in sys.path if entry],
            "warm_marker": str(compiled.warm_marker()),
        }

        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError:
            ours.close()
            theirs.close()
            raise
        words = Words(read_end)
        try:
            process = subprocess.Popen(
                # -P: a folder called daemon/ or pipeline/ where we were started is not ours.
                [sys.executable, "-P", "-X", "faulthandler", "-c", BOOT, CHILD, json.dumps(setup)],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=write_end,  # standard output belongs to the command's answer
                stderr=write_end,
                process_group=0,
            )
            words.start(process.pid)
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread to be had
            ours.close()
            os.close(read_end)
            raise OSError(str(error)) from error
        finally:
            theirs.close()
            os.close(write_end)
        return _Worker(process, ours, born=self.clock(), words=words, memory=Memory.now())
