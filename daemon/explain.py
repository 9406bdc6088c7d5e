"""Why this, why not yet: one answer for a file, a group, a job or a product.

    with ledger.on_paper(path) as tx:
        answer = explain(tx, targets.find(tx.rows, "N20160102S0270.fits"), setting, overrides)

Plain data: state, since when, why, what it waits for; which calibrations were chosen and, for each
candidate that was not, the criteria that it failed. What is not on record is found out by planning on
paper with the planner that the daemon itself uses.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon import looks, outdated, queries, verdicts
from daemon.ledger import Tx
from daemon.planner import Group, Setting, plan, takes
from daemon.planning import Clocks, LedgerWorld, Overrides, candidate_from_json
from daemon.targets import Target
from pipeline import association
from pipeline.association import CalKind, Candidate, Found, Match, NotApplicable
from pipeline.descriptors import Descriptors

Answer = dict[str, Any]
_USABLE = "ready"


def explain(tx: Tx, target: Target, setting: Setting, overrides: Overrides) -> Answer:
    """{"target", "kind", "name", "state", "since", "reason", "waits_for", ...}, more for each kind."""
    how = {
        "file": _file,
        "path": _path,
        "group": _group,
        "job": _job,
        "product": _product,
    }[target.kind]
    world = _World(tx, setting, overrides)
    return {"target": target.text, "kind": target.kind, "name": target.name, **how(world, target.id)}


class _World(LedgerWorld):
    """The planner's world, in which every calibration of a kind is a candidate, so that each says why not."""

    def candidates(self, kind: CalKind, target: Descriptors) -> Sequence[Candidate]:
        made = self.tx.rows(
            """SELECT key, makes FROM job WHERE makes <> ''
            AND state IN ('planned', 'waiting', 'running') AND makes_key LIKE ?""",
            f"{kind.value}:%",
        )
        pending = [replace(candidate_from_json(r["makes"]), ident=r["key"], pending=True) for r in made]
        stored = [*self.tx.cals.candidates(kind, target), *self.tx.cals.candidates(kind, target, exact=False)]
        return [*{c.ident: c for c in stored}.values(), *pending]

    @property
    def db(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = self.tx.db.connection()  # rows by name
        return connection


# -- files -----------------------------------------------------------------------------------


def _path(world: _World, sighting: int) -> Answer:
    """A file whose content is not known yet."""
    row = world.tx.one("SELECT * FROM sighting WHERE id = ?", sighting)
    assert row is not None
    return {
        "state": row["state"],
        "since": queries.iso(row["first_seen"]),
        "reason": row["reason"],
        "waits_for": _rest_of(row["state"], row["reason"]),
        "paths": [os.fsdecode(row["path"])],
        "size": row["size"],
        "last_seen": queries.iso(row["last_seen"]),
    }


def _rest_of(state: str, reason: str) -> list[str]:
    """A file that may not be read waits for a person, who is told by its reason."""
    waits = state in ("seen", "incomplete") and not reason.startswith("cannot be read")
    return ["the rest of the file"] if waits else []


def _file(world: _World, content: int) -> Answer:
    tx = world.tx
    row = tx.one("SELECT * FROM content WHERE id = ?", content)
    assert row is not None
    seen = tx.rows(
        "SELECT DISTINCT path FROM sighting WHERE content_id = ? ORDER BY current DESC, path", content
    )
    frame = tx.one("SELECT * FROM frame WHERE id = ?", row["frame_id"])
    ids = tx.rows("SELECT group_id FROM membership WHERE frame_id = ? ORDER BY group_id", row["frame_id"])
    groups = [_summary(world, r[0]) for r in ids]
    made = tx.rows(
        """SELECT p.* FROM product p WHERE p.job_id IN (SELECT job_id FROM job_input WHERE frame_id = ?)
        OR p.job_id IN (SELECT job_id FROM job_calibration WHERE ident = ?)
        ORDER BY p.current DESC, p.published DESC""",
        row["frame_id"],
        row["sha256"],
    )
    subjects = [f"content {row['sha256']}"]
    if frame:
        subjects += [_frame_subject(frame), verdicts.of_judgement(frame["label"], frame["data_sha"])]
    return {
        "state": row["state"],
        "since": queries.iso(row["changed"]),
        "reason": row["reason"],
        "waits_for": list(dict.fromkeys(w for group in groups for w in group["waits_for"])),
        "sha256": row["sha256"],
        "paths": [os.fsdecode(r["path"]) for r in seen],
        "first_seen": queries.iso(row["first_seen"]),
        "checksum": {None: "carries none", 0: "carries none", 1: "verified"}[row["verified"]],
        "tags": json.loads(row["tags"]),
        "descriptors": json.loads(row["descriptors"]) or {},
        "data_label": frame["label"] if frame else "",
        "decisions": _decisions(tx, subjects),
        "groups": groups,
        "products": [_product_line(r) | _judged(r, frame["name"] if frame else "") for r in made],
    }


def _judged(product: Any, name: str) -> Answer:
    """What the pipeline made of a frame in a product; nothing where it was used like any other."""
    rows = json.loads(product["quality"]).get("frames", [])
    row = next((r for r in rows if name and r.get("NAME") == name), None)
    if row is None or (row.get("VERDICT", "used"), row.get("AS_SKY", "used")) == ("used", "used"):
        return {}
    columns = ("VERDICT", "AS_SKY", "REASON", "FIGURE", "LIMIT", "WEIGHT")
    return {"judged": {column.lower(): row.get(column) for column in columns}}


def _frame_subject(frame: Any) -> str:
    return f"frame {frame['data_sha']} {frame['label']}"


def _decisions(tx: Tx, subjects: Sequence[str]) -> list[Answer]:
    marks = ", ".join("?" * len(subjects))
    rows = tx.rows(f"SELECT * FROM decision WHERE subject IN ({marks}) ORDER BY id", *subjects)
    named = [
        {"at": queries.iso(r["at"]), **{k: r[k] for k in ("action", "user", "reason")}}
        | ({"of": "judgement"} if r["subject"].startswith("judgement ") else {})
        for r in rows
    ]
    return [item for i, item in enumerate(named) if item not in named[:i]]


# -- groups ----------------------------------------------------------------------------------


def _group(world: _World, group: int) -> Answer:
    tx, setting = world.tx, world.setting
    row = tx.one("SELECT * FROM frame_group WHERE id = ?", group)
    assert row is not None
    answer = _summary(world, group)
    rule = setting.rules.get(row["rule"])
    if rule is None or row["closed"]:
        return {**answer, "frames": [], "needs": [], "agree": {}, "calibrations": [], "jobs": []}
    loaded = world.load(row, Clocks(_running_hours(tx), lambda group, arrivals: float("inf")))
    usable = [m for m in loaded.members if m.usable]
    first = (usable or list(loaded.members))[0].descriptors
    jobs = tx.rows("SELECT * FROM job WHERE group_id = ? ORDER BY changed DESC, id DESC LIMIT 5", group)
    made = jobs[0] if jobs and jobs[0]["state"] == "done" and answer["product"] else None
    return {
        **answer,
        "frames": [_frame(tx, m.frame_id, m.name) for m in loaded.members],
        "needs": [
            {
                "tags": sorted(i.tags),
                "have": sum(i.takes(m.tags, m.descriptors) for m in usable),
                "at_least": i.at_least,
            }
            for i in rule.ingredients
        ],
        "agree": {name: getattr(first, name) for name in rule.group_by},
        "calibrations": _calibrations(world, loaded, first, made) if usable else [],
        "jobs": [_job_line(world, r) for r in jobs],
    }


def _summary(world: _World, group: int) -> Answer:
    """What can be said of a group in a few lines."""
    tx = world.tx
    row = tx.one("SELECT * FROM frame_group WHERE id = ?", group)
    assert row is not None
    job: Any = tx.one(
        "SELECT * FROM job WHERE group_id = ? AND state <> 'dropped' ORDER BY changed DESC, id DESC", group
    )
    product = tx.one("SELECT * FROM product WHERE group_id = ? AND current", group)
    done = product is not None and (job is None or job["state"] == "done")
    state = "closed" if row["closed"] else "done" if done else job["state"] if job else "idle"
    if not row["settled"] and not row["closed"]:
        state = "open" if state in ("done", "idle") else state
    counts = tx.one(
        """SELECT COUNT(*) AS n, SUM(f.usable) AS usable FROM membership m
        JOIN frame f ON f.id = m.frame_id WHERE m.group_id = ?""",
        group,
    )
    open_job = job is not None and job["state"] in ("planned", "waiting", "running", "failed")
    return {
        "group": group,
        "rule": row["rule"],
        "state": state,
        "since": queries.iso(job["changed"] if job else row["last_arrival"]),
        "reason": (job["reason"] if open_job else "") or row["reason"] or _not_yet(row),
        "waits_for": _waits_for(tx, job) if job and open_job else [],
        "members": counts["n"] if counts else 0,
        "usable": int(counts["usable"] or 0) if counts else 0,
        "first": queries.iso(row["first_ut"]),
        "last": queries.iso(row["last_ut"]),
        "last_arrival": queries.iso(row["last_arrival"]),
        "better": row["better"],
        "heir": row["heir"],
        "product": _product_line(product) if product else None,
        "looks": _looks(world, group),
    }


def _looks(world: _World, group: int) -> list[str]:
    """First looks and running stack of a group, where they lie until its product is there."""
    rows = world.tx.rows(
        "SELECT name, ut FROM frame f JOIN membership m ON m.frame_id = f.id WHERE group_id = ?", group
    )
    paths = (
        path
        for name, ut in rows
        for path in looks.paths(Path(world.setting.products), name, datetime.fromtimestamp(ut, UTC))
    )
    return sorted(str(path) for path in paths if os.path.exists(path))


def _not_yet(row: Any) -> str:
    if row["closed"]:
        return f"merged into group {row['heir']}" if row["heir"] else "it has no frames any more"
    return "more frames may come: it has not been quiet for long enough" if not row["settled"] else ""


def _waits_for(tx: Tx, job: Any) -> list[str]:
    rows = tx.rows(
        """SELECT p.id, p.recipe, p.state, p.reason, p.group_id FROM dependency d
        JOIN job p ON p.id = d.producer_id WHERE d.job_id = ?""",
        job["id"],
    )
    made = [f"job {r['id']}, {r['recipe']} of group {r['group_id']}: {r['state']}" for r in rows]
    if job["state"] == "planned":
        return ["a free worker"]
    return made or (job["reason"].split("; ") if job["state"] == "waiting" else [])


def _frame(tx: Tx, frame: int, name: str) -> Answer:
    row = tx.one(
        """SELECT c.state, c.reason FROM content c WHERE c.frame_id = ?
        ORDER BY c.state = 'superseded', c.state <> 'ready', c.id LIMIT 1""",
        frame,
    )
    return {"name": name, "state": row["state"] if row else "", "reason": row["reason"] if row else ""}


def _running_hours(tx: Tx) -> float:
    row = tx.one("SELECT value FROM meta WHERE name = 'running_hours'")
    return float(row["value"]) if row else 0.0


# -- calibrations ----------------------------------------------------------------------------


def _calibrations(world: _World, group: Group, target: Descriptors, job: Any = None) -> list[Answer]:
    """For each kind that the recipe takes: what was used, or would be now, and why every other was not."""
    recipe = world.setting.recipes[world.setting.rules[group.rule].recipe]
    matches = dict(plan([replace(group, settled=True)], world.setting, world)[0].matches)
    given = json.loads(job["spec"])["calibrations"] if job and job["spec"] else []
    used = {c["role"]: c for c in given}
    answer = []
    for kind in sorted(takes(world.setting.rules[group.rule], recipe)):
        match = matches.get(kind) or association.best_match(
            association.RULES[kind], target, world.candidates(kind, target)
        )
        wish = "needed" if kind in recipe.needs else "preferred" if kind in recipe.prefers else "if there"
        if kind is CalKind.ZERO_POINT and kind.value in used:
            standards = [c for c in given if c["role"] == kind.value]
            answer.append(_zero_points(world, wish, match, job, standards))
            continue
        answer.append(_calibration(kind, wish, match, used.get(kind.value), decided=job is not None))
    return answer


def _zero_points(world: _World, wish: str, match: Match, job: Any, standards: Sequence[Answer]) -> Answer:
    """Of the standards of the night that a job was given: which it took, and why none of the others."""
    row = world.tx.one("SELECT notes, quality FROM product WHERE job_id = ?", job["id"])
    notes: list[str] = json.loads(row["notes"]) if row else []
    taken = json.loads(row["quality"]).get("ZPIMAGE") if row else None
    facts = {c.ident: c for c in _all(match)}
    used = next((c for c in standards if c["name"] == taken), None)
    answer = _calibration(CalKind.ZERO_POINT, wish, match, used or standards[0], decided=True)
    ours = {c["name"] for c in standards}
    others = [other for other in answer["not_chosen"] if other["name"] not in ours]
    for cal in standards:
        if cal is not used:
            ut = facts[cal["key"]].ut.isoformat() if cal["key"] in facts else ""
            others.append({"name": cal["name"], "ut": ut, "failed": [_why_not(cal["name"], notes)]})
    why = next(
        (n.partition(" used: ")[2] for n in notes if n.startswith(f"zero point of {taken} ")), "it was used"
    )
    if row is None:
        return {**answer, "status": "chosen", "name": None, "why": f"the best of {len(standards)} is taken"}
    if used is None:
        why = "none of the standards of the night can be used"
    status = "used" if used else "none"
    return {**answer, "status": status, "name": taken, "why": why, "not_chosen": others}


def _all(match: Match) -> list[Candidate]:
    found = [match.candidate] if isinstance(match, Found) else []
    return [*found, *(r.candidate for r in match.rejected)]


def _why_not(name: str, notes: Sequence[str]) -> str:
    """What the product says of a standard that it did not take."""
    said = (n.partition(" not used: ")[2] for n in notes if n.startswith(f"zero point of {name} ("))
    return next(filter(None, said), "it was not used")


def _calibration(kind: CalKind, wish: str, match: Match, used: Any, *, decided: bool) -> Answer:
    now = match.candidate if isinstance(match, Found) else None
    others = [(c.candidate, list(c.failed)) for c in match.rejected]
    if used is not None:
        chosen, why, status = used["name"], "it was used", "used"
        others = [(c, failed) for c, failed in others if c.ident != used["key"]]
        if now is not None and now.ident == used["key"]:
            why = match.why
        elif now is not None:
            others.insert(0, (now, [f"{match.why}: would be chosen now; nirid requeue takes it"]))
    elif decided:
        chosen, status = None, "none"
        why = "there was none then" if now is not None else match.why
        if now is not None:
            others.insert(0, (now, [f"{match.why}: came later; nirid requeue takes it"]))
    else:
        chosen, why = (now.name if now else None), match.why
        status = "chosen" if now else "not needed" if isinstance(match, NotApplicable) else "missing"
        if now and now.pending:
            status, why = "being made", f"{why}; it is being made"
    return {
        "kind": kind.value,
        "wish": wish,
        "status": status,
        "name": chosen,
        "why": why,
        "not_chosen": [{"name": c.name, "ut": c.ut.isoformat(), "failed": failed} for c, failed in others],
    }


# -- jobs and products -----------------------------------------------------------------------


def _job(world: _World, job: int) -> Answer:
    tx = world.tx
    row = tx.one(
        """SELECT j.*, g.rule, p.path AS product FROM job j JOIN frame_group g ON g.id = j.group_id
        LEFT JOIN product p ON p.job_id = j.id WHERE j.id = ?""",
        job,
    )
    assert row is not None
    told = queries.job(world.db, row)
    attempts = tx.rows("SELECT * FROM attempt WHERE job_id = ? ORDER BY n", job)
    return {
        **{k: v for k, v in told.items() if k not in ("id", "waits_for", "calibrations", "name")},
        "job": job,
        "product_name": told["name"],
        "since": told["changed"],
        "waits_for": _waits_for(tx, row),
        "attempts": [
            {"n": a["n"], "started": queries.iso(a["started"]), "outcome": a["outcome"] or "running"}
            | {"seconds": a["seconds"], "error": a["error"]}
            for a in attempts
        ],
        "calibrations": _calibrations_of(world, row),
        "parameters": json.loads(row["spec"]).get("parameters", {}) if row["spec"] else {},
    }


def _calibrations_of(world: _World, job: Any) -> list[Answer]:
    row = world.tx.one("SELECT * FROM frame_group WHERE id = ? AND NOT closed", job["group_id"])
    if row is None or row["rule"] not in world.setting.rules:
        return []
    group = world.load(row)
    usable = [m for m in group.members if m.usable]
    return _calibrations(world, group, usable[0].descriptors, job if job["spec"] else None) if usable else []


def _product(world: _World, product: int) -> Answer:
    tx = world.tx
    row = tx.one("SELECT * FROM product WHERE id = ?", product)
    assert row is not None
    job = tx.one("SELECT * FROM job WHERE id = ?", row["job_id"])
    assert job is not None
    spec = json.loads(job["spec"]) if job["spec"] else {}
    subjects = [f"product {job['key']}"]
    old = outdated.groups(tx, world.setting, world.overrides) if row["current"] else []
    decided = _decisions(tx, subjects)
    rejected = bool(decided) and decided[-1]["action"] == "reject"
    return {
        "state": "current" if row["current"] else "rejected" if rejected else "superseded",
        "since": queries.iso(row["published"]),
        "reason": _why_product(tx, row, job, decided),
        "waits_for": [],
        **_product_line(row),
        "sha256": row["sha256"],
        "job": row["job_id"],
        "key": job["key"],
        "recipe": job["recipe"],
        "recipe_version": job["version"],
        "outdated": row["group_id"] in old,
        "seconds": job["seconds"],
        "inputs": [i["name"] for i in spec.get("inputs", [])],
        "parameters": spec.get("parameters", {}),
        "notes": json.loads(row["notes"]),
        "quality": json.loads(row["quality"]),
        "calibrations": _calibrations_of(world, job),
        "decisions": decided,
        "group": _summary(world, row["group_id"]),
    }


def _why_product(tx: Tx, row: Any, job: Any, decided: Sequence[Answer]) -> str:
    if not row["current"]:
        later = tx.one("SELECT * FROM product WHERE group_id = ? AND current", row["group_id"])
        if decided and decided[-1]["action"] == "reject":
            return f"rejected by {decided[-1]['user']}: {decided[-1]['reason']}"
        return f"version {later['version']} took its place" if later else "nothing took its place"
    earlier = "" if row["version"] == 1 else f", version {row['version']}"
    return f"made by job {job['id']}, {job['recipe']}, of group {job['group_id']}{earlier}"


def _product_line(row: Any) -> Answer:
    return {
        "product": row["name"],
        "path": os.fsdecode(row["path"]),
        "version": row["version"],
        "current": bool(row["current"]),
        "published": queries.iso(row["published"]),
    }


def _job_line(world: _World, row: Any) -> Answer:
    return {
        "job": row["id"],
        "state": row["state"],
        "since": queries.iso(row["changed"]),
        "reason": row["reason"],
        "attempts": row["attempts"],
        "error": row["error"].strip().rpartition("\n")[2],
    }
