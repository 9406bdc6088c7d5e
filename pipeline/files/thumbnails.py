"""Small copies of a preview, where it lies on the sky and what its greys mean, in the same PNG file.

    chunks = small_copies(grey, {"scale": 0.117, ...})      # written before the pixels
    small(fd, 256)                                          # the JPEG of 256 pixels, or None
    small(fd, FIXED)                                        # the JPEG of 512 at the fixed scale, or None
    known(fd)                                               # {"scale": ...}, or {}

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
    from PIL.Image import Image

SIZES = (96, 256, 512)  # pixels of the longer side
FIXED = 513  # stands for the size of the largest, at the scale that all pictures share
COPY, SKY = b"niTh", b"niWc"  # names by PNG's rules: not critical, private, safe to copy
QUALITY = 80
MOST_BYTES = 1 << 20  # of such a chunk: what is longer is none of ours
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def small_copies(
    grey: npt.NDArray[np.uint8], told: Mapping[str, Any], fixed: npt.NDArray[np.uint8] | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of the chunks. grey : (ny, nx), first row at the top; told : kept as JSON

    fixed : (256,) greys at the fixed scale of these greys, where there is one
    """
    from PIL import Image

    yield SKY, json.dumps(told).encode()
    if fixed is not None:
        yield _copy(_at_most(Image.fromarray(fixed.take(grey)), max(SIZES)), FIXED)
    picture = Image.fromarray(grey)
    for size in sorted(SIZES, reverse=True):  # each from the one before: a third of the time
        picture = _at_most(picture, size)
        yield _copy(picture, size)


def _at_most(picture: Image, size: int) -> Image:
    from PIL import Image as images

    factor = max(picture.size) / size
    if factor <= 1:
        return picture
    shape = (max(1, round(picture.width / factor)), max(1, round(picture.height / factor)))
    return picture.resize(shape, images.Resampling.BOX)


def _copy(picture: Image, size: int) -> tuple[bytes, bytes]:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return COPY, struct.pack(">H", size) + file.getvalue()


def small(fd: int, size: int) -> bytes | None:
    """The JPEG of that size, or FIXED; None in a picture of an earlier release, or one that is not ours."""
    for name, content in _ours(fd):
        if name == COPY and content[:2] == struct.pack(">H", size):
            return content[2:]
    return None


def known(fd: int) -> dict[str, Any]:
    """What is known of its sky and its greys (`preview.about`); {} where nothing is."""
    for name, content in _ours(fd):
        if name == SKY:
            try:
                found = json.loads(content, parse_constant=_refuse)
            except (ValueError, RecursionError):
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number that JSON has")


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
