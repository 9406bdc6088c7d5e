"""What a FITS file is, from its bytes: a bounded reader of headers and structure, with hashes.

    facts = read_structure(path)   # headers and length: seeks over the pixels of a plain file
    facts = read_file(path)        # one streaming pass: also both SHA-256 and the checksums carried

A file from outside may be anything, so nothing is allocated from a number in a header, every loop
has a limit, and an odd card never raises. What is wrong is raised as one of three errors: `IncompleteFile`
(shorter than its headers say: it may still grow), `DamagedFile` (broken), `RefusedFile` (not a regular file,
or too large). Written after the FITS standard 4.0; the limits are ours, far above any NIRI file.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat as statmod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pipeline.errors import DamagedFile, IncompleteFile, RefusedFile
from pipeline.files.streams import MAX_BYTES, Held, Stream, open_stream
from pipeline.headers.cards import Value, has_end, parse_cards

BLOCK = 2880
MAX_HEADER_BLOCKS = 400  # in the whole file: 14,400 cards
MAX_HDUS = 64
MAX_AXES = 9
BITPIX = frozenset({8, 16, 32, 64, -32, -64})

Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Hdu:
    """One header, and where its data are.

    cards, comments : by keyword, of a doubled keyword the first; duplicates : those that came again
    odd : keywords whose value makes no sense (kept as text)
    offset, length : of the data in the uncompressed file, bytes, without the padding
    shape : (ny, nx) as numpy says it, () without data; bitpix : of the pixels (of a tile-compressed image
    both are those of the image that comes out)
    """

    cards: dict[str, Value]
    comments: dict[str, str]
    duplicates: tuple[str, ...]
    odd: tuple[str, ...]
    offset: int
    length: int
    shape: tuple[int, ...]
    bitpix: int

    @property
    def name(self) -> str:
        """EXTNAME in upper case, "" without one."""
        return str(self.cards.get("EXTNAME") or "").strip().upper()

    @property
    def tiled(self) -> bool:
        return self.cards.get("ZIMAGE") is True

    @property
    def is_image(self) -> bool:
        """True for two-dimensional pixels, stored plainly or as compressed tiles."""
        plain = self.cards.get("XTENSION", "IMAGE") in ("IMAGE", "IUEIMAGE")
        return (plain or self.tiled) and len(self.shape) == 2 and 0 not in self.shape


@dataclass(frozen=True, slots=True)
class FileFacts:
    """hdus : [0] is the primary; size : uncompressed bytes; compression : "", "gzip" or "bzip2"
    before, after : fstat around the reading
    file_sha, data_sha : hex, "" when only the structure was read; data_sha covers every data unit in
    order, uncompressed, without padding (tiles as they are: `read.tiled_data_sha` hashes what comes out)
    verified : True when checksums are carried and hold, None when none is carried
    zero_tail : how many bytes at the end of the first image are zero
    trailing : zero bytes after the last HDU
    """

    hdus: tuple[Hdu, ...]
    size: int
    compression: str
    before: os.stat_result
    after: os.stat_result
    file_sha: str = ""
    data_sha: str = ""
    verified: bool | None = None
    zero_tail: int = 0
    trailing: int = 0

    @property
    def phu(self) -> dict[str, Value]:
        return self.hdus[0].cards

    @property
    def image(self) -> int | None:
        """The number of the HDU with the pixels: the one called SCI if there is one, else the first image."""
        images = [i for i, hdu in enumerate(self.hdus) if hdu.is_image]
        named = [i for i in images if self.hdus[i].name == "SCI"]
        return next(iter(named or images), None)


@contextmanager
def open_regular(path: Path, *, follow: bool = True) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of a regular file, and its fstat; never waits for a pipe; links only where `follow`."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    try:
        st = os.fstat(fd)
        if not statmod.S_ISREG(st.st_mode):
            raise RefusedFile("not a regular file")
        if st.st_size > MAX_BYTES:
            raise RefusedFile(f"{st.st_size} bytes, more than the {MAX_BYTES} allowed")
        yield fd, st
    finally:
        os.close(fd)


def read_structure(path: Path, *, follow: bool = True) -> FileFacts:
    """Headers and exact length. A compressed file has to be decompressed for that, within limits."""
    with open_regular(path, follow=follow) as (fd, _):
        return structure_of(fd)


def read_file(path: Path, *, follow: bool = True) -> FileFacts:
    """Headers, exact length, `file_sha`, `data_sha` and the checksums that the file carries, in one pass."""
    with open_regular(path, follow=follow) as (fd, _):
        return _read(fd, full=True)


def load(path: Path, *, follow: bool = True) -> tuple[list[Hdu], memoryview]:
    """The headers, and all bytes of the file without compression, for reading pixels."""
    with open_regular(path, follow=follow) as (fd, st):
        stream = open_stream(fd, st.st_size, hashed=False)
        if stream.compression:
            data = memoryview(b"".join(bytes(piece) for piece in stream.pieces(MAX_BYTES)))
        else:
            data = np.empty(st.st_size, np.uint8).data  # a bytearray would be zeroed first
            data = data[: _fill(fd, data)]
    walk = _Walk(Held(data), full=False)
    walk.run()
    return walk.hdus, data


def _fill(fd: int, view: memoryview) -> int:
    got = 0
    while got < len(view) and (more := os.readv(fd, [view[got:]])):
        got += more
    return got


def hash_file(path: Path, *, follow: bool = True) -> str:
    """SHA-256 of the bytes as they are, whatever they are, up to the size limit."""
    with open_regular(path, follow=follow) as (fd, st):
        stream = Stream(fd, st.st_size, hashed=True)
        stream.finish()
        return stream.sha()


def structure_of(fd: int) -> FileFacts:
    """`read_structure` of a regular file that is open."""
    os.lseek(fd, 0, os.SEEK_SET)
    return _read(fd, full=False)


def _read(fd: int, *, full: bool) -> FileFacts:
    before = os.fstat(fd)
    stream = open_stream(fd, before.st_size, hashed=full)
    walk = _Walk(stream, full)
    try:
        walk.run()
    except DamagedFile as error:
        error.hdus = tuple(walk.hdus)
        raise
    hdus, size = tuple(walk.hdus), stream.finish()
    shas = stream.sha(), walk.data_sha.hexdigest() if full else ""
    zeros = walk.zero_tail, walk.trailing
    return FileFacts(hdus, size, stream.compression, before, os.fstat(fd), *shas, walk.verified, *zeros)


class _Walk:
    """One pass over the header-data units of a stream."""

    def __init__(self, stream: Stream, full: bool) -> None:
        self.stream, self.full = stream, full
        self.hdus: list[Hdu] = []
        self.data_sha = hashlib.sha256()
        self.verified: bool | None = None
        self.zero_tail = 0
        self.trailing = 0
        self._blocks = 0

    def run(self) -> None:
        while header := self._header():
            hdu = parse_hdu(header, self.stream.position, first=not self.hdus)
            padded = hdu.length + -hdu.length % BLOCK
            if hdu.offset + padded > MAX_BYTES:
                raise DamagedFile(
                    f"HDU {len(self.hdus)} claims {hdu.length} bytes of data, more than allowed"
                )
            self.hdus.append(hdu)
            if self.full:
                self._read_data(hdu, header, padded)
            else:
                self._expect(hdu, padded, self.stream.skip(padded))

    def _header(self) -> bytes:
        """The blocks of the next header up to END; b"" when there is no more."""
        blocks: list[bytes] = []
        start = self.stream.position
        while True:
            block = self.stream.read(BLOCK)
            if not block and not blocks and self.hdus:
                return b""
            if not blocks and self._is_end(block):
                return b""
            if len(block) < BLOCK or not block.strip(b"\0"):
                what = "is all zeros" if block and not block.strip(b"\0") else "is cut short"
                end = start + (len(blocks) + 1) * BLOCK
                actual = self.stream.position
                raise IncompleteFile(
                    f"header {len(self.hdus)} {what}: at least {end} bytes expected, {actual} there",
                    end,
                    actual,
                )
            blocks.append(block)
            if has_end(block):
                break
            if self._blocks + len(blocks) >= MAX_HEADER_BLOCKS:
                raise DamagedFile(f"headers without an end after {MAX_HEADER_BLOCKS} blocks")
        self._blocks += len(blocks)
        if len(self.hdus) >= MAX_HDUS:
            raise DamagedFile(f"more than {MAX_HDUS} header-data units")
        return b"".join(blocks)

    def _is_end(self, block: bytes) -> bool:
        """Check how a header begins. True when but zeros follow a file that is whole without them."""
        if not self.hdus:
            if b"SIMPLE  =".startswith(block[:9]) or not block.strip(b"\0"):
                return False  # whole, or too short to tell
            raise DamagedFile(f"not FITS: begins with {block[:16]!r}")
        if b"XTENSION=".startswith(block[:9]):
            return False
        if block.strip(b"\0") or any(any(piece) for piece in self.stream.pieces(MAX_BYTES)):
            raise DamagedFile(f"bytes after the last of {len(self.hdus)} HDUs that are no extension")
        self.trailing = self.stream.position - self.hdus[-1].offset - self.hdus[-1].length
        return True

    def _read_data(self, hdu: Hdu, header: bytes, padded: int) -> None:
        check = bool({"DATASUM", "CHECKSUM"} & hdu.cards.keys())
        first_image = hdu.is_image and sum(h.is_image for h in self.hdus) == 1
        total, there, zeros = 0, 0, 0
        for piece in self.stream.pieces(padded):
            data = piece[: max(0, hdu.length - there)]
            there += len(piece)
            self.data_sha.update(data)
            if check:
                total = checksum(total, piece)
            if first_image and len(data):
                filled = _filled(data)
                zeros = zeros + len(data) if filled == 0 else len(data) - filled
        self._expect(hdu, padded, there)
        if first_image:
            self.zero_tail = zeros
        if check:
            self._verify(hdu, header, total)

    def _expect(self, hdu: Hdu, padded: int, there: int) -> None:
        if there < padded:
            expected, actual = hdu.offset + padded, hdu.offset + there
            raise IncompleteFile(
                f"HDU {len(self.hdus) - 1} is cut short: {expected} bytes expected, {actual} there",
                expected,
                actual,
            )

    def _verify(self, hdu: Hdu, header: bytes, total: int) -> None:
        where = f"HDU {len(self.hdus) - 1}"
        if (stated := str(hdu.cards.get("DATASUM") or "").strip()) and stated != str(total):
            raise DamagedFile(f"{where}: the data sum to {total}, DATASUM says {stated[:20]}")
        if str(hdu.cards.get("CHECKSUM") or "").strip() and checksum(total, header) not in (0, 0xFFFFFFFF):
            raise DamagedFile(f"{where}: CHECKSUM does not hold")
        self.verified = True


def _filled(data: memoryview) -> int:
    """Length without the zeros at the end; nearly always a look at the last few bytes tells."""
    end = len(bytes(data[-64:]).rstrip(b"\0"))
    return max(0, len(data) - 64) + end if end else len(bytes(data).rstrip(b"\0"))


def checksum(total: int, piece: bytes | memoryview) -> int:
    """32-bit ones' complement sum of big-endian words, the checksum of the FITS standard, appendix J."""
    whole = len(piece) - len(piece) % 4
    words = np.frombuffer(piece[:whole], dtype=">u4")
    total += int(words.sum(dtype=np.uint64))
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def parse_hdu(header: bytes, offset: int, *, first: bool) -> Hdu:
    """The cards of one header (whole blocks, END included) and what they say about the data after it.

    offset : where the data begin. DamagedFile when the mandatory cards make no sense.
    """
    cards, comments, duplicates, odd = parse_cards(header)
    bitpix, naxis = cards.get("BITPIX"), cards.get("NAXIS")
    if type(bitpix) is not int or bitpix not in BITPIX:
        raise DamagedFile(f"BITPIX is {bitpix!r}")
    if type(naxis) is not int or not 0 <= naxis <= MAX_AXES:
        raise DamagedFile(f"NAXIS is {naxis!r}")
    axes = [_count(cards, f"NAXIS{i + 1}") for i in range(naxis)]
    if first:  # groups count only in extensions; random groups have NAXIS1 = 0 and no pixels for us
        pcount, gcount = 0, 1
    else:
        pcount, gcount = _count(cards, "PCOUNT", 0), _count(cards, "GCOUNT", 1)
    pixels = math.prod(axes) if axes else 0
    length = abs(bitpix) // 8 * gcount * (pcount + pixels)
    shape = tuple(reversed(axes))
    if cards.get("ZIMAGE") is True:
        shape, bitpix = _tiled_shape(cards)
    return Hdu(cards, comments, duplicates, odd, offset, length, shape, bitpix)


def _count(cards: dict[str, Value], key: str, default: int | None = None) -> int:
    value = cards.get(key, default)
    if type(value) is not int or value < 0:
        raise DamagedFile(f"{key} is {value!r}")
    return value


def _tiled_shape(cards: dict[str, Value]) -> tuple[tuple[int, ...], int]:
    bitpix = cards.get("ZBITPIX")
    if type(bitpix) is not int or bitpix not in BITPIX:
        raise DamagedFile(f"ZBITPIX is {bitpix!r}")
    axes = [_count(cards, f"ZNAXIS{i + 1}") for i in range(min(_count(cards, "ZNAXIS"), MAX_AXES))]
    tiles = [_count(cards, f"ZTILE{i + 1}", axis) for i, axis in enumerate(axes)]
    if max(math.prod(axes), math.prod(tiles)) * abs(bitpix) // 8 > MAX_BYTES:
        raise DamagedFile(f"a compressed image of {axes} pixels in tiles of {tiles}, more than allowed")
    return tuple(reversed(axes)), bitpix
