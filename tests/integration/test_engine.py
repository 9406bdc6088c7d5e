"""The local engine: what happens to one worker happens to its job only."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path

import pytest

from daemon.engine.limits import Limits
from daemon.engine.local import LocalEngine


@dataclass
class Spec:
    """Stands for a JobSpec: the engine only asks for its JSON."""

    do: str
    more: dict = field(default_factory=dict)

    def to_json(self):
        return {"do": self.do, **self.more}


@pytest.fixture
def make(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setattr("daemon.engine.compiled.warm_marker", lambda: Path(__file__))  # "compiled already"
    engines = []

    def make(workers=1, idle_seconds=30.0, **limits):
        engine = LocalEngine(
            workers, Limits(**limits), "engine_jobs:run", {"level": "error"}, idle_seconds=idle_seconds
        )
        engines.append(engine)
        engine.start()
        until(engine, lambda outcomes: engine.free() == workers)
        return engine

    yield make
    for engine in engines:
        engine.stop(0.0)


def until(engine, done, seconds=30.0):
    """Poll as the main loop does, woken by the engine, until `done(outcomes so far)`."""
    outcomes, end = [], time.monotonic() + seconds
    while not done(outcomes):
        assert time.monotonic() < end, f"nothing happened; so far {outcomes}"
        wait(engine.waitables(), timeout=0.05)
        outcomes += engine.poll()
    return outcomes


def one(engine, do, **more):
    engine.submit(1, 1, Spec(do, more))
    (outcome,) = until(engine, bool)
    return outcome


def started(path):
    return lambda outcomes: path.exists()


def test_a_job_comes_back_with_its_result(make):
    outcome = one(make(), "echo", text="héllo\n")
    assert (outcome.job_id, outcome.attempt, outcome.ending) == (1, 1, "done")
    assert outcome.result["said"] == "héllo\n"
    assert 5 < outcome.result["peak_mb"] < 500


def test_the_pipe_wakes_the_waiter_at_once(make):
    engine = make()
    engine.submit(1, 1, Spec("echo", {"text": ""}))
    began = time.monotonic()
    assert wait(engine.waitables(), timeout=10)
    assert time.monotonic() - began < 5
    assert engine.poll()[0].ending == "done"


@pytest.mark.parametrize(
    ("do", "ending", "data_error", "says"),
    [
        ("die", "killed", False, "SIGKILL"),
        ("eat", "memory", False, "MemoryError"),
        ("lose_the_disk", "io", False, "Input/output error"),
        ("bad_data", "failed", True, "N1.fits: no usable pixel"),
        ("bug", "failed", False, "KeyError: 'key'"),
    ],
)
def test_every_way_to_fail_has_its_name(make, do, ending, data_error, says):
    outcome = one(make(memory_mb=1000), do)
    assert (outcome.ending, outcome.data_error) == (ending, data_error)
    assert says in outcome.error
    assert outcome.result is None


def test_a_killed_worker_fails_its_own_job_only_and_is_replaced(make, tmp_path):
    engine = make(workers=2)
    engine.submit(1, 1, Spec("hang", {"started": str(tmp_path / "a")}))
    engine.submit(2, 1, Spec("wait_for_stop", {"started": str(tmp_path / "b")}))
    assert engine.free() == 0
    until(engine, lambda _: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    victim = next(pid for pid, job in engine.pids().items() if job == 1)
    survivor = next(pid for pid, job in engine.pids().items() if job == 2)
    os.kill(victim, signal.SIGKILL)
    (outcome,) = until(engine, bool)
    assert (outcome.job_id, outcome.ending) == (1, "killed")
    assert engine.pids()[survivor] == 2
    until(engine, lambda _: engine.free() == 1)
    assert victim not in engine.pids()
    engine.cancel(2)
    (outcome,) = until(engine, bool)
    assert (outcome.job_id, outcome.ending) == (2, "stopped")


@pytest.mark.parametrize("how", ["hang", "deaf"])
def test_time_limit(make, tmp_path, how):
    engine = make(seconds=0.3)
    began = time.monotonic()
    outcome = one(engine, how, started=str(tmp_path / "a"))
    assert outcome.ending == "timeout"
    assert "0.3 s" in outcome.error
    assert 0.3 <= time.monotonic() - began < 5
    until(engine, lambda _: engine.free() == 1)


def test_what_does_not_die_at_once_is_not_waited_for(make, monkeypatch, tmp_path):
    """As a process that hangs in the kernel, with a network folder that does not answer."""
    engine = make(seconds=0.3)
    (pid,) = engine.pids()
    (worker,) = engine._workers
    real = worker.process.wait

    def hangs(timeout=None):
        if timeout is None:
            pytest.fail("the main loop would stand still")
        raise subprocess.TimeoutExpired("worker", timeout)

    monkeypatch.setattr(worker.process, "wait", hangs)
    assert one(engine, "hang", started=str(tmp_path / "a")).ending == "timeout"
    until(engine, lambda outcomes: engine.free() == 1 and pid not in engine.pids())
    assert one(engine, "echo", text="").ending == "done"
    real()
    engine.poll()
    assert engine._hanging == []


def test_stop_asks_first_and_kills_what_does_not_listen(make, tmp_path):
    engine = make(workers=2)
    engine.submit(1, 3, Spec("wait_for_stop", {"started": str(tmp_path / "a")}))
    engine.submit(2, 1, Spec("hang", {"started": str(tmp_path / "b")}))
    until(engine, lambda _: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    pids = list(engine.pids())
    outcomes = {o.job_id: o for o in engine.stop(0.3)}
    assert outcomes[1].ending == outcomes[2].ending == "stopped"
    assert outcomes[1].attempt == 3
    assert "between two steps" in outcomes[1].error
    assert "killed" in outcomes[2].error
    assert engine.pids() == {}
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_is_replaced_after_its_number_of_jobs(make):
    engine = make(jobs_per_worker=2)
    pids = []
    for _ in range(3):
        until(engine, lambda _: engine.free() == 1)
        pids.append(one(engine, "echo", text="").result["pid"])
    assert pids[0] == pids[1] != pids[2]


def test_children_have_one_thread_their_own_group_and_no_word_with_systemd(make, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    outcome = one(make(), "environment")
    assert outcome.result["env"]["OPENBLAS_NUM_THREADS"] == "1"
    assert "NOTIFY_SOCKET" not in outcome.result["env"]
    assert outcome.result["pgid"] != os.getpgid(0)


def test_a_job_gets_the_cores_that_no_other_wants(make):
    engine = make(workers=3)
    engine.cores = 5
    for job in (1, 2, 3):
        engine.submit(job, 1, Spec("echo", {"text": ""}))
    outcomes = until(engine, lambda found: len(found) == 3)
    assert {o.job_id: o.result["threads"] for o in outcomes} == {1: 5, 2: 2, 3: 1}
    engine.cores = 1
    assert one(engine, "echo", text="").result["threads"] == 1


def test_until_the_loops_are_compiled_one_worker_goes_first(make, monkeypatch, tmp_path):
    engine = make(workers=1)
    engine.stop(0.0)
    monkeypatch.setattr("daemon.engine.compiled.warm_marker", lambda: tmp_path / "not-yet")
    second = LocalEngine(2, runner="engine_jobs:run", log={"level": "error"})
    second.start()
    try:
        assert len(second.pids()) == 1
        until(second, lambda _: second.free() == 2)
    finally:
        second.stop(0.0)


def test_a_worker_that_cannot_start_is_tried_again_after_a_pause(monkeypatch):
    monkeypatch.setattr("daemon.engine.compiled.warm_marker", lambda: Path(__file__))
    engine = LocalEngine(1, runner="no_such_module:run", log={"level": "error"})
    engine.start()
    try:
        until(engine, lambda _: engine.failed_starts == 1)
        assert engine.pids() == {}
        engine.poll()
        assert engine.pids() == {}, "started again without a pause"
    finally:
        engine.stop(0.0)


def test_the_worker_ends_when_the_daemon_is_gone(make, tmp_path):
    engine = make()
    engine.submit(1, 1, Spec("hang", {"started": str(tmp_path / "a")}))
    until(engine, started(tmp_path / "a"))
    (worker,) = engine._workers
    worker.pipe.close()  # what the kernel does to a daemon killed by kill -9
    assert worker.process.wait(timeout=5) == 0
    engine._workers.clear()


def test_memory_is_kept_between_jobs_and_given_back_when_there_are_none(make):
    def resident():
        (pid,) = engine.pids()
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

    engine = make(idle_seconds=0.5)
    assert one(engine, "use").ending == "done"
    assert resident() > 200
    until(engine, lambda outcomes: resident() < 150)


def test_a_large_group_may_take_longer_in_proportion():
    limits = Limits(seconds=100.0)
    assert [limits.seconds_for({"inputs": range(n)}) for n in (0, 9, 50, 100, 500)] == [
        100,
        100,
        100,
        200,
        1000,
    ]
    assert limits.seconds_for({}) == 100
