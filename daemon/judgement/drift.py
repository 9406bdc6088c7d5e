"""Whether a new master is like those of before: accepted, accepted with a warning, or held back.

    verdict = judged("DARK", setup, figures, line)    # line: figures of the accepted ones of its key

Fewer than five accepted masters say nothing of what is usual: then only what cannot be holds one back.
With five, each figure is compared with their median: robust z = (x - median) / hypot(1.4826 MAD, floors).
A master is held back when a figure is off by more than 7 and another that sees the same by other means
by more than 4: one figure alone warns. A fainter lamp never does more than tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from statistics import median
from typing import Any, Literal

from daemon.judgement.limits import HOT_SHARE, OF_KIND, QUADRANTS, READ_NOISE, READ_NOISE_RANGE, Limit

ENOUGH = 5  # accepted masters from which "usual" means something
LOOKS_BACK = 50  # accepted masters that are compared with
WARNING, HELD = 4.0, 7.0  # |z|
MAD_TO_SIGMA = 1.482602218505602
LAMP_TOLD = 0.05  # of the usual lamp: a change that is reported

Figures = Mapping[str, tuple[float, float]]  # {name: (value, error)}


class State(StrEnum):
    ACCEPTED = "accepted"
    WARNING = "warning"
    HELD = "held"


@dataclass(frozen=True)
class Past:
    """An accepted master: figures, and when it was taken."""

    figures: Figures
    at: datetime


@dataclass(frozen=True)
class Setup:
    """read_mode : as the descriptor has it; coadds; pixels : of the array; seconds : of one exposure"""

    read_mode: str
    coadds: int
    pixels: int
    seconds: float


@dataclass(frozen=True)
class Off:
    """A figure that is not as it should be. z : None where it is outside what can be"""

    name: str
    value: float
    usual: float | None
    z: float | None
    words: str


@dataclass(frozen=True)
class Verdict:
    """state; reasons in words, the worst first; off : the figures they are of; told : what is no reason"""

    state: State
    reasons: tuple[str, ...] = ()
    off: tuple[Off, ...] = ()
    told: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        figures = [{"figure": o.name, "value": o.value, "usual": o.usual, "z": o.z} for o in self.off]
        return {
            "state": str(self.state),
            "reasons": list(self.reasons),
            "told": list(self.told),
            "figures": figures,
        }


def judged(kind: str, setup: Setup, figures: Figures, line: Sequence[Past]) -> Verdict:
    """kind : DARK, FLAT or MADE_BPM, KeyError for another; line : accepted ones of the same key."""
    limits = OF_KIND[kind]
    past = sorted(line, key=lambda p: p.at)[-LOOKS_BACK:]
    cannot = _impossible(limits, setup, figures)
    if len(past) < ENOUGH:
        state = State.HELD if cannot else State.ACCEPTED
        few = f"{len(past)} accepted masters of this kind: only what cannot be is looked for"
        return Verdict(state, tuple(o.words for o in cannot), tuple(cannot), (few,))
    seen = {name: z for name, limit in limits.items() if (z := _off(name, limit, figures, past)) is not None}
    told = [_lamp(seen["lamp"], past)] if "lamp" in seen and _faint(seen["lamp"]) else []
    seen.pop("lamp", None)
    worst = sorted((o for o in seen.values() if _z(o) > WARNING), key=lambda o: -_z(o))
    held = [o for o in worst if _z(o) > HELD and _confirmed(o, limits, seen)]
    reasons = [o.words for o in (*cannot, *worst)]
    if held and (shift := _only_level(kind, worst)):
        reasons.insert(0, shift)
    elif held and (new := _new_pixels(worst)):
        reasons.insert(0, new)
    state = State.HELD if held or cannot else State.WARNING if worst else State.ACCEPTED
    return Verdict(state, tuple(reasons), (*cannot, *worst), tuple(told))


@dataclass(frozen=True)
class Band:
    """Where a figure of the next master may lie without a word. None where nothing is known of that side

    of : "accepted masters", whose median `usual` is; or "what can be", while there are too few of them
    """

    usual: float | None
    low: float | None
    high: float | None
    of: Literal["accepted masters", "what can be"]


def band(kind: str, setup: Setup, name: str, error: float, values: Sequence[float]) -> Band | None:
    """None of a figure that is not judged. values : of accepted masters, error : of the newest one"""
    limit = OF_KIND.get(kind, {}).get(name)
    if limit is None:
        return None
    past = [value for value in values[-LOOKS_BACK:] if math.isfinite(value)]
    if len(past) < ENOUGH:
        low, high = _range(name, limit, setup)
        return Band(None, low, high, "what can be") if (low, high) != (None, None) else None
    middle = median(past)
    reach = WARNING * _scale(limit, error, past, middle)
    return Band(middle, middle - reach, middle + reach, "accepted masters")


def breakpoint_at(held: Sequence[Past], line: Sequence[Past], kind: str) -> str:
    """ "the detector has changed ...", when the last three held masters of a key are alike; "" otherwise.

    held : those held one after another, with none accepted between them; line : accepted before them
    """
    last = sorted(held, key=lambda p: p.at)[-3:]
    if len(last) < 3:
        return ""
    for name, limit in OF_KIND[kind].items():
        values = [p.figures[name][0] for p in last if name in p.figures]
        usual = [p.figures[name][0] for p in line if name in p.figures]
        if limit.group == "lamp" or len(values) < 3:
            continue
        scale = _scale(limit, last[0].figures[name][1], usual or values, median(usual or values))
        if max(values) - min(values) > WARNING * math.sqrt(2.0) * scale:
            return ""
    day = f"{last[0].at:%Y-%m-%d}"
    return (
        f"the three held masters since {day} are alike: the detector may have changed. If so, accept them and"
        f' write [[breakpoint]] at = {day}, kinds = ["{kind.lower()}"]'
    )


# -- one figure ------------------------------------------------------------------------------


def _impossible(limits: Mapping[str, Limit], setup: Setup, figures: Figures) -> list[Off]:
    """Figures outside of what can be."""
    found = []
    for name, limit in limits.items():
        if name not in figures:
            continue
        value, error = figures[name]
        low, high = _range(name, limit, setup)
        if not math.isfinite(value):
            found.append(Off(name, value, None, None, f"{limit.what} is {value}"))
        elif (low is not None and value < low - HELD * error) or (
            high is not None and value > high + HELD * error
        ):
            wanted = f"at least {low:.4g}" if high is None else f"at most {high:.4g}" if low is None else ""
            words = f"{limit.what} is {_number(value, limit)}, can be {wanted or f'{low:.4g} to {high:.4g}'}"
            found.append(Off(name, value, None, None, words))
    return found


def _range(name: str, limit: Limit, setup: Setup) -> tuple[float | None, float | None]:
    """Where a figure of this setup can be."""
    if name.startswith("read_noise") and setup.read_mode in READ_NOISE:
        nominal = READ_NOISE[setup.read_mode] * math.sqrt(max(1, setup.coadds))
        return READ_NOISE_RANGE[0] * nominal, READ_NOISE_RANGE[1] * nominal
    if limit.group == "pixels" and limit.unit == "pixels" and setup.pixels:
        return None, HOT_SHARE * setup.pixels
    if limit.unit == "e-/s" and limit.group != "lamp" and setup.seconds > 0:
        # A level that is there without exposure, up to a read, is no current: it matters in short darks.
        more = READ_NOISE.get(setup.read_mode, 70.0) * max(1, setup.coadds) / setup.seconds
        return _plus(limit.low, -more), _plus(limit.high, more)
    return limit.low, limit.high


def _plus(limit: float | None, more: float) -> float | None:
    return None if limit is None else limit + more


def _off(name: str, limit: Limit, figures: Figures, past: Sequence[Past]) -> Off | None:
    """How far a figure is from the median of the past; None where too few have it."""
    usual = [p.figures[name][0] for p in past if name in p.figures and math.isfinite(p.figures[name][0])]
    if name not in figures or len(usual) < ENOUGH or not math.isfinite(figures[name][0]):
        return None
    value, error = figures[name]
    middle = median(usual)
    z = (value - middle) / _scale(limit, error, usual, middle)
    words = f"{limit.what} {_number(value, limit)}, usual {_number(middle, limit)} (z = {z:+.1f})"
    return Off(name, value, middle, z, words)


def _scale(limit: Limit, error: float, usual: Sequence[float], middle: float) -> float:
    """What a figure may differ by: how the past scatters, and floors below which nothing is a difference.

    Few values may lie close together by chance: their scatter counts more by 1 + 2/n, and never less than the
    figure's own error.
    """
    spread = MAD_TO_SIGMA * median(abs(v - middle) for v in usual) * (1.0 + 2.0 / len(usual))
    return math.hypot(spread, limit.floor, limit.relative * middle, error) or 1e-12


def _z(off: Off) -> float:
    return abs(off.z or 0.0)


def _confirmed(off: Off, limits: Mapping[str, Limit], seen: Mapping[str, Off]) -> bool:
    others = limits[off.name].confirms
    return any(name != off.name and name in seen and _z(seen[name]) > WARNING for name in others)


def _number(value: float, limit: Limit) -> str:
    return f"{value:.4g} {limit.unit}".rstrip()


# -- what several figures say together -------------------------------------------------------


def _only_level(kind: str, worst: Sequence[Off]) -> str:
    """A shift of the whole level, as of a reset voltage, is no defect of pixels: it is said apart."""
    names = {o.name for o in worst}
    rates = [o for o in worst if o.name.startswith("rate_q")]
    structure = names & {"high", "low", "hot", "hot_both", "cold", "rows", "columns"}
    signs = {math.copysign(1.0, o.z or 0.0) for o in rates}
    if kind != "DARK" or len(rates) < len(QUADRANTS) or len(signs) > 1 or structure:
        return ""
    shift = median(o.value - (o.usual or 0.0) for o in rates)
    return f"the level as a whole has shifted by {shift:+.3g} e-/s, without structure: no new bad pixels"


def _new_pixels(worst: Sequence[Off]) -> str:
    more = {o.name: o.value - (o.usual or 0.0) for o in worst if (o.z or 0.0) > 0}
    if "hot" not in more or {"rate", "high", "low"} & {o.name for o in worst}:
        return ""
    return f"{more['hot']:.0f} more hot pixels than usual, at the usual level"


def _faint(off: Off) -> bool:
    return bool(off.usual) and abs(off.value / (off.usual or 1.0) - 1.0) > LAMP_TOLD


def _lamp(off: Off, past: Sequence[Past]) -> str:
    """The oldest master with the usual light tells since when."""
    change = off.value / (off.usual or 1.0) - 1.0
    since = min(p.at for p in past)
    how = "down" if change < 0 else "up"
    more = ": its exposure may need raising" if change < -LAMP_TOLD else ""
    return f"lamp {how} {abs(change):.0%} since {since:%Y-%m-%d}{more}"
