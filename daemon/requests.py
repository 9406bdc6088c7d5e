"""A person's decision on its way to the daemon: a small JSON file, renamed into STATE/requests/.

    submit(state_folder, {"action": "reject", "target": "sha256:...", "reason": "trailed"})   # a command
    Requests(...).apply()                                                                     # the heart

Nobody but the daemon writes the database. The user is the owner of the file, which no one can make up.
A file is removed when its decision is in the ledger, in PRODUCTS/.nirid/decisions.jsonl and on disk; a
crash before that applies it again, which changes nothing twice. Without a daemon the file waits.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import secrets
import sqlite3
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from daemon import decisions, moves, publish
from daemon.ledger import Ledger, LedgerBusy, Tx
from daemon.planner import Setting
from daemon.planning import Overrides
from pipeline.errors import NiridError

FOLDER = "requests"
MOST_BYTES = 1 << 16
_PASSING = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # says nothing of a request
DECISIONS = Path(".nirid", "decisions.jsonl")  # below the product folder


class Refused(NiridError):
    """A request that is not one of ours, or makes no sense."""


def folder(state: Path) -> Path:
    """Where requests are put. Who is in the group of the state folder may; nobody may remove another's."""
    place = state / FOLDER
    if not place.is_dir():
        place.mkdir(mode=0o770, parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):
            place.chmod(0o1770)
    return place


def submit(state: Path, request: Mapping[str, Any]) -> str:
    """Put a request where the daemon finds it; returns its id. OSError when the user may not."""
    place = folder(state)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"
    part = place / f".{name}.part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o644)  # whatever the umask: the daemon has to read it
            json.dump(dict(request), file)
            file.flush()
            os.fsync(fd)
        os.replace(part, place / f"{name}.json")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    moves.sync(place)
    return name


def waiting(state: Path) -> list[Path]:
    """Requests that are still to be applied, in order."""
    try:
        with os.scandir(state / FOLDER) as entries:
            names = [e.name for e in entries if e.name.endswith(".json") and not e.name.startswith(".")]
    except FileNotFoundError:
        return []
    return [state / FOLDER / name for name in sorted(names)]


def answer(db: sqlite3.Connection, name: str, after: int) -> dict[str, Any] | None:
    """The event by which the daemon has answered a request; None as long as it has not.

    after : the last event before the request was made
    """
    rows = db.execute(
        "SELECT event, fields FROM event WHERE id > ? AND event IN ('decision', 'request_refused')", (after,)
    ).fetchall()
    for row in rows:
        fields = json.loads(row["fields"])
        if fields.get("request") == name:
            return {"event": row["event"], **fields}
    return None


def read(path: Path) -> dict[str, Any]:
    """A request with its id, user and time. Raises Refused when it is none; OSError.

    Not a link, not a pipe, small: anybody in the group can put things here.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or facts.st_size > MOST_BYTES:
            raise Refused("not a small file of its own")
        try:
            values = json.loads(file.read(MOST_BYTES + 1))
        except ValueError as error:
            raise Refused(f"no JSON: {error}") from None
    if not isinstance(values, dict) or values.get("action") not in decisions.ACTIONS:
        raise Refused(f"no request: its action must be one of {', '.join(decisions.ACTIONS)}")
    texts = {k: str(values.get(k) or "")[:2000] for k in ("action", "target", "said", "reason", "night")}
    record = values.get("record") if isinstance(values.get("record"), dict) else {}
    if not (texts["target"] or values.get("outdated") or record):
        raise Refused("it does not say what is meant")
    made = {"outdated": values.get("outdated") is True, "record": record, "user": _name(facts.st_uid)}
    return {**texts, **made, "said": texts["said"] or texts["target"], "request": path.stem}


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@dataclass
class Requests:
    """The heart's end: applies what is there."""

    ledger: Ledger
    setting: Setting
    overrides: Overrides
    state: Path
    products: Path

    def apply(self) -> int:
        """Apply every request that is there, in order. Returns how many. Raises LedgerBusy, to try again."""
        paths = waiting(self.state)
        for path in paths:
            self._apply(path)
        self.write_down()
        for path in paths:
            _discard(path)
        if paths:
            moves.sync(self.state / FOLDER)
        return len(paths)

    def _apply(self, path: Path) -> None:
        try:
            request = read(path)
            decide = partial(decisions.apply, request=request, setting=self.setting, overrides=self.overrides)
            self.ledger.write(decide)
        except LedgerBusy:
            raise
        except FileNotFoundError:
            return
        except (NiridError, OSError) as error:  # or a link, a folder, not readable for us
            if isinstance(error, OSError) and error.errno in _PASSING:
                raise
            why = str(error)
            self.ledger.write(lambda tx: tx.event("request_refused", request=path.stem, reason=why))
            return
        with self.ledger.read() as db:
            rows = db.execute("SELECT moves FROM decision WHERE request = ?", (path.stem,)).fetchall()
        for row in rows:
            for old, kept, sha in json.loads(row["moves"]):
                moves.withdraw(Path(old), Path(kept), sha)
                if not moves.there(kept):
                    self.ledger.write(partial(publish.forget_kept, kept=kept))

    def write_down(self) -> int:
        """Append to the decisions file what is not in it yet; returns how many lines. OSError."""
        with self.ledger.read() as db:
            rows = [dict(r) for r in db.execute("SELECT * FROM decision WHERE written = 0 ORDER BY id")]
        if not rows:
            return 0
        file = self.products / DECISIONS
        known = {(line.get("request"), line.get("subject")) for line in written(self.products)}
        lines = [_line(row) for row in rows if (row["request"], row["subject"]) not in known]
        append(file, lines)
        last = rows[-1]["id"]
        self.ledger.write(lambda tx: _mark(tx, last))
        return len(lines)


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a folder
        os.replace(path, path.with_name(f".{path.name}"))


def _mark(tx: Tx, last: int) -> None:
    tx.run("UPDATE decision SET written = 1 WHERE id <= ? AND written = 0", last)


def _line(row: Mapping[str, Any]) -> str:
    names = ("request", "action", "subject", "said", "reason", "user", "outcome")
    at = datetime.fromtimestamp(row["at"], UTC).isoformat(timespec="microseconds")
    return json.dumps({"at": at, **{n: row[n] for n in names}, "more": json.loads(row["more"])})


def append(file: Path, lines: list[str]) -> None:
    """One write, flushed: after a crash a line is there or not; a torn one is left out when it is read."""
    if not lines:
        return
    moves.make_folder(file.parent)
    new = not file.exists()
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        text = ("\n" if torn else "") + "".join(f"{line}\n" for line in lines)
        view = memoryview(text.encode())
        while len(view):
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    if new:
        moves.sync(file.parent)


def written(products: Path) -> list[dict[str, Any]]:
    """What the decisions file says, in order, each decision once; a torn line is left out."""
    found: dict[tuple[Any, Any], dict[str, Any]] = {}
    with contextlib.suppress(FileNotFoundError):
        for text in (products / DECISIONS).read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict) and line.get("request") and line.get("subject"):
                    found.setdefault((line["request"], line["subject"]), line)
    return list(found.values())
