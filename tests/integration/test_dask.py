"""The Dask engine on a real scheduler and two real worker processes: Dask does what we think it does."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import structlog

from daemon.config import load
from daemon.engine import dask, link, software
from daemon.engine.dask import DaskEngine, greeting
from daemon.engine.limits import Limits
from daemon.engine.link import Link
from daemon.upkeep import doctor
from tests.cluster import Cluster


class Spec:
    def __init__(self, do, **more):
        self.values = {"do": do, **more}

    def to_json(self):
        return self.values


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("dask"), environment={"PYTHONPATH": str(Path(__file__).parent)})
    yield cluster
    cluster.close()


@pytest.fixture
def make(cluster):
    engines = []

    def make(address, workers=2, tls=None, **limits):
        limits = Limits(**limits)
        said = greeting(limits, {"level": "error"}, [str(cluster.folder)], runner="engine_jobs:run")
        engine = DaskEngine(Link(address, said, tls), limits)
        engines.append(engine)
        engine.start()
        until(engine, lambda outcomes: engine.free() == workers)
        return engine

    yield make
    for engine in engines:
        engine.stop(0.0)


def until(engine, done, seconds=60.0):
    """Poll as the main loop does, woken by the engine, until `done(outcomes so far)`."""
    outcomes, end = [], time.monotonic() + seconds
    while not done(outcomes):
        assert time.monotonic() < end, f"nothing happened; so far {outcomes}; {engine.problem}"
        wait(engine.waitables(), timeout=0.05)
        outcomes += engine.poll()
    return outcomes


def one(engine, do, **more):
    engine.submit(1, 1, Spec(do, **more))
    (outcome,) = until(engine, bool)
    return outcome


def children(pid):
    """Process ids of the job processes that this worker keeps."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            ours = b"daemon.engine.child" in (place / "cmdline").read_bytes()
            if ours and f"PPid:\t{pid}\n" in (place / "status").read_text():
                found.append(int(place.name))
    return found


def alive(pid):
    with contextlib.suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_jobs_run_beside_each_other_and_each_ends_as_it_would_at_home(cluster, make):
    engine = make(cluster.address, seconds=2.0, memory_mb=1000)
    outcome = one(engine, "echo", text="héllo job-1-1\n")
    assert outcome.result["threads"] == 1, "the other cores belong to other workers of the cluster"
    assert (outcome.job_id, outcome.attempt, outcome.ending) == (1, 1, "done")
    assert outcome.result["said"] == "héllo job-1-1\n"
    assert outcome.result["pid"] != os.getpid()
    expected = {
        "die": ("killed", False, "SIGKILL"),
        "eat": ("memory", False, "MemoryError"),
        "lose_the_disk": ("io", False, "Input/output error"),
        "bad_data": ("failed", True, "N1.fits: no usable pixel"),
        "bug": ("failed", False, "KeyError: 'key'"),
    }
    for do, (ending, data_error, says) in expected.items():
        outcome = one(engine, do)
        assert (outcome.ending, outcome.data_error) == (ending, data_error)
        assert says in outcome.error
        assert "Traceback" in outcome.traceback or ending == "killed"
    environment = one(engine, "environment").result["env"]
    assert environment["NUMBA_NUM_THREADS"] == environment["OMP_NUM_THREADS"] == "1"
    assert environment["MALLOC_TRIM_THRESHOLD_"] == str(1 << 30), "not Dask's, which costs a third"


def test_a_hung_job_is_killed_and_one_that_is_asked_stops(cluster, make, tmp_path):
    engine = make(cluster.address, seconds=2.0, memory_mb=1000)
    engine.submit(1, 1, Spec("deaf", started=str(tmp_path / "a")))
    engine.submit(-2, 3, Spec("wait_for_stop", started=str(tmp_path / "b")))
    until(engine, lambda _: (tmp_path / "b").exists())
    engine.cancel(-2)
    outcomes = {o.job_id: o for o in until(engine, lambda outcomes: len(outcomes) == 2)}
    assert (outcomes[-2].ending, outcomes[-2].attempt) == ("stopped", 3)
    assert "between two steps" in outcomes[-2].error
    assert outcomes[1].ending == "timeout"
    assert engine.free() == 2
    assert one(engine, "echo", text="").ending == "done"


def test_a_killed_worker_fails_its_own_job_only_and_is_replaced(cluster, make, tmp_path):
    engine = make(cluster.address)
    engine.submit(1, 1, Spec("hang", started=str(tmp_path / "a")))
    engine.submit(2, 1, Spec("wait_for_stop", started=str(tmp_path / "b")))
    until(engine, lambda _: (tmp_path / "a").exists() and (tmp_path / "b").exists())
    there = link.introductions(cluster.address, {}, engine.link.greeting)
    victim = there[next(r.worker for r in engine._running.values() if r.job_id == 1)]["pid"]
    (child,) = children(victim)
    os.kill(victim, signal.SIGKILL)
    (outcome,) = until(engine, bool)
    assert (outcome.job_id, outcome.ending) == (1, "killed")
    until(engine, lambda _: engine.free() == 1)  # its nanny has started another
    until(engine, lambda _: not alive(child))
    assert [r.job_id for r in engine._running.values()] == [2]
    engine.cancel(2)
    (outcome,) = until(engine, bool)
    assert (outcome.job_id, outcome.ending) == (2, "stopped")
    assert not re.search(r"Traceback", cluster.log("scheduler"))


def test_a_worker_of_another_release_is_not_used(cluster, make, monkeypatch):
    said = []
    monkeypatch.setattr(dask, "versions", lambda: {**software.versions(), "numba": "0.1"})
    with structlog.testing.capture_logs() as logged:
        engine = make(cluster.address, workers=0)
        until(engine, lambda _: "none of the 2 workers" in engine.problem)
        said = [line for line in logged if line["event"] == "worker_unusable"]
    assert engine.free() == 0
    assert len(said) == 2
    assert all(re.fullmatch(r"it has numba [\d.]+ \(here 0\.1\)", line["reason"]) for line in said)


def test_a_scheduler_that_is_gone_costs_no_attempt_and_is_found_again(make, tmp_path, monkeypatch):
    monkeypatch.setattr(link, "PAUSES", (0.2, 0.2))
    monkeypatch.setattr(link, "ANSWER_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engine = make(f"tcp://127.0.0.1:{port}", workers=0)
    until(engine, lambda _: "cannot be used: " in engine.problem)
    settings = load.load(None, {"engine.kind": "dask", "engine.scheduler": engine.link.address})
    (found,) = doctor._engine(settings)
    assert (found.level, found.text.partition(": ")[0]) == ("wrong", "cannot be used")
    lone = Cluster(tmp_path / "lone", workers=0)
    try:
        lone.scheduler.kill()
        lone.scheduler.wait()
        lone.start_scheduler(port)
        until(engine, lambda _: "has no workers" in engine.problem)
        lone.scheduler.kill()
        lone.scheduler.wait()
        until(engine, lambda _: "cannot be used: " in engine.problem)
    finally:
        lone.close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not here")
def test_with_tls(make, tmp_path):
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subprocess.run([*command, "-keyout", key, "-out", certificate, *subject], check=True, capture_output=True)
    files = ("--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key)
    environment = {"PYTHONPATH": str(Path(__file__).parent)}
    secure = Cluster(tmp_path / "tls", workers=1, environment=environment, more=files)
    try:
        assert secure.address.startswith("tls://")
        tls = {"tls_ca_file": certificate, "tls_client_cert": certificate, "tls_client_key": key}
        engine = make(secure.address, workers=1, tls=tls)
        assert one(engine, "echo", text="secret").result["said"] == "secret"
        engine.stop(0.0)
    finally:
        secure.close()
