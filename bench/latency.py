"""Live: from the rename of a group's last frame to its published product; and what an idle daemon costs."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import common, floor

SMALL: dict[str, Any] = {"preset": "", "groups": 1, "idle_seconds": 0.2, "workers": 1, "quiet": 0.5}

SETTLE = 0.1  # s; a renamed file is waited for, and is taken off
CADENCE = 1.5  # s between the frames of the sequences that are watched as they come
PATIENCE = 120.0


def measure(
    data: Path,
    preset: str = "example1",
    groups: int = 6,
    idle_seconds: float = 10.0,
    workers: int = common.WORKERS,
    quiet: float = 3.0,
) -> dict[str, Any]:
    """preset : whose calibrations land first, and whose science groups one after the other; "" is darks only
    quiet : s without a new frame that end a group, much less than the minute or more of a real night

    beyond : seconds from the last rename to the product, less the settle and the quiet time; made when the
        group is quiet, or (running) with looks and running stacks, while it is not
    first_look, running_stack : seconds from the rename of a frame to its look, and to the stack that it is in
    """
    common.compiled(data)
    with common.scratch() as work, _daemon(work, workers, quiet, looks=False) as daemon:
        ready = daemon.ready_seconds
        waits, last = _sequences(daemon, data, preset, groups)
        limit = floor.floor(last, daemon.last_product())["seconds"]
        idle = daemon.idle(idle_seconds)
    taken = SETTLE + quiet
    answer: dict[str, Any] = {
        "preset": preset,
        "groups": groups,
        "frames": len(last),
        "ready_seconds": round(ready, 3),
        "seconds": common.percentiles(waits),
        "beyond": common.percentiles([wait - taken for wait in waits]),
        "floor_seconds": limit,
        "times_floor": round((sorted(waits)[len(waits) // 2] - taken) / limit, 1),
        "idle": idle,
    }
    if preset:
        with common.scratch() as work, _daemon(work, workers, quiet, looks=True) as daemon:
            waits, _ = _sequences(daemon, data, preset, groups, CADENCE)
            looks = daemon.looks()
        answer["running"] = common.percentiles([wait - taken for wait in waits])
        answer |= {name: common.percentiles(those) for name, those in looks.items()}
    return answer


def _sequences(
    daemon: _Daemon, data: Path, preset: str, groups: int, cadence: float = 0.0
) -> tuple[list[float], list[Path]]:
    """(seconds from the last rename to the product, of each group; the files of the last)."""
    if preset:
        daemon.land(common.raw_files(common.night(data, preset, 0, "dark flaton flatoff")))
        daemon.wait_for_products(
            "processed_flat", 2
        )  # the second is made with the mask of the first's frames
        # Of later nights: a frame that is known to have been taken later would end the group at once.
        nights = [common.night(data, preset, k, "object") for k in range(1, groups + 1)]
        sequences = [common.raw_files(night) for night in nights]
    else:
        sequences = [
            common.few_darks(daemon.work / "night" / str(k), first=10 * k + 1, exposure=20.0 + k)
            for k in range(groups)
        ]
    waits = []
    for number, frames in enumerate(sequences, 1):
        landed = daemon.land(frames, cadence)
        published = daemon.wait_for_products("" if preset else "processed_dark", number)
        waits.append(published - landed)
    return waits, sequences[-1]


@contextlib.contextmanager
def _daemon(work: Path, workers: int, quiet: float, looks: bool) -> Iterator[_Daemon]:
    daemon = _Daemon(work, workers, quiet, looks)
    try:
        yield daemon
    finally:
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.wait(timeout=30)


class _Daemon:
    """The service on an empty folder, with short waits."""

    def __init__(self, work: Path, workers: int, quiet: float, looks: bool) -> None:
        self.work, self.drop = work, work / "drop"
        self.landed: dict[str, float] = {}
        self.drop.mkdir()
        (work / "nirid.toml").write_text(_configuration(work, workers, quiet, looks))
        began = time.monotonic()
        with (work / "log").open("wb") as log:
            self.process = subprocess.Popen(
                common.command("--config", str(work / "nirid.toml"), "run"), stderr=log, stdout=log
            )
        self._until(lambda: "started" in {e["event"] for e in common.events_of(work / "log")})
        self.ready_seconds = time.monotonic() - began
        # A job that lands meanwhile would measure the start of the workers.
        self._until(lambda: len(self._children()) == workers and self._load() < 0.5)

    def land(self, frames: list[Path], cadence: float = 0.0) -> float:
        """Deliver by rename, every `cadence` seconds; returns the time of the last rename."""
        for path in frames:
            time.sleep(cadence)
            part = self.drop / f".{path.name}.part"
            part.write_bytes(path.read_bytes())
            os.replace(part, self.drop / path.name)
            self.landed[path.stem] = time.time()
        return time.time()

    def looks(self) -> dict[str, list[float]]:
        """Seconds from the rename of a frame to its look, and to the running stack of it and all before."""
        first, stacks = [], []
        for event in common.events_of(self.work / "log"):
            if event["event"] != "look_made":
                continue
            name, seen = Path(event["product"]).stem.rpartition("_")[0], common.moment(event)
            if event["kind"] == "firstlook":
                first.append(seen - self.landed[name])
            else:
                stacks.append(seen - max(t for n, t in self.landed.items() if t < seen - event["seconds"]))
        return {"first_look": first, "running_stack": stacks}

    def wait_until_idle(self) -> None:
        """Until every group that has landed has its product."""
        done = """SELECT (SELECT COUNT(*) FROM job) > 0
            AND NOT EXISTS (SELECT 1 FROM job WHERE state NOT IN ('done', 'dropped'))
            AND NOT EXISTS (SELECT 1 FROM frame_group WHERE touched > 0 AND NOT closed)"""
        self._until(lambda: self._ask(done)[0][0])

    def wait_for_products(self, kind: str, count: int) -> float:
        """When the `count`-th product of a kind ("" is science) was published, s since the epoch."""
        suffix = {"processed_flat": "_flat", "processed_dark": "_dark", "": "_image"}[kind]
        sql = "SELECT published FROM product WHERE name LIKE ? ORDER BY published"
        self._until(lambda: len(self._ask(sql, f"%{suffix}")) >= count)
        return float(self._ask(sql, f"%{suffix}")[count - 1][0])

    def last_product(self) -> list[bytes]:
        fits = Path(os.fsdecode(self._ask("SELECT path FROM product ORDER BY published DESC LIMIT 1")[0][0]))
        return [fits.read_bytes(), fits.with_suffix(".png").read_bytes()]

    def idle(self, seconds: float) -> dict[str, float]:
        """Per cent of a core and memory of the parent, of the workers together, with nothing to do."""
        pids = {"daemon": [self.process.pid], "workers": self._children()}
        before = {name: sum(map(common.ticks, those)) for name, those in pids.items()}
        time.sleep(seconds)
        answer = {}
        for name, those in pids.items():
            used = sum(map(common.ticks, those)) - before[name]
            answer[f"{name}_percent"] = round(100 * used / os.sysconf("SC_CLK_TCK") / seconds, 2)
            answer[f"{name}_mb"] = round(sum(common.memory_mb(pid) for pid in those), 1)
        return answer

    def _children(self) -> list[int]:
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def _load(self) -> float:
        """Cores that the workers keep busy."""
        before = sum(map(common.ticks, self._children()))
        time.sleep(0.2)
        return (sum(map(common.ticks, self._children())) - before) / os.sysconf("SC_CLK_TCK") / 0.2

    def _ask(self, sql: str, *values: Any) -> list[Any]:
        try:
            with contextlib.closing(
                sqlite3.connect(f"file:{self.work}/state/nirid.db?mode=ro", uri=True)
            ) as db:
                return db.execute(sql, values).fetchall()
        except sqlite3.OperationalError:
            return []

    def _until(self, holds: Any) -> None:
        end = time.monotonic() + PATIENCE
        while not holds():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise SystemExit(
                    f"the daemon does not do what it should:\n{(self.work / 'log').read_text()[-3000:]}"
                )
            time.sleep(0.02)


def _configuration(work: Path, workers: int, quiet: float, looks: bool) -> str:
    from daemon.model.rules import DEFAULT_RULES

    lines = [
        f"watch = {{ folders = ['{work}/drop'], settle_seconds = 0.5, fast_settle_seconds = {SETTLE} }}",
        f"products = {{ folder = '{work}/products' }}",
        f"state = {{ folder = '{work}/state' }}",
        f"engine = {{ workers = {workers} }}",
        f"looks = {{ first_looks = {str(looks).lower()}, running_stacks = {str(looks).lower()} }}",
        "log = { format = 'json' }",
    ]
    for rule in DEFAULT_RULES:
        lines += ["[[trigger]]", f"name = '{rule.title}'", f"recipe = '{rule.recipe}'"]
        lines += [
            f"quiet_seconds = {quiet}",
            "quiet_cadence = 0",
            "quiet_exposures = 0",
            "quiet_overhead = 0",
        ]
    return "\n".join(lines) + "\n"


def tables(answer: dict[str, Any]) -> list[common.Table]:
    marks = list(answer["beyond"])
    rows = [
        ["last frame to product", *answer["seconds"].values()],
        ["beyond settle and quiet", *answer["beyond"].values()],
    ]
    if "running" in answer:
        rows += [
            ["the same with running stacks", *answer["running"].values()],
            ["frame to its first look", *answer["first_look"].values()],
            ["frame to a running stack with it", *answer["running_stack"].values()],
        ]
    what = f"{answer['groups']} groups of {answer['frames']} frames of {answer['preset'] or 'darks'}"
    idle = answer["idle"]
    return [
        (f"seconds; {what}; floor {answer['floor_seconds']:.2f} s", ("", *marks), rows),
        (f"idle; ready after {answer['ready_seconds']:.2f} s", ("", "% of a core", "MB"),
         [(name, idle[f"{name}_percent"], idle[f"{name}_mb"]) for name in ("daemon", "workers")]),
    ]  # fmt: skip
