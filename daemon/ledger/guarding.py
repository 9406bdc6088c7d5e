"""Masters that are held back: made and published, and not used for others until a person has looked.

    why = judged(tx, job, quality, name)    # in the transaction that publishes a master; "" when it is used
    let_go(tx, key, policy)                 # a person has accepted it

That one is held back is a decision of the daemon's about a product, as a person's acceptance or rejection is:
of several the last counts, and all of them are in the decisions file, from which a lost ledger is made anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from daemon.judgement import drift
from daemon.judgement.drift import Past, Setup, State
from daemon.judgement.limits import OF_KIND
from daemon.ledger import decisions, marks
from daemon.ledger.store import Tx
from daemon.ledger.world import candidate_from_json
from daemon.model.decisions import ACCEPT, HOLD, of_product
from daemon.model.rules import Policy
from pipeline import association
from pipeline.association import CalKind, Candidate

MOST = 400  # masters of a key, of any exposure, that are looked through for those to compare with
_ARRAY = 1024 * 1024  # pixels of NIRI's array
ASK = "nirid accept or nirid reject decides"


def judged(tx: Tx, job: Any, quality: Mapping[str, Any], name: str) -> str:
    """Why the master that a job has made is held back; "" when it is used. What a person has said counts.

    job : its row; quality : of the product, where `measures` are {name: (value, error, unit)}
    """
    if not job["makes"]:
        return ""
    made = candidate_from_json(job["makes"])
    before = decisions.standing(tx, of_product(job["key"]))
    if before is not None:
        return str(before["reason"]) if before["action"] == HOLD else ""
    figures = _figures(quality)
    kind = made.kind.name
    if kind not in OF_KIND or not figures:
        return ""
    line, held = _past(tx, job["makes_key"], made)
    verdict = drift.judged(kind, setup_of(made.facts), figures, line)
    facts = {"job": job["id"], "group": job["group_id"], "product": name, **verdict.to_json()}
    if verdict.state is not State.HELD:
        if verdict.state is State.WARNING or any("lamp" in told for told in verdict.told):
            tx.event("calibration_unusual", **facts)
        return ""
    new = Past(figures, _time(job["ut"]))
    proposal = drift.breakpoint_at([*held, new], line, kind)
    reason = "; ".join([*verdict.reasons[:4], *([proposal] if proposal else [])])
    request = {"request": f"hold-{job['key'][:16]}", "action": HOLD, "user": "nirid"}
    outcome = f"{name} is held back: {ASK}"
    decisions.remember(tx, {**request, "said": name, "reason": reason}, of_product(job["key"]), outcome)
    tx.event("calibration_held", **facts, breakpoint=proposal)
    return reason


def let_go(tx: Tx, key: str, policy: Policy) -> bool:
    """The held master of a job, if it is in use, is used for others; those that may have it are marked."""
    row = tx.one(
        """SELECT p.*, j.makes FROM product p JOIN job j ON j.id = p.job_id
        WHERE j.key = ? AND p.current AND j.makes <> ''""",
        key,
    )
    if row is None:
        return False
    made = replace(
        candidate_from_json(row["makes"]),
        name=row["name"],
        ident=key,
        path=os.fsdecode(row["path"]),
        sha256=row["sha256"],
        pending=False,
    )
    marks.touch_users(tx, tx.cals.add(made, now=tx.now), policy)
    marks.touch(tx, row["group_id"])
    return True


def mask_to_compare(tx: Tx, job: Any) -> str:
    """Path of the accepted mask, of the same filter, that is nearest in time to the one that a job makes; ""
    without one, and for a job that makes no mask."""
    made = candidate_from_json(job["makes"]) if job["makes"] else None
    if made is None or made.kind is not CalKind.MADE_BPM:
        return ""
    rows = tx.rows(
        """SELECT p.path, j.key, j.makes FROM job j JOIN product p ON p.job_id = j.id
        WHERE j.makes_key = ? AND j.state = 'done' AND p.current ORDER BY ABS(j.ut - ?), j.id LIMIT ?""",
        job["makes_key"],
        job["ut"],
        MOST,
    )
    for row in rows:
        other, decision = candidate_from_json(row["makes"]), decisions.standing(tx, of_product(row["key"]))
        accepted = decision is None or decision["action"] == ACCEPT
        if accepted and other.origin != made.origin and alike(made, other):
            return os.fsdecode(row["path"])
    return ""


# -- what a master is held against ---------------------------------------------------------------


def _past(tx: Tx, key: str, made: Candidate) -> tuple[list[Past], list[Past]]:
    """(accepted masters of a key, in order of time; those held since the last of them)."""
    rows = tx.rows(
        """SELECT p.quality, j.makes, j.key, j.ut, j.group_id FROM job j JOIN product p ON p.job_id = j.id
        WHERE j.makes_key = ? AND j.state = 'done' AND p.current ORDER BY j.ut DESC, j.id DESC LIMIT ?""",
        key,
        MOST,
    )
    accepted: list[Past] = []
    held: list[Past] = []
    for row in rows:
        other, figures = candidate_from_json(row["makes"]), _figures(json.loads(row["quality"]))
        if not figures or other.origin == made.origin or not alike(made, other):
            continue
        decision = decisions.standing(tx, of_product(row["key"]))
        action = decision["action"] if decision else ACCEPT
        if action == ACCEPT:
            accepted.append(Past(figures, _time(row["ut"])))
        elif action == HOLD and not accepted:
            held.append(Past(figures, _time(row["ut"])))
        if len(accepted) == drift.LOOKS_BACK:
            break
    return accepted[::-1], held[::-1]


def alike(a: Candidate, b: Candidate) -> bool:
    """Whether two masters agree in what may differ a little, and in what they are like but need not agree in:
    read mode, and of masks the light that their flats were taken in."""
    tolerance = association.RULES[a.kind].tolerance
    near = all(abs((a.facts.get(n) or 0.0) - (b.facts.get(n) or 0.0)) < most for n, most in tolerance.items())
    return near and all(a.facts.get(n) == b.facts.get(n) for n in ("read_mode", "filter_name", "camera"))


def setup_of(facts: Mapping[str, Any]) -> Setup:
    """What the judgement has to know of a master. facts : as its Candidate has them"""
    shape = facts.get("shape")
    pixels = int(shape[0] * shape[1]) if isinstance(shape, list | tuple) and len(shape) == 2 else _ARRAY
    mode, coadds = str(facts.get("read_mode") or ""), int(facts.get("coadds") or 1)
    return Setup(mode, coadds, pixels, float(facts.get("exposure_time") or 0.0))


def _figures(quality: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    measures = quality.get("measures") or {}
    return {name: (float(m[0]), float(m[1] or 0.0)) for name, m in measures.items() if m[0] is not None}


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
