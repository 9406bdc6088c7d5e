"""What a need for a calibration is: the frames of a night by their setting, and one row of the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from daemon.judgement.sun import HAWAII
from pipeline.association import AssociationRule, CalKind
from pipeline.headers.descriptors import Descriptors

What = Literal["science", "standard", "dark", "flat"]
State = Literal["wanted", "being taken", "there", "missing", "stale", "not needed"]
OPEN: frozenset[str] = frozenset({"wanted", "being taken", "missing", "stale"})


@dataclass(frozen=True)
class FrameSet:
    """Frames of one group of a night. frames : how many can be used

    facts : of one of them; they agree in what the rule groups by
    first, last : seconds since the epoch; lamp_on : of flats
    """

    what: What
    facts: Descriptors
    frames: int
    first: float
    last: float
    lamp_on: bool = False


class Past(Protocol):
    """What may be asked of other nights."""

    def master(self, kind: CalKind, facts: Descriptors) -> float | None:
        """When the nearest usable master of that setting was taken, seconds since the epoch."""

    def last_flat(self, facts: Descriptors) -> Descriptors | None:
        """The latest lamp-on flat of this camera, filter and array setting."""


@dataclass(frozen=True)
class User:
    """Whose frames want it. since : seconds since the epoch"""

    program: str
    filter: str
    frames: int
    since: float
    role: str = "science"


@dataclass(frozen=True)
class Need:
    """One calibration that frames of the night want.

    key : the same as long as it is the same need; kind : dark, flat, standard
    what : in words; users : for whom, the most frames first; frames : of science that would be hurt
    have : in words; taken : "4 of 10", "4 + 0 of 10 + 10" of tonight
    until : when the time for it ends, seconds since the epoch; None where there is none
    how : how Gemini takes it; warnings : of what was taken otherwise
    """

    key: str
    kind: Literal["dark", "flat", "standard"]
    what: str
    users: tuple[User, ...]
    frames: int
    state: State
    taken: str
    have: str
    until: float | None = None
    how: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The state with what there is: being taken 4 of 10."""
        return f"being taken {self.taken}" if self.state == "being taken" else self.state

    def to_json(self, now: datetime) -> dict[str, Any]:
        """As `nirid missing --json` has it."""
        left = None if self.until is None else max(0.0, self.until - now.timestamp())
        return {
            "kind": self.kind,
            "what": self.what,
            "state": self.state,
            "taken": self.taken,
            "frames": self.frames,
            "for": [{**vars(user), "since": iso(user.since)} for user in self.users],
            "have": self.have,
            "until": None if self.until is None else iso(self.until),
            "left_seconds": left,
            "how": self.how,
            "warnings": list(self.warnings),
        }


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def both_clocks(when: datetime) -> str:
    """00:00 UT (14:00 HST)."""
    return f"{when:%H:%M} UT ({when + HAWAII:%H:%M} HST)"


def agree(rule: AssociationRule, wants: Descriptors, has: Descriptors) -> bool:
    """True when a calibration with these facts is right for that frame, whenever it was taken."""
    for name in rule.match:
        value = getattr(wants, name)
        if value in (None, "Unknown") or value != getattr(has, name):
            return False
    return near(rule, wants, has)


def near(rule: AssociationRule, one: Descriptors, other: Descriptors) -> bool:
    """True when both are within the tolerances of the rule."""
    for name, limit in rule.tolerance.items():
        a, b = getattr(one, name), getattr(other, name)
        if a is None or b is None or not abs(a - b) < limit:
            return False
    return True


def unknown(rule: AssociationRule, facts: Descriptors) -> list[str]:
    """What the header does not say and the rule asks for: nothing can match then."""
    names = (*rule.match, *rule.tolerance)
    return [name for name in names if getattr(facts, name) in (None, "Unknown")]


def alike(rule: AssociationRule, sets: Iterable[FrameSet]) -> list[list[FrameSet]]:
    """Sets that one calibration serves, in order of time; an exposure is compared with the first."""
    together: dict[tuple[object, ...], list[list[FrameSet]]] = {}
    for one in sorted(sets, key=lambda s: s.first):
        same = together.setdefault(tuple(getattr(one.facts, name) for name in rule.match), [])
        lacks = unknown(rule, one.facts)
        for others in same:
            facts = others[0].facts
            if near(rule, facts, one.facts) or (lacks and lacks == unknown(rule, facts)):
                others.append(one)
                break
        else:
            same.append([one])
    return [served for same in together.values() for served in same]


def users_of(sets: Sequence[FrameSet]) -> tuple[User, ...]:
    """By programme, filter and role, the most frames first."""
    merged: dict[tuple[str, str, str], list[FrameSet]] = {}
    for one in sets:
        name = one.facts.program_id or "no programme"
        merged.setdefault((one.what, name, one.facts.filter_pretty), []).append(one)
    users = [
        User(name, filter_, sum(s.frames for s in some), min(s.first for s in some), what)
        for (what, name, filter_), some in merged.items()
    ]
    return tuple(sorted(users, key=lambda u: (u.role != "science", -u.frames, u.since, u.program, u.filter)))


def key_of(kind: str, rule: AssociationRule, facts: Descriptors) -> str:
    values: Mapping[str, Any] = {n: getattr(facts, n) for n in (*rule.match, *rule.tolerance)}
    return f"{kind}:" + ",".join(f"{name}={value}" for name, value in values.items())
