"""The states of files and jobs, and which changes are legal. An illegal one raises.

States are strings in the database and in every report; each comes with a reason in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class FileState(StrEnum):
    SEEN = "seen"  # not yet stable
    INCOMPLETE = "incomplete"  # shorter than its headers say, still watched
    READY = "ready"  # registered, usable
    CALIBRATION = "calibration"  # a processed calibration from outside, registered where it lies
    REFUSED = "refused"  # whole, but no frame of ours
    QUARANTINED = "quarantined"  # damaged
    EXCLUDED = "excluded"  # excluded by a person or by its QA state
    SUPERSEDED = "superseded"  # newer content at its path
    VANISHED = "vanished"  # gone before it could be read


class JobState(StrEnum):
    PLANNED = "planned"
    WAITING = "waiting"  # a calibration is missing or being made
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # the same inputs would fail again
    DROPPED = "dropped"  # superseded before it mattered


class IllegalTransition(RuntimeError):
    """A state change that the tables below do not allow: a bug, never data."""


F, J = FileState, JobState

# what reading a file can find
_READ = frozenset({F.READY, F.CALIBRATION, F.REFUSED, F.QUARANTINED, F.EXCLUDED})

FILE_TRANSITIONS: Mapping[FileState, frozenset[FileState]] = {
    F.SEEN: _READ | {F.INCOMPLETE, F.VANISHED, F.SUPERSEDED},
    F.INCOMPLETE: _READ | {F.SEEN, F.VANISHED, F.SUPERSEDED},
    F.READY: frozenset({F.EXCLUDED, F.QUARANTINED, F.SUPERSEDED}),
    F.CALIBRATION: frozenset({F.EXCLUDED, F.QUARANTINED, F.SUPERSEDED}),
    # A later release, or a person, may decide otherwise; new bytes at its path supersede it.
    F.REFUSED: _READ - {F.REFUSED} | {F.SUPERSEDED},
    F.QUARANTINED: _READ - {F.QUARANTINED} | {F.SUPERSEDED},
    F.EXCLUDED: _READ - {F.EXCLUDED} | {F.SUPERSEDED},
    F.SUPERSEDED: _READ,  # the same bytes came back, at this or another path
    F.VANISHED: _READ | {F.SEEN, F.INCOMPLETE, F.SUPERSEDED},
}

JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    J.PLANNED: frozenset({J.RUNNING, J.WAITING, J.DROPPED}),
    J.WAITING: frozenset({J.PLANNED, J.DROPPED}),
    J.RUNNING: frozenset({J.DONE, J.FAILED, J.PLANNED, J.DROPPED}),
    J.DONE: frozenset(),  # an identical key never runs twice
    J.FAILED: frozenset({J.PLANNED, J.DROPPED}),  # a person asks for it again
    J.DROPPED: frozenset({J.PLANNED, J.WAITING}),  # wanted again
}


def check_file(old: FileState | str, new: FileState | str) -> None:
    """Raise IllegalTransition unless a file may go from `old` to `new`; to itself it always may."""
    if F(old) != F(new) and F(new) not in FILE_TRANSITIONS[F(old)]:
        raise IllegalTransition(f"a file cannot go from {F(old)} to {F(new)}")


def check_job(old: JobState | str, new: JobState | str) -> None:
    """Raise IllegalTransition unless a job may go from `old` to `new`."""
    if J(new) not in JOB_TRANSITIONS[J(old)]:
        raise IllegalTransition(f"a job cannot go from {J(old)} to {J(new)}")
