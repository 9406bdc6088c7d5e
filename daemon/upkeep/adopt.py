"""A product on disk becomes a job of the ledger that is done, as its own header says that it was made:
with its key, its inputs, its calibrations and its parameters. Nothing is reduced again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from daemon.ledger import adoption, marks, publications
from daemon.ledger import decisions as ledger_decisions
from daemon.ledger import products as ledger_products
from daemon.ledger.store import Tx
from daemon.ledger.world import LedgerWorld
from daemon.model.groups import Overrides, Setting
from daemon.model.jobs import CalInput, Input, JobSpec, input_key, job_key
from daemon.model.names import version_of
from daemon.model.publication import PublishPlan
from daemon.plan.planner import makes_of
from daemon.upkeep.provenance import ProductOnDisk
from daemon.work import moving as work_moving
from pipeline.association import CalKind, Candidate
from pipeline.calibrations import caldb
from pipeline.files.structure import hash_file

_MOST_REMAKES = 100


def settled(found: Sequence[ProductOnDisk]) -> list[ProductOnDisk]:
    """In order of time, superseded ones first. A publication that was cut short by the loss of the ledger
    has left one product at two places: it is taken where it is current."""
    by_key: dict[str, ProductOnDisk] = {}
    for item in sorted(found, key=lambda f: f.superseded):
        first = by_key.setdefault(item.key, item)
        if first is not item and first.sha256 == item.sha256:
            item.path.unlink()
            item.path.with_suffix(".png").unlink(missing_ok=True)
    return sorted(by_key.values(), key=lambda f: (not f.superseded, f.written))


def adopt(
    tx: Tx, found: ProductOnDisk, keys: Mapping[str, str], setting: Setting, overrides: Overrides
) -> None:
    """One product becomes a job that is done. keys : SHA-256 of products on disk -> keys of their jobs"""
    if _moved(tx, found, setting):
        return
    inputs, frames = _inputs(tx, found)
    group = _group(tx, found, frames, setting)
    spec = _spec(tx, found, inputs, keys, setting)
    remake = _remake(spec)
    made = _makes(tx, found, group, frames, spec, setting, overrides)
    tx.now = found.written
    times = {"ut": found.ut, "written": found.written}
    job = adoption.begin_job(tx, spec, group, frames, made, remake=remake, **times)
    path, current = _place(tx, found, group, setting)
    version = _version(tx, found, group)
    result = {"quality": found.quality, "notes": found.notes}
    plan = PublishPlan(job, 1, found.name, found.night, "", str(path), found.sha256, version, (), result)
    publications.commit(tx, plan, setting.policy, judge=False)
    if not current:
        adoption.use_no_longer(tx, job)
        tx.cals.remove_ident(found.key, "replaced by a later version", now=tx.now)
    adoption.note_remakes(tx, group, remake)
    _say_adopted(tx, job, replace(found, path=path))


def _say_adopted(tx: Tx, job: int, found: ProductOnDisk) -> None:
    """Replaces the event of a commit: the job was done long ago."""
    tx.events = [event for event in tx.events if event[0] not in ("job_done", "product_restored")]
    tx.event("product_adopted", job=job, product=str(found.path), key=found.key)


def _moved(tx: Tx, found: ProductOnDisk, setting: Setting) -> bool:
    """A product that the ledger knows at another place, where something else lies by now."""
    known = adoption.product_of(tx, found.key)
    if known is None:
        return False
    place, rejected = Path(known.path), ledger_decisions.is_rejected(tx, found.key)
    # Either a second copy, or one that was rejected and that a crash has kept from being moved.
    if (place.exists() and hash_file(place) == known.sha256) or (rejected and not found.superseded):
        work_moving.withdraw(found.path, place, known.sha256)
        return True
    if not found.superseded:  # in use again since the ledger was copied
        tx.now = found.written
        final, version = str(found.path), known.version
        plan = PublishPlan(known.job, 1, found.name, found.night, "", final, found.sha256, version, (), {})
        publications.commit(tx, replace(plan, restored=known.number), setting.policy, judge=False)
        _say_adopted(tx, known.job, found)
        return True
    adoption.lies_at(tx, known.number, str(found.path))
    for gone in tx.cals.remove_ident(found.key, rejected or "replaced by a later version", now=tx.now):
        marks.touch_withdrawn(tx, gone.ident)
    if rejected:
        marks.touch(tx, known.group)
    return True


def _place(tx: Tx, found: ProductOnDisk, group: int, setting: Setting) -> tuple[Path, bool]:
    """Where it lies, and whether it is current: not when it was rejected. An older one is
    superseded by it."""
    if found.superseded:
        return found.path, False
    if ledger_decisions.is_rejected(tx, found.key):
        this = (found.name, found.night, str(found.path), 1, found.sha256)
        return _out_of_the_way(*this, setting), False
    for old in adoption.current_of(tx, group):
        kept = _out_of_the_way(old.name, old.night, old.path, old.version, old.sha256, setting)
        adoption.lies_at(tx, old.number, str(kept))
        tx.cals.remove_ident(old.key, f"replaced by {found.name}", now=tx.now)
    return found.path, True


def _out_of_the_way(name: str, night: str, path: str, version: int, sha256: str, setting: Setting) -> Path:
    product = {"name": name, "night": night, "path": os.fsencode(path), "version": version}
    old = ledger_products.as_superseded(setting.products, 0, product)
    work_moving.withdraw(Path(old.path), Path(old.kept), sha256)
    return Path(old.kept)


def _version(tx: Tx, found: ProductOnDisk, group: int) -> int:
    taken = adoption.versions(tx, group)
    said = version_of(found.path)
    number = said[1] if said else max(taken, default=0) + 1
    while number in taken:
        number += 1
    return number


def _inputs(tx: Tx, found: ProductOnDisk) -> tuple[list[Input], list[int | None]]:
    """The raw frames: by their bytes; by name, when the key of all inputs proves that they are the same."""
    rows = [(adoption.frame_of(tx, sha, name), name, sha) for name, sha in found.inputs]
    given = [
        Input(frame.path, name, sha, frame.data_sha, frame.facts, frame.ut)
        if frame
        else Input("", name, sha, "", "", "")
        for frame, name, sha in rows
    ]
    same = input_key(given) == found.input_key
    sure = [
        item
        if same or (frame is not None and frame.sha256 == item.file_sha)
        else replace(item, data_sha="", facts="")
        for item, (frame, _, _) in zip(given, rows, strict=True)
    ]
    return sure, [frame.number if frame else None for frame, _, _ in rows]


def _group(tx: Tx, found: ProductOnDisk, frames: Sequence[int | None], setting: Setting) -> int:
    """The group that the product is of: by its GROUPID, else the one that most of its frames are in."""
    known = [frame for frame in frames if frame is not None]
    titles = [rule.title for rule in setting.rules.values() if rule.recipe == found.recipe]
    group = adoption.group_of(tx, known, titles, found.group)
    if group is not None:
        return group
    rule = titles[0] if titles else found.recipe
    return adoption.closed_group(tx, rule, found.group, found.ut, found.written)


def _spec(
    tx: Tx, found: ProductOnDisk, inputs: Sequence[Input], keys: Mapping[str, str], setting: Setting
) -> JobSpec:
    calibrations = []
    for name, sha, role in found.calibrations:
        known = adoption.product_of_bytes(tx, sha)
        key = keys.get(sha) or (known.key if known else sha)
        calibrations.append(CalInput(role, "", name, sha, key))
    return JobSpec(
        key=found.key,
        recipe=found.recipe,
        recipe_version=found.version,
        group=found.group,
        inputs=tuple(inputs),
        calibrations=tuple(calibrations),
        parameters=found.parameters,
        preset=found.preset,
        notes=tuple(found.notes),
        name=found.name,
        night=found.night,
        time_stamp=found.time_stamp,
        products=setting.products,
    )


def _remake(spec: JobSpec) -> int:
    """How often a person had it made again: the number that gives its key."""
    content = (spec.recipe, spec.recipe_version, spec.inputs, spec.calibrations, spec.parameters, spec.preset)
    return next((n for n in range(_MOST_REMAKES) if job_key(*content, n) == spec.key), 0)


def _makes(
    tx: Tx,
    found: ProductOnDisk,
    group: int,
    frames: Sequence[int | None],
    spec: JobSpec,
    setting: Setting,
    overrides: Overrides,
) -> Candidate | None:
    """The calibration that it is, as planning would have said; without its frames, as its own header says."""
    if not adoption.is_closed(tx, group):
        world = LedgerWorld(tx, setting, overrides)
        loaded = world.group(group)
        used = tuple(replace(m, usable=True) for m in loaded.members if m.frame_id in frames)
        return makes_of(replace(loaded, members=used), setting, world, spec) if used else None
    recipe = setting.recipes.get(found.recipe)
    if recipe is None or recipe.makes is None or found.descriptors.ut_datetime is None:
        return None
    made = caldb.external(CalKind(recipe.makes), str(found.path), found.sha256, found.descriptors)
    return replace(made, ident=found.key, name=found.name)
