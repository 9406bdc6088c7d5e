"""Rows of the bench of rough nights that need the daemon: standards that disagree, lamps that are named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.roughfigures import Figure
from bench.roughnights import Case


def standards(case: Case, number: int, cals: Mapping[str, Path], work: Path) -> Iterator[Figure]:
    return iter(())


def lamp_names(case: Case, number: int, cals: Mapping[str, Path], work: Path) -> Iterator[Figure]:
    return iter(())
