"""A file that has stopped changing -> FileRecord: read once, hashed, described, classified.

    record = ingest(path, patience="live")

One streaming pass over the bytes; no database, no clock, thread-safe, never astropy for an ordinary
frame. Every outcome is a record with a state and one clear reason:

| state | when |
|---|---|
| ready | a raw NIRI frame that may be reduced, or is registered without a recipe (acquisition, twilight, focus) |
| calibration | a processed BPM, dark or flat (tested in this order): `kind` says which, registered where it lies |
| excluded | a raw NIRI frame whose QA state is Fail |
| refused | whole, but not for us: other instrument, spectroscopic (SPECT, ARC), processed science, prepared, unknown |
| quarantined | damaged: structure, checksum, not FITS; with patience "overdue" also what never became complete |
| incomplete | shorter than its headers say, or preallocated and not filled yet: watch it, read it again when it changes |
| vanished | gone before it could be read |

OSError (permission, I/O, stale handle, `FileChanged`) is raised: the caller tries again, for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from daemon.stability import Patience, Signature
from pipeline.descriptors import Descriptors


class FileChanged(OSError):
    """The file was touched while it was read: read it again."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """path : str, undecodable bytes as surrogates; signature : stat of what was read (None when vanished)
    file_sha : SHA-256 hex of the bytes as delivered; data_sha : of the uncompressed data units; "" when not known
    facts : digest of the header cards that the project reads; "" when there is no readable header
    data_label : DATALAB or ""; kind : CalKind value when state is "calibration", else ""
    verified : True when the file carries checksums and they hold; None when it carries none
    watch : for "incomplete", seconds to wait unchanged before it is overdue, when not the usual grace
    """

    path: str
    state: str
    reason: str
    signature: Signature | None = None
    file_sha: str = ""
    data_sha: str = ""
    facts: str = ""
    data_label: str = ""
    tags: frozenset[str] = frozenset()
    descriptors: Descriptors | None = None
    kind: str = ""
    verified: bool | None = None
    watch: float | None = None


def ingest(path: str, *, patience: Patience = "live") -> FileRecord:
    """Read one file and say what it is. patience: see `stability.Due`; "batch" for --until-idle,
    where waits count as elapsed but what is short stays "incomplete" instead of "quarantined"."""
    raise NotImplementedError
