"""A frame -> a product file, bit for bit the same each time; and a product read back and checked.

A product is what Gemini's astrodata makes and reads: a primary header, SCI, VAR and DQ (uint16), for a
stack COVERAGE and OBJCAT, MEASURES of masters and stacks, NOTES where there is something to say, then the
tables PROVENANCE and HISTORY with Gemini's columns in Gemini's places (astrodata goes by position; where it
has an MD5, ours has the SHA-256). Nothing in it tells when it was written. Headers and checksums are put
together here: astropy stamps wall time into both, and copies pixels that need no copy.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from pipeline.errors import DamagedFile
from pipeline.files.columns import TABLES, UCDS
from pipeline.files.standardcards import (
    OF_IMAGES,
    SQUARED,
    VARIANCE_CARD,
    of_an_image,
    stamp_of,
    without_epoch,
)
from pipeline.files.structure import BLOCK, FileFacts, Path, checksum, read_file
from pipeline.files.tables import Table, text_table
from pipeline.frame import Frame, MaskImage
from pipeline.headers.merged import EXTENSION_CARDS, STRUCTURAL
from pipeline.quickcards import quick_cards

Provenance = Sequence[tuple[str, str, str]]  # (name, SHA-256, role)
History = Sequence[tuple[str, Mapping[str, Any], str]]  # (step, parameters, software version)


@quick_cards()
def write_product(
    path: Path,
    frame: Frame,
    *,
    provenance: Provenance,
    history: History,
    time_stamp: str,
    cards: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    measures: Mapping[str, Sequence[Any]] | None = None,
) -> str:
    """Write a new file, flushed to the disk; SHA-256 of its bytes, which depend on the arguments only.

    path : must not exist; removed again when anything goes wrong
    cards : more cards for the primary header, value or (value, comment)
    time_stamp : ISO time that stands for "when" everywhere in the file
    notes : what a person should know, each whole: a HISTORY card has no room for a long one
    measures : {name: (value, error or None, unit)}: by a master's others are judged
    """
    tables = _own_tables(frame, notes, measures or {})
    units = _units(frame, tables, provenance, history, time_stamp, cards or {})
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    sha = hashlib.sha256()
    try:
        for header, data in units:
            for piece in _encoded(header, data):
                sha.update(piece)
                _write_all(fd, piece)
        os.fsync(fd)
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
    os.close(fd)
    return sha.hexdigest()


def verify_product(path: Path, sha256: str | None = None) -> FileFacts:
    """Read a product back; DamagedFile unless it is whole, its checksums hold, its pixels and its
    provenance are there, and its bytes are the wanted ones."""
    facts = read_file(path)
    names = [hdu.name for hdu in facts.hdus]
    mask = "BPMASK" in facts.phu or "PROCBPM" in facts.phu
    wanted = ["SCI", "PROVENANCE", "HISTORY"] if mask else ["SCI", "DQ", "PROVENANCE", "HISTORY"]
    if missing := [name for name in wanted if name not in names]:
        raise DamagedFile(f"{os.fspath(path)}: the product has no {', '.join(missing)}")
    if facts.phu.get("NEXTEND") != len(names) - 1:
        raise DamagedFile(
            f"{os.fspath(path)}: {len(names) - 1} extensions, {facts.phu.get('NEXTEND')} wanted"
        )
    if not all("CHECKSUM" in hdu.cards for hdu in facts.hdus):
        raise DamagedFile(f"{os.fspath(path)}: not every part carries a checksum")
    if not all(facts.hdus[names.index(name)].cards.get("NAXIS2") for name in ("PROVENANCE", "HISTORY")):
        raise DamagedFile(f"{os.fspath(path)}: the provenance is empty")
    if sha256 is not None and facts.file_sha != sha256:
        raise DamagedFile(f"{os.fspath(path)}: the bytes are {facts.file_sha[:12]}, wanted {sha256[:12]}")
    return facts


_Array = npt.NDArray[Any]


def _units(
    frame: Frame,
    tables: list[tuple[str, Table]],
    provenance: Provenance,
    history: History,
    time_stamp: str,
    cards: Mapping[str, Any],
) -> list[tuple[fits.Header, _Array | None]]:
    """(header, big-endian data) of every HDU, without checksums."""
    own, shared = _split(frame.header)
    stamp = stamp_of(time_stamp)
    shared.update(_missing(of_an_image(frame), shared))
    images: list[tuple[str, _Array, str]]
    if "BPMASK" in frame.header or "PROCBPM" in frame.header:
        images = [("SCI", frame.dq.astype(">i2"), "bit")]
    else:
        images = [("SCI", frame.sci.astype(">f4"), frame.unit)]
        if frame.var is not None:
            images.append(("VAR", frame.var.astype(">f4"), SQUARED[frame.unit]))
        images.append(("DQ", _unsigned(frame.dq), "bit"))
        if frame.coverage is not None:
            images.append(("COVERAGE", _unsigned(frame.coverage), "count"))
    inputs = [(stamp, *row) for row in provenance]
    steps = [(s, json.dumps(dict(p), sort_keys=True, default=str), stamp, stamp, v) for s, p, v in history]
    tables.append(
        ("PROVENANCE", text_table(("timestamp", "filename", "sha256", "role"), (28, 128, 128, 128), inputs))
    )
    columns = ("primitive", "args", "timestamp_start", "timestamp_stop", "version")
    tables.append(("HISTORY", text_table(columns, (128, 16, 28, 28, 32), steps)))
    primary = fits.Header(
        [("SIMPLE", True, "conforms to FITS standard"), ("BITPIX", 8), ("NAXIS", 0), ("EXTEND", True)]
    )
    primary.extend(without_epoch(own), bottom=True)
    primary["NEXTEND"] = (len(images) + len(tables), "Number of extensions")
    primary["DATE"] = (stamp, "end of the latest input (UT)")
    for key, value in cards.items():
        primary[key] = value
    units: list[tuple[fits.Header, _Array | None]] = [(primary, None)]
    units += [(_image_header(name, data, unit, shared), data) for name, data, unit in images]
    units += [(_table_header(name, table), table.rows) for name, table in tables]
    return units


def _own_tables(
    frame: Frame, notes: Sequence[str], measures: Mapping[str, Sequence[Any]]
) -> list[tuple[str, Table]]:
    tables = [
        (name, Table.of(rows))
        for name, rows in (("OBJCAT", frame.catalog), ("FRAMES", frame.members))
        if rows is not None
    ]
    if measures:
        tables.append(("MEASURES", Table.of(_rows_of(measures))))
    if notes:
        tables.append(("NOTES", text_table(("note",), (72,), [(text,) for text in notes])))
    return tables


def _rows_of(measures: Mapping[str, Sequence[Any]]) -> npt.NDArray[np.void]:
    rows = [
        (name.encode(), value, math.nan if error is None else error, unit.encode())
        for name, (value, error, unit) in measures.items()
    ]
    return np.array(rows, [("NAME", "S24"), ("VALUE", "f8"), ("ERROR", "f8"), ("UNIT", "S16")])


def _split(header: fits.Header) -> tuple[fits.Header, fits.Header]:
    """Cards of the exposure and cards of the pixels."""
    keep = [
        card
        for card in header.cards
        if card.keyword in ("HISTORY", "COMMENT") or not STRUCTURAL.match(card.keyword)
    ]
    images_only = EXTENSION_CARDS - {"PIXSCALE"} | OF_IMAGES
    own = [card for card in keep if card.keyword not in images_only]
    shared = [card for card in keep if card.keyword in EXTENSION_CARDS and card.keyword != "BUNIT"]
    return fits.Header(own), fits.Header(shared)


def _missing(cards: Mapping[str, Any], header: fits.Header) -> dict[str, Any]:
    """The cards that a header has not, or has without a value."""
    return {key: card for key, card in cards.items() if not str(header.get(key, "")).strip()}


def _unsigned(plane: MaskImage) -> _Array:
    """uint16 as FITS stores it: int16 less 32768, which is the top bit turned over."""
    return (plane ^ np.uint16(0x8000)).astype(">u2").view(">i2")


def _image_header(name: str, data: _Array, unit: str, shared: fits.Header) -> fits.Header:
    bitpix = {"f": -32, "i": 16}[data.dtype.kind]
    header = fits.Header(
        [
            ("XTENSION", "IMAGE", "Image extension"),
            ("BITPIX", bitpix, "array data type"),
            ("NAXIS", 2, "number of array dimensions"),
            ("NAXIS1", data.shape[1]),
            ("NAXIS2", data.shape[0]),
            ("PCOUNT", 0, "number of parameters"),
            ("GCOUNT", 1, "number of groups"),
        ]
    )
    if name in ("DQ", "COVERAGE"):
        header["BSCALE"] = 1
        header["BZERO"] = 32768
    header["EXTNAME"] = name
    header["EXTVER"] = 1
    header["BUNIT"] = (unit, "Physical units of the array values")
    if name == "VAR":
        header.append(VARIANCE_CARD)
    header.extend(shared, bottom=True)
    return header


def _table_header(name: str, table: Table) -> fits.Header:
    header = fits.Header(
        [
            ("XTENSION", "BINTABLE", "binary table extension"),
            ("BITPIX", 8, "array data type"),
            ("NAXIS", 2, "number of array dimensions"),
            ("NAXIS1", table.rows.dtype.itemsize, "length of dimension 1"),
            ("NAXIS2", len(table.rows), "length of dimension 2"),
            ("PCOUNT", 0, "number of group parameters"),
            ("GCOUNT", 1, "number of groups"),
            ("TFIELDS", len(table.forms), "number of table fields"),
        ]
    )
    for i, (column, form) in enumerate(table.forms, 1):
        unit, meaning = TABLES.get(name, {}).get(column, ("", ""))
        header[f"TTYPE{i}"] = column
        header[f"TFORM{i}"] = form
        if unit:
            header[f"TUNIT{i}"] = unit
        if column in UCDS:
            header[f"TUCD{i}"] = UCDS[column]
        if meaning:
            header[f"TCOMM{i}"] = meaning
    header["EXTNAME"] = name
    header["EXTVER"] = 1
    return header


def _encoded(header: fits.Header, data: _Array | None) -> list[bytes | memoryview]:
    """Header with both checksums, data, padding."""
    body: list[bytes | memoryview] = []
    total = 0
    if data is not None and data.nbytes:
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1).data
        whole = len(raw) - len(raw) % 4
        rest = bytes(raw[whole:]) + bytes(-len(raw) % BLOCK)
        total = checksum(checksum(0, raw[:whole]), rest)
        body = [raw[:whole], rest]
    header["CHECKSUM"] = ("0" * 16, "HDU checksum")
    header["DATASUM"] = (str(total), "data unit checksum")
    head = _header_bytes(header)
    header["CHECKSUM"] = (encode_checksum(~checksum(total, head) & 0xFFFFFFFF), "HDU checksum")
    return [_header_bytes(header), *body]


def _header_bytes(header: fits.Header) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # comments that are too long for their card are cut, as intended
        text: str = header.tostring()
    return text.encode("ascii", "replace")


def encode_checksum(value: int) -> str:
    """Sixteen letters and digits whose sum as 32-bit words is `value`: FITS standard 4.0, appendix J."""
    columns = []
    for shift in (24, 16, 8, 0):
        byte = (value >> shift) & 0xFF
        quarter, more = divmod(byte, 4)
        letters = [quarter + more + 48, quarter + 48, quarter + 48, quarter + 48]
        while any(58 <= c <= 64 or 91 <= c <= 96 for c in letters):  # marks between digits and letters
            for a, b in ((0, 1), (2, 3)):
                if any(58 <= c <= 64 or 91 <= c <= 96 for c in (letters[a], letters[b])):
                    letters[a] += 1
                    letters[b] -= 1
        columns.append(letters)
    text = "".join(chr(columns[i][j]) for j in range(4) for i in range(4))
    return text[-1] + text[:-1]


def _write_all(fd: int, piece: bytes | memoryview) -> None:
    view = memoryview(piece)
    while len(view):  # a write may be short: quota, signal
        view = view[os.write(fd, view) :]
