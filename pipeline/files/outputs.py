"""What may be overwritten: one rule for every command and function that writes a file.

    outputs.check(path, "product", inputs=[...], overwrite=False)   # raises WouldOverwrite, naming the file

An output never replaces an input, a raw frame, a database in use, a folder or a device, whatever is asked
for. What nirid has made, of the same kind, is replaced as always; any other file only with `overwrite`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pipeline.errors import NiridError

Kind = Literal["product", "picture", "list", "database", "truth", "report", "raw"]

# An older release wrote no mark into its pictures: those are replaced with --overwrite.
PICTURE_MARK = b"Software\0nirid"
# At the head of a report of a night, as a page and as JSON.
REPORT_MARKS = (b'<meta name="generator" content="nirid report">', b'{"made_by": "nirid report"')
LIST_MARK = b"# Includes tags:"  # Gemini's dataselect begins its lists so, too
_FITS, _SQLITE = b"SIMPLE  =", b"SQLite format 3\0"
_PACKED = (b"\x1f\x8b", b"BZh", b"\x1f\x9d")
_BINARY = (_FITS, _SQLITE, b"\x89PNG", *_PACKED)


class WouldOverwrite(NiridError):
    """An output would replace a file that is not to be lost."""


def check(
    path: str | os.PathLike[str],
    kind: Kind,
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
) -> None:
    """Raises WouldOverwrite unless `path` is free, or holds what may be replaced; OSError.

    kind : what is going to be written; `inputs` : files that go into it
    overwrite : a person says that a file nirid did not make may go
    """
    path = Path(path)
    try:
        facts = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    if any(_same(path, other) for other in inputs):
        raise WouldOverwrite(f"{path} is one of the inputs: an output never replaces it")
    if stat.S_ISDIR(facts.st_mode):
        raise WouldOverwrite(f"{path} is a folder")
    if not stat.S_ISREG(facts.st_mode) and not stat.S_ISLNK(facts.st_mode):
        raise WouldOverwrite(f"{path} is no plain file")
    head = _head(path)
    if head.startswith(_SQLITE) and in_use(path):
        raise WouldOverwrite(f"{path} is a database in use: an output never replaces it")
    if _is_raw(path, head):
        raise WouldOverwrite(f"{path} is a raw frame: an output never replaces it")
    if not overwrite and not is_ours(path, kind, head):
        raise WouldOverwrite(f"{path} is there already, and nirid did not make it; it is left as it is")


def check_log(path: str | os.PathLike[str]) -> None:
    """Raises WouldOverwrite for a file that lines of text would damage."""
    head = _head(Path(path)) if os.path.isfile(path) else b""
    if head.startswith(_BINARY) or b"\0" in head:
        raise WouldOverwrite(f"{os.fspath(path)} is no log: nothing is added to it")


def same_bytes(path: Path, content: bytes) -> bool:
    """True when the file is there and holds just this."""
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def is_ours(path: Path, kind: Kind, head: bytes = b"") -> bool:
    """True for a file of this kind that nirid has made."""
    head = head or _head(path)
    if kind == "product":
        return head.startswith(_FITS) and _made_here(path)
    if kind == "picture":
        return head.startswith(b"\x89PNG") and PICTURE_MARK in head
    if kind == "list":
        return head.startswith(LIST_MARK)
    if kind == "database":
        return head.startswith(_SQLITE) and _has_schema(path)
    if kind == "report":
        return REPORT_MARKS[0] in head or head.startswith(REPORT_MARKS[1])
    if kind == "truth":
        return _is_truth(path)
    return False  # a raw frame is never replaced


def in_use(path: Path) -> bool:
    """True for a database that a program may have open: it has a log beside it, or is a daemon's own."""
    beside = (f"{path}-wal", f"{path}-shm", f"{path}-journal")
    return any(map(os.path.lexists, beside)) or (path.parent / "daemon.json").exists()


def _same(path: Path, other: str | os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return os.path.abspath(path) == os.path.abspath(other)


def _head(path: Path) -> bytes:
    """The first bytes; empty when the file cannot be read, so that it does not count as ours."""
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def _is_raw(path: Path, head: bytes) -> bool:
    """A whole FITS file that nobody has processed; when that is not clear, it counts as one."""
    from pipeline.files.structure import read_structure
    from pipeline.headers.merged import merge
    from pipeline.headers.tags import tags_of

    if not head.startswith((_FITS, *_PACKED)):
        return False
    try:
        facts = read_structure(path)
        image = facts.hdus[facts.image].cards if facts.image else {}
        tags = tags_of(merge(facts.phu, image))
    except Exception:  # damaged, or anything else: not to be lost
        return not _made_here(path)
    return not tags & {"PREPARED", "PROCESSED"} and not _made_here(path)


def _made_here(path: Path) -> bool:
    """True of a product: its HISTORY table names this program."""
    from pipeline.files.read import read_provenance

    try:
        _, history = read_provenance(path)
    except Exception:  # whatever is wrong with it, it is no product of ours
        return False
    return any(version.startswith("nirid ") for _, _, version in history)


def _has_schema(path: Path) -> bool:
    from pipeline.files.places import readonly_uri

    try:
        with contextlib.closing(sqlite3.connect(readonly_uri(path), uri=True)) as db:
            return bool(db.execute("SELECT component FROM schema").fetchone())
    except sqlite3.Error:
        return False


def _is_truth(path: Path) -> bool:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and {"plan", "seed", "frames"} <= set(values)
