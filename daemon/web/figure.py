"""A picture on a page, with all that the script does with it: its numbers, its buttons, its file.

    figure.picture(row, other)        # row : of people.board.shown, with `sky` as the picture has it

Without JavaScript it is a picture at the fixed scale, with the path of its file.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from daemon.markup import Child, Safe, short, tag
from daemon.model.names import RUNNING

Row = Mapping[str, Any]

# What a button does, in the words of its key: (key, words, whether it stays pressed).
BUTTONS = (
    ("b", "blink", True),
    ("d", "difference", True),
    ("a", "automatic", True),
    ("-", "darker", False),
    ("+", "brighter", False),
    (",", "less contrast", False),
    (".", "more contrast", False),
    ("z", "zoom out", False),
    ("x", "zoom in", False),
    ("0", "whole", False),
)
TO_COMPARE = ("f", "s", "b", "d")  # those that want a second picture


def picture(found: Row, other: Row | None = None, *, caption: Child = None, second: bool = False) -> Safe:
    """A picture of 512 pixels that the page can enlarge; other : what `s`, `b` and `d` show and compare

    second : the other is what is shown at first
    """
    words = words_of(found, other)
    told = [_told(found, words[0]), _told(other, words[1]) if other else None]
    two = other is not None
    found = other if other and second else found
    sky = found.get("sky") or {}
    ny, nx = sky.get("shape", (1, 1))
    small = tag(
        "img",
        src=f"{found['picture']}?w={'fixed' if 'fixed' in sky else '512'}",
        alt=f"{found['of']} {found['name']}",
        width=512,
        height=max(1, round(512 * ny / nx)),
    )
    figure = tag(
        "figure",
        small,
        _compass(sky),
        class_="pic",
        tabindex=0,
        role="group",
        aria_label="picture; arrow keys move a cross-hair",
        aria_describedby="values",
    )
    return tag(
        "div",
        figure,
        caption,
        tag("p", "fixed −2 to +10 sigma of the sky" if "fixed" in sky else None, id="scale"),
        tag("p", "", id="values", aria_live="off"),
        _bar(words, two),
        _file(found),
        class_="view",
        data_first=told[0],
        data_second=told[1],
        data_shown=int(second and two),
    )


def words_of(found: Row, other: Row | None) -> tuple[str, str]:
    """What the two are called on the buttons."""
    if other and found["kind"] == other["kind"] == "product" and found["group"] == other["group"]:
        return f"version {found['version']}", f"version {other['version']}"
    first = _word(found)
    second = _word(other) if other else "stack" if first == "frame" else "other"
    return first, second if second != first else "other"


def _word(one: Row) -> str:
    if one["kind"] == "look":
        return "stack" if one["of"] == RUNNING else "frame"
    return "master" if one["of"].startswith("make") else "stack"


def _told(one: Row, word: str) -> str:
    """What the script knows of one, as JSON: a name and numbers, and addresses without the size."""
    where = one["picture"].removeprefix("/image/")
    told = {"word": word, "name": one["name"], "where": where, "command": command(one["path"])}
    return json.dumps({**told, "about": one.get("sky") or {}}, ensure_ascii=False, separators=(",", ":"))


def command(path: str) -> str:
    """What opens a file in DS9, from a shell."""
    return f"ds9 {shlex.quote(short(path, 800))}"


def _bar(words: tuple[str, str], two: bool) -> Safe:
    """The buttons; two : whether there is a second picture, without which four of them could do nothing."""
    wanted = [("f", words[0], True), ("s", words[1], True), *BUTTONS]
    buttons = [_button(*each) for each in wanted if two or each[0] not in TO_COMPARE]
    return tag("div", buttons, class_="bar", role="group", aria_label="what to do with the picture")


def _button(key: str, words: str, stays: bool) -> Safe:
    mark = tag("kbd", "−" if key == "-" else key, aria_hidden="true")
    pressed = "false" if stays else None
    return tag(
        "button",
        words,
        mark,
        type="button",
        data_key=key,
        aria_pressed=pressed,
        aria_keyshortcuts="Plus" if key == "+" else key,
    )


def _file(found: Row) -> Safe:
    link = tag("a", "FITS file", href=found["fits"], download=True, class_="fits")
    copy = tag("button", "copy", type="button", class_="copy", aria_label="copy the command that opens it")
    return tag("p", link, " ", tag("code", command(found["path"])), " ", copy, class_="file dim")


def _compass(sky: Row) -> Child:
    """North, east and ten arcseconds."""
    if "north" not in sky:
        return None
    ny, nx = sky["shape"]
    size = min(nx, ny)
    x, y, long = 0.15 * size, ny - 0.14 * size, 0.08 * size
    parts: list[Safe] = []
    for name, (dx, dy) in (("N", sky["north"]), ("E", sky["east"])):
        parts.append(tag("line", x1=x, y1=y, x2=round(x + long * dx), y2=round(y + long * dy)))
        place = {"x": round(x + 1.45 * long * dx), "y": round(y + 1.45 * long * dy + 0.015 * size)}
        parts.append(tag("text", name, **place, text_anchor="middle", font_size=round(0.045 * size)))
    bar, right, foot = 10 / sky["scale"], nx - 0.05 * size, ny - 0.06 * size
    parts.append(tag("line", x1=round(right - bar), x2=round(right), y1=round(foot), y2=round(foot)))
    where = {"x": round(right - bar / 2), "y": round(foot - 0.02 * size)}
    parts.append(tag("text", "10″", **where, text_anchor="middle", font_size=round(0.045 * size)))
    return tag("svg", parts, viewBox=f"0 0 {nx} {ny}", class_="compass", aria_hidden="true")
