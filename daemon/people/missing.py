"""Which calibrations a night still needs, as people ask it, and as the daemon watches it.

answer(db, rules, night, now)   # what `nirid missing` shows
Watch(ledger, rules, clock).look(touched=True) # in the daemon: each change of a need is one event
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from daemon.judgement import lamps, sun
from daemon.judgement.lamps import Lamp, Setup
from daemon.judgement.missing import missing
from daemon.judgement.needs import OPEN, Need
from daemon.ledger import needs as ledger_needs
from daemon.ledger.night import latest_frame
from daemon.ledger.store import Ledger, Reader
from daemon.model.rules import TriggerRule
from pipeline.association import CalKind
from pipeline.headers.descriptors import Descriptors
from pipeline.levels import Breakpoint

AHEAD = 86400.0  # s: a frame of later than tomorrow has a wrong clock
AGAIN = 60.0  # s between looks when nothing comes: time itself changes what is missing

Rules = Mapping[str, TriggerRule]
Fields = Mapping[str, Any]  # of an event


@cache
def table() -> Mapping[Setup, Lamp]:
    """Gemini's lamps, as the package brings them."""
    return lamps.table_of(resources.files("daemon").joinpath("data/niri_flats.csv").read_text("utf-8"))


@dataclass(frozen=True)
class _OtherNights:
    """What the ledger knows beside the night that is asked about."""

    db: Reader
    night: tuple[float, float]
    breakpoints: Sequence[Breakpoint]

    def master(self, kind: CalKind, facts: Descriptors) -> float | None:
        return ledger_needs.nearest_master(self.db, kind, facts, self.night, self.breakpoints)

    def last_flat(self, facts: Descriptors) -> Descriptors | None:
        return ledger_needs.last_flat(self.db, facts, until=self.night[1])


def needs_of(
    db: Reader, rules: Rules, night: str, now: datetime, breakpoints: Sequence[Breakpoint] = ()
) -> list[Need]:
    """The needs of a night (20160102) as they are at a time (aware)."""
    begin, end = (when.timestamp() for when in sun.day_of(night))
    sets = ledger_needs.frame_sets(db, begin, end, rules)
    past = _OtherNights(db, (begin, end), breakpoints)
    return missing(sets, night, now, table(), past, breakpoints)


def answer(
    db: Reader,
    rules: Rules,
    night: str | None,
    now: datetime,
    breakpoints: Sequence[Breakpoint] = (),
) -> dict[str, Any]:
    """Plain data: the night, its phase, and a row for each need. night : None is that of the latest frame

    An empty ledger has the night of `now`, and no need.
    """
    if night is None:
        last = latest_frame(db, now.timestamp() + AHEAD)
        night = f"{now if last is None else datetime.fromtimestamp(last, UTC):%Y%m%d}"
    begin, end = sun.day_of(night)
    rows = needs_of(db, rules, night, now, breakpoints)
    return {
        "night": night,
        "now": now.isoformat(timespec="seconds"),
        "phase": sun.phase(now, night),
        "sun": round(sun.sun_altitude(now), 1),
        "begins": begin.isoformat(),
        "dawn": sun.dawn(night).isoformat(timespec="seconds"),
        "ends": end.isoformat(),
        "missing": sum(need.state in OPEN for need in rows),
        "needs": [need.to_json(now) for need in rows],
    }


@dataclass
class Watch:
    """Tells each change of what tonight needs as an event `calibration_need`, once.

    Only the night that goes on is watched, so that an archive which is taken in says nothing. What was told
    is in the ledger: a start tells what has changed since, and nothing again.
    clock : seconds since the epoch
    """

    ledger: Ledger
    rules: Rules
    clock: Callable[[], float]
    breakpoints: Sequence[Breakpoint] = ()
    _night: str | None = None  # None until the ledger was asked what it has told
    _told: Mapping[str, Fields] = field(default_factory=dict)
    _looked: float = float("-inf")

    def look(self, *, touched: bool) -> None:
        """Ask again when something has come, and else once a minute. Raises LedgerBusy."""
        seconds = self.clock()
        now = datetime.fromtimestamp(seconds, UTC)
        night = f"{now:%Y%m%d}"
        if not touched and 0 <= seconds - self._looked < AGAIN and night == self._night:
            return
        self._looked = seconds
        with self.ledger.read() as db:
            if self._night is None:
                self._night, self._told = ledger_needs.told(db)
            before = (
                needs_of(db, self.rules, self._night, now, self.breakpoints)
                if self._night not in ("", night)
                else None
            )
            needs = needs_of(db, self.rules, night, now, self.breakpoints)
        if before is not None:
            self._tell(before, self._night)
            self._told = {}  # the day is finished: what is missing now stays so
        self._night = night
        self._tell(needs, night)

    def open(self) -> dict[str, int]:
        """{kind: how many calibrations the night still needs}, as they were told last."""
        kinds = [key.partition(":")[0] for key, need in self._told.items() if need["state"] in OPEN]
        return {kind: kinds.count(kind) for kind in ("dark", "flat", "standard")}

    def _tell(self, needs: Sequence[Need], night: str) -> None:
        new = {need.key: _fields(need, night) for need in needs if need.state != "not needed"}
        changed: list[Fields] = []
        for key, need in new.items():
            before = self._told.get(key)
            if before is None and need["state"] not in OPEN:
                continue  # nothing was missing
            if before is None or any(before[name] != need[name] for name in ("state", "warnings")):
                changed.append({**need, "before": before["state"] if before else ""})
        for key, before in self._told.items():
            if key not in new and before["state"] in OPEN:
                changed.append({**before, "state": ledger_needs.GONE, "before": before["state"]})
        if changed:
            self.ledger.write(lambda tx: ledger_needs.tell(tx, changed))
        self._told = new


def _fields(need: Need, night: str) -> Fields:
    return {
        "night": night,
        "key": need.key,
        "what": need.what,
        "state": need.state,
        "frames": need.frames,
        "programs": [user.program for user in need.users],
        "have": need.have,
        "how": need.how,
        "warnings": list(need.warnings),
    }
