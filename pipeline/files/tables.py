"""Binary tables of fixed columns: structured arrays <-> bytes in a FITS file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_FORMS = {"f8": "D", "f4": "E", "i8": "K", "i4": "J", "i2": "I", "u1": "B", "b1": "L"}
_DTYPES = {form: kind for kind, form in _FORMS.items() if form != "L"} | {"L": "S1"}


@dataclass(frozen=True, slots=True)
class Table:
    """rows : structured array in the bytes of the file; forms : (column, TFORM) in order."""

    rows: npt.NDArray[np.void]
    forms: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, rows: npt.NDArray[np.void]) -> Table:
        """Any structured array of numbers, truth values and texts. bool columns become L."""
        assert rows.dtype.names is not None
        layout, forms = [], []
        for name in rows.dtype.names:
            kind = rows.dtype[name]
            code = f"{kind.kind}{kind.itemsize}"
            if kind.kind == "S":
                layout.append((name, kind.str))
                forms.append((name, f"{kind.itemsize}A"))
            elif code == "b1":
                layout.append((name, "S1"))
                forms.append((name, "L"))
            else:
                layout.append((name, f">{code}" if code != "u1" else "u1"))
                forms.append((name, _FORMS[code]))
        stored = np.zeros(len(rows), dtype=layout)
        for name in rows.dtype.names:
            column = rows[name]
            stored[name] = np.where(column, b"T", b"F") if column.dtype.kind == "b" else column
        return cls(stored, tuple(forms))


def text_table(columns: Sequence[str], widths: Sequence[int], rows: Iterable[Sequence[str]]) -> Table:
    """A table of texts; a column is as wide as its longest text, at least as wide as said."""
    encoded = [[text.encode("ascii", "replace") for text in row] for row in rows]
    wide = [max([width, *(len(row[i]) for row in encoded)]) for i, width in enumerate(widths)]
    stored = np.array(
        [tuple(row) for row in encoded], dtype=[(c, f"S{w}") for c, w in zip(columns, wide, strict=True)]
    )
    return Table(stored, tuple((c, f"{w}A") for c, w in zip(columns, wide, strict=True)))


def decode_table(cards: Mapping[str, Any], data: memoryview) -> npt.NDArray[np.void] | None:
    """The rows of a table whose data begin at `data`, in native byte order.

    None when it has columns of a kind that we do not write (arrays in a cell, variable length), or
    makes no sense.
    """
    stored, native = [], []
    for i in range(1, int(cards.get("TFIELDS") or 0) + 1):
        name = str(cards.get(f"TTYPE{i}") or f"col{i}")
        found = re.fullmatch(r"(\d*)([A-Z]).*", str(cards.get(f"TFORM{i}")).strip())
        if found is None or (found[2] != "A" and (found[1] not in ("", "1") or found[2] not in _DTYPES)):
            return None
        kind = f"S{found[1] or 1}" if found[2] == "A" else _DTYPES[found[2]]
        stored.append((name, kind if kind.startswith("S") else f">{kind}"))
        native.append((name, "b1" if found[2] == "L" else kind))
    try:
        layout = np.dtype(stored)
        if layout.itemsize != cards.get("NAXIS1"):
            return None
        rows = np.frombuffer(data, layout, count=int(cards.get("NAXIS2") or 0))
    except ValueError:
        return None
    table = np.zeros(len(rows), dtype=native)
    for name, kind in native:
        table[name] = rows[name] == b"T" if kind == "b1" else rows[name]
    return table
