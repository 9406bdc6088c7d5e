"""What a night has of science, standards and calibrations, and what other nights have of the latter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from daemon.judgement.needs import FrameSet, What
from daemon.ledger.store import Reader, Tx, placeholders
from daemon.model.rules import TriggerRule
from pipeline import association
from pipeline.association import CalibrationKey, CalKind
from pipeline.headers.descriptors import Descriptors
from pipeline.levels import Breakpoint

GONE = "not wanted any more"
TOLD = "calibration_need"  # the event of a need that has changed
_MADE: dict[str, What] = {"makeProcessedDark": "dark", "makeProcessedFlat": "flat"}


def frame_sets(db: Reader, low: float, high: float, rules: Mapping[str, TriggerRule]) -> list[FrameSet]:
    """Frames taken from `low` to before `high` (seconds since the epoch), a set for each group of a rule.

    Open and closed flats are sets of their own. One description is read of each: those of a group agree.
    The joins are crossed so that SQLite begins with the frames of the night, not with all groups of a rule.
    """
    kinds = _kinds(rules)
    rows = db.execute(
        f"""SELECT g.id, g.rule, instr(f.tags, '"LAMPON"') > 0 AS lamp_on, SUM(f.usable) AS n,
            MIN(f.ut) AS first, MAX(f.ut) AS last, MIN(f.id) AS sample
        FROM frame f CROSS JOIN membership m CROSS JOIN frame_group g
        WHERE f.ut >= ? AND f.ut < ? AND m.frame_id = f.id AND g.id = m.group_id
            AND NOT g.closed AND g.rule IN ({placeholders(tuple(kinds))})
        GROUP BY g.id, g.rule, instr(f.tags, '"LAMPON"') > 0 ORDER BY MIN(f.ut), g.id""",
        (low, high, *kinds),
    ).fetchall()
    samples = tuple({row["sample"] for row in rows})
    facts = _facts(db, samples)
    return [
        FrameSet(kinds[r["rule"]], facts[r["sample"]], r["n"], r["first"], r["last"], bool(r["lamp_on"]))
        for r in rows
    ]


def _kinds(rules: Mapping[str, TriggerRule]) -> dict[str, What]:
    """{title of a rule: what its frames are}, for those that count."""
    kinds: dict[str, What] = {}
    for title, rule in rules.items():
        if rule.recipe in _MADE:
            kinds[title] = _MADE[rule.recipe]
        elif rule.recipe == "reduce" and rule.role:
            kinds[title] = rule.role
    return kinds


_AT_ONCE = 500  # values in one statement


def _facts(db: Reader, frames: tuple[int, ...]) -> dict[int, Descriptors]:
    found: dict[int, Descriptors] = {}
    for start in range(0, len(frames), _AT_ONCE):
        some = frames[start : start + _AT_ONCE]
        sql = f"SELECT id, descriptors FROM frame WHERE id IN ({placeholders(some)})"
        found |= {row["id"]: _described(row["descriptors"]) for row in db.execute(sql, some)}
    return found


@lru_cache(maxsize=1024)
def _described(text: str) -> Descriptors:
    """Kept, as the daemon asks of the same groups again with every frame that comes."""
    return Descriptors.from_json(json.loads(text))


def nearest_master(
    db: Reader,
    kind: CalKind,
    facts: Descriptors,
    without: tuple[float, float],
    breakpoints: Sequence[Breakpoint] = (),
) -> float | None:
    """When the usable master that is nearest in time to a frame was taken, seconds since the epoch.

    without : times (from, to before) of which none counts: the night that is asked about
    One beyond a breakpoint counts only where there is no other.
    """
    if facts.ut_datetime is None:
        return None
    rule, when = association.RULES[kind], facts.ut_datetime.timestamp()
    span = rule.within.total_seconds() if rule.within else 1e12
    rows = db.execute(
        """SELECT ut, facts FROM calibration WHERE key = ? AND ut > ? AND ut < ? AND removed IS NULL
        AND NOT (ut >= ? AND ut < ?) ORDER BY ABS(ut - ?), id""",
        (str(CalibrationKey.of(kind, facts)), when - span, when + span, *without, when),
    )
    beyond = None
    for row in rows:
        had = json.loads(row["facts"])
        values = ((had.get(n), getattr(facts, n), most) for n, most in rule.tolerance.items())
        if all(a is not None and b is not None and abs(a - b) < most for a, b, most in values):
            ut = float(row["ut"])
            taken = datetime.fromtimestamp(ut, UTC)
            if not any(b.lies_between(kind, taken, facts.ut_datetime) for b in breakpoints):
                return ut
            beyond = ut if beyond is None else beyond
    return beyond


def last_flat(db: Reader, facts: Descriptors, until: float) -> Descriptors | None:
    """The latest lamp-on flat before a time of this filter, camera and array setting."""
    row = db.execute(
        """SELECT f.descriptors FROM frame_group g JOIN membership m ON m.group_id = g.id
        JOIN frame f ON f.id = m.frame_id
        WHERE g.offers = ? AND g.first_ut < ? AND NOT g.closed AND instr(f.tags, '"LAMPON"') > 0
        ORDER BY g.first_ut DESC, f.ut DESC LIMIT 1""",
        (str(CalibrationKey.of(CalKind.FLAT, facts)), until),
    ).fetchone()
    return None if row is None else _described(row["descriptors"])


def tell(tx: Tx, changed: Sequence[Mapping[str, Any]]) -> None:
    """Needs have changed, each with night, key, state and more, as `told` gives them back."""
    for fields in changed:
        tx.event(TOLD, **fields)


def told(db: Reader) -> tuple[str, dict[str, dict[str, Any]]]:
    """(night, {key: the last that was told of this need}) of the latest night of which any was; ("", {}) of
    none. The statement names the event itself, as the index does."""
    found: dict[str, dict[str, Any]] = {}
    night = ""
    for row in db.execute(f"SELECT fields FROM event WHERE event = '{TOLD}' ORDER BY at DESC, id DESC"):
        fields = json.loads(row["fields"])
        if "key" not in fields or fields["night"] != (night or fields["night"]):
            break
        night = fields["night"]
        found.setdefault(fields["key"], fields)
    return night, {key: fields for key, fields in found.items() if fields["state"] != GONE}


def history(db: Reader, night: str, low: float, high: float) -> list[dict[str, Any]]:
    """What was told of the needs of a night from `low` to before `high` (seconds since the epoch), in order:
    the fields of each event, and `at`."""
    rows = db.execute(
        f"SELECT at, fields FROM event WHERE event = '{TOLD}' AND at >= ? AND at < ? ORDER BY at, id",
        (low, high),
    )
    told = ({"at": row["at"], **json.loads(row["fields"])} for row in rows)
    return [fields for fields in told if fields.get("night") == night and "key" in fields]
