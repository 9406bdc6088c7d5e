"""nirid replay: an archived night lands once more."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from daemon.cli.output import Place, json_option, print_json


@click.command(short_help="An archived night lands again, in order of observation.")
@click.argument("folder", type=Place(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--into",
    required=True,
    type=Place(file_okay=False, path_type=Path),
    metavar="DROP",
    help="Where the files land.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="X",
    help="So many times as fast as it was; 0 or inf is without waiting.",
)
@json_option
def replay(folder: Path, into: Path, speed: float, as_json: bool) -> None:
    """Copy the FITS files of FOLDER into a drop folder, each when its exposure ended.

    Files without a time, or from another year, as bad-pixel masks, come first, at once. Each gets its name
    when it is complete.
    """
    from daemon import logs
    from daemon.demo import replay as demo_replay
    from pipeline.errors import NiridError

    logs.configure()
    began = time.monotonic()
    files = demo_replay.in_order(folder)
    if not files:
        raise NiridError(f"{folder}: no FITS file in it")
    shown = sys.stderr.isatty() and not as_json
    count = 0

    def landed(path: Path) -> None:
        nonlocal count
        count += 1
        if shown:
            click.echo(f"\r\033[K{count}/{len(files)} {path.name} ", nl=count == len(files), err=True)
        else:
            logs.get().info("file_replayed", file=str(path), number=count, of=len(files))

    paths = demo_replay.replay(files, folder, into, speed, on_file=landed)
    seconds = round(time.monotonic() - began, 3)
    if as_json:
        print_json({"files": [str(path) for path in paths], "seconds": seconds})
    else:
        click.echo(f"{len(paths)} files have landed in {into} in {seconds:g} s")
