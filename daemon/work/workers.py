"""The workers that the configuration asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from daemon.config.options import Config
from daemon.engine import Engine, compiled
from daemon.engine.limits import Limits
from daemon.engine.local import LocalEngine


def engine_of(
    config: Config, *, batch: bool = False, on_change: Callable[[str], None] = lambda problem: None
) -> Engine:
    """The workers, not started. on_change : told why no job can be done, and "" when it can again"""
    engine, log = config.engine, asdict(config.log)
    each = Limits(engine.job_seconds, engine.memory_mb, engine.jobs_per_worker)
    if engine.kind == "local":
        compiled.settle(config.cache_folder)
        shared = {"cache": str(config.cache_folder)}
        most = 3 if batch else None
        return LocalEngine(
            engine.workers, each, log=log, shared=shared, most_failed_starts=most, on_change=on_change
        )
    from daemon.engine.dask import DaskEngine, greeting
    from daemon.engine.link import Link

    folders = [str(folder) for folder in (*config.drop_folders, config.product_folder)]
    link = Link(engine.scheduler, greeting(each, log, folders), engine.tls)
    return DaskEngine(link, each, on_change=on_change, batch=batch)
