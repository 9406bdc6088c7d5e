"""The ledger made anew of what is on disk: raw files, provenance in the products, people's decisions.

    answer = take_back(ledger, landing, setting, overrides)

Nothing is reduced again. Decisions come first, from PRODUCTS/.nirid/decisions.jsonl, so that frames are
judged as they are taken in; then every raw file is read, as of the time when it landed; then each product
becomes a job that is done, with the key, the inputs, the calibrations and the parameters that it carries.
What the ledger knows already stays: with a database that is older than the products (restored from a
backup) it learns the rest.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon import disk
from daemon.ledger import decisions as ledger_decisions
from daemon.ledger import files, publications
from daemon.ledger import marks as ledger_marks
from daemon.ledger import products as ledger_products
from daemon.ledger.store import Ledger, Tx, damages_all
from daemon.ledger.world import LedgerWorld, candidate_to_json
from daemon.model.decisions import (
    ACCEPT,
    BLAME,
    REJECT,
    REQUEUE,
    NotPossible,
    in_words,
    of_content,
    of_frame,
    record_from_json,
)
from daemon.model.groups import Overrides, Setting
from daemon.model.jobs import BACKLOG, CalInput, Input, JobSpec, digest, input_key, job_key
from daemon.model.publication import PublishPlan
from daemon.model.states import FileState
from daemon.people import decisions as people_decisions
from daemon.people import requests
from daemon.plan.planner import makes_of
from daemon.upkeep.audit import product_files
from daemon.upkeep.provenance import Found, read
from daemon.work import moving as work_moving
from pipeline.association import CalibrationKey, CalKind, Candidate
from pipeline.calibrations import caldb
from pipeline.errors import NiridError
from pipeline.files.structure import hash_file

if TYPE_CHECKING:
    from daemon.arrivals.intake import Landing
    from daemon.model.files import FileRecord


_MOST_REMAKES = 100
_SUPERSEDED = re.compile(r"(.+)\.v(\d{4,})")


_SIDES = ("", "-wal", "-shm", "-journal")


def put_aside_if_there(database: Path) -> Path | None:
    """Rename a database, and a log that may be left of one; returns the new name, None when none is there."""
    if any(os.path.lexists(f"{database}{side}") for side in _SIDES):
        return put_aside(database, datetime.now(UTC))
    return None


def put_aside(database: Path, now: datetime) -> Path:
    """Rename a database and what belongs to it; returns its new name, which nothing had before."""
    aside = first = database.with_name(f"{database.name}.{now:%Y%m%dT%H%M%S}")
    tries = count(2)
    while any(os.path.lexists(f"{aside}{side}") for side in _SIDES):
        aside = first.with_name(f"{first.name}.{next(tries)}")
    for side in _SIDES:
        if (path := Path(f"{database}{side}")).exists():
            os.replace(path, f"{aside}{side}")
    disk.sync(database.parent)
    return aside


def unknown(ledger: Ledger, products: Path) -> tuple[list[Path], list[dict[str, Any]]]:
    """(products, decisions) that are on disk and not in the ledger. What is being published, or removed,
    is not looked at: that is finished otherwise."""
    with ledger.read() as db:
        known = {os.fsdecode(r[0]): r for r in db.execute("SELECT path, published, sha256 FROM product")}
        decided = {(r[0], r[1]) for r in db.execute("SELECT request, subject FROM decision")}
        plans = [PublishPlan.from_json(r[0]) for r in db.execute("SELECT plan FROM intent")]
        moving = {os.fsdecode(r[0]) for r in db.execute("SELECT path FROM removal")}
    moving |= {
        path for p in plans for path in (p.final, p.staged, *(q for o in p.old for q in (o.path, o.kept)))
    }
    files_there = (path for path in product_files(products) if str(path) not in moving)
    strange = [path for path in files_there if _is_strange(path, known.get(str(path)))]
    lines = [line for line in requests.written(products) if (line["request"], line["subject"]) not in decided]
    return strange, lines


def _is_strange(path: Path, row: Any) -> bool:
    """True for a product that the ledger does not know, or not there. What was written after the ledger
    says that it was published may be another one."""
    if row is None:
        return True
    with contextlib.suppress(OSError):
        later = path.stat().st_mtime > row["published"] + 1.0
        return bool(later and hash_file(path) != row["sha256"])
    return False


def take_back(ledger: Ledger, landing: Landing, setting: Setting, overrides: Overrides) -> dict[str, Any]:
    """Bring the ledger up to date with the disk; {"products", "decisions", "files", "left": [{path, why}]}.

    landing : has been started; its `take_all` reads every raw file
    Raises OSError when a product cannot be read now, or a folder not be listed: what it holds would be
    reduced again.
    """
    products = Path(setting.products)
    strange, lines = unknown(ledger, products)
    ledger.write(partial(_remember, lines=lines))
    landing.as_of = _landed
    taken = landing.take_all()
    landing.as_of = None
    for folder, why in landing.unlisted.items():
        if why != os.strerror(errno.EACCES):  # which is for good: what is closed to us was never reduced
            raise OSError(errno.EIO, f"cannot be listed now: {why}", folder)
    ledger.write(partial(_enforce, setting=setting))
    left = []
    found = []
    for path in strange:
        try:
            found.append(read(path, products))
        except (NiridError, FileNotFoundError) as error:
            left.append({"path": str(path), "why": str(error)})
    keys = {item.sha256: item.key for item in found}
    for item in _settled(found):
        try:
            left += ledger.write(partial(_adopt, found=item, keys=keys, setting=setting, overrides=overrides))
        except (OSError, KeyboardInterrupt):
            raise
        except Exception as error:  # one product that makes no sense must not keep us from starting
            if damages_all(error):
                raise
            left.append({"path": str(item.path), "why": f"{type(error).__name__}: {error}"})
    ledger.write(partial(_ask_again, lines=lines))
    ledger.write(partial(_look_again, lines=lines))
    ledger.write(_forget_gone)
    return {"products": len(found), "decisions": len(lines), "files": taken, "left": left}


def _landed(record: FileRecord) -> float | None:
    """When a file came, as far as its inode tells."""
    return record.signature.ctime_ns / 1e9 if record.signature is not None else None


# -- decisions -------------------------------------------------------------------------------


def _remember(tx: Tx, lines: Sequence[Mapping[str, Any]]) -> None:
    for line in lines:
        ledger_decisions.remember(
            tx,
            {**line, "user": str(line.get("user", ""))},
            str(line["subject"]),
            str(line.get("outcome", "")),
            more=line.get("more") or {},
            at=datetime.fromisoformat(line["at"]).timestamp(),
            written=True,
        )


def _enforce(tx: Tx, setting: Setting) -> None:
    """Contents that the ledger knew already, and files that were registered where they lie."""
    for row in tx.rows("SELECT more FROM decision WHERE more LIKE '%\"record\"%' ORDER BY id"):
        try:
            record = record_from_json(json.loads(row["more"])["record"])
        except NotPossible as error:  # of a damaged line
            tx.event("decision_passed_over", reason=str(error))
            continue
        if os.path.exists(record.path) and hash_file(record.path) == record.file_sha:
            files.record(tx, record, setting)
    for content in tx.rows(
        "SELECT c.*, f.label, f.data_sha FROM content c LEFT JOIN frame f ON f.id = c.frame_id"
    ):
        subjects = [of_content(content["sha256"])]
        if content["data_sha"]:
            subjects.append(of_frame(content["label"], content["data_sha"]))
        decision = ledger_decisions.standing(tx, *subjects)
        usable = content["state"] in (FileState.READY, FileState.CALIBRATION)
        if decision is None:
            continue
        if decision["action"] == REJECT and usable:
            files.set_state(tx, content["id"], FileState.EXCLUDED, in_words(decision), setting)
        elif decision["action"] == ACCEPT and _was_out(tx, content):
            back = FileState.CALIBRATION if content["kind"] else FileState.READY
            files.set_state(tx, content["id"], back, in_words(decision), setting)
            if content["kind"]:
                files.register_again(tx, content["id"], setting)
        elif decision["action"] == BLAME and content["state"] == FileState.READY:
            files.set_state(tx, content["id"], FileState.QUARANTINED, in_words(decision), setting)


def _was_out(tx: Tx, content: Any) -> bool:
    """True of a content that a person has taken back into use after it was rejected, or blamed."""
    subject = of_content(content["sha256"])
    these = ledger_decisions.standing(tx, subject)
    if these is None or these["action"] != ACCEPT:
        return False
    blamed = "SELECT 1 FROM decision WHERE subject = ? AND action = ?"
    return content["state"] == FileState.EXCLUDED or (
        content["state"] == FileState.QUARANTINED and tx.one(blamed, subject, BLAME) is not None
    )


def _ask_again(tx: Tx, lines: Iterable[Mapping[str, Any]]) -> None:
    """What a person wanted made again, and what was not made before the ledger was lost."""
    for line in lines:
        for key in (line.get("more") or {}).get("keys", ()) if line["action"] == REQUEUE else ():
            row = tx.one(
                """SELECT p.group_id FROM product p JOIN job j ON j.id = p.job_id
                WHERE p.current AND j.key = ?""",
                key,
            )
            if row is not None:
                ledger_products.remake(tx, row["group_id"])


def _look_again(tx: Tx, lines: Iterable[Mapping[str, Any]]) -> None:
    """What was decided of products, and of the pipeline's judgement, when nothing was made of it any more."""
    for line in lines:
        kind, _, what = str(line["subject"]).partition(" ")
        if kind == "judgement":
            data_sha, _, label = what.partition(" ")
            frames = "SELECT id FROM frame WHERE label = ? AND data_sha = ?"
            for row in tx.rows(frames, label, data_sha):
                people_decisions.touch_users_of_frame(tx, row["id"])
        elif kind == "product":
            for row in tx.rows("SELECT group_id FROM job WHERE key = ?", what):
                ledger_marks.touch(tx, row["group_id"])


def _forget_gone(tx: Tx) -> None:
    """Older products that were removed for good since the ledger was copied; where the folder of their night
    is gone, its disk may be."""
    for row in tx.rows("SELECT path FROM product WHERE NOT current"):
        path = os.fsdecode(row["path"])
        if Path(path).parents[1].is_dir() and not os.path.lexists(path):
            ledger_products.forget_kept(tx, path)


# -- products --------------------------------------------------------------------------------


def _settled(found: Sequence[Found]) -> list[Found]:
    """In order of time, superseded ones first. A publication that was cut short by the loss of the ledger
    has left one product at two places: it is taken where it is current."""
    by_key: dict[str, Found] = {}
    for item in sorted(found, key=lambda f: f.superseded):
        first = by_key.setdefault(item.key, item)
        if first is not item and first.sha256 == item.sha256:
            item.path.unlink()
            item.path.with_suffix(".png").unlink(missing_ok=True)
    return sorted(by_key.values(), key=lambda f: (not f.superseded, f.written))


def _adopt(
    tx: Tx, found: Found, keys: Mapping[str, str], setting: Setting, overrides: Overrides
) -> list[dict[str, str]]:
    """One product becomes a job that is done. Returns why not, if it cannot be."""
    if _moved(tx, found, setting):
        return []
    inputs, frames = _inputs(tx, found)
    group = _group(tx, found, frames, setting)
    spec = _spec(tx, found, inputs, keys, setting)
    remake = _remake(spec)
    made = _makes(tx, found, group, frames, spec, setting, overrides)
    tx.now = found.written
    job = _job(tx, found, group, spec, made, remake)
    for position, frame in enumerate(frames):
        if frame is not None:
            values = {"job_id": job, "frame_id": frame, "position": position}
            tx.insert("job_input", **values, sha256=spec.inputs[position].file_sha)
    for cal in spec.calibrations:
        tx.insert("job_calibration", job_id=job, role=cal.role, ident=cal.key, name=cal.name)
    path, current = _place(tx, found, group, setting)
    version = _version(tx, found, group)
    result = {"quality": found.quality, "notes": found.notes}
    plan = PublishPlan(job, 1, found.name, found.night, "", str(path), found.sha256, version, (), result)
    publications.commit(tx, plan, setting.policy)
    if not current:
        tx.run("UPDATE product SET current = 0 WHERE job_id = ?", job)
        tx.cals.remove_ident(found.key, "replaced by a later version", now=tx.now)
    tx.run("UPDATE frame_group SET remake = MAX(remake, ?) WHERE id = ?", remake, group)
    _say_adopted(tx, job, replace(found, path=path))
    return []


def _say_adopted(tx: Tx, job: int, found: Found) -> None:
    """Instead of what a commit says: it was done long ago."""
    tx.events = [event for event in tx.events if event[0] not in ("job_done", "product_restored")]
    tx.event("product_adopted", job=job, product=str(found.path), key=found.key)


def _moved(tx: Tx, found: Found, setting: Setting) -> bool:
    """A product that the ledger knows at another place, where something else lies by now."""
    row = tx.one("SELECT p.* FROM product p JOIN job j ON j.id = p.job_id WHERE j.key = ?", found.key)
    if row is None:
        return False
    place, rejected = Path(os.fsdecode(row["path"])), ledger_decisions.is_rejected(tx, found.key)
    # Either a second copy, or one that was rejected and that a crash has kept from being moved.
    if (place.exists() and hash_file(place) == row["sha256"]) or (rejected and not found.superseded):
        work_moving.withdraw(found.path, place, row["sha256"])
        return True
    if not found.superseded:  # in use again since the ledger was copied
        tx.now = found.written
        final, version = str(found.path), row["version"]
        plan = PublishPlan(
            row["job_id"], 1, found.name, found.night, "", final, found.sha256, version, (), {}
        )
        publications.commit(tx, replace(plan, restored=row["id"]), setting.policy)
        _say_adopted(tx, row["job_id"], found)
        return True
    tx.run("UPDATE product SET path = ?, current = 0 WHERE id = ?", os.fsencode(found.path), row["id"])
    for gone in tx.cals.remove_ident(found.key, rejected or "replaced by a later version", now=tx.now):
        ledger_marks.touch_withdrawn(tx, gone.ident)
    if rejected:
        ledger_marks.touch(tx, row["group_id"])
    return True


def _place(tx: Tx, found: Found, group: int, setting: Setting) -> tuple[Path, bool]:
    """Where it lies, and whether it is current: not when it was rejected. An older one gives way to it."""
    if found.superseded:
        return found.path, False
    if ledger_decisions.is_rejected(tx, found.key):
        this = {"name": found.name, "night": found.night, "path": os.fsencode(found.path), "version": 1}
        return _out_of_the_way(this, found.sha256, setting), False
    older = (
        "SELECT p.*, j.key FROM product p JOIN job j ON j.id = p.job_id WHERE p.group_id = ? AND p.current"
    )
    for row in tx.rows(older, group):
        kept = _out_of_the_way(row, row["sha256"], setting)
        tx.run("UPDATE product SET current = 0, path = ? WHERE id = ?", os.fsencode(kept), row["id"])
        tx.cals.remove_ident(row["key"], f"replaced by {found.name}", now=tx.now)
    return found.path, True


def _out_of_the_way(row: Any, sha256: str, setting: Setting) -> Path:
    old = ledger_products.give_way(setting.products, 0, row)
    work_moving.withdraw(Path(old.path), Path(old.kept), sha256)
    return Path(old.kept)


def _version(tx: Tx, found: Found, group: int) -> int:
    taken = {r["version"] for r in tx.rows("SELECT version FROM product WHERE group_id = ?", group)}
    said = _SUPERSEDED.fullmatch(found.path.stem)
    number = int(said[2]) if said else max(taken, default=0) + 1
    while number in taken:
        number += 1
    return number


def _inputs(tx: Tx, found: Found) -> tuple[list[Input], list[int | None]]:
    """The raw frames: by their bytes; by name, when the key of all inputs proves that they are the same."""
    rows = [(_by_sha(tx, sha) or _by_name(tx, name), name, sha) for name, sha in found.inputs]
    given = [
        Input(
            path=os.fsdecode(row["path"]) if row and row["path"] else "",
            name=name,
            file_sha=sha,
            data_sha=row["data_sha"] if row else "",
            facts=row["facts"] if row else "",
            ut=row["ut"] if row else "",
        )
        for row, name, sha in rows
    ]
    same = input_key(given) == found.input_key
    sure = [
        item
        if same or (row is not None and row["sha256"] == item.file_sha)
        else replace(item, data_sha="", facts="")
        for item, (row, _, _) in zip(given, rows, strict=True)
    ]
    return sure, [row["frame_id"] if row else None for row, _, _ in rows]


_FRAME = """SELECT c.sha256, c.facts, c.frame_id, f.data_sha, f.descriptors, s.path,
    json_extract(f.descriptors, '$.ut_datetime') AS ut
    FROM content c JOIN frame f ON f.id = c.frame_id
    LEFT JOIN sighting s ON s.content_id = c.id AND s.current"""


def _by_sha(tx: Tx, sha: str) -> Any:
    return tx.one(f"{_FRAME} WHERE c.sha256 = ? LIMIT 1", sha)


def _by_name(tx: Tx, name: str) -> Any:
    return tx.one(f"{_FRAME} WHERE f.name = ? AND c.state <> 'superseded' LIMIT 1", name)


def _group(tx: Tx, found: Found, frames: Sequence[int | None], setting: Setting) -> int:
    """The group that the product is of: by its GROUPID, else the one that most of its frames are in."""
    known = [frame for frame in frames if frame is not None]
    titles = [rule.title for rule in setting.rules.values() if rule.recipe == found.recipe]
    marks, rules = ", ".join("?" * len(known)), ", ".join("?" * len(titles))
    rows = tx.rows(
        f"""SELECT g.id, g.rule, g.key, COUNT(*) AS n
        FROM membership m JOIN frame_group g ON g.id = m.group_id
        WHERE m.frame_id IN ({marks}) AND g.rule IN ({rules}) AND NOT g.closed GROUP BY g.id""",
        *known,
        *titles,
    )
    idents = [
        (r["label"], r["data_sha"])
        for r in tx.rows(f"SELECT label, data_sha FROM frame WHERE id IN ({marks})", *known)
    ]

    def order(row: Any) -> tuple[bool, int, int]:
        named = any(digest([row["rule"], row["key"], ident], 16) == found.group for ident in idents)
        return (named, row["n"], -row["id"])

    if rows:
        return int(max(rows, key=order)["id"])
    zero = {"arrivals": 0, "touched": 0, "settled": 1, "remake": 0, "better": "", "exposure": 0.0}
    return tx.insert(
        "frame_group",
        rule=titles[0] if titles else found.recipe,
        rank=0,
        key=found.group,
        first_ut=found.ut,
        last_ut=found.ut,
        program="",
        pool="",
        offers="",
        last_arrival=found.written,
        closed=1,
        reason="its raw frames are not in the drop folders any more",
        **zero,
    )


def _spec(
    tx: Tx, found: Found, inputs: Sequence[Input], keys: Mapping[str, str], setting: Setting
) -> JobSpec:
    calibrations = []
    for name, sha, role in found.calibrations:
        row = tx.one("SELECT j.key FROM product p JOIN job j ON j.id = p.job_id WHERE p.sha256 = ?", sha)
        key = keys.get(sha) or (row["key"] if row else sha)
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
    """How often a person had it made again: the number with which its key comes out."""
    content = (spec.recipe, spec.recipe_version, spec.inputs, spec.calibrations, spec.parameters, spec.preset)
    return next((n for n in range(_MOST_REMAKES) if job_key(*content, n) == spec.key), 0)


def _makes(
    tx: Tx,
    found: Found,
    group: int,
    frames: Sequence[int | None],
    spec: JobSpec,
    setting: Setting,
    overrides: Overrides,
) -> Candidate | None:
    """The calibration that it is, as planning would have said; without its frames, as its own header says."""
    row = tx.one("SELECT * FROM frame_group WHERE id = ?", group)
    assert row is not None
    if not row["closed"]:
        world = LedgerWorld(tx, setting, overrides)
        loaded = world.load(row)
        used = tuple(replace(m, usable=True) for m in loaded.members if m.frame_id in frames)
        return makes_of(replace(loaded, members=used), setting, world, spec) if used else None
    recipe = setting.recipes.get(found.recipe)
    if recipe is None or recipe.makes is None or found.descriptors.ut_datetime is None:
        return None
    made = caldb.external(CalKind(recipe.makes), str(found.path), found.sha256, found.descriptors)
    return replace(made, ident=found.key, name=found.name)


def _job(tx: Tx, found: Found, group: int, spec: JobSpec, made: Candidate | None, remake: int) -> int:
    """Its row, running, as `publish.commit` wants it; one that a backup has as planned is taken."""
    known = tx.one("SELECT id FROM job WHERE key = ?", found.key)
    values = {
        "group_id": group,
        "recipe": found.recipe,
        "version": found.version,
        "state": "running",
        "reason": "",
        "ut": found.ut,
        "spec": json.dumps(spec.to_json()),
        "makes": candidate_to_json(made) if made else "",
        "makes_key": str(CalibrationKey.of(made.kind, made.facts)) if made else "",
        "remake": remake,
        "planned_at": found.written,
        "changed": found.written,
        "attempts": 1,
    }
    if known is None:
        more = {"deaths": 0, "interruptions": 0, "error": "", "priority": BACKLOG}
        job = tx.insert("job", key=found.key, **values, **more)
    else:
        job = known["id"]
        tx.run(f"UPDATE job SET {', '.join(f'{n} = ?' for n in values)} WHERE id = ?", *values.values(), job)
        for table in ("attempt", "job_input", "job_calibration", "dependency"):
            tx.run(f"DELETE FROM {table} WHERE job_id = ?", job)
    tx.insert("attempt", job_id=job, n=1, started=found.written, outcome="", error="")
    return job
