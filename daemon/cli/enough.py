"""nirid enough: how deep is it, how many frames more?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import click

from daemon.cli import Settings
from daemon.cli.output import json_option, print_json, print_sequences
from daemon.cli.report import database, group_of
from daemon.cli.words import Night

GLYPHS = {"enough": "●", "more": "◐", "not reachable": "▲", "not reached": "▲"}


@click.command(short_help="How deep is it, is that enough, how many frames and minutes more?")
@click.argument("target", required=False)
@click.option("--night", type=Night(), metavar="NIGHT", help="This UT date instead of the latest.")
@click.option("--magnitude", type=float, metavar="MAG", help="Tell the signal-to-noise ratio there, too.")
@json_option
@click.pass_obj
def enough(
    settings: Settings, target: str | None, night: str | None, magnitude: float | None, as_json: bool
) -> None:
    """The depth of each sequence of the night, or of the one that TARGET belongs to, and of more frames.

    \b
    nirid enough                           the sequences of the latest night
    nirid enough N20160102S0271_image      the sequence of a product; also of a frame, a group
    nirid enough --magnitude 19.5          with the signal-to-noise ratio of a star of 19.5 mag

    Depth is that of a point source with 5 sigma. What is enough is a [[goal]] in the configuration.
    """
    from daemon.people import enough as asked

    with database(settings) as (config, db):
        now = time.time()
        if target is None:
            answer = asked.answer(db, night, config.goal, now, magnitude)
        else:
            answer = asked.of_group(db, group_of(db, target), config.goal, now, magnitude)
    if as_json:
        print_json(answer)
        return
    print_sequences(answer, _sequence, one=target is not None)


def _sequence(row: Mapping[str, Any]) -> Iterator[str]:
    from daemon.people.enough import lines

    if not row["frames"]:
        yield f"group {row['group']}: no usable frames"
        return
    name = " ".join(word for word in (row["program"], row["object"], row["filter"]) if word)
    yield f"group {row['group']}  {name}  {row['first']} to {row['last']}, {row['frames']} frames"
    glyph = GLYPHS.get(row["state"], "○")
    yield from (f"  {glyph if n == 0 else ' '} {line}" for n, line in enumerate(lines(row)))
