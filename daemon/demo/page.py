"""The page of the demonstration: `nirid web` beside its daemon, at a port that is free."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_SECONDS = 20.0


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[str]:
    """Its address, from the start of the block to its end; "" where what it needs is not installed.

    folder : of the demonstration, with its configuration; the log is FOLDER/web.log
    """
    if not all(importlib.util.find_spec(name) for name in ("starlette", "uvicorn")):
        yield ""
        return
    path = folder / "web.log"
    command = [
        sys.executable,
        "-P",
        "-m",
        "daemon",
        "--config",
        str(folder / "nirid.toml"),
        "web",
        "--port",
        "0",
    ]
    with path.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield _address(process, path)
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """What it says of itself when it listens; "" when it does not come to that: the night goes on without."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text("utf-8", "replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):
                told = json.loads(line)
                if told["event"] == "web_started":
                    return str(told["addresses"][0])
        time.sleep(0.05)
    return ""
