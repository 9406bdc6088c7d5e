"""The composition root: builds every part of the daemon, starts them, watches over them, stops them.

    serve(config)        # the service: until SIGTERM or SIGINT
    batch(config)        # --until-idle: what is there, as though every wait had passed

Threads: main (signals, health, systemd), heart (plan, dispatch, publish), landing (sweep, settle) with a
small pool that reads files, the ledger's writer, the calendar. Signal handlers only set a flag.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import instance, logs, owner, systemd  # little: the workers start before the rest is imported
from daemon.config import Config
from daemon.engine import Engine, compiled
from daemon.engine.local import STOP_SECONDS, Limits, LocalEngine
from pipeline.errors import NiridError

if TYPE_CHECKING:
    from daemon.heart import Heart
    from daemon.landing import Landing
    from daemon.ledger import Ledger
    from daemon.looks import Looks
    from daemon.planner import Setting

LOOK_SECONDS = 10.0  # between two looks at the health of the parts
REBUILD_SECONDS = 3600  # that the service manager is asked to wait for it
STALLED_SECONDS = 60.0  # without progress of the heart: no more pings, the service manager restarts us
_LEVELS = {
    "job_failed": "error",
    "look_failed": "warning",
    "job_interrupted": "warning",
    "publish_delayed": "warning",
    "product_lost": "warning",
    "file_rejected": "warning",
    "file_blocked": "warning",
    "folder_suspect": "warning",
    "ledger_busy": "warning",
    "work_paused": "error",
    "request_refused": "warning",
    "requests_delayed": "warning",
}


class PartDied(NiridError):
    """A part of the daemon ended by a bug; the service manager starts all of it again."""


@dataclass
class Daemon:
    """Every part, wired together."""

    config: Config
    ledger: Ledger
    engine: Engine
    heart: Heart
    landing: Landing
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    on_death: Callable[[], None] = lambda: None
    tell: Callable[..., None] = lambda **more: None  # what others may know of it, see `instance.running`

    def start(self) -> None:
        """Workers begin to warm up; what a crash left is finished; folders are armed, then listed."""
        from daemon import retention

        self.engine.start()
        recovered = self.heart.recover(self.config.product_folder)
        with contextlib.suppress(OSError):  # the next run of retention goes on
            retention.finish(self.ledger)
        if self.heart.looks is not None:
            with contextlib.suppress(OSError):  # a folder that cannot be read now: at another start
                self.heart.looks.tidy(self.ledger)
        found = self.landing.start()
        self._take_back()
        logs.get().info(
            "started",
            pid=os.getpid(),
            folders=[str(folder) for folder in self.config.drop_folders],
            watched=self.landing.watcher.modes,
            products=str(self.config.product_folder),
            new_files=len(found.candidates),
            recovered_jobs=recovered,
        )

    def _take_back(self) -> None:
        """Products and decisions that the ledger does not know: it is new, or older than they are."""
        from daemon import rebuild

        strange, lines = rebuild.unknown(self.ledger, self.config.product_folder)
        if not strange and not lines:
            return
        logs.get().warning("rebuilding", products=len(strange), decisions=len(lines))
        said = f"STATUS=taking {len(strange)} products into the database again; nothing is reduced for it"
        systemd.notify(said, f"EXTEND_TIMEOUT_USEC={REBUILD_SECONDS * 1_000_000}")
        heart = self.heart
        answer = rebuild.take_back(self.ledger, self.landing, heart.setting, heart.overrides)
        for item in answer.pop("left"):
            logs.get().warning("product_not_adopted", **item)
        logs.get().info("rebuilt", **answer)

    def run_threads(self) -> None:
        for name, target in (("heart", self.heart.run), ("landing", self.landing.run)):
            thread = threading.Thread(target=self._guarded, args=(name, target), name=name, daemon=True)
            thread.start()
            self.threads.append(thread)

    def _guarded(self, name: str, target: Callable[[threading.Event], None]) -> None:
        try:
            target(self.stop)
        except Exception:
            logs.get().exception("part_died", part=name)
            self.died.append(name)
            self.on_death()

    def close(self) -> None:
        """Drain: nothing new is begun, running jobs are asked to stop and go back to planned."""
        self.stop.set()
        self.heart.wake()
        self.landing.call()
        for thread in self.threads:
            # A thread that hangs with a network folder ends with the process.
            thread.join(timeout=STOP_SECONDS)
        self.heart.dispatcher.stop(STOP_SECONDS)
        self.landing.stop()
        self.heart.close()
        self.ledger.close()
        logs.get().info("stopped")


def engine_of(
    config: Config, *, hurry: bool = False, on_change: Callable[[str], None] = lambda problem: None
) -> Engine:
    """The workers, not started. on_change : told why no job can be done, and "" when it can again"""
    engine, log = config.engine, asdict(config.log)
    limits = Limits(engine.job_seconds, engine.memory_mb, engine.jobs_per_worker)
    if engine.kind == "local":
        compiled.settle(config.cache_folder)
        shared = {"cache": str(config.cache_folder)}
        most = 3 if hurry else None
        return LocalEngine(
            engine.workers, limits, log=log, shared=shared, most_failed_starts=most, on_change=on_change
        )
    from daemon.engine.dask import DaskEngine, greeting
    from daemon.engine.link import Link

    folders = [str(folder) for folder in (*config.drop_folders, config.product_folder)]
    link = Link(engine.scheduler, greeting(limits, log, folders), engine.tls)
    return DaskEngine(link, limits, on_change=on_change, hurry=hurry)


def build(config: Config, *, hurry: bool = False, start_workers: bool = False) -> Daemon:
    """All parts, nothing started but the ledger's writer. NiridError without a drop folder, if in a hurry.

    A drop folder is never made: what is not there may be a mount that is missing, or a mistyped name.
    start_workers : also the workers, which need a second, and get it while the other parts are imported
    """
    from daemon import schema

    schema.check(config.database)  # before anything is begun: a newer one stays as it is
    missing = [folder for folder in config.drop_folders if not folder.is_dir()]
    if missing and hurry:  # a service waits for the mount; here nothing would be found, and called done
        raise NiridError(f"{missing[0]}: no such folder")
    config.product_folder.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {}

    def tell(**more: Any) -> None:
        if any(told.get(name) != value for name, value in more.items()):
            told.update(more)
            instance.tell(config, **told)

    engine = engine_of(config, hurry=hurry, on_change=lambda problem: tell(engine=problem))
    if start_workers:
        engine.start()
    from daemon.ledger import Ledger, damaged

    whole = ThreadPoolExecutor(1)
    # Half a second for 100,000 files; meanwhile more is imported.
    why_not = whole.submit(damaged, config.database)
    from daemon import diskguard
    from daemon.dispatch import Dispatcher
    from daemon.heart import Heart, setting_of
    from daemon.landing import Landing
    from daemon.requests import Requests
    from daemon.requests import folder as folder_of_requests
    from daemon.stability import Tracker
    from daemon.watcher import Watcher

    _put_aside_if_damaged(config, why_not.result())
    whole.shutdown()
    ledger = Ledger(config.database, log=_log)
    folder_of_requests(config.state_folder)  # who is in the group of the state folder may put decisions there
    setting = setting_of(config, hurry=hurry)
    heart = Heart(
        ledger,
        Dispatcher(
            ledger,
            engine,
            hurry=hurry,
            policy=config.planning,
            setting=setting,
            guard=diskguard.of(config, writes=True),
            on_pause=lambda why: tell(paused=why),
            looks=_looks_of(config, setting),
        ),
        setting,
        config.parameters,
        log=_log,
        requests=Requests(ledger, setting, config.parameters, config.state_folder, config.product_folder),
    )
    watch = config.watch
    watcher = Watcher(
        [str(folder) for folder in config.drop_folders],
        observer=watch.observer,
        wake=lambda: landing.call(),
        poll_seconds=watch.poll_seconds,
    )
    landing = Landing(
        ledger,
        watcher,
        Tracker(watch.settle_seconds, watch.fast_settle_seconds, watch.grace_seconds),
        setting,
        wake=heart.wake,
        sweep_seconds=watch.sweep_seconds,
        log=_log,
    )
    return Daemon(config, ledger, engine, heart, landing, tell=tell)


def _looks_of(config: Config, setting: Setting) -> Looks:
    from daemon.looks import Looks

    chosen = config.looks
    return Looks(config.product_folder, setting, _log, chosen.first_looks, chosen.running_stacks)


def _put_aside_if_damaged(config: Config, why: str) -> None:
    """A damaged database is not worked on: it is kept under another name, and made anew from disk."""
    if why:
        from daemon import rebuild

        aside = rebuild.put_aside(config.database, datetime.now(UTC))
        logs.get().error("database_damaged", reason=why, kept=str(aside))


def rebuild_offline(config: Config) -> dict[str, Any]:
    """The database made anew of what is on disk, without reducing anything; what was there is kept aside.

    Answers {"kept", "products", "decisions", "files", "left", "audit"}.
    """
    from daemon import rebuild

    with owner.acting(config):
        return offline(config, lambda: rebuild.put_aside_if_there(config.database))


def offline(config: Config, prepare: Callable[[], Path | None]) -> dict[str, Any]:
    """With no daemon running: take into the database what it does not know of what is on disk.

    prepare : puts the database in its place; returns where what was there is kept now
    Answers as `rebuild_offline`. Raises AlreadyRunning.
    """
    from daemon import audit, rebuild

    with instance.only_one(config):
        kept = prepare()
        daemon = build(config, hurry=True)
        try:
            daemon.landing.start()
            how = (daemon.heart.setting, daemon.heart.overrides)
            answer = rebuild.take_back(daemon.ledger, daemon.landing, *how)
            with daemon.ledger.read() as db:
                found = audit.audit(db, config.drop_folders, config.product_folder)
        except (OSError, NiridError) as error:
            there = f" (what was there is {kept})" if kept else ""
            raise NiridError(
                f"{config.database} is in its place{there}, but does not know all yet: {error}; "
                "the next start of the daemon goes on with it"
            ) from None
        finally:
            daemon.close()
    return {"kept": str(kept) if kept else None, **answer, "audit": found}


def _log(event: str, **fields: Any) -> None:
    getattr(logs.get(), _LEVELS.get(event, "info"))(event, **fields)


def serve(config: Config) -> None:
    """The daemon, until it is told to stop. Raises PartDied when a part ended by itself."""
    owner.check(config)
    with instance.only_one(config) as held, Signals() as signals:
        daemon = build(config, start_workers=True)
        daemon.on_death = signals.ring
        try:
            daemon.start()
            daemon.run_threads()
            with _calendar(daemon) as look:
                daemon.tell(ready=True, stalled="", watched=daemon.landing.watcher.modes.copy())
                systemd.notify("READY=1", _status(daemon))
                _watch_over(daemon, signals, held, look)
            systemd.notify("STOPPING=1", "STATUS=draining")
        finally:
            daemon.close()


@contextlib.contextmanager
def _calendar(daemon: Daemon) -> Iterator[Callable[[], None]]:
    """What the calendar asks for; the look at it that is to be taken now and then, as it stops for good
    when the clock steps back."""
    from daemon import schedule

    scheduler = schedule.start(daemon.config, daemon.ledger, daemon.heart.dispatcher.suspect)
    try:
        yield scheduler.wakeup
    finally:
        scheduler.shutdown(wait=False)


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
        )
        if problem:
            logs.get().error("stalled", reason=problem)
            systemd.notify(f"STATUS=stalled: {problem}")
        else:
            instance.alive(daemon.config)
            systemd.notify("WATCHDOG=1", _status(daemon))


def _problem(daemon: Daemon) -> str:
    """Why the daemon is not well; "" when it is.

    The landing thread may hang with a network folder for as long as it likes: that is said, but
    restarting would not help.
    """
    if time.monotonic() - daemon.heart.progress_at > STALLED_SECONDS:
        return f"the heart has made no progress for {time.monotonic() - daemon.heart.progress_at:.0f} s"
    return ""


def _status(daemon: Daemon) -> str:
    from daemon import queries
    from daemon.ledger import LedgerBusy

    try:
        with daemon.ledger.read() as db:
            files, jobs = queries.counts(db)["files"], queries.job_counts(db)
    except LedgerBusy as error:
        return f"STATUS={error}"
    said = ", ".join(f"{n} {state}" for state, n in jobs.items()) or "none yet"
    text = f"{sum(files.values())} files; jobs: {said}"
    if daemon.heart.dispatcher.paused:
        text += f"; PAUSED: {daemon.heart.dispatcher.paused}"
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


def batch(config: Config) -> dict[str, Any]:
    """Everything that is there, until nothing is left to do.

    Answers {"failed": [...], "waiting": [...], "products": [...], "blocked": [...]}: jobs that failed in this
    run, all that wait, the products made in this run, and, in words, what the system has kept from being
    done.
    """
    from daemon import losses

    owner.check(config)
    with instance.only_one(config), Signals() as signals:
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        daemon = build(config, hurry=True, start_workers=True)
        signals.also = daemon.stop.set  # nobody waits for it, so that a handler may set it
        try:
            daemon.start()
            daemon.heart.until_idle(daemon.landing.take_all, daemon.stop)
            if signals.caught:
                raise NiridError("stopped before everything was done; run it again to go on")
            losses.draw_previews(config.database, daemon.heart.dispatcher.suspect)
            return _summary(daemon, began)
        finally:
            daemon.close()


def _summary(daemon: Daemon, since: str) -> dict[str, Any]:
    from daemon import queries

    with daemon.ledger.read() as db:
        return {
            "failed": [job for job in queries.jobs(db, ["failed"]) if (job["changed"] or "") >= since],
            "waiting": queries.jobs(db, ["waiting"]),
            "products": [p for p in queries.products(db) if (p["published"] or "") >= since],
            "blocked": [*daemon.landing.in_the_way(), *daemon.heart.dispatcher.left_undone()],
        }


class Signals:
    """SIGTERM and SIGINT as a flag that can be waited for; SIGHUP is taken and changes nothing.

    A threading.Event may not be set in a handler of the thread that waits for it (its lock may be
    held), so the handler writes to a pipe.
    """

    also: Callable[[], None] | None = None

    def __enter__(self) -> Signals:
        self.caught = False
        self._ear, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {
            number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)
        }
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda number, frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._ear)
        os.close(self._bell)

    def _handle(self, number: int, frame: object) -> None:
        self.caught = True
        self.ring()
        if self.also is not None:
            self.also()

    def ring(self) -> None:
        """End the present wait. From any thread, or a handler."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._bell, b"!")

    def wait(self, seconds: float) -> bool:
        """Wait so many seconds, or until something rings; True when a signal has come."""
        if not self.caught:
            select.select([self._ear], [], [], seconds)
            with contextlib.suppress(BlockingIOError):
                os.read(self._ear, 1024)
        return self.caught
