"""What follows from a person's decision, in one transaction of the ledger.

    outcome = apply(tx, request, setting)

request : {"request": id, "action", "said", "target", "reason", "user"}; for "requeue" also "outdated",
"night"; for "add" the record of the file. The same request twice changes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from daemon.ledger import answers, contents, decisions, files, guarding, held, marks, outdated, products
from daemon.ledger.marks import touch_users_of_frame
from daemon.ledger.requeue import again, current_keys, groups_of
from daemon.ledger.store import Tx
from daemon.ledger.targets import Target, find
from daemon.model.decisions import (
    ACCEPT,
    ACKNOWLEDGE,
    ADD,
    BLAME,
    REJECT,
    REQUEUE,
    NotPossible,
    Request,
    in_words,
    of_alert,
    of_content,
    of_frame,
    of_judgement,
    of_product,
    record_from_json,
)
from daemon.model.groups import Overrides, Setting
from daemon.model.records import ContentRecord, ProductRecord
from daemon.model.states import FileState


def apply(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    """Do it and say what was done. Raises NotPossible or UnknownTarget; then nothing was done."""
    if before := decisions.of_request(tx.reader, request["request"]):
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
    target = find(tx.reader, request["target"])
    if target.kind in ("file", "path"):
        return _reject_file(tx, request, target, setting)
    return _reject_product(tx, request, _product_of(tx, target), setting)


def _reject_file(tx: Tx, request: Request, target: Target, setting: Setting) -> str:
    content = _content(tx, target)
    words = in_words(request)
    if content.state not in (FileState.READY, FileState.CALIBRATION, FileState.EXCLUDED):
        raise NotPossible(f"{target.name} is {content.state}, so that nothing uses it: {content.reason}")
    outcome = f"{target.name} is excluded; what used it is made again"
    decisions.remember(tx, request, _subject(content), outcome)
    exposure = content.label, content.data_sha
    if decisions.is_forced_in(tx, *exposure):  # an accept after this rejection only takes it back
        decisions.remember(tx, request, of_judgement(*exposure), outcome)
    for found in contents.of_same_frame(tx.reader, content):
        if found.state in (FileState.READY, FileState.CALIBRATION, FileState.EXCLUDED):
            files.set_state(tx, found.id, FileState.EXCLUDED, words, setting)
    return outcome


def _reject_product(tx: Tx, request: Request, product: ProductRecord, setting: Setting) -> str:
    """Take the product out of use and move its file to superseded/, so that nobody uses it by mistake."""
    moves = []
    if product.current:
        old = products.set_aside(tx, setting.products, product)
        moves = [[old.path, old.kept, product.sha256]]
    outcome = f"{product.name} is withdrawn; what was made with it is made again"
    decisions.remember(
        tx, request, of_product(product.key), outcome, moves=moves, more={"name": product.name}
    )
    for gone in tx.cals.remove_ident(product.key, in_words(request), now=tx.now):
        marks.touch_withdrawn(tx, gone.ident)
    marks.touch(tx, product.group)
    return outcome


def _accept(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    target = find(tx.reader, request["target"])
    if target.kind in ("file", "path"):
        return _accept_file(tx, request, target, setting)
    product = _product_of(tx, target)
    back = not product.current and bool(decisions.is_rejected(tx, product.key))
    waits = bool(held.is_held(tx, product.key))
    done = "accepted, and used from now on" if waits else "in use again" if back else "accepted, and kept"
    outcome = f"{product.name} is {done}"
    decisions.remember(tx, request, of_product(product.key), outcome)
    if waits:
        guarding.let_go(tx, product.key, setting.policy)
    if back:  # planning finds that the wanted product was made before, and brings it back
        marks.touch(tx, product.group)
    return outcome


def _accept_file(tx: Tx, request: Request, target: Target, setting: Setting) -> str:
    content = _content(tx, target)
    taken = [found for found in contents.of_same_frame(tx.reader, content) if _can_be_accepted(tx, found)]
    if not taken and content.state not in (FileState.READY, FileState.CALIBRATION):
        raise NotPossible(f"{target.name} cannot be accepted, it is {content.state}: {content.reason}")
    outcome = f"{target.name} is {'in use again' if taken else 'in use already'}"
    if not taken and content.frame is not None and not content.kind:
        return _force_in(tx, request, content, content.frame, target.name)
    subjects = {_subject(content), *(of_content(found.sha256) for found in (content, *taken))}
    for subject in sorted(subjects):
        decisions.remember(tx, request, subject, outcome)
    for found in taken:
        back = FileState.CALIBRATION if found.kind else FileState.READY
        files.set_state(tx, found.id, back, in_words(request), setting)
        if found.kind:
            files.register_again(tx, found.id, setting)
    return outcome


def _force_in(tx: Tx, request: Request, content: ContentRecord, frame: int, name: str) -> str:
    """A frame that nobody has taken out is used whatever the pipeline's own judgement of it is."""
    outcome = f"{name} is in use, and is used from now on whatever the pipeline finds of it"
    decisions.remember(tx, request, of_judgement(content.label, content.data_sha), outcome)
    touch_users_of_frame(tx, frame)
    return outcome


def _can_be_accepted(tx: Tx, content: ContentRecord) -> bool:
    if content.state == FileState.QUARANTINED:  # by halving, not because it is damaged
        blame = decisions.standing(tx, of_content(content.sha256))
        return blame is not None and blame["action"] == BLAME
    return content.state == FileState.EXCLUDED


# -- to be made again ------------------------------------------------------------------------


def _requeue(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    if request.get("outdated"):
        found = outdated.groups(tx.reader, setting, overrides, request.get("night"))
        said = [again(tx, group) for group in found]
        outcome = f"{len(said)} products of an older release or configuration are made again"
        decisions.remember(tx, request, "outdated", outcome, more={"keys": current_keys(tx.reader, found)})
        return outcome
    target = find(tx.reader, request["target"])
    found = groups_of(tx.reader, target)
    if not found:
        raise NotPossible(f"{target.name} belongs to no group, so there is nothing to make again")
    keys = current_keys(tx.reader, found)
    outcome = "; ".join(again(tx, group) for group in found)
    decisions.remember(tx, request, target.text, outcome, more={"keys": keys})
    return outcome


# -- into the store --------------------------------------------------------------------------


def _add(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    """A calibration from outside, used where it lies; what it is was read by the command."""
    record = record_from_json(request["record"])
    before = contents.by_hash(tx.reader, record.file_sha)
    if before is not None and before.frame is not None and not before.kind:
        raise NotPossible(f"{os.path.basename(record.path)} is a raw frame, as the ledger has it")
    subject = of_content(record.file_sha)
    outcome = f"{os.path.basename(record.path)} is registered as {record.kind}"
    decisions.remember(
        tx, {**request, "action": ACCEPT}, subject, outcome, more={"record": request["record"]}
    )
    files.record(tx, record, setting)
    if before is not None and before.state == FileState.EXCLUDED:
        files.set_state(tx, before.id, FileState.CALIBRATION, "added by a person", setting)
        files.register_again(tx, before.id, setting)
    return outcome


# -- alerts ----------------------------------------------------------------------------------

_ALERT = re.compile("alert:([0-9a-f]{8})")
HOURS, MOST_HOURS = 16.0, 168.0  # that an alert is known for: a night if nothing else is said, a week at most


def _acknowledge(tx: Tx, request: Request, setting: Setting, overrides: Overrides) -> str:
    """Somebody knows of an alert: it is shown so, and not told again until then."""
    found = _ALERT.fullmatch(request["target"])
    if not found:
        raise NotPossible(f"{request['target']}: no alert is called so (nirid alerts)")
    if not request.get("reason"):
        raise NotPossible("why it need not be told again is missing")
    hours = request.get("hours", HOURS)
    if not 0 < hours <= MOST_HOURS:
        raise NotPossible(f"an alert can be known for up to {MOST_HOURS:g} hours, not for {hours:g}")
    outcome = f"{request.get('said') or request['target']} is known for {hours:g} hours"
    more = {"until": tx.now + 3600 * hours}
    decisions.remember(tx, request, of_alert(found[1]), outcome, more=more)
    return outcome


# -- what is meant ---------------------------------------------------------------------------


def _content(tx: Tx, target: Target) -> ContentRecord:
    if target.kind != "file":
        raise NotPossible(f"{target.name} has not been read yet: wait until it is whole")
    return contents.by_number(tx.reader, target.id)


def _subject(content: ContentRecord) -> str:
    """All files of the exposure: a rejection means the pixels, whatever they are called."""
    if content.frame is None:
        return of_content(content.sha256)
    return of_frame(content.label, content.data_sha)


def _product_of(tx: Tx, target: Target) -> ProductRecord:
    found = answers.product_meant(tx.reader, target.kind, target.id)
    if found is None:
        raise NotPossible(f"{target.name} has no product; a frame of it can be named instead")
    return found


_ACTIONS: Mapping[str, Callable[[Tx, Request, Setting, Overrides], str]] = {
    REJECT: _reject,
    ACCEPT: _accept,
    REQUEUE: _requeue,
    ADD: _add,
    ACKNOWLEDGE: _acknowledge,
}
