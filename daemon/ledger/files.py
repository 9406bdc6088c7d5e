"""What landed, written into the ledger: sightings (paths), contents (bytes), frames (exposures).

Every function takes the write transaction. A path has one current sighting; a content has one state,
which changes only as `states` allows; a frame is usable while one of its contents is ready. What a
change means for groups follows at once, in the same transaction.
"""

from __future__ import annotations

import json
import os
from typing import Any

from daemon.ledger import decisions, groups, marks, observed
from daemon.ledger.store import Tx
from daemon.model.files import USABLE, FileRecord, Signature
from daemon.model.groups import Setting
from daemon.model.names import canonical_name, name_order
from daemon.model.states import FileState, check_file
from pipeline.association import CalibrationKey, CalKind, Candidate
from pipeline.calibrations import caldb
from pipeline.headers.descriptors import Descriptors
from pipeline.headers.roles import role_of

NOT_STABLE = "not stable yet"
_NOT_READ = frozenset({FileState.SEEN, FileState.INCOMPLETE, FileState.VANISHED})
_OF_FRAMES = frozenset({FileState.READY, FileState.EXCLUDED, FileState.QUARANTINED, FileState.INCOMPLETE})
_NOT_FOR_GOOD = frozenset(
    {
        FileState.INCOMPLETE,
        FileState.VANISHED,
        FileState.SUPERSEDED,
        FileState.REFUSED,
        FileState.QUARANTINED,
    }
)


def seen(tx: Tx, path: str, reason: str = NOT_STABLE) -> None:
    """A file is there; nothing of it is known yet. What was read at this path before stays on record."""
    row = _current(tx, path)
    if row is None or row["content_id"] is not None or row["state"] != FileState.SEEN:
        _sight(tx, path, FileState.SEEN, reason, None, None)
    elif row["reason"] != reason:
        tx.run("UPDATE sighting SET reason = ? WHERE id = ?", reason, row["id"])


def gone(tx: Tx, path: str, setting: Setting) -> None:
    """A file is no longer there. What was read stays as it is, unless the frame has another file that is
    there; what never was read is vanished."""
    row = _current(tx, path)
    if row is None:
        return
    tx.run("UPDATE sighting SET present = 0, last_seen = ? WHERE id = ?", tx.now, row["id"])
    if row["content_id"] is None and row["state"] in (FileState.SEEN, FileState.INCOMPLETE):
        tx.run(
            "UPDATE sighting SET state = ?, reason = ? WHERE id = ?",
            FileState.VANISHED.value,
            "gone before it could be read",
            row["id"],
        )
    elif row["content_id"] is not None:
        _refresh_frame(tx, row["content_id"], setting)
        _follow(tx, row["content_id"])
    given_up = """SELECT DISTINCT c.id FROM content c JOIN sighting s ON s.content_id = c.id
        WHERE s.path = ? AND c.state = 'incomplete' AND NOT EXISTS (
            SELECT 1 FROM sighting t WHERE t.content_id = c.id AND t.current AND t.present)"""
    for content in tx.rows(given_up, os.fsencode(path)):
        set_state(tx, content["id"], FileState.VANISHED, "gone before it was complete", setting)


def record(tx: Tx, record: FileRecord, setting: Setting) -> None:
    """Take in what ingest found, as people have decided about it. The same record twice changes nothing."""
    record = decisions.judged(tx, record)
    state = FileState(record.state)
    if state is FileState.VANISHED:
        gone(tx, record.path, setting)
    elif not record.file_sha:
        _sight(tx, record.path, state, record.reason, record.signature, None)
        _log(tx, record, state)
    else:
        content, changed = _content(tx, record, state)
        came_back = not changed and not _paths(tx, content)
        _sight(tx, record.path, state, record.reason, record.signature, content)
        _supersede(tx, record.path, setting)
        if changed:
            _log(tx, record, state)
        if changed and state is FileState.CALIBRATION and record.descriptors:
            _register(tx, record, record.descriptors, setting)
        _refresh_frame(tx, content, setting, came_back=came_back)
        if (calibration := _follow(tx, content)) and came_back:
            marks.touch_users(tx, calibration, setting.policy)


def set_state(tx: Tx, content: int, state: FileState, reason: str, setting: Setting) -> None:
    """Change the state of a content; IllegalTransition if that cannot be. Groups follow."""
    _change(tx, content, state, reason)
    _refresh_frame(tx, content, setting)


def _log(tx: Tx, record: FileRecord, state: FileState) -> None:
    good = state in (FileState.READY, FileState.CALIBRATION)
    tx.event(
        "file_ingested" if good else "file_rejected",
        path=record.path,
        state=state.value,
        reason=record.reason,
        sha256=record.file_sha,
    )


# -- paths ------------------------------------------------------------------------------------


def _current(tx: Tx, path: str) -> Any:
    return tx.one("SELECT * FROM sighting WHERE path = ? AND current", os.fsencode(path))


def _sight(
    tx: Tx, path: str, state: FileState, reason: str, signature: Signature | None, content: int | None
) -> None:
    """The latest at a path: the same row while it is the same thing, a new one when it is another."""
    row = _current(tx, path)
    stat: dict[str, Any] = dict.fromkeys(("dev", "ino", "size", "mtime_ns", "ctime_ns"))
    if signature:
        stat = {**signature._asdict(), "ino": str(signature.ino)}
    values = {"state": state.value, "reason": reason, "last_seen": tx.now, "content_id": content, **stat}
    watched = row is not None and row["content_id"] is None and row["state"] in _NOT_READ
    if row is not None and (watched or (content is not None and row["content_id"] == content)):
        if watched:
            check_file(row["state"], state)
        sets = ", ".join(f"{name} = ?" for name in values)
        tx.run(f"UPDATE sighting SET {sets}, present = 1 WHERE id = ?", *values.values(), row["id"])
        return
    if row is not None:
        tx.run("UPDATE sighting SET current = 0, present = 0 WHERE id = ?", row["id"])
    tx.insert("sighting", path=os.fsencode(path), current=1, present=1, first_seen=tx.now, **values)


def _supersede(tx: Tx, path: str, setting: Setting) -> None:
    """Contents that were at this path, and are now nowhere, are superseded by what is there now."""
    orphans = tx.rows(
        """SELECT DISTINCT c.id FROM content c JOIN sighting s ON s.content_id = c.id
        WHERE s.path = ? AND NOT s.current AND c.state <> 'superseded'
        AND NOT EXISTS (SELECT 1 FROM sighting t WHERE t.content_id = c.id AND t.current)""",
        os.fsencode(path),
    )
    for row in orphans:
        _change(tx, row["id"], FileState.SUPERSEDED, "newer content at its path")
        _refresh_frame(tx, row["id"], setting)


# -- contents ---------------------------------------------------------------------------------


def _content(tx: Tx, record: FileRecord, state: FileState) -> tuple[int, bool]:
    """(id, whether it is new or its state changed).

    For the same bytes ingest always finds the same, so a different state in the ledger is a later decision,
    which stays; but what was not whole, bytes that come back after having been superseded, and verdicts of
    an older release that would be better now, are taken anew.
    """
    name = canonical_name(os.path.basename(record.path))
    row = tx.one("SELECT id, state, name FROM content WHERE sha256 = ?", record.file_sha)
    descriptors, reason = record.descriptors, record.reason
    if descriptors and reason == USABLE:
        reason = _role(record.tags, descriptors)
    if row is not None:
        if name_order(name) < name_order(row["name"]):  # a copy came before the file itself
            tx.run("UPDATE content SET name = ? WHERE id = ?", name, row["id"])
        if row["state"] not in _NOT_FOR_GOOD or row["state"] == state:
            return row["id"], False
        _change(tx, row["id"], state, reason)
        return row["id"], True
    frame = _frame(tx, record, descriptors) if descriptors and state in _OF_FRAMES else None
    content = tx.insert(
        "content",
        sha256=record.file_sha,
        state=state.value,
        reason=reason,
        first_seen=tx.now,
        changed=tx.now,
        kind=record.kind,
        name=name,
        facts=record.facts,
        tags=json.dumps(sorted(record.tags)),
        descriptors=json.dumps(descriptors.to_json() if descriptors else None),
        verified=record.verified,
        frame_id=frame,
    )
    return content, True


def _change(tx: Tx, content: int, state: FileState, reason: str) -> None:
    row = tx.one("SELECT state, kind, sha256 FROM content WHERE id = ?", content)
    assert row is not None
    check_file(row["state"], state)
    tx.run(
        "UPDATE content SET state = ?, reason = ?, changed = ? WHERE id = ?",
        state.value,
        reason,
        tx.now,
        content,
    )
    if row["kind"] and state is not FileState.CALIBRATION:
        for removed in tx.cals.remove_ident(row["sha256"], reason, now=tx.now):
            marks.touch_withdrawn(tx, removed.ident)


def _register(tx: Tx, record: FileRecord, descriptors: Descriptors, setting: Setting) -> None:
    """Put an external calibration into the store, where it lies."""
    kind = CalKind(record.kind)
    try:
        entry = caldb.external(kind, record.path, record.file_sha, descriptors)
    except ValueError as error:
        tx.event("calibration_unusable", path=record.path, reason=str(error))
        return
    marks.touch_users(tx, tx.cals.add(entry, now=tx.now), setting.policy)
    tx.event("calibration_registered", path=record.path, key=str(CalibrationKey.of(kind, entry.facts)))


def _follow(tx: Tx, content: int) -> Candidate | None:
    """An external calibration is used where it lies now, and is returned; while it lies nowhere no job is
    planned with it (`world.LedgerWorld.candidates`). What was made with it stays."""
    cal = tx.one(
        """SELECT k.id, k.kind, k.ident, k.path FROM content c
        JOIN calibration k ON k.ident = c.sha256 AND k.removed IS NULL
        WHERE c.id = ? AND c.state = 'calibration'""",
        content,
    )
    if cal is None:
        return None
    paths = _paths(tx, content)
    if len(paths) > 1 and not os.path.lexists(cal["path"]):  # in a folder that is not watched any more
        paths = [path for path in paths if path != cal["path"]]
    if cal["path"] not in paths:  # jobs that have not begun are planned anew
        if paths:
            tx.run("UPDATE calibration SET path = ? WHERE id = ?", paths[0], cal["id"])
        rows = tx.rows(
            """SELECT DISTINCT j.group_id FROM job_calibration c JOIN job j ON j.id = c.job_id
            WHERE c.ident = ? AND j.state IN ('planned', 'running')""",
            cal["ident"],
        )
        marks.touch(tx, *(row[0] for row in rows))
    return next((c for c in tx.cals.list(CalKind(cal["kind"])) if c.ident == cal["ident"]), None)


def _paths(tx: Tx, content: int) -> list[bytes]:
    """Where a content lies now."""
    sql = "SELECT path FROM sighting WHERE content_id = ? AND current AND present ORDER BY path"
    return [bytes(row[0]) for row in tx.rows(sql, content)]


def register_again(tx: Tx, content: int, setting: Setting) -> None:
    """An external calibration that was taken out of use is in use again, where it lies now."""
    row = tx.one(
        """SELECT c.*, s.path FROM content c JOIN sighting s ON s.content_id = c.id
        WHERE c.id = ? ORDER BY s.current DESC, s.present DESC, s.id LIMIT 1""",
        content,
    )
    assert row is not None
    descriptors = Descriptors.from_json(json.loads(row["descriptors"]))
    path = os.fsdecode(row["path"])
    found = FileRecord(path, row["state"], row["reason"], file_sha=row["sha256"], kind=row["kind"])
    _register(tx, found, descriptors, setting)


# -- frames -----------------------------------------------------------------------------------


def _role(tags: frozenset[str], descriptors: Descriptors) -> str:
    """What a raw frame is for, in words."""
    kind = descriptors.observation_type
    if kind == "OBJECT":
        role, why = role_of(tags, descriptors)
        return f"{role}: {why}" if role else f"registered, {why}"
    return "dark" if kind == "DARK" else "flat" if kind == "FLAT" else f"registered, no recipe for {kind}"


def _frame(tx: Tx, record: FileRecord, descriptors: Descriptors) -> int:
    # The pixels of a damaged file are not known: it is a frame of its own, never an alias of a whole one.
    pixels = record.data_sha or f"damaged:{record.file_sha}"
    row = tx.one("SELECT id FROM frame WHERE label = ? AND data_sha = ?", record.data_label, pixels)
    if row is not None:
        return int(row["id"])
    return tx.insert(
        "frame",
        label=record.data_label,
        data_sha=pixels,
        facts="",
        name="",
        program=descriptors.program_id or "",
        tags="[]",
        descriptors="null",
        usable=False,
        role="",
    )


def _refresh_frame(tx: Tx, content: int, setting: Setting, *, came_back: bool = False) -> None:
    """Work out again what the frame of a content is, from its contents that count; regroup it if that
    changed.

    Of several header versions that lie about at the same time the one with the first name counts,
    whichever came first. One that is gone counts only when no other is there.
    came_back : its file was gone, so that groups may have gone on without it
    """
    row = tx.one("SELECT frame_id FROM content WHERE id = ?", content)
    if row is None or row["frame_id"] is None:
        return
    frame = tx.one("SELECT * FROM frame WHERE id = ?", row["frame_id"])
    assert frame is not None
    contents = tx.rows(
        """SELECT *, EXISTS (SELECT 1 FROM sighting s WHERE s.content_id = c.id AND s.current AND s.present)
        AS here FROM content c WHERE frame_id = ? AND state <> 'superseded'""",
        frame["id"],
    )
    contents = [c for c in contents if c["here"]] or contents
    if not contents:
        tx.run("UPDATE frame SET usable = 0 WHERE id = ?", frame["id"])
        groups.remove(tx, frame["id"], setting)
        return
    ready = [c for c in contents if c["state"] == FileState.READY]
    best = min(ready or contents, key=lambda c: (name_order(c["name"]), c["sha256"]))
    descriptors = Descriptors.from_json(json.loads(best["descriptors"]))
    ut = descriptors.ut_datetime.timestamp() if descriptors.ut_datetime else None
    tags = frozenset(json.loads(best["tags"]))
    new = {
        "facts": best["facts"],
        "usable": int(bool(ready)),
        "ut": ut,
        "program": descriptors.program_id or "",
        "tags": best["tags"],
        "descriptors": best["descriptors"],
        "role": role_of(tags, descriptors)[0],
        "name": min((c["name"] for c in contents), key=name_order),
    }
    first_time = frame["name"] == ""
    was = json.loads(frame["descriptors"]) or {}
    moved = first_time or (frame["ut"], was.get("exposure_time")) != (ut, descriptors.exposure_time)
    columns = ", ".join(f"{name} = ?" for name in new)
    tx.run(f"UPDATE frame SET {columns} WHERE id = ?", *new.values(), frame["id"])
    observed.note(tx, frame["id"], descriptors.object, ut)
    if first_time or any(frame[k] != new[k] for k in ("facts", "usable", "ut", "tags")):
        groups.place(tx, frame["id"], tags, descriptors, setting, moved=moved)
    else:
        marks.touch_waiting(tx, frame["id"], done=came_back)
