"""Raw files as the observatory writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt
from astropy.io import fits

from pipeline.files import disk, outputs


def write_fits(path: Path, units: list[tuple[fits.Header, npt.NDArray[Any] | None]]) -> None:
    """Write headers and big-endian data as they are: a library would mend the oddities of real headers.

    Raises WouldOverwrite when another file is there.
    """
    pieces = []
    for header, data in units:
        pieces.append(header.tostring(endcard=True, padding=True).encode("ascii"))
        if data is not None:
            pieces += [data.tobytes(), b"\0" * (-data.nbytes % 2880)]
    content = b"".join(pieces)
    if outputs.same_bytes(path, content):  # the same night once more
        return
    outputs.check(path, "raw")
    disk.write_whole(path, content, flush=False, alone=True)
