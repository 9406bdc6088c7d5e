"""The page of one thing: what `nirid explain` answers, with its pictures and what it is linked to.

html = page(answer, pictures)        # answer : of people.explain
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from daemon.ledger import board as rows_of
from daemon.ledger.board import Shown
from daemon.ledger.store import Reader
from daemon.markup import Child, Safe, join, short, tag
from daemon.model.names import RUNNING
from daemon.people import board
from daemon.web import figure, pictures, signs

Answer = Mapping[str, Any]

_FACTS = {
    "file": ("data_label", "checksum", "first_seen", "sha256"),
    "path": ("size", "last_seen"),
    "group": ("rule", "members", "usable", "first", "last", "last_arrival", "better"),
    "job": ("recipe", "version", "group", "product_name", "product", "seconds", "peak_mb"),
    "product": ("path", "recipe", "recipe_version", "version", "published", "seconds", "sha256", "key"),
    "look": ("kind_of_look", "path", "number", "began", "ended", "seconds"),
}


def pictured(db: Reader, answer: Answer, number: int) -> list[Shown]:
    """What has a picture, the newest first: of a product its versions, of a group or a frame what was made of
    it."""
    kind = answer["kind"]
    if kind == "product":
        own = rows_of.product(db, number)
        others = rows_of.versions(db, own.group) if own else []
        return [one for one in (own, *others) if one and (one is own or one.id != number)][:12]
    if kind == "look":
        own = rows_of.look(db, number)
        stacks = (
            [look for look in rows_of.looks_of_group(db, own.group, 20) if look.of == RUNNING] if own else []
        )
        return [one for one in (own, *stacks[:1]) if one and (one is own or one.id != number)]
    if kind == "group":
        return [*rows_of.versions(db, number)[:6], *rows_of.looks_of_group(db, number, 12)]
    if kind == "file":
        found: list[Shown] = []
        for group in answer["groups"]:
            looks = [
                look
                for look in rows_of.looks_of_group(db, group["group"], 40)
                if look.newest == answer["name"]
            ]
            found += [*looks, *rows_of.versions(db, group["group"])[:2]]
        return found[:12]
    return []


def page(answer: Answer, shown: Sequence[Shown]) -> Safe:
    """shown : what has a picture, the newest first"""
    kind = answer["kind"]
    parts: list[Child] = [_head(answer), _pictures(shown, answer["name"]), _facts(answer, kind)]
    parts += [_frames(answer), _chosen(answer.get("calibrations") or ())]
    parts += [
        _list("conditions", answer.get("conditions") or ()),
        _list("depth", answer.get("enough") or ()),
        _list("notes", answer.get("notes") or ()),
    ]
    parts += [
        _list("made again because", answer.get("again") or ()),
        _decisions(answer.get("decisions") or ()),
    ]
    parts += [_group(one) for one in _groups(answer)]
    parts += [_jobs(answer.get("jobs") or ()), _attempts(answer.get("attempts") or ())]
    parts += [_pairs("quality", {k: v for k, v in (answer.get("quality") or {}).items() if not _many(v)})]
    parts += [_pairs("parameters", answer.get("parameters") or {}), _command(answer)]
    return join(*parts)


def _many(value: Any) -> bool:
    return isinstance(value, (list, dict))


def _head(answer: Answer) -> Safe:
    state: str = answer["state"]
    mark = signs.glyph({"current": "done", "held": "missing", "rejected": "excluded"}.get(state, state))
    waits = [tag("p", f"waits for {what}", class_="waits") for what in answer.get("waits_for") or ()]
    return join(
        tag("h1", answer["name"]),
        tag("p", mark, " ", tag("b", state), tag("span", f" since {_when(answer['since'])}", class_="dim")),
        [tag("p", line) for line in (answer["reason"] or "").splitlines()[:20]],
        waits,
    )


def _when(iso: str | None) -> str:
    return f"{iso[:10]} {iso[11:19]} UT" if iso else "unknown"


def _pictures(shown: Sequence[Shown], of: str) -> Child:
    """The newest large, with the one before it to blink and compare; all others small.

    of : what the page is about; a picture of something else, as the stack of a frame, is named below it
    """
    if not shown:
        return None
    rows = [board.shown(one) for one in shown]
    for row in rows[:2]:
        row["sky"] = pictures.known(row["path"], row["picture"])
    small = [
        tag(
            "li",
            tag(
                "a",
                tag("img", src=f"{row['picture']}?w=96", alt="", width=96, height=96, loading="lazy"),
                href=f"{row['picture']}?w=full",
            ),
            tag(
                "span",
                signs.broken(row["name"]),
                f" version {row['version']}" if row["kind"] == "product" else None,
            ),
        )
        for row in rows
    ]
    name = rows[0]["name"]
    caption = None if name == of else tag("p", "newest picture: ", signs.link(name, name))
    large = figure.picture(rows[0], rows[1] if len(rows) > 1 else None, caption=caption)
    return tag("section", large, tag("ul", small, class_="thumbs") if len(rows) > 1 else None)


def _facts(answer: Answer, kind: str) -> Child:
    facts = {
        name.replace("_", " "): answer[name]
        for name in _FACTS.get(kind, ())
        if answer.get(name) not in (None, "")
    }
    if answer.get("paths"):
        facts["path"] = answer["paths"][0]
    if answer.get("tags"):
        facts["tags"] = " ".join(answer["tags"])
    described = {
        k: v for k, v in (answer.get("descriptors") or {}).items() if v not in (None, "") and not _many(v)
    }
    return join(_pairs("facts", facts), _pairs("header", described))


def _pairs(title: str, values: Answer) -> Child:
    """A table of names and values; long ones are closed at first."""
    if not values:
        return None
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", short(_plain(v)))) for name, v in values.items()
    ]
    return tag("details", tag("summary", title), tag("table", rows, class_="pairs"), open=len(rows) <= 10)


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _frames(answer: Answer) -> Child:
    """The frames of it, each with where it stands."""
    told = answer.get("frames") or answer.get("inputs") or ()
    rows = [one if isinstance(one, Mapping) else {"name": one} for one in told]
    if not rows:
        return None
    out = set(answer.get("left_out") or ())
    items = []
    for row in rows[:400]:
        state = "left out" if row["name"] in out else str(row.get("state") or "")
        why = row.get("reason") or ""
        mark = signs.glyph("excluded" if state == "left out" else state or "ready")
        items.append(
            tag(
                "li",
                mark,
                " ",
                signs.link(row["name"], row["name"]),
                tag("span", f" {state} {why}", class_="dim"),
            )
        )
    return tag("details", tag("summary", f"{len(rows)} frames"), tag("ul", items), open=len(rows) <= 12)


def _chosen(told: Any) -> Child:
    """Of a look only names are kept, of all else the choice."""
    return _pairs("made with", told) if isinstance(told, Mapping) else _calibrations(told)


def _calibrations(some: Sequence[Answer]) -> Child:
    """Which were chosen, and of every other one the criterion that it fails."""
    if not some:
        return None
    rows = []
    for one in some:
        others = [
            tag("li", f"not {other['name']}: {'; '.join(other['failed'])}") for other in one["not_chosen"]
        ]
        name = signs.link(one["name"], one["name"]) if one["name"] else ""
        said = join(
            name, " " if name else "", one["why"], tag("ul", others, class_="dim") if others else None
        )
        rows.append(
            tag(
                "tr",
                tag("th", one["kind"], scope="row"),
                tag("td", f"{one['status']} ({one['wish']})"),
                tag("td", said),
            )
        )
    return tag("section", tag("h2", "calibrations"), tag("table", rows, class_="pairs"))


def _list(title: str, texts: Sequence[str]) -> Child:
    return tag("section", tag("h2", title), tag("ul", [tag("li", each) for each in texts])) if texts else None


def _decisions(some: Sequence[Answer]) -> Child:
    return _list(
        "decisions", [f"{_when(d['at'])}  {d['action']} by {d['user']}: {d['reason']}" for d in some]
    )


def _groups(answer: Answer) -> Iterator[Answer]:
    if isinstance(answer.get("group"), Mapping):
        yield answer["group"]
    if answer["kind"] == "file":
        yield from answer.get("groups") or ()


def _group(group: Answer) -> Safe:
    made = group["product"]
    product = (
        join(" · ", signs.link(made["product"], f"{made['product']}, version {made['version']}"))
        if made
        else None
    )
    line = tag(
        "p",
        signs.glyph(group["state"]),
        f" {group['state']}: {group['reason'] or 'nothing to say'}",
        product,
    )
    title = signs.link(
        f"group:{group['group']}", f"group {group['group']}, {group['rule']}, {group['members']} frames"
    )
    return tag(
        "section",
        tag("h2", title),
        line,
        [tag("p", f"waits for {w}", class_="waits") for w in group["waits_for"]],
    )


def _jobs(jobs: Sequence[Answer]) -> Child:
    items = [
        tag(
            "li",
            signs.glyph(job["state"]),
            " ",
            signs.link(f"job:{job['job']}", f"job {job['job']}"),
            f" {job['state']} since {_when(job['since'])}: {job['error'] or job['reason']}",
        )
        for job in jobs
    ]
    return tag("section", tag("h2", "jobs"), tag("ul", items)) if items else None


def _attempts(some: Sequence[Answer]) -> Child:
    texts = [
        f"{_when(a['started'])}: {a['outcome']}"
        + (f" after {a['seconds']:.1f} s" if a["seconds"] is not None else "")
        + (f": {a['error']}" if a["error"] else "")
        for a in some
    ]
    return _list("attempts", texts)


def _command(answer: Answer) -> Safe:
    """What says the same in a shell, and what makes it again to compare."""
    commands = [f"nirid explain {answer['target']}"]
    if answer["kind"] == "product":
        commands.append(f"nirid reproduce {answer['product']}")
    same = tag("a", "as JSON", href=f"/api/v1/thing/{quote(answer['target'], safe='')}")
    return tag("section", tag("h2", "in a shell"), tag("pre", "\n".join(commands)), tag("p", same))


def night_of(answer: Answer) -> str:
    """The night that a thing belongs to, "" where it has none."""
    night = answer.get("night")
    taken = (answer.get("descriptors") or {}).get("ut_datetime") or answer.get("first")
    return str(night) if night else f"{datetime.fromisoformat(taken):%Y%m%d}" if taken else ""
