"""Whole pages: the one of the night, those of one thing, of a night's report, of the nights that there are.

Each is complete without JavaScript; the script makes the parts of the first one new as they change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from daemon.markup import Child, Safe, join, tag
from daemon.people import nightlist
from daemon.web import signs

NIGHTS = 60  # of one page
SEARCHED = ("programme", "object")  # what nights are searched by

TITLES = {
    "newest": "Newest picture",
    "now": "Now",
    "missing": "Missing tonight",
    "alerts": "Needs a person",
    "curves": "Curves of the night",
    "frames": "Frames",
    "products": "Recent products",
}
SCRIPTS = ("pictures.js", "page.js")  # in this order: the second uses the first
KEYS = (
    ("j k", "next, previous frame"),
    ("Enter", "explain it"),
    ("f s b d", "frame, stack, blink, difference"),
    ("a", "scale of the picture: fixed or automatic"),
    ("+ − , .", "brighter, darker, less and more contrast"),
    ("z x 0 1 2 3 4", "zoom out, in, whole picture, 1.5 to 8 times"),
    ("← ↑ → ↓", "in the picture: the cross-hair, with Shift by ten"),
    ("/", "search"),
    ("m", "what is missing"),
    ("p", "what needs a person"),
    ("n", "dim for the night"),
    ("r", "report of the night"),
    ("Esc", "back"),
)


def document(title: str, *body: Child, live: bool = False, key: str = "") -> str:
    """One page. live : with the script, and made anew every 30 s where it does not run

    key : of the script and the style sheet, so that browsers keep them until they change
    """
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="dark light"),
        tag("title", title),
        tag("link", rel="icon", href="/static/icon.svg"),
        tag("link", rel="stylesheet", href=f"/static/page.css?v={key}"),
        tag("noscript", tag("meta", http_equiv="refresh", content="30")) if live else None,
        [tag("script", src=f"/static/{name}?v={key}", defer=True) for name in SCRIPTS],
    ]
    page = tag("html", tag("head", head), tag("body", body, data_live=live or None), lang="en")
    return f"<!doctype html>{page}"


def bar(*more: Child) -> Safe:
    """What stands at the head of every page."""
    search = tag(
        "form",
        tag(
            "input",
            type="search",
            name="q",
            placeholder="frame or product",
            aria_label="search",
            maxlength=200,
            autocomplete="off",
        ),
        action="/find",
        method="get",
        role="search",
    )
    home = tag("a", "nirid", href="/", class_="brand")
    links = tag(
        "nav", [tag("a", name, href=f"/{name}") for name in ("nights", "calibrations", "health", "login")]
    )
    keys = tag("button", "?", type="button", id="help-button", title="keys", aria_label="keys")
    return tag("header", tag("h1", home), more, tag("div", search, links, keys, class_="tools"))


def tonight(parts: Mapping[str, Safe], keys: Mapping[str, str], key: str) -> str:
    """The page of the night."""
    sections = {name: _section(name, parts, keys) for name in TITLES}
    head = tag("div", parts["head"], id="head", data_key=keys.get("head"))
    live = tag("p", tag("span", "without JavaScript: made anew every 30 s"), id="live", role="status")
    strip = tag(
        "section",
        parts["strip"],
        id="strip",
        data_key=keys.get("strip"),
        class_="strip",
        aria_label="conditions",
    )
    left = tag("div", sections["newest"], class_="col-a")
    middle = tag("div", sections["now"], sections["curves"], class_="col-b")
    right = tag("div", sections["missing"], sections["alerts"], sections["products"], class_="col-c")
    said = tag("p", "", id="said", aria_live="polite", class_="hidden")
    return document(
        "nirid",
        bar(head, live),
        strip,
        tag("main", left, middle, right, sections["frames"]),
        said,
        _help(),
        live=True,
        key=key,
    )


def _section(name: str, parts: Mapping[str, Safe], keys: Mapping[str, str]) -> Safe:
    body = tag("div", parts[name], id=name, data_key=keys.get(name))
    return tag(
        "section",
        tag("h2", TITLES[name], id=f"of-{name}"),
        body,
        class_=f"s-{name}",
        aria_labelledby=f"of-{name}",
    )


def _help() -> Safe:
    rows = [tag("tr", tag("td", tag("kbd", keys)), tag("td", what)) for keys, what in KEYS]
    close = tag("form", tag("button", "close"), method="dialog")
    return tag("dialog", tag("h2", "Keys"), tag("table", rows), close, id="help")


def plain(title: str, *body: Child, key: str = "") -> str:
    """A page that stands still."""
    return document(f"{title} · nirid", bar(), tag("main", body, class_="plain"), _help(), key=key)


def frames(night: str, rows: list[dict[str, Any]], *, more: bool, key: str) -> str:
    """A later part of a night's frames."""
    return plain(
        f"frames of {night}", tag("h1", f"Frames of {night}"), signs.frames(rows, night, more=more), key=key
    )


def nights(rows: Sequence[Mapping[str, Any]], words: Mapping[str, str], key: str) -> str:
    """The nights that there are, the latest first. words : what is looked for, by name of SEARCHED"""
    items = []
    for row in rows:
        link = tag("a", row["night"], href=f"/night/{row['night']}")
        items.append(tag("tr", tag("td", link, class_="when"), tag("td", nightlist.line(row))))
    asked = {name: word for name, word in words.items() if word.strip()}
    older = None
    if len(rows) >= NIGHTS:
        before = datetime.strptime(f"{rows[-1]['night']}+0000", "%Y%m%d%z").timestamp()
        older = tag("a", "older", href=f"/nights?{urlencode({**asked, 'before': f'{before:.0f}'})}")
    nothing = "no such night is on record" if asked else "no night is on record"
    body = tag("table", items, class_="pairs") if items else tag("p", nothing, class_="dim")
    every = tag("p", tag("a", "all nights", href="/nights")) if asked else None
    return plain("nights", tag("h1", "Nights"), _search(words), body, older, every, key=key)


def _search(words: Mapping[str, str]) -> Safe:
    """Fields for a programme and an object."""
    fields = [
        tag(
            "label",
            name,
            " ",
            tag("input", name=name, value=words.get(name, ""), maxlength=nightlist.LONGEST),
        )
        for name in SEARCHED
    ]
    form = tag("form", fields, tag("button", "search"), action="/nights", method="get", class_="search")
    return tag("div", form, role="search", aria_label="nights")


def report(answer: Mapping[str, Any], lines: Sequence[str], pictures: Sequence[Safe], key: str) -> str:
    """The report of a night, in the words of `nirid report`."""
    night = answer["night"]
    body: list[Child] = [
        tag("h1", f"Night {night}"),
        tag("p", f"made {answer['made'][:19].replace('T', ' ')} UT", class_="dim"),
    ]
    body.append(tag("pre", "\n".join(lines[1:]), class_="report"))
    if pictures:
        body.append(tag("ul", pictures, class_="thumbs"))
    body.append(
        tag(
            "p",
            tag("a", "to print", href=f"/night/{night}/print"),
            " · ",
            tag("a", "frames", href=f"/frames/{night}"),
            " · ",
            tag("a", "as JSON", href=f"/api/v1/night/{night}"),
        )
    )
    return plain(f"night {night}", body, key=key)


def health(
    heart: Child, alerts: Safe, doing: Sequence[str], parts: Mapping[str, Mapping[str, Any]], key: str
) -> str:
    """Whether all is well, for a person. doing : in words; parts : tables with their titles"""
    tables: list[Child] = []
    for title, facts in parts.items():
        rows = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in facts.items()]
        tables.append(tag("section", tag("h2", title), tag("table", rows, class_="pairs")))
    return plain(
        "health",
        tag("h1", "Health"),
        heart,
        [tag("p", line) for line in doing],
        tag("section", tag("h2", "Needs a person"), alerts),
        tables,
        tag("p", "for monitors: /healthz, /readyz, /metrics; nirid health", class_="dim"),
        key=key,
    )


def error(status: int, what: str, do: str, key: str = "") -> str:
    """Something is not to be had: what, and what to do."""
    return plain(
        f"{status}", tag("h1", what), tag("p", do), tag("p", tag("a", "to the night", href="/")), key=key
    )


def thing(title: str, body: Safe, night: str, key: str) -> str:
    """One thing."""
    back = tag(
        "p",
        tag("a", "tonight", href="/"),
        join(" · ", tag("a", f"night {night}", href=f"/night/{night}")) if night else None,
    )
    return plain(title, back, body, key=key)
