"""What the calendar asks for: a deep check of everything, every day. Nothing is remembered in the scheduler.

Sweeps, quiet times and watchdog pings do not belong here: APScheduler sleeps on a difference of wall-clock
times, and stops for good when the clock steps back. They run on the monotonic clock of the heart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from daemon import logs
from daemon.audit import audit, is_clean
from daemon.config import Config
from daemon.ledger import connect_readonly

SHOWN = 20  # of what a deep check finds, one log line each


def start(config: Config) -> BackgroundScheduler:
    """The scheduler, running in a thread of its own; `shutdown(wait=False)` ends it.

    A job that is late runs when it can, one that is due several times runs once, never two of one kind.
    """
    defaults: Mapping[str, Any] = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
    scheduler = BackgroundScheduler(timezone=UTC, job_defaults=dict(defaults))
    scheduler.add_job(
        deep_check, CronTrigger(hour=22, timezone=UTC), args=[config], id="deep check"
    )  # noon in Hawaii
    scheduler.start()
    return scheduler


def deep_check(config: Config) -> bool:
    """Hash every raw file and every product again, and log what is not as the ledger has it."""
    try:
        with contextlib.closing(connect_readonly(config.database)) as db:
            answer = audit(db, config.drop_folders, config.product_folder, deep=True)
    except Exception:
        logs.get().exception("deep_check_failed")
        return False
    for item in (answer["unaccounted"] + answer["products"]["broken"])[:SHOWN]:
        logs.get().warning("deep_check_found", **item)
    logs.get().info(
        "deep_check_done",
        files=answer["files"]["total"],
        unaccounted=len(answer["unaccounted"]),
        products=answer["products"]["total"],
        broken=len(answer["products"]["broken"]),
    )
    return is_clean(answer)
