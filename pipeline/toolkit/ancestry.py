"""What a product was made of, and what that was made of: the ancestry that PROVENANCE tables tell.

A calibration is looked for by name beside the product and in the folders beside its folder; it is the one
that was used when its bytes have the SHA-256 of the record.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import NiridError
from pipeline.files.read import read_provenance

DEEPEST = 8  # generations


@dataclass(frozen=True)
class Ancestor:
    """name, sha256, role : as in the record; path : where it lies, "" when it was not found
    same : its bytes are those that were used; made_of : of a product of ours
    """

    name: str
    sha256: str
    role: str
    path: str = ""
    same: bool = False
    made_of: tuple[Ancestor, ...] = ()

    def to_json(self) -> dict[str, Any]:
        plain = {"name": self.name, "sha256": self.sha256, "role": self.role, "path": self.path or None}
        return plain | {"same": self.same, "made_of": [a.to_json() for a in self.made_of]}


def ancestors(path: str | os.PathLike[str]) -> tuple[Ancestor, ...]:
    """Every file that went into a product, frames first, each calibration with its own.

    Raises NiridError for a file without such a record; OSError.
    """
    rows = read_provenance(Path(path))[0]
    if not rows:
        raise NiridError(
            f"{os.fspath(path)}: has no PROVENANCE table: it is not a product of nirid or DRAGONS"
        )
    return _of(Path(path), rows, DEEPEST)


def _of(path: Path, rows: list[tuple[str, str, str]], deeper: int) -> tuple[Ancestor, ...]:
    found = [_one(path, *row, deeper) for row in rows]
    return tuple(sorted(found, key=lambda a: a.role not in ("input", "")))


def _one(product: Path, name: str, sha256: str, role: str, deeper: int) -> Ancestor:
    if role in ("input", ""):
        return Ancestor(name, sha256, role)
    for path in _places(product, name):
        same = hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        try:
            rows = read_provenance(path)[0] if same and deeper else []
        except NiridError:
            rows = []
        return Ancestor(name, sha256, role, str(path), same, _of(path, rows, deeper - 1))
    return Ancestor(name, sha256, role)


def _places(product: Path, name: str) -> Iterator[Path]:
    """Where a file of this name may lie, nearest first."""
    name = os.path.basename(name)
    names = [name] if name.endswith((".fits", ".gz", ".bz2", ".fz")) else [f"{name}.fits"]
    folders = [product.parent, *sorted(p for p in product.parent.parent.glob("*") if p.is_dir())]
    for folder in folders:
        for one in names:
            if (folder / one).is_file():
                yield folder / one
