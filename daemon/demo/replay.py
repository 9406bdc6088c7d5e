"""An archived night again: its files land in a drop folder in the order in which they were observed.

    files = in_order(folder)
    replay(files, folder, drop, speed=60.0)

Each file is copied under a hidden name and renamed, as a good delivery does.
"""

from __future__ import annotations

import filecmp
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from daemon.arrivals.sweep import is_passed_over
from pipeline.errors import NiridError
from pipeline.files import disk, outputs
from pipeline.files.structure import read_structure
from pipeline.headers.descriptors import describe
from pipeline.headers.merged import merge
from pipeline.names import is_fits

FAR = timedelta(days=30)  # between two files that are not of one campaign
LONGEST_NAP = 1.0  # s; a wait of a night is interrupted at once


@dataclass(frozen=True)
class Archived:
    """A file of the archive; `lands` is the end of its exposure, None for what has none (a mask, junk)."""

    path: Path
    lands: datetime | None


def in_order(folder: Path) -> list[Archived]:
    """The FITS files of a folder and its sub-folders: first those without a time, then by time and name.

    Of files whose time is far from that of the others (a static mask of 2001) it counts as none: nobody waits
    for years. Hidden folders are left alone.
    """
    paths = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_passed_over(name)]
        paths += [Path(root) / name for name in names if is_fits(name)]
    times = {path: _lands(path) for path in sorted(paths)}
    near = _together([when for when in times.values() if when is not None])
    files = [Archived(path, when if when in near else None) for path, when in times.items()]
    return sorted(files, key=lambda f: (f.lands is not None, times[f.path] is not None, times[f.path] or 0))


def _together(times: list[datetime]) -> set[datetime]:
    """The largest set of times of which none is far from the next; of two as large the later."""
    runs: list[list[datetime]] = []
    for when in sorted(times):
        if not runs or when - runs[-1][-1] > FAR:
            runs.append([])
        runs[-1].append(when)
    largest: list[datetime] = []
    for run in runs:
        largest = run if len(run) >= len(largest) else largest
    return set(largest)


def _lands(path: Path) -> datetime | None:
    try:
        facts = read_structure(path)
    except (NiridError, OSError):  # the daemon decides what it is worth
        return None
    image = facts.hdus[facts.image].cards if facts.image else {}
    told = describe(merge(facts.phu, image))
    return told.ut_end or told.ut_datetime


def replay(
    files: Sequence[Archived],
    folder: Path,
    into: Path,
    speed: float = 1.0,
    *,
    on_file: Callable[[Path], None] = lambda path: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Copy the files into a drop folder, at the paths that they have below `folder`; returns where they are.

    speed : so many times as fast as it was; 0 or infinity is without waiting
    Raises NiridError when one folder lies in the other, WouldOverwrite, before anything lands, when another
    file has one of the names. What lies there already with the same bytes is left alone.
    """
    here, there = folder.resolve(), into.resolve()
    if here in (there, *there.parents) or there in here.parents:
        raise NiridError(f"{into}: lies in {folder}, or the other way round; what lands would be replayed")
    for file in files:
        _may_land(file.path, into / file.path.relative_to(folder))
    began, first = clock(), None
    landed = []
    for file in files:
        if file.lands is not None and speed:
            first = first or file.lands
            until = began + (file.lands - first).total_seconds() / speed
            while (left := until - clock()) > 0:
                sleep(min(left, LONGEST_NAP))
        landed.append(_land(file.path, into / file.path.relative_to(folder)))
        on_file(landed[-1])
    return landed


def _may_land(source: Path, target: Path) -> None:
    if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
        outputs.check(target, "raw", inputs=[source])


def _land(source: Path, target: Path) -> Path:
    if target.exists():  # the same bytes are there already: the daemon only needs an event
        _may_land(source, target)
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    disk.copy_whole(source, target, flush=False)
    return target
