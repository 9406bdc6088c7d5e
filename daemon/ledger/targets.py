"""What a person means by a word on the command line: a raw file, a product, a group, a job or a look.

| said | meant |
|---|---|
| a path, or a name with or without .fits | the file, or the product, of that name |
| a data label, as GN-2015B-Q-901-31-005 | the file of that frame |
| `7`, `group:7` | the group of that number; the job, when there is no such group |
| `job:7` | the job of that number |
| `job:1099511627783`, or the number alone | the first look or running stack of that number, as logs have it |
| 6 or more hex digits, `sha256:...`, `key:...` | the content, product or job whose hash begins so |
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from daemon.ledger.store import Reader
from daemon.model.jobs import FIRST_LOOK_NUMBER
from daemon.model.names import canonical_name
from daemon.model.plain import clean, is_path
from pipeline.errors import NiridError
from pipeline.headers.values import ascii_name
from pipeline.names import bare, base_of
from pipeline.params import suggest

Ask = Callable[..., list[sqlite3.Row]]  # ask(sql, *values)
_NUMBER = re.compile(r"\d{1,9}")
_HEX = re.compile(r"[0-9a-f]{6,64}")


class UnknownTarget(NiridError):
    """Nothing in the ledger is called so, or more than one thing is."""


@dataclass(frozen=True)
class Target:
    """kind, id : the row that is meant; a "path" is a file whose content is not known yet
    text : the same in a form that only one thing has
    name : what people call it
    also : other things that the word could mean
    """

    kind: Literal["file", "path", "product", "group", "job", "look"]
    id: int
    text: str
    name: str
    also: str = ""


def find(db: Reader, said: str, *, looks: bool = False) -> Target:
    """The one thing that is meant. Raises UnknownTarget, with the nearest name or with what it may be.

    looks : a first look or running stack may be meant, about which nothing can be decided
    """

    def ask(sql: str, *values: Any) -> list[sqlite3.Row]:
        return db.execute(sql, values).fetchall()

    word = said.strip()
    if not is_path(word):  # no file can have such a name
        word = clean(word)
    kind, colon, rest = word.partition(":")
    if look := _looks(ask, rest if kind == "job" else word):
        found = look
    elif colon and kind in ("group", "job") and _NUMBER.fullmatch(rest):
        found = (_groups if kind == "group" else _jobs)(ask, "id = ?", int(rest))
    elif colon and kind in ("sha256", "key", "product") and _HEX.fullmatch(rest):
        found = _by_hash(ask, rest)
    else:
        found = _numbered(ask, word) or _by_path(ask, word) or _by_name(ask, word)
        found = found or _looks_by_name(ask, word) or _by_label(ask, word)
        if not found and _HEX.fullmatch(word.lower()):
            found = _by_hash(ask, word.lower())
    if len(found) == 1:
        if found[0].kind == "look" and not looks:
            raise UnknownTarget(f"{said}: nothing can be decided of a look; name its frame or group")
        return found[0]
    if not found:
        raise UnknownTarget(f"{said}: no file, product, group or job is called so{_nearest(ask, word)}")
    which = "; ".join(f"{t.text} ({t.name})" for t in found[:5])
    raise UnknownTarget(f"{said}: which one is meant? {which}")


def _numbered(ask: Ask, word: str) -> list[Target]:
    if not _NUMBER.fullmatch(word):
        return []
    groups, jobs = _groups(ask, "id = ?", int(word)), _jobs(ask, "id = ?", int(word))
    if groups and jobs:
        return [Target(**{**vars(groups[0]), "also": f"job:{word} is {jobs[0].name}"})]
    return groups or jobs


def _by_path(ask: Ask, word: str) -> list[Target]:
    path = os.fsencode(os.path.normpath(os.path.expanduser(word)))
    if not os.path.isabs(path):
        try:
            path = os.path.join(os.getcwdb(), path)
        except FileNotFoundError:  # the working folder was deleted
            return []
    path = os.path.normpath(path)
    made = _products(ask, "path = ?", path)
    return made or _files(ask, "s.path = ? AND s.current", path)


def _by_name(ask: Ask, word: str) -> list[Target]:
    base = os.path.basename(word)
    stem = ascii_name(bare(base).removesuffix(".png"))
    current = _products(ask, "name = ? AND current", stem)
    if made := current or _products(ask, "name = ?", stem)[-1:]:
        return made
    tail = os.fsencode(f"/{base}")
    exact = _files(ask, "substr(s.path, ?) = ? AND s.current", -len(tail), tail)
    return exact or _files(ask, "c.name = ? AND s.current", canonical_name(base))


def _by_label(ask: Ask, word: str) -> list[Target]:
    """By data label, which is what the page of the night lists frames by."""
    return _files(ask, "s.current AND c.frame_id IN (SELECT id FROM frame WHERE label = ?)", word)


def _by_hash(ask: Ask, start: str) -> list[Target]:
    end = f"{start}g"  # after every hex digit
    files = _files(ask, "c.sha256 >= ? AND c.sha256 < ?", start, end)
    return files or _products(ask, "sha256 >= ? AND sha256 < ?", start, end) or _jobs_by_key(ask, start, end)


def _jobs_by_key(ask: Ask, start: str, end: str) -> list[Target]:
    jobs = _jobs(ask, "key >= ? AND key < ?", start, end)
    made = [p for job in jobs for p in _products(ask, "job_id = ?", job.id)]
    return made or jobs


def _files(ask: Ask, where: str, *values: Any) -> list[Target]:
    """One target for each content, those that count before superseded ones."""
    rows = ask(
        f"""SELECT s.id, s.path, c.id AS content, c.sha256, c.name, c.state FROM sighting s
        LEFT JOIN content c ON c.id = s.content_id WHERE {where} ORDER BY s.current DESC, s.id""",
        *values,
    )
    known = {
        r["content"]: Target("file", r["content"], f"sha256:{r['sha256']}", r["name"])
        for r in reversed(rows)
        if r["content"] and r["state"] != "superseded"
    } or {
        r["content"]: Target("file", r["content"], f"sha256:{r['sha256']}", r["name"])
        for r in rows
        if r["content"]
    }
    if known:
        return list(known.values())
    paths = [os.fsdecode(r["path"]) for r in rows]
    return [Target("path", r["id"], p, os.path.basename(p)) for r, p in zip(rows, paths, strict=True)]


def _products(ask: Ask, where: str, *values: Any) -> list[Target]:
    rows = ask(
        f"""SELECT p.id, p.name, p.version, j.key FROM
        (SELECT * FROM product WHERE {where}) p JOIN job j ON j.id = p.job_id ORDER BY p.version""",
        *values,
    )
    return [Target("product", r["id"], f"product:{r['key']}", r["name"]) for r in rows]


def _groups(ask: Ask, where: str, *values: Any) -> list[Target]:
    rows = ask(f"SELECT id, rule, heir FROM frame_group WHERE {where}", *values)
    if rows and rows[0]["heir"]:  # merged since the number was written down
        return _groups(ask, "id = ?", rows[0]["heir"])
    return [Target("group", r["id"], f"group:{r['id']}", f"group {r['id']}, {r['rule']}") for r in rows]


def _jobs(ask: Ask, where: str, *values: Any) -> list[Target]:
    rows = ask(f"SELECT id, recipe, group_id FROM job WHERE {where}", *values)
    return [
        Target("job", r["id"], f"job:{r['id']}", f"job {r['id']}, {r['recipe']} of group {r['group_id']}")
        for r in rows
    ]


def _looks(ask: Ask, number: str) -> list[Target]:
    """By the number that logs have."""
    if not number.isascii() or not number.isdigit() or not FIRST_LOOK_NUMBER < int(number[:20]) < 1 << 62:
        return []
    return _look_rows(ask, "id = ?", int(number) - FIRST_LOOK_NUMBER)


def _looks_by_name(ask: Ask, word: str) -> list[Target]:
    """By the name of the file, or of the caption of its picture: the latest of that name."""
    stem = os.path.basename(word)
    for ending in (".fits", ".png"):
        stem = stem.removesuffix(ending)
    return _look_rows(ask, "name = ? ORDER BY id DESC LIMIT 1", ascii_name(stem))


def _look_rows(ask: Ask, where: str, value: Any) -> list[Target]:
    if not _looks_are_kept(ask):
        return []
    rows = ask(f"SELECT id, name FROM look WHERE {where}", value)
    return [Target("look", r["id"], f"job:{r['id'] + FIRST_LOOK_NUMBER}", r["name"]) for r in rows]


def _looks_are_kept(ask: Ask) -> bool:
    """False for a database of an earlier release."""
    return bool(ask("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'look'"))


def _nearest(ask: Ask, word: str) -> str:
    base = base_of(word)
    names = [bare(r["name"]) for r in ask("SELECT DISTINCT name FROM content LIMIT 20000")]
    names += [r["name"] for r in ask("SELECT DISTINCT name FROM product LIMIT 20000")]
    if _looks_are_kept(ask):
        names += [r["name"] for r in ask("SELECT DISTINCT name FROM look LIMIT 20000")]
    return suggest(base, names)
