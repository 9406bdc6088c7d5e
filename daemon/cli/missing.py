"""nirid missing: which calibrations the night still needs, how to take them, and how long there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

from daemon.cli import Settings
from daemon.cli.output import console, json_option, print_json
from daemon.cli.report import database
from daemon.cli.words import Night

WIDEST = 100
MOST = 3  # programmes in a line
_STYLES = {"missing": "red", "stale": "red", "wanted": "yellow", "being taken": "cyan", "there": "green"}
_PHASES = {
    "night": "night, day calibrations to come until",
    "morning": "morning, day calibrations until",
    "finished": "finished, the observing day ended at",
}


@click.command(short_help="Which calibrations the night still needs, how to take them, how long there is.")
@click.option("--night", type=Night(), metavar="NIGHT", help="This UT date instead of the latest.")
@json_option
@click.pass_obj
def missing(settings: Settings, night: str | None, as_json: bool) -> None:
    """Every calibration that science and standards of the night want, the most frames at stake first.

    The plan is Gemini's: 10 darks for each exposure of the science, 10 + 10 flats for each filter and camera,
    a standard in each. An observing day is one UT date: it ends at 14:00 in Hawaii.
    """
    from datetime import UTC

    from daemon.config.setting import setting_of
    from daemon.people import missing as asked

    with database(settings) as (config, db):
        setting, now = setting_of(config), datetime.now(UTC)
        answer = asked.answer(db, setting.rules, night, now, setting.policy.breakpoints)
    if as_json:
        print_json(answer)
        return
    out = console()
    for line in lines(answer):
        out.print(line, soft_wrap=False, width=min(out.width, WIDEST))


def lines(answer: Mapping[str, Any]) -> Iterator[Any]:
    """What is shown: a head, a table, a foot."""
    from rich.table import Table
    from rich.text import Text

    from daemon.judgement.needs import both_clocks

    now, end = (datetime.fromisoformat(answer[name]) for name in ("now", "ends"))
    head = f"night {answer['night']}, {both_clocks(now)} now, Sun {_degrees(answer['sun'])}"
    if answer["phase"] == "finished":
        head = f"night {answer['night']}"
    yield Text(head, style="bold")
    left = f", {_left((end - now).total_seconds())} left" if now < end else ""
    yield Text(f"{_PHASES[answer['phase']]} {both_clocks(end)}{left}")
    if not answer["needs"]:
        yield Text("no science or standard frames: nothing is needed")
        return
    yield Text("")
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(width=11, no_wrap=True)
    made.add_column(overflow="fold")
    shown = [need for need in answer["needs"] if need["state"] != "not needed"]
    for number, need in enumerate(shown):
        for label, text in _need(need):
            made.add_row(label, text)
        if number < len(shown) - 1:
            made.add_row("", "")
    yield made
    for need in answer["needs"]:
        if need["state"] == "not needed":
            yield Text(f"not needed: {need['what']} ({need['how']})", style="dim")
    n = answer["missing"]
    yield Text("")
    yield Text("nothing is missing" if n == 0 else f"{n} not there yet" if n > 1 else "1 not there yet")


def _need(need: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Lines of one need, each with what stands to its left."""
    from rich.text import Text

    from daemon.logs import printable

    state = need["state"]
    yield Text(state, style=_STYLES.get(state, "")), Text(need["what"], style="bold")
    taken = f"{need['taken']}; " if state == "being taken" else ""
    yield Text(""), Text(printable(f"for {_users(need['for'])}"))
    if state == "there":
        yield Text(""), Text(need["have"], style="dim")
    else:
        yield Text(""), Text(f"have {taken}{need['have']}")
        yield Text(""), Text(printable(need["how"]))
    if need["until"] and state == "wanted" and need["left_seconds"] and need["kind"] == "standard":
        from daemon.judgement.needs import both_clocks

        until = datetime.fromisoformat(need["until"])
        yield Text(""), Text(f"until {both_clocks(until)}, {_left(need['left_seconds'])} left")
    for warning in need["warnings"]:
        yield Text("", style="yellow"), Text(printable(warning), style="yellow")


def _users(users: list[Mapping[str, Any]]) -> str:
    told = [
        f"{u['program']} {u['filter']}, {u['frames']} frame{'s' if u['frames'] != 1 else ''}"
        f"{' of a standard' if u['role'] == 'standard' else ''} since {u['since'][11:16]} UT"
        for u in users[:MOST]
    ]
    more = [f"{len(users) - MOST} more"] if len(users) > MOST else []
    return "; ".join(told + more)


def _degrees(height: float) -> str:
    return f"{abs(height):.0f}° {'above' if height >= 0 else 'below'} the horizon"


def _left(seconds: float) -> str:
    hours, minutes = divmod(int(seconds // 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
