"""Why this, why not yet: one answer for a file, a group, a job or a product.

    with ledger.on_paper(path) as tx:
        answer = explain(tx, targets.find(tx.reader, "N20160102S0270.fits"), setting, overrides)

Plain data: state, since when, why, what it waits for; which calibrations were chosen and, for each
candidate that was not, the criteria that it failed. What the ledger does not hold is found by asking the
daemon's own planner, without writing anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.ledger import answers, contents, decisions, looks, outdated
from daemon.ledger.questions import iso, job
from daemon.ledger.store import Reader, Tx
from daemon.ledger.targets import Target
from daemon.ledger.world import Explained
from daemon.model import names as model_names
from daemon.model.decisions import of_content, of_frame, of_judgement, of_product, parted
from daemon.model.groups import Overrides, Setting
from daemon.model.records import JobRecord, ProductRecord
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
    found = contents.unknown(world.tx.reader, sighting)
    return {
        "state": found["state"],
        "since": found["first_seen"],
        "reason": found["reason"],
        "waits_for": _rest_of(found["state"], found["reason"]),
        "paths": [found["path"]],
        "size": found["size"],
        "last_seen": found["last_seen"],
    }


def _rest_of(state: str, reason: str) -> list[str]:
    """A file that may not be read waits for a person, who is told by its reason."""
    waits = state in ("seen", "incomplete") and not reason.startswith("cannot be read")
    return ["the rest of the file"] if waits else []


def _file(world: Explained, number: int) -> Answer:
    db = world.tx.reader
    content, facts = contents.by_number(db, number), contents.facts(db, number)
    groups = [_summary(world, group) for group in contents.groups_of_frame(db, content.frame)]
    subjects = [of_content(content.sha256)]
    if content.frame is not None:
        exposure = content.label, content.data_sha
        subjects += [of_frame(*exposure), of_judgement(*exposure)]
    made = answers.products_of_frame(db, content.frame, content.sha256)
    return {
        "state": content.state.value,
        "since": facts["since"],
        "reason": content.reason,
        "waits_for": list(dict.fromkeys(w for group in groups for w in group["waits_for"])),
        "sha256": content.sha256,
        "paths": contents.paths(db, number),
        "first_seen": facts["first_seen"],
        "checksum": "verified" if facts["verified"] else "carries none",
        "tags": facts["tags"],
        "descriptors": facts["descriptors"],
        "data_label": content.label,
        "decisions": _decisions(db, subjects),
        "groups": groups,
        "products": [answers.in_a_line(p) | judged(p, content.name) for p in made],
    }


def _decisions(db: Reader, subjects: Sequence[str]) -> list[Answer]:
    named = [
        {"at": iso(d["at"]), **{k: d[k] for k in ("action", "user", "reason")}}
        | ({"of": "judgement"} if parted(d["subject"])[0] == "judgement" else {})
        for d in decisions.about(db, *subjects)
    ]
    return [item for i, item in enumerate(named) if item not in named[:i]]


# -- groups ----------------------------------------------------------------------------------


def _group(world: Explained, number: int) -> Answer:
    answer, group = _summary(world, number), world.open_group(number)
    if group is None:
        return {**answer, "frames": [], "needs": [], "agree": {}, "calibrations": [], "jobs": []}
    db, rule = world.tx.reader, world.setting.rules[group.rule]
    usable = [m for m in group.members if m.usable]
    first = (usable or list(group.members))[0].descriptors
    jobs = answers.jobs_of_group(db, number, 5)
    made = jobs[0] if jobs and jobs[0].state == "done" and answer["product"] else None
    return {
        **answer,
        "frames": [_frame(db, m.frame_id, m.name) | ({} if m.path else _GONE) for m in group.members],
        "needs": [
            {
                "tags": sorted(i.tags),
                "have": sum(i.takes(m.tags, m.descriptors) for m in usable),
                "at_least": i.at_least,
            }
            for i in rule.ingredients
        ],
        "agree": {name: getattr(first, name) for name in rule.group_by},
        "calibrations": calibrations(world, group, first, made) if usable else [],
        "jobs": [_job_line(found) for found in jobs],
    }


def _summary(world: Explained, group: int) -> Answer:
    """What can be said of a group in a few lines."""
    return {**answers.group(world.tx.reader, group), "looks": _looks(world, group)}


def _looks(world: Explained, group: int) -> list[str]:
    """First looks and running stack of a group, where they lie until its product is there."""
    paths = (
        path
        for name, ut in answers.frames_of_group(world.tx.reader, group)
        for path in model_names.paths(Path(world.setting.products), name, datetime.fromtimestamp(ut, UTC))
    )
    return sorted(str(path) for path in paths if os.path.exists(path))


def _frame(db: Reader, frame: int, name: str) -> Answer:
    state, reason = contents.state_of_frame(db, frame)
    return {"name": name, "state": state, "reason": reason}


# -- jobs and products -----------------------------------------------------------------------


def _job(world: Explained, number: int) -> Answer:
    db = world.tx.reader
    told, found = job(db, number), answers.job(db, number)
    return {
        **{k: v for k, v in told.items() if k not in ("id", "waits_for", "calibrations", "name")},
        "job": number,
        "product_name": told["name"],
        "since": told["changed"],
        "waits_for": answers.waits_for(db, found),
        "attempts": answers.attempts(db, number),
        "calibrations": _calibrations_of(world, found),
        "again": why_again(world.tx, found),
        "parameters": found.spec.get("parameters", {}),
    }


def _calibrations_of(world: Explained, found: JobRecord) -> list[Answer]:
    group = world.open_group(found.group)
    usable = [m for m in group.members if m.usable] if group else []
    if group is None or not usable:
        return []
    return calibrations(world, group, usable[0].descriptors, found if found.spec else None)


def _product(world: Explained, number: int) -> Answer:
    db = world.tx.reader
    product = answers.product(db, number)
    made_by = answers.job(db, product.job)
    decided = _decisions(db, [of_product(product.key)])
    rejected = bool(decided) and decided[-1]["action"] == "reject"
    held = bool(decided) and decided[-1]["action"] == "hold" and product.current
    return {
        "state": "held" if held else _state(product, rejected),
        "since": iso(product.published),
        "reason": _why_product(db, product, made_by, decided),
        "waits_for": [],
        **answers.in_a_line(product),
        "sha256": product.sha256,
        "job": product.job,
        "key": product.key,
        "recipe": made_by.recipe,
        "recipe_version": made_by.version,
        "outdated": product.current and outdated.is_group(db, world.setting, world.overrides, product.group),
        "seconds": made_by.seconds,
        "inputs": [i["name"] for i in product.spec.get("inputs", [])],
        "parameters": product.spec.get("parameters", {}),
        "again": why_again(world.tx, made_by),
        "left_out": left_out(product.spec, product.quality),
        "notes": product.notes,
        "quality": product.quality,
        "calibrations": _calibrations_of(world, made_by),
        "decisions": decided,
        "group": _summary(world, product.group),
    }


def _look(world: Explained, number: int) -> Answer:
    """A first look or running stack, there or gone."""
    told = looks.look(world.tx.reader, number)
    group = _summary(world, told["group"])
    told["kind_of_look"] = told.pop("kind")
    return {**told, **looks.state_of(told, group["product"]), "group": group, "waits_for": []}


def _state(product: ProductRecord, rejected: bool) -> str:
    return "current" if product.current else "rejected" if rejected else "superseded"


def _why_product(db: Reader, product: ProductRecord, made_by: JobRecord, decided: Sequence[Answer]) -> str:
    if not product.current:
        if decided and decided[-1]["action"] == "reject":
            return f"rejected by {decided[-1]['user']}: {decided[-1]['reason']}"
        later = answers.current_product(db, product.group)
        return f"version {later.version} took its place" if later else "nothing took its place"
    if decided and decided[-1]["action"] == "hold":
        return f"not used for others: {decided[-1]['reason']}; nirid accept or nirid reject decides"
    earlier = "" if product.version == 1 else f", version {product.version}"
    return f"made by job {made_by.id}, {made_by.recipe}, of group {made_by.group}{earlier}"


def _job_line(found: JobRecord) -> Answer:
    return {
        "job": found.id,
        "state": found.state,
        "since": iso(found.changed),
        "reason": found.reason,
        "attempts": found.attempts,
        "error": found.error.strip().rpartition("\n")[2],
    }
