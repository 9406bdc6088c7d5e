"""A worker started for a trial, as the daemon starts its own: the doctor's proof that jobs can be done here.

    level, text = start_one(config)       # "ok", "note" or "wrong", and what was seen

In the child, `run` does every recipe once on small frames. Everything is compiled, whatever the marker says;
no job is touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Literal

from daemon.config.options import Config
from daemon.engine import compiled
from daemon.model.jobs import Outcome

if TYPE_CHECKING:
    from daemon.engine.local import LocalEngine


RUNNER = "daemon.upkeep.trial:run"
PATIENCE = 300.0  # s: compiling everything takes about a minute, on a slow and busy machine longer


def warm_up(ready: bool) -> None:
    """In the child: as a worker of the daemon's."""
    from daemon.work import worker

    worker.warm_up(ready)


def run(job: Mapping[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    """In the child: every recipe once, with every compiled loop."""
    from daemon.work.warmup import run_every_recipe

    run_every_recipe()
    return {}


@dataclass(frozen=True)
class _Nothing:
    def to_json(self) -> dict[str, Any]:
        return {}


def start_one(
    config: Config, runner: str = RUNNER, patience: float = PATIENCE
) -> tuple[Literal["ok", "note", "wrong"], str]:
    """Start a worker, and have it do every recipe once. What it compiles is kept for the daemon."""
    from daemon.engine.local import LocalEngine
    from daemon.work.workers import engine_of

    compiled.settle(config.cache_folder)
    folder = compiled.warm_marker().parent
    if not compiled.is_there(folder) and (owner := _other_owner(config)):
        return "note", f"not tried: what a worker compiles now would be root's; run this as {owner}"
    told: list[str] = []
    quiet = replace(config, log=replace(config.log, level="error"))
    engine = engine_of(quiet, batch=True, on_change=told.append)
    assert isinstance(engine, LocalEngine)
    engine = replace(engine, workers=1, runner=runner, most_failed_starts=None)
    began = time.monotonic()
    try:
        engine.start()
        ended = _wait(engine, began + patience, told)
    finally:
        engine.stop(0.0)
    took = time.monotonic() - began
    if told and told[-1]:
        return "wrong", told[-1]
    if ended is None:
        return "wrong", f"a worker was started, and was not done after {took:.0f} s"
    if ended.ending == "cache":
        return (
            "note",
            f"compiled loops in {folder} were damaged: thrown away, the next worker makes them anew",
        )
    if ended.ending != "done":
        return "wrong", f"a worker starts, but cannot do a job: {ended.error}"
    return "ok", f"one was started and did every recipe once, in {took:.1f} s; compiled loops in {folder}"


def _wait(engine: LocalEngine, end: float, told: list[str]) -> Outcome | None:
    """What became of the one job; None when it did not end in time, or no worker came."""
    given = False
    while time.monotonic() < end and not (told and told[-1]):
        for outcome in engine.poll():
            return outcome
        if not given and engine.free():
            engine.submit(1, 1, _Nothing())
            given = True
        wait(engine.waitables(), timeout=0.1)
    return None


def _other_owner(config: Config) -> str:
    """The owner of the state folder, when that is somebody else and we are root; "" otherwise."""
    import pwd

    try:
        owner = config.state_folder.stat().st_uid
    except OSError:
        return ""
    if os.geteuid() or not owner:
        return ""
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        return f"uid {owner}"
