"""nirid report: what was taken in a night, what came of it, what is missing and what went wrong."""

from __future__ import annotations

import click

from daemon.cli import Settings
from daemon.cli.output import console, json_option, print_json
from daemon.cli.report import database
from daemon.cli.words import Night


@click.command("report", short_help="The report of a night: sequences, verdicts, what is missing or held.")
@click.argument("night", type=Night(), metavar="NIGHT")
@json_option
@click.pass_obj
def report(settings: Settings, night: str, as_json: bool) -> None:
    """What was taken on a UT date, what came of it, what is missing, held back or out of use, and why.

    \b
    nirid report 20160102
    nirid report 2016-01-02 --json
    """
    from datetime import UTC, datetime

    from daemon.config.setting import setting_of
    from daemon.logs import printable
    from daemon.people import nightreport

    with database(settings) as (config, db):
        setting, now = setting_of(config), datetime.now(UTC)
        breakpoints = setting.policy.breakpoints
        answer = nightreport.answer(db, setting.rules, config.request, night, now, breakpoints)
    if as_json:
        print_json(answer)
        return
    for line in nightreport.lines(answer):
        console().print(printable(line), markup=False, highlight=False, soft_wrap=True)
