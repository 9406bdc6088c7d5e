"""FRAMES: a table with a row for each frame of a stack, and for each that the pipeline left out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import NO_DATA, SATURATED, Frame
from pipeline.headers.values import number
from pipeline.verdict import LEFT_OUT, Verdict

# Column of the FRAMES table <- header card of the frame: what an observer asks of each exposure.
MEMBER_CARDS = {
    "EXPTIME": "EXPTIME",  # s
    "AIRMASS": "AIRMASS",
    "SKYLEVEL": "SKYLEVEL",  # electrons, taken off
    "FWHM": "FWHMPIX",  # pixels, median of its stars
    "FWHM_ERR": "FWHMERR",
    "ELLIPTICITY": "ELLIPTIC",
    "ELLIP_ERR": "ELLIERR",
    "ELLIP_PA": "ELLIPPA",  # degrees, of the long axis from +x to +y, where the frame is elongated
    "NSTARS": "NSTARS",  # the sample of the ones before
    "NSOURCES": "NSOURCES",
    "NMATCHED": "REGNUM",  # sources that it was registered by
    "DX": "REGDX",  # pixels by which the header's pointing was corrected
    "DY": "REGDY",
    "D_ERR": "REGERR",
    "TRANSPARENCY": "TRANSP",  # light of its stars, of that in the clear frames
    "TRANSP_ERR": "TRANSERR",
    "SCALE": "SCALEFAC",
    "NOISECOR": "NOISECOR",
}
WORDS = {"REGISTERED_BY": "REGMETH"}
SATURATED_CARD = "SATFRAC"
NAMED = "FIRSTNAM"  # card: the frame that a product is named for, where that one was left out


def name_of(frame: Frame) -> str:
    """What a frame is called in tables and notes."""
    return str(frame.header.get("ORIGNAME", frame.name))


def member_cards(frame: Frame) -> tuple[tuple[str, Any], ...]:
    """What a row says of a frame, for when the frame itself is gone."""
    known = [(card, number(frame.header, card)) for card in MEMBER_CARDS.values()]
    words = [(card, str(frame.header.get(card, ""))) for card in WORDS.values()]
    cards: list[tuple[str, Any]] = [
        (card, value) for card, value in [*known, *words] if value not in (None, "")
    ]
    return (*cards, (SATURATED_CARD, _saturated(frame)))


def member_table(frames: Sequence[Frame]) -> NDArray[np.void]:
    """One row a frame: its name, the values of MEMBER_CARDS (NaN where unknown), its saturated fraction, and
    the pipeline's verdict: VERDICT and AS_SKY in words, REASON with FIGURE and LIMIT, WEIGHT in the stack.

    Frames that were left out come last, with weight 0.
    """
    verdicts = {verdict.frame: verdict for frame in frames for verdict in frame.verdicts}
    used = {name_of(frame): dict(member_cards(frame)) for frame in frames}
    gone = {name: dict(v.cards) for name, v in verdicts.items() if name not in used}
    values = [(name, "f4") for name in (*MEMBER_CARDS, "SATURATED", "FIGURE", "LIMIT", "WEIGHT")]
    words = [
        ("NAME", "S32"),
        ("REGISTERED_BY", "S16"),
        ("VERDICT", "S16"),
        ("AS_SKY", "S16"),
        ("REASON", "S96"),
    ]
    rows = np.zeros(len(used) + len(gone), dtype=[*words, *values])
    for row, (name, cards) in zip(rows, [*used.items(), *gone.items()], strict=True):
        _fill(row, name, cards, verdicts.get(name, Verdict(name)), name in used)
    return rows


def judged_table(frames: Sequence[Frame]) -> NDArray[np.void] | None:
    """The same for the frames of a calibration, where any of them is odd; None where all are alike."""
    return member_table(frames) if any(frame.verdicts for frame in frames) else None


def _fill(row: Any, name: str, cards: Mapping[str, Any], verdict: Verdict, used: bool) -> None:
    for column, text in (
        ("NAME", name),
        *((column, str(cards.get(card, ""))) for column, card in WORDS.items()),
        ("VERDICT", verdict.use),
        ("AS_SKY", verdict.sky),
        ("REASON", verdict.reason),
    ):
        row[column] = text.encode("ascii", "replace")
    for column, card in MEMBER_CARDS.items():
        row[column] = cards.get(card, math.nan)
    row["SATURATED"] = cards.get(SATURATED_CARD, math.nan)
    row["FIGURE"], row["LIMIT"] = verdict.figure, verdict.limit
    row["WEIGHT"] = verdict.weight if used and verdict.use != LEFT_OUT else 0.0


def _saturated(frame: Frame) -> float:
    """Fraction of the pixels with data that are saturated."""
    here = frame.dq.size - np.count_nonzero(frame.dq & NO_DATA)
    return np.count_nonzero(frame.dq & SATURATED) / here if here else math.nan
