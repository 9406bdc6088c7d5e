"""Small copies of a preview, and where it lies on the sky, in the same PNG file.

    chunks = small_copies(grey, {"scale": 0.117, ...})      # written before the pixels
    small(fd, 256)                                          # the JPEG of 256 pixels, or None
    geometry(fd)                                            # {"scale": ...}, or {}

A PNG may hold private chunks, which other programs pass over: what belongs to a picture moves, is replaced
and is removed with it, and whoever shows it reads 3 to 60 kB instead of a megabyte. Readers need nothing but
the standard library: pictures are drawn by workers.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIZES = (96, 256, 512)  # pixels of the longer side
COPY, SKY = b"niTh", b"niWc"  # names by PNG's rules: not critical, private, safe to copy
QUALITY = 80
MOST_BYTES = 1 << 20  # of such a chunk: what is longer is none of ours
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def small_copies(grey: npt.NDArray[np.uint8], sky: Mapping[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of the chunks. grey : (ny, nx), first row at the top; sky : kept as JSON"""
    from PIL import Image

    yield SKY, json.dumps(sky).encode()
    picture = Image.fromarray(grey)
    for size in sorted(SIZES, reverse=True):  # each from the one before: a third of the time
        factor = max(picture.size) / size
        if factor > 1:
            shape = (max(1, round(picture.width / factor)), max(1, round(picture.height / factor)))
            picture = picture.resize(shape, Image.Resampling.BOX)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=QUALITY)
        yield COPY, struct.pack(">H", size) + file.getvalue()


def small(fd: int, size: int) -> bytes | None:
    """The JPEG of that size; None in a picture of an earlier release, or one that is not ours."""
    for name, content in _ours(fd):
        if name == COPY and content[:2] == struct.pack(">H", size):
            return content[2:]
    return None


def geometry(fd: int) -> dict[str, Any]:
    """What is known of the sky in it; {} where nothing is."""
    for name, content in _ours(fd):
        if name == SKY:
            try:
                found = json.loads(content)
            except ValueError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def _ours(fd: int) -> Iterator[tuple[bytes, bytes]]:
    """Our chunks, which stand before the pixels. A file that is cut off ends here, too."""
    if os.pread(fd, len(_SIGNATURE), 0) != _SIGNATURE:
        return
    place = len(_SIGNATURE)
    for _ in range(32):
        head = os.pread(fd, 8, place)
        if len(head) < 8:
            return
        length, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"IEND"):
            return
        if name in (COPY, SKY) and length <= MOST_BYTES:
            content = os.pread(fd, length, place + 8)
            if len(content) == length:
                yield name, content
        place += length + 12
