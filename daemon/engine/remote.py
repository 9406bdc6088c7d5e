"""What runs in a Dask worker: it keeps one child process of its own, as the daemon does on one machine.

    introduce(text) -> text      which worker this is, and why it cannot be used, if so
    greet(text) -> text          the same, and the child is made ready
    work(text) -> text           one job, in the child; the answer is an `Outcome`
    ask_to_stop(key)             from another thread, while `work` runs

So the limits of time and memory, the kill of a job that hangs, and the sorting of what goes wrong are
those of `daemon.engine.local`, on whichever host. Everything comes and goes as JSON text: of ours, Dask
unpickles nothing but the name of one of these functions. The scheduler imports this module too.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from daemon.engine import WorkersDoNotStart
from daemon.engine.limits import Limits
from daemon.engine.local import LocalEngine
from daemon.engine.software import versions
from daemon.instance import UMASK
from daemon.model.jobs import Outcome

LOOK_SECONDS = 0.2  # between two looks whether a job is to stop

_one = threading.Lock()  # one job at a time, however many threads the worker has
_engine: LocalEngine | None = None
_setup = ""
_asked: set[str] = set()


@dataclass(frozen=True)
class _Given:
    values: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return dict(self.values)


def introduce(text: str) -> str:
    """{"versions", "host", "pid", "problem"}; problem is "" when this worker can be used.

    text : the greeting, {"versions", "folders": of drop and products, the last one to be written to, ...}
    """
    setup, mine = json.loads(text), versions()
    found = [
        f"{name} {mine.get(name)} (here {v})" for name, v in setup["versions"].items() if mine.get(name) != v
    ]
    problem = f"it has {', '.join(found)}" if found else ""
    for folder in [] if problem else setup["folders"]:
        if not Path(folder).is_dir():
            problem = f"it does not see {folder}: drop and products folders must be shared, by the same path"
        elif folder == setup["folders"][-1] and not os.access(folder, os.W_OK):
            problem = f"it may not write to {folder}"
    return json.dumps(
        {"versions": mine, "host": socket.gethostname(), "pid": os.getpid(), "problem": problem}
    )


def greet(text: str) -> str:
    """Make the child ready: as `introduce`, after the loops are loaded or compiled.

    text : as for `introduce`, with "limits", "log" and "runner" of a `LocalEngine`
    """
    global _engine, _setup
    answer, setup = json.loads(introduce(text)), json.loads(text)
    if not answer["problem"]:
        with _one:
            if _engine is not None and _setup != text:  # another daemon, or the same with other options
                _engine.stop(0.0)
                _engine = None
            if _engine is None:
                os.umask(UMASK)  # what is staged here becomes a product
                _engine = LocalEngine(
                    1,
                    Limits(**setup["limits"]),
                    setup["runner"],
                    setup["log"],
                    _cache(),
                    cores=1,  # the others belong to other workers of the cluster
                    most_failed_starts=3,
                )
                _setup = text
                _engine.start()
            try:
                _get_ready(_engine)
            except WorkersDoNotStart as error:
                answer["problem"] = str(error)
                _engine.stop(0.0)
                _engine = None
    return json.dumps(answer)


def _cache() -> dict[str, Any]:
    """Planes of large groups go to a disk of this machine, if its service has a folder for such things."""
    folder = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    return {"cache": folder} if folder else {}


def work(key: str, text: str) -> str:
    """Run one job in the child and say how it ended: an `Outcome` as JSON, or {"lost", "killed"} without one.

    text : {"job_id", "attempt", "spec"}
    """
    job = json.loads(text)
    with _one:
        if _engine is None:
            # Dask gives the job of a worker that died to the one that comes at its address. It is not for
            # Dask to say how often a job is tried: the ledger counts.
            return json.dumps({"lost": "the Dask worker died", "killed": True})
        try:
            _get_ready(_engine)  # the child may have been replaced after its last job
        except WorkersDoNotStart as error:
            return json.dumps({"lost": str(error), "killed": True})
        _engine.submit(job["job_id"], job["attempt"], _Given(job["spec"]))
        return json.dumps(asdict(_outcome(_engine, key, job["job_id"])))


def _outcome(engine: LocalEngine, key: str, job_id: int) -> Outcome:
    asked = False
    while not (ended := engine.poll()):
        if key in _asked and not asked:
            asked = True
            engine.cancel(job_id)
        wait(engine.waitables(), timeout=LOOK_SECONDS)
    _asked.discard(key)
    return ended[0]


def _get_ready(engine: LocalEngine) -> None:
    """Wait for the child. Raises WorkersDoNotStart when three in a row did not come up."""
    engine.poll()  # it may have died since it was last looked at
    while not engine.free():
        wait(engine.waitables(), timeout=LOOK_SECONDS)
        engine.poll()


def ask_to_stop(key: str) -> None:
    """The job is to stop between two steps; if it does not, its child is killed."""
    _asked.add(key)
