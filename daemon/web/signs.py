"""Words and signs that all pages share, and the table of frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from daemon.judgement.sun import HAWAII
from daemon.markup import Child, Safe, join, tag
from pipeline.headers.times import same_exposure

# A glyph, and a class that has the colour: no state is told by its colour alone.
GLYPHS = {"met": "●", "borderline": "◐", "not met": "▲", "not measured": "○", "not asked": "·"}
CLASSES = {"met": "good", "borderline": "watch", "not met": "act"}
OF_STATES = {
    "there": ("●", "good"),
    "done": ("●", "good"),
    "ready": ("●", "good"),
    "live": ("●", "good"),
    "being taken": ("◐", "watch"),
    "running": ("◐", "watch"),
    "open": ("◐", "watch"),
    "planned": ("○", ""),
    "waiting": ("○", "watch"),
    "wanted": ("○", "watch"),
    "stale": ("◐", "watch"),
    "idle": ("○", ""),
    "missing": ("▲", "act"),
    "failed": ("▲", "act"),
    "quarantined": ("▲", "act"),
    "excluded": ("▪", ""),
    "calibration": ("●", "good"),
    "incomplete": ("◐", "watch"),
    "refused": ("▪", ""),
    "vanished": ("▪", ""),
}
SAID = {"open": "arriving", "waiting": "waiting", "idle": "waiting", "ready": "in use", "planned": "next"}


def glyph(state: str) -> Safe:
    mark, colour = OF_STATES.get(state, ("○", ""))
    return tag("span", mark, class_=f"g {colour}".strip(), aria_hidden="true")


def clock(at: float | None, *, seconds: bool = True) -> Safe:
    """A time in UT; the page adds how long ago that was, where there is JavaScript."""
    if at is None:
        return Safe("")
    when = datetime.fromtimestamp(at, UTC)
    told = f"{when:%H:%M:%S}" if seconds else f"{when:%H:%M}"
    return tag("time", told, datetime=when.isoformat(timespec="seconds"), title=_both(when))


def ago(at: float | None) -> Safe:
    """The same, replaced by `4 s ago` where there is JavaScript."""
    if at is None:
        return Safe("")
    when = datetime.fromtimestamp(at, UTC)
    return tag(
        "time", f"{when:%H:%M:%S} UT", datetime=when.isoformat(), data_ago=f"{at:.3f}", title=_both(when)
    )


def _both(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M:%S} UT, {when + HAWAII:%H:%M:%S} HST"


def broken(name: str) -> Safe:
    """A name that is folded before its ending, where it has to be."""
    stem, mark, ending = name.rpartition("_")
    return join(stem, tag("wbr"), mark, ending) if mark else join(name)


def link(target: str, text: Child, **more: Any) -> Safe:
    """To the page of one thing."""
    return tag("a", text, href=f"/thing/{quote(target, safe='')}", **more)


def frames(rows: list[dict[str, Any]], night: str, *, more: bool = False) -> Safe:
    """A line each, the newest first; runs of calibrations are one line."""
    if not rows:
        return tag("p", "no frames", class_="dim")
    names = ("UT", "label", "what", "filter", "s", "IQ", "CC", "state")
    head_ = tag("thead", tag("tr", [tag("th", name, scope="col") for name in names]))
    body = tag("tbody", [_run(run) if len(run) > 1 else _frame(run[0]) for run in _runs(rows)])
    last = rows[-1]
    older = tag(
        "a", "older", href=f"/frames/{night}?after={last['at']}:{last['id']}", rel="next", class_="older"
    )
    return join(tag("table", head_, body, class_="frames"), older if more else None)


def _runs(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Frames one after the other; calibrations of one kind together."""
    run: list[dict[str, Any]] = []
    for row in rows:
        if run and (row["role"] or not _alike(row, run[0])):
            yield run
            run = []
        run.append(row)
        if row["role"]:
            yield run
            run = []
    if run:
        yield run


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    named = all(one[name] == other[name] for name in ("what", "filter", "state", "role", "left_out"))
    return named and same_exposure(one["exposure_time"] or 0.0, other["exposure_time"] or 0.0)


def _frame(row: Mapping[str, Any]) -> Safe:
    label = link(row["name"], row["label"] or row["name"], class_="name", title=row["name"])
    number = tag("span", row["name"].removesuffix(".fits")[-5:], class_="dim number")
    exposure = f"{row['exposure_time']:.4g}" if row["exposure_time"] else ""
    cells = [
        clock(row["at"]),
        join(label, " ", number),
        row["what"],
        row["filter"],
        exposure,
        _verdict(row, "IQ"),
        _verdict(row, "CC"),
        _state(row),
    ]
    told = ("UT", "label", "what", "filter", "s", "IQ", "CC", "state")
    return tag(
        "tr", [tag("td", cell, data_of=name) for name, cell in zip(told, cells, strict=True)], tabindex=-1
    )


def _state(row: Mapping[str, Any]) -> Safe:
    """Its state; of a frame that is not in the stack, why."""
    if row["state"] == "ready" and (out := row["left_out"]):
        word = "left out" if out["by"] == "product" else "looks bad"
        return join(
            tag("span", "▲ ", class_="g watch"), f"{word}: {out['reason']}" if out["reason"] else word
        )
    return join(
        glyph(row["state"]), " ", tag("span", SAID.get(row["state"], row["state"]), title=row["reason"])
    )


def _run(run: list[dict[str, Any]]) -> Safe:
    """`12 × dark 20 s`, first and last."""
    row, first = run[0], run[-1]
    what = f"{len(run)} × {row['what']} {row['filter']} {row['exposure_time'] or 0:.4g} s"
    target = f"group:{row['group']}" if row["group"] else row["name"]
    cell = join(
        link(target, what, class_="name"), " ", tag("span", first["name"], " to ", row["name"], class_="dim")
    )
    return tag(
        "tr",
        tag("td", clock(row["at"])),
        tag("td", cell, colspan=6),
        tag("td", _state(row)),
        tabindex=-1,
        class_="run",
    )


def _verdict(row: Mapping[str, Any], name: str) -> Child:
    found = row["verdicts"].get(name)
    if not found or (found["value"] is None and found["state"] in ("not asked", "not measured")):
        return tag("span", "·", class_="dim", title=found["words"] if found else "")
    unit = "″" if name == "IQ" else ""
    value = f"{found['value']:.2f}{unit}" if found["value"] is not None else ""
    mark = tag("span", GLYPHS[found["state"]], class_=f"g {CLASSES.get(found['state'], '')}")
    return tag("span", mark, " ", value, title=found["words"])
