"""The report of a night as one file to keep and to print: style and pictures in it, no script, no address.

page(answer, {"N20160102S0271_image": jpeg})     # HTML of `nightreport.answer`, 300 kB at most
as_json(answer)                                  # what lies beside it

A normal night is two pages of A4. What does not fit is counted, and is in the JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from daemon.judgement.needs import OPEN
from daemon.markup import Child, Safe, join, short, tag
from daemon.people import nightreport, svg, verdicts
from daemon.people.nightfacts import IMAGE, STATES

LIMIT = 300_000  # bytes of the page
SIZES = ((170_000, 60), (80_000, 30), (0, 10))  # (bytes of pictures, rows of a table), until it fits
POINTS = 300  # of a curve
NAME, REASON = 60, 160  # letters

STYLE = """
@page { size: A4; margin: 11mm; }
* { box-sizing: border-box; }
body { font: 8pt/1.25 system-ui, "DejaVu Sans", sans-serif; color: #111; background: #fff; margin: 0 auto;
  max-width: 190mm; overflow-wrap: anywhere; }
h1 { font-size: 15pt; margin: 0; } h2 { font-size: 10pt; margin: 2.5mm 0 .5mm; border-bottom: 1px solid #999;
  break-after: avoid; }
p { margin: 1mm 0; } .dim { color: #5b6670; } .bad { color: #b34700; } .watch { color: #8a5a00; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top;
  padding: .3mm 2mm .3mm 0; } th { font-weight: 600; color: #5b6670; } .n, .w { white-space: nowrap; }
td.n, th.n { text-align: right; } td.name { min-width: 34mm; }
tr { break-inside: avoid; border-bottom: 1px solid #e4e4e4; }
tr.above { border: 0; break-after: avoid; }
.curves { display: grid; grid-template-columns: repeat(4, 1fr); gap: 2mm; break-inside: avoid; }
.curves h3 { font-size: 8pt; font-weight: 400; margin: 0; }
.chart { width: 100%; height: auto; display: block; } .chart text { font-size: 10px; fill: #5b6670; }
.chart .grid { stroke: #ddd; stroke-width: .7; } .chart .limit { stroke: #b34700; stroke-dasharray: 4 3; }
.chart .of-limit { fill: #b34700; } .chart .dots { stroke: #0072b2; stroke-width: 4; stroke-linecap: round; }
.chart .bars { stroke: #5b6670; stroke-width: .8; fill: none; }
ul.pictures { display: grid; grid-template-columns: repeat(8, 1fr); gap: 1.5mm; list-style: none;
  margin: 1mm 0; padding: 0; } .pictures li { break-inside: avoid; font-size: 6.5pt; }
.pictures img { width: 96px; max-width: 100%; height: auto; display: block; }
footer { margin-top: 3mm; font-size: 7.5pt; color: #5b6670; }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
# What the page may do, wherever it is opened: nothing but to be looked at.
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; base-uri 'none'; form-action 'none'"

Answer = Mapping[str, Any]


def as_json(answer: Answer) -> str:
    """The answer, with the mark of a report before it."""
    return json.dumps({"made_by": "nirid report", **answer}, default=str, indent=1).replace("{\n ", "{", 1)


def page(answer: Answer, pictures: Mapping[str, bytes]) -> str:
    """pictures : JPEG of 96 pixels, by the name of the product"""
    for room, rows in SIZES:
        made = _page(answer, _within(answer, pictures, room), rows)
        if len(made.encode()) <= LIMIT:
            break
    return made


def _within(answer: Answer, pictures: Mapping[str, bytes], room: int) -> dict[str, Safe]:
    """{product: data of its picture} of as many as there is room for, images of the sky first."""
    found: dict[str, Safe] = {}
    for one in sorted(answer["product_list"], key=lambda p: not p["name"].endswith(IMAGE)):
        if (picture := pictures.get(one["name"])) is None:
            continue
        text = base64.b64encode(picture).decode()
        if (room := room - len(text)) < 0:
            break
        found[one["name"]] = Safe(f"data:image/jpeg;base64,{text}")
    return found


def _page(answer: Answer, pictures: Mapping[str, Safe], most: int) -> str:
    night = answer["night"]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="generator", content="nirid report"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"NIRI night {night}"),
        tag("style", Safe(STYLE)),
    ]
    body = [
        tag("h1", f"NIRI night {night}"),
        *_summary(answer),
        _programmes(answer, most),
        _sequences(answer, most),
        _curves(answer["curves"]),
        _pictures(answer, pictures, most),
        _missing(answer, most),
        _out_of_use(answer, most),
        _masters(answer, most),
        _daemon(answer, most),
    ]
    html = tag("html", tag("head", head), tag("body", tag("main", body), _footer(answer)), lang="en")
    return f"<!doctype html>{html}\n"


# -- its parts ---------------------------------------------------------------------------------


def _summary(answer: Answer) -> list[Safe]:
    before, change = answer["before"], answer["before"]["difference"]
    said = ", ".join(
        f"{answer[name]} {name.replace('_', ' ')} ({change[name]:+d})"
        for name in ("frames", "science_frames", "products")
    )
    when = f"made {_clock(answer['made'])} UT; sunrise {answer['sunrise'][11:16]} UT"
    lines = [tag("p", said, tag("span", f"; in brackets: against {before['night']}", class_="dim"))]
    if not answer["frames"]:
        lines.append(tag("p", "no frames were taken"))
    return [tag("p", when, class_="dim"), *lines]


def _programmes(answer: Answer, most: int) -> Child:
    rows = []
    for name, frames in answer["programmes"].items():
        spent = answer["programme_seconds"].get(name, {})
        minutes = [_number(spent[s] / 60, 1) if s in spent else "" for s in STATES]
        rows.append((short(name or "no programme", NAME), frames, *minutes))
    heads = ("_programme", ">frames", *(f">{state}, min" for state in STATES))
    title = "Programmes: minutes of exposure in and out of the conditions that were asked for"
    return _table(title, heads, rows, most)


def _sequences(answer: Answer, most: int) -> Child:
    rows, below = [], []
    for row in answer["sequences"]:
        depth = row["depth"]
        deep = f"{depth['depth']:.2f} ± {depth['depth_error']:.2f}" if "depth" in depth else ""
        lines = verdicts.lines(row) if row["verdicts"] else []
        said = [short(_briefly(words), REASON) for words in lines]
        product: Child = (
            _product(row["product"])
            if row["product"]
            else tag("span", short(f"none: {row['reason']}", REASON), class_="bad")
        )
        if row["left_out"]:
            out = ", ".join(name.removesuffix(".fits") for name in row["left_out"])
            said.append(short(f"left out: {out}", REASON))
        rows.append(
            (
                [row["begins"][11:16], tag("br"), row["ends"][11:16]],
                [short(row["program"], NAME), tag("br"), short(f"{row['object']} {row['filter']}", NAME)],
                row["frames"],
                product,
                _number(depth.get("seeing"), 2),
                _number(depth.get("zero_point"), 2),
                deep,
            )
        )
        below.append("; ".join(said))
    heads = ("=UT", "_programme, object", ">n", "_product", ">FWHM, ″", ">zero pt", ">5 σ, mag")
    return _table("Sequences", heads, rows, most, below)


def _briefly(words: str) -> str:
    """A verdict without what is the same in every line."""
    return words.partition(";")[0] if words.startswith("BG ") else verdicts.in_short(words)


def _curves(curves: Mapping[str, Any]) -> Child:
    if not any(curves[name] for name in ("fwhm", "transparency", "sky", "latency")):
        return None
    limits = {f"IQ{name}": value for name, value in curves["limits"].items()}
    drawn: list[tuple[str, str, dict[str, Any]]] = [
        ("FWHM at zenith, ″", "fwhm", {"low": 0.2, "high": 1.6, "limits": limits}),
        ("transparency", "transparency", {"low": 0.0, "high": 1.1}),
        ("sky, mag/″²", "sky", {"down": True, "least": 0.5}),
        ("landing to look, s", "latency", {"low": 0.0, "high": 10.0}),
    ]
    parts = []
    for title, name, how in drawn:
        points = curves[name]
        step = -(-len(points) // POINTS) or 1
        title += f" (one of {step})" if step > 1 else ""
        parts.append(tag("div", tag("h3", title), svg.chart(points[::step], label=name, **how)))
    return join(tag("h2", "Curves of the night (UT)"), tag("div", parts, class_="curves"))


def _pictures(answer: Answer, pictures: Mapping[str, Safe], most: int) -> Child:
    some = answer["product_list"]
    if not some:
        return None
    items: list[Safe] = []
    rest = 0
    for one in some:
        if one["name"] not in pictures and len(items) >= most:
            rest += 1
            continue
        image = tag("img", src=pictures[one["name"]], alt="", width=96) if one["name"] in pictures else None
        deep = one["measures"].get("depth")
        said = f"{one['frames']} frames" + (f", {deep:.2f} mag" if deep is not None else "")
        version = f", version {one['version']}" if one["version"] > 1 else ""
        items.append(tag("li", image, _product(one["name"]), tag("br"), said, version))
    more = tag("p", f"and {rest} more", class_="dim") if rest else None
    return join(tag("h2", f"Products: {len(some)}"), tag("ul", items, class_="pictures"), more)


def _missing(answer: Answer, most: int) -> Child:
    told = {row["what"]: row for row in answer["told"]}
    rows = []
    for need in answer["needs"]:
        if need["state"] in (*OPEN, "there") or need["what"] in told:
            known = told.pop(need["what"], None)
            state = need["state"] if need["state"] == "there" else _bad(need["state"], need["state"] in OPEN)
            rows.append((short(need["what"], NAME), state, need["taken"], *_since(known), _for(need)))
    rows += [(short(what, NAME), row["state"], "", *_since(row), "") for what, row in told.items()]
    heads = ("_calibration", "=now", "=taken", "=missing since, UT", "=came, UT", "for")
    return _table("Calibrations: what was missing, and whether it came", heads, rows, most)


def _since(known: Answer | None) -> tuple[str, str]:
    return (_clock(known["since"]), _clock(known["came"]) if known["came"] else "") if known else ("", "")


def _for(need: Answer) -> str:
    users = dict.fromkeys(f"{user['program']} {user['filter']}" for user in need["for"])
    return short(", ".join([*users][:3]), NAME)


def _out_of_use(answer: Answer, most: int) -> Child:
    held = [(short(h["name"], NAME), "held", short(h["reason"], REASON)) for h in answer["held"]]
    out = [(short(r["name"], NAME), r["state"], short(r["reason"], REASON)) for r in answer["rejected"]]
    none = [
        (
            short(f"{r['rule']}, {r['frames']} frames from {r['first']}", NAME),
            "no product",
            short(r["reason"], REASON),
        )
        for r in answer["calibrations"]
        if not r["product"]
    ]
    heads = ("_what", "=state", "who and why")
    return _table("Held, rejected, quarantined, without a product", heads, [*held, *out, *none], most)


def _masters(answer: Answer, most: int) -> Child:
    rows = []
    for one in answer["masters"]:
        before = one["before"]
        older = f"{before['name']}, {before['night']}" if before else "none before"
        said = [
            [f"{name} {_figure(f['value'])}", tag("span", _change(f), class_=_off(f)), "; "]
            for name, f in one["figures"].items()
        ]
        rows.append((_product(one["name"]), short(older, NAME), said[:14]))
    heads = ("_master", "_against the last accepted", "figures, with the difference (in errors of both)")
    return _table("Masters against those of before", heads, rows, most)


def _change(figure: Answer) -> str:
    if figure["difference"] is None:
        return ""
    sigma = f", {figure['sigma']:+.1f} σ" if figure["sigma"] is not None else ""
    return f" ({figure['difference']:+.3g}{sigma})"


def _off(figure: Answer) -> str | None:
    sigma = abs(figure["sigma"] or 0.0)
    return "bad" if sigma > 7 else "watch" if sigma > 4 else "dim"


def _figure(value: float) -> str:
    return svg.number(value)


def _daemon(answer: Answer, most: int) -> Child:
    took, looks = answer["latency"], answer["latency"]["looks"]
    rows: list[Sequence[Child]] = [
        (what, row[count], _number(row["median"], 1), _number(row["p95"], 1), _number(row["longest"], 1))
        for what, row, count in (
            ("last frame to product", took, "products"),
            ("frame to first look", looks, "looks"),
        )
        if row[count]
    ]
    heads = ("latency, s", ">how many", ">p50", ">p95", ">longest")
    down = [[nightreport.outage(o)] for o in answer["outages"]]
    return join(_table("Latency", heads, rows, most), _table("Daemon down", ("when",), down, most))


def _footer(answer: Answer) -> Safe:
    said = ", ".join(f"{name} {version}" for name, version in answer["versions"].items())
    return tag("footer", f"made with {said}")


# -- what they are written with ----------------------------------------------------------------


_COLUMNS = {">": "n", "=": "w", "_": "name"}


def _table(
    title: str, heads: Sequence[str], rows: Sequence[Sequence[Child]], most: int, below: Sequence[str] = ()
) -> Child:
    """Nothing where there are no rows. A head begins with > of numbers, = of what is not broken, _ of names.

    below : a line under each row
    """
    if not rows:
        return None
    kinds = [_COLUMNS.get(head[0]) for head in heads]
    top = [tag("th", head.lstrip(">=_"), class_=kind) for head, kind in zip(heads, kinds, strict=True)]
    body = []
    for n, row in enumerate(rows[:most]):
        cells = [tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)]
        body.append(tag("tr", cells, class_="above" if below else None))
        if below:
            body.append(tag("tr", tag("td"), tag("td", below[n], colspan=len(heads) - 1)))
    more = tag("p", f"and {len(rows) - most} more", class_="dim") if len(rows) > most else None
    return join(tag("h2", title), tag("table", tag("tr", top), body), more)


def _product(name: str) -> Safe:
    """A name that may be broken before its kind."""
    first, mark, kind = short(name, NAME).rpartition("_")
    return join(first, tag("wbr") if mark else None, mark, kind)


def _bad(words: str, bad: bool) -> Child:
    return tag("span", words, class_="bad" if bad else None)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _clock(iso: str) -> str:
    return iso[:16].replace("T", " ")
