"""nirid status: the night in 80 columns, for whoever is awake at 3 a.m. Details are for `nirid explain`."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click

from daemon.cli import Settings
from daemon.cli.output import coloured, console, json_option, print_json
from daemon.cli.report import database
from daemon.cli.words import Night

LABEL = 10
MOST = 8  # lines of one kind
WATCH_SECONDS = 2.0


@click.command(short_help="The night: what runs, waits, needs a person; seeing, zero points, looks.")
@click.option("--night", type=Night(), metavar="NIGHT", help="This UT date instead of the latest.")
@click.option("--watch", is_flag=True, help="Again every 2 s, until Ctrl-C.")
@json_option
@click.pass_obj
def status(settings: Settings, night: str | None, watch: bool, as_json: bool) -> None:
    """What runs, what needs a person, and the sequences of the night with their seeing and zero point.

    used: frames that are in the product, or can be, of those that came. A tilde before a number: of a running
    stack or a first look, which may have to do without calibrations. Details: nirid explain group:7.
    """
    if as_json:
        print_json(answer_of(settings, night))
        return
    out = console()
    if watch:
        height = out.height if out.is_terminal else None
        _watch(out, lambda: lines(answer_of(settings, night), out.width, height))
    if not watch or out.is_terminal:  # after watching, too: its screen goes
        for line in lines(answer_of(settings, night), out.width):
            out.print(line, soft_wrap=True)


def _watch(out: Any, look: Callable[[], Iterator[Any]]) -> None:
    """Show it again and again, until Ctrl-C or SIGTERM; where there is no terminal one after the other."""
    from rich.console import Group
    from rich.live import Live

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the terminal would stay as it is
    if out.is_terminal:
        live = Live(console=out, screen=True, auto_refresh=False, vertical_overflow="crop")
    with contextlib.suppress(KeyboardInterrupt), live if out.is_terminal else contextlib.nullcontext():
        while True:
            shown = Group(*_or_why_not(look))
            live.update(shown, refresh=True) if out.is_terminal else out.print(shown, "", soft_wrap=True)
            time.sleep(WATCH_SECONDS)


def _or_why_not(look: Callable[[], Iterator[Any]]) -> list[Any]:
    """A daemon that starts has no database yet; one that is busy has it later."""
    from pipeline.errors import NiridError

    try:
        return list(look())
    except (NiridError, OSError) as error:
        return list(_said("waits", str(error), console().width))


def answer_of(settings: Settings, night: str | None) -> dict[str, Any]:
    """Everything that status says, as its JSON has it."""
    from daemon import instance
    from daemon.config.setting import setting_of
    from daemon.ledger import held, looks, outdated, questions
    from daemon.people import enough, requests, tonight, verdicts
    from daemon.upkeep import health
    from daemon.upkeep.health import Limits

    with database(settings) as (config, db):
        running = instance.running(config)
        report = health.examine(config, Limits(), whole=False)
        hangs = any(p.check == "drop folder" and "does not answer" in p.text for p in report.problems)
        now = time.time()
        named, rows = tonight.sequences(db, night, now)
        return {
            "daemon": running,
            "paused": _paused(config, running),
            "missing": [] if hangs else [str(f) for f in config.drop_folders if not f.is_dir()],
            "requests": len(requests.waiting(config.state_folder)),
            "outdated": outdated.count(db, setting_of(config), config.parameters),
            **questions.status(db),
            "now": questions.iso(now),
            "waits": questions.waits(db),
            "refused": len(requests.refused(db, now - 86400)),
            "needs": [*_needed(report, config, db), *questions.for_a_person(db, now - 86400, now)],
            "night": named,
            "sequences": rows,
            "conditions": verdicts.latest(db, rows, config.request),
            "enough": enough.latest(db, rows, config.goal, now),
            "held": [{**h, "since": questions.iso(h["since"])} for h in held.everything(db)],
            "elsewhere": tonight.unfinished_elsewhere(db, rows),
            "looking": looks.running(db),
            "looks": tonight.to_look_at(db, rows),
            "product_folder": str(config.product_folder),
        }


def _needed(report: Any, config: Any, db: Any) -> Iterator[dict[str, Any]]:
    """What `nirid health` finds, but for a start and for a daemon that was stopped when all was done."""
    from daemon import instance
    from daemon.ledger import questions
    from daemon.upkeep.health import NOT_RUNNING

    jobs = questions.counts(db)["jobs"]
    at_rest = instance.was_stopped(config) and not any(jobs.get(state) for state in ("planned", "running"))
    texts = [problem.text for problem in report.problems]
    for problem in report.problems:
        if any(problem.text in text and problem.text != text for text in texts):
            continue  # a disk is told by the daemon, and by itself
        stopped = problem.text == NOT_RUNNING
        starting = (problem.check, problem.level) == ("daemon", "warning")
        if not starting and not (stopped and at_rest):
            yield vars(problem)


def _paused(config: Any, running: dict[str, Any] | None) -> str:
    """Why no job is started; asked of the disk itself, since a full one may keep the daemon from saying."""
    from daemon.work import diskguard

    said = running["paused"] if running else ""
    return said or diskguard.of(config).check(0.0)


# -- in words --------------------------------------------------------------------------------


def lines(answer: Mapping[str, Any], width: int, height: int | None = None) -> Iterator[Any]:
    """What is shown, each a line of text that fits.

    height : lines that there are; of more sequences those that are done give way
    """
    parts = (_head(answer, width), _needs(answer, width), _going_on(answer, width), _looks(answer))
    above = [line for part in parts for line in part]
    yield from above
    yield from _night(answer, None if height is None else height - len(above))


def _said(label: str, text: str, width: int, style: str = "") -> Iterator[Any]:
    """A labelled text, folded below itself."""
    import textwrap

    from rich.text import Text

    from daemon.logs import printable

    room = max(40, width - LABEL)
    folded = textwrap.wrap(printable(text), room, break_long_words=False, break_on_hyphens=False)
    for i, part in enumerate(folded or [""]):
        yield Text(f"{label if i == 0 else '':<{LABEL}}", style=style or "dim") + Text(part)


def _head(answer: Mapping[str, Any], width: int) -> Iterator[Any]:
    from daemon.upkeep.health import span

    daemon, waits = answer["daemon"], answer["waits"]
    running = "not running" if daemon is None else f"running, process {daemon['pid']}"
    running = "starting" if daemon and daemon["moved"] is None else running
    yield from _said("clock", f"{answer['now'][:19].replace('T', ' ')} UTC; daemon {running}", width)
    last = waits["name"].removesuffix(".fits")
    ago = "" if waits["arrival"] is None else span(time.time() - waits["arrival"])
    yield from _said("arrival", f"{last}, {ago} ago" if ago else "no frame yet", width)
    jobs = {**answer["counts"]["jobs"], "failed": len(answer["failed"])}  # of those that need somebody
    counted = []
    for what, states in (("files", answer["counts"]["files"]), ("jobs", jobs)):
        counted.append(f"{what} " + (", ".join(f"{n} {s}" for s, n in sorted(states.items()) if n) or "none"))
    yield from _said("so far", "; ".join(counted), width)
    more = []
    if daemon and daemon["links"]:
        more.append(f"{daemon['links']} links in the drop folders are not followed")
    if answer["requests"]:
        more.append(f"{answer['requests']} decisions wait to be applied")
    if answer["outdated"]:
        more.append(f"{answer['outdated']} products of an older release or configuration: requeue --outdated")
    for text in more:
        yield from _said("note", text, width)


def _needs(answer: Mapping[str, Any], width: int) -> Iterator[Any]:
    """What a person has to do something about, what is critical first."""
    needs = sorted(answer["needs"], key=lambda need: need["level"] != "critical")
    if not needs:
        yield from _said("needs you", "nothing", width, "green")
    for need in needs[:MOST]:
        style = "bold red" if need["level"] == "critical" else "yellow"
        yield from _said("NEEDS YOU", _short(need["text"], 4 * (width - LABEL)), width, style)
    if len(needs) > MOST:
        yield from _said("", f"and {len(needs) - MOST} more: nirid health, nirid status --json", width)
    for master in answer["held"][:MOST]:
        text = f"{master['name']} is not used: {master['reason']}; nirid accept or nirid reject decides"
        yield from _said("held", _short(text, 4 * (width - LABEL)), width, "yellow")
    for job in answer["failed"][:MOST]:
        why = job["error"].strip().rpartition("\n")[2] or job["reason"]  # of a traceback what it says
        text = f"job {job['id']}, {job['name'] or job['recipe']}: {why}"
        yield from _said("failed", _short(text, 2 * (width - LABEL)), width, "red")


def _going_on(answer: Mapping[str, Any], width: int) -> Iterator[Any]:
    """What runs, and what waits: of many that wait for the same a line."""
    running = [f"job {j['id']}, {j['name']}, {_frames(len(j['inputs']))}" for j in answer["running"]]
    running += [f"{look['name']}, {_frames(len(look['frames']))}, to look at" for look in answer["looking"]]
    for text in running[:MOST] or ["nothing"]:
        yield from _said("runs", _short(text, width - LABEL), width)
    if len(running) > MOST:
        yield from _said("", f"and {len(running) - MOST} more", width)
    if answer["planned"]:
        names = _named([_cut(j["name"], 32) for j in answer["planned"]])
        yield from _said("next", names, width)
    told = [need["text"] for need in answer["needs"]]
    others = [job for job in answer["waiting"] if job["reason"] not in told]
    waiting = [(job["group"], _in_short(job["reason"])) for job in others]
    idle = [(row["group"], row["reason"]) for row in answer["sequences"] if row["state"] == "idle"]
    for label, why in (("waits", waiting), ("idle", idle)):
        for text in _alike(why):
            yield from _said(label, _short(text, 2 * (width - LABEL)), width)


def _alike(reasons: Sequence[tuple[int, str]]) -> list[str]:
    """`groups 3, 4: no processed_dark`: of many that wait for the same one line."""
    alike: dict[str, list[int]] = {}
    for group, why in reasons:
        alike.setdefault(why, []).append(group)
    few = list(alike.items())[:MOST]
    named = {why: _named([str(group) for group in sorted(groups)]) for why, groups in few}
    said = [f"group{'s' if len(alike[why]) > 1 else ''} {which}: {why}" for why, which in named.items()]
    return said + ([f"and {len(alike) - MOST} more reasons"] if len(alike) > MOST else [])


def _in_short(reason: str) -> str:
    """A reason without the settings that a calibration must have: `explain` has them."""
    parts = [part.partition(" for ")[0] if part.startswith("no ") else part for part in reason.split("; ")]
    making = [part.removesuffix(" is being made") for part in parts if part.endswith(" is being made")]
    others = [part for part in parts if not part.endswith(" is being made")]
    named = [" ".join(part.split()[1:]) or part for part in making]
    return "; ".join([*others, *([f"{', '.join(named)} being made"] if named else [])])


def _night(answer: Mapping[str, Any], room: int | None) -> Iterator[Any]:
    """The sequences of the night, a line each. room : lines that there are, None for any number"""
    from rich.text import Text

    from daemon.logs import printable

    rows = answer["sequences"]
    if not rows:
        return
    yield Text("")
    above = [*answer["conditions"], *answer["enough"]]
    for words in above:
        yield Text(_cut(printable(words), 80))
    head = f"{'night ' + answer['night']:<47}{'used':>6} {'state':<8}{'FWHM':>6} {'zero point':>11}"
    yield Text(head, style="dim")
    shown = rows if room is None else _most_wanted(rows, room - 5 - len(above))
    yield from map(_sequence, shown)
    for text in _alike([(row["group"], row["poor"]) for row in rows if row["poor"]]):
        yield from _said("levels", text, 80)
    if len(shown) < len(rows):
        yield Text(f"    and {len(rows) - len(shown)} more that are done", style="dim")
    if answer["elsewhere"]:
        said = f"{answer['elsewhere']} groups of other nights have something to do (status --night)"
        yield Text(f"    {said}", style="dim")
    folders = list(dict.fromkeys(row["path"].rpartition("/")[0] for row in rows if row["path"]))
    for folder in folders[:MOST]:
        yield Text(f"    in {printable(folder)}/, each with its .png", style="dim")


def _most_wanted(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """Those that fit: calibrations that are done give way first, then the earliest of the others that are."""
    done = sorted((row for row in rows if row["state"] == "done"), key=lambda row: bool(row["role"]))
    gone = [row["group"] for row in done[: max(0, len(rows) - max(most, 3))]]
    return [row for row in rows if row["group"] not in gone]


def _sequence(row: Mapping[str, Any]) -> Any:
    from rich.text import Text

    from daemon.logs import printable

    name = printable(row["name"] or _range(row["first"], row["last"]))
    seconds = f"{row['exposure_time']:.3g}s" if row["exposure_time"] else ""
    rest = " ".join(filter(None, (_cut(printable(row["filter"]), 13), seconds)))
    what = f"{_cut(printable(row['what']), max(6, 20 - len(rest)))} {rest}"
    line = Text(f"{row['group']:>3} {_cut(name, 21):<21} {_cut(what, 21):<21}")
    few = row["used"] < row["frames"] - 1  # the first of a sequence is left out as a rule
    line += Text(f"{row['used']}/{row['frames']}".rjust(6), style="yellow" if few else "")
    line += Text(" ") + coloured(row["state"]) + Text(" " * max(1, 8 - len(row["state"])))
    early = "~" if row["of"] == "look" else ""
    seeing = "" if row["seeing"] is None else f'{early}{row["seeing"]:.2f}"'
    zero = "" if row["zero_point"] is None else f"{early}{row['zero_point']:.2f}"
    if zero and row["zero_point_error"] is not None:
        zero += f"\u00b1{row['zero_point_error']:.2f}"
    return line + Text(f"{seeing:>6} {zero:>11}".rstrip())


def _looks(answer: Mapping[str, Any]) -> Iterator[Any]:
    """Where to look while a sequence has no product yet, by folder: paths are long."""
    from rich.text import Text

    from daemon.logs import printable

    folder = ""
    for look in answer["looks"][-MOST:]:
        here, _, name = look["path"].rpartition("/")
        if here != folder:
            folder = here
            yield Text("")
            yield Text(f"to look at, in {printable(here)}/, each with its .png", style="dim")
        what = f"group {look['group']}, {_frames(len(look['frames']))}"
        without = [kind for kind in ("dark", "flat") if f"processed_{kind}" not in look["calibrations"]]
        what += f", without {' and '.join(without)}" if without else ""
        yield Text(f"    {printable(name):<33} {what}")


def _frames(n: int) -> str:
    return "1 frame" if n == 1 else f"{n} frames"


def _range(first: str, last: str) -> str:
    """N20160102S0271-0279 of Gemini's names."""
    first, last = first.removesuffix(".fits"), last.removesuffix(".fits")
    if first == last:
        return first
    same = first[:-4] == last[:-4] and last[-4:].isdigit()
    return f"{first}-{last[-4:]}" if same else f"{first} ..."


def _named(names: list[str]) -> str:
    few = ", ".join(names[:MOST])
    return few if len(names) <= MOST else f"{few} and {len(names) - MOST} more"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def _short(text: str, most: int) -> str:
    return _cut(" ".join(text.split()), most)
