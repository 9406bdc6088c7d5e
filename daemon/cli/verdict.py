"""nirid verdict, nirid trend: were conditions what was asked for, and how a number went over the days."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from daemon.cli import Settings
from daemon.cli.output import Place, console, json_option, print_json, print_sequences, table
from daemon.cli.report import database, group_of
from daemon.cli.words import Night
from pipeline.errors import NiridError

GLYPHS = {"met": "●", "borderline": "◐", "not met": "▲", "not measured": "○", "not asked": "·"}


@click.command(short_help="Were image quality and cloud what was asked for, and since when not?")
@click.argument("target", required=False)
@click.option("--night", type=Night(), metavar="NIGHT", help="This UT date instead of the latest.")
@json_option
@click.pass_obj
def verdict(settings: Settings, target: str | None, night: str | None, as_json: bool) -> None:
    """The verdicts on each sequence of the night, or on the one that TARGET belongs to, frame by frame.

    \b
    nirid verdict                          the sequences of the latest night
    nirid verdict N20160102S0271_image     one sequence with its frames; also a group or a frame

    Requests are those of the headers (REQIQ ...), or of [[request]] in the configuration. A verdict never
    fails data: the QA state is a person's, and one is only suggested.
    """
    from daemon.people import verdicts

    with database(settings) as (config, db):
        if target is None:
            answer = verdicts.answer(db, night, config.request, time.time())
        else:
            group = group_of(db, target)
            answer = verdicts.of_group(db, group, config.request, frames=True)
    if as_json:
        print_json(answer)
        return
    print_sequences(answer, _sequence, one=target is not None)


def _sequence(row: Mapping[str, Any]) -> Iterator[str]:
    from daemon.people.verdicts import lines

    if not row["frames"]:
        yield f"group {row['group']}: no usable frames"
        return
    name = " ".join(word for word in (row["program"], row["object"], row["filter"]) if word)
    seen = f"{row['measured']} of {row['frames']} measured"
    yield f"group {row['group']}  {name}  {row['first']} to {row['last']}, {seen}"
    state = row["verdicts"]["IQ"]["state"]
    for n, words in enumerate(lines(row)):
        yield f"  {GLYPHS[state] if n == 0 else ' '} {words}"
    for frame in row.get("each", ()):
        glyph, words = GLYPHS[frame["IQ"]["state"]], frame["IQ"]["words"]
        yield f"    {frame['taken'][11:19]}  {frame['name']}  {glyph} {words}"


@click.command(short_help="How a measured number went over the days: text, and a picture.")
@click.argument("name", required=False)
@click.option("--key", help='One setting only, as "f6 K(prime)".')
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="The last so many days.")
@click.option("--picture", type=Place(), metavar="FILE.png", help="Draw it, too.")
@json_option
@click.pass_obj
def trend(
    settings: Settings, name: str | None, key: str | None, days: float | None, picture: Any, as_json: bool
) -> None:
    """Print every value of a measure in order of time; without NAME, which measures there are.

    \b
    nirid trend                             the names
    nirid trend fwhm_zenith --days 30       seeing at zenith of the last month
    nirid trend sky --key "f6 J" --picture sky.png
    """
    from daemon.ledger import measures
    from daemon.people import trends

    with database(settings) as (_, db):
        if name is None:
            known = measures.names(db)
            rows = [{"name": each, "keys": measures.keys(db, each)} for each in known]
            print_json(rows) if as_json else console().print(
                table(["measure", "settings"], [[r["name"], ", ".join(r["keys"])] for r in rows])
            )
            return
        since = time.time() - days * 86400 if days else 0.0
        points = measures.trend(db, name, key=key, since=since)
        if not points:
            raise NiridError(trends.nothing(db, name, key, days))
    if as_json:
        print_json([trends.plain(point) for point in points])
        return
    if picture is not None:
        trends.save(picture, points)
    for line in trends.lines(points, console().width):
        console().print(line, soft_wrap=True, highlight=False)
