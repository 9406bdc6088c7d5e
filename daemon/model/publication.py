"""What is to be published: which staged files get which names, and what they replace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

DAMAGED = ".damaged"  # ending of a file that was found at a product's path and is not that product


class StagedFileGone(OSError):
    """There is neither the staged file nor the published one."""


@dataclass(frozen=True)
class Old:
    """A file that is replaced. product : its row, 0 for a file that the ledger does not know.

    sha256 : of the product; "" for a file that is not ours. Other bytes are kept with the ending .damaged.
    """

    product: int
    path: str
    kept: str  # where it stays, under superseded/
    sha256: str = ""


@dataclass(frozen=True)
class PublishPlan:
    """All that is needed to finish, written down before anything is touched."""

    job: int
    attempt: int
    name: str
    night: str
    staged: str
    final: str
    sha256: str
    version: int
    old: tuple[Old, ...]
    result: Mapping[str, Any]
    restored: int = 0  # the product that takes its place again; 0 for a new one
    withdrawn: bool = False  # nothing takes the place of what is removed

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PublishPlan:
        values = json.loads(text)
        return cls(**{**values, "old": tuple(Old(**old) for old in values["old"])})
