"""Zero points of standard stars, and which of a night's the science images of a camera and filter take.

    choice = choose(zero_points, when=ut, airmass=1.2, extinction=0.06, extinction_error=0.03)

Pure. What is chosen depends on the set of standards and on the image, never on the order in which they came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from pipeline import levels
from pipeline.headers import standards
from pipeline.headers.descriptors import describe
from pipeline.headers.values import Cards, number
from pipeline.names import base_of
from pipeline.verdict import LEFT_OUT

# A standard with one of these is measured, but its zero point is not to be trusted.
DOUBTFUL = ("variable", "double", "suspect", "uncertain")

# Limits in magnitudes. Why, and by whom:
ABOVE_NOMINAL = (
    0.10  # clouds only take light; NIRI's zero points are steady to 3 % (Gemini), 3 times that is room
)
BETWEEN_FRAMES = 0.05  # frames of one clear sequence repeat to 0.02 to 0.03; Gemini tells clouds from 0.08 on
IN_CLOUD = 0.30  # below nominal: more than Gemini's CC70
APART = 0.05  # two standards that differ by less agree, whatever errors they claim
SIGMAS = 3.0  # and so many times their errors are allowed besides
LESS_EXACT = 1.5  # a nearer standard is not taken when its error is so many times that of the best

NO_STANDARD = (levels.RISK, "risk: no standard, only the nominal one")  # ZPLEV


@dataclass(frozen=True)
class ZeroPoint:
    """What the header of a standard's image says: m = value - 2.5 log10(e-/s) - extinction (airmass - 1).

    value, error : magnitudes; the error has that of the extinction between airmass 1 and `airmass` in it
    star : the standard; magnitude : its own, of the catalogue; image : name of the image, without .fits
    nominal : zero point of a clear night, where it is known
    scatter : of the transparency between the frames of the image, magnitudes, beyond their errors; its
        share is in `error`
    ut : when the image was begun; notes : of the image
    """

    value: float
    error: float
    star: str
    magnitude: float
    airmass: float
    extinction: float
    extinction_error: float
    image: str
    nominal: float | None = None
    scatter: float = 0.0
    ut: datetime | None = None
    notes: tuple[str, ...] = ()

    @property
    def impossible(self) -> str:
        """Why no sky can have given this value; "" where one can."""
        return impossible(self.value, self.error, self.nominal)

    @property
    def cloud(self) -> str:
        """What shows that the star was seen through cloud; "" where nothing does."""
        if self.scatter > BETWEEN_FRAMES:
            return f"its frames differ by {self.scatter:.2f} mag in transparency, limit {BETWEEN_FRAMES:g}"
        if self.nominal is not None and self.nominal - self.value > IN_CLOUD + SIGMAS * self.error:
            return f"{self.nominal - self.value:.2f} mag below nominal, limit {IN_CLOUD:g}"
        return ""

    def at(self, airmass: float, extinction: float, extinction_error: float) -> tuple[float, float]:
        """(value, error) for images at another airmass, by the extinction that is assumed for them.

        What was measured is the zero point at the standard's airmass; an extinction that is wrong changes a
        magnitude only by the difference of the two.
        """
        value = self.value + (extinction - self.extinction) * (self.airmass - 1)
        measured = self.error**2 - (self.extinction_error * (self.airmass - 1)) ** 2
        return value, math.sqrt(max(measured, 0.0) + (extinction_error * (airmass - self.airmass)) ** 2)

    def level(self, when: datetime | None, airmass: float, limits: tuple[timedelta, ...]) -> tuple[int, str]:
        """ZPLEV with its comment, of an image of that time and airmass. limits : of the levels of the rule"""
        apart = None
        if self.ut is not None and when is not None:
            apart = _aware(self.ut) - _aware(when)
        return levels.of_zero_point(apart, abs(self.airmass - airmass), limits)


def read(cards: Cards, name: str) -> ZeroPoint | None:
    """The zero point that an image of a standard has in its header; None for any other image.

    An image that carries the zero point of another (ZPIMAGE), or one of a star that is not to be trusted,
    has none to give.
    """
    values: dict[str, Any] = {key: number(cards, key) for key in ("MAGZPT", "MAGZERR", "ZPMAG", "KEXT")}
    star = standards.find(str(cards.get("ZPSTAR", "")))
    if None in values.values() or "ZPIMAGE" in cards or star is None or doubts(star):
        return None
    cloud = number(cards, "CLOUDEXT")
    return ZeroPoint(
        values["MAGZPT"],
        values["MAGZERR"],
        star.name,
        values["ZPMAG"],
        number(cards, "AIRMASS") or 1.0,
        values["KEXT"],
        number(cards, "KEXTERR") or 0.0,
        base_of(name),
        nominal=None if cloud is None else values["MAGZPT"] + cloud,
        scatter=number(cards, "ZPFSCAT") or 0.0,
        ut=describe(cards).ut_datetime,
    )


def doubts(star: standards.Standard) -> list[str]:
    """Why the zero point of a star may be wrong."""
    return [word for word in DOUBTFUL if word in star.flag]


def impossible(value: float, error: float, nominal: float | None) -> str:
    """Why a zero point cannot be true: it is brighter than a clear sky gives; "" where it can be."""
    limit = ABOVE_NOMINAL + SIGMAS * error
    if nominal is None or value - nominal <= limit:
        return ""
    return f"{value - nominal:.2f} mag above nominal {nominal:.2f}, limit {limit:.2f}"


def scatter_of_frames(members: np.ndarray[Any, Any] | None) -> tuple[float, int] | None:
    """(scatter in magnitudes beyond the frames' own errors, number of frames) of the transparency of a stack.

    members : the FRAMES table; its columns TRANSPARENCY (relative, 1 is the clearest) and TRANSP_ERR. None
        where these are not known for two of the frames that are in the stack
    """
    if members is None or not {"TRANSPARENCY", "TRANSP_ERR"} <= set(members.dtype.names or ()):
        return None
    rows = members
    if "VERDICT" in (members.dtype.names or ()):
        rows = members[[_text(word) != LEFT_OUT for word in members["VERDICT"]]]
    light = rows["TRANSPARENCY"].astype(float)
    known = np.isfinite(light) & (light > 0)
    if known.sum() < 2:
        return None
    light, error = light[known], np.nan_to_num(rows["TRANSP_ERR"].astype(float)[known])
    magnitudes = -2.5 * np.log10(light)
    return _excess(magnitudes, 2.5 / math.log(10) * error / light), int(known.sum())


def _text(word: Any) -> str:
    return word.decode("ascii", "replace").strip() if isinstance(word, bytes) else str(word).strip()


def _excess(values: Sequence[float] | np.ndarray[Any, Any], errors: Any) -> float:
    """Standard deviation of values beyond what their errors explain; 0 for one value."""
    if len(values) < 2:
        return 0.0
    rms = float(np.mean(np.square(np.asarray(errors, float))))
    return math.sqrt(max(float(np.var(np.asarray(values, float), ddof=1)) - rms, 0.0))


@dataclass(frozen=True)
class Choice:
    """zero : the one to take, None where none can be
    scatter : between the standards that are possible, magnitudes beyond their errors
    compared : how many these are
    photometric : False where a standard tells of cloud, None where one alone says nothing of it
    notes : which was taken and why each of the others was not, one sentence each
    """

    zero: ZeroPoint | None
    scatter: float = 0.0
    compared: int = 0
    photometric: bool | None = None
    notes: tuple[str, ...] = ()


def choose(
    zeros: Iterable[ZeroPoint],
    *,
    when: datetime | None,
    airmass: float,
    extinction: float,
    extinction_error: float,
) -> Choice:
    """Which zero point an image takes, of those that standards of its night, camera and filter gave.

    when, airmass : of the image. Impossible ones are out, then those in cloud while others are left. Of the
    rest the largest set that agree with one another is taken; of equally large ones the brighter, because
    clouds only take light. Of these the nearest in time is taken, unless another is much more exact.
    """
    found = sorted({zero.image: zero for zero in zeros}.values(), key=lambda z: z.image)
    out = {z.image: f"impossible, {z.impossible}" for z in found if z.impossible}
    possible = [z for z in found if not z.impossible]
    if not possible:
        notes = [f"zero point of {_named(z)} not used: {out[z.image]}" for z in found]
        return Choice(
            None, notes=(*notes, *(["no standard of the night gives a zero point"] if found else []))
        )
    clear = [z for z in possible if not z.cloud]
    if clear:
        out |= {z.image: f"in cloud, {z.cloud}" for z in possible if z.cloud}
    agreeing = _largest(clear or possible)

    def error(zero: ZeroPoint) -> float:
        return zero.at(airmass, extinction, extinction_error)[1]

    exact = LESS_EXACT * min(map(error, agreeing))

    def order(zero: ZeroPoint) -> tuple[bool, float, str]:
        return (error(zero) > exact, _seconds(zero, when), zero.image)

    best, *others = sorted(agreeing, key=order)
    for zero in clear or possible:
        if zero not in agreeing:
            out[zero.image] = f"{_apart(zero, best)}, limit {_limit(zero, best):.2f}"
    out |= {
        z.image: f"it agrees, {_apart(z, best)}, and is {_why_not(z, best, when, exact, error)}"
        for z in others
    }
    scatter = _excess([z.value for z in possible], [z.error for z in possible])
    split = any(z not in agreeing for z in possible)
    cloudy = split or any(z.cloud for z in possible)
    notes = [f"zero point of {_named(z)} not used: {out[z.image]}" for z in found if z.image in out]
    if notes:
        notes.insert(0, f"zero point of {_named(best)} used: {_why(best, agreeing, possible)}")
    if cloudy:
        spread = max(z.value for z in possible) - min(z.value for z in possible)
        what = best.cloud if not clear else f"its standards differ by up to {spread:.2f} mag"
        notes.append(f"the night was not photometric: {what}")
    photometric = False if cloudy else True if len(possible) > 1 else None
    return Choice(best, scatter, len(possible), photometric, tuple(notes))


def _largest(zeros: Sequence[ZeroPoint]) -> list[ZeroPoint]:
    """The largest set that agrees with one of them; of as large ones the one with the brighter mean."""

    def near(middle: ZeroPoint) -> list[ZeroPoint]:
        return [z for z in zeros if abs(z.value - middle.value) <= _limit(z, middle)]

    sets = [near(zero) for zero in zeros]
    return max(sets, key=lambda s: (len(s), sum(z.value for z in s) / len(s), [z.image for z in s]))


def _limit(one: ZeroPoint, other: ZeroPoint) -> float:
    return max(APART, SIGMAS * math.hypot(one.error, other.error))


def _apart(zero: ZeroPoint, best: ZeroPoint) -> str:
    away = zero.value - best.value
    return f"{abs(away):.2f} mag {'brighter' if away > 0 else 'fainter'} than {best.image}"


def _named(zero: ZeroPoint) -> str:
    return f"{zero.image} ({zero.star}, {zero.value:.2f} +- {zero.error:.2f})"


def _why(best: ZeroPoint, agreeing: Sequence[ZeroPoint], possible: Sequence[ZeroPoint]) -> str:
    if len(agreeing) > 1:
        return f"{len(agreeing)} of {len(possible)} possible standards agree"
    return (
        "the brighter one, seen through less cloud" if len(possible) > 1 else "the only one that is possible"
    )


def _why_not(zero: ZeroPoint, best: ZeroPoint, when: datetime | None, exact: float, error: Any) -> str:
    if error(zero) > exact:
        return f"less exact ({error(zero):.3f} against {error(best):.3f})"
    return "farther in time" if _seconds(zero, when) > _seconds(best, when) else "no better"


def _seconds(zero: ZeroPoint, when: datetime | None) -> float:
    """How far in time a standard is from the image; without a time on either side, farther than any other."""
    if zero.ut is None or when is None:
        return math.inf
    return abs((_aware(zero.ut) - _aware(when)).total_seconds())


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)
