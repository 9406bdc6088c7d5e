"""A file that has stopped changing -> FileRecord: read once, hashed, described, classified.

    record = ingest(path, patience="live")

One streaming pass over the bytes; no database, no clock, thread-safe, no astropy unless the image is
compressed in tiles. Every outcome is a record with a state and one clear reason:

| state | when |
|---|---|
| ready | a raw NIRI frame: to be reduced, or registered without a recipe (acquisition, twilight, focus) |
| calibration | a processed BPM, dark or flat (tested in this order), used where it lies; `kind` says which |
| excluded | a raw NIRI frame whose QA state is Fail |
| refused | whole, but no frame of ours: other instrument, spectroscopic, processed science, prepared, unknown
| | quarantined | damaged: structure, checksum, not FITS; and what never became complete ("overdue") | |
incomplete | shorter than its headers say, or preallocated and not filled yet: to be watched | | vanished |
gone before it could be read |

Spectroscopic frames and arcs are `refused` (interface.md names them so); imaging frames that no recipe
takes are `ready`, because the first of a group is counted among them.

OSError (permission, I/O, stale handle, `FileChanged`) is raised: the caller tries again, for ever.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from daemon.model.files import USABLE, FileChanged, FileRecord, Patience, Signature, signature_of
from pipeline import niri
from pipeline.calibrations.caldb import kind_of
from pipeline.errors import DamagedFile, IncompleteFile, RefusedFile
from pipeline.files.structure import FileFacts, Hdu, hash_file, read_file
from pipeline.headers.descriptors import describe
from pipeline.headers.merged import facts_digest, merge
from pipeline.headers.tags import tags_of
from pipeline.headers.values import text

# Seconds that a whole file is watched when its end is zeros, which a writer that reserves space first
# may still fill: shorter than the grace of a file that is visibly cut short.
ZERO_WATCH = 10.0
PAGE = 4096  # bytes; a raw frame has noise, so a page of zeros was never written


def ingest(path: str, *, patience: Patience = "live") -> FileRecord:
    """Read one file and say what it is.

    patience : "live", when what is incomplete is no content yet; "overdue" when it has not changed for the
    grace time (see `settle.Due`), so that what is incomplete is damaged; "batch" for --until-idle, where
    waits count as elapsed: what is short is "incomplete", and a frame like one that is damaged
    """
    try:
        facts = read_file(path, follow=False)
    except FileNotFoundError:
        return FileRecord(path, "vanished", "gone before it could be read")
    except IncompleteFile as error:
        return _cut_short(path, error, patience)
    except DamagedFile as error:
        return _damaged(path, str(error), error.hdus)
    except RefusedFile as error:
        return FileRecord(path, "refused", str(error), signature_of(os.lstat(path)))
    signature = signature_of(facts.before)
    if signature != signature_of(facts.after):
        raise FileChanged(f"changed while it was read ({facts.before.st_size} bytes before)")
    try:
        record = _classified(path, signature, facts, patience)
    except DamagedFile as error:  # tiles that cannot be unpacked
        return _damaged(path, str(error), facts.hdus)
    if record.state == "incomplete" and patience == "live":  # its bytes are no content yet
        return FileRecord(path, record.state, record.reason, signature, watch=record.watch)
    return record


def _cut_short(path: str, error: IncompleteFile, patience: Patience) -> FileRecord:
    if patience == "overdue":
        return _damaged(path, f"incomplete, and has not grown since: {error}", error.hdus)
    # a batch run waits for nothing: treat the file as damaged, but keep the state incomplete
    if patience == "batch":
        record = _damaged(path, str(error), error.hdus, "incomplete")
        if record.descriptors is not None:
            return record
    return FileRecord(path, "incomplete", str(error), signature_of(os.lstat(path)))


def _damaged(path: str, reason: str, hdus: Sequence[Hdu], state: str = "quarantined") -> FileRecord:
    """A record of a file that cannot be used, but has bytes and so is a content.

    A raw frame whose headers can be read is described: it still counts as the first of its sequence.
    """
    before = signature_of(os.lstat(path))
    sha = hash_file(path, follow=False)
    if signature_of(os.lstat(path)) != before:
        raise FileChanged("changed while it was read")
    record = FileRecord(path, state, reason, before, sha)
    if not any(hdu.is_image for hdu in hdus):
        return record
    described = _described(record, hdus[0], next(hdu for hdu in hdus if hdu.is_image))
    known = described.descriptors is not None and described.descriptors.ut_datetime is not None
    raw = {"NIRI", "RAW"} <= described.tags and not described.tags & {"PREPARED", "PROCESSED"}
    return described if known and raw else record


def _described(record: FileRecord, phu: Hdu, image: Hdu | None) -> FileRecord:
    """The record with all that the headers say."""
    cards = merge(phu.cards, image.cards if image and image is not phu else {})
    shape = (image.shape[0], image.shape[1]) if image else None
    storage: dict[str, Any] = {"NAXIS1": shape[1], "NAXIS2": shape[0]} if shape else {}
    return replace(
        record,
        facts=facts_digest({**cards, **storage}),
        data_label=text(cards, "DATALAB") or "",
        tags=tags_of(cards),
        descriptors=describe(cards, shape=shape, filename=os.path.basename(record.path)),
    )


def _classified(path: str, signature: Signature, facts: FileFacts, patience: Patience) -> FileRecord:
    image = facts.hdus[facts.image] if facts.image is not None else None
    record = FileRecord(path, "ready", USABLE, signature, facts.file_sha, verified=facts.verified)
    record = replace(_described(record, facts.hdus[0], image), data_sha=_data_sha(path, facts))
    tags = record.tags
    if "NIRI" not in tags:
        instrument = text(facts.phu, "INSTRUME")
        why = f"the instrument is {instrument}, not NIRI" if instrument else "INSTRUME is missing: not NIRI"
        return replace(record, state="refused", reason=why)
    if image is None and patience == "live":
        return replace(record, state="incomplete", reason="no image in it yet, only a primary header")
    if image is None:
        return replace(record, state="refused", reason="has no image, only a primary header")
    if facts.trailing and patience == "live":
        why = f"whole, but followed by {facts.trailing} zero bytes that may still be filled"
        return replace(record, state="incomplete", reason=why, watch=ZERO_WATCH)
    if "PROCESSED" in tags:
        return _processed(record)
    if refusal := _refusal(record, facts):
        return replace(record, state="refused", reason=refusal)
    if facts.zero_tail >= PAGE and (verdict := _unfilled(record, facts.zero_tail, image.length, patience)):
        return verdict
    assert record.descriptors is not None
    if record.descriptors.qa_state == "Fail":
        return replace(record, state="excluded", reason="the QA state in the header is Fail")
    return record


def _processed(record: FileRecord) -> FileRecord:
    from pipeline.files.pixels import check_planes

    kind = kind_of(record.tags)
    if kind is None:
        why = "processed already, and neither dark, flat nor bad-pixel mask"
        return replace(record, state="refused", reason=why)
    try:
        check_planes(record.path, is_mask="BPM" in record.tags, follow=False)
    except RefusedFile as error:
        return replace(record, state="refused", reason=f"no {kind.value}: {error}")
    why = f"a {kind.value.replace('_', ' ')} from outside"
    return replace(record, state="calibration", reason=why, kind=kind.value)


def _refusal(record: FileRecord, facts: FileFacts) -> str:
    """Why a whole NIRI file is not a raw imaging frame that can be used; "" when it is."""
    tags, facts_of = record.tags, record.descriptors
    assert facts_of is not None
    images = sum(hdu.is_image for hdu in facts.hdus)
    if "RAW" not in tags or "PREPARED" in tags:
        return "prepared or processed in part, not raw"
    if tags & {"SPECT", "ARC"}:
        return "spectroscopic" if "SPECT" in tags else "an arc, for spectroscopy"
    if images > 1:
        return f"{images} image extensions, a raw frame has one"
    if facts_of.observation_type not in ("OBJECT", "DARK", "FLAT"):
        return f"OBSTYPE is {facts_of.observation_type}: neither OBJECT, DARK nor FLAT"
    if facts_of.shape and max(facts_of.shape) > niri.ARRAY_SIZE:
        return f"{facts_of.shape[1]} x {facts_of.shape[0]} pixels, more than the array has"
    if not facts_of.exposure_time:  # none, or of 0 s
        return "no usable exposure time (EXPTIME)"
    if facts_of.ut_datetime is None:
        return "no usable date of observation (DATE-OBS, UT)"
    return ""


def _unfilled(record: FileRecord, zeros: int, length: int, patience: Patience) -> FileRecord | None:
    """The verdict on a raw frame that ends in zeros; None when it is taken as it is.

    A file whose space is reserved first looks whole all the time. An image of zeros only may be meant; pixels
    followed by zeros are a copy that stopped.
    """
    if zeros == length:
        if patience != "live":
            return None
        why = "all pixels are zero, as in a file that is still being filled"
        return replace(record, state="incomplete", reason=why, watch=ZERO_WATCH)
    why = f"the last {zeros} of {length} bytes of pixels are zero, as in a file that is still being filled"
    state = "quarantined" if patience == "overdue" else "incomplete"
    return replace(record, state=state, reason=why)


def _data_sha(path: str, facts: FileFacts) -> str:
    """Of the pixels without compression, so that N.fits, N.fits.gz and N.fits.fz are one frame."""
    if not any(hdu.tiled for hdu in facts.hdus):
        return facts.data_sha
    from pipeline.files.read import tiled_data_sha

    return tiled_data_sha(path)
