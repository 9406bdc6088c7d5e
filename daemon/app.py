"""The composition root: builds every part of the daemon, starts them, checks on them, stops them.

    serve(config)        # the service: until SIGTERM or SIGINT
    batch(config)        # --until-idle: what is there, as though every wait had passed

Threads: main (signals, health, systemd), main loop (plan, dispatch, publish), landing (sweep, settle) with a
small pool that reads files, the ledger's writer, the calendar. Signal handlers only set a flag.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import instance, limits, logs, owner, systemd
from daemon.config.options import Config
from daemon.engine import Engine
from daemon.engine.local import STOP_SECONDS
from daemon.work.workers import engine_of
from pipeline.errors import NiridError

if TYPE_CHECKING:
    from daemon.arrivals.intake import Landing
    from daemon.ledger.store import Ledger
    from daemon.loop import MainLoop
    from daemon.model.groups import Setting
    from daemon.work.dispatch import Dispatcher
    from daemon.work.previews import Looks

REBUILD_SECONDS = 3600  # that the service manager is asked to wait for it
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


@dataclass
class Daemon:
    """Every part, wired together."""

    config: Config
    ledger: Ledger
    engine: Engine
    main_loop: MainLoop
    landing: Landing
    stop: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    died: list[str] = field(default_factory=list)
    on_death: Callable[[], None] = lambda: None
    tell: Callable[..., None] = lambda **more: None  # what others may know of it, see `instance.running`

    def start(self) -> None:
        """Workers begin to warm up; what a crash left is finished; folders are armed, then listed."""
        from daemon.ledger import nightly
        from daemon.upkeep import retention

        self.engine.start()
        recovered = self.main_loop.recover(self.config.product_folder)
        with contextlib.suppress(OSError):  # the next run of retention goes on
            retention.finish(self.ledger)
        if self.main_loop.looks is not None:
            with contextlib.suppress(OSError):  # a folder cannot be read now: the next start tries again
                self.main_loop.looks.tidy(self.ledger)
        found = self.landing.start()
        self._take_back()
        with contextlib.suppress(OSError):  # busy: the report of a night will not know of this start
            self.ledger.write(nightly.note_start)
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
        from daemon.upkeep import rebuild

        strange, lines = rebuild.unknown(self.ledger, self.config.product_folder)
        if not strange and not lines:
            return
        logs.get().warning("rebuilding", products=len(strange), decisions=len(lines))
        said = f"STATUS=taking {len(strange)} products into the database again; nothing is reduced for it"
        systemd.notify(said, f"EXTEND_TIMEOUT_USEC={REBUILD_SECONDS * 1_000_000}")
        main_loop = self.main_loop
        answer = rebuild.take_back(self.ledger, self.landing, main_loop.setting, main_loop.overrides)
        for item in answer.pop("left"):
            logs.get().warning("product_not_adopted", **item)
        logs.get().info("rebuilt", **answer)

    def run_threads(self) -> None:
        for name, target in (("main loop", self.main_loop.run), ("landing", self.landing.run)):
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
        from daemon.ledger import nightly

        self.stop.set()
        self.main_loop.wake()
        self.landing.call()
        for thread in self.threads:
            # A thread that hangs with a network folder ends with the process.
            thread.join(timeout=STOP_SECONDS)
        self.main_loop.dispatcher.stop(STOP_SECONDS)
        self.landing.stop()
        self.main_loop.close()
        with contextlib.suppress(OSError):  # busy: will look as if it had ended by accident
            self.ledger.write(nightly.note_stop)
        self.ledger.close()
        logs.get().info("stopped")


def build(config: Config, *, batch: bool = False, start_workers: bool = False) -> Daemon:
    """All parts, nothing started but the ledger's writer. Raises NiridError when a batch run has no drop
    folder.

    A drop folder is never made: what is not there may be a mount that is missing, or a mistyped name.
    start_workers : also the workers, which need a second, and get it while the other parts are imported
    """
    from daemon.ledger import upgrade

    upgrade.check(config.database)  # before anything is begun: a newer one stays as it is
    missing = [folder for folder in config.drop_folders if not folder.is_dir()]
    if missing and batch:  # a service waits for the mount; a batch run would find nothing and report success
        raise NiridError(f"{missing[0]}: no such folder")
    limits.make_room_for(limits.files_for(config))
    config.product_folder.mkdir(parents=True, exist_ok=True)
    for low in limits.too_low(config):
        logs.get().warning("limit_is_low", why=low)
    told: dict[str, Any] = {}

    def tell(**more: Any) -> None:
        if any(told.get(name) != value for name, value in more.items()):
            told.update(more)
            instance.tell(config, **told)

    engine = engine_of(config, batch=batch, on_change=lambda problem: tell(engine=problem))
    if start_workers:
        engine.start()
    return _the_rest(config, engine, tell, batch=batch)


def _the_rest(config: Config, engine: Engine, tell: Callable[..., None], *, batch: bool) -> Daemon:
    """All parts but the workers, which start meanwhile: that these are imported here, and not above, saves
    half a second of every start."""
    from daemon.ledger.cells import damaged
    from daemon.ledger.store import Ledger

    # Looking through the database takes half a second for 100,000 files; meanwhile more is imported.
    with ThreadPoolExecutor(1) as beside:
        why_not = beside.submit(damaged, config.database)
        from daemon.arrivals.intake import Landing
        from daemon.arrivals.settle import Tracker
        from daemon.arrivals.watcher import Watcher
        from daemon.config.setting import setting_of
        from daemon.loop import MainLoop
        from daemon.people.missing import Watch
        from daemon.people.requests import Requests
        from daemon.people.requests import folder as folder_of_requests

        _put_aside_if_damaged(config, why_not.result())
    ledger = Ledger(config.database, log=_log)
    folder_of_requests(config.state_folder)  # who is in the group of the state folder may put decisions there
    setting = setting_of(config, batch=batch)
    requests = Requests(ledger, setting, config.parameters, config.state_folder, config.product_folder)
    dispatcher = _dispatcher(config, ledger, engine, setting, tell, batch=batch)
    needs = Watch(ledger, setting.rules, time.time, setting.policy.breakpoints)
    main_loop = MainLoop(
        ledger, dispatcher, setting, config.parameters, log=_log, requests=requests, watch=needs
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
        wake=main_loop.wake,
        sweep_seconds=watch.sweep_seconds,
        log=_log,
    )
    return Daemon(config, ledger, engine, main_loop, landing, tell=tell)


def _dispatcher(
    config: Config,
    ledger: Ledger,
    engine: Engine,
    setting: Setting,
    tell: Callable[..., None],
    *,
    batch: bool,
) -> Dispatcher:
    from daemon.work import diskguard
    from daemon.work.dispatch import Dispatcher

    return Dispatcher(
        ledger,
        engine,
        batch=batch,
        policy=config.policy,
        setting=setting,
        guard=diskguard.of(config, writes=True),
        on_pause=lambda why: tell(paused=why),
        looks=_looks_of(config, setting),
    )


def _looks_of(config: Config, setting: Setting) -> Looks:
    from daemon.work.previews import Looks

    chosen = config.looks
    return Looks(config.product_folder, setting, chosen.first_looks, chosen.running_stacks)


def _put_aside_if_damaged(config: Config, why: str) -> None:
    """A damaged database is not worked on: it is kept under another name, and made anew from disk."""
    if why:
        from daemon.upkeep import rebuild

        aside = rebuild.put_aside(config.database, datetime.now(UTC))
        logs.get().error("database_damaged", reason=why, kept=str(aside))


def rebuild_offline(config: Config) -> dict[str, Any]:
    """The database made anew of what is on disk, without reducing anything; what was there is kept aside.

    Answers {"kept", "products", "decisions", "files", "left", "audit"}.
    """
    from daemon.upkeep import rebuild

    with owner.acting(config):
        return offline(config, lambda: rebuild.put_aside_if_there(config.database))


def offline(config: Config, prepare: Callable[[], Path | None]) -> dict[str, Any]:
    """With no daemon running: take into the database what it does not know of what is on disk.

    prepare : puts the database in its place; returns where what was there is kept now
    Answers as `rebuild_offline`. Raises AlreadyRunning.
    """
    from daemon.upkeep import audit, rebuild

    with instance.only_one(config):
        kept = prepare()
        daemon = build(config, batch=True)
        try:
            daemon.landing.start()
            how = (daemon.main_loop.setting, daemon.main_loop.overrides)
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


@contextlib.contextmanager
def hinted(config: Config) -> Iterator[None]:
    """An error of the system, with the limits that may be behind it: SQLite's own message does not mention
    ulimit -f."""
    try:
        yield
    except OSError as error:
        if not (low := limits.too_low(config)):
            raise
        raise NiridError(f"{error}; {'; '.join(low)}") from error
