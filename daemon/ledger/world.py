"""What the planner may ask of the ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from daemon.ledger import decisions, held
from daemon.ledger.groups import LONGEST
from daemon.ledger.store import Reader, Tx
from daemon.model.groups import Current, Group, Member, Overrides, Setting, forced_in
from daemon.model.jobs import REMOVE_FIRST, JobSpec
from daemon.model.names import name_order
from daemon.model.rules import Join
from daemon.plan import grouping
from pipeline import association, levels
from pipeline.association import CalibrationKey, CalKind, Candidate
from pipeline.headers.descriptors import Descriptors
from pipeline.headers.times import same_exposure


@dataclass(frozen=True)
class Clocks:
    """running : hours that the daemon has run in its life, kept in the ledger
    quiet_for : (group id, its arrivals) -> monotonic seconds since the last arrival"""

    running: float
    quiet_for: Callable[[int, int], float]


def running_hours(db: Reader) -> float:
    """Hours that the daemon had run in its life when that was noted last."""
    row = db.execute("SELECT value FROM meta WHERE name = 'running_hours'").fetchone()
    return float(row[0]) if row else 0.0


def note_running_hours(tx: Tx, hours: float) -> None:
    tx.run("INSERT OR REPLACE INTO meta VALUES ('running_hours', ?)", hours)


class LedgerWorld:
    """`model.groups.World`, answered from the ledger."""

    def __init__(self, tx: Tx, setting: Setting, overrides: Overrides) -> None:
        self.tx, self.setting, self.overrides = tx, setting, overrides

    def group(self, number: int, clocks: Clocks | None = None) -> Group:
        """The group of this number, with its members."""
        return self.load(self.tx.one("SELECT * FROM frame_group WHERE id = ?", number), clocks)

    def load(self, row: Any, clocks: Clocks | None = None) -> Group:
        """A group with its members."""
        waited = clocks.running - row["waiting_since"] if clocks and row["waiting_since"] is not None else 0.0
        until = self.tx.one("SELECT MAX(ut) AS ut FROM frame WHERE program = ?", row["program"])
        return Group(
            id=row["id"],
            rule=row["rule"],
            key=row["key"],
            members=self.members(row["id"]),
            quiet_for=clocks.quiet_for(row["id"], row["arrivals"]) if clocks else float("inf"),
            settled=bool(row["settled"]),
            waited=waited,
            programme_until=_when(until["ut"]) if until and until["ut"] and row["program"] else None,
            last_arrival=row["last_arrival"],
            remake=row["remake"],
            current=self._current(row["id"]),
        )

    def members(self, group: int) -> tuple[Member, ...]:
        tx = self.tx
        files: dict[int, list[Any]] = {}
        for row in tx.rows(
            """SELECT c.frame_id, c.sha256, c.name, c.facts, s.path FROM content c
            JOIN sighting s ON s.content_id = c.id AND s.current AND s.present
            WHERE c.state <> 'superseded'
            AND c.frame_id IN (SELECT frame_id FROM membership WHERE group_id = ?)""",
            group,
        ):
            files.setdefault(row["frame_id"], []).append(row)
        frames = tx.rows(
            """SELECT f.*, (SELECT MAX(s.last_seen) FROM content c JOIN sighting s ON s.content_id = c.id
                WHERE c.frame_id = f.id) AS seen
            FROM frame f JOIN membership m ON m.frame_id = f.id WHERE m.group_id = ?""",
            group,
        )
        found = (_member(f, files.get(f["id"], []), tx.now) for f in frames)
        return tuple(sorted(found, key=lambda m: m.order))

    def _current(self, group: int) -> Current | None:
        row = self.tx.one(
            """SELECT j.*, p.current, p.quality FROM product p JOIN job j ON j.id = p.job_id
            WHERE p.group_id = ? ORDER BY p.current DESC, p.version DESC LIMIT 1""",
            group,
        )
        rejected = decisions.is_rejected(self.tx, row["key"]) if row and not row["current"] else ""
        if row is None or not (row["current"] or rejected):
            return None
        spec = JobSpec.from_json(json.loads(row["spec"]))
        return Current(
            key=spec.key,
            inputs=tuple((i.data_sha, i.facts) for i in spec.inputs),
            calibrations={
                role: tuple(c.key for c in spec.calibrations if c.role == role)
                for role in {c.role for c in spec.calibrations}
            },
            remove_first=spec.parameters.get(REMOVE_FIRST),
            forced_in=forced_in(spec.parameters),
            remake=row["remake"],
            rejected=rejected,
            levels=levels.read(json.loads(row["quality"] or "{}")),
        )

    def candidates(self, kind: CalKind, target: Descriptors) -> Sequence[Candidate]:
        """The choice must not depend on which of two copies from outside came first."""
        found = (c for c in self.tx.cals.candidates(kind, target) if c.origin or self._lies_there(c))
        stored = (replace(c, made=0) if not c.origin else c for c in found)
        return [*stored, *self._pending(kind, target)]

    def _lies_there(self, external: Candidate) -> bool:
        sql = "SELECT 1 FROM sighting WHERE path = ? AND current AND present LIMIT 1"
        return self.tx.one(sql, os.fsencode(external.path)) is not None

    def _pending(self, kind: CalKind, target: Descriptors) -> list[Candidate]:
        key = str(CalibrationKey.of(kind, target))
        rows = self.tx.rows(
            """SELECT key, makes FROM job WHERE makes_key = ?
            AND state IN ('planned', 'waiting', 'running', 'failed')
            AND (state <> 'failed' OR id IN (SELECT job_id FROM search WHERE outcome = ''))""",
            key,
        )
        return [replace(candidate_from_json(row["makes"]), ident=row["key"], pending=True) for row in rows]

    def joined(self, join: Join, group: Group) -> Sequence[Group]:
        usable = next(m for m in group.members if m.usable)
        pool = grouping.join_key(join.rule, join.agree, usable.descriptors)
        middle, span = usable.ut.timestamp(), join.within_days * 86400
        rows = self.tx.rows(
            """SELECT * FROM frame_group WHERE pool = ? AND NOT closed AND exposure <= ? AND (settled OR ?)
            AND first_ut BETWEEN ? AND ?""",
            pool,
            join.max_exposure_time,
            self.setting.batch,
            middle - span,
            middle + span,
        )
        return [self.load(row) for row in rows]

    def needed(self, kind: CalKind, descriptors: Descriptors) -> bool:
        rule = association.RULES[kind]
        assert descriptors.ut_datetime is not None
        middle = descriptors.ut_datetime.timestamp()
        span = rule.within.total_seconds() if rule.within else 1e12
        row = self.tx.one(
            "SELECT 1 FROM demand WHERE key = ? AND ABS(exposure - ?) < ? AND ut BETWEEN ? AND ? LIMIT 1",
            str(CalibrationKey.of(kind, descriptors)),
            descriptors.exposure_time,
            rule.tolerance.get("exposure_time", 1e12),
            middle - span,
            middle + span,
        )
        return row is not None

    def neighbours(self, group: Group) -> Sequence[Member]:
        first, last = group.members[0].ut.timestamp(), group.members[-1].ut.timestamp()
        reach = self.setting.policy.borrow_sky_seconds
        rows = self.tx.rows(
            """SELECT id FROM frame_group WHERE NOT closed AND id <> ? AND first_ut BETWEEN ? AND ?
            AND last_ut >= ? AND pool <> '' AND pool = (SELECT pool FROM frame_group WHERE id = ?)""",
            group.id,
            first - LONGEST,
            last + reach,
            first - reach,
            group.id,
        )
        exposure = group.members[0].descriptors.exposure_time
        members = [m for row in rows for m in self.members(row["id"])]
        return [m for m in members if same_exposure(m.descriptors.exposure_time, exposure)]

    def parameters(self, recipe: str, descriptors: Descriptors) -> Mapping[str, Any]:
        return self.overrides(recipe, descriptors.to_json())

    def forced_in(self, member: Member) -> bool:
        return decisions.is_forced_in(self.tx, member.label, member.data_sha)

    def withdrawn(self, ident: str) -> bool:
        return self.tx.cals.withdrawn(ident)

    def held_back(self, kind: CalKind, target: Descriptors) -> Sequence[tuple[Candidate, str]]:
        rule, key = association.RULES[kind], str(CalibrationKey.of(kind, target))
        found = [
            (replace(candidate_from_json(row["makes"]), ident=row["key"], name=row["name"]), row["reason"])
            for row in held.of_key(self.tx, key)
        ]
        fits = (isinstance(association.best_match(rule, target, [c]), association.Found) for c, _ in found)
        return [one for one, good in zip(found, fits, strict=True) if good]


class Explained(LedgerWorld):
    """The planner's world for `explain`: every calibration of a kind is a candidate, so that each gets its
    reason."""

    def candidates(self, kind: CalKind, target: Descriptors) -> Sequence[Candidate]:
        made = self.tx.rows(
            """SELECT key, makes FROM job WHERE makes <> ''
            AND state IN ('planned', 'waiting', 'running') AND makes_key LIKE ?""",
            f"{kind.value}:%",
        )
        pending = [replace(candidate_from_json(r["makes"]), ident=r["key"], pending=True) for r in made]
        stored = [*self.tx.cals.candidates(kind, target), *self.tx.cals.candidates(kind, target, exact=False)]
        return [*{c.ident: c for c in stored}.values(), *pending]

    def open_group(self, number: int) -> Group | None:
        """As it would be planned now, were it quiet; None of one that is closed or has no rule any more."""
        row = self.tx.one("SELECT * FROM frame_group WHERE id = ? AND NOT closed", number)
        if row is None or row["rule"] not in self.setting.rules:
            return None
        hours = running_hours(self.tx.reader)
        return self.load(row, Clocks(hours, lambda group, arrivals: float("inf")))


def _member(frame: Any, files: list[Any], now: float) -> Member:
    files = sorted(files, key=lambda f: (f["facts"] != frame["facts"], name_order(f["name"]), f["path"]))
    return Member(
        frame_id=frame["id"],
        label=frame["label"],
        data_sha=frame["data_sha"],
        facts=frame["facts"],
        name=frame["name"],
        ut=_when(frame["ut"]),
        tags=frozenset(json.loads(frame["tags"])),
        descriptors=Descriptors.from_json(json.loads(frame["descriptors"])),
        path=files[0]["path"].decode(errors="surrogateescape") if files else "",
        file_sha=files[0]["sha256"] if files else "",
        usable=bool(frame["usable"]),
        gone_for=0.0 if files else max(0.0, now - (frame["seen"] or 0.0)),
    )


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def candidate_to_json(candidate: Candidate) -> str:
    return json.dumps({**asdict(candidate), "ut": candidate.ut.isoformat()}, sort_keys=True)


def candidate_from_json(text: str) -> Candidate:
    values = json.loads(text)
    return Candidate(
        **{**values, "kind": CalKind(values["kind"]), "ut": datetime.fromisoformat(values["ut"])}
    )
