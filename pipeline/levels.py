"""How good a calibration is for a frame: levels, breakpoints, and how both are said.

    level = association.level_of(rule, when, candidate)
    level.number, str(level)         # 1, "level 1, good: 2.3 days before the frame"
    cards(levels, takes)             # of the product's header

The limits of each level are beside the rules, in `pipeline.association`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

NEVER = timedelta(-1)  # no calibration is so near
OWN, RISK = 0, 3
HEALING = 1  # the last level at which a product is made again with what would have been chosen
WORDS = ("tonight", "good", "usable", "risk")
# Kind of calibration -> the card of its level. Both kinds of bad-pixel masks share one: they go together.
CARDS: Mapping[str, str] = {
    "processed_dark": "DARKLEV",
    "processed_flat": "FLATLEV",
    "processed_bpm": "BPMLEV",
    "static_bpm": "BPMLEV",
    "zero_point": "ZPLEV",
}
# What people call the calibration of a card.
NAMES = {"DARKLEV": "dark", "FLATLEV": "flat", "BPMLEV": "bad pixels", "ZPLEV": "zero point"}
AIRMASSES = 0.3  # a zero point of level 0 is of an airmass that differs by no more


@dataclass(frozen=True)
class Breakpoint:
    """Calibrations of before and after are not alike.

    at : with its time zone; kinds : of calibrations (CalKind values) that it counts for; reason : in words
    """

    at: datetime
    kinds: frozenset[str]
    reason: str

    def lies_between(self, kind: str, one: datetime, other: datetime) -> bool:
        """True for a calibration of this kind and a frame on two sides; `at` belongs to what comes after."""
        return kind in self.kinds and (one < self.at) != (other < self.at)


class Level(NamedTuple):
    """number : 0 is best, 3 a risk; apart : time of the calibration less that of the frame
    across : the breakpoint that lies between them; own : it was made of the very flats that are used"""

    number: int
    apart: timedelta
    across: Breakpoint | None = None
    own: bool = False

    @property
    def rank(self) -> tuple[int, timedelta]:
        """The larger, the worse."""
        return self.number, abs(self.apart)

    @property
    def why(self) -> str:
        """As `2.3 days before the frame`."""
        why = f"{span(self.apart)} {_side(self.apart)} the frame"
        if self.across is not None:
            why += f", {self.beyond}"
        return f"{why}, of the same flats" if self.own else why

    @property
    def beyond(self) -> str:
        if self.across is None:
            return ""
        return f"across the breakpoint of {self.across.at:%Y-%m-%d} ({self.across.reason})"

    @property
    def brief(self) -> str:
        return f"level {self.number}, {self.why}"

    def __str__(self) -> str:
        if self.own:
            return f"level {self.number}: {self.why}"
        return f"{in_words(self.number)}: {self.why}"

    @property
    def comment(self) -> str:
        """For a header card, of at most 47 characters."""
        if self.across is not None:
            return f"{WORDS[self.number]}: across breakpoint of {self.across.at:%Y-%m-%d}"
        if self.own:
            return "of the same flats (0 best, 3 risk)"
        return f"{WORDS[self.number]}: {span(self.apart)} {_side(self.apart)} (0 best, 3 risk)"


def level_at(
    kind: str,
    limits: tuple[timedelta, ...],
    ut: datetime,
    when: datetime,
    breakpoints: Sequence[Breakpoint] = (),
) -> Level:
    """By times alone: `ut` of a calibration of this kind, `when` of the frame. limits : of its levels"""
    apart = ut - when
    for one in breakpoints:
        if one.lies_between(kind, ut, when):
            return Level(RISK, apart, one)
    away = abs(apart)
    return Level(sum([away > limit for limit in limits]), apart)


def _side(apart: timedelta) -> str:
    return "after" if apart > timedelta(0) else "before"


def in_words(number: int) -> str:
    """As `level 2, usable`."""
    return f"level {number}, {WORDS[number]}"


def cards(
    levels: Mapping[str, tuple[int, str]], takes: Set[str], *, mask_by_hand: bool = False
) -> dict[str, tuple[int, str]]:
    """Header cards of the calibrations that a product was made with.

    levels : kind -> (number, comment); takes : kinds that the recipe uses. A dark or flat that was not used
        has no card, and a note says so; no mask at all is level 3. Of two masks the better one counts.
    mask_by_hand : a person has given one, of which nobody knows how good it is
    """
    found: dict[str, tuple[int, str]] = {}
    for kind, told in sorted(levels.items()):
        card = CARDS[kind]
        found[card] = min(told, found.get(card, told))
    if mask_by_hand:
        found.pop("BPMLEV", None)
    elif "BPMLEV" not in found and any(CARDS.get(kind) == "BPMLEV" for kind in takes):
        found["BPMLEV"] = (RISK, f"{WORDS[RISK]}: no bad-pixel mask (0 best, 3 risk)")
    return {card: found[card] for card in NAMES if card in found}  # in one order: bytes depend on it


def of_header(header: Any) -> dict[str, tuple[int, str]]:
    """What `cards` had been given for a product, of its primary header (of astropy's)."""
    kinds = {card: kind for kind, card in CARDS.items()}
    return {kinds[card]: (header[card], header.comments[card]) for card in kinds if card in header}


def of_zero_point(
    apart: timedelta | None, airmasses: float, limits: tuple[timedelta, ...]
) -> tuple[int, str]:
    """The card of a zero point of a standard: (level, comment).

    apart : time of the standard less that of the image, None where it is not known; airmasses : by how much
        theirs differ; limits : of its rule
    """
    if apart is None:
        return RISK, f"{WORDS[RISK]}: at an unknown time (0 best, 3 risk)"
    number = sum(abs(apart) > limit for limit in limits)
    if number == 0 and airmasses > AIRMASSES:
        return 1, f"{WORDS[1]}: {span(apart)}, {airmasses:.1f} airmasses away"
    return number, Level(number, apart).comment


def read(quality: Mapping[str, Any]) -> dict[str, int]:
    """Card -> level of what a header, or the ledger of it, has."""
    found = {card: quality.get(card) for card in NAMES}
    return {card: n for card, n in found.items() if isinstance(n, int) and 0 <= n <= RISK}


def poor(levels: Mapping[str, int]) -> str:
    """As `dark level 2, usable; flat level 3, risk`; "" where all are good. levels : card -> level"""
    return "; ".join(f"{NAMES[card]} {in_words(n)}" for card, n in levels.items() if n > HEALING)


def span(delta: timedelta) -> str:
    """A time in the unit that suits it, without its sign."""
    seconds = abs(delta).total_seconds()
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
