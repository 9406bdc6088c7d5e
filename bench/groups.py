"""How time and private memory of a worker grow with the frames of a group."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np

from bench import common
from daemon import logs

SMALL: dict[str, Any] = {"frames": (4, 6), "large": (), "size": 256}
SECONDS, CADENCE = 20.002, 34.0  # of an exposure, and from one to the next
DITHER = tuple((float(x), float(y)) for y in (-4, 0, 4) for x in (-4, 0, 4))  # arcsec
STARS = 40
LIMIT_MB = 1500


def measure(
    data: Path,
    frames: tuple[int, ...] = (10, 20, 50, 100, 200, 500),
    large: tuple[int, ...] = (10, 20, 100, 500),
    size: int = 256,
) -> dict[str, Any]:
    """frames : numbers of frames of size x size pixels; large : of 1024 x 1024

    One worker, as the daemon starts it, reduces a group of so many dithers. private_mb is the most anonymous
    memory that it had, data_mb what its limit counts; maps of its scratch file are in neither.
    """
    common.compiled(data)
    logs.configure(level="error")
    rows = [_row(data, number, size) for number in frames] + [_row(data, number, 1024) for number in large]
    return {"limit_mb": LIMIT_MB, "groups": rows}


def _row(data: Path, number: int, size: int) -> dict[str, Any]:
    from daemon.engine.limits import Limits
    from daemon.engine.local import LocalEngine

    spec = specification(data, number, size)
    with common.scratch() as work:
        spec = replace(spec, products=str(work), staging=str(work / ".staging" / "k.1"))
        limits = Limits(seconds=7200.0, memory_mb=LIMIT_MB)
        engine = LocalEngine(1, limits, log={"level": "error"}, shared={"cache": str(work)})
        engine.start()
        try:
            while not engine.free():
                wait(engine.waitables(), timeout=0.05)
                engine.poll()
            (pid,) = engine.pids()
            engine.submit(1, 1, spec)
            before, peaks = _processor_seconds(pid), {"RssAnon": 0.0, "VmData": 0.0}
            while not (ended := engine.poll()):
                wait(engine.waitables(), timeout=0.02)
                peaks = {name: max(most, common.memory_mb(pid, name)) for name, most in peaks.items()}
            cpu = _processor_seconds(pid) - before
        finally:
            engine.stop(0.0)
    (outcome,) = ended
    if outcome.result is None:
        raise SystemExit(f"{number} frames of {size} x {size}: {outcome.ending}: {outcome.error}")
    steps = {row["step"]: row["seconds"] for row in outcome.result["steps"]}
    return {
        "frames": number,
        "size": size,
        "seconds": round(outcome.seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "cpu_a_frame": round(cpu / number, 3),
        "private_mb": peaks["RssAnon"],
        "data_mb": peaks["VmData"],
        "steps": steps,
    }


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def specification(data: Path, number: int, size: int) -> Any:
    """The job of a group of dithers around one field, written below `data` when it is not there."""
    from daemon.model.jobs import CalInput, Input, JobSpec
    from pipeline.files.structure import read_file

    folder = data / f"group-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    base = _base(size)
    cals = _calibrations(folder, base)
    shots = [_dither(base, k) for k in range(number)]
    inputs = []
    for shot in shots:
        path = folder / f"{shot.name}.fits"
        if not path.exists():
            _write(path, shot)
        facts = read_file(path)
        inputs.append(Input(str(path), path.name, facts.file_sha, facts.data_sha, "", shot.start.isoformat()))
    return JobSpec(
        key="0" * 64,
        recipe="reduce",
        recipe_version=1,
        group="0" * 16,
        inputs=tuple(inputs),
        calibrations=tuple(
            CalInput(role, str(path), path.name, read_file(path).file_sha, role)
            for role, path in cals.items()
        ),
        name=f"{shots[0].name}_image",
        night="20160102",
        time_stamp=shots[-1].end.isoformat(),
    )


def _base(size: int) -> Any:
    from pipeline.simulate import Shot
    from pipeline.simulate.detector import make_detector
    from pipeline.simulate.sky import Field, offset_position

    rng = np.random.default_rng(5)
    target = (148.9255, 20.0)
    reach = 0.116 * size / 2
    places = [offset_position(*target, *rng.uniform(-reach, reach, 2)) for _ in range(STARS)]
    ra, dec = np.array(places).T
    field = Field("stars", target, ra, dec, rng.uniform(13.5, 17.0, STARS))
    shot = Shot(shape=(size, size), port=3, light=400.0, exposure=SECONDS, field=field, target=target)
    return shot.with_detector(make_detector(rng))


def _dither(base: Any, k: int) -> Any:
    start = base.start + k * timedelta(seconds=CADENCE)
    wander = np.random.default_rng(k).uniform(-1.0, 1.0, 2)
    x, y = DITHER[k % len(DITHER)] + wander
    return replace(
        base, name=f"N20160102S{k + 1:04d}", number=k + 1, start=start, offset=(float(x), float(y))
    )


def _write(path: Path, shot: Any) -> None:
    shot.render(shot.number).write(path)


def _calibrations(folder: Path, base: Any) -> dict[str, Path]:
    from pipeline import produce
    from pipeline.primitive import run_recipe
    from pipeline.produce import Source
    from pipeline.recipes import RECIPES

    made = {}
    dark = replace(base, kind="dark", field=None, light=0.0)
    lamps = {"flaton": 24_000.0, "flatoff": 400.0}
    flats = [replace(base, kind=k, field=None, exposure=2.0, light=v) for k, v in lamps.items()]
    for role, recipe, shots in (
        ("processed_dark", "makeProcessedDark", [dark]),
        ("processed_flat", "makeProcessedFlat", flats),
    ):
        stem = folder / role
        made[role] = stem.with_suffix(".fits")
        if made[role].exists():
            continue
        sources = []
        for number, shot in enumerate(s for s in shots for _ in range(3)):
            path = folder / f"{role}-{number}.fits"
            name = f"N20160101S{number:04d}"
            start = base.start - timedelta(hours=1) + number * timedelta(minutes=1)
            _write(path, replace(shot, name=name, number=900 + number, start=start))
            sources.append(Source(str(path), f"{name}.fits", ""))
        frames, _ = produce.load(sources)
        product = run_recipe(RECIPES[recipe].bind(), frames)
        produce.write(stem, product, sources, time_stamp="2016-01-01T00:00:00", preview=False)
    return made


def tables(answer: dict[str, Any]) -> list[common.Table]:
    columns = ("frames", "size", "seconds", "cpu_seconds", "cpu_a_frame", "private_mb", "data_mb")
    rows = [[row[name] for name in columns] for row in answer["groups"]]
    return [(f"groups, one worker of at most {answer['limit_mb']} MB", columns, rows)]
