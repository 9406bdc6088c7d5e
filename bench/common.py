"""What the benches share: nights to measure on, the command as a person starts it, tables."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.simulate import PRESETS, Options, Shot
from pipeline.simulate import detector as det
from pipeline.simulate.night import night_shots, render_in_order, write_static_bpm

Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]

WORKERS = 2  # of the machine that the goals are for
NIGHT_STEP = timedelta(days=3)  # between two simulated nights; each takes two days


# -- nights -----------------------------------------------------------------------------------------------


def night(data: Path, preset: str, number: int = 0, kinds: str = "") -> Path:
    """The folder of a simulated night, written when it is not there.

    number : the same night with another seed, `number` times NIGHT_STEP later
    kinds : only frames of these kinds ("object standard"); "" is all, and a static bad-pixel mask
    """
    folder = data / f"{preset}-{number:03d}{'-' + kinds.replace(' ', '-') if kinds else ''}"
    if (folder / ".whole").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    plan = PRESETS[preset]
    later = number * NIGHT_STEP
    runs = [run for run in plan.runs if not kinds or run.shot.kind in kinds.split()]
    runs = [replace(run, start=run.start + later, first=_later(run.first, later)) for run in runs]
    seeds = [np.random.SeedSequence(plan.seed + number, spawn_key=(stream,)) for stream in range(3)]
    array = det.make_detector(np.random.default_rng(seeds[0]))
    fields = plan.fields(np.random.default_rng(seeds[1]))
    moved = replace(plan, runs=tuple(runs))
    shots = list(night_shots(moved, fields, array, Options(), np.random.default_rng(seeds[2])))
    for raw in render_in_order(shots, plan.seed + number):
        raw.write(folder / f"{raw.shot.name}.fits")
    if not kinds:
        write_static_bpm(folder / "bpm_20010317_niri_niri_11_full_1amp.fits", array)
    (folder / ".whole").touch()
    return folder


def _later(name: str, later: timedelta) -> str:
    return f"N{datetime.strptime(name[1:9], '%Y%m%d') + later:%Y%m%d}{name[9:]}"


def few_darks(folder: Path, frames: int = 3, first: int = 1, exposure: float = 20.0) -> list[Path]:
    """One group of small darks, the least that makes a product."""
    folder.mkdir(parents=True, exist_ok=True)
    base = Shot(kind="dark", exposure=exposure).with_dark(0.5, pedestal=20.0)
    paths = []
    for k in range(first, first + frames):
        shot = replace(
            base, name=f"N20160102S{k:04d}", number=k, start=base.start + k * timedelta(seconds=30)
        )
        paths.append(folder / f"{shot.name}.fits")
        shot.render(k).write(paths[-1])
    return paths


def many_darks(folder: Path, groups: int) -> list[Path]:
    """Groups of three small darks each, told apart by their exposures."""
    return [path for k in range(groups) for path in few_darks(folder, 3, first=1 + 3 * k, exposure=20.0 + k)]


def link(night: Path, into: Path) -> None:
    """The files of a night in another folder, without a copy where that is possible."""
    into.mkdir(parents=True)
    for path in raw_files(night):
        os.link(path, into / path.name) if night.stat().st_dev == into.stat().st_dev else _copy(path, into)


def _copy(path: Path, into: Path) -> None:
    (into / path.name).write_bytes(path.read_bytes())


def raw_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.fits"))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nirid-bench-") as folder:
        yield Path(folder)


# -- the command ------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What a command did. cpu : of it and its workers, s; parent_mb : most resident memory of itself;
    parent_cpu : of itself, s, but for its last tenth of a second"""

    seconds: float
    cpu: float
    parent_mb: float
    parent_cpu: float
    events: list[dict[str, Any]] = field(default_factory=list)

    def when(self, event: str) -> list[float]:
        """Times of an event, s since the epoch."""
        return [moment(e) for e in self.events if e["event"] == event]

    @property
    def warm(self) -> float:
        """From the first claim of a job to the last published product."""
        return max(self.when("job_done")) - min(self.when("job_started"))


def moment(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "daemon", *arguments]


def until_idle(drop: Path, work: Path, workers: int = WORKERS, options: Sequence[str] = ()) -> Run:
    """`nirid run --until-idle` on a folder, with products and state below `work`; options : of `nirid`"""
    arguments = [*options, "--state", str(work / "state"), "run", "--until-idle", "--drop", str(drop)]
    arguments += ["--products", str(work / "products"), "--workers", str(workers), "--json"]
    work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with (work / "log").open("wb") as log, (work / "answer").open("wb") as answer:
        process = subprocess.Popen(command(*arguments), stdout=answer, stderr=log, stdin=subprocess.DEVNULL)
        memory = _Memory(process.pid)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = process.wait()
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit(f"nirid run ended with {code}:\n{(work / 'log').read_text()[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, memory.most(), memory.cpu, events_of(work / "log"))


def events_of(log: Path) -> list[dict[str, Any]]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


class _Memory:
    """Looks at a process's high-water mark, and its processor time, until it ends."""

    def __init__(self, pid: int) -> None:
        self._pid, self._most, self.cpu = pid, 0.0, 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError, IndexError):
            while True:
                self._most = memory_mb(self._pid, "VmHWM")
                self.cpu = processor_seconds(self._pid)
                time.sleep(0.1)

    def most(self) -> float:
        self._thread.join(timeout=1)
        return self._most


def memory_mb(pid: int, what: str = "VmRSS") -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return round(int(text.split(f"{what}:")[1].split()[0]) / 1024, 1)


def processor_seconds(pid: int) -> float:
    """Of one process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ticks(pid: int) -> int:
    """Processor time of a process so far, in units of 1/sysconf(SC_CLK_TCK) s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def compiled(data: Path) -> None:
    """See to it that the loops are compiled and on disk, so that no bench measures the compiler."""
    from daemon.engine.compiled import warm_marker

    if not warm_marker().exists():
        with scratch() as work:
            few_darks(work / "drop")
            until_idle(work / "drop", work, workers=1)


# -- recipes, in this process -----------------------------------------------------------------------------


@dataclass
class Made:
    """A product, what was noted of it, and the frames as they were after the steps asked for."""

    path: Path
    notes: tuple[str, ...]
    seen: dict[str, list[Any]]


def by_recipe(
    recipe: str,
    files: Sequence[Path],
    calibrations: Mapping[str, Path],
    stem: Path,
    parameters: Mapping[str, Any] | None = None,
    preset: str = "nirid",
    steps: Sequence[str] = (),
) -> Made:
    """A product made by its recipe, without a daemon; `calibrations` by role, `stem` of the file written."""
    from pipeline import produce
    from pipeline.primitive import run_recipe
    from pipeline.produce import Source
    from pipeline.recipes import RECIPES

    seen: dict[str, list[Any]] = {}

    def on_step(step: str, done: bool, frames: Any, notes: Any) -> None:
        if done and step in steps:
            seen[step] = list(frames)

    inputs = [Source(str(path), path.name, "") for path in files]
    sources = [Source(str(path), path.name, "", role) for role, path in calibrations.items()]
    frames, given = produce.load(inputs, sources)
    product = run_recipe(RECIPES[recipe].bind(dict(parameters or {}), preset), frames, given, on_step)
    written = produce.write(stem, product, inputs, sources, time_stamp="2016-01-02T00:00:00", preview=False)
    return Made(written.fits, tuple(product.notes), seen)


# -- figures ----------------------------------------------------------------------------------------------


def best_of(work: Callable[[], Any], repeat: int = 3) -> float:
    """Shortest processor time of a call, s: what other people do on the machine is not in it."""
    times = []
    for _ in range(repeat):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    marks = {"least": 0, "median": 50, "p90": 90, "most": 100}
    return {name: round(float(np.percentile(values, at)), 3) for name, at in marks.items()}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [list(columns), *([_text(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    lines = [
        "  ".join(
            value.ljust(width) if i == 0 else value.rjust(width)
            for i, (value, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join([f"\n{title}", *lines])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def processors() -> int:
    return min(WORKERS, os.cpu_count() or 1)
