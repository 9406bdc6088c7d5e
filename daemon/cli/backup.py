"""nirid backup, nirid rebuild: the database copied, and made anew of what is on disk."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli import FAILED, Settings, absolute
from daemon.cli.output import busy, console, json_option, overwrite_option, print_json, table


@click.command(short_help="A consistent copy of the database, while the daemon runs.")
@click.argument("file", type=click.Path(path_type=Path))
@overwrite_option
@json_option
@click.pass_obj
def backup(settings: Settings, file: Path, overwrite: bool, as_json: bool) -> None:
    """Copy the database to FILE, consistent and whole, while the daemon runs.

    \b
    nirid backup /backup/nirid-monday.db

    The daemon does it by itself every night (STATE/backups, the newest seven). To restore one: stop the
    daemon, put the copy in the place of STATE/nirid.db without -wal and -shm beside it, start the daemon.
    Products that were made since are taken back from disk; nothing is reduced again.
    """
    from daemon import backup as copying

    config = settings.load()
    with busy("copying and checking"):
        size = copying.backup(config.database, file.absolute(), overwrite=overwrite)
    if as_json:
        print_json({"file": str(file.absolute()), "bytes": size})
    else:
        click.echo(f"{file}: {size / 1e6:.1f} MB, checked")


@click.command(short_help="The database made anew of what is on disk.")
@click.option("--drop", multiple=True, metavar="DIR", help="Folder with the raw frames.")
@click.option("--products", metavar="DIR", help="Folder with the products.")
@json_option
@click.pass_obj
@click.pass_context
def rebuild(
    ctx: click.Context, settings: Settings, drop: tuple[str, ...], products: str | None, as_json: bool
) -> None:
    """Make the database anew of raw frames, products and decisions on disk. Nothing is reduced again.

    \b
    systemctl stop nirid
    nirid --state /var/lib/nirid rebuild --drop /srv/nirid/drop --products /srv/nirid/products
    systemctl start nirid

    A database that is there is kept under another name. The daemon does the same by itself when it starts
    and finds its database gone or damaged. Exit 1 when the audit afterwards is not clean.
    """
    from daemon import app, instance
    from daemon.audit import is_clean

    config = settings.load(
        watch_folders=[absolute(folder) for folder in drop] or None, products_folder=absolute(products)
    )
    answer = app.rebuild_offline(instance.with_last_run(config))
    if as_json:
        print_json(answer)
    else:
        out = console()
        if answer["kept"]:
            out.print(f"the database that was there is {answer['kept']}", markup=False)
        out.print(
            f"{answer['files']} files, {answer['products']} products, {answer['decisions']} decisions",
            markup=False,
        )
        bad = answer["left"] + answer["audit"]["unaccounted"] + answer["audit"]["products"]["broken"]
        if bad:
            out.print(table(("path", "why"), [(item["path"], item["why"]) for item in bad]))
        else:
            out.print("every file is in one known state, every product is whole", markup=False)
    if not is_clean(answer["audit"]):
        ctx.exit(FAILED)
