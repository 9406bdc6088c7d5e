"""Limits that the system sets to this process (ulimit, limits.conf, the unit): the lower one counts.

lower(resource.RLIMIT_DATA, 1500 << 20)    # or what it is already, if that is less
make_room_for(files_for(config))           # open files; NiridError when there are too few
too_low(config)                            # in words, for the doctor
"""

from __future__ import annotations

import contextlib
import resource
from typing import TYPE_CHECKING

from pipeline.errors import NiridError

if TYPE_CHECKING:
    from daemon.config.options import Config


PLENTY = 4096  # open files, if they are to be had
_FILES, _FILES_PER_WORKER = 48, 3  # measured: 24 are enough for two workers and a small night


def lower(kind: int, wanted: int) -> int:
    """Set a limit for good, to what is wanted or to the lower one that holds already. Returns it."""
    soft, hard = resource.getrlimit(kind)
    for there in (soft, hard):
        wanted = wanted if there == resource.RLIM_INFINITY else min(wanted, there)
    resource.setrlimit(kind, (wanted, wanted))
    return wanted


def files_for(config: Config) -> int:
    """Open files that the daemon may need; workers of a cluster are behind one connection."""
    return _FILES + _FILES_PER_WORKER * (config.engine.workers if config.engine.kind == "local" else 4)


def make_room_for(files: int) -> None:
    """Raise the limit of open files as far as we may. NiridError when it stays below `files`: what fails for
    want of a descriptor fails anywhere, and would be taken for something else."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < PLENTY:
        most = PLENTY if hard == resource.RLIM_INFINITY else min(PLENTY, hard)
        with contextlib.suppress(ValueError, OSError):  # not allowed: go on with the limit as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    if complaint := _too_few(files, resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
        raise NiridError(complaint)


def _too_few(files: int, there: int) -> str:
    if there == resource.RLIM_INFINITY or there >= files:
        return ""
    return f"only {there} files may be open at a time, and {files} are needed: raise ulimit -n (LimitNOFILE)"


def too_low(config: Config) -> list[str]:
    """What is in the way of work, or makes it less than the configuration says."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # up to which we raise it ourselves
    found = [_too_few(files_for(config), most)]
    data = _least(resource.RLIMIT_DATA)
    if config.engine.kind == "local" and data is not None and data < config.engine.memory_mb << 20:
        found.append(
            f"a worker may have {data >> 20} MB (ulimit -d), less than engine.memory_mb = "
            f"{config.engine.memory_mb}: larger groups may fail"
        )
    if (size := _least(resource.RLIMIT_FSIZE)) is not None:
        found.append(f"no file may be larger than {size >> 20} MB (ulimit -f): the database or a product may")
    if (seconds := _least(resource.RLIMIT_CPU)) is not None:
        found.append(f"processes are ended after {seconds} s of processor time (ulimit -t)")
    return [text for text in found if text]


def _least(kind: int) -> int | None:
    there = [limit for limit in resource.getrlimit(kind) if limit != resource.RLIM_INFINITY]
    return min(there, default=None)
