"""The page of the calibrations: what is in use, what is held back and why, and how each figure went.

body = page(answer, key)     # answer : of `daemon.people.calibrations`; key : the one shown, "" is all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from daemon.markup import Child, Safe, join, tag
from daemon.people import svg
from daemon.web import signs

_STATES = {"in use": ("●", "good"), "held": ("▲", "act"), "from outside": ("●", "good")}


def page(answer: Mapping[str, Any], key: str) -> Safe:
    """Everything of one key, or the newest of all keys."""
    rows = answer["rows"]
    held = sum(row["held"] for row in rows)
    parts: list[Child] = [tag("h1", "Calibrations")]
    if key:
        parts.append(tag("p", tag("a", "all calibrations", href="/calibrations")))
    if not rows:
        parts.append(
            tag(
                "p", "No calibration is known yet: a master appears here as soon as it is made.", class_="dim"
            )
        )
    elif not held:
        parts.append(tag("p", "None is held back.", class_="dim"))
    else:
        words = "1 is held back" if held == 1 else f"{held} are held back"
        parts.append(tag("p", tag("span", "▲ ", class_="act"), f"{words}: marked below.", class_="trouble"))
    parts += [_breakpoints(answer["breakpoints"])]
    parts += [_row(row, whole=bool(key)) for row in rows]
    if answer["more"]:
        parts.append(
            tag("p", "Older keys are in use too: nirid explain names what a frame was given.", class_="dim")
        )
    return join(*parts)


def _breakpoints(told: Sequence[Mapping[str, Any]]) -> Child:
    """Where the line of a kind breaks: what was taken on the other side is of level 3."""
    if not told:
        return None
    items = [
        tag(
            "li",
            tag("b", one["at"][:10]),
            " ",
            ", ".join(one["kinds"]).replace("_", " "),
            ": ",
            one["reason"],
        )
        for one in told
    ]
    return tag("section", tag("h2", "breakpoints"), tag("ul", items))


def _row(row: Mapping[str, Any], *, whole: bool) -> Safe:
    """A setting: its curves, and its calibrations."""
    title: Child = row["what"]
    if not whole:
        title = tag("a", row["what"], href=f"/calibrations?key={quote(row['key'], safe='')}")
    shown = row["latest"]
    body = tag("tbody", [_master(one) for one in shown])
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in ("taken", "name", "state")]))
    more = row["masters"] - len(shown)
    charts = [_chart(one, shown) for one in row["figures"]]
    return tag(
        "section",
        tag("h2", title),
        tag("div", charts, class_="figures") if charts else None,
        tag("table", head, body, class_="frames"),
        tag("p", f"and {more} older", class_="dim") if more > 0 else None,
    )


def _master(one: Mapping[str, Any]) -> Safe:
    mark, colour = _STATES[one["state"]]
    state: list[Child] = [tag("span", mark, class_=f"g {colour}", aria_hidden="true"), " ", one["state"]]
    if one["state"] == "held":
        since = datetime.fromisoformat(one["since"])
        state += [" since ", tag("time", f"{since:%Y-%m-%d %H:%M} UT", datetime=one["since"]), ": "]
        state += [one["reason"], tag("p", one["do"], class_="how")]
    name = signs.link(one["name"], signs.broken(one["name"]), class_="name")
    if one["product"] is None:
        name = join(one["name"])
    later = f", version {one['version']}" if (one["version"] or 1) > 1 else ""
    return tag(
        "tr",
        tag("td", tag("time", one["taken"][:16].replace("T", " "), datetime=one["taken"])),
        tag("td", name, tag("span", later, class_="dim")),
        tag("td", state),
    )


def _chart(figure: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> Safe:
    """One figure over the days, with the band in which the next one is accepted without a word."""
    points = [(datetime.fromisoformat(p["at"]).timestamp(), p["value"], p["error"]) for p in figure["points"]]
    band = figure["band"] or {}
    limits = {name: band[name] for name in ("low", "usual", "high") if band.get(name) is not None}
    values = [p[1] for p in points] + [limits[n] for n in ("low", "high") if n in limits and band["usual"]]
    title = f"{figure['what']}{', ' + figure['unit'] if figure['unit'] else ''}"
    last, bounds = points[-1][1], _bounds(band)
    low, high = min(values), max(values)
    rim = max(0.08 * (high - low), 0.01 * abs(high)) or max((p[2] or 0.0) for p in points) or 1.0
    chart = svg.chart(points, label=figure["what"], low=low - rim, high=high + rim, limits=limits)
    return tag("div", tag("h3", title), chart, tag("p", f"{svg.number(last)}{bounds}", class_="dim"))


def _bounds(band: Mapping[str, Any]) -> str:
    """`; usual 0.21, accepted 0.18 to 0.24`, in words what is not known."""
    if not band:
        return "; what is usual is not known yet"
    low, high = band["low"], band["high"]
    one_sided = (
        f"at most {svg.number(high)}"
        if low is None
        else f"at least {svg.number(low)}"
        if high is None
        else ""
    )
    reach = one_sided or f"{svg.number(low)} to {svg.number(high)}"
    if band["usual"] is None:
        return f"; can be {reach}: fewer than five accepted ones say nothing of what is usual"
    return f"; usual {svg.number(band['usual'])}, accepted {reach}"
