"""nirid alerts, nirid acknowledge: what needs a person, and that somebody knows of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click

from daemon.cli import Settings
from daemon.cli.output import console, json_option, print_json
from daemon.cli.report import database
from pipeline.errors import NiridError


@click.command(short_help="What needs a person: why, since when, what to do.")
@json_option
@click.pass_obj
def alerts(settings: Settings, as_json: bool) -> None:
    """Everything that a person can do something about, as the page has it; first what nobody knows of yet.

    \b
    nirid alerts
    nirid acknowledge 1a2b3c4d --reason "disk is on its way" --hours 48
    """
    from rich.text import Text

    from daemon.logs import printable

    found = _found(settings)
    if as_json:
        print_json([alert.plain() for alert in found])
        return
    out = console()
    for alert in found:
        style = "dim" if alert.known_to else "bold red" if alert.level == "critical" else "yellow"
        out.print(
            Text(f"{alert.number}  ", style="dim") + Text(printable(alert.what), style=style), soft_wrap=True
        )
        lines = [alert.why, alert.do]
        if alert.known_to:
            until = datetime.fromtimestamp(alert.known_until, UTC)
            lines = [f"known to {alert.known_to} until {until:%Y-%m-%d %H:%M} UT: {alert.known_why}"]
        for line in filter(None, lines):
            out.print(Text(f"          {printable(line)}", style="dim"), soft_wrap=True)
    if not found:
        click.echo("nothing needs a person")


def _found(settings: Settings) -> Any:
    from daemon.config.setting import setting_of
    from daemon.web.alerts import everything

    with database(settings) as (config, db):
        return everything(config, setting_of(config), db, time.time())


@click.command(short_help="Say that an alert is known: it is not told again for some hours.")
@click.argument("number")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept with your name.")
@click.option(
    "--hours", type=click.FloatRange(0, 168, min_open=True), default=16.0, show_default=True, metavar="N",
    help="For how long.",
)  # fmt: skip
@json_option
@click.pass_obj
def acknowledge(settings: Settings, number: str, reason: str, hours: float, as_json: bool) -> None:
    """Say that an alert, by its number of nirid alerts, is known to you. It stays, with your name."""
    from daemon.cli.decide import hand_over, say

    wanted = number.removeprefix("alert:")
    alert = next((alert for alert in _found(settings) if alert.number == wanted), None)
    if alert is None:
        raise NiridError(f"{number}: there is no such alert (nirid alerts)")
    request = {"action": "acknowledge", "target": f"alert:{wanted}", "said": alert.what, "reason": reason}
    with database(settings) as (config, db):
        answer = hand_over(config, db, {**request, "hours": hours})
    if as_json:
        print_json({"action": "acknowledge", "target": f"alert:{wanted}", **answer})
    else:
        say(answer)
