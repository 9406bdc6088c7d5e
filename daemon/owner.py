"""Whose the state folder is: what a command writes into it must be the daemon's to use.

become(config)       # root goes on as the account of the service; anybody else is told
check(config)        # before the daemon starts: what it has to write, it may write
in_words(error)      # a PermissionError, with who may
"""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from daemon.config import Config
from pipeline.errors import ConfigError
from pipeline.places import make_sure_of_a_home

_WRITTEN = ("lock", "nirid.db", "nirid.db-wal", "nirid.db-shm")  # in the state folder


def of(config: Config) -> os.stat_result | None:
    """The state folder as it is; the products folder when it is not there yet; None without either."""
    places = (place for place in (config.state_folder, config.product_folder) if place.is_dir())
    place = next(places, None)
    return place.stat() if place else None


def become(config: Config) -> None:
    """Go on as the owner of the state folder, for good; for others than root only a check.

    Raises ConfigError, one line, when the folders may not be written, or the program not be read then.
    """
    own = of(config)
    if own is not None and os.geteuid() == 0 and own.st_uid != 0:
        try:
            if name := _account(own.st_uid):
                os.initgroups(name, own.st_gid)
            else:
                os.setgroups([])
            os.setgid(own.st_gid)
            os.setuid(own.st_uid)
        except PermissionError as error:
            raise ConfigError(f"{config.state_folder} belongs to {_name(own.st_uid)}: {error}") from None
        os.environ["HOME"] = pwd.getpwuid(own.st_uid).pw_dir if name else "/nonexistent"
        make_sure_of_a_home()
        if not os.access(__file__, os.R_OK):
            raise ConfigError(
                f"{Path(__file__).parent} cannot be read by {_name(own.st_uid)}: install it for all"
            )
    check(config)


def check(config: Config) -> None:
    """Raises ConfigError, one line, when the daemon's own files or folders are not its own to write."""
    folders = [folder for folder in (config.state_folder, config.product_folder) if folder.is_dir()]
    files = [config.state_folder / name for name in _WRITTEN]
    for path in (*folders, *files):
        try:
            facts = path.stat()
        except OSError:  # not there; or it cannot be told, which is said by whoever opens it
            continue
        wanted = os.R_OK | os.W_OK | (os.X_OK if path in folders else 0)
        if facts.st_uid != os.geteuid() and not os.access(path, wanted) and not _is_read_only(path):
            raise ConfigError(
                f"{path} belongs to {_name(facts.st_uid)}, and {_name(os.geteuid())} may not write it: "
                f"{_cure(path, config, folder=path in folders)}"
            )


def in_words(error: PermissionError) -> str:
    """The error with the folder that is closed, and to whom it is open."""
    path = Path(os.fsdecode(error.filename or ""))
    for folder in reversed(path.absolute().parents if error.filename else ()):
        try:
            facts = folder.stat()
        except OSError:
            break
        if not os.access(folder, os.X_OK):
            group = _group(facts.st_gid)
            who = (
                f"for {_name(facts.st_uid)} and members of the group {group} only (usermod -aG {group} NAME)"
            )
            return (
                f"{path}: permission denied: {folder} is {who if facts.st_mode & 0o010 else 'closed to you'}"
            )
    return str(error)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _cure(path: Path, config: Config, *, folder: bool) -> str:
    own = of(config)
    if folder or own is None or own.st_uid != os.geteuid():
        return "run this as root, or as the account of the service"
    return f"chown {_account(own.st_uid) or own.st_uid} {path}"


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _name(uid: int) -> str:
    return _account(uid) or f"uid {uid}"
