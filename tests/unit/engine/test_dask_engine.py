"""The Dask engine without a cluster: what follows from what Dask tells, and which schedulers are refused."""

import asyncio
import json
import socket
import subprocess
import sys

import pytest

from daemon.config import load
from daemon.engine import WorkersDoNotStart, remote, software
from daemon.engine.dask import BATCH_SECONDS, GRACE_SECONDS, DaskEngine, greeting
from daemon.engine.limits import Limits
from daemon.engine.link import Link, News, exposed, safe
from daemon.engine.local import STOP_SECONDS
from pipeline.errors import ConfigError

A, B = "tcp://127.0.0.1:1001", "tcp://127.0.0.1:1002"


class Spec:
    def to_json(self):
        return {"name": "N1_dark"}


class FakeLink:
    """Says what the test puts in `news`, and keeps what it is asked."""

    address = "tcp://127.0.0.1:8786"

    def __init__(self):
        self.read_end, self._write_end = socket.socketpair()
        self.news, self.given, self.greeted, self.asked, self.closed = [], [], [], [], False
        self.at_stop = []

    def start(self):
        pass

    def take(self):
        news, self.news = self.news, []
        return news

    def give(self, worker, key, text):
        self.given.append((worker, key, json.loads(text)))

    def greet(self, worker):
        self.greeted.append(worker)

    def ask_to_stop(self, worker, key):
        self.asked.append((worker, key))
        self.news += self.at_stop

    def close(self):
        self.closed = True
        self.read_end.close()
        self._write_end.close()


class Cluster:
    """An engine on a clock that the test moves."""

    def __init__(self, **more):
        self.now, self.link, self.said = 0.0, FakeLink(), []
        self.engine = DaskEngine(
            self.link, Limits(seconds=100.0), clock=lambda: self.now, on_change=self.said.append, **more
        )

    def hear(self, *news):
        self.link.news += [News(*item) for item in news]
        return self.engine.poll()

    def workers(self, *addresses):
        self.hear(("up", self.link.address), *[("joined", w) for w in addresses])
        return self.hear(*[("ready", w, {"host": "h"}) for w in addresses])

    def run(self, job_id=7, attempt=2):
        self.engine.submit(job_id, attempt, Spec())
        return self.link.given[-1][1]


@pytest.fixture
def cluster():
    cluster = Cluster()
    yield cluster
    if not cluster.link.closed:
        cluster.link.close()


def ended(**more):
    fields = {"job_id": 7, "attempt": 2, "ending": "done", "seconds": 0.1, "result": {"name": "x"}}
    return {**fields, "error": "", "traceback": "", "data_error": False, **more}


def test_one_job_to_a_worker_and_its_answer_is_the_outcome(cluster):
    assert cluster.engine.free() == 0
    cluster.workers(A, B)
    assert cluster.engine.free() == 2
    key = cluster.run()
    assert key.startswith("job-7-2-")
    assert cluster.link.given == [(A, key, {"job_id": 7, "attempt": 2, "spec": {"name": "N1_dark"}})]
    assert (cluster.engine.free(), cluster.engine.busy()) == (1, 1)
    cluster.run(8, 1)
    with pytest.raises(RuntimeError):
        cluster.run(9, 1)
    cluster.now = 3.0
    (outcome,) = cluster.hear(("ended", key, ended()))
    assert (outcome.job_id, outcome.attempt, outcome.ending) == (7, 2, "done")
    assert outcome.result == {"name": "x"}
    assert outcome.seconds == 3.0
    assert (cluster.engine.free(), cluster.engine.busy()) == (1, 1)


@pytest.mark.parametrize(
    ("news", "ending", "says"),
    [
        (("ended", None, ended(ending="io", error="OSError: gone", result=None)), "io", "OSError"),
        (("ended", None, ended(ending="failed", error="bug", data_error=True, result=None)), "failed", "bug"),
        (("ended", None, ended(ending="memory", error="MemoryError", result=None)), "memory", "Memory"),
        (("left", A), "killed", A),
        (("down", "s", {"why": "OSError: no route"}), "stopped", "no route"),
        (("ended", None, {"lost": "KilledWorker: job", "killed": True}), "killed", "KilledWorker"),
        (("ended", None, {"lost": "FutureCancelledError", "killed": False}), "stopped", "Cancelled"),
    ],
)
def test_every_ending_has_its_name(cluster, news, ending, says):
    cluster.workers(A)
    key = cluster.run()
    (outcome,) = cluster.hear((news[0], news[1] or key, *news[2:]))
    assert (outcome.job_id, outcome.attempt, outcome.ending) == (7, 2, ending)
    assert says in outcome.error
    assert outcome.data_error is (ending == "failed")
    assert cluster.engine.busy() == 0
    assert cluster.hear(("ended", key, ended())) == [], "told twice"


def test_a_worker_that_came_in_the_place_of_another_is_greeted_before_it_works(cluster):
    cluster.workers(A)
    key = cluster.run()
    (outcome,) = cluster.hear(("ended", key, {"lost": "the Dask worker died", "killed": True}))
    assert outcome.ending == "killed"
    assert (cluster.engine.free(), cluster.link.greeted) == (0, [A])


def test_a_worker_that_does_not_answer_is_given_up_and_asked_again(cluster):
    cluster.workers(A)
    cluster.run()
    cluster.now = 100.0 + GRACE_SECONDS - 1
    assert cluster.hear() == [], "the worker itself keeps the limit"
    cluster.now += 1
    (outcome,) = cluster.hear()
    assert outcome.ending == "timeout"
    assert cluster.link.greeted == [A]
    assert (cluster.engine.free(), cluster.engine.busy()) == (0, 0)
    cluster.hear(("ready", A, {"host": "h"}))
    assert cluster.engine.free() == 1


def test_cancel_asks_once_and_gives_up_later(cluster):
    cluster.workers(A, B)
    key = cluster.run()
    cluster.run(8, 1)
    cluster.engine.cancel(7)
    cluster.engine.cancel(7)
    assert cluster.link.asked == [(A, key)]
    cluster.now = STOP_SECONDS + GRACE_SECONDS
    (outcome,) = cluster.hear()
    assert (outcome.job_id, outcome.ending) == (7, "stopped")


def test_stop_returns_what_has_stopped_and_what_has_not(cluster):
    cluster.workers(A, B)
    keys = [cluster.run(7, 2), cluster.run(8, 1)]
    cluster.link.at_stop = [News("ended", keys[0], ended(ending="stopped", result=None))]
    outcomes = cluster.engine.stop(0.0)
    assert [(o.job_id, o.ending) for o in outcomes] == [(7, "stopped"), (8, "stopped")]
    assert cluster.link.closed
    assert cluster.engine.free() == 0


def test_what_changes_is_told_once(cluster):
    cluster.hear(("down", "s", {"why": "OSError: refused"}))
    cluster.hear(("down", "s", {"why": "OSError: refused"}))
    cluster.hear(("up", "s"))
    cluster.hear(("joined", A))
    cluster.hear(("unusable", A, {"problem": "it has numpy 1 (here 2)"}))
    cluster.workers(B)
    assert [text.rpartition("8786 ")[2] for text in cluster.said] == [
        "cannot be used: OSError: refused",
        "has no workers",
        "are getting ready",
        f"can be used: {A}: it has numpy 1 (here 2)",
        "are getting ready",
        "",
    ]


def test_in_a_hurry_it_gives_up_when_nothing_will_come():
    cluster = Cluster(batch=True)
    try:
        cluster.hear(("up", "s"), ("joined", A))
        cluster.now = 1000.0
        cluster.hear()  # it compiles
        cluster.hear(("unusable", A, {"problem": "it does not see /drop"}))
        cluster.now += BATCH_SECONDS - 1
        cluster.hear()
        cluster.now += 1
        with pytest.raises(WorkersDoNotStart, match="does not see /drop"):
            cluster.hear()
    finally:
        cluster.link.close()


# -- which scheduler ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("tcp://10.0.0.5:8786", "tls:// is needed"),
        ("tcp://localhost.evil.example:8786", "tls:// is needed"),
        ("tcp://0.0.0.0:8786", "tls:// is needed"),
        ("tls://10.0.0.5:8786", "needs tls_ca, tls_cert, tls_key too"),
        ("127.0.0.1:8786", "must be"),
        ("tcp://127.0.0.1", "must be"),
        ("tcp://127.0.0.1:port", "must be"),
        ("inproc://127.0.0.1:8786", "must be"),
        ("", "must be"),
    ],
)
def test_a_scheduler_that_others_could_talk_to_is_refused(address, says):
    with pytest.raises(ConfigError, match=says) as caught:
        load.load(None, {"engine.kind": "dask", "engine.scheduler": address})
    assert len(str(caught.value).splitlines()) == 1
    load.load(None, {"engine.scheduler": address})  # not used, not minded


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://[::1]:8786", "tcp://localhost:1"])
def test_loopback_needs_no_tls(address):
    loaded = load.load(None, {"engine.kind": "dask", "engine.scheduler": address})
    assert loaded.engine.tls == {}
    assert safe(address)


@pytest.mark.parametrize(
    ("asked", "listens", "trusted"),
    [
        ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786", True),
        ("tcp://127.0.0.1:8786", "tcp://10.0.0.5:8786", False),
        ("tls://10.0.0.5:8786", "tls://10.0.0.5:8786", True),
    ],
)
def test_a_scheduler_that_listens_to_the_network_without_tls_is_not_used(asked, listens, trusted):
    """Started without --host 127.0.0.1 it answers us on loopback, and anybody else as well."""

    class Scheduler:
        async def identity(self, n_workers):
            return {"address": listens}

    class Client:
        scheduler = Scheduler()

    assert (asyncio.run(exposed(Client(), asked)) == "") is trusted


def test_tls_wants_its_files_and_they_must_be_what_they_say(tmp_path):
    files = {name: str(tmp_path / name) for name in ("tls_ca", "tls_cert", "tls_key")}
    given = {f"engine.{name}": path for name, path in files.items()}
    loaded = load.load(None, {"engine.kind": "dask", "engine.scheduler": "tls://n1:8786", **given})
    with pytest.raises(ConfigError, match="TLS files cannot be used"):
        Link(loaded.engine.scheduler, "{}", loaded.engine.tls)
    for path in files.values():
        open(path, "w").close()
    with pytest.raises(ConfigError, match="TLS files cannot be used"):
        Link(loaded.engine.scheduler, "{}", loaded.engine.tls)


def test_a_missing_package_gives_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r'pip install "nirid\[dask\]"') as caught:
        Link("tcp://127.0.0.1:8786", "{}")
    assert len(str(caught.value).splitlines()) == 1


def test_without_a_cluster_nothing_of_dask_is_imported():
    program = (
        "import sys, daemon.cli\nfrom daemon import app\nfrom daemon.config.load import load\n"
        "import daemon.upkeep.doctor\napp.engine_of(load())\n"
        "print(*[m for m in sys.modules if m.split('.')[0] in ('dask', 'distributed')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# -- what a worker says of itself -----------------------------------------------------------------------


def introduced(tmp_path, **other):
    said = json.loads(greeting(Limits(), {}, [str(tmp_path)]))
    return json.loads(remote.introduce(json.dumps({**said, **other})))


def test_a_worker_like_us_is_welcome(tmp_path):
    assert introduced(tmp_path)["problem"] == ""


def test_a_worker_of_another_release_says_in_what_it_differs(tmp_path):
    theirs = {**software.versions(), "numpy": "1.0", "python": "3.9.1"}
    problem = introduced(tmp_path, versions=theirs)["problem"]
    mine = software.versions()
    assert problem == f"it has numpy {mine['numpy']} (here 1.0), python {mine['python']} (here 3.9.1)"


def test_a_worker_that_does_not_see_the_folders_says_so(tmp_path):
    gone = str(tmp_path / "gone")
    assert f"does not see {gone}" in introduced(tmp_path, folders=[gone, str(tmp_path)])["problem"]


def test_a_worker_that_was_not_greeted_does_no_job(monkeypatch):
    """Dask gives the job of a dead worker to the next at its address."""
    monkeypatch.setattr(remote, "_engine", None)
    answer = json.loads(remote.work("key", json.dumps({"job_id": 7, "attempt": 2, "spec": {}})))
    assert answer == {"lost": "the Dask worker died", "killed": True}
