"""The nights that there are, or those in which a programme or an object was observed; plain data.

    rows(db)                                          # [{"night": "20160102", "frames": 45}, ...]
    rows(db, programme="GN-2016A-Q-5", object_="sn 2014j")

A row of a search has besides: found (how many of its frames are meant), programmes, objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from daemon.ledger import board, nightsearch
from daemon.ledger.store import Reader
from daemon.markup import short

LONGEST = 100  # letters of what is looked for
NAMES = 8  # programmes and objects of a row


def rows(
    db: Reader,
    *,
    programme: str = "",
    object_: str = "",
    limit: int = 60,
    before: float = nightsearch.EVER,
) -> list[dict[str, Any]]:
    """The latest first. before : only nights before that time, seconds since the epoch"""
    programme, object_ = programme.strip()[:LONGEST], object_.strip()[:LONGEST]
    if not programme and not object_:
        return [{"night": _date(at), "frames": n} for at, n in board.nights(db, limit, before)]
    nights = nightsearch.found(db, programme=programme, object_=object_, limit=limit, before=before)
    return [
        {
            "night": _date(night.at),
            "frames": night.frames,
            "found": night.found,
            "programmes": _names(night.programmes),
            "objects": _names(night.objects),
        }
        for night in nights
    ]


def _names(names: tuple[str, ...]) -> list[str]:
    more = [f"and {len(names) - NAMES} more"] if len(names) > NAMES else []
    return [*(short(name, LONGEST) for name in names[:NAMES]), *more]


def _date(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%d}"


def line(row: Mapping[str, Any]) -> str:
    """A row in words, without its date."""
    if "found" not in row:
        return f"{row['frames']} frames"
    names = ", ".join(name for name in (*row["programmes"], *row["objects"]) if name)
    return f"{row['found']} of {row['frames']} frames: {names}"
