"""Paths as people write them: ~ is a home folder, if there is one."""

from __future__ import annotations

import atexit
import os
import tempfile
from pathlib import Path

from pipeline.errors import ConfigError


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ~ and ~user replaced. Raises ConfigError, one line, where nobody has such a home.

    A container with --user, cron and su may leave an account without an entry and without $HOME.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        who = os.fspath(path).split("/")[0]
        why = "there is no home folder: set HOME" if who == "~" else "no such user, or one without a home"
        raise ConfigError(f"{os.fspath(path)}: {why}") from None


def make_sure_of_a_home() -> None:
    """Libraries read their settings below $HOME, and stop when there is none or it is closed to us: then this
    process, and those that it starts, get an empty one of their own until it ends."""
    try:
        place = Path.home()
        readable = place.is_dir() and os.access(place, os.R_OK | os.X_OK)
    except (RuntimeError, OSError):
        readable = False
    if not readable:
        try:
            own = tempfile.TemporaryDirectory(prefix="nirid-home-")
        except OSError:  # a container whose disks are all read-only: one that can at least be read
            os.environ["HOME"] = "/"
            return
        atexit.register(own.cleanup)
        os.environ["HOME"] = own.name


def home() -> Path | None:
    """The home folder, when it is there and can be read and written; else None."""
    try:
        place = Path.home()
    except RuntimeError:
        return None
    try:
        usable = place.is_dir() and os.access(place, os.R_OK | os.W_OK | os.X_OK)
    except OSError:
        return None
    return place if usable else None


def readonly_uri(path: str | Path) -> str:
    """The address by which SQLite only reads a file, and leaves nothing beside it.

    Whoever has it open to write keeps a log (-wal) and its index (-shm) beside it. Without these it is
    taken as finished: it may lie where nothing can be written, and no log is made for it.
    """
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    finished = not log.exists() or (not log.stat().st_size and not index.exists())
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    return f"{uri}&immutable=1" if finished and Path(path).exists() else uri
