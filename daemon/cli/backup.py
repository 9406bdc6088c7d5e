"""nirid backup: a copy of the database."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli import Settings
from daemon.cli.output import json_option, print_json


@click.command(short_help="A consistent copy of the database, while the daemon runs.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@click.pass_obj
def backup(settings: Settings, file: Path, as_json: bool) -> None:
    """Copy the database to FILE, consistent and whole, while the daemon runs.

    \b
    nirid backup /backup/nirid-monday.db

    The daemon does it by itself every night (STATE/backups, the newest seven). To restore one: stop the
    daemon, put the copy in the place of STATE/nirid.db without -wal and -shm beside it, start the daemon.
    Products that were made since are taken back from disk; nothing is reduced again.
    """
    from daemon import backup as copying

    config = settings.load()
    size = copying.backup(config.database, file.absolute())
    if as_json:
        print_json({"file": str(file.absolute()), "bytes": size})
    else:
        click.echo(f"{file}: {size / 1e6:.1f} MB, checked")
