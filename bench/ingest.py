"""Files per second from landed to registered."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench import archive, common, floor

SMALL: dict[str, Any] = {"preset": "", "burst": 20}


def measure(data: Path, preset: str = "example1", burst: int = 3000) -> dict[str, Any]:
    """Reading alone with 1 and 2 threads; then all: sweep, read, hash, describe, write into the ledger; then
    live, from the first rename of many small files at once to the last that is registered, less settling."""
    from daemon.arrivals.read import ingest

    with common.scratch() as work:
        if preset:
            drop = common.night(data, preset)
        else:
            common.few_darks(drop := work / "drop")
        files = common.raw_files(drop)
        limit = floor.floor(files, [])
        rows = []
        for threads in (1, 2):
            began = time.monotonic()
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda path: ingest(str(path), patience="batch"), files))
            rows.append(_row(f"read, {threads} threads", len(files), time.monotonic() - began, limit))
        rows.append(_row("landed to registered", len(files), registered(drop, work)[0], limit))
        seconds, landed = _burst(work / "live", burst)
        rows.append(_row(f"live, {burst} at once", burst, seconds, floor.floor(landed, [])))
    return {"files": len(files), "bytes": limit["bytes_read"], "floor": limit, "ways": rows}


def registered(drop: Path, work: Path) -> tuple[float, float]:
    """Sweep, read, hash and register all below `drop`, with a new database: wall and processor time, s."""
    from daemon import app, logs
    from daemon.config import load

    logs.configure("error", "json")
    folders = {"products.folder": work / "products", "state.folder": work / "state"}
    given = {"watch.folders": [str(drop)], **{name: str(path) for name, path in folders.items()}}
    (work / "state").mkdir(parents=True)
    daemon = app.build(load.load(None, given), batch=True)
    try:
        daemon.landing.start()
        began, busy = time.monotonic(), time.process_time()
        daemon.landing.take_all()
        return time.monotonic() - began, time.process_time() - busy
    finally:
        daemon.close()


def _burst(work: Path, files: int) -> tuple[float, list[Path]]:
    (work / "drop").mkdir(parents=True)
    nights = [archive.write_night(work / "nights", k) for k in range(files // archive.A_NIGHT)]
    with archive.daemon_here(work, work / "state") as daemon:
        daemon.run_threads()
        began = time.monotonic()
        for path in (path for night in nights for path in night):
            part = work / "drop" / f".{path.name}.part"
            part.write_bytes(path.read_bytes())
            part.rename(work / "drop" / path.name)
        until = began + archive.PATIENCE
        while _count(daemon.ledger) < files:
            if time.monotonic() > until:
                raise SystemExit("the daemon does not take in what landed")
            time.sleep(0.02)
        taken = time.monotonic() - began - daemon.landing.tracker.fast
    return taken, common.raw_files(work / "drop")


def _count(ledger: Any) -> int:
    with ledger.read() as db:
        return int(db.execute("SELECT COUNT(*) FROM content").fetchone()[0])


def _row(way: str, files: int, seconds: float, limit: dict[str, Any]) -> dict[str, Any]:
    return {
        "way": way,
        "seconds": round(seconds, 4),
        "files_per_second": round(files / seconds, 1),
        "mb_per_second": round(limit["bytes_read"] / seconds / 1e6, 1),
        "times_floor": round(seconds / limit["seconds"], 2),
    }


def tables(answer: dict[str, Any]) -> list[common.Table]:
    names = ("way", "seconds", "files_per_second", "mb_per_second", "times_floor")
    title = f"{answer['files']} files, {answer['bytes'] / 1e6:.0f} MB"
    return [(title, names, [[way[name] for name in names] for way in answer["ways"]])]
