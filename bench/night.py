"""A whole night with `nirid run --until-idle`, by number of workers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from bench import common, floor

SMALL: dict[str, Any] = {"preset": "", "workers": (1,)}


def measure(data: Path, preset: str = "example1", workers: tuple[int, ...] = (1, 2)) -> dict[str, Any]:
    """preset : "" for the smallest night that makes a product, one group of darks

    seconds : the whole command; warm_seconds : first claim to last published product; each also as times the
    floor of the same files and products
    """
    common.compiled(data)
    runs, limit = [], {}
    with common.scratch() as work:
        if preset:
            drop = common.night(data, preset)
        else:
            common.few_darks(drop := work / "drop")
        for count in workers:
            done = common.until_idle(drop, work / str(count), count)
            limit = limit or floor.of_night(common.raw_files(drop), work / str(count) / "products")
            runs.append(_figures(done, count, work / str(count), limit["seconds"]))
    return {"preset": preset, "files": limit["files"], "floor": limit, "runs": runs}


def _figures(done: common.Run, workers: int, work: Path, limit: float) -> dict[str, Any]:
    began, ingested = min(done.when("started")), max(done.when("file_ingested"))
    steps: dict[str, float] = {}
    for event in done.events:
        if event["event"] == "step_finished":
            steps[event["step"]] = round(steps.get(event["step"], 0.0) + event["seconds"], 3)
    with closing(sqlite3.connect(work / "state" / "nirid.db")) as db:
        jobs = db.execute(
            "SELECT json_extract(spec, '$.name'), seconds, peak_mb FROM job WHERE state = 'done'"
        )
        made = [{"name": name, "seconds": seconds, "peak_mb": peak} for name, seconds, peak in jobs]
    return {
        "workers": workers,
        "seconds": round(done.seconds, 3),
        "warm_seconds": round(done.warm, 3),
        "cpu_seconds": round(done.cpu, 3),
        "times_floor": round(done.seconds / limit, 2),
        "warm_times_floor": round(done.warm / limit, 2),
        "ingest_seconds": round(ingested - began, 3),
        "parent_mb": done.parent_mb,
        "worker_mb": max(job["peak_mb"] for job in made),
        "jobs": made,
        "steps": dict(sorted(steps.items(), key=lambda item: -item[1])),
    }


def tables(answer: dict[str, Any]) -> list[common.Table]:
    names = ("workers", "seconds", "times_floor", "warm_seconds", "warm_times_floor", "cpu_seconds",
             "ingest_seconds", "parent_mb", "worker_mb")  # fmt: skip
    title = (
        f"{answer['files']} files of {answer['preset'] or 'darks'}; floor {answer['floor']['seconds']:.2f} s"
    )
    runs = answer["runs"]
    last = runs[-1]
    return [
        (title, names, [[run[name] for name in names] for run in runs]),
        (f"jobs, {last['workers']} workers", ("product", "seconds", "peak MB"),
         [(job["name"], job["seconds"], job["peak_mb"]) for job in last["jobs"]]),
        ("steps of all jobs", ("step", "seconds"), list(last["steps"].items())[:12]),
    ]  # fmt: skip
