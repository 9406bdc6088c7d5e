"""The parts of the page, each made anew when what it shows has changed.

    made(snapshot)["strip"]       # HTML

A page without JavaScript is these parts one after the other; with it, each is replaced by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from daemon.judgement.needs import OPEN
from daemon.markup import Child, Safe, join, tag
from daemon.people import enough, svg, verdicts
from daemon.web import figure, signs
from daemon.web.alerts import Alert
from daemon.web.source import Heart, Snapshot

NAMES = ("head", "strip", "newest", "now", "missing", "alerts", "curves", "frames", "products")


def made(snapshot: Snapshot) -> dict[str, Safe]:
    """{name: HTML of a part}."""
    night = snapshot.night
    if not night:
        nothing = tag("p", "nothing is known yet", class_="dim")
        return {**dict.fromkeys(NAMES, Safe("")), "head": head(snapshot), "newest": nothing}
    return {
        "head": head(snapshot),
        "strip": strip(night["verdicts"]),
        "newest": newest(night),
        "now": now(night["sequence"]),
        "missing": missing(night["missing"]),
        "alerts": alerts(snapshot.alerts),
        "curves": curves(night["curves"]),
        "frames": signs.frames(night["frames"], night["night"], more=night["more_frames"]),
        "products": products(night["products"]),
    }


# -- the parts --------------------------------------------------------------------------------


def head(snapshot: Snapshot) -> Safe:
    """The night, and whether what is shown can be believed."""
    night = snapshot.night
    said: list[Child] = ["no night yet"]
    if night.get("night"):
        said = [tag("a", f"night {night['night']}", href=f"/night/{night['night']}", title="its report")]
    if last := night.get("last_frame"):
        said += [" · last frame ", signs.ago(last["at"])]
    trouble = _trouble(snapshot) if snapshot.error else None
    if night and not snapshot.error and (quiet := _quiet(night, snapshot.watched)):
        trouble = tag("p", quiet, class_="dim")
    return join(tag("p", said, class_="night"), heart(snapshot.heart), trouble)


def _quiet(night: Mapping[str, Any], watched: Sequence[str]) -> str:
    """What is said while no frame of tonight has landed; "" once one has."""
    where = f"watched: {', '.join(watched)}" if watched else "no folder is watched"
    if not night["night"]:
        return f"no frame has landed yet; {where}"
    if not night["tonight"]:
        return f"that night is over: no frame of tonight has landed; {where}"
    return ""


def heart(told: Heart) -> Safe:
    """Whether the daemon lives, and its last sign where it does not."""
    good = told.state == "live"
    mark = tag("span", "● " if good else "▲ ", class_="good" if good else "act")
    since = [", last sign ", signs.ago(told.moved)] if told.moved and not good else None
    return tag("p", mark, told.words, since, class_="heart" if good else "heart trouble")


def _trouble(snapshot: Snapshot) -> Safe:
    """What cannot be read, since when, and what is done about it."""
    do = {
        "absent": "this page shows the night as soon as the daemon has started",
        "newer": "a newer release has made it: start nirid web of that release",
        "starting": "it is read now",
    }.get(snapshot.kind, "it is tried again all the time; nirid doctor says more")
    seen = [" What you see is from ", signs.ago(_made(snapshot)), "."] if snapshot.night else []
    return tag("p", tag("span", "▲ ", class_="act"), snapshot.error, "; ", do, ".", seen, class_="trouble")


def _made(snapshot: Snapshot) -> float | None:
    return datetime.fromisoformat(snapshot.night["now"]).timestamp() if snapshot.night else None


def strip(row: Mapping[str, Any] | None) -> Safe:
    """Were conditions what was asked for? In the words of `nirid verdict`."""
    if row is None or not row["verdicts"]:
        return tag("p", "conditions: nothing measured yet", class_="dim")
    cells = []
    for name, verdict in row["verdicts"].items():
        state = verdict["state"]
        mark = tag(
            "span", signs.GLYPHS[state], class_=f"g {signs.CLASSES.get(state, '')}", aria_hidden="true"
        )
        cells.append(tag("li", mark, " ", _of_verdict(name, verdict), class_=f"v-{name}"))
    more = []
    if row["not_met_since"]:
        more.append(tag("li", f"not met since {row['not_met_since'][11:16]} UT", class_="act"))
    if lost := row["light_lost"]:
        more.append(
            tag("li", f"{lost['magnitudes']:.1f} mag down since {lost['since'][11:16]} UT", class_="act")
        )
    if row["suggested"]:
        more.append(tag("li", f"suggested: {row['suggested']}"))
    return tag("ul", cells, more)


def _of_verdict(name: str, verdict: Mapping[str, Any]) -> Safe:
    """Its words, which begin with the condition or its bin."""
    words = verdicts.in_short(verdict["words"])
    first, _, rest = words.partition(" ") if words.startswith(name) else (name, "", words)
    return join(tag("b", first), " ", rest)


def newest(night: Mapping[str, Any]) -> Safe:
    """The picture that came last, with what is known of its frame."""
    found = night["newest"]
    if not found:
        return tag("p", "no picture yet: a first look follows every science frame", class_="dim")
    row = found["row"] or {}
    quality = (row.get("verdicts") or {}).get("IQ")
    said: list[Child] = [signs.link(found["name"], found["name"], class_="name"), " ", signs.ago(found["at"])]
    if row:
        said += [tag("br"), f"{row['what']} {row['filter']} {row['exposure_time'] or 0:g} s"]
    if quality and (quality["value"] is not None or found["kind"] == "look"):
        mark = tag(
            "span", signs.GLYPHS[quality["state"]], class_=f"g {signs.CLASSES.get(quality['state'], '')}"
        )
        said += [tag("br"), mark, " ", verdicts.in_short(quality["words"])]
    caption = tag("p", said, class_="caption")
    sequence = night["sequence"] or {}
    stack, look = sequence.get("stack"), sequence.get("look")
    if stack and stack["group"] != found["group"]:
        return figure.picture(found, caption=caption)
    if stack and stack["picture"] == found["picture"]:
        return figure.picture(look or found, stack if look else None, caption=caption, second=bool(look))
    return figure.picture(found, stack, caption=caption)


def now(sequence: Mapping[str, Any] | None) -> Safe:
    """The sequence that is being taken, with its stack; below it, the place of its depth."""
    if not sequence:
        return tag("p", "no sequence yet", class_="dim")
    title = f"{sequence['what']}  {sequence['filter']}"
    if sequence["exposure_time"]:
        title += f"  {sequence['exposure_time']:.3g} s"
    said = f"{sequence['used']} of {sequence['frames']} frames in use"
    if sequence["stacked"]:
        said += f"; stack of {sequence['stacked']}"
    lines: list[Child] = [tag("p", tag("b", title)), tag("p", said)]
    seen = [f"FWHM {sequence['seeing']:.2f}″"] if sequence["seeing"] is not None else []
    if sequence["zero_point"] is not None:
        error = f" ± {sequence['zero_point_error']:.2f}" if sequence["zero_point_error"] is not None else ""
        seen.append(f"zero point {sequence['zero_point']:.2f}{error}")
    lines.append(tag("p", ", ".join(seen)) if seen else None)
    lines.append(depth(sequence))
    state = signs.SAID.get(sequence["state"], sequence["state"])
    why = f": {sequence['reason']}" if sequence["reason"] else ""
    lines.append(tag("p", signs.glyph(sequence["state"]), f" {state}{why}"))
    lines.append(tag("p", signs.link(f"group:{sequence['group']}", "why? explain")))
    stack = sequence["stack"]
    image = (
        tag(
            "a",
            tag("img", src=f"{stack['picture']}?w=256", alt=f"stack {stack['name']}", width=256, height=256),
            href=f"/thing/{quote(stack['name'], safe='')}",
        )
        if stack
        else None
    )
    return tag("div", tag("div", lines), image, class_="seq")


def depth(sequence: Mapping[str, Any]) -> Child:
    """How deep the stack is and whether that is enough, in the words of `nirid enough`."""
    row = sequence["enough"]
    if row is None or not row["depth"]:
        return None
    return [
        tag("p", line, class_="depth" if n == 0 else "dim") for n, line in enumerate(enough.lines(row)[:3])
    ]


def missing(told: Mapping[str, Any]) -> Safe:
    """Calibrations that the night still needs, as `nirid missing` has them."""
    needs = [need for need in told["needs"] if need["state"] in OPEN]
    if not needs:
        there = len(told["needs"])
        return tag(
            "p", tag("span", "● ", class_="good"), "nothing is missing", f" ({there} there)" if there else ""
        )
    until = told["ends"][11:16]
    items = []
    for need in needs:
        taken = f" {need['taken']}" if need["state"] == "being taken" else ""
        users = ", ".join(
            list(dict.fromkeys(f"{user['program']} {user['filter']}" for user in need["for"]))[:2]
        )
        body = [
            tag("b", need["what"]),
            f" {need['state']}{taken}",
            tag("div", need["how"], class_="how"),
            tag("div", f"for {users}", class_="dim"),
        ]
        items.append(tag("li", signs.glyph(need["state"]), tag("div", body)))
    return join(tag("p", f"{told['phase']}; the day ends at {until} UT", class_="dim"), tag("ul", items))


def alerts(some: tuple[Alert, ...]) -> Safe:
    """What a person can do something about; what somebody knows of is said so, and is not counted."""
    new = sum(not alert.known_to for alert in some)
    if not some:
        return tag("p", tag("span", "● ", class_="good"), "nothing", data_count=0)
    items = [_alert(alert) for alert in some[:20]]
    more = tag("p", f"and {len(some) - 20} more") if len(some) > 20 else None
    return join(tag("ul", items, data_count=new), more)


def _alert(alert: Alert) -> Safe:
    name: Child = signs.link(alert.target, alert.what) if alert.target else alert.what
    since: Child = [" since ", signs.ago(alert.since)] if alert.since else None
    parts: list[Child] = [tag("b", name), since, tag("div", alert.why), tag("div", alert.do, class_="how")]
    if alert.known_to:
        until = signs.clock(alert.known_until, seconds=False)
        parts.append(
            tag("div", f"known to {alert.known_to}: {alert.known_why}, until ", until, " UT", class_="dim")
        )
        return tag("li", tag("span", "○", class_="g"), tag("div", parts), class_="known")
    parts.append(tag("div", tag("a", "I know", href=f"/alert/{alert.number}"), class_="how"))
    mark = tag("span", "▲", class_="g act" if alert.level == "critical" else "g watch")
    return tag("li", mark, tag("div", parts))


def curves(told: Mapping[str, Any]) -> Safe:
    """The night's curves, with axes that stay."""
    limits = {f"IQ{name}": value for name, value in told["limits"].items()}
    return join(
        _curve("FWHM at zenith, ″", svg.chart(told["fwhm"], label="FWHM", low=0.2, high=1.6, limits=limits)),
        _curve("transparency", svg.chart(told["transparency"], label="transparency", low=0.0, high=1.1)),
        _curve("sky, mag/″²", svg.chart(told["sky"], label="sky", down=True, least=0.5)),
        _curve("landing to look, s", svg.chart(told["latency"], label="latency", low=0.0, high=10.0)),
    )


def _curve(title: str, chart: Safe) -> Safe:
    return tag("div", tag("h3", title), chart, class_="curve")


def products(made_: list[dict[str, Any]]) -> Safe:
    """The newest, with their thumbnails."""
    if not made_:
        return tag("p", "none yet", class_="dim")
    items = [
        tag(
            "li",
            tag(
                "a",
                tag("img", src=f"{one['picture']}?w=96", alt="", width=96, height=96, loading="lazy"),
                tag("span", signs.broken(one["name"])),
                href=f"/thing/{quote(one['name'], safe='')}",
            ),
            tag("span", f"{one['frames']} frames ", signs.ago(one["at"]), class_="dim"),
        )
        for one in made_
    ]
    return tag("ul", items, class_="thumbs")
