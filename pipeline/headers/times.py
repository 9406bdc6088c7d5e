"""Dates and times in a header, in every spelling that archives hold; what is none of them is None."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Protocol

from pipeline.headers.values import Cards, number, text

# Exposure times that differ by 0.01 s are the same; the margin is for decimals that binary numbers lack.
SAME_EXPOSURE_SECONDS = 0.01 + 1e-9


def same_exposure(one: float | None, other: float | None, times: int = 1) -> bool:
    """True for exposure times [s] within 0.01 s of each other; an unknown one is like none.

    times : 2 for two frames of one group, since each is within 0.01 s of the group's first
    """
    return one is not None and other is not None and abs(one - other) < times * SAME_EXPOSURE_SECONDS


def exposure_among(seen: list[float], seconds: float) -> float:
    """The first of `seen` that an exposure time [s] is the same as; it is added where it is like none.

    A key of a mapping, where rounding would part neighbours (1.005 and 1.0051).
    """
    found = next((one for one in seen if same_exposure(one, seconds)), None)
    if found is None:
        seen.append(found := seconds)
    return found


def _time(value: Any) -> time | None:
    """A clock time from text such as 07:16:17.1."""
    found = re.fullmatch(r"\s*(\d{1,2}):(\d{1,2}):(\d{1,2})(\.\d*)?\s*", str(value or ""))
    if not found:
        return None
    hour, minute, second = (int(found[i]) for i in (1, 2, 3))
    micro = round(float("0" + (found[4] or ".0")) * 1e6)
    try:
        return time(hour, minute, min(second, 59), min(micro, 999999))
    except ValueError:
        return None


def _date(value: Any) -> date | None:
    """A date from YYYY-MM-DD, YYYY/MM/DD or from the old DD/MM/YY, which is always of the 1900s."""
    words = str(value or "").strip().removesuffix("Z").rstrip()
    try:
        if found := re.fullmatch(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})", words):
            return date(*(int(part) for part in found.groups()))
        old = re.fullmatch(r"(\d\d)/(\d\d)/(\d\d)", words)
        if old:
            return date(1900 + int(old[3]), int(old[2]), int(old[1]))
        return date.fromisoformat(words)
    except ValueError:
        return None


def _moment(words: str) -> datetime | None:
    """UTC from a date with a time, as 2016-01-02T05:06:07.8, with or without Z, UTC or an offset."""
    found = re.fullmatch(r"(\S+?)[T\s]\s*([\d:.]+)\s*(Z|UTC?|[+-]\d\d:?\d\d)?", words)
    day, hour = (_date(found[1]), _time(found[2])) if found else (None, None)
    if not (found and day and hour):
        return None
    moment, zone = datetime.combine(day, hour, UTC), found[3] or "Z"
    if zone[0] in "ZU":
        return moment
    away = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
    try:
        return moment - away if zone[0] == "+" else moment + away
    except OverflowError:
        return None


def odd_date(cards: Cards) -> str:
    """What DATE-OBS holds where it holds something that is no date; "" else."""
    words = text(cards, "DATE-OBS") or ""
    return "" if not words or _moment(words) or _date(words) else words


def ut_start(cards: Cards, filename: str) -> datetime | None:
    """When the exposure began: from the cards that say so, else the day from the name of the file."""
    clock = next(
        (t for t in (_time(cards.get(k)) for k in ("UT", "TIME-OBS", "STARTUT", "UTSTART")) if t), None
    )
    for key in ("DATE-OBS", "DATE", "UTDATE"):
        words = str(cards.get(key) or "").strip()
        if moment := _moment(words):
            return moment
        day = _date(words)
        if day and clock:
            return datetime.combine(day, clock, UTC)
    for key in ("MJD-OBS", "MJD_OBS", "OBSSTART"):
        mjd = number(cards, key)
        if mjd is not None and 15000 < mjd < 100000:  # 1899 to 2132
            return datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=mjd)
    digits = re.search(r"(\d{8})S\d{4}", filename)
    day = _date(f"{digits[1][:4]}-{digits[1][4:6]}-{digits[1][6:]}") if digits else None
    return datetime.combine(day, clock or time(0), UTC) if day else None


def ut_end(cards: Cards, start: datetime | None, exposure: float | None) -> datetime | None:
    """UTEND on the day of the start or the next; else start plus exposure; None beyond the calendar."""
    if start is None:
        return None
    clock = _time(cards.get("UTEND"))
    try:
        if clock:
            end = datetime.combine(start.date(), clock, UTC)
            return end if end >= start else end + timedelta(days=1)
        return start + timedelta(seconds=exposure or 0.0)
    except OverflowError:
        return None


_MJD_ZERO = datetime(1858, 11, 17, tzinfo=UTC)
_DAY = timedelta(days=1)


def to_mjd(when: datetime) -> float:
    """Modified Julian date of a UTC time, to a tenth of a millisecond."""
    return round((when - _MJD_ZERO) / _DAY, 9)


def from_mjd(mjd: float) -> str:
    """The same as an ISO date with time, to a millisecond, as FITS has it."""
    moment = _MJD_ZERO + timedelta(seconds=round(mjd * 86400, 3))
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


class Described(Protocol):
    """What `span` asks of descriptors."""

    @property
    def ut_datetime(self) -> datetime | None: ...
    @property
    def ut_end(self) -> datetime | None: ...
    @property
    def exposure_time(self) -> float | None: ...


def span(cards: Cards, facts: Described) -> tuple[float | None, float | None, float | None, float | None]:
    """(start, middle, end) as MJD and the seconds of exposure in them: of a stack as its cards have it
    (MJD-BEG, MJD-AVG, MJD-END, TEXPTIME), of a single frame from its descriptors; None where unknown."""
    begin, middle, end, exposure = (
        number(cards, key) for key in ("MJD-BEG", "MJD-AVG", "MJD-END", "TEXPTIME")
    )
    if facts.ut_datetime is not None:
        last = facts.ut_end or facts.ut_datetime
        begin = to_mjd(facts.ut_datetime) if begin is None else begin
        end = to_mjd(last) if end is None else end
        middle = to_mjd(facts.ut_datetime + (last - facts.ut_datetime) / 2) if middle is None else middle
    return begin, middle, end, facts.exposure_time if exposure is None else exposure


def together(
    spans: Sequence[tuple[float | None, float | None, float | None, float | None]],
) -> dict[str, Any]:
    """Cards of a stack of frames of these spans, for `span` to read; the middle is the mean of theirs by
    exposure. None where unknown."""
    begins, ends = ([s[i] for s in spans if s[i] is not None] for i in (0, 2))
    times = [(m, e) for _, m, _, e in spans if m is not None and e]
    total = sum(e for _, e in times)
    return {
        "MJD-BEG": (min(b for b in begins if b is not None), "[d] Start of the earliest frame")
        if begins
        else None,
        "MJD-AVG": (round(sum(m * e for m, e in times) / total, 9), "[d] Middle of the exposure, mean")
        if total
        else None,
        "MJD-END": (max(e for e in ends if e is not None), "[d] End of the latest frame") if ends else None,
        "TEXPTIME": (round(total, 6), "[s] Exposure of all frames together") if total else None,
    }
