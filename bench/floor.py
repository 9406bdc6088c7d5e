"""The limit: read and hash the same files, touch each pixel once, write and flush the same products.

Nothing else is done: no header is understood, nothing is calibrated, and the workers need no start. In as
many threads as there are workers (reading, hashing and numpy let the others go on).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench import common

SMALL: dict[str, Any] = {"preset": "tiny"}


def measure(data: Path, preset: str = "example1") -> dict[str, Any]:
    """The floor of a night whose products are as large as those of the night bench."""
    from pipeline.simulate.presets import PRESETS

    files = common.raw_files(common.night(data, preset))
    side = max(run.shot.shape[0] for run in PRESETS[preset].runs)
    noise = np.random.default_rng(1).integers(0, 255, side * side, np.uint8).tobytes()
    # A dark, a flat, a mask and two stacks: planes of 4 + 4 + 2 bytes a pixel, and a picture for each.
    products = [noise * 10] * 3 + [noise * 12] * 2 + [noise] * 5
    return floor(files, products)


def of_night(files: Sequence[Path], products: Path) -> dict[str, Any]:
    """The floor of what a run has read and written."""
    written = [path for path in sorted(products.rglob("*")) if path.suffix in (".fits", ".png")]
    return floor(files, [path.read_bytes() for path in written])


def floor(files: Sequence[Path], products: Sequence[bytes], threads: int | None = None) -> dict[str, Any]:
    """Seconds of wall time for each part and in all, and the bytes."""
    threads = threads or common.processors()
    for path in files:  # into the page cache, as after landing
        path.read_bytes()
    with common.scratch() as folder, ThreadPoolExecutor(threads) as pool:
        read = _timed(pool, _read_and_touch, files)
        write = _timed(pool, _write, [(folder / str(i), piece) for i, piece in enumerate(products)])
    return {
        "files": len(files),
        "bytes_read": sum(path.stat().st_size for path in files),
        "bytes_written": sum(map(len, products)),
        "threads": threads,
        "read_hash_touch_seconds": read,
        "write_hash_flush_seconds": write,
        "seconds": round(read + write, 4),
    }


def _timed(pool: ThreadPoolExecutor, work: Callable[[Any], Any], things: Iterable[Any]) -> float:
    began = time.monotonic()
    for _ in pool.map(work, things):
        pass
    return round(time.monotonic() - began, 4)


def _read_and_touch(path: Path) -> float:
    data = path.read_bytes()
    hashlib.sha256(data).digest()
    pixels = np.frombuffer(data, ">f4", count=(len(data) - 2880 * 2) // 4, offset=2880)
    with np.errstate(invalid="ignore", over="ignore"):
        return float(pixels.astype(np.float32).sum())


def _write(item: tuple[Path, bytes]) -> str:
    path, data = item
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    return hashlib.sha256(data).hexdigest()


def tables(answer: dict[str, Any]) -> list[common.Table]:
    rows = [
        ("read, hash, touch", answer["bytes_read"] / 1e6, answer["read_hash_touch_seconds"]),
        ("write, hash, flush", answer["bytes_written"] / 1e6, answer["write_hash_flush_seconds"]),
        ("all", (answer["bytes_read"] + answer["bytes_written"]) / 1e6, answer["seconds"]),
    ]
    title = f"{answer['files']} files, {answer['threads']} threads"
    return [(title, ("floor", "MB", "seconds"), rows)]
