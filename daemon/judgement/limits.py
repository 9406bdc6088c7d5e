"""What a master is held to: one line of data for each figure, with the source or reason of every number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["level", "shape", "noise", "pixels", "lamp"]
QUADRANTS = ("_q1", "_q2", "_q3", "_q4")


@dataclass(frozen=True)
class Limit:
    """How one figure of a master is judged. Ranges and floors are in the figure's own unit.

    what, unit : its words; group : what it tells of
    low, high : where it can be at all, for a key of which little is known; None where nobody knows
    floor : part of the scale that is always there, however alike the masters of the past are
    relative : the same as a part of the usual value
    confirms : figures of which one must be off as well (|z| > 4) before this one holds a master back
    """

    what: str
    unit: str
    group: Group
    low: float | None
    high: float | None
    floor: float
    relative: float
    confirms: tuple[str, ...]
    source: str


_ALL_RATES = tuple(f"rate{q}" for q in QUADRANTS)
_ALL_NOISES = tuple(f"read_noise{q}" for q in QUADRANTS)
_ALL_LEVELS = tuple(f"level{q}" for q in QUADRANTS)
_ALL_GAINS = tuple(f"gain{q}" for q in QUADRANTS)

# Read noise of one frame by read mode, electrons (DRAGONS' lookup of NIRI; gemini.edu NIRIDetector.html has
# 10, 35, 70): times the root of the coadds where several are added.
READ_NOISE = {"Low Background": 12.3, "Medium Background": 35.0, "High Background": 70.0}
READ_NOISE_RANGE = (0.7, 1.6)  # of that: a cold start knows no more than the published numbers, which differ
# Of the array. How many bad pixels NIRI has is written nowhere; NOTCam had 1 %, and 5 % after years of
# warming up (reports 40 and 43 of the telescope's council).
HOT_SHARE = 0.05

_RATE = "0.25 e-/s dark, 0.5 with the background of a blanked detector (gemini.edu NIRIDetector.html)"
_FLAT = "response uniform to 18 % (peak), repeatable to 0.3 % (gemini.edu NIRIDetector.html)"
_NOISE = "photon and counting errors are far below 1 %; 1 % is what a bias voltage may do in a year"
_COUNTS = "a pixel in two nights becomes hot or recovers; pixels near the limit are in the figure's own error"


def _rate(what: str, confirms: tuple[str, ...]) -> Limit:
    # No range for a cold start: the pedestal of the read-out is in the level, and its height is not known.
    return Limit(what, "e-/s", "level", None, None, 0.02, 0.05, confirms, _RATE)


def _noise(what: str, confirms: tuple[str, ...]) -> Limit:
    return Limit(what, "e-", "noise", None, None, 0.0, 0.01, confirms, _NOISE)


def _level(what: str, confirms: tuple[str, ...], low: float, high: float) -> Limit:
    return Limit(what, "of the level", "shape", low, high, 0.002, 0.0, confirms, _FLAT)


DARK: dict[str, Limit] = {
    "rate": _rate("dark rate", _ALL_RATES),
    **{f"rate{q}": _rate(f"dark rate of quadrant {q[-1]}", ("rate", "high", "low", *_ALL_NOISES))
       for q in QUADRANTS},
    "high": Limit("brightest block above the middle", "e-/s", "shape", None, 3.0, 0.03, 0.05,
                  (*_ALL_RATES, "sigma", "rows", "columns"), _RATE),
    "low": Limit("faintest block below the middle", "e-/s", "shape", -3.0, None, 0.03, 0.05,
                 (*_ALL_RATES, "sigma", "rows", "columns"), _RATE),
    "read_noise": _noise("read noise", _ALL_NOISES),
    **{f"read_noise{q}": _noise(f"read noise of quadrant {q[-1]}",
                                ("read_noise", "sigma", f"rate{q}", "hot", "cold")) for q in QUADRANTS},
    "sigma": _noise("scatter from pixel to pixel", ("read_noise", "hot", "high", "rows", "columns")),
    "rows": Limit("pattern along rows", "e-", "shape", None, None, 0.1, 0.05, ("sigma", "high", "low"),
                  "the product's own row cleaning leaves 0.1 e- and less"),
    "columns": Limit("pattern along columns", "e-", "shape", None, None, 0.1, 0.05, ("sigma", "high", "low"),
                     "the product's own row cleaning leaves 0.1 e- and less"),
    "hot": Limit("hot pixels", "pixels", "pixels", None, None, 5.0, 0.02, ("hot_both", "sigma"), _COUNTS),
    "hot_both": Limit("pixels hot in each half of the frames", "pixels", "pixels", None, None, 5.0, 0.02,
                      ("hot",), _COUNTS),
    "cold": Limit("cold pixels", "pixels", "pixels", None, None, 5.0, 0.02, ("sigma", *_ALL_RATES), _COUNTS),
}  # fmt: skip

FLAT: dict[str, Limit] = {
    # Never holds a master back: the lamps of GCAL age by 10 to 20 % a year (header of Gemini's own table of
    # lamp exposures), which means nothing for the science.
    "lamp": Limit("lamp", "e-/s", "lamp", 0.0, None, 0.0, 0.05, (), "10 to 20 % a year, NIRI_FLAT.csv"),
    **{f"level{q}": _level(f"level of quadrant {q[-1]}", ("high", "low", "outside", *_ALL_LEVELS), 0.5, 1.5)
       for q in QUADRANTS},
    "high": _level("brightest block", ("low", "outside", *_ALL_LEVELS), 0.0, 1.0),
    "low": _level("faintest block", ("high", "outside", *_ALL_LEVELS), -1.0, 0.0),
    "outside": Limit("pixels outside 0.8 to 1.25 of the level", "of all", "shape", 0.0, 0.3, 0.002, 0.05,
                     ("high", "low", *_ALL_LEVELS), _FLAT),
    "rows": Limit("pattern along rows", "of the level", "shape", None, None, 0.002, 0.05,
                  ("high", "low", "outside"), _FLAT),
    "columns": Limit("pattern along columns", "of the level", "shape", None, None, 0.002, 0.05,
                     ("high", "low", "outside"), _FLAT),
    # A cold start allows for what nobody has measured: the published gain is good to some per cent.
    "gain": Limit("light over its variance", "", "noise", 0.8, 1.25, 0.0, 0.003, _ALL_GAINS, _NOISE),
    **{f"gain{q}": Limit(f"light over its variance, quadrant {q[-1]}", "", "noise", 0.8, 1.25, 0.0, 0.003,
                         ("gain", f"level{q}"), _NOISE) for q in QUADRANTS},
}  # fmt: skip

_BAD = "pixels near a limit come and go; a defect of the array or of a frame makes hundreds bad at once"
_ALL_BAD = tuple(f"bad{q}" for q in QUADRANTS)
NEW_SHARE = 0.005  # of the array, against the mask before: our own, far beyond what a night brings
MASK: dict[str, Limit] = {
    "bad": Limit("bad pixels", "of all", "pixels", 0.0, 0.3, 2e-5, 0.02, _ALL_BAD, _BAD),
    **{f"bad{q}": Limit(f"bad pixels of quadrant {q[-1]}", "of all", "pixels", 0.0, 0.5, 8e-5, 0.02,
                        ("bad",), _BAD) for q in QUADRANTS},
    "new": Limit("bad pixels that the mask before had not", "of all", "pixels", 0.0, NEW_SHARE, 1e-5, 0.02,
                 ("more", "bad"), _BAD),
    "more": Limit("bad pixels more than before", "of all", "pixels", None, NEW_SHARE, 1e-5, 0.0,
                  ("new", "bad"), _BAD),
}  # fmt: skip

OF_KIND = {"DARK": DARK, "FLAT": FLAT, "MADE_BPM": MASK}
