"""Curves as SVG: small, printable, readable without JavaScript.

chart([(t, 0.6, 0.02), ...], low=0.2, high=1.6, limits={"70": 0.6}, label="FWHM")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil, floor, log10

from daemon.markup import Safe, tag

Point = Sequence[float | None]  # time in seconds since the epoch, value, its error or None

WIDTH, HEIGHT = 250, 100
LEFT, RIGHT, TOP, BOTTOM = 30, 6, 6, 16
_OF_A_NIGHT = (300, 600, 1800, 3600, 7200, 14400, 28800)  # s between two times on the axis
_OF_DAYS = tuple(86400 * days for days in (1, 2, 5, 10, 30, 60, 120, 365))
FEWEST = 600.0  # s that the axis of time spans at least


def chart(
    points: Sequence[Point],
    *,
    label: str,
    low: float | None = None,
    high: float | None = None,
    limits: Mapping[str, float] | None = None,
    down: bool = False,
    least: float = 0.0,
) -> Safe:
    """Dots with error bars over UT. low, high : of the axis, which stays so that eyes learn it; None is
    that of the points. down : small numbers above, as magnitudes"""
    told = [p for p in points if p[0] is not None and p[1] is not None]
    if not told:
        return tag("p", f"{label}: nothing measured yet", class_="dim")
    times, values = [float(p[0] or 0) for p in told], [float(p[1] or 0) for p in told]
    begin, end = min(times), max(times)
    if end - begin < FEWEST:
        begin, end = (begin + end - FEWEST) / 2, (begin + end + FEWEST) / 2
    floor_, top = _axis(values, low, high, least)

    def x(at: float) -> float:
        return round(LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        part = (min(max(value, floor_), top) - floor_) / (top - floor_)
        part = 1 - part if not down else part
        return round(TOP + part * (HEIGHT - TOP - BOTTOM), 1)

    parts = [*_grid(floor_, top, y), *_clock(begin, end, x)]
    for name, value in (limits or {}).items():
        if floor_ <= value <= top:
            parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="limit"))
            parts.append(
                tag("text", name, x=WIDTH - RIGHT, y=y(value) - 2, text_anchor="end", class_="of-limit")
            )
    bars = "".join(
        f"M{x(t)} {y(v - e)}V{y(v + e)}"
        for t, v, e in ((p[0], p[1], p[2]) for p in told)
        if t and v is not None and e
    )
    dots = "".join(f"M{x(t)} {y(v)}h0" for t, v in zip(times, values, strict=True))
    parts += [tag("path", d=Safe(bars), class_="bars"), tag("path", d=Safe(dots), class_="dots")]
    said = f"{label}: {len(told)} points, the last {values[-1]:.3g}"
    box = f"0 0 {WIDTH} {HEIGHT}"
    return tag("svg", tag("title", said), *parts, viewBox=box, role="img", class_="chart")


def _axis(
    values: Sequence[float], low: float | None, high: float | None, least: float
) -> tuple[float, float]:
    """The fixed axis where the points fit in it; else wide enough for all of them."""
    floor_ = min(values) if low is None else min(low, *values, low)
    top = max(values) if high is None else max(high, *values, high)
    if (short := max(least, 1e-6) - (top - floor_)) > 0:
        floor_, top = floor_ - short / 2, top + short / 2
    margin = 0.05 * (top - floor_)
    return (
        floor_ - margin if low is None or floor_ < low else floor_,
        top + margin if high is None or top > high else top,
    )


def _grid(low: float, high: float, y: Callable[[float], float]) -> list[Safe]:
    step = 10 ** floor(log10((high - low) / 2))
    step *= 5 if (high - low) / step > 10 else 2 if (high - low) / step > 4 else 1
    made, value = [], step * (floor(low / step) + 1)
    while value < high:
        made.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y(value), y2=y(value), class_="grid"))
        made.append(tag("text", f"{value:.4g}", x=LEFT - 3, y=y(value) + 3, text_anchor="end"))
        value += step
    return made


def _clock(begin: float, end: float, x: Callable[[float], float]) -> list[Safe]:
    span = end - begin
    step = next((s for s in (*_OF_A_NIGHT, *_OF_DAYS) if span / s <= 6), 86400 * ceil(span / 6 / 86400))
    words = "%H:%M" if step < 86400 else "%m-%d" if span < 300 * 86400 else "%Y-%m"
    made, at = [], begin // step * step + step
    while at < end:
        clock = f"{datetime.fromtimestamp(at, UTC):{words}}"
        made.append(tag("text", clock, x=x(at), y=HEIGHT - 4, text_anchor="middle"))
        at += step
    return made
