"""A group of frames as the planner sees it, what it may ask, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

from daemon.model.jobs import JobSpec
from daemon.model.names import night_of, stem_of
from daemon.model.rules import DEFAULT_POLICY, Join, Policy, TriggerRule
from pipeline.association import CalKind, Candidate, Match
from pipeline.headers.descriptors import Descriptors
from pipeline.primitive import Recipe


@dataclass(frozen=True)
class Member:
    """One frame of a group, as the planner sees it.

    name : canonical, as N20160102S0270.fits; path : "" when it is no longer on disk
    usable : ready; a frame that is excluded, damaged or superseded still counts as the first of its sequence
    gone_for : seconds since its file was missed, where there is none
    """

    frame_id: int
    label: str
    data_sha: str
    facts: str
    name: str
    ut: datetime
    tags: frozenset[str]
    descriptors: Descriptors
    path: str = ""
    file_sha: str = ""
    usable: bool = True
    gone_for: float = 0.0

    @property
    def ident(self) -> tuple[str, str]:
        return (self.label, self.data_sha)

    @property
    def order(self) -> tuple[datetime, tuple[str, str]]:
        return (self.ut, self.ident)

    @property
    def stem(self) -> str:
        return stem_of(self.name)

    @property
    def night(self) -> str:
        return night_of(self.name, self.ut)


class Point(NamedTuple):
    """A frame on the time axis. order : breaks ties of `ut`, the same on every machine."""

    ut: float  # seconds since the epoch
    order: str
    exposure: float
    frame_id: int


class World(Protocol):
    """What the planner may ask."""

    def candidates(self, kind: CalKind, target: Descriptors) -> Sequence[Candidate]:
        """Stored calibrations, and those that a planned or running job will make."""

    def joined(self, join: Join, group: Group) -> Sequence[Group]:
        """Settled groups of the other rule that agree, within the time."""

    def needed(self, kind: CalKind, descriptors: Descriptors) -> bool:
        """True when a group of OBJECT frames could use such a calibration."""

    def neighbours(self, group: Group) -> Sequence[Member]:
        """Frames of other groups of the same programme and configuration, near in time."""

    def parameters(self, recipe: str, descriptors: Descriptors) -> Mapping[str, Any]:
        """The operator's overrides."""

    def forced_in(self, member: Member) -> bool:
        """True when a person wants a frame used that the pipeline may leave out."""

    def withdrawn(self, ident: str) -> bool:
        """True when a calibration was taken out by a person, and not replaced by a newer one."""

    def held_back(self, kind: CalKind, target: Descriptors) -> Sequence[tuple[Candidate, str]]:
        """(calibration, why) of those that fit a frame and are held back until a person has looked."""


@dataclass(frozen=True)
class Decision:
    """What is to be done about a group, and why.

    action : "plan" the job of `spec`; "wait" for a calibration; "idle": nothing now; "later": look again
        after `due` seconds
    short : it waits for frames, or for a calibration that it may in the end go without
    lost : it waits for frames whose files are gone, and goes on without them after `due` seconds
    producers : idents (job keys) of the jobs that it waits for
    better : calibrations that would be better, but are not near enough to remake the product for
    makes : the calibration that the job will make
    matches : what association answered, for `explain`
    nearest : times of the chosen calibrations; only what comes before them in the order of choice can replace
        them
    """

    group: int
    action: Literal["plan", "wait", "idle", "later"]
    reason: str
    spec: JobSpec | None = None
    latest: datetime | None = None
    settled: bool = False
    short: bool = False
    lost: bool = False
    due: float | None = None
    producers: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    makes: Candidate | None = None
    remake: int = 0
    members: tuple[int, ...] = ()  # frame ids of the inputs, in order
    matches: Mapping[CalKind, Match] = field(default_factory=dict)
    nearest: Mapping[CalKind, datetime] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """What is the same for every group of one call."""

    rules: Mapping[str, TriggerRule]  # by title
    recipes: Mapping[str, Recipe]
    policy: Policy = DEFAULT_POLICY
    preset: str = "nirid"
    products: str = ""
    batch: bool = False  # --until-idle: quiet times and waits count as elapsed
    grace_seconds: float = 900.0  # for which a missing file is waited for


def forced_in(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a job's parameters those that tell steps which frames a person wants used."""
    return {name: value for name, value in parameters.items() if name.endswith(":accept")}


@dataclass(frozen=True)
class Current:
    """How the current product of a group was made."""

    key: str
    inputs: tuple[tuple[str, str], ...]  # (data_sha, facts), in order
    calibrations: Mapping[str, tuple[str, ...]]  # role -> idents
    remove_first: Any = None
    forced_in: Mapping[str, Any] = field(default_factory=dict)  # parameter -> frames that a person accepted
    remake: int = 0
    rejected: str = ""  # who accepted it and why; then only other frames, or a person, bring a new one
    levels: Mapping[str, int] = field(default_factory=dict)  # header card -> level of its calibration


@dataclass(frozen=True)
class Group:
    """A group to look at.

    members : in order of time, the unusable ones included
    quiet_for : monotonic seconds since the last arrival; infinity when that does not matter any more
    settled : it has been quiet since the last arrival
    waited : running hours that it has waited for frames or a calibration
    programme_until : the latest exposure of the programme that the daemon knows of
    last_arrival : seconds since the epoch
    """

    id: int
    rule: str
    key: str
    members: tuple[Member, ...]
    quiet_for: float = float("inf")
    settled: bool = False
    waited: float = 0.0
    programme_until: datetime | None = None
    last_arrival: float = 0.0
    remake: int = 0
    current: Current | None = None


Overrides = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]  # Config.parameters
