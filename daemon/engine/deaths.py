"""Why a worker died: by an error of its own, or by the machine, which says nothing about the data.

ending, words = of(exit_code, last_words, Memory.now())
"""

from __future__ import annotations

import contextlib
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from daemon.model.jobs import Ending

# A process is ended by these for what it did itself; any other signal came from outside, or from a limit.
_ITS_OWN: tuple[int, ...] = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)
_NO_MEMORY = re.compile(  # as Python, the compiler, the algebra library and the C++ library say it
    r"MemoryError|bad_alloc|out of memory|memory allocation|(cannot|could not|failed to|unable to) allocate"
    r"|can't start new thread|pthread_create|resource temporarily unavailable",
    re.IGNORECASE,
)
_FOR: dict[int, str] = {
    signal.SIGKILL: "by the kernel, if memory ran out",
    signal.SIGXCPU: "over the limit of processor time, ulimit -t",
    signal.SIGXFSZ: "over the limit of the size of a file, ulimit -f",
    signal.SIGBUS: "a disk under a mapped file was full or gone",
    signal.SIGSYS: "a system call is forbidden here",
}
_UNLIMITED = 1 << 60  # what the older kind of control group calls no limit
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """What the kernel lets this service or container have. limit : bytes, None without one
    kills : how often it has killed for want of memory"""

    limit: int | None = None
    kills: int = 0

    @classmethod
    def now(cls, groups: Path = _GROUPS, own: Path = Path("/proc/self/cgroup")) -> Memory:
        """Of our control group and all that it is in; no limit where that cannot be read."""
        limits, kills = [], 0
        for folder, most, events in _places(groups, own):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / most).read_text()))  # "max" is none
            with contextlib.suppress(OSError, ValueError):
                counts = dict(line.split() for line in (folder / events).read_text().splitlines())
                kills += int(counts.get("oom_kill", 0))
        return cls(min((n for n in limits if n < _UNLIMITED), default=None), kills)


def _places(groups: Path, own: Path) -> list[tuple[Path, str, str]]:
    """(folder, file of the limit, file of the counts), from our control group outwards."""
    try:
        lines = own.read_text().splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        _, kinds, name = [*line.split(":", 2), "", ""][:3]
        if kinds not in ("", "memory"):
            continue
        top = groups / kinds if kinds else groups
        files = ("memory.limit_in_bytes", "memory.oom_control") if kinds else ("memory.max", "memory.events")
        # In a container the group may be called as outside, and lie at the top all the same.
        inner = top / name.lstrip("/")
        for folder in dict.fromkeys([inner, *(p for p in inner.parents if p.is_relative_to(top)), top]):
            found.append((folder, *files))
    return found


def of(code: int, last: str, before: Memory, now: Memory) -> tuple[Ending, str]:
    """(ending, words) of a worker that ended with this exit code, or by signal -code.

    last : what it printed last; before, now : memory when it was started, and now
    """
    said = how(code, before, now)
    if _from_outside(code):
        return "killed", f"the worker was killed ({said})"
    return ("memory" if _NO_MEMORY.search(last) else "died"), f"the worker died ({said})" + (
        f": {last}" if last else ""
    )


def how(code: int, before: Memory, now: Memory) -> str:
    """SIGSEGV, exit 1, or SIGKILL: by the kernel, as memory ran out."""
    name = exit_words(code)
    if not _from_outside(code):
        return name
    why = _FOR.get(-code, "from outside")
    if code == -signal.SIGKILL:
        if now.kills > before.kills:
            why = "by the kernel, as memory ran out"
        if now.limit is not None:
            why += f"; the memory limit of this service or container is {now.limit >> 20} MB"
    return f"{name}: {why}"


def _from_outside(code: int) -> bool:
    return code < 0 and -code not in _ITS_OWN


def exit_words(code: int) -> str:
    """SIGSEGV, or exit 1."""
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
