"""1, 10, 100 nights of 256 x 256 frames with seeds of their own: time, memory, database size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import common, floor

SMALL: dict[str, Any] = {"nights": (0,), "workers": 1}


def measure(
    data: Path, nights: tuple[int, ...] = (1, 10, 100), workers: int = common.WORKERS
) -> dict[str, Any]:
    """A night of 0 is one group of darks. `seconds_per_file` that does not grow is what is looked for."""
    common.compiled(data)
    rows = []
    for count in nights:
        with common.scratch() as work:
            drop = work / "drop"
            if count == 0:
                common.few_darks(drop)
            for number in range(count):
                common.link(common.night(data, "tiny", number), drop / f"{number:03d}")
            done = common.until_idle(drop, work, workers)
            files = common.raw_files(drop)
            limit = floor.of_night(files, work / "products")["seconds"]
            rows.append(
                {
                    "nights": count,
                    "files": len(files),
                    "products": len(done.when("job_done")),
                    "seconds": round(done.seconds, 2),
                    "cpu_seconds": round(done.cpu, 2),
                    "daemon_cpu_seconds": round(done.parent_cpu, 2),
                    "seconds_per_file": round(done.seconds / len(files), 4),
                    "times_floor": round(done.seconds / limit, 1),
                    "parent_mb": done.parent_mb,
                    "database_kb": (work / "state" / "nirid.db").stat().st_size // 1024,
                }
            )
    return {"scale": rows}


def tables(answer: dict[str, Any]) -> list[common.Table]:
    names = tuple(answer["scale"][0])
    return [("256 x 256 frames, 20 files a night", names, [list(row.values()) for row in answer["scale"]])]
