"""The demonstration: a synthetic night lands file by file in front of a real daemon, and is judged.

The daemon is the program that a service manager starts, told to wait seconds instead of minutes for a
sequence to end; its state is read from its database, as other commands do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from daemon.demo import page
from daemon.ledger import questions
from daemon.ledger.store import NotReadable, connect_readonly
from daemon.model.rules import DEFAULT_RULES
from pipeline.errors import NiridError
from pipeline.files import disk

# What a night must become, by kind, in the order in which it can be made.
EXPECTED = {
    "example1": {
        "dark": "N20160102S0423_dark",
        "bpm": "N20160102S0373_bpm",
        "flat": "N20160102S0373_flat",
        "standard": "N20160102S0296_image",
        "science": "N20160102S0271_image",
    },
    "tiny": {
        "dark": "N20160102S0423_dark",
        "bpm": "N20160102S0366_bpm",
        "flat": "N20160102S0366_flat",
        "science": "N20160102S0271_image",
    },
}
MARK = ".nirid-demo"  # in a folder that is ours to empty
PARTS = ("drop", "products", "state", "night")
QUIET_SECONDS = 3.0
INTERVAL_SECONDS = 0.25  # between two files
SLOW_SECONDS = 1.2  # that a slow file takes to be written
PATIENCE_SECONDS = 600.0


class DemoFailed(NiridError):
    """The demonstration did not come out as it should."""


@dataclass
class Progress:
    """What the screen shows; brought up to date as things happen."""

    files: int = 0
    landed: dict[str, float] = field(default_factory=dict)  # file name -> when, seconds since the epoch
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    groups: list[dict[str, Any]] = field(default_factory=list)
    products: list[dict[str, Any]] = field(default_factory=list)
    doing: str = ""
    page: str = ""  # address of the page, while the night can be watched there


@dataclass(frozen=True)
class Made:
    """One product of the demonstration.

    seconds : from the landing of the last frame of its group to its first version, so with all that it
        waited for; final_seconds : from the landing of the last frame of all that it uses, those of its
        calibrations included, to the version that stayed
    """

    kind: str
    name: str
    path: str
    preview: str
    frames: int
    versions: int
    seconds: float
    final_seconds: float


def run(
    folder: Path, preset: str, speed: float, picture: Path | None, tell: Callable[[Progress], None]
) -> tuple[list[Made], list[Any]]:
    """Simulate, land, wait, judge. Returns the products and the checks against the truth.

    folder : emptied if it is of an earlier demonstration, refused if it holds anything else
    tell : called some times a second with the progress
    Raises DemoFailed when the daemon stops, a product is missing or nothing happens any more.
    """
    prepare(folder)
    progress = Progress(doing="simulating the night")
    tell(progress)
    with _daemon(folder) as daemon, page.beside(folder) as progress.page:
        source = _simulate(folder / "night", preset, progress, tell)
        progress.doing = "the night lands"
        for _ in _land(source, folder / "drop", progress, speed):
            _look(folder, progress)
            tell(progress)
            _still_alive(daemon, folder)
        progress.doing = "waiting for the last products"
        _wait_until_idle(folder, daemon, progress, tell)
        made = _made(folder, EXPECTED[preset], progress)
    progress.doing, progress.page = "comparing with the truth", ""
    tell(progress)
    from pipeline.simulate.verify import check_products

    checks = check_products(folder / "night", {m.kind: Path(m.path) for m in made})
    if picture:
        from pipeline.files.preview import raw_beside_stack

        stack = next(m for m in made if m.kind == "science")
        picture.parent.mkdir(parents=True, exist_ok=True)
        raw_beside_stack(folder / "drop" / f"{stack.name.split('_')[0]}.fits", Path(stack.path), picture)
    progress.doing = ""
    tell(progress)
    return made, checks


def prepare(folder: Path) -> None:
    """An empty drop folder, an empty product folder, a configuration with short waits."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise DemoFailed(f"{folder}: not empty, and not of an earlier demonstration; choose another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    for part in PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir()
    (folder / "nirid.toml").write_text(_configuration(folder), encoding="utf-8")


def _configuration(folder: Path) -> str:
    lines = [
        "# Made by nirid demo: sequences count as ended after seconds instead of minutes.",
        f"watch = {{ folders = ['{folder / 'drop'}'], settle_seconds = 0.5, sweep_seconds = 5 }}",
        f"products = {{ folder = '{folder / 'products'}' }}",
        f"state = {{ folder = '{folder / 'state'}' }}",
        "log = { format = 'json' }",
    ]
    for rule in DEFAULT_RULES:
        lines += ["[[trigger]]", f"name = '{rule.title}'", f"recipe = '{rule.recipe}'"]
        lines += [
            f"quiet_seconds = {QUIET_SECONDS}",
            "quiet_cadence = 0",
            "quiet_exposures = 0",
            "quiet_overhead = 0",
        ]
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as a child process, from READY to a clean stop; its log is FOLDER/nirid.log."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{place}/notify")
        manager.settimeout(60)
        with (folder / "nirid.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "daemon", "--config", str(folder / "nirid.toml"), "run"],
                env={**os.environ, "NOTIFY_SOCKET": f"{place}/notify"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_until_ready(manager, process, folder)
            yield process
            process.send_signal(signal.SIGTERM)
            if code := process.wait(timeout=60):
                raise DemoFailed(f"the daemon ended with exit code {code}; see {folder / 'nirid.log'}")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait_until_ready(manager: socket.socket, process: subprocess.Popen[bytes], folder: Path) -> None:
    manager.settimeout(0.2)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        _still_alive(process, folder)
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in manager.recv(4096):
                return
    raise DemoFailed(f"the daemon did not become ready; see {folder / 'nirid.log'}")


def _still_alive(process: subprocess.Popen[bytes], folder: Path) -> None:
    if (code := process.poll()) is not None:
        raise DemoFailed(f"the daemon ended by itself, exit code {code}; see {folder / 'nirid.log'}")


def _simulate(night: Path, preset: str, progress: Progress, tell: Callable[[Progress], None]) -> list[Path]:
    """The frames of the night in order of observation."""
    from pipeline.simulate import simulate_night

    files: list[Path] = []

    def written(path: Path, number: int, total: int) -> None:
        files.append(path)
        progress.files = total
        progress.doing = f"simulating the night: {number} of {total}"
        tell(progress)

    simulate_night(night, preset, on_file=written)
    return files


def _land(source: list[Path], drop: Path, progress: Progress, speed: float) -> Iterator[None]:
    """Deliver file after file, in the three ways that files arrive; yields between them."""
    for number, path in enumerate(source):
        target = drop / path.name
        if number % 7 == 3:  # a slow writer, in pieces
            data = path.read_bytes()
            pieces = 6
            with target.open("wb") as file:
                for i in range(pieces):
                    file.write(data[i * len(data) // pieces : (i + 1) * len(data) // pieces])
                    file.flush()
                    yield from _pause(SLOW_SECONDS / pieces / speed)
        elif number % 3 == 1:  # temporary name and rename
            disk.copy_whole(path, target, flush=False)
        else:
            shutil.copyfile(path, target)
        progress.landed[path.name] = time.time()
        yield from _pause(INTERVAL_SECONDS / speed)


def _pause(seconds: float) -> Iterator[None]:
    time.sleep(seconds)
    yield


def _look(folder: Path, progress: Progress) -> bool:
    """Read what the daemon knows; True when it has nothing left to do."""
    try:
        with contextlib.closing(connect_readonly(folder / "state" / "nirid.db")) as db:
            status = questions.status(db)
            progress.products = questions.products(db)
    except NotReadable:  # not made yet
        return False
    progress.counts, progress.groups = status["counts"], status["groups"]
    files, jobs = status["counts"]["files"], status["counts"]["jobs"]
    known = sum(files.get(state, 0) for state in ("ready", "calibration"))
    working = sum(jobs.get(state, 0) for state in ("planned", "waiting", "running"))
    return known == progress.files and not working and all(group["settled"] for group in progress.groups)


def _wait_until_idle(
    folder: Path, daemon: subprocess.Popen[bytes], progress: Progress, tell: Callable[[Progress], None]
) -> None:
    until, idle = time.monotonic() + PATIENCE_SECONDS, 0
    while idle < 4:  # idle for a second: a better product would be under way by then
        if time.monotonic() > until:
            raise DemoFailed(f"not idle after {PATIENCE_SECONDS:g} s; see {folder / 'nirid.log'}")
        idle = idle + 1 if _look(folder, progress) else 0
        tell(progress)
        _still_alive(daemon, folder)
        time.sleep(0.25)


def _made(folder: Path, expected: dict[str, str], progress: Progress) -> list[Made]:
    """The products that should be there. Raises DemoFailed naming those that are not, and why."""
    with contextlib.closing(connect_readonly(folder / "state" / "nirid.db")) as db:
        everything = questions.products(db, current=False)
        jobs = {job["id"]: job for job in questions.jobs(db)}
    made = []
    for kind, name in expected.items():
        versions = [p for p in everything if p["name"] == name]
        final = next((p for p in versions if p["current"]), None)
        if final is None:
            why = "; ".join(f"{j['name']}: {j['error']}" for j in jobs.values() if j["state"] == "failed")
            raise DemoFailed(f"{name} was not made. {why or 'No job failed'}; see {folder / 'nirid.log'}")
        own, all_used = jobs[final["job"]]["inputs"], _everything_used(final, everything, jobs)
        first = min(_published(version) for version in versions)
        made.append(
            Made(
                kind,
                name,
                final["path"],
                preview=str(Path(final["path"]).with_suffix(".png")),
                frames=len(own),
                versions=len(versions),
                seconds=first - max(progress.landed[frame] for frame in own),
                final_seconds=_published(final) - max(progress.landed.get(frame, 0.0) for frame in all_used),
            )
        )
    return made


def _published(product: dict[str, Any]) -> float:
    return datetime.fromisoformat(product["published"]).timestamp()


def _everything_used(
    product: dict[str, Any], products: list[dict[str, Any]], jobs: dict[int, Any]
) -> set[str]:
    """Names of the files that a product depends on, by way of its calibrations too."""
    job = jobs[product["job"]]
    used = set(job["inputs"])
    for name in job["calibrations"].values():
        maker = next((p for p in products if p["current"] and p["name"] == name), None)
        used |= _everything_used(maker, products, jobs) if maker else {name}
    return used
