"""Two product files compared: which cards, table cells and pixels differ, and by how much.

    found = differences("N20160102S0271_image.fits", "made_again.fits")      # () when nothing differs

Pixels are compared as numbers: the largest difference of SCI is in units of sqrt(VAR) of the first file.
Checksums are not compared: they follow from the rest. (astropy's FITSDiff knows no variance, and answers in
text alone.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.files.pixels import Pixels
from pipeline.files.structure import BLOCK, Hdu, Path, load
from pipeline.files.tables import decode_table

CARD = 80  # characters
FOLLOWING = ("CHECKSUM", "DATASUM", "END", "")  # keywords of cards that say nothing by themselves
SHOWN = 60  # characters of a long text that are shown, from shortly before where it differs


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    part : EXTNAME, "primary" for the first header; what : keyword, column, or "pixels"
    was, now : in words; of cells and pixels, where the difference is largest
    count : how many cells or pixels; sigma : the largest difference in units of sqrt(VAR), of SCI only
    """

    part: str
    kind: Literal["card", "cells", "pixels", "part"]
    what: str
    was: str
    now: str
    count: int = 1
    sigma: float | None = None

    @property
    def words(self) -> str:
        """In one line."""
        if self.kind == "part":
            return f"{self.part}: {self.was} -> {self.now}"
        if self.kind == "card":
            return f"{self.part} {self.what}: {self.was} -> {self.now}"
        many = f"{self.count} {'pixels differ' if self.kind == 'pixels' else 'cells differ'}"
        much = "" if self.sigma is None else f", by up to {self.sigma:.3g} sqrt(VAR)"
        place = "" if self.kind == "pixels" else f" {self.what}"
        return f"{self.part}{place}: {many}{much}; {self.was} -> {self.now}"


def differences(first: Path, second: Path) -> tuple[Difference, ...]:
    """Everything that differs, in the order of the first file. Raises DamagedFile, OSError."""
    one, other = _File(first), _File(second)
    names = list(dict.fromkeys([*one.parts, *other.parts]))
    return tuple(difference for name in names for difference in _of_part(name, one, other))


class _File:
    """A file in memory. parts : name of an HDU -> its number"""

    def __init__(self, path: Path) -> None:
        self.hdus, self.data = load(path)
        self.pixels = Pixels(path, self.hdus, self.data)
        self.parts: dict[str, int] = {}
        for number, hdu in enumerate(self.hdus):
            name = hdu.name or ("primary" if not number else "extension")
            self.parts[name if name not in self.parts else f"{name} {number}"] = number

    def cards(self, number: int) -> dict[str, tuple[str, ...]]:
        """Keyword -> what stands behind it, comment and all, of each of its cards."""
        begin = _end_of(self.hdus[number - 1]) if number else 0
        text = bytes(self.data[begin : self.hdus[number].offset]).decode("ascii", "replace")
        found: dict[str, list[str]] = {}
        keyword = ""
        for at in range(0, len(text), CARD):
            card = text[at : at + CARD]
            if not card.startswith("CONTINUE"):
                keyword = card[:8].strip()
                found.setdefault(keyword, []).append(card[8:].strip(" ="))
            else:
                found[keyword][-1] = found[keyword][-1].rstrip("&' ") + card[8:].strip(" '&")
        return {key: tuple(values) for key, values in found.items() if key not in FOLLOWING}

    def plane(self, number: int) -> npt.NDArray[Any]:
        """Pixels as they are meant: integers with the zero that the header gives them."""
        stored, zero = self.pixels.stored(number), self.hdus[number].cards.get("BZERO")
        if stored.dtype.kind == "i" and isinstance(zero, int | float):
            return stored.astype(np.int64) + int(zero)
        return stored

    def table(self, number: int) -> npt.NDArray[np.void] | None:
        hdu = self.hdus[number]
        return decode_table(hdu.cards, self.data[hdu.offset : hdu.offset + hdu.length])

    def bytes_of(self, number: int) -> bytes:
        hdu = self.hdus[number]
        return bytes(self.data[hdu.offset : hdu.offset + hdu.length])


def _end_of(hdu: Hdu) -> int:
    return hdu.offset + -(-hdu.length // BLOCK) * BLOCK


def _of_part(name: str, one: _File, other: _File) -> Iterator[Difference]:
    if name not in one.parts or name not in other.parts:
        there = [name in one.parts, name in other.parts]
        was, now = ("there" if is_there else "not there" for is_there in there)
        yield Difference(name, "part", "", was, now)
        return
    i, j = one.parts[name], other.parts[name]
    yield from _of_cards(name, one.cards(i), other.cards(j))
    if one.hdus[i].is_image and other.hdus[j].is_image:
        yield from _of_pixels(name, one, other)
    elif one.bytes_of(i) != other.bytes_of(j):
        yield from _of_table(name, one.table(i), other.table(j))


def _of_cards(
    name: str, was: dict[str, tuple[str, ...]], now: dict[str, tuple[str, ...]]
) -> Iterator[Difference]:
    for keyword in dict.fromkeys([*was, *now]):
        pairs = itertools.zip_longest(was.get(keyword, ()), now.get(keyword, ()), fillvalue=None)
        for before, after in pairs:
            if before != after:
                yield Difference(name, "card", keyword, *_apart(before, after))


def _apart(was: str | None, now: str | None) -> tuple[str, str]:
    """Both texts where they differ first, or that one is not there."""
    if was is None or now is None:
        return _or_not_there(was), _or_not_there(now)
    same = next(
        (n for n, (a, b) in enumerate(zip(was, now, strict=False)) if a != b), min(len(was), len(now))
    )
    start = max(0, same - SHOWN // 3) if max(len(was), len(now)) > SHOWN else 0
    return _cut(was, start), _cut(now, start)


def _or_not_there(text: str | None) -> str:
    return "not there" if text is None else _cut(text, 0)


def _cut(text: str, start: int) -> str:
    shown = text[start : start + SHOWN]
    return f"{'...' if start else ''}{shown}{'...' if start + SHOWN < len(text) else ''}"


def _of_table(
    name: str, was: npt.NDArray[np.void] | None, now: npt.NDArray[np.void] | None
) -> Iterator[Difference]:
    if was is None or now is None or was.dtype.names != now.dtype.names:
        yield Difference(name, "part", "", _columns(was), _columns(now))
        return
    if len(was) != len(now):
        yield Difference(name, "part", "", f"{len(was)} rows", f"{len(now)} rows")
    rows = min(len(was), len(now))
    for column in was.dtype.names or ():
        yield from _of_column(name, column, was[column][:rows], now[column][:rows])


def _columns(table: npt.NDArray[np.void] | None) -> str:
    return "a table that cannot be read" if table is None else f"columns {' '.join(table.dtype.names or ())}"


def _of_column(name: str, column: str, was: npt.NDArray[Any], now: npt.NDArray[Any]) -> Iterator[Difference]:
    apart = _differ(was, now)
    rows = np.flatnonzero(apart)
    if not rows.size:
        return
    row = int(rows[0])
    if was.dtype.kind in "fiu" and now.dtype.kind in "fiu":
        with np.errstate(invalid="ignore"):
            size = np.abs(now[rows].astype(float) - was[rows].astype(float))
        row = int(rows[int(np.argmax(np.nan_to_num(size, nan=np.inf)))])
    before, after = _apart(_text(was[row]), _text(now[row]))
    yield Difference(name, "cells", column, f"in row {row + 1} {before}", after, int(rows.size))


def _of_pixels(name: str, one: _File, other: _File) -> Iterator[Difference]:
    was, now = one.plane(one.parts[name]), other.plane(other.parts[name])
    if was.shape != now.shape:
        yield Difference(name, "part", "", _size(was), _size(now))
        return
    apart = _differ(was, now)
    if not apart.any():
        return
    where = np.flatnonzero(apart)
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(now.ravel()[where].astype(float) - was.ravel()[where].astype(float))
    sigma = _sigma(name, one, where, size, was.shape)
    most = int(np.argmax(np.nan_to_num(size if sigma is None else sigma, nan=np.inf)))
    y, x = divmod(int(where[most]), was.shape[1])
    values = [_text(plane[y, x]) for plane in (was, now)]
    worst = None if sigma is None else float(sigma[most])
    place = f"at x {x + 1}, y {y + 1} {values[0]}"
    yield Difference(name, "pixels", "pixels", place, values[1], int(where.size), worst)


def _size(plane: npt.NDArray[Any]) -> str:
    return f"{plane.shape[1]} x {plane.shape[0]} pixels"


def _sigma(
    name: str, one: _File, where: npt.NDArray[np.intp], size: npt.NDArray[np.float64], shape: Sequence[int]
) -> npt.NDArray[np.float64] | None:
    """The differences of SCI over sqrt(VAR) of the first file, 0 where that is not positive; None where none
    of them has one."""
    if name != "SCI" or "VAR" not in one.parts:
        return None
    plane = one.plane(one.parts["VAR"])
    if plane.shape != tuple(shape):
        return None
    var = plane.ravel()[where].astype(float)
    known = var > 0
    if not known.any():
        return None
    return np.where(known, size / np.sqrt(np.where(known, var, 1.0)), 0.0)


def _differ(was: npt.NDArray[Any], now: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where two arrays differ; no number is like no number."""
    apart = np.asarray(was != now)
    if was.dtype.kind == "f" and now.dtype.kind == "f":
        apart &= ~(np.isnan(was) & np.isnan(now))
    return apart


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").rstrip()
    return f"{value:.9g}" if isinstance(value, float | np.floating) else str(value)
