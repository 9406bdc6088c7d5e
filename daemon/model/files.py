"""What is known of a file that has landed: its signature, its record, how long it is waited for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline.headers.descriptors import Descriptors
from pipeline.headers.tags import Tags

USABLE = "a raw frame that can be used"  # the reason is filled in when it is recorded


class FileChanged(OSError):
    """The file was touched while it was read: read it again."""


Patience = Literal["live", "overdue", "batch"]


class Signature(NamedTuple):
    """Size, times and inode of a file: equal only as long as nobody has touched it."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """path : str, undecodable bytes as surrogates; signature : of what was read, None when vanished
    file_sha : SHA-256 hex of the bytes as delivered; data_sha : of the uncompressed data units; "" if unknown
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
    tags: Tags = frozenset()
    descriptors: Descriptors | None = None
    kind: str = ""
    verified: bool | None = None
    watch: float | None = None


def signature_of(st: os.stat_result) -> Signature:
    return Signature(st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
