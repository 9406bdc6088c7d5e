"""nirid report: what was taken in a night, what came of it, what is missing and what went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from daemon.cli import Settings
from daemon.cli.output import Place, console, json_option, overwrite_option, print_json
from daemon.cli.report import database
from daemon.cli.words import Night

if TYPE_CHECKING:
    from daemon.upkeep.reports import Report


@click.command("report", short_help="The report of a night: sequences, verdicts, what is missing or held.")
@click.argument("night", type=Night(), metavar="NIGHT")
@click.option(
    "--html",
    "page",
    is_flag=False,
    flag_value="",
    type=Place(path_type=Path),
    metavar="[FILE]",
    help="Write it as one page to print (nirid-NIGHT.html), and its data beside it (.json).",
)
@overwrite_option
@json_option
@click.pass_obj
def report(settings: Settings, night: str, page: Path | None, overwrite: bool, as_json: bool) -> None:
    """What was taken on a UT date, what came of it, what is missing, held back or out of use, and why.

    \b
    nirid report 20160102
    nirid report 2016-01-02 --json
    nirid report 20160102 --html                  # nirid-20160102.html, with curves and thumbnails
    nirid report 20160102 --html monday.html

    The daemon keeps the page of every night in PRODUCTS/reports, from sunrise on.
    """
    from datetime import UTC, datetime

    from daemon.config.setting import setting_of
    from daemon.logs import printable
    from daemon.people import nightreport
    from daemon.upkeep import reports

    with database(settings) as (config, db):
        setting, now = setting_of(config), datetime.now(UTC)
        if page is not None:
            made = reports.build(db, config, setting, night, now)
            _write(made, page if page.name else Path(f"nirid-{night}.html"), overwrite, as_json)
            return
        breakpoints = setting.policy.breakpoints
        answer = nightreport.answer(db, setting.rules, config.request, night, now, breakpoints)
    if as_json:
        print_json(answer)
        return
    for line in nightreport.lines(answer):
        console().print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _write(made: Report, page: Path, overwrite: bool, as_json: bool) -> None:
    """Both files, and one line that says so."""
    from daemon.upkeep import reports
    from pipeline.errors import NiridError

    data = page.with_suffix(".json")
    if data == page:
        raise click.UsageError(f"{page}: the page is meant, its data go into {data.name} beside it")
    if not page.absolute().parent.is_dir():
        raise NiridError(f"{page.absolute().parent}: no such folder")
    reports.write(made, page.absolute(), data.absolute(), overwrite=overwrite)
    if as_json:
        print_json({"page": str(page.absolute()), "data": str(data.absolute()), "bytes": page.stat().st_size})
    else:
        click.echo(f"{page}: {page.stat().st_size / 1e3:.0f} kB; its data: {data}")
