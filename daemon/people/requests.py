"""A person's decision on its way to the daemon: a small JSON file, renamed into STATE/requests/.

    submit(state_folder, {"action": "reject", "target": "sha256:...", "reason": "trailed"})   # a command
    Requests(...).apply()                                                                     # the main loop

Nobody but the daemon writes the database. The user is the owner of the file, which cannot be forged; of one
that the page has put there, which runs as the daemon's own account, the name that was given at its login.
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
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from daemon.ledger import decisions as ledger_decisions
from daemon.ledger import events
from daemon.ledger import products as ledger_products
from daemon.ledger.store import Ledger, Reader, damages_all
from daemon.model.decisions import ACTIONS
from daemon.model.groups import Overrides, Setting
from daemon.model.plain import check, clean, cleaned, is_path, loads
from daemon.people import decisions
from daemon.work import moving
from pipeline.errors import NiridError
from pipeline.files import disk

FOLDER = "requests"
MOST_BYTES = 1 << 16
MOST_NAME = 40
MOST_LETTERS = 2000  # of a text in a request
LONGEST = 2.0  # s; of thousands of requests, jobs are handed out in between
# Says nothing of a request.
_PASSING = (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN)
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


def submit(state: Path, request: Mapping[str, Any], clock: Callable[[], float] = time.time) -> str:
    """Put a request where the daemon finds it; returns its id. OSError when the user may not."""
    place = folder(state)
    name = f"{datetime.fromtimestamp(clock(), UTC):%Y%m%dT%H%M%S.%f}-{secrets.token_hex(4)}"
    text = json.dumps({**cleaned(request), **_as_paths(request)})
    disk.write_whole(place / f"{name}.json", text.encode(), mode=0o644)  # the daemon has to read it
    disk.sync(place)
    return name


def _as_paths(request: Mapping[str, Any]) -> dict[str, Any]:
    """What may be the name of a file: bytes in it that are no text are carried as they are."""
    kept: dict[str, Any] = {}
    if is_path(target := str(request.get("target") or "")):
        kept["target"] = target
    record = request.get("record")
    if record and is_path(path := str(record.get("path", ""))):
        kept["record"] = {**cleaned(record), "path": path}
    return kept


def waiting(state: Path) -> list[Path]:
    """Requests that are still to be applied, in order; files that are still being written are not."""
    try:
        with os.scandir(state / FOLDER) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    return [state / FOLDER / name for name in sorted(names)]


def cancel(state: Path, name: str) -> None:
    """Take a request back that was not applied yet. Raises NiridError when there is none; OSError."""
    found = [path for path in waiting(state) if name in (path.name, path.stem, clean(path.stem))]
    if len(found) != 1:
        raise NiridError(f"{name}: no decision of this name waits")
    found[0].unlink()


def refused(db: Reader, since: float) -> list[dict[str, Any]]:
    """{"request", "at" (ISO), "reason"} of what was refused since a time in seconds; the latest first."""
    return [
        {
            "request": event.fields.get("request", ""),
            "at": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="seconds"),
            "reason": event.fields.get("reason", ""),
        }
        for event in events.since(db, since, "request_refused")
    ]


def read(path: Path) -> dict[str, Any]:
    """A request with its id, user and time. Raises Refused when it is none; OSError.

    Not a link, not a pipe, small: anybody in the group can put things here, under any name.
    """
    if path.suffix != ".json":
        raise Refused("its name does not end in .json")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or facts.st_size > MOST_BYTES:
            raise Refused("not a small file of its own")
        content = os.read(fd, MOST_BYTES + 1)
    finally:
        os.close(fd)
    try:
        values = loads(content)
    except ValueError as error:
        raise Refused(f"no JSON: {error}") from None
    if not isinstance(values, dict) or values.get("action") not in ACTIONS:
        raise Refused(f"no request: its action must be one of {', '.join(ACTIONS)}")
    texts = {}
    for name in ("action", "target", "said", "reason", "night"):
        value = values.get(name)
        if not isinstance(value, str | None):
            raise Refused(f"its {name} is no text")
        texts[name] = (value or "")[:MOST_LETTERS]
    if not isinstance(values.get("record"), dict | None):
        raise Refused("its record is no record")
    record = values.get("record") or {}
    if not (texts["target"] or values.get("outdated") or record):
        raise Refused("it does not say what is meant")
    target = texts["target"] if is_path(texts["target"]) else clean(texts["target"])
    texts = {name: clean(text) for name, text in texts.items()} | {"target": target}
    user = _name(facts.st_uid)
    if facts.st_uid == os.geteuid() and isinstance(by := values.get("by"), str) and by.strip():
        user = (
            f"{clean(by).strip()[:MOST_NAME]} (web)"  # the page, which runs as we do, names who is logged in
        )
    made = {"outdated": values.get("outdated") is True, "record": record, "user": user}
    hours = values.get("hours")
    if isinstance(hours, (int, float)) and not isinstance(hours, bool):
        made["hours"] = float(hours)
    return {**texts, **made, "said": texts["said"] or clean(target), "request": clean(path.stem)}


def _name(uid: int) -> str:
    try:
        return clean(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return f"uid {uid}"


@dataclass
class Requests:
    """The main loop's end: applies what is there."""

    ledger: Ledger
    setting: Setting
    overrides: Overrides
    state: Path
    products: Path
    clock: Callable[[], float] = time.monotonic
    # Done, but the folder is not ours: they cannot be removed.
    _stuck: set[tuple[str, int, int]] = field(default_factory=set)

    def apply(self) -> int:
        """Apply the requests that are there, in order, for some seconds at most. Returns how many.

        Every file is applied or refused, whatever it holds; it stays only while the database or the disk
        cannot be used. Raises LedgerBusy and OSError, to try again.
        """
        end, done = self.clock() + LONGEST, []
        for path in waiting(self.state):
            if self._stuck and _identity(path) in self._stuck:
                continue
            self._apply(path)
            done.append(path)
            if self.clock() > end:
                break
        self.write_down()
        for path in done:
            self._discard(path)
        if done:
            disk.sync(self.state / FOLDER)
        return len(done)

    def _apply(self, path: Path) -> None:
        try:
            request = read(path)
        except FileNotFoundError:
            return
        except (Refused, OSError) as error:  # or a link, a folder, not readable for us
            if isinstance(error, OSError) and error.errno in _PASSING:
                raise
            self._refuse(path, str(error) if isinstance(error, Refused) else error.strerror or str(error))
            return
        decide = partial(decisions.apply, request=request, setting=self.setting, overrides=self.overrides)
        try:
            self.ledger.write(decide)
        except NiridError as error:
            self._refuse(path, str(error))
            return
        except OSError:  # LedgerBusy too: the request is not the cause
            raise
        except Exception as error:
            if damages_all(error):
                raise
            self._refuse(path, f"it cannot be applied: {type(error).__name__}: {error}")
            return
        self._move(request["request"])

    def _move(self, request: str) -> None:
        """Files that a decision takes out of use."""
        with self.ledger.read() as db:
            decided = ledger_decisions.of_request(db, request)
        for decision in decided:
            for old, kept, sha in decision["moves"]:
                moving.withdraw(Path(old), Path(kept), sha)
                if not disk.there(kept):
                    self.ledger.write(partial(ledger_products.forget_kept, kept=kept))

    def _refuse(self, path: Path, why: str) -> None:
        why = clean(why)[:MOST_LETTERS]
        self.ledger.write(lambda tx: tx.event("request_refused", request=clean(path.stem), reason=why))

    def _discard(self, path: Path) -> None:
        """Remove a request that is done. A folder is not entered: it stays, hidden."""
        try:
            if path.is_dir() and not path.is_symlink():
                os.replace(path, path.with_name(f".refused-{secrets.token_hex(8)}"))
            else:
                path.unlink(missing_ok=True)
        except OSError:
            self._stuck.add(_identity(path))

    def write_down(self) -> int:
        """Append to the decisions file what is not in it yet; returns how many lines. OSError."""
        with self.ledger.read() as db:
            rows = ledger_decisions.unwritten(db)
        if not rows:
            return 0
        file = self.products / DECISIONS
        known = {(line.get("request"), line.get("subject")) for line in written(self.products)}
        lines = [_line(row) for row in rows if (row["request"], row["subject"]) not in known]
        append(file, lines)
        last = rows[-1]["id"]
        self.ledger.write(lambda tx: ledger_decisions.mark_written(tx, last))
        return len(lines)


def _identity(path: Path) -> tuple[str, int, int]:
    try:
        facts = path.lstat()
    except OSError:
        return (path.name, 0, 0)
    return (path.name, facts.st_ino, facts.st_mtime_ns)


def _line(row: Mapping[str, Any]) -> str:
    names = ("request", "action", "subject", "said", "reason", "user", "outcome")
    at = datetime.fromtimestamp(row["at"], UTC).isoformat(timespec="microseconds")
    return json.dumps({"at": at, **{n: row[n] for n in names}, "more": row["more"]})


def append(file: Path, lines: list[str]) -> None:
    """One write, flushed: after a crash a line is there or not; a torn one is left out when it is read."""
    if not lines:
        return
    disk.make_folder(file.parent)
    if file.is_dir() and not file.is_symlink():  # not ours: it is moved aside, and kept
        os.replace(file, file.with_name(f"{file.name}.{secrets.token_hex(4)}.damaged"))
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
        disk.sync(file.parent)


def written(products: Path) -> list[dict[str, Any]]:
    """What the decisions file says, in order, each decision once; a torn or damaged line is left out."""
    return read_decisions(products)[0]


def read_decisions(products: Path) -> tuple[list[dict[str, Any]], int]:
    """(decisions, how many lines are none). OSError when the file cannot be read now."""
    found: dict[tuple[Any, Any], dict[str, Any]] = {}
    damaged = 0
    try:
        content = (products / DECISIONS).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return [], 0
    for text in filter(None, content.split(b"\n")):
        try:
            line = loads(text)
            if not isinstance(line, dict):
                raise TypeError("no decision")
            check(_Line, line)
            for name in ("request", "subject", "action", "at"):
                if not line[name]:
                    raise KeyError(name)
        except (ValueError, TypeError, KeyError):
            damaged += 1
            continue
        found.setdefault((line["request"], line["subject"]), cleaned(line))
    return list(found.values()), damaged


@dataclass(frozen=True)
class _Line:
    """The types in a line of the decisions file."""

    at: datetime
    request: str
    subject: str
    action: str
    said: str
    reason: str
    user: str
    outcome: str
    more: Mapping[str, Any]
