"""A real Dask cluster on loopback, for tests and benches: a scheduler, and worker processes with a nanny."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Cluster:
    """folder : for logs and scratch files; environment : of the workers, besides ours; more : of TLS"""

    def __init__(self, folder: Path, workers: int = 2, environment: dict | None = None, more: tuple = ()):
        self.folder, self.processes, self.more = folder, [], more
        self.environment = {**os.environ, **(environment or {})}
        folder.mkdir(parents=True, exist_ok=True)
        self.host = ("--host", f"{'tls' if more else 'tcp'}://127.0.0.1")
        self.start_scheduler()
        if workers:
            numbers = ("--nthreads", "1", "--nworkers", str(workers))
            self._start(
                "worker", self.address, *self.host, *numbers, "--local-directory", str(folder / "scratch")
            )

    def start_scheduler(self, port: int = 0) -> None:
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        self._start("scheduler", *self.host, "--port", str(port), "--scheduler-file", str(file))
        self.scheduler = self.processes[-1]
        end = time.monotonic() + 60
        while not (file.exists() and file.read_text().rstrip().endswith("}")):
            assert time.monotonic() < end, self.log("scheduler")
            time.sleep(0.02)
        self.address = json.loads(file.read_text())["address"]

    def _start(self, *words: str) -> None:
        with (self.folder / f"{words[0]}.log").open("ab") as log:
            command = [sys.executable, "-P", "-m", "dask", *words, "--no-dashboard", *self.more]
            self.processes.append(
                subprocess.Popen(
                    command, stdout=log, stderr=log, env=self.environment, cwd=self.folder, process_group=0
                )
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def close(self) -> None:
        """At once: a polite end takes a nanny ten seconds."""
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
