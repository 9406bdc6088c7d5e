"""The compiled loops on disk, which numba keeps: they may be damaged, and can always be made again.

A power cut or a full disk can leave empty or cut files. An error in reading them is no error of the data: the
cache is emptied, the worker replaced, and everything compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pipeline

AGAIN = 85  # exit code of a worker that has emptied the cache and is to be started again
_READERS = ("caching.py", "serialize.py")  # of numba/core
_ENDINGS = (".nbi", ".nbc")


def warm_marker() -> Path:
    """The file that says: for this release on this machine the loops are compiled and on disk.

    It lies where numba keeps its code: $NUMBA_CACHE_DIR (the service sets it), else beside the sources.
    """
    sources = Path(pipeline.__file__).parent / "algorithms"
    digest = hashlib.sha256(metadata.version("numba").encode() + sys.version.encode())
    for source in sorted(sources.glob("*.py")):
        digest.update(f"{source.name} {source.stat().st_mtime_ns} {source.stat().st_size}\n".encode())
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or sources / "__pycache__")
    return folder / f"warm-{digest.hexdigest()[:16]}"


def settle(spare: Path) -> None:
    """Have numba keep its code where this user may write: where it is told to, beside the sources, or in
    `spare`, a cache folder of ours. Workers inherit it."""
    given = os.environ.get("NUMBA_CACHE_DIR")
    beside = Path(pipeline.__file__).parent / "algorithms" / "__pycache__"
    if not _may_be_written(Path(given) if given else beside):
        os.environ["NUMBA_CACHE_DIR"] = str(spare / "compiled")


def _may_be_written(folder: Path) -> bool:
    try:
        place = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    except PermissionError:  # behind a folder that is closed to us
        return False
    return os.access(place, os.W_OK | os.X_OK)


def is_there(folder: Path) -> bool:
    """False when there is no compiled loop, whatever a marker says."""
    return next(_files(folder), None) is not None


def is_damaged(error: BaseException | None) -> bool:
    """True when this, or what it came from, was raised while numba read its cache."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace = error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            folder, name = os.path.split(code.co_filename)
            reads = name in _READERS and folder.endswith(os.path.join("numba", "core"))
            if reads and code.co_name.startswith(("load", "_load", "_rebuild", "_unpickle", "_unserialize")):
                return not isinstance(error, (MemoryError, ImportError))
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return False


def empty(folder: Path) -> None:
    """Remove every compiled loop, and the markers that say they are there. What cannot go stays."""
    for path in (*_files(folder), *folder.glob("warm-*")):
        with contextlib.suppress(OSError):
            path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names if name.endswith(_ENDINGS))
