"""JobSpec: everything a worker needs to make one product. Plain data, sent as JSON over a pipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

Ending = Literal[
    "done",  # `result` is the worker's answer, the staged product is on disk
    "failed",  # ReductionError or a bug: the same inputs would fail again
    # OSError, or a library that cannot be loaded: the system is in trouble for a while: does not count as an
    # attempt
    "io",
    "died",  # the worker is gone by itself (segmentation fault, exit)
    "killed",  # by a signal from outside: the kernel's, when memory runs out, a limit's, or a person's
    "timeout",  # over the time limit, killed
    "memory",  # over the memory limit, or no thread to be had
    "cache",  # compiled code on disk is damaged: it was thrown away, the job is for another try
    "stopped",  # asked to stop, and did
]


# the engine's numbers from here on are first looks and running stacks, never jobs
FIRST_LOOK_NUMBER = 1 << 40


@dataclass(frozen=True)
class Ticket:
    """What an engine was given. Kind and number are packed into one number, to go between processes.

    kind : a "job" of the ledger, a "part" of one that has failed, or a "look": a first look, a running stack
    number : of the job, of the failed job, of the look
    """

    kind: Literal["job", "part", "look"]
    number: int

    @classmethod
    def of(cls, engine_number: int) -> Ticket:
        if engine_number < 0:
            return cls("part", -engine_number)
        if engine_number > FIRST_LOOK_NUMBER:
            return cls("look", engine_number - FIRST_LOOK_NUMBER)
        return cls("job", engine_number)

    @property
    def engine_number(self) -> int:
        return -self.number if self.kind == "part" else self.shown

    @property
    def shown(self) -> int:
        """The number in logs: that of the job for a part, one that no job has for a look."""
        return self.number + FIRST_LOOK_NUMBER if self.kind == "look" else self.number


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt at a job. job_id : the engine's number, see `Ticket`"""

    job_id: int
    attempt: int
    ending: Ending
    seconds: float  # wall time, by the monotonic clock
    result: Mapping[str, Any] | None = None  # only of "done"
    error: str = ""  # one line: class and message
    traceback: str = ""
    data_error: bool = False  # of "failed": True for a ReductionError, False for a bug

    @property
    def ticket(self) -> Ticket:
        return Ticket.of(self.job_id)


class Spec(Protocol):
    """A job specification, as `daemon.model.jobs.JobSpec`: an engine only hands it on."""

    def to_json(self) -> dict[str, Any]: ...


# Header cards of a product that the ledger keeps beside it.
QUALITY = (
    "NCOMBINE", "NSOURCES", "NSTARS", "MEANFWHM", "MFWHMERR", "ZENFWHM", "MEANELLP", "ELLIERR", "IQBIN",
    "BGRATE", "BGRERR", "BGFRAMES", "BGMAG", "BGMAGERR", "SATFRAC", "NOISECOR", "MAGZPT", "MAGZERR", "ZPSTAR",
    "ZPIMAGE", "ZPFSCAT", "ZPSCAT", "ZPNSTD", "PHOTOM", "CLOUDEXT", "CCBIN",
    "DARKLEV", "FLATLEV", "BPMLEV", "ZPLEV",
)  # fmt: skip

SHOWN = ".shown.png"  # the picture of a running stack, with its own name: the product's has the product's


@dataclass(frozen=True)
class Input:
    """One raw frame.

    name : canonical, as N20160102S0270.fits, whatever the file is called
    file_sha : SHA-256 of the bytes as delivered; data_sha : of the uncompressed data units
    facts : digest of the header cards that matter; ut : start of the exposure, ISO
    """

    path: str
    name: str
    file_sha: str
    data_sha: str
    facts: str
    ut: str


@dataclass(frozen=True)
class CalInput:
    """One calibration. role : a CalKind value; key : key of the job that made it, or its hash if external."""

    role: str
    path: str
    name: str
    sha: str
    key: str


@dataclass(frozen=True)
class JobSpec:
    """One job.

    key : digest of all that the pixels depend on (`job_key`)
    group : 16 hex digits, the product's GROUPID
    name : product name without ".fits", as N20160102S0423_dark; night : as 20160102
    time_stamp : ISO, the end of the latest input; the only time inside a product
    levels : kind -> (level, comment) of its calibrations, for the header
    attempt, staging, group_id, compare : filled in when the job is claimed; `staging` is the staged file's
        path without ".fits", `group_id` the group's number in the ledger, as logs and people know it,
        `compare` the path of an accepted mask: of a new one the pixels are counted that it did not have
    """

    key: str
    recipe: str
    recipe_version: int
    group: str
    inputs: tuple[Input, ...]
    calibrations: tuple[CalInput, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "nirid"
    notes: tuple[str, ...] = ()
    name: str = ""
    night: str = ""
    time_stamp: str = ""
    products: str = ""
    levels: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    attempt: int = 0
    staging: str = ""
    group_id: int = 0
    compare: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> JobSpec:
        """The inverse of `to_json`; unknown names, of another release, are passed over."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        known["inputs"] = tuple(Input(**item) for item in known["inputs"])
        known["calibrations"] = tuple(CalInput(**item) for item in known.get("calibrations", ()))
        known["notes"] = tuple(known.get("notes", ()))
        known["levels"] = {kind: (n, said) for kind, (n, said) in known.get("levels", {}).items()}
        return cls(**known)


def job_key(
    recipe: str,
    recipe_version: int,
    inputs: Sequence[Input],
    calibrations: Sequence[CalInput],
    parameters: Mapping[str, Any],
    preset: str,
    remake: int = 0,
) -> str:
    """64 hex digits: the identity of a product. The same key never runs twice.

    Inputs count by their pixels and the facts of their headers, in order of time; calibrations by what
    made them. Paths, names, edited comments and the order of arrival are not in it.
    remake : raised only when a person asks for what exists already to be made again
    """
    content: list[Any] = [
        recipe,
        recipe_version,
        [[item.data_sha, item.facts] for item in inputs],
        sorted([item.role, item.key] for item in calibrations),
        sorted((name, value) for name, value in parameters.items()),
        preset,
        *([remake] if remake else []),
    ]
    return digest(content)


def input_key(inputs: Sequence[Input]) -> str:
    """Digest of what the inputs are, whatever their files are called and whatever else their headers say."""
    return digest([[item.data_sha, item.facts] for item in inputs])


def digest(content: Any, length: int = 64) -> str:
    """Hex digest of plain data, stable between releases."""
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@dataclass(frozen=True)
class Look:
    """A first look or a running stack. number : the engine's; group : whose frames; kind : as in its name"""

    number: int
    group: int
    spec: JobSpec
    kind: str

    @property
    def name(self) -> str:
        return f"{self.spec.name.rpartition('_')[0]}_{self.kind}"


# The parameter by which the planner leaves out the first frame of a sequence: its decision for each group,
# never the recipe's default.
REMOVE_FIRST = "removeFirstFrame:remove_first"

CALIBRATION, SCIENCE, BACKLOG = 1, 2, 4  # priorities; 0 and 3 are for first looks and running stacks
