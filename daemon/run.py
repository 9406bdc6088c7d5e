"""The two ways to run: live, as a service that watches over its parts, or until nothing is left to do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from daemon import instance, limits, logs, owner, systemd
from daemon.app import Daemon, build, hinted
from daemon.config.options import Config
from daemon.signals import Signals
from pipeline.errors import ConfigError, NiridError

if TYPE_CHECKING:
    from daemon.ledger.batchwork import Work

LOOK_SECONDS = 10.0  # between two looks at the health of the parts
LOOK_AT_WORK = 0.3  # s between two looks at how far a batch run is
STALLED_SECONDS = 60.0  # without progress of the main_loop: no more pings, the service manager restarts us


class PartDied(NiridError):
    """A part of the daemon ended by a bug; the service manager starts all of it again."""


def serve(config: Config) -> None:
    """The daemon, until it is told to stop. Raises PartDied when a part ended by itself."""
    owner.check(config)
    with instance.only_one(config) as held, Signals() as signals:
        daemon = build(config, start_workers=True)
        daemon.on_death = signals.ring
        try:
            daemon.start()
            daemon.run_threads()
            with _calendar(daemon) as look, _figures(daemon):
                daemon.tell(ready=True, stalled="", watched=daemon.landing.watcher.modes.copy())
                systemd.notify("READY=1", _status(daemon))
                _watch_over(daemon, signals, held, look)
            systemd.notify("STOPPING=1", "STATUS=draining")
        finally:
            daemon.close()


@contextlib.contextmanager
def _calendar(daemon: Daemon) -> Iterator[Callable[[], None]]:
    """What the calendar asks for; a regular check that it still runs, as it stops for good
    when the clock steps back."""
    from daemon.upkeep import schedule

    scheduler = schedule.start(daemon.config, daemon.ledger, daemon.main_loop.dispatcher.suspect)
    try:
        yield scheduler.wakeup
    finally:
        scheduler.shutdown(wait=False)


def _figures(daemon: Daemon) -> contextlib.AbstractContextManager[None]:
    """STATE/metrics.prom, written while the daemon runs."""
    from daemon.upkeep import metrics

    def machine() -> metrics.Gauges:
        main_loop, watch = daemon.main_loop, daemon.main_loop.watch
        return metrics.of_machine(
            daemon.config,
            heart=time.time() - (time.monotonic() - main_loop.progress_at),
            modes=list(daemon.landing.watcher.modes.values()),
            paused=bool(main_loop.dispatcher.paused),
            missing=watch.open() if watch else {},
        )

    return metrics.Writer(daemon.config, daemon.ledger, machine).running()


def _watch_over(
    daemon: Daemon, signals: Signals, held: Callable[[], bool], look: Callable[[], None] = lambda: None
) -> None:
    """The main loop: pings the service manager only while the parts make progress."""
    watchdog = systemd.watchdog_seconds()
    pause = min(LOOK_SECONDS, watchdog / 4) if watchdog else LOOK_SECONDS
    while not signals.wait(pause):
        look()
        if daemon.died:
            raise PartDied(f"the {daemon.died[0]} has ended by a bug; the log has its traceback")
        if not held():
            raise PartDied(
                f"{daemon.config.state_folder} was removed or replaced: its database is not ours any more"
            )
        problem = _problem(daemon)
        ignored = daemon.landing.ignored
        daemon.tell(
            stalled=problem or _landing_problem(daemon),
            watched=daemon.landing.watcher.modes.copy(),
            links=ignored.get("symbolic link", 0),
            closed=daemon.landing.closed(),
        )
        if problem:
            logs.get().error("stalled", reason=problem)
            systemd.notify(f"STATUS=stalled: {problem}")
        else:
            instance.alive(daemon.config)
            systemd.notify("WATCHDOG=1", _status(daemon))


def _problem(daemon: Daemon) -> str:
    """Why the daemon is not well; "" when it is.

    The intake thread may hang with a network folder for any time: that is reported, but
    restarting would not help.
    """
    silent = time.monotonic() - daemon.main_loop.progress_at
    if silent > STALLED_SECONDS:
        return f"the main loop has made no progress for {silent:.0f} s"
    return ""


def _status(daemon: Daemon) -> str:
    from daemon.ledger import questions
    from daemon.ledger.store import LedgerBusy

    try:
        with daemon.ledger.read() as db:
            files, jobs = questions.counts(db)["files"], questions.job_counts(db)
    except LedgerBusy as error:
        return f"STATUS={error}"
    said = ", ".join(f"{n} {state}" for state, n in jobs.items()) or "none yet"
    text = f"{sum(files.values())} files; jobs: {said}"
    if daemon.main_loop.dispatcher.paused:
        text += f"; PAUSED: {daemon.main_loop.dispatcher.paused}"
    for folder in daemon.landing.watcher.missing():
        text += f"; THE DROP FOLDER {folder} IS MISSING"
    if problem := getattr(daemon.engine, "problem", ""):
        text += f"; WAITING: {problem}"
    if problem := _landing_problem(daemon):
        text += f"; {problem}"
    return f"STATUS={text}"


def _landing_problem(daemon: Daemon) -> str:
    hangs = time.monotonic() - daemon.landing.progress_at > STALLED_SECONDS
    return "a drop folder does not answer" if hangs else ""


class Shown(Protocol):
    """Who is told how far a batch run is."""

    def reading(self, done: int, total: int) -> None: ...
    def working(self, work: Work) -> None: ...


def batch(config: Config, *, unpack: bool = False, shown: Shown | None = None) -> dict[str, Any]:
    """Everything that is there, until nothing is left to do.

    unpack : tar files in the drop folders are unpacked first; shown : is told how far it is
    Answers {"failed": [...], "waiting": [...], "products": [...], "blocked": [...], "left_out": [...]}: jobs
    that failed in this run, all that wait, the products made in this run, in words, what the system has kept
    from being done, and the files that are in no product, by why.
    """
    from daemon.arrivals import unpacking
    from daemon.work import losses

    try:
        owner.check(config)
    except ConfigError as error:  # only in a batch run a folder that cannot be read is a failure: exit 1
        raise NiridError(str(error)) from None
    with instance.only_one(config), Signals() as signals:
        began = datetime.now(UTC)
        tars = unpacking.tar_files(config, unpack=unpack)
        with hinted(config):
            daemon = build(config, batch=True, start_workers=True)
        signals.also = daemon.stop.set  # no thread waits for it, so a signal handler may set it
        look = _look(daemon, shown, began.timestamp())
        try:
            with hinted(config):
                daemon.start()
                daemon.main_loop.until_idle(daemon.landing.take_all, daemon.stop, look)
            if signals.caught:
                raise NiridError("stopped before everything was done; run it again to go on")
            losses.draw_previews(config.database, daemon.main_loop.dispatcher.suspect)
            answer = _summary(daemon, began.isoformat(timespec="milliseconds"))
            answer["left_out"] += [vars(one) for one in tars.left_out]
            answer["blocked"] += tars.blocked
            return answer
        finally:
            daemon.close()


def _look(daemon: Daemon, shown: Shown | None, since: float) -> Callable[[], None]:
    """For `until_idle`: tells how far the work is, a few times in a second at most."""
    from daemon.ledger import batchwork

    if shown is None:
        return lambda: None
    daemon.landing.on_read = shown.reading
    last = [0.0]

    def look() -> None:
        now = time.monotonic()
        if now - last[0] >= LOOK_AT_WORK:
            last[0] = now
            with daemon.ledger.read() as db:
                shown.working(batchwork.work(db, since))

    return look


def _summary(daemon: Daemon, since: str) -> dict[str, Any]:
    from daemon.ledger import batchwork, questions

    blocked = [*daemon.landing.in_the_way(), *daemon.main_loop.dispatcher.left_undone()]
    with daemon.ledger.read() as db:
        return {
            "failed": [job for job in questions.jobs(db, ["failed"]) if (job["changed"] or "") >= since],
            "waiting": questions.jobs(db, ["waiting"]),
            "products": [p for p in questions.products(db) if (p["published"] or "") >= since],
            "blocked": [*blocked, *(limits.too_low(daemon.config) if blocked else ())],
            "left_out": [vars(one) for one in batchwork.left_out(db)],
        }
