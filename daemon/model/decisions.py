"""What a person decided: its kinds, its subject in words, and the record of it that is kept in a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daemon.model.files import FileRecord, Signature
from daemon.model.plain import check, cleaned, is_path
from daemon.model.states import FileState
from pipeline.association import CalKind
from pipeline.errors import NiridError
from pipeline.headers.descriptors import Descriptors

Request = Mapping[str, Any]
_SHA = re.compile("[0-9a-f]{64}")


class NotPossible(NiridError):
    """The decision makes no sense for this target; nothing was changed."""


def record_to_json(record: FileRecord) -> dict[str, Any]:
    assert record.descriptors is not None
    assert record.signature is not None
    values = {**asdict(record), "tags": sorted(record.tags), "signature": list(record.signature)}
    return {**values, "descriptors": record.descriptors.to_json()}


def record_from_json(values: Mapping[str, Any]) -> FileRecord:
    """Raises NotPossible when it is not what `record_to_json` makes of a calibration."""
    try:
        values = {**cleaned(values), "path": values["path"]}  # a name may hold bytes that are no text
        check(Descriptors, values["descriptors"])
        known = {k: v for k, v in values.items() if k in FileRecord.__dataclass_fields__}
        record = FileRecord(
            **{
                **known,
                "tags": frozenset(values["tags"]),
                "signature": Signature(*values["signature"]),
                "descriptors": Descriptors.from_json(values["descriptors"]),
            }
        )
        check(FileRecord, _plain_fields(record))
        check(Signature, record.signature._asdict() if record.signature else {})
        CalKind(record.kind)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotPossible(f"the request does not say what the file is: {error}") from None
    if not _SHA.fullmatch(record.file_sha) or not is_path(record.path):
        raise NotPossible("the request does not say what the file is: no SHA-256, or no path")
    if record.state != FileState.CALIBRATION or not Path(record.path).is_absolute():
        raise NotPossible(f"{record.path} is no processed calibration")
    return record


def _plain_fields(record: FileRecord) -> dict[str, Any]:
    """The fields as they are, without those that have been checked apart."""
    names = [name for name in FileRecord.__dataclass_fields__ if name not in ("descriptors", "signature")]
    return {name: getattr(record, name) for name in names}


REJECT, ACCEPT, REQUEUE, ADD = "reject", "accept", "requeue", "add"
ACKNOWLEDGE = "acknowledge"  # an alert is known to somebody, and is not told again for so many hours
BLAME, HOLD = "quarantine", "hold"  # the daemon's own: a frame is to blame, a master is held back
ACTIONS = (REJECT, ACCEPT, REQUEUE, ADD, ACKNOWLEDGE)


def of_frame(label: str, data_sha: str) -> str:
    return f"frame {data_sha} {label}"


def of_content(sha256: str) -> str:
    return f"content {sha256}"


def of_judgement(label: str, data_sha: str) -> str:
    return f"judgement {data_sha} {label}"


def of_product(key: str) -> str:
    return f"product {key}"


def of_alert(number: str) -> str:
    return f"alert {number}"


def parted(subject: str) -> tuple[str, str]:
    """(kind, what follows it) of a subject: of a judgement, SHA-256 of the pixels and label; of a product,
    the key of its job."""
    kind, _, what = subject.partition(" ")
    return kind, what


def in_words(row: Mapping[str, Any]) -> str:
    """As a reason: "rejected by ada: trailed"."""
    done = {REJECT: "rejected", ACCEPT: "accepted"}.get(row["action"], "to blame for a failed job")
    if row["action"] == BLAME:
        return str(row["reason"])
    if row["action"] == HOLD:
        return f"held back: {row['reason']}"
    return f"{done} by {row['user']}" + (f": {row['reason']}" if row["reason"] else "")
