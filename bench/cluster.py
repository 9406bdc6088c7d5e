"""Several nights by engine and number of workers; what the daemon itself pays for a file and for a job."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import common
from bench.ingest import registered
from daemon.model.files import FileRecord
from tests import night as world
from tests.cluster import Cluster

SMALL: dict[str, Any] = {"preset": "", "nights": 1, "workers": (1,), "groups": 2, "backlog": (1,)}


def measure(
    data: Path,
    preset: str = "example1",
    nights: int = 3,
    workers: tuple[int, ...] = (1, 2),
    groups: int = 100,
    backlog: tuple[int, ...] = (1, 10, 40),
) -> dict[str, Any]:
    """preset : "" for one group of small darks

    runs : of so many nights with so many workers of each engine; cpu_seconds : of the workers; occupancy :
        the part of the time between first claim and last product in which a worker had a job, which says how
        well more workers would be used however busy the machine is
    daemon : processor time of the daemon itself, ms; groups : of 3 small darks, so many, which cost the
        workers next to nothing
    backlog : the tutorial's night so many times, three days apart, 55 frames and 5 jobs each, and workers
        that take no time: what the daemon needs for a job as the archive that it begins with grows
    """
    common.compiled(data)
    runs = []
    with common.scratch() as work:
        drop = work / "drop"
        if not preset:
            common.few_darks(drop)
        for number in range(nights if preset else 0):
            common.link(common.night(data, preset, number), drop / f"{number:03d}")
        for engine in ("local", "dask"):
            for count in workers:
                runs.append(_run(engine, count, drop, work / f"{engine}-{count}"))
        first = work / f"local-{workers[0]}"
        made = [p.stat().st_size for p in (first / "products").rglob("*") if p.is_file()]
        files = common.raw_files(drop)
        night = {
            "files": len(files),
            "bytes_read": sum(path.stat().st_size for path in files),
            "products": runs[0]["jobs"],
            "bytes_written": sum(made),
        }
        daemon = _daemon(drop, groups, work)
    return {
        "preset": preset,
        "nights": nights,
        **night,
        "runs": runs,
        "daemon": daemon,
        "backlog": [_alone(n) for n in backlog],
    }


def _run(engine: str, workers: int, drop: Path, work: Path) -> dict[str, Any]:
    with _engine(engine, workers, work) as (options, cluster):
        before = _of_cluster(cluster)
        done = common.until_idle(drop, work, workers, options)
        away = _of_cluster(cluster) - before
    at_work = sum(event["seconds"] for event in done.events if event["event"] == "job_done")
    return {
        "engine": engine,
        "workers": workers,
        "seconds": round(done.seconds, 2),
        "warm_seconds": round(done.warm, 2),
        "occupancy": round(at_work / (workers * done.warm), 2),
        "cpu_seconds": round(away if cluster else done.cpu - done.parent_cpu, 2),
        "daemon_cpu_seconds": round(done.parent_cpu, 2),
        "parent_mb": done.parent_mb,
        "jobs": len(done.when("job_done")),
    }


@contextlib.contextmanager
def _engine(engine: str, workers: int, work: Path) -> Iterator[tuple[list[str], Cluster | None]]:
    if engine == "local":
        yield [], None
        return
    cluster = Cluster(work / "cluster", workers)
    config = work / "nirid.toml"
    config.write_text(f'[engine]\nkind = "dask"\nscheduler = "{cluster.address}"\n', encoding="utf-8")
    try:
        yield ["--config", str(config)], cluster
    finally:
        cluster.close()


def _of_cluster(cluster: Cluster | None) -> float:
    """Processor time of all its processes, s, those that have ended and been waited for included."""
    import psutil  # Dask brings it

    total = 0.0
    for process in cluster.processes if cluster else []:
        parent = psutil.Process(process.pid)
        for one in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total


def _daemon(large: Path, groups: int, work: Path) -> dict[str, Any]:
    """What the daemon pays, ms of processor time: for a large file, for a small one, for a job."""
    drop, one = work / "darks", work / "one"
    common.few_darks(one)
    small = common.many_darks(drop, groups)
    runs = [common.until_idle(folder, folder.with_suffix(".work")) for folder in (one, drop)]
    more_jobs, more_files = groups - 1, len(small) - 3
    of_large = 1000 * registered(large, work / "large")[1] / len(common.raw_files(large))
    of_small = 1000 * registered(drop, work / "small")[1] / len(small)
    for_jobs = 1000 * (runs[1].parent_cpu - runs[0].parent_cpu) - more_files * of_small
    sizes = [(folder.with_suffix(".work") / "state" / "nirid.db").stat().st_size for folder in (one, drop)]
    return {
        "jobs": groups,
        "start_ms": round(1000 * runs[0].parent_cpu),
        "large_file_ms": round(of_large, 2),
        "small_file_ms": round(of_small, 2),
        "job_ms": round(for_jobs / more_jobs, 1),
        "jobs_per_second": round(groups / runs[1].warm, 1),
        "database_bytes_per_group": (sizes[1] - sizes[0]) // more_jobs,
        "parent_mb": runs[1].parent_mb,
    }


def _alone(nights: int) -> dict[str, Any]:
    """A backlog without pixels: file records, and an engine that answers at once."""
    with common.scratch() as work:
        daemon = world.Daemon(work, world.FakeEngine())
        records = [_later(record, number) for number in range(nights) for record in world.example1()]
        began = time.process_time()
        daemon.land(*records)
        landed, wall = time.process_time(), time.monotonic()
        daemon.until_idle()
        jobs, busy = len(daemon.engine.ran), time.process_time() - landed
        wall = time.monotonic() - wall
        daemon.close()
        size = (work / "nirid.db").stat().st_size
    return {
        "nights": nights,
        "jobs": jobs,
        "record_ms": round(1000 * (landed - began) / len(records), 2),
        "job_ms": round(1000 * busy / jobs, 1),
        "jobs_per_second": round(jobs / wall, 1),
        "database_bytes_per_frame": size // len(records),
    }


def _later(record: FileRecord, number: int) -> FileRecord:
    """The same frame of another night."""
    old = record.descriptors
    assert old is not None
    assert old.ut_datetime is not None
    assert old.ut_end is not None
    shift = number * common.NIGHT_STEP
    descriptors = replace(
        old,
        ut_datetime=old.ut_datetime + shift,
        ut_end=old.ut_end + shift,
        data_label=f"{old.data_label}-{number}",
    )
    name = f"N{old.ut_datetime + shift:%Y%m%d}{Path(record.path).name[9:]}"
    return replace(
        record,
        path=f"/drop/{number}/{name}",
        descriptors=descriptors,
        data_label=descriptors.data_label,
        file_sha=world.sha(f"file {number} {record.path}"),
        data_sha=world.sha(f"data {number} {record.path}"),
        facts=world.sha(f"facts {number} {record.path}"),
    )


def tables(answer: dict[str, Any]) -> list[common.Table]:
    names = ("engine", "workers", "seconds", "warm_seconds", "occupancy", "cpu_seconds", "daemon_cpu_seconds",
             "parent_mb")  # fmt: skip
    title = f"{answer['nights']} nights of {answer['preset'] or 'darks'}, {answer['files']} files"
    runs = [[run[name] for name in names] for run in answer["runs"]]
    return [
        (title, names, runs),
        ("the daemon alone", ("what", ""), list(answer["daemon"].items())),
        (
            "a backlog without pixels",
            tuple(answer["backlog"][0]),
            [list(r.values()) for r in answer["backlog"]],
        ),
    ]
