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
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.ledger import decisions, looks, outdated, questions
from daemon.ledger.store import Tx
from daemon.ledger.targets import Target
from daemon.ledger.world import Clocks, Explained
from daemon.model import names as model_names
from daemon.model.groups import Overrides, Setting
from daemon.people.whyagain import why_again
from daemon.people.whycalibration import calibrations
from daemon.people.whyframe import judged, left_out

Answer = dict[str, Any]
_GONE = {"state": "gone", "reason": "its file is no longer on disk"}


def explain(tx: Tx, target: Target, setting: Setting, overrides: Overrides) -> Answer:
    """{"target", "kind", "name", "state", "since", "reason", "waits_for", ...}, more for each kind."""
    how = {
        "file": _file,
        "path": _path,
        "group": _group,
        "job": _job,
        "product": _product,
        "look": _look,
    }[target.kind]
    world = Explained(tx, setting, overrides)
    return {"target": target.text, "kind": target.kind, "name": target.name, **how(world, target.id)}


# -- files -----------------------------------------------------------------------------------


def _path(world: Explained, sighting: int) -> Answer:
    """A file whose content is not known yet."""
    row = world.tx.one("SELECT * FROM sighting WHERE id = ?", sighting)
    assert row is not None
    return {
        "state": row["state"],
        "since": questions.iso(row["first_seen"]),
        "reason": row["reason"],
        "waits_for": _rest_of(row["state"], row["reason"]),
        "paths": [os.fsdecode(row["path"])],
        "size": row["size"],
        "last_seen": questions.iso(row["last_seen"]),
    }


def _rest_of(state: str, reason: str) -> list[str]:
    """A file that may not be read waits for a person, who is told by its reason."""
    waits = state in ("seen", "incomplete") and not reason.startswith("cannot be read")
    return ["the rest of the file"] if waits else []


def _file(world: Explained, content: int) -> Answer:
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
        """SELECT p.*, j.spec FROM product p JOIN job j ON j.id = p.job_id
        WHERE p.job_id IN (SELECT job_id FROM job_input WHERE frame_id = ?)
        OR p.job_id IN (SELECT job_id FROM job_calibration WHERE ident = ?)
        ORDER BY p.current DESC, p.published DESC""",
        row["frame_id"],
        row["sha256"],
    )
    subjects = [f"content {row['sha256']}"]
    if frame:
        subjects += [_frame_subject(frame), decisions.of_judgement(frame["label"], frame["data_sha"])]
    return {
        "state": row["state"],
        "since": questions.iso(row["changed"]),
        "reason": row["reason"],
        "waits_for": list(dict.fromkeys(w for group in groups for w in group["waits_for"])),
        "sha256": row["sha256"],
        "paths": [os.fsdecode(r["path"]) for r in seen],
        "first_seen": questions.iso(row["first_seen"]),
        "checksum": {None: "carries none", 0: "carries none", 1: "verified"}[row["verified"]],
        "tags": json.loads(row["tags"]),
        "descriptors": json.loads(row["descriptors"]) or {},
        "data_label": frame["label"] if frame else "",
        "decisions": _decisions(tx, subjects),
        "groups": groups,
        "products": [_product_line(r) | judged(r, frame["name"] if frame else "") for r in made],
    }


def _frame_subject(frame: Any) -> str:
    return f"frame {frame['data_sha']} {frame['label']}"


def _decisions(tx: Tx, subjects: Sequence[str]) -> list[Answer]:
    marks = ", ".join("?" * len(subjects))
    rows = tx.rows(f"SELECT * FROM decision WHERE subject IN ({marks}) ORDER BY id", *subjects)
    named = [
        {"at": questions.iso(r["at"]), **{k: r[k] for k in ("action", "user", "reason")}}
        | ({"of": "judgement"} if r["subject"].startswith("judgement ") else {})
        for r in rows
    ]
    return [item for i, item in enumerate(named) if item not in named[:i]]


# -- groups ----------------------------------------------------------------------------------


def _group(world: Explained, group: int) -> Answer:
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
        "frames": [_frame(tx, m.frame_id, m.name) | ({} if m.path else _GONE) for m in loaded.members],
        "needs": [
            {
                "tags": sorted(i.tags),
                "have": sum(i.takes(m.tags, m.descriptors) for m in usable),
                "at_least": i.at_least,
            }
            for i in rule.ingredients
        ],
        "agree": {name: getattr(first, name) for name in rule.group_by},
        "calibrations": calibrations(world, loaded, first, made) if usable else [],
        "jobs": [_job_line(world, r) for r in jobs],
    }


def _summary(world: Explained, group: int) -> Answer:
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
        "since": questions.iso(job["changed"] if job else row["last_arrival"]),
        "reason": (job["reason"] if open_job else "") or row["reason"] or _not_yet(row),
        "waits_for": _waits_for(tx, job) if job and open_job else [],
        "members": counts["n"] if counts else 0,
        "usable": int(counts["usable"] or 0) if counts else 0,
        "first": questions.iso(row["first_ut"]),
        "last": questions.iso(row["last_ut"]),
        "last_arrival": questions.iso(row["last_arrival"]),
        "better": row["better"],
        "heir": row["heir"],
        "product": _product_line(product) if product else None,
        "looks": _looks(world, group),
    }


def _looks(world: Explained, group: int) -> list[str]:
    """First looks and running stack of a group, where they lie until its product is there."""
    rows = world.tx.rows(
        "SELECT name, ut FROM frame f JOIN membership m ON m.frame_id = f.id WHERE group_id = ?", group
    )
    paths = (
        path
        for name, ut in rows
        for path in model_names.paths(Path(world.setting.products), name, datetime.fromtimestamp(ut, UTC))
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


# -- jobs and products -----------------------------------------------------------------------


def _job(world: Explained, job: int) -> Answer:
    tx = world.tx
    row = tx.one(
        """SELECT j.*, g.rule, p.path AS product FROM job j JOIN frame_group g ON g.id = j.group_id
        LEFT JOIN product p ON p.job_id = j.id WHERE j.id = ?""",
        job,
    )
    assert row is not None
    told = questions.job(world.db, row)
    attempts = tx.rows("SELECT * FROM attempt WHERE job_id = ? ORDER BY n", job)
    return {
        **{k: v for k, v in told.items() if k not in ("id", "waits_for", "calibrations", "name")},
        "job": job,
        "product_name": told["name"],
        "since": told["changed"],
        "waits_for": _waits_for(tx, row),
        "attempts": [
            {"n": a["n"], "started": questions.iso(a["started"]), "outcome": a["outcome"] or "running"}
            | {"seconds": a["seconds"], "error": a["error"]}
            for a in attempts
        ],
        "calibrations": _calibrations_of(world, row),
        "again": why_again(tx, row),
        "parameters": json.loads(row["spec"]).get("parameters", {}) if row["spec"] else {},
    }


def _calibrations_of(world: Explained, job: Any) -> list[Answer]:
    row = world.tx.one("SELECT * FROM frame_group WHERE id = ? AND NOT closed", job["group_id"])
    if row is None or row["rule"] not in world.setting.rules:
        return []
    group = world.load(row)
    usable = [m for m in group.members if m.usable]
    return calibrations(world, group, usable[0].descriptors, job if job["spec"] else None) if usable else []


def _product(world: Explained, product: int) -> Answer:
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
        "since": questions.iso(row["published"]),
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
        "again": why_again(tx, job),
        "left_out": left_out(spec, json.loads(row["quality"])),
        "notes": json.loads(row["notes"]),
        "quality": json.loads(row["quality"]),
        "calibrations": _calibrations_of(world, job),
        "decisions": decided,
        "group": _summary(world, row["group_id"]),
    }


def _look(world: Explained, look: int) -> Answer:
    """A first look or running stack, there or gone."""
    told = looks.rows(world.db, "id = ?", look)[0]
    group = _summary(world, told["group"])
    told["kind_of_look"] = told.pop("kind")
    return {**told, **looks.state_of(told, group["product"]), "group": group, "waits_for": []}


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
        "published": questions.iso(row["published"]),
    }


def _job_line(world: Explained, row: Any) -> Answer:
    return {
        "job": row["id"],
        "state": row["state"],
        "since": questions.iso(row["changed"]),
        "reason": row["reason"],
        "attempts": row["attempts"],
        "error": row["error"].strip().rpartition("\n")[2],
    }
