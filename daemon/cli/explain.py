"""nirid explain: which state, since when, why, and what it waits for, in words."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from daemon.cli import Settings
from daemon.cli.output import coloured, console, json_option, print_json, worth
from daemon.cli.report import database
from pipeline.verdict import plain

UNDER_WAY = ("seen", "incomplete", "open", "planned", "waiting")
Line = tuple[str, Any]  # (label, text); an indented line when the label is blank


@click.command(short_help="Which state, since when, why, and what it waits for.")
@click.argument("target")
@json_option
@click.pass_obj
def explain(settings: Settings, target: str, as_json: bool) -> None:
    """Say of a frame, a product, a look, a group or a job: which state, since when, why, what it waits for.

    \b
    nirid explain N20160102S0270.fits    what it is, which groups it is in, what was made of it
    nirid explain N20160102S0271_image   made of what, with which calibrations, and why not with others
    nirid explain group:7                or 7: which frames, how many are missing, which calibrations
    nirid explain job:12                 its attempts, and the error of each
    nirid explain N20160102S0271_running a first look or running stack, by name, path or number in the log
    nirid explain 3f8a21c9               by the beginning of a SHA-256 or of a job key
    """
    from daemon.config.setting import setting_of
    from daemon.ledger import targets
    from daemon.ledger.store import on_paper
    from daemon.people import enough, verdicts
    from daemon.people import explain as people_explain

    with database(settings) as (config, _), on_paper(config.database) as tx:
        found = targets.find(tx.reader, target, looks=True)
        answer = people_explain.explain(tx, found, setting_of(config), config.parameters)
        answer["conditions"] = verdicts.in_words(tx.reader, answer, config.request)
        answer["enough"] = enough.in_words(tx.reader, answer, config.goal, time.time())
        if is_under_way(answer):
            answer["waits_for"] = [*_in_the_way(config), *answer["waits_for"]]
    if as_json:
        print_json(answer)
        return
    if found.also:
        click.echo(f"{target} is taken as {found.text}; {found.also}", err=True)
    _print(answer)


def is_under_way(answer: dict[str, Any]) -> bool:
    """True while something is still to be made of it; of a frame, by its groups."""
    if answer["kind"] == "file" and answer["state"] not in UNDER_WAY:
        return any(group["state"] in UNDER_WAY for group in answer["groups"])
    return answer["state"] in UNDER_WAY


def _in_the_way(config: Any) -> Iterator[str]:
    """What keeps everything from going on, whatever is asked about."""
    from daemon import instance

    running = instance.running(config)
    if running is None:
        yield "a daemon: none is running"
        return
    said = {"engine": "a worker: ", "paused": "room: ", "stalled": "the daemon: "}
    yield from (f"{what}{running[name]}" for name, what in said.items() if running[name])


def _print(answer: dict[str, Any]) -> None:
    import textwrap

    from rich.text import Text

    from daemon.logs import printable

    out = console()
    headline = Text(f"{printable(answer['name'])}  ", style="bold")
    out.print(headline + _state(answer["state"]) + Text(f"  since {_when(answer['since'])}", style="dim"))
    said = [(text, "") for text in filter(None, answer["reason"].splitlines())]
    said += [(_waits(text), "yellow") for text in answer["waits_for"] if text != answer["reason"]]
    for text, style in said:
        for line in textwrap.wrap(printable(text), max(40, out.width - 4), break_on_hyphens=False):
            out.print(Text(f"    {line}", style=style), soft_wrap=True)
    tell = {"file": _file, "path": _path, "group": _group, "job": _job, "product": _product, "look": _look}
    judged = (line for label in ("conditions", "enough") for line in _listed(label, answer[label]))
    for label, text in (*tell[answer["kind"]](answer), *judged):
        width = max(40, out.width - 19)
        lines = textwrap.wrap(printable(str(text)), width, break_long_words=False, break_on_hyphens=False)
        for i, line in enumerate(lines or [""]):
            start = Text(f"  {label if i == 0 else '':<14}  ", style="dim") if line else Text("")
            out.print(start + Text(line), soft_wrap=True)


def _waits(text: str) -> str:
    """A reason may be what is missing, or a sentence."""
    if text.startswith("no "):
        return f"waits for a {text.removeprefix('no ')}"
    return f"waits: {text}" if " no longer on disk" in text else f"waits for {text}"


def _state(state: str) -> Any:
    from rich.text import Text

    made = coloured(state)
    return made if made.style else Text(state, style={"current": "green", "excluded": "red"}.get(state, ""))


def _when(iso: str | None) -> str:
    return f"{iso[:10]} {iso[11:19]} UTC" if iso else "unknown"


def _path(answer: dict[str, Any]) -> Iterator[Line]:
    yield "", ""
    yield "path", answer["paths"][0]
    yield "last seen", _when(answer["last_seen"])


def _file(answer: dict[str, Any]) -> Iterator[Line]:
    facts = answer["descriptors"]
    yield "", ""
    if facts:
        yield "what", _words(facts)
        yield "taken", _when(facts.get("ut_datetime"))
        yield "programme", f"{facts.get('program_id') or 'none'}, {answer['data_label']}"
        yield "tags", " ".join(answer["tags"])
    for i, path in enumerate(answer["paths"]):
        yield "path" if i == 0 else "also", path
    yield "first seen", f"{_when(answer['first_seen'])}; checksum: {answer['checksum']}"
    yield "SHA-256", answer["sha256"]
    yield from _decided(answer["decisions"])
    for group in answer["groups"]:
        yield "", ""
        yield from _group_lines(group)
    if not answer["groups"] and answer["state"] == "ready":
        yield "", ""
        yield "group", "none: no recipe takes it"
    out = [p for p in answer["products"] if p.get("judged", {}).get("verdict") == "left out"]
    yield from _listed("used in", (_product_words(p) for p in answer["products"] if p not in out))
    yield from _listed("left out of", (_product_words(p) for p in out))
    yield from _listed("judged", (_verdict_words(p) for p in answer["products"] if "judged" in p))


def _verdict_words(product: dict[str, Any]) -> str:
    """What the pipeline, not a person, made of a frame."""
    found = product["judged"]
    use, sky = found["verdict"], found["as_sky"]
    what = use if use != "used" else "made no sky for others" if sky == "left out" else use
    known = found["figure"] is not None and found["limit"] is not None
    figures = f" ({plain(found['figure'])}, limit {plain(found['limit'])})" if known else ""
    made = f"{product['product']}, version {product['version']}"
    return f"{what} by the pipeline in {made}: {found['reason']}{figures}"


def _words(facts: dict[str, Any]) -> str:
    """A frame in one line."""
    exposure = facts.get("exposure_time")
    coadds = facts.get("coadds") or 1
    told = [
        f"{facts.get('observation_type') or 'unknown type'} {facts.get('object') or ''}".strip(),
        facts.get("observation_class"),
        f"{exposure:g} s" + (f" in {coadds} coadds" if coadds > 1 else "") if exposure is not None else None,
        facts.get("filter_name"),
        facts.get("camera"),
        facts.get("read_mode"),
        f"{facts['well_depth']} well" if facts.get("well_depth") else None,
        facts.get("data_section"),
    ]
    return ", ".join(str(item) for item in told if item)


def _group_lines(group: dict[str, Any]) -> Iterator[Line]:
    left = group["members"] - group["usable"]
    counted = f"{group['usable']} frames" + (f" and {left} that cannot be used" if left else "")
    yield f"group {group['group']}", f"{group['rule']}, {counted}: {group['state']}"
    yield "", group["reason"] or "nothing to say"
    if group["product"]:
        yield "product", _product_words(group["product"])
    yield from _listed("to look at", _few(group["looks"]))
    yield from _better(group["better"])


def _better(name: str) -> Iterator[Line]:
    if name:
        yield "better", f"{name} would be chosen now, at no better a level; nirid requeue takes it"


def _few(looks: Sequence[str]) -> list[str]:
    """The running stack, and of the first looks the newest."""
    stacks = [path for path in looks if path.endswith("_running.fits")]
    first = [path for path in looks if path not in stacks]
    more = [f"and {len(first) - 2} more first looks"] if len(first) > 2 else []
    return [*stacks, *first[-2:], *more]


def _product_words(product: dict[str, Any]) -> str:
    place = product["path"] if product["current"] else f"{product['path']} (not current)"
    return f"{product['product']}, version {product['version']}: {place}"


def _group(answer: dict[str, Any]) -> Iterator[Line]:
    yield "", ""
    frames = answer["frames"]
    if frames:
        first, last = frames[0]["name"], frames[-1]["name"]
        span = first if len(frames) == 1 else f"{first} ... {last}"
        usable = sum(frame["state"] == "ready" for frame in frames)
        yield "frames", f"{usable} of {len(frames)} can be used: {span}"
        yield "taken", f"{_when(answer['first'])} to {_when(answer['last'])}"
        yield "last arrival", _when(answer["last_arrival"])
    left_out = [f for f in frames if f["state"] != "ready"]
    yield from _listed("left out", (f"{f['name']}: {f['state']}, {f['reason']}" for f in left_out))
    for need in answer["needs"]:
        enough = "" if need["have"] >= need["at_least"] else "  <- too few"
        yield "needs", f"{need['at_least']} of {'+'.join(need['tags'])}, has {need['have']}{enough}"
    agree = ", ".join(f"{k} {v}" for k, v in answer["agree"].items() if v is not None)
    if agree:
        yield "agree in", agree
    if answer["product"]:
        yield "product", _product_words(answer["product"])
    yield from _better(answer["better"])
    yield from _calibrations(answer["calibrations"])
    for job in answer["jobs"]:
        yield "", ""
        tries = f"{job['attempts']} attempt{'s' if job['attempts'] != 1 else ''}"
        yield f"job {job['job']}", f"{job['state']} since {_when(job['since'])}, {tries}"
        yield "", job["error"] or job["reason"]


def _calibrations(calibrations: list[dict[str, Any]]) -> Iterator[Line]:
    if calibrations:
        yield "", ""
    for cal in calibrations:
        name = f"{cal['name']}: " if cal["name"] else ""
        yield cal["kind"], f"{cal['status']} ({cal['wish']})  {name}{cal['why']}"
        for other in cal["not_chosen"]:
            yield "", f"not {other['name']}: {'; '.join(other['failed'])}"


def _job(answer: dict[str, Any]) -> Iterator[Line]:
    yield "", ""
    yield "recipe", f"{answer['recipe']}, version {answer['version']}, for group {answer['group']}"
    if answer["product_name"]:
        yield "makes", f"{answer['product_name']} of {len(answer['inputs'])} frames"
    if answer["product"]:
        yield "product", answer["product"]
    yield from _listed("made again", answer["again"])
    yield from _frames(answer["inputs"])
    yield from _settings(answer)
    yield from _calibrations(answer["calibrations"])
    if answer["attempts"]:
        yield "", ""
    for attempt in answer["attempts"]:
        took = f" after {attempt['seconds']:.1f} s" if attempt["seconds"] is not None else ""
        yield f"attempt {attempt['n']}", f"{_when(attempt['started'])}: {attempt['outcome']}{took}"
        if attempt["error"]:
            yield "", attempt["error"]
    if answer["error"]:
        yield "", ""
        yield from (("", line) for line in answer["error"].splitlines())


def _product(answer: dict[str, Any]) -> Iterator[Line]:
    yield "", ""
    yield "path", answer["path"]
    yield (
        "recipe",
        f"{answer['recipe']}, version {answer['recipe_version']}"
        + (
            "; a newer release or configuration would make it differently (nirid requeue --outdated)"
            if answer["outdated"]
            else ""
        ),
    )
    yield from _listed("made again", answer["again"])
    yield from _frames(answer["inputs"], answer["left_out"])
    yield from _settings(answer)
    yield from _quality(answer["quality"])
    yield "SHA-256", answer["sha256"]
    yield from _decided(answer["decisions"])
    yield from _calibrations(answer["calibrations"])
    yield "", ""
    yield from _group_lines(answer["group"])


def _look(answer: dict[str, Any]) -> Iterator[Line]:
    what = "first look at a frame" if answer["kind_of_look"] == "firstlook" else "running stack"
    yield "", ""
    yield "what", f"{what}, job {answer['number']} in the log"
    yield "path", answer["path"] if answer["there"] else f"{answer['path']} (not there any more)"
    yield from _frames(answer["frames"])
    yield from _listed("made with", (f"{role} {name}" for role, name in answer["calibrations"].items()))
    yield from _listed("notes", answer["notes"])
    yield from _quality(answer["quality"])
    if answer["job"]:
        yield "became", f"the product of job {answer['job']}"
    yield "", ""
    yield from _group_lines(answer["group"])


def _quality(quality: Mapping[str, Any]) -> Iterator[Line]:
    said = ", ".join(f"{k} {v}" for k, v in quality.items() if k not in ("frames", "measures"))
    if said:
        yield "quality", said
    for row in quality.get("frames", ()):
        yield "", worth(row)


def _frames(names: list[str], out: Sequence[str] = ()) -> Iterator[Line]:
    """out : names of those that are not in it after all"""
    used = [name for name in names if name not in out]
    shown = used if len(used) <= 4 else [*used[:2], "...", used[-1]]
    if names:
        yield "frames", f"{len(used)}: {' '.join(shown)}"
    if out:
        yield "left out", f"{len(out)}: {' '.join(out)}"


def _settings(answer: dict[str, Any]) -> Iterator[Line]:
    yield from _listed("parameters", (f"{k} = {v}" for k, v in answer["parameters"].items()))
    yield from _listed("notes", answer["notes"])


def _decided(decisions: list[dict[str, Any]]) -> Iterator[Line]:
    for item in decisions:
        why = f": {item['reason']}" if item["reason"] else ""
        done = {"reject": "rejected", "accept": "accepted", "hold": "held back"}.get(item["action"], "blamed")
        if item.get("of") == "judgement":  # the pipeline's own verdicts are among the notes of the product
            done = {"accept": "to be used whatever the pipeline finds, said"}.get(
                item["action"], "so no longer, said"
            )
        yield "decided", f"{_when(item['at'])}  {done} by {item['user']}{why}"


def _listed(label: str, texts: Iterable[str]) -> Iterator[Line]:
    for i, text in enumerate(texts):
        yield (label if i == 0 else ""), text
