"""What nights are made of: runs of frames, and the patterns that they follow on the sky."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from pipeline.simulate.faults import Fault, Motion
from pipeline.simulate.shot import Shot
from pipeline.simulate.sky import Field

Offsets = tuple[tuple[float, float], ...]
MakeFields = Callable[[np.random.Generator], dict[str, Field]]

# FS 17 (M67-IV-27), MKO system; K' = K + 0.22 (H - K), the published colour relation.
FS17 = (132.83046, 11.86956)
FS17_KPRIME = 12.290 + 0.22 * (12.363 - 12.290)


@dataclass(frozen=True)
class Run:
    """Frames of one kind in a row: the first file's name, a frame for each offset (arcsec along P, Q), and
    the seconds between the end of one and the start of the next.

    faults : what is wrong with some of them, by their place in the row;  motion : of a target that moves
    """

    shot: Shot
    first: str
    start: datetime
    offsets: Offsets
    field: str = ""
    overhead: float = 4.5
    number: int = 1
    faults: Mapping[int, Fault] = dataclasses.field(default_factory=dict)
    motion: Motion | None = None


@dataclass(frozen=True)
class Preset:
    """A night: its runs, and how its fields are made.

    faults : what is wrong with frames, by their names, before what the runs say
    """

    name: str
    description: str
    runs: tuple[Run, ...]
    fields: MakeFields
    seed: int = 20160102
    faults: Mapping[str, Fault] = dataclasses.field(default_factory=dict)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def repeat(count: int) -> Offsets:
    return ((0.0, 0.0),) * count


def shifted(offsets: Offsets, p: float, q: float) -> Offsets:
    return tuple((a + p, b + q) for a, b in offsets)


def scaled(offsets: Offsets, factor: float) -> Offsets:
    return tuple((a * factor, b * factor) for a, b in offsets)


FIVE: Offsets = ((0, 0), (8, 6), (-7, 5.5), (-6, -8), (7, -7))
NINE: Offsets = ((0, 0), (10, 0), (10, 10), (0, 10), (-10, 10), (-10, 0), (-10, -10), (0, -10), (10, -10))


def dark_run(base: Shot, first: str, start: str, count: int, exposure: float, **changes: object) -> Run:
    shot = replace(base, kind="dark", exposure=exposure, **changes)  # type: ignore[arg-type]
    return Run(shot, first, at(start), repeat(count), number=1 if exposure < 2 else 41)


def flat_runs(base: Shot, night: str, first: int, start: str, count: int, exposure: float) -> tuple[Run, Run]:
    """Lamp-off frames, then as many lamp-on."""
    off = replace(base, kind="flatoff", exposure=exposure, read_mode="Medium Background", coadds=1)
    begin = at(start)
    later = datetime.fromtimestamp(begin.timestamp() + count * (exposure + 6) + 90, UTC)
    return (
        Run(off, f"{night}S{first:04d}", begin, repeat(count)),
        Run(
            replace(off, kind="flaton"),
            f"{night}S{first + count:04d}",
            later,
            repeat(count),
            number=count + 1,
        ),
    )


def short_darks(base: Shot, first: str, start: str, count: int) -> Run:
    day = first[1:9]
    return dark_run(base, first, start, count, 1.001, program=f"GN-CAL{day}", observation=9, coadds=1)
