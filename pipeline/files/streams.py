"""Bytes of a file in bounded pieces: plain, gzip or bzip2, known by their first bytes, never by the name.

What is handed out is uncompressed; what is hashed is what was delivered. A compressed stream may not
grow beyond a size, nor beyond a ratio, so that a decompression bomb costs a second and a buffer, not the
machine.
"""

from __future__ import annotations

import bz2
import hashlib
import os
import zlib
from collections.abc import Iterator
from typing import Protocol

from pipeline.errors import DamagedFile, IncompleteFile, RefusedFile

PIECE = 256 * 1024  # stays in a core's cache while it is hashed twice
MAX_BYTES = 512 * 1024 * 1024  # of a file, and of what comes out of a compressed one
# Masks of zeros do compress a thousandfold, so the ratio counts only beyond this size.
MAX_RATIO = 100
RATIO_FREE = 64 * 1024 * 1024


class _Decoder(Protocol):
    """What bz2 offers; `_Gunzip` makes zlib look like it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gunzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail and not self._inner.eof

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data


class Stream:
    """A plain file. `position` counts uncompressed bytes, `sha` is of all bytes read so far."""

    compression = ""

    def __init__(self, fd: int, size: int, *, hashed: bool) -> None:
        self._fd, self._size, self._hashed = fd, size, hashed
        self._sha = hashlib.sha256()
        self._buffer = memoryview(bytearray(PIECE))
        self.position = 0

    def pieces(self, n: int) -> Iterator[memoryview]:
        """The next n bytes, fewer at the end of the file, in full pieces; each is good until the next."""
        while n > 0:
            want = min(n, PIECE)
            got = 0
            while got < want and (more := self._fill(self._buffer[got:want])):
                got += more
                self.position += more
            if got:
                yield self._buffer[:got]
            if got < want:
                return
            n -= got

    def read(self, n: int) -> bytes:
        """The next n bytes in one; for headers only."""
        return b"".join(self.pieces(n))

    def skip(self, n: int) -> int:
        """Pass over n bytes without looking, if that can be; how many there were."""
        if self._hashed:
            return sum(len(piece) for piece in self.pieces(n))
        there = max(0, min(n, self._size - self.position))
        os.lseek(self._fd, there, os.SEEK_CUR)
        self.position += there
        return there

    def finish(self) -> int:
        """Read what is left, so that the hash covers all; the uncompressed size."""
        self.skip(MAX_BYTES)
        return self.position

    def sha(self) -> str:
        return self._sha.hexdigest() if self._hashed else ""

    def _fill(self, view: memoryview) -> int:
        got = os.readv(self._fd, [view])
        if self._hashed:
            self._sha.update(view[:got])
        return got


class Held(Stream):
    """Bytes that are in memory already."""

    def __init__(self, data: memoryview) -> None:
        super().__init__(-1, len(data), hashed=False)
        self._data = data

    def pieces(self, n: int) -> Iterator[memoryview]:
        piece = self._data[self.position : self.position + n]
        self.position += len(piece)
        if piece:
            yield piece

    def skip(self, n: int) -> int:
        return sum(len(piece) for piece in self.pieces(n))


class _Compressed(Stream):
    """A gzip or bzip2 file, of one member or several."""

    def __init__(self, fd: int, size: int, *, hashed: bool, compression: str) -> None:
        super().__init__(fd, size, hashed=hashed)
        self.compression = compression
        self._decoder = self._new_decoder()
        self._delivered = b""
        self._at_end = False

    def _new_decoder(self) -> _Decoder:
        return _Gunzip() if self.compression == "gzip" else bz2.BZ2Decompressor()

    def skip(self, n: int) -> int:
        return sum(len(piece) for piece in self.pieces(n))

    def _fill(self, view: memoryview) -> int:
        while not self._at_end:
            if self._decoder.eof:
                self._next_member()
                continue
            try:
                out = self._decoder.decompress(self._delivered, len(view))
            except (OSError, EOFError, zlib.error, ValueError) as error:
                raise DamagedFile(f"the {self.compression} stream is damaged: {error}") from None
            self._delivered = b""
            if out:
                self._check_growth(len(out))
                view[: len(out)] = out
                return len(out)
            if not self._decoder.eof and self._decoder.needs_input and not self._more():
                raise IncompleteFile(
                    f"the {self.compression} stream ends after {self._size} bytes, before its end mark",
                    0,
                    self._size,
                )
        return 0

    def _more(self) -> bool:
        self._delivered = os.read(self._fd, PIECE)
        if self._hashed:
            self._sha.update(self._delivered)
        return bool(self._delivered)

    def _next_member(self) -> None:
        """Another member may follow; zeros may, too; the end of the file is the usual thing."""
        rest = self._decoder.unused_data
        while not rest.strip(b"\0"):
            if not self._more():
                self._at_end = True
                return
            rest = self._delivered
        self._delivered = rest.lstrip(b"\0")
        if len(self._delivered) < 4:
            self._delivered += os.read(self._fd, 4)
        if magic(self._delivered) != self.compression:
            raise DamagedFile(f"bytes after the end of the {self.compression} stream")
        self._decoder = self._new_decoder()

    def _check_growth(self, more: int) -> None:
        total = self.position + more
        if total > MAX_BYTES or (total > RATIO_FREE and total > MAX_RATIO * max(self._size, 1)):
            raise RefusedFile(
                f"the {self.compression} stream grows to more than {total} bytes from {self._size}"
            )


def magic(start: bytes) -> str:
    """ "gzip", "bzip2" or "" for anything else, from the first four bytes."""
    if start.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    return "bzip2" if start.startswith(b"BZh") and start[3:4] in b"123456789" else ""


def open_stream(fd: int, size: int, *, hashed: bool) -> Stream:
    """The stream of an open file of `size` bytes, as its first bytes say. hashed : keep SHA-256 of the bytes
    as delivered, for which all of them are read."""
    compression = magic(os.pread(fd, 4, 0))
    if compression:
        return _Compressed(fd, size, hashed=hashed, compression=compression)
    return Stream(fd, size, hashed=hashed)
