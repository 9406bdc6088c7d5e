"""One measure over the days, as text and as a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.ledger import measures
from daemon.ledger.store import Reader
from daemon.model.measures import Point
from daemon.people import svg
from pipeline.files import disk, outputs
from pipeline.params import suggest

BAR = 24  # characters of the bar that shows where a value lies between the lowest and the highest
SIZE, MARGIN = (1000, 420), 60  # of the picture and its rim, pixels
INK, GRID, DOT, RIM = "#14171a", "#d0d5da", "#0072B2", "#5B6670"


def plain(point: Point) -> dict[str, Any]:
    """For JSON."""
    return {
        "of": point.of,
        "number": point.number,
        "key": point.key,
        "at": _time(point.at).isoformat(timespec="seconds"),
        "value": point.measure.value,
        "error": point.measure.error,
        "unit": point.measure.unit,
    }


def nothing(db: Reader, name: str, key: str | None, days: float | None) -> str:
    """Why there is no trend: one line with the nearest name, or with what is known."""
    known = measures.names(db)
    if name not in known:
        return f"no measure {name!r} of anything yet{suggest(name, known)}"
    keys = measures.keys(db, name)
    if key is not None and key not in keys:
        return f"{name}: no setting {key!r}{suggest(key, keys)}: there are {', '.join(keys)}"
    return f"{name}: nothing in the last {days:g} days" if days else f"{name}: no value"


def lines(points: Sequence[Point], width: int) -> Iterator[str]:
    """A line for each value, with a bar that shows where it lies; then how many there are, median and
    scatter."""
    values = sorted(point.measure.value for point in points)
    low, high = values[0], values[-1]
    unit = points[0].measure.unit
    yield f"{points[0].measure.name}{f' in {unit}' if unit else ''}: {len(points)} values"
    for point in points:
        one = point.measure
        place = round((BAR - 1) * (one.value - low) / (high - low)) if high > low else 0
        bar = "·" * place + "●" + "·" * (BAR - 1 - place)
        error = f" ± {one.error:.2g}" if one.error is not None else ""
        said = f"{_time(point.at):%Y-%m-%d %H:%M}  {bar}  {svg.number(one.value)}{error}  {point.key}"
        yield said[:width]
    middle = values[len(values) // 2]
    scatter = 1.4826 * sorted(abs(v - middle) for v in values)[len(values) // 2]
    ends = f"from {svg.number(low)} to {svg.number(high)}"
    yield f"median {svg.number(middle)}, robust scatter {scatter:.2g}, {ends}"


def save(path: Path, points: Sequence[Point]) -> None:
    """Draw the points with their errors into a PNG file. Raises WouldOverwrite, OSError."""
    from PIL import PngImagePlugin

    outputs.check(path, "picture")
    made, content = drawn(points), io.BytesIO()
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", "nirid")
    made.save(content, "PNG", pnginfo=mark)
    disk.write_whole(path, content.getvalue())


def drawn(points: Sequence[Point]) -> Any:
    """The picture: time to the right, the value upwards, with error bars."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    (first, last), (low, high) = _range([p.at for p in points]), _range(_reach(points))

    def place(at: float, value: float) -> tuple[float, float]:
        x = MARGIN + (SIZE[0] - 2 * MARGIN) * (at - first) / (last - first)
        return x, SIZE[1] - MARGIN - (SIZE[1] - 2 * MARGIN) * (value - low) / (high - low)

    for k in range(5):
        value, when = low + k * (high - low) / 4, first + k * (last - first) / 4
        y, x = place(first, value)[1], place(when, low)[0]
        draw.line([(MARGIN, y), (SIZE[0] - MARGIN, y)], fill=GRID)
        draw.text((6, y - 6), svg.number(value), fill=RIM)
        draw.text((x - 40, SIZE[1] - MARGIN + 10), f"{_time(when):%m-%d %H:%M}", fill=RIM)
    one = points[0].measure
    draw.text((MARGIN, 18), f"{one.name}{f' in {one.unit}' if one.unit else ''}   {_keys(points)}", fill=INK)
    for point in points:
        x, y = place(point.at, point.measure.value)
        error = point.measure.error or 0.0
        ends = [place(point.at, point.measure.value + sign * error)[1] for sign in (-1, 1)]
        draw.line([(x, ends[0]), (x, ends[1])], fill=DOT)
        draw.ellipse([(x - 3, y - 3), (x + 3, y + 3)], fill=DOT)
    return image


def _reach(points: Sequence[Point]) -> list[float]:
    return [p.measure.value + sign * (p.measure.error or 0.0) for p in points for sign in (-1, 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the lowest to the highest with a rim; never empty."""
    low, high = min(values), max(values)
    rim = 0.05 * (high - low) or max(0.05 * abs(high), 1e-6)
    return low - rim, high + rim


def _keys(points: Sequence[Point]) -> str:
    found = sorted({point.key for point in points})
    return found[0] if len(found) == 1 else f"{len(found)} settings"


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
