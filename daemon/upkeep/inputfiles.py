"""Finds a file by its content: where the ledger has seen these bytes, else among files of that name, else in
folders that a person names.

    finder = Finder(db, folders, searched)
    path = finder.find("N20160102S0270.fits", sha256)         # None: finder.why(...) says what lies there now
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.arrivals.sweep import is_passed_over
from daemon.ledger import whereabouts
from daemon.ledger.store import Reader
from daemon.model.names import canonical_name, version_of
from pipeline.errors import NiridError
from pipeline.files.structure import hash_file


@dataclass
class Finder:
    """db : None without a ledger; folders : in which a file of the right name is looked at; searched : in
    which every file is, whatever it is called. What was hashed is remembered."""

    db: Reader | None
    folders: Sequence[Path] = ()
    searched: Sequence[Path] = ()
    at: dict[str, str] = field(default_factory=dict)  # SHA-256 -> a path where it was
    _hashes: dict[str, str] = field(default_factory=dict)
    _names: dict[str, list[str]] | None = None

    def find(self, name: str, sha256: str) -> str | None:
        """Where a file of these bytes lies."""
        return next((path for path in self._candidates(name, sha256) if self.hash(path) == sha256), None)

    def others(self, name: str, sha256: str) -> list[str]:
        """Files that may be the same exposure with other bytes: compressed, or with an edited header."""
        known = [] if self.db is None else [path for path, _ in whereabouts.of_same_frame(self.db, sha256)]
        places = [*known, *self._seen(sha256), *self._called(name)]
        return [path for path in dict.fromkeys(places) if self.hash(path) not in ("", sha256)]

    def why(self, name: str, sha256: str) -> str:
        """Why none is found, in words."""
        for path in dict.fromkeys([*self._seen(sha256), *self._called(name)]):
            if found := self.hash(path):
                return f"{path} has other bytes now: SHA-256 {found[:12]}, wanted {sha256[:12]}"
        seen = self._seen(sha256)
        return f"gone; it was {seen[0]}" if seen else f"nowhere to be found (SHA-256 {sha256[:12]})"

    def hash(self, path: str) -> str:
        """SHA-256 of a file, "" when it cannot be read."""
        if path not in self._hashes:
            try:
                self._hashes[path] = hash_file(path)
            except (OSError, NiridError):
                self._hashes[path] = ""
        return self._hashes[path]

    def _candidates(self, name: str, sha256: str) -> Iterator[str]:
        yield from self._seen(sha256)
        yield from self._called(name)
        for folder in self.searched:
            yield from _files(folder)

    def _seen(self, sha256: str) -> list[str]:
        told = [self.at[sha256]] if sha256 in self.at else []
        return told if self.db is None else told + whereabouts.of_bytes(self.db, sha256)

    def _called(self, name: str) -> list[str]:
        """Files of that name, compressed, superseded or not. The folders are listed when first needed."""
        if self._names is None:
            self._names = {}
            for folder in dict.fromkeys((*self.folders, *self.searched)):
                for path in _files(folder):
                    self._names.setdefault(_called_as(path), []).append(path)
        return self._names.get(_called_as(name), [])


def _called_as(path: str) -> str:
    plain = Path(canonical_name(os.path.basename(path)))
    version = version_of(plain)
    return version[0] if version else plain.stem


def _files(folder: Path) -> Iterator[str]:
    """Every file below a folder, but hidden ones; what may not be listed is passed over."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_passed_over(name))
        yield from (os.path.join(root, name) for name in sorted(names) if not name.startswith("."))
