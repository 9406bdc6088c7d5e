"""The ledger made anew of what is on disk: raw files, provenance in the products, people's decisions.

    answer = take_back(ledger, landing, setting, overrides)

Nothing is reduced again. Decisions come first, from PRODUCTS/.nirid/decisions.jsonl, so that frames are
judged as they are taken in; then every raw file is read, as of the time when it landed; then each product
is adopted (`adopt`).
What the ledger knows already stays: with a database that is older than the products (restored from a
backup) it learns the rest.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.ledger import adoption, contents, files, marks, publications
from daemon.ledger import decisions as ledger_decisions
from daemon.ledger import products as ledger_products
from daemon.ledger.store import Ledger, Tx, damages_all
from daemon.model.decisions import (
    ACCEPT,
    BLAME,
    REJECT,
    REQUEUE,
    NotPossible,
    in_words,
    of_content,
    of_frame,
    parted,
    record_from_json,
)
from daemon.model.groups import Overrides, Setting
from daemon.model.records import ContentRecord
from daemon.model.states import FileState
from daemon.people import requests
from daemon.upkeep import adopt, provenance
from daemon.upkeep.audit import product_files
from pipeline.errors import NiridError
from pipeline.files import disk
from pipeline.files.structure import hash_file

if TYPE_CHECKING:
    from daemon.arrivals.intake import Landing
    from daemon.model.files import FileRecord


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
        known, decided = adoption.products(db), adoption.decisions(db)
        plans, moving = publications.begun(db), set(ledger_products.to_remove(db))
    moving |= {
        path for p in plans for path in (p.final, p.staged, *(q for o in p.old for q in (o.path, o.kept)))
    }
    files_there = (path for path in product_files(products) if str(path) not in moving)
    strange = [path for path in files_there if _is_strange(path, known.get(str(path)))]
    lines = [line for line in requests.written(products) if (line["request"], line["subject"]) not in decided]
    return strange, lines


def _is_strange(path: Path, known: adoption.OnRecord | None) -> bool:
    """True for a product that the ledger does not know, or not there. A file written later than the ledger's
    time of publication may be another one."""
    if known is None:
        return True
    with contextlib.suppress(OSError):
        later = path.stat().st_mtime > known.published + 1.0
        return bool(later and hash_file(path) != known.sha256)
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
        if why != os.strerror(errno.EACCES):  # for good: a folder closed to us was never reduced
            raise OSError(errno.EIO, f"cannot be listed now: {why}", folder)
    ledger.write(partial(_enforce, setting=setting))
    left = []
    found = []
    for path in strange:
        try:
            found.append(provenance.read(path, products))
        except (NiridError, FileNotFoundError) as error:
            left.append({"path": str(path), "why": str(error)})
    keys = {item.sha256: item.key for item in found}
    for item in adopt.settled(found):
        try:
            ledger.write(partial(adopt.adopt, found=item, keys=keys, setting=setting, overrides=overrides))
        except (OSError, KeyboardInterrupt):
            raise
        except Exception as error:  # one odd product must not stop the start
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
    for values in adoption.registered(tx):
        try:
            record = record_from_json(values)
        except NotPossible as error:  # of a damaged line
            tx.event("decision_passed_over", reason=str(error))
            continue
        if os.path.exists(record.path) and hash_file(record.path) == record.file_sha:
            files.record(tx, record, setting)
    for content in contents.every(tx.reader):
        subjects = [of_content(content.sha256)]
        if content.data_sha:
            subjects.append(of_frame(content.label, content.data_sha))
        decision = ledger_decisions.standing(tx, *subjects)
        usable = content.state in (FileState.READY, FileState.CALIBRATION)
        if decision is None:
            continue
        if decision["action"] == REJECT and usable:
            files.set_state(tx, content.id, FileState.EXCLUDED, in_words(decision), setting)
        elif decision["action"] == ACCEPT and _was_out(tx, content):
            back = FileState.CALIBRATION if content.kind else FileState.READY
            files.set_state(tx, content.id, back, in_words(decision), setting)
            if content.kind:
                files.register_again(tx, content.id, setting)
        elif decision["action"] == BLAME and content.state is FileState.READY:
            files.set_state(tx, content.id, FileState.QUARANTINED, in_words(decision), setting)


def _was_out(tx: Tx, content: ContentRecord) -> bool:
    """True of a content that a person has taken back into use after it was rejected, or blamed."""
    subject = of_content(content.sha256)
    these = ledger_decisions.standing(tx, subject)
    if these is None or these["action"] != ACCEPT:
        return False
    blamed = content.state is FileState.QUARANTINED and adoption.was_blamed(tx, subject)
    return content.state is FileState.EXCLUDED or blamed


def _ask_again(tx: Tx, lines: Iterable[Mapping[str, Any]]) -> None:
    """Requests to make something again that were not done before the ledger was lost."""
    for line in lines:
        for key in (line.get("more") or {}).get("keys", ()) if line["action"] == REQUEUE else ():
            group = adoption.group_in_use(tx, key)
            if group is not None:
                ledger_products.remake(tx, group)


def _look_again(tx: Tx, lines: Iterable[Mapping[str, Any]]) -> None:
    """Decisions about products and about the pipeline's judgement that had not taken effect yet."""
    for line in lines:
        kind, what = parted(str(line["subject"]))
        if kind == "judgement":
            data_sha, _, label = what.partition(" ")
            for frame in adoption.exposures(tx, label, data_sha):
                marks.touch_users_of_frame(tx, frame)
        elif kind == "product":
            marks.touch(tx, *adoption.groups_of_job(tx, what))


def _forget_gone(tx: Tx) -> None:
    """Older products that were removed for good since the ledger was copied; where the folder of their night
    is gone, its disk may be."""
    for path in adoption.kept(tx):
        if Path(path).parents[1].is_dir() and not os.path.lexists(path):
            ledger_products.forget_kept(tx, path)
