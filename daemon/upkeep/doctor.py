"""Can the daemon work here? Probes, each of which says what it found.

    findings = examine(config)         # [Finding(check, level, text), ...]

Levels: "ok"; "note", worth knowing; "wrong", to be put right. Nothing of a running daemon is disturbed: the
drop folder is written to only with a hidden file, which the daemon does not look at, and only where this
user may; raw frames are never touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from daemon import filesystems, instance, limits
from daemon.arrivals.sweep import is_passed_over
from daemon.config.options import Config
from daemon.engine import software
from daemon.engine.deaths import Memory
from daemon.instance import CannotLock
from daemon.ledger import cells
from daemon.ledger.store import SQLITE_VERSION, DatabaseError
from daemon.upkeep import foldertrial, trial
from daemon.work import diskguard
from daemon.work.diskguard import UNKNOWN
from pipeline.errors import ConfigError, NiridError

EVENT_SECONDS = 3.0
SAFE_SQLITE = (3, 51, 3)  # earlier ones have a rare fault in resetting the write-ahead log
EARLIEST = datetime(2024, 1, 1, tzinfo=UTC)  # the program is newer than that
LATEST = datetime(2099, 1, 1, tzinfo=UTC)
_UNSYNCHRONISED = 5  # TIME_ERROR, what adjtimex answers
_MEMORY_ONLY = ("tmpfs", "ramfs")


@dataclass(frozen=True)
class Finding:
    check: str
    level: Literal["ok", "note", "wrong"]
    text: str


def examine(config: Config) -> list[Finding]:
    """Every probe; one that fails in an unforeseen way is a finding too."""
    found: list[Finding] = []
    machine = (_clock, _limits, _processor, _workers, _engine, _instance)
    for probe in (_drop, _folders, _space, _database, _sqlite, *machine):
        try:
            found += probe(config)
        except Exception as error:
            name = probe.__name__.strip("_")
            found.append(Finding(name, "wrong", f"cannot be examined: {type(error).__name__}: {error}"))
    return found


# -- drop folders ----------------------------------------------------------------------------


def _drop(config: Config) -> Iterator[Finding]:
    wanted = config.watch.observer
    for folder in config.drop_folders:
        check = f"drop folder {folder}"
        if not folder.is_dir():
            yield Finding(check, "wrong", "is missing: is it mounted? The daemon waits for it")
            continue
        if not os.access(folder, os.R_OK | os.X_OK):
            yield Finding(check, "wrong", f"{_user()} may not list it")
            continue
        if closed := _closed_below(folder):
            yield Finding(
                check, "note", f"{_user()} may not list {', '.join(closed)}: what is in there waits"
            )
        kind = filesystems.filesystem_of(str(folder))
        network = kind.startswith(filesystems.NETWORK)
        arrived, how = event_arrives(folder)
        yield Finding(check, "ok", f"on {kind}{', a network file system' if network else ''}; {how}")
        if wanted == "native" and (network or arrived is False):
            why = f"{kind} tells nothing of what other hosts write" if network else "no event arrives"
            yield Finding(check, "wrong", f'observer = "native", but {why}: set it to "auto" or "polling"')
        choice = "polling" if wanted == "polling" or network or arrived is False else "events"
        why = {"auto": "chosen by itself"}.get(wanted, f'as observer = "{wanted}" says')
        sweep = f"; a sweep every {config.watch.sweep_seconds:g} s finds the rest"
        yield Finding(check, "ok", f"{choice}, {why}{sweep}")
    if limit := _inotify_limit():
        yield limit


def _closed_below(folder: Path) -> list[str]:
    """The first few folders right below that may not be listed, and are not passed over anyhow."""
    found: list[str] = []
    with os.scandir(folder) as entries:
        for entry, _ in zip(entries, range(1000), strict=False):
            if entry.is_dir(follow_symlinks=False) and not is_passed_over(entry.name):
                found += [entry.name] * (not os.access(entry.path, os.R_OK | os.X_OK))
    return sorted(found)[:3]


def event_arrives(folder: Path, seconds: float = EVENT_SECONDS) -> tuple[bool | None, str]:
    """(whether an event arrives for a touched file, how that is known); None where no file can be made."""
    from watchdog.events import FileSystemEvent, FileSystemEventHandler
    from watchdog.observers import Observer

    name, heard = f".nirid-doctor-{os.getpid()}", threading.Event()

    class Ear(FileSystemEventHandler):
        def on_any_event(self, event: FileSystemEvent) -> None:
            if os.path.basename(os.fsdecode(event.src_path)) == name:
                heard.set()

    if not os.access(folder, os.W_OK):
        return None, f"{_user()} may not write there, as it should be, so no event was tried"
    observer: Any = Observer()
    try:
        observer.schedule(Ear(), os.path.realpath(folder))
        observer.start()
    except (OSError, RuntimeError) as error:
        return False, f"events cannot be had: {error}"
    try:
        began = time.monotonic()
        (folder / name).touch()
        arrived = heard.wait(seconds)
        took = time.monotonic() - began
    except OSError as error:
        return None, f"no file can be made there ({error.strerror}), so no event was tried"
    finally:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        observer.stop()
        observer.join(5)
    if arrived:
        return True, f"an event arrives {1000 * took:.0f} ms after a file is touched"
    return False, f"no event arrived within {seconds:g} s of touching a file"


def _inotify_limit() -> Finding | None:
    """The kernel's number of watches, one for each folder, shared by all programs of a user."""
    with contextlib.suppress(OSError, ValueError):
        watches = int(Path("/proc/sys/fs/inotify/max_user_watches").read_text())
        if watches < 8192:
            text = f"only {watches} watches (fs.inotify.max_user_watches): one for every night's folder"
            return Finding("inotify", "note", text)
    return None


# -- folders of our own ----------------------------------------------------------------------


def _folders(config: Config) -> Iterator[Finding]:
    for what, folder in (("products folder", config.product_folder), ("state folder", config.state_folder)):
        check = f"{what} {folder}"
        place = _nearest(folder)
        kind = filesystems.filesystem_of(str(place))
        if place != folder:
            may = os.access(place, os.W_OK)
            text = f"is not there yet; {_user()} may {'make it' if may else f'not make it in {place}'}"
            yield Finding(check, "ok" if may else "wrong", text)
            continue
        problem, note = f"{_user()} may not write there", ""
        if os.access(folder, os.W_OK):
            problem, note = foldertrial.write_link_and_sync(folder)
        yield Finding(
            check, "wrong" if problem else "ok", problem or f"on {kind}, can be written, renamed and flushed"
        )
        if note:
            yield Finding(check, "note", note)
        if what == "state folder" and not problem:
            try:
                instance.check_locks(folder)
            except CannotLock as error:
                yield Finding(check, "wrong", str(error))
        if what == "state folder" and kind.startswith(filesystems.NETWORK):
            text = f"on {kind}: SQLite's locks cannot be trusted there; it belongs on a local disk"
            yield Finding(check, "wrong", text)
        if kind in _MEMORY_ONLY:
            yield Finding(check, "note", f"on {kind}: it does not survive a restart of the machine")
    requests = config.state_folder / "requests"
    if requests.is_dir() and not os.access(requests, os.W_OK):
        text = (
            f"{_user()} may not leave decisions there (reject, accept, requeue): join the group of the folder"
        )
        yield Finding("requests", "note", text)


def _space(config: Config) -> Iterator[Finding]:
    guard = diskguard.of(config)
    for name, folder in guard.folders.items():
        place = _nearest(folder)
        room = diskguard.room(place)
        low = guard.lacking(name, room)
        inodes = "" if room.inodes is None else f", {room.inodes} inodes"
        text = low or f"{room.bytes / 1e9:.1f} GB free{inodes} (pauses below {guard.low_bytes / 1e9:.1f} GB)"
        if room.bytes >= UNKNOWN:
            text = "the file system does not tell how much is free: work pauses when a write fails"
        yield Finding(f"space for {name}", "wrong" if low else "ok", text)


# -- database --------------------------------------------------------------------------------


def _database(config: Config) -> Iterator[Finding]:
    path = config.database
    if not path.exists():
        yield Finding(
            "database", "ok", f"{path} is not there yet: the first run makes it, of what is on disk"
        )
        return
    try:
        found = cells.examine(path)
    except DatabaseError as error:
        yield Finding("database", "wrong", f"{path}: {error}")
        return
    except ConfigError as error:  # of a newer program
        yield Finding("database", "wrong", str(error))
        return
    if found.errors:
        text = f"{path} is damaged ({found.errors[0]}): nirid rebuild makes it anew"
        yield Finding("database", "wrong", text)
        return
    if found.cells:
        which = ", ".join(found.cells)
        text = f"{path}: {which} cannot be read: the next start, or nirid rebuild, makes it anew"
        yield Finding("database", "wrong", text)
        return
    schema = ", ".join(f"{name} {version}" for name, version in sorted(found.versions.items()))
    size = path.stat().st_size / 1e6
    yield Finding("database", "ok", f"{path} is whole ({size:.1f} MB; schema {schema})")


def _sqlite(config: Config) -> Iterator[Finding]:
    version = ".".join(map(str, SQLITE_VERSION))
    if SQLITE_VERSION < SAFE_SQLITE:
        text = (
            f"{version}: before 3.51.3 a log that is reset while others read can, very rarely, be damaged. "
            "The daemon writes and checkpoints by one connection, which avoids it"
        )
        yield Finding("SQLite", "note", text)
    else:
        yield Finding("SQLite", "ok", version)


# -- the machine -----------------------------------------------------------------------------


def _clock(config: Config) -> Iterator[Finding]:
    now = datetime.now(UTC)
    said = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if not EARLIEST <= now <= LATEST:
        text = f"{said} cannot be; the daemon works all the same (waits run on another clock)"
        yield Finding("clock", "wrong", text)
        return
    newest = max((p.stat().st_mtime for p in _some_files(config)), default=0.0)
    if newest > now.timestamp() + 86400:
        when = f"{datetime.fromtimestamp(newest, UTC):%Y-%m-%d %H:%M}"
        yield Finding("clock", "note", f"{said}, but a file in a drop folder is of {when}")
    elif _adjtimex() == _UNSYNCHRONISED:
        yield Finding("clock", "note", f"{said}, not synchronised by NTP as far as the kernel knows")
    else:
        yield Finding("clock", "ok", said)


def _some_files(config: Config) -> Iterator[Path]:
    for folder in (f for f in config.drop_folders if os.access(f, os.R_OK | os.X_OK)):
        with os.scandir(folder) as entries:
            for entry, _ in zip(entries, range(1000), strict=False):
                if entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)


def _adjtimex() -> int:
    """The state of the kernel's clock; -1 when it cannot be asked."""
    with contextlib.suppress(OSError, AttributeError):
        ask: Callable[[Any], int] = ctypes.CDLL(None).adjtimex
        return ask(ctypes.create_string_buffer(512))  # all zero: only asks
    return -1


def _processor(config: Config) -> Iterator[Finding]:
    """What the bits of a product depend on, for comparison with another machine."""
    yield Finding("software", "ok", software.in_words())
    yield Finding("processor features", "ok", software.processor())


def _workers(config: Config) -> Iterator[Finding]:
    if config.engine.kind == "local":
        yield Finding("workers", *trial.start_one(config))


def _limits(config: Config) -> Iterator[Finding]:
    """What the system allows this process, which is what it allows a daemon started in the same way."""
    found = limits.too_low(config)
    memory, wanted = Memory.now().limit, config.engine.workers * config.engine.memory_mb
    if config.engine.kind == "local" and memory is not None and memory >> 20 < wanted:
        found.append(
            f"this service or container may have {memory >> 20} MB, {config.engine.workers} workers up to "
            f"{config.engine.memory_mb} MB each: the kernel may kill one for it"
        )
    yield from (Finding("limits", "note", text) for text in found)


def _engine(config: Config) -> Iterator[Finding]:
    """Of a Dask cluster: does the scheduler answer, and which of its workers are like us?"""
    engine = config.engine
    if engine.kind == "local":
        return
    from daemon.engine import dask, link
    from daemon.engine.limits import Limits

    check = f"Dask scheduler {engine.scheduler}"
    folders = [str(folder) for folder in (*config.drop_folders, config.product_folder)]
    try:
        said = link.introductions(engine.scheduler, engine.tls, dask.greeting(Limits(), {}, folders))
    except (NiridError, OSError) as error:
        yield Finding(check, "wrong", f"cannot be used: {link.words(error)}")
        return
    bad = {worker: answer["problem"] for worker, answer in said.items() if answer["problem"]}
    text = f"{len(said) - len(bad)} of {len(said)} workers can be used ({software.in_words()})"
    yield Finding(check, "ok" if len(bad) < len(said) else "wrong", text)
    for worker, problem in bad.items():
        yield Finding(f"Dask worker {worker}", "wrong", f"is not used: {problem}")


def _instance(config: Config) -> Iterator[Finding]:
    daemon = instance.running(config)
    text = f"runs, process {daemon['pid']}" if daemon else "does not run"
    yield Finding("daemon", "ok", text)
    for name in ("engine", "paused", "stalled"):
        if daemon and daemon[name]:
            yield Finding("workers" if name == "engine" else "daemon", "wrong", daemon[name])


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.is_dir())


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
