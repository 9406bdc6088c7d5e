"""What the calendar asks for: a backup, retention and a deep check every day, every ten minutes a look for
previews that somebody has deleted, and for nights whose report is due. It keeps no state.

Sweeps, quiet times and watchdog pings do not belong here: APScheduler sleeps on a difference of wall-clock
times, and stops for good when the clock steps back. They run on the monotonic clock of the main_loop.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger

from daemon import logs
from daemon.config.options import Config
from daemon.config.setting import setting_of
from daemon.ledger.store import Ledger, connect_readonly
from daemon.upkeep import backup, reports, retention
from daemon.upkeep.audit import audit, is_clean
from daemon.work import losses

DAY = 86400.0
SHOWN = 20  # of what a deep check finds, one log line each


def start(
    config: Config, ledger: Ledger, suspect: Callable[[str], None] = lambda path: None
) -> BackgroundScheduler:
    """The scheduler, running in a thread of its own; `shutdown(wait=False)` ends it.

    suspect : told the path of each product that the deep check finds not to be whole

    A job that is late runs when it can, one that is due several times runs once, never two of one kind.
    """
    defaults: Mapping[str, Any] = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
    scheduler = BackgroundScheduler(timezone=UTC, job_defaults=dict(defaults))
    for hour, name, job in (  # around noon in Hawaii
        (20, "backup", partial(back_up, config)),
        (21, "retention", partial(prune, config, ledger)),
        (22, "deep check", partial(deep_check, config, suspect)),
    ):
        scheduler.add_job(job, CronTrigger(hour=hour, timezone=UTC), id=name)
    redraw = partial(losses.draw_previews, config.database, suspect)
    scheduler.add_job(redraw, CronTrigger(minute="*/10", timezone=UTC), id="previews")
    kept = reports.Reports(config, setting_of(config), time.time)
    scheduler.add_job(kept.look, CronTrigger(minute="5-59/10", timezone=UTC), id="reports")
    if not any(copy.stat().st_mtime > time.time() - DAY for copy in backup.copies(config)):
        soon = datetime.now(UTC) + timedelta(minutes=10)  # after the busy minutes of a start
        scheduler.add_job(partial(back_up, config), DateTrigger(soon, timezone=UTC), id="first backup")
    scheduler.start()
    return scheduler


def back_up(config: Config) -> None:
    """Copy the database."""
    try:
        made = backup.nightly(config)
    except Exception:
        logs.get().exception("backup_failed")
        return
    logs.get().info("backup_done", file=str(made), bytes=made.stat().st_size)


def prune(config: Config, ledger: Ledger) -> None:
    """Remove superseded products that nobody needs any more."""
    try:
        count = retention.prune(ledger, config.retention)
    except Exception:
        logs.get().exception("retention_failed")
        return
    logs.get().info("retention_done", removed=count)


def deep_check(config: Config, suspect: Callable[[str], None] = lambda path: None) -> bool:
    """Hash every raw file and every product again, and log what is not as the ledger has it."""
    try:
        with contextlib.closing(connect_readonly(config.database)) as db:
            answer = audit(db, config.drop_folders, config.product_folder, deep=True)
    except Exception:
        logs.get().exception("deep_check_failed")
        return False
    for item in (answer["unaccounted"] + answer["products"]["broken"])[:SHOWN]:
        logs.get().warning("deep_check_found", **item)
    for item in answer["products"]["broken"]:
        suspect(item["path"])
    logs.get().info(
        "deep_check_done",
        files=answer["files"]["total"],
        unaccounted=len(answer["unaccounted"]),
        products=answer["products"]["total"],
        broken=len(answer["products"]["broken"]),
    )
    return is_clean(answer)
