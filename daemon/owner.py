"""Whose the state folder is: the daemon must be able to use what a command writes there.

with acting(config):  # root as the account of the service; anybody else is told
check(config)        # before the daemon starts: what it has to write, it may write
in_words(error)      # a PermissionError, with who may
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

from daemon.config.options import Config
from daemon.filesystems import is_read_only
from pipeline.errors import ConfigError
from pipeline.files.places import make_sure_of_a_home

_WRITTEN = ("lock", "nirid.db", "nirid.db-wal", "nirid.db-shm")  # in the state folder


def of(config: Config) -> os.stat_result | None:
    """The state folder as it is; the products folder when it is not there yet; None without either."""
    places = (place for place in (config.state_folder, config.product_folder) if place.is_dir())
    place = next(places, None)
    return place.stat() if place else None


@contextlib.contextmanager
def acting(config: Config) -> Iterator[None]:
    """Root goes on as the owner of the state folder, for good; for others it is only a check.

    Where that account cannot reach the folders or the program, root stays, and gives it what was made.
    Raises ConfigError, one line, when the folders may not be written.
    """
    own = of(config)
    if own is None or os.geteuid() != 0 or own.st_uid == 0:
        check(config)
        yield
    elif _reaches(own, config):
        _become(own)
        check(config)
        yield
    else:
        began = time.time() - 1.0
        try:
            yield
        finally:
            _give(own, began, config.state_folder, config.product_folder)


def _reaches(own: os.stat_result, config: Config) -> bool:
    """Whether the account that owns the folders can work in them with this program."""
    groups = os.getgroups()
    places = [(place, os.W_OK | os.X_OK) for place in (config.state_folder, config.product_folder)]
    places += [(place, os.R_OK | os.X_OK) for place in config.drop_folders]
    places += [(Path(__file__), os.R_OK)]
    try:
        os.setgroups(_groups(own))
        os.setegid(own.st_gid)
        os.seteuid(own.st_uid)
        return all(os.access(place, how, effective_ids=True) for place, how in places)
    except PermissionError:  # a container that may not change its account
        return False
    finally:
        os.seteuid(0)
        os.setegid(os.getgid())
        with contextlib.suppress(PermissionError):
            os.setgroups(groups)


def _become(own: os.stat_result) -> None:
    os.setgroups(_groups(own))
    os.setgid(own.st_gid)
    os.setuid(own.st_uid)
    os.environ["HOME"] = pwd.getpwuid(own.st_uid).pw_dir if _account(own.st_uid) else "/nonexistent"
    make_sure_of_a_home()


def _groups(own: os.stat_result) -> list[int]:
    name = _account(own.st_uid)
    return os.getgrouplist(name, own.st_gid) if name else [own.st_gid]


def _give(own: os.stat_result, since: float, *folders: Path) -> None:
    """What root has made below these folders since then is the owner's."""
    for top in folders:
        for path in (top, *top.rglob("*")):
            with contextlib.suppress(FileNotFoundError):
                facts = path.lstat()
                if facts.st_uid == 0 and facts.st_ctime >= since:
                    os.chown(path, own.st_uid, own.st_gid, follow_symlinks=False)


def check(config: Config) -> None:
    """Raises ConfigError, one line, when the daemon's own files or folders are not its own to write."""
    folders = [folder for folder in (config.state_folder, config.product_folder) if folder.is_dir()]
    files = [config.state_folder / name for name in _WRITTEN]
    for path in (*folders, *files):
        try:
            facts = path.stat()
        except OSError:  # not there, or unreadable: whoever opens it reports that
            continue
        wanted = os.R_OK | os.W_OK | (os.X_OK if path in folders else 0)
        if facts.st_uid != os.geteuid() and not os.access(path, wanted) and not is_read_only(path):
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


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _name(uid: int) -> str:
    return _account(uid) or f"uid {uid}"
