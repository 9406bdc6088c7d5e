"""What publishing, and the database, need of a file system, tried in a folder of its own."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from pipeline.files.disk import NO_FLUSH, NO_LINKS

SKEW_SECONDS = 5.0  # between our clock and that of a file system


def write_link_and_sync(folder: Path) -> tuple[str, str]:
    """(what is wrong, what is worth knowing) of a folder that may be written; "" for nothing."""
    try:
        with tempfile.TemporaryDirectory(prefix=".nirid-doctor-", dir=folder) as place:
            one, two = Path(place, "one"), Path(place, "two")
            began = time.time()
            with one.open("wb") as file:
                file.write(b"nirid")
                file.flush()
                os.fsync(file.fileno())
            skew = one.stat().st_mtime - began
            linked = _link(one, two)
            os.replace(one, two)
            flushed = _flush(place)
    except OSError as error:
        return f"cannot be written as it must be: {error.strerror} ({error.filename})", ""
    if abs(skew) > SKEW_SECONDS:
        return f"its clock is {skew:+.0f} s from ours", ""
    return "", "; ".join(filter(None, (linked, flushed)))


def _link(one: Path, two: Path) -> str:
    try:
        os.link(one, two)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return f"it has no hard links ({error.strerror}): older versions are kept as copies"
    return ""


def _flush(place: str) -> str:
    handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FLUSH:
            raise
        return f"it cannot flush the names in a folder ({error.strerror}): a power cut may undo a rename"
    finally:
        os.close(handle)
    return ""
