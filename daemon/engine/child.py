"""The life of a worker process: `python -m daemon.engine.child`, started by `daemon.engine.local`.

It holds one end of a pipe and does the jobs that arrive there, one after the other, until the pipe is closed.
It has no database and no other way in or out but the files that a job names.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import json
import os
import resource
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from daemon import limits, logs
from daemon.engine import compiled
from daemon.engine.compiled import AGAIN
from pipeline.errors import NiridError, StopRequested

Runner = Callable[[dict[str, Any], Callable[[], bool]], dict[str, Any]]


def main(setup: dict[str, Any]) -> None:
    """Warm up, say so, then work until the daemon closes its end."""
    pipe = Connection(setup["fd"])
    threading.Thread(target=_die_with_the_daemon, args=(setup["fd"],), daemon=True).start()
    logs.configure(**setup["log"])
    _set_limits(setup["memory_mb"])
    began = time.monotonic()
    gc.disable()  # collecting garbage among the libraries takes a tenth of a start
    module_name, _, function = setup["runner"].partition(":")
    module = importlib.import_module(module_name)
    runner: Runner = getattr(module, function)
    if hasattr(module, "warm_up"):
        marker = Path(setup["warm_marker"])
        try:
            module.warm_up(marker.exists() and compiled.is_there(marker.parent))
        except Exception as error:
            if not compiled.is_damaged(error):
                raise
            logs.get().error("compile_cache_damaged", folder=str(marker.parent), error=repr(error))
            compiled.empty(marker.parent)
            sys.exit(AGAIN)
        with contextlib.suppress(OSError):  # a read-only installation compiles at every start
            marker.touch()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # a job makes tens of thousands of cards and few reference cycles
    gc.enable()
    _send(pipe, {"ready": round(time.monotonic() - began, 3)})
    with contextlib.suppress(EOFError, OSError):
        while True:
            if not pipe.poll(setup["idle_seconds"]):
                _give_memory_back()
            message = json.loads(pipe.recv_bytes())
            if "job" in message:  # a request to stop what has just ended is late: nothing to do
                answer = _attempt(runner, message["job"], pipe.poll)
                _send(pipe, answer)
                if answer["ending"] == "cache":  # this process has loaded a part of the damaged code
                    compiled.empty(Path(setup["warm_marker"]).parent)
                    return


def _give_memory_back() -> None:
    """What jobs have used is kept for the next one (see `local.KEEP_MEMORY`), but not through the day."""
    # glibc only; other libraries give memory back themselves
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _attempt(runner: Runner, job: dict[str, Any], should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Run one job; an exception becomes a message with the ending that says what to do about it.

    `should_stop` is the pipe's poll: while a job runs, the only thing to arrive is a request to
    stop, or the end of the pipe when the daemon is gone.
    """
    reset_peak_memory()
    try:
        return {"ending": "done", "result": {**runner(job, should_stop), "peak_mb": peak_memory_mb()}}
    except StopRequested as stop:
        return {"ending": "stopped", "error": str(stop)}
    except Exception as error:
        return _sorted(error)


def _sorted(error: Exception) -> dict[str, Any]:
    """A failure as the daemon treats it: the machine's, the file system's, or of the data."""
    if compiled.is_damaged(error):
        logs.get().error("compile_cache_damaged", error=repr(error))
        return _failure("cache", error)
    if _wants_memory(error):
        return _failure("memory", error)
    # a library that cannot be loaded says nothing about the data
    if isinstance(error, (OSError, ImportError)):
        return _failure("io", error)
    return _failure("failed", error, data_error=isinstance(error, NiridError))


def _wants_memory(error: BaseException | None) -> bool:
    """True when this, or what it came from, is a lack of memory or of threads."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or "can't start new thread" in str(error):
            return True
        if isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EAGAIN):
            return True
        error = error.__cause__ or error.__context__
    return False


def _failure(ending: str, error: Exception, **more: Any) -> dict[str, Any]:
    line = f"{type(error).__name__}: {error}".strip().rstrip(":")
    return {"ending": ending, "error": line, "traceback": traceback.format_exc(), **more}


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _set_limits(memory_mb: int) -> None:
    # RLIMIT_DATA counts private memory only: maps of files, which cost nothing, are not in it.
    if memory_mb:
        limits.lower(resource.RLIMIT_DATA, memory_mb << 20)
    limits.lower(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):  # when memory runs out, the kernel takes us and not the daemon
        Path("/proc/self/oom_score_adj").write_text("500")


def _die_with_the_daemon(fd: int) -> None:
    """End at once when the other end of the pipe is closed, even in the middle of a long loop."""
    poller = select.poll()
    poller.register(fd, 0)  # nothing but hang-up and error
    poller.poll()
    os._exit(0)


def reset_peak_memory() -> None:
    """Forget the high-water mark of the job before."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """High-water mark of resident memory since the last reset, MB."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
