"""What follows from a person's decision, in one transaction of the ledger.

    outcome = apply(tx, request, setting)

request : {"request": id, "action", "said", "target", "reason", "user"}; for "requeue" also "outdated",
"night"; for "add" the record of the file. The same request twice changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from daemon.ledger import decisions, files, marks, outdated
from daemon.ledger.jobs import move
from daemon.ledger.products import give_way, remake
from daemon.ledger.store import Tx
from daemon.ledger.targets import Target, find
from daemon.model.decisions import (
    ACCEPT,
    ADD,
    BLAME,
    REJECT,
    REQUEUE,
    NotPossible,
    Request,
    in_words,
    of_content,
    of_frame,
    of_product,
    record_from_json,
)
from daemon.model.groups import Overrides, Setting
from daemon.model.states import FileState, JobState


def apply(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    """Do it and say what was done. Raises NotPossible or UnknownTarget; then nothing was done."""
    if before := decisions.decided(tx, request["request"]):
        if any(before[0][name] != request.get(name, "") for name in ("said", "reason", "user")):
            raise NotPossible("another decision was taken under this name; give the file a new one")
        return str(before[0]["outcome"])
    done = _ACTIONS[request["action"]](tx, request, setting, overrides)
    tx.event(
        "decision",
        request=request["request"],
        action=request["action"],
        user=request["user"],
        target=request.get("said", ""),
        reason=request.get("reason", ""),
        outcome=done,
    )
    return done


def _reject(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    if not request.get("reason"):
        raise NotPossible("a rejection needs a reason")
    target = find(tx.rows, request["target"])
    if target.kind in ("file", "path"):
        return _reject_file(tx, request, target, setting)
    return _reject_product(tx, request, _product_of(tx, target), setting)


def _reject_file(tx: Tx, request: Request, target: Target, setting: Setting) -> str:
    content = _content(tx, target)
    state = FileState(content["state"])
    words = in_words({**request})
    if state not in (FileState.READY, FileState.CALIBRATION, FileState.EXCLUDED):
        raise NotPossible(f"{target.name} is {state}, so that nothing uses it: {content['reason']}")
    outcome = f"{target.name} is excluded; what used it is made again"
    decisions.remember(tx, request, _subject(tx, content), outcome)
    if decisions.is_forced_in(
        tx, *_exposure(tx, content)
    ):  # an accept after this one means only: no more out
        decisions.remember(tx, request, decisions.of_judgement(*_exposure(tx, content)), outcome)
    for row in _same_frame(tx, content):
        if row["state"] in (FileState.READY, FileState.CALIBRATION, FileState.EXCLUDED):
            files.set_state(tx, row["id"], FileState.EXCLUDED, words, setting)
    return outcome


def _reject_product(tx: Tx, request: Request, product: Any, setting: Setting) -> str:
    """Out of use, and its file among the superseded ones: nobody takes it for good by mistake."""
    moves = []
    if product["current"]:
        old = give_way(setting.products, product["id"], product)
        moves = [[old.path, old.kept, product["sha256"]]]
        tx.run("UPDATE product SET current = 0, path = ? WHERE id = ?", os.fsencode(old.kept), product["id"])
    outcome = f"{product['name']} is withdrawn; what was made with it is made again"
    subject = of_product(product["key"])
    decisions.remember(tx, request, subject, outcome, moves=moves, more={"name": product["name"]})
    for gone in tx.cals.remove_ident(product["key"], in_words({**request}), now=tx.now):
        marks.touch_withdrawn(tx, gone.ident)
    marks.touch(tx, product["group_id"])
    return outcome


def _accept(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    target = find(tx.rows, request["target"])
    if target.kind in ("file", "path"):
        return _accept_file(tx, request, target, setting)
    product = _product_of(tx, target)
    back = not product["current"] and bool(decisions.is_rejected(tx, product["key"]))
    outcome = f"{product['name']} is {'in use again' if back else 'accepted, and kept'}"
    decisions.remember(tx, request, of_product(product["key"]), outcome)
    if back:  # planning finds that what it wants was made before, and has it brought back
        marks.touch(tx, product["group_id"])
    return outcome


def _accept_file(tx: Tx, request: Request, target: Target, setting: Setting) -> str:
    content = _content(tx, target)
    state = FileState(content["state"])
    taken = [row for row in _same_frame(tx, content) if _can_be_accepted(tx, row)]
    if not taken and state not in (FileState.READY, FileState.CALIBRATION):
        raise NotPossible(f"{target.name} cannot be accepted, it is {state}: {content['reason']}")
    outcome = f"{target.name} is {'in use again' if taken else 'in use already'}"
    if not taken and content["frame_id"] is not None and not content["kind"]:
        return _force_in(tx, request, content, target.name)
    subjects = {_subject(tx, content), *(of_content(row["sha256"]) for row in (content, *taken))}
    for subject in sorted(subjects):
        decisions.remember(tx, request, subject, outcome)
    for row in taken:
        back = FileState.CALIBRATION if row["kind"] else FileState.READY
        files.set_state(tx, row["id"], back, in_words({**request}), setting)
        if row["kind"]:
            files.register_again(tx, row["id"], setting)
    return outcome


def _force_in(tx: Tx, request: Request, content: Any, name: str) -> str:
    """A frame that nobody has taken out is used whatever the pipeline's own judgement of it is."""
    outcome = f"{name} is in use, and is used from now on whatever the pipeline finds of it"
    decisions.remember(tx, request, decisions.of_judgement(*_exposure(tx, content)), outcome)
    touch_users_of_frame(tx, content["frame_id"])
    return outcome


def touch_users_of_frame(tx: Tx, frame: int) -> None:
    """Have its own groups, and those that borrow it, looked at again."""
    rows = tx.rows(
        """SELECT id FROM frame_group WHERE NOT closed AND id IN (
            SELECT group_id FROM membership WHERE frame_id = ?
            UNION SELECT j.group_id FROM job_input i JOIN job j ON j.id = i.job_id WHERE i.frame_id = ?)""",
        frame,
        frame,
    )
    marks.touch(tx, *(row["id"] for row in rows))


def _exposure(tx: Tx, content: Any) -> tuple[str, str]:
    """(data label, hash of the pixels) of the frame that a content is of; empty when it is of none."""
    frame = tx.one("SELECT label, data_sha FROM frame WHERE id = ?", content["frame_id"])
    return (frame["label"], frame["data_sha"]) if frame else ("", "")


def _can_be_accepted(tx: Tx, row: Any) -> bool:
    if row["state"] == FileState.QUARANTINED:  # by halving, not because it is damaged
        blame = decisions.standing(tx, of_content(row["sha256"]))
        return blame is not None and blame["action"] == BLAME
    return bool(row["state"] == FileState.EXCLUDED)


# -- to be made again ------------------------------------------------------------------------


def _requeue(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    if request.get("outdated"):
        found = outdated.groups(tx, setting, overrides, request.get("night"))
        said = [_again(tx, group) for group in found]
        outcome = f"{len(said)} products of an older release or configuration are made again"
        decisions.remember(tx, request, "outdated", outcome, more={"keys": _current_keys(tx, found)})
        return outcome
    target = find(tx.rows, request["target"])
    found = _groups_of(tx, target)
    if not found:
        raise NotPossible(f"{target.name} belongs to no group, so there is nothing to make again")
    keys = _current_keys(tx, found)
    outcome = "; ".join(_again(tx, group) for group in found)
    decisions.remember(tx, request, target.text, outcome, more={"keys": keys})
    return outcome


def _again(tx: Tx, group: int) -> str:
    """Make what a group makes once more, whatever the reason that it is not made by itself."""
    row = tx.one("SELECT * FROM frame_group WHERE id = ?", group)
    assert row is not None
    title = f"group {group}, {row['rule']}"
    failed = tx.one("SELECT * FROM job WHERE group_id = ? AND state = 'failed' ORDER BY id DESC", group)
    marks.touch(tx, group)
    if failed is not None:
        move(tx, failed["id"], failed["state"], JobState.PLANNED, "requeued by a person")
        tx.run("UPDATE job SET deaths = 0, interruptions = 0 WHERE id = ?", failed["id"])
        return f"{title}: tried again"
    going = tx.one("SELECT state FROM job WHERE group_id = ? AND state IN ('running', 'planned')", group)
    if going is not None:
        return f"{title}: {going['state']} already"
    if tx.one("SELECT 1 FROM job WHERE group_id = ? AND state = 'done'", group) is None:
        return f"{title}: looked at again ({row['reason'] or 'not planned yet'})"
    remake(tx, group)
    return f"{title}: made again"


def _current_keys(tx: Tx, found: list[int]) -> list[str]:
    keys = []
    for group in found:
        sql = "SELECT j.key FROM product p JOIN job j ON j.id = p.job_id WHERE p.current AND p.group_id = ?"
        keys += [row["key"] for row in tx.rows(sql, group)]
    return keys


def _groups_of(tx: Tx, target: Target) -> list[int]:
    sql = {
        "group": "SELECT id FROM frame_group WHERE id = ?",
        "job": "SELECT group_id FROM job WHERE id = ?",
        "product": "SELECT group_id FROM product WHERE id = ?",
        "file": """SELECT group_id FROM membership WHERE frame_id =
            (SELECT frame_id FROM content WHERE id = ?) ORDER BY group_id""",
    }
    if target.kind == "path":
        return []
    rows = tx.rows(sql[target.kind], target.id)
    closed = {r["id"] for r in tx.rows("SELECT id FROM frame_group WHERE closed")}
    return [row[0] for row in rows if row[0] not in closed]


# -- into the store --------------------------------------------------------------------------


def _add(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    """A calibration from outside, used where it lies; what it is was read by the command."""
    record = record_from_json(request["record"])
    before = tx.one("SELECT state, kind, frame_id FROM content WHERE sha256 = ?", record.file_sha)
    if before is not None and before["frame_id"] is not None and not before["kind"]:
        raise NotPossible(f"{os.path.basename(record.path)} is a raw frame, as the ledger has it")
    subject = of_content(record.file_sha)
    outcome = f"{os.path.basename(record.path)} is registered as {record.kind}"
    decisions.remember(
        tx, {**request, "action": ACCEPT}, subject, outcome, more={"record": request["record"]}
    )
    files.record(tx, record, setting)
    if before is not None and before["state"] == FileState.EXCLUDED:
        row = tx.one("SELECT id FROM content WHERE sha256 = ?", record.file_sha)
        assert row is not None
        files.set_state(tx, row["id"], FileState.CALIBRATION, "added by a person", setting)
        files.register_again(tx, row["id"], setting)
    return outcome


# -- what is meant ---------------------------------------------------------------------------


def _content(tx: Tx, target: Target) -> Any:
    row = tx.one("SELECT * FROM content WHERE id = ?", target.id) if target.kind == "file" else None
    if row is None:
        raise NotPossible(f"{target.name} has not been read yet: wait until it is whole")
    return row


def _subject(tx: Tx, content: Any) -> str:
    frame = tx.one("SELECT label, data_sha FROM frame WHERE id = ?", content["frame_id"])
    if frame is None:
        return of_content(content["sha256"])
    return of_frame(frame["label"], frame["data_sha"])


def _same_frame(tx: Tx, content: Any) -> list[Any]:
    """All files of the exposure: a rejection means the pixels, whatever they are called."""
    if content["frame_id"] is None:
        return [content]
    return tx.rows("SELECT * FROM content WHERE frame_id = ? ORDER BY id", content["frame_id"])


def _product_of(tx: Tx, target: Target) -> Any:
    """The product that is meant; of a group the current one, or the last that was rejected."""
    column = {"product": "p.id", "group": "p.group_id", "job": "p.job_id"}[target.kind]
    row = tx.one(
        f"""SELECT p.*, j.key FROM product p JOIN job j ON j.id = p.job_id WHERE {column} = ?
        ORDER BY p.current DESC, p.version DESC LIMIT 1""",
        target.id,
    )
    if row is None:
        raise NotPossible(f"{target.name} has no product; a frame of it can be named instead")
    return row


_ACTIONS: Mapping[str, Callable[[Tx, Request, Setting, Overrides], str]] = {
    REJECT: _reject,
    ACCEPT: _accept,
    REQUEUE: _requeue,
    ADD: _add,
}
