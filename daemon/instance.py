"""One daemon to a state folder, and what others may know of it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from daemon.config.options import Config
from pipeline.errors import NiridError
from pipeline.files import disk

NOTE = "daemon.json"  # who runs, on which folders; stays when it ends


class AlreadyRunning(NiridError):
    """Another instance holds the state folder."""

    exit_code = 75


class CannotLock(NiridError):
    """The file system of the state folder has no locks, or its lock service does not answer."""

    def __init__(self, state: Path, error: OSError) -> None:
        from daemon.filesystems import filesystem_of

        passing = error.errno == errno.ENOLCK  # as of a lock service that is not up yet
        self.exit_code = 1 if passing else 78
        what = "put the state folder on a local disk ([state] folder, --state)"
        super().__init__(
            f"the state folder {state} cannot be locked: its file system, {filesystem_of(str(state))}, says "
            f"{error.strerror!r}: {'start its lock service, or ' if passing else ''}{what}"
        )


UMASK = 0o022  # of the daemon and its workers, whoever starts it: others read the products
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def only_one(config: Config) -> Iterator[Callable[[], bool]]:
    """Hold the state folder. The lock is the kernel's: it ends with the process, however that ends. Raises
    AlreadyRunning, CannotLock.

    Yields a function that tells whether it is still held. No, when the folder was removed or replaced:
    another may hold that.
    """
    before = os.umask(UMASK)
    config.state_folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    fd = os.open(config.state_folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            _lock(fd)
        except BlockingIOError:
            other = (_note(config.state_folder) or {}).get("pid", "unknown")
            where = config.state_folder
            raise AlreadyRunning(
                f"another instance (process {other}) holds the state folder {where}"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise CannotLock(config.state_folder, error) from None
        with contextlib.suppress(OSError):  # the disk is full: the locks cannot be tried
            check_locks(config.state_folder)
        tell(config)
        yield partial(_same, fd, config.state_folder / "lock")
        with contextlib.suppress(OSError):  # the process has ended: nothing to add
            _write(config, {"pid": None})
    finally:
        os.close(fd)
        os.umask(before)


def _lock(fd: int) -> None:
    """A command that asks whether a daemon runs holds the lock for an instant: that is waited for."""
    for _ in range(10):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_locks(state: Path) -> None:
    """Raises CannotLock when a folder that may be written to has none of the locks we need; OSError."""
    with tempfile.TemporaryFile(dir=state) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ours
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the database's
        except OSError as error:
            raise CannotLock(state, error) from None


def _is_held(state: Path) -> bool | None:
    """Whether a process holds the state folder, whichever it is; None where that cannot be asked."""
    try:
        fd = os.open(state / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(fd)
    return False


def _same(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
    except OSError:  # cannot be said now
        return True


def running(config: Config) -> dict[str, Any] | None:
    """{"pid", "paused", "engine", "stalled", "closed", "watched", "links", "moved"} of the daemon that holds
    the state folder; None when there is none.

    The kernel's lock is asked: it is right in another container too, where the process number may mean
    nothing there.
    paused : why it starts no job; "" when it does
    engine : why no worker can be used; "" when one can
    stalled : what does not move; closed : what below the drop folders cannot be listed
    watched : drop folder -> how; links : that are not followed
    moved : when its parts last made progress, seconds since the epoch; None while it starts
    """
    note = _note(config.state_folder) or {}
    held = _is_held(config.state_folder)
    pid = note.get("pid")
    if held is False or (held is None and not (isinstance(pid, int) and _born(pid) == note.get("born"))):
        return None
    texts = {name: str(note.get(name) or "") for name in ("paused", "engine", "stalled", "closed")}
    watched = note.get("watched")
    return {
        "pid": pid if isinstance(pid, int) else 0,
        **texts,
        "watched": watched if isinstance(watched, dict) else {},
        "links": note["links"] if isinstance(note.get("links"), int) else 0,
        "moved": _moved(config.state_folder) if note.get("ready") else None,
    }


def was_stopped(config: Config) -> bool:
    """True when the last daemon here ended as it should, or none ever ran."""
    return (_note(config.state_folder) or {}).get("pid") is None


def alive(config: Config) -> None:
    """The parts of the daemon make progress: known to others by the time of its note, on a full disk too."""
    with contextlib.suppress(OSError):
        os.utime(config.state_folder / NOTE)


def _moved(state: Path) -> float | None:
    try:
        return (state / NOTE).stat().st_mtime
    except OSError:
        return None


def tell(config: Config, **more: Any) -> None:
    """What the daemon that runs here wants others to know. On a full disk nothing is written."""
    with contextlib.suppress(OSError):
        _write(config, {"pid": os.getpid(), "born": _born(os.getpid()), **more})


def with_last_run(config: Config) -> Config:
    """For commands that look: drop and product folders as the daemon had them, unless they are given here."""
    note = _note(config.state_folder) or {}
    drop, products = note.get("drop"), note.get("products")
    if (
        isinstance(drop, list)
        and all(isinstance(f, str) for f in drop)
        and config.origins.get("watch.folders", "default") == "default"
    ):
        watch = dataclasses.replace(config.watch, folders=tuple(drop))
        config = dataclasses.replace(config, watch=watch)
    if isinstance(products, str) and config.origins.get("products.folder", "default") == "default":
        config = dataclasses.replace(config, products=dataclasses.replace(config.products, folder=products))
    return config


def _note(state: Path) -> dict[str, Any] | None:
    try:
        note = json.loads((state / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None


def _write(config: Config, who: dict[str, Any]) -> None:
    folders = {"drop": [str(f) for f in config.drop_folders], "products": str(config.product_folder)}
    text = json.dumps(who | folders)
    disk.write_whole(config.state_folder / NOTE, text.encode(), flush=False, alone=True)


def _born(pid: int) -> str | None:
    """When a process started, in ticks since boot: process numbers are used again, start times are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
