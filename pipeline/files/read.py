"""Files -> frames: raw and processed FITS, and what a product says of how it was made (back: `write`).

    frame = read_frame(path)                        # raw, processed or bad-pixel mask, compressed or not
    provenance, history = read_provenance(path)

Pixels are read in one copy, never as a memory map: a file that is cut short under a map kills the process.
astropy decompresses tiles, and makes headers; nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from pipeline.errors import DamagedFile, RefusedFile
from pipeline.files.pixels import KINDS, Pixels, mask_of, planes_of, same_size
from pipeline.files.structure import Hdu, Path, load, read_structure
from pipeline.files.tables import decode_table
from pipeline.frame import NO_DATA, Frame, MaskImage, Unit
from pipeline.headers.merged import merge
from pipeline.names import plain_name
from pipeline.quickcards import quick_cards


def read_frame(path: Path, *, name: str | None = None, expect_data_sha: str | None = None) -> Frame:
    """One frame: the image called SCI, else the first, with VAR, DQ, COVERAGE, OBJMASK, OBJCAT beside it.

    name : what the frame is called; else the file's name without compression
    expect_data_sha : SHA-256 of the uncompressed data units; other pixels raise DamagedFile

    sci is native float32, dq uint16. Pixels without a value (`pixels`) become 0 with the bit NO_DATA, and
    so do those without a variance where the file has one. Of a bad-pixel mask (BPMASK or PROCBPM in the
    header) the values are in `dq` and `sci` is zero. A product of ours brings its notes. Raises RefusedFile
    without an image and for a mask of other values than 16 bits, DamagedFile and IncompleteFile as
    `structure` does.
    """
    hdus, data = load(path)
    if expect_data_sha is not None:
        _expect(path, hdus, data, expect_data_sha)
    planes = planes_of(hdus)
    index = planes.get("SCI", planes.get("DQ", planes.get("")))
    if index is None:
        raise RefusedFile(f"{os.fspath(path)}: has no image")
    header = _merged_header(hdus[0], hdus[index] if index else None)
    called = name or plain_name(path)
    pixels = Pixels(path, hdus, data)
    if "BPMASK" in header or "PROCBPM" in header:
        mask = mask_of(path, hdus, data)
        nothing = np.broadcast_to(np.float32(0), mask.shape)
        return Frame(sci=nothing, dq=mask, header=header, unit="adu", name=called, notes=_notes(hdus, data))
    shape = hdus[index].shape
    same_size(path, hdus, [i for key, i in planes.items() if key])  # extensions of other names are not read
    sci, void = pixels.values(index)
    dq = pixels.masks(planes["DQ"]) if planes.get("DQ", index) != index else _all_good(shape)
    var, unknown = pixels.variances(planes["VAR"]) if "VAR" in planes else (None, None)
    for lost in (void, unknown):
        if lost is not None:
            dq = np.where(lost, dq | NO_DATA, dq)
    return Frame(
        sci=sci,
        dq=dq,
        header=header,
        unit=_unit(header),
        name=called,
        var=var,
        objmask=pixels.masks(planes["OBJMASK"]) != 0 if "OBJMASK" in planes else None,
        coverage=pixels.masks(planes["COVERAGE"]) if "COVERAGE" in planes else None,
        catalog=next((decode_table(h.cards, data[h.offset :]) for h in hdus if h.name == "OBJCAT"), None),
        members=next((decode_table(h.cards, data[h.offset :]) for h in hdus if h.name == "FRAMES"), None),
        notes=_notes(hdus, data),
    )


@lru_cache(maxsize=2)
def _all_good(shape: tuple[int, int]) -> MaskImage:
    """The mask that all raw frames of a shape share: nobody writes into a frame's planes."""
    dq = np.zeros(shape, np.uint16)
    dq.flags.writeable = False
    return dq


def read_header(path: Path, *, name: str | None = None) -> Frame | None:
    """A raw frame without its pixels: planes are 0 and take no memory. None for any other file.

    Raises as `read_frame`.
    """
    hdus = read_structure(path).hdus
    images = [hdu for hdu in hdus if hdu.is_image]
    if len(images) != 1 or images[0].name not in ("", "SCI"):
        return None
    header = _merged_header(hdus[0], images[0] if images[0] is not hdus[0] else None)
    if {"PREPARE", "BPMASK", "PROCBPM"} & set(header):
        return None
    shape = images[0].shape
    sci, dq = np.broadcast_to(np.float32(0), shape), np.broadcast_to(np.uint16(0), shape)
    return Frame(sci=sci, dq=dq, header=header, unit=_unit(header), name=name or plain_name(path))


def read_provenance(path: Path) -> tuple[list[tuple[str, str, str]], list[tuple[str, dict[str, Any], str]]]:
    """The rows of a product's PROVENANCE and HISTORY tables, as they were given to `write_product`."""
    hdus, data = load(path)
    tables = {
        h.name: decode_table(h.cards, data[h.offset :]) for h in hdus if h.name in ("PROVENANCE", "HISTORY")
    }
    inputs, steps = tables.get("PROVENANCE"), tables.get("HISTORY")
    provenance = [] if inputs is None else [_texts(row, "filename", "sha256", "role") for row in inputs]
    history = [] if steps is None else [_texts(row, "primitive", "args", "version") for row in steps]
    return provenance, [(step, json.loads(args), version) for step, args, version in history]


def read_notes(path: Path) -> tuple[str, ...]:
    """The notes of a product of ours, as they were given to `write_product`; none for any other file."""
    hdus, data = load(path)
    return _notes(hdus, data)


def _notes(hdus: list[Hdu], data: memoryview) -> tuple[str, ...]:
    rows = next((decode_table(h.cards, data[h.offset :]) for h in hdus if h.name == "NOTES"), None)
    return () if rows is None else tuple(_texts(row, "note")[0] for row in rows)


def read_measures(path: Path) -> dict[str, list[Any]]:
    """{name: [value, error, unit]}, an error None where unknown; empty without the table MEASURES."""
    hdus, data = load(path)
    rows = next((decode_table(h.cards, data[h.offset :]) for h in hdus if h.name == "MEASURES"), None)
    if rows is None:
        return {}
    texts = [_texts(row, "NAME", "UNIT") for row in rows]
    errors = [float(row["ERROR"]) for row in rows]
    numbers = [
        (float(row["VALUE"]), e if np.isfinite(e) else None) for row, e in zip(rows, errors, strict=True)
    ]
    return {name: [*two, unit] for two, (name, unit) in zip(numbers, texts, strict=True)}


def read_members(path: Path) -> list[dict[str, Any]]:
    """The rows of a stack's FRAMES table as plain values, None where unknown; none without the table."""
    hdus, data = load(path)
    rows = next((decode_table(h.cards, data[h.offset :]) for h in hdus if h.name == "FRAMES"), None)
    return plain_rows(rows)


def plain_rows(rows: npt.NDArray[np.void] | None) -> list[dict[str, Any]]:
    """A table as JSON takes it: texts, numbers to 6 digits, None for NaN."""
    if rows is None:
        return []
    return [{name: _plain(row[name]) for name in rows.dtype.names or ()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").rstrip()
    number = float(value)
    return float(f"{number:.6g}") if np.isfinite(number) else None


def tiled_data_sha(path: Path) -> str:
    """`data_sha` of a file with tile-compressed images: that of the same pixels stored plainly."""
    hdus, data = load(path)
    return _data_sha(path, hdus, data)


def _texts(row: np.void, *names: str) -> Any:
    held = row.dtype.names or ()
    return tuple(row[name].decode("ascii", "replace").rstrip() if name in held else "" for name in names)


def _expect(path: Path, hdus: list[Hdu], data: memoryview, wanted: str) -> None:
    found = _data_sha(path, hdus, data)
    if found != wanted:
        raise DamagedFile(f"{os.fspath(path)}: the pixels are {found[:12]}, wanted {wanted[:12]}")


def _data_sha(path: Path, hdus: list[Hdu], data: memoryview) -> str:
    sha = hashlib.sha256()
    pixels = Pixels(path, hdus, data)
    for index, hdu in enumerate(hdus):
        if hdu.tiled:
            sha.update(np.ascontiguousarray(pixels.stored(index)).astype(f">{KINDS[hdu.bitpix]}").tobytes())
        else:
            sha.update(data[hdu.offset : hdu.offset + hdu.length])
    return sha.hexdigest()


def _merged_header(phu: Hdu, image: Hdu | None) -> fits.Header:
    comments = {**(image.comments if image else {}), **phu.comments}
    return as_header(merge(phu.cards, image.cards if image else {}), comments)


def as_header(cards: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> fits.Header:
    """An astropy header of these cards; a keyword that FITS does not allow is left out."""
    made = []
    with quick_cards():
        for key, value in cards.items():
            try:
                made.append(card_of(key, value, (comments or {}).get(key, "")))
            except ValueError:
                continue
        return fits.Header(made)


def card_of(key: str, value: Any, comment: str) -> fits.Card:
    """Raises ValueError for a keyword that FITS does not allow."""
    with quick_cards():
        return fits.Card(key if len(key) <= 8 and " " not in key else f"HIERARCH {key}", value, comment)


def _unit(header: fits.Header) -> Unit:
    """As BUNIT says, but for a raw frame: the detector counts in adu whatever stands there."""
    if not any("PREPAR" in key or key.startswith("PROC") or key == "GEM-TLM" for key in header):
        return "adu"
    said = str(header.get("BUNIT", "adu")).strip().lower()
    return "electron" if said.startswith("e") else "adu" if said else ""
