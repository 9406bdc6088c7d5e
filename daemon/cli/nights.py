"""nirid nights: which nights there are, and in which a programme or an object was observed."""

from __future__ import annotations

import click

from daemon.cli import Settings
from daemon.cli.output import console, json_option, print_json, table
from daemon.cli.report import database
from daemon.cli.words import Night


@click.command(short_help="The nights that there are: all, or those of a programme or an object.")
@click.option("--programme", "--program", default="", metavar="NAME", help="Only nights with frames of it.")
@click.option("--object", "object_", default="", metavar="NAME", help="Only nights with frames of it.")
@click.option("--before", type=Night(), metavar="NIGHT", help="Only nights before this UT date.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=60, show_default=True, help="How many.")
@json_option
@click.pass_obj
def nights(
    settings: Settings, programme: str, object_: str, before: str | None, limit: int, as_json: bool
) -> None:
    """The latest nights first, with how many frames were taken, and how many of them are meant.

    \b
    nirid nights --programme GN-2016A-Q-5
    nirid nights --object "SN 2014J" --limit 1      # when it was observed last

    Case does not count, nor do blanks, _ and - of an object. What has just that name is meant; where nothing
    has, what has it in its name. With both, frames that are of both count.
    """
    from daemon.judgement import sun
    from daemon.ledger.nightsearch import EVER
    from daemon.logs import printable
    from daemon.people import nightlist

    until = sun.day_of(before)[0].timestamp() if before else EVER
    with database(settings) as (_, db):
        rows = nightlist.rows(db, programme=programme, object_=object_, limit=limit, before=until)
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("no such night is on record")
        return
    console().print(table(("night", "frames"), [(r["night"], printable(nightlist.line(r))) for r in rows]))
