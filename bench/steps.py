"""Each step of the recipes, and each kernel beneath them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import common

SMALL: dict[str, Any] = {"preset": "", "size": 128, "repeat": 1}


def measure(data: Path, preset: str = "example1", size: int = 1024, repeat: int = 3) -> dict[str, Any]:
    """preset : night whose recipes are run step by step; "" is darks only. size : of the kernels' images

    Processor seconds. A kernel is compared with copying as many bytes as it has to read and write.
    """
    return {"size": size, "steps": _steps(data, preset), "kernels": _kernels(size, repeat)}


# -- steps ------------------------------------------------------------------------------------------------


def _steps(data: Path, preset: str) -> list[dict[str, Any]]:
    with common.scratch() as work:
        if not preset:
            files = common.few_darks(work / "night")
            _recipe("makeProcessedDark", files, {}, work)
            return _recipe("makeProcessedDark", files, {}, work)[0]
        return _night(common.night(data, preset), work)


def _night(night: Path, work: Path) -> list[dict[str, Any]]:
    """All recipes of a night, each a second time, when compiled code is loaded and memory has been used."""
    from pipeline.files.structure import read_structure
    from pipeline.headers.merged import merge
    from pipeline.headers.tags import tags_of

    def of(*tags: str, longest: float = 1e9, least: float = 0.0) -> list[Path]:
        chosen = []
        for path in common.raw_files(night):
            phu = merge(read_structure(path).phu, {})
            if tags_of(phu) >= set(tags) and least <= float(phu.get("EXPTIME", 0)) <= longest:
                chosen.append(path)
        return chosen

    flats = of("RAW", "FLAT")
    science = [p for p in of("RAW", "IMAGE", least=10.0) if p not in flats]
    static = next(night.glob("bpm*"))
    made: dict[str, Path] = {"static_bpm": static}
    rows: list[dict[str, Any]] = []
    for recipe, files, makes in (
        ("makeProcessedDark", of("RAW", "DARK", least=10.0), "processed_dark"),
        ("makeProcessedBPM", flats + of("RAW", "DARK", longest=2.0), "processed_bpm"),
        ("makeProcessedFlat", flats, "processed_flat"),
        ("reduce", science, ""),
    ):
        cals = {} if "Dark" in recipe or "BPM" in recipe else made
        _recipe(recipe, files, cals, work)
        steps, product = _recipe(recipe, files, cals, work)
        rows += steps
        if makes:
            made[makes] = product
    return rows


def _recipe(
    recipe: str, files: list[Path], cals: dict[str, Path], work: Path
) -> tuple[list[dict[str, Any]], Path]:
    from pipeline import produce
    from pipeline.primitive import run_recipe
    from pipeline.produce import Source
    from pipeline.recipes import RECIPES

    rows: list[dict[str, Any]] = []
    began = 0.0

    def note(step: str, frames: int) -> None:
        seconds = time.process_time() - began
        rows.append({"recipe": recipe, "step": step, "frames": frames, "seconds": round(seconds, 4)})

    def on_step(step: str, done: bool, frames: Any, notes: Any) -> None:
        nonlocal began
        if done:
            note(step, len(frames))
        else:
            began = time.process_time()

    began = time.process_time()
    inputs = [Source(str(p), p.name, "") for p in files]
    calibrations = [Source(str(p), p.name, "", role) for role, p in cals.items()]
    frames, given = produce.load(inputs, calibrations)
    note("read", len(files))
    product = run_recipe(RECIPES[recipe].bind(), frames, given, on_step)
    began = time.process_time()
    written = produce.write(work / recipe, product, inputs, time_stamp="2016-01-02T00:00:00")
    note("write", 1)
    return rows, written.fits


# -- kernels ----------------------------------------------------------------------------------------------


def _kernels(size: int, repeat: int) -> list[dict[str, Any]]:
    from pipeline.algorithms import (
        background,
        calibrate,
        combine,
        flagging,
        grids,
        objectmasks,
        patterns,
        profiles,
        resampling,
        sources,
    )

    rng = np.random.default_rng(1)
    n = 10
    sci = [rng.normal(1000, 30, (size, size)).astype(np.float32) for _ in range(n)]
    var = [np.full((size, size), 900, np.float32)] * n
    dq = [(rng.random((size, size)) < 0.003).astype(np.uint16) for _ in range(n)]
    a, v, d = sci[0], var[0], dq[0]
    bad = d != 0
    sky = a * np.float32(0) + np.float32(900)
    stars = a + _stars(size, rng)
    flat = np.full((size, size), 1.01, np.float32)
    pixels = size * size
    where = np.argwhere(stars > 3000)[:40].T.astype(float)
    grid = grids.Grid(0, 0, (size, size))
    shift = grids.Mapping(c=0.4, f=-0.3)
    turn = grids.Mapping(a=0.9999, b=0.001, d=-0.001, e=0.9999)
    median = combine.Method("median", "minmax", nlow=1, nhigh=1)
    clipped = combine.Method("mean", "ccdclip", lsigma=4.0, hsigma=4.0, gradient=1.5)
    named: list[tuple[str, int, Callable[[], Any]]] = [  # name, bytes a pixel that it must read and write
        ("hash (SHA-256)", 4, lambda: hashlib.sha256(a.data).digest()),
        ("noise", 8, lambda: calibrate.noise(a, 35.0, 12.3, 0.0)),
        ("subtract", 30, lambda: calibrate.subtract(a, v, d, sky, v, d)),
        ("divide", 30, lambda: calibrate.divide(a, v, d, flat, v, d)),
        ("level_flags", 8, lambda: flagging.level_flags(a, d, 9e3, 1e4)),
        ("burnt-out stars", 5, lambda: flagging.hidden_saturation(stars, 3e3)),
        ("dilate", 2, lambda: flagging.dilate(bad, 2.0)),
        ("median of 10, minmax", 112, lambda: combine.combine(sci, var, dq, median)),
        ("mean of 10, ccdclip", 112, lambda: combine.combine(sci, var, dq, clipped)),
        ("object mask", 10, lambda: objectmasks.object_mask_of(a, bad, background.sky_level(a, bad))),
        ("sky_level", 5, lambda: background.sky_level(a, bad)),
        ("subtract_sky", 24, lambda: background.subtract_sky(a, v, sky, v, 1.01)),
        ("column pattern", 8, lambda: patterns.clean_boxes(a, bad, None, patterns.Boxes(), force=True)),
        ("resample, shift", 20, lambda: resampling.resample(a, v, d, shift, grid)),
        ("resample, general", 20, lambda: resampling.resample(a, v, d, turn, grid)),
        ("detect", 14, lambda: sources.detect(stars, d, sources.Detection(), v)),
        (
            "fit 40 stars",
            0,
            lambda: profiles.fit_stars(stars, v, bad, where[1], where[0], np.full(where.shape[1], 5.0)),
        ),
    ]
    copied = common.best_of(lambda: [a.copy() for _ in range(8)], repeat) / (8 * 8 * pixels)
    rows = []
    for name, bytes_per_pixel, work in named:
        work()  # compiled code is loaded, memory is there
        seconds = common.best_of(work, repeat)
        limit = copied * bytes_per_pixel * pixels
        rows.append(
            {
                "kernel": name,
                "milliseconds": round(1e3 * seconds, 3),
                "ns_per_pixel": round(1e9 * seconds / pixels, 2),
                "times_copy": round(seconds / limit, 1) if limit else None,
            }
        )
    return rows


def _stars(size: int, rng: np.random.Generator) -> Any:
    y, x = np.mgrid[:size, :size]
    image = np.zeros((size, size), np.float32)
    for cx, cy in rng.uniform(10, size - 10, (40, 2)):
        cut = np.s_[max(0, int(cy) - 15) : int(cy) + 16, max(0, int(cx) - 15) : int(cx) + 16]
        image[cut] += 5000 * (1 + ((x[cut] - cx) ** 2 + (y[cut] - cy) ** 2) / 6) ** -3.0
    return image


def tables(answer: dict[str, Any]) -> list[common.Table]:
    steps = [list(row.values()) for row in answer["steps"]]
    kernels = [list(row.values()) for row in answer["kernels"]]
    return [
        ("steps, processor seconds", tuple(answer["steps"][0]), steps),
        (f"kernels, {answer['size']} x {answer['size']}", tuple(answer["kernels"][0]), kernels),
    ]
