"""nirid backup, restore, rebuild: the database copied, put back, and made anew of what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daemon.cli import FAILED, Settings, absolute
from daemon.cli.output import Place, busy, console, json_option, overwrite_option, print_json, table


@click.command(short_help="A consistent copy of the database, while the daemon runs.")
@click.argument("file", type=Place(path_type=Path))
@overwrite_option
@json_option
@click.pass_obj
def backup(settings: Settings, file: Path, overwrite: bool, as_json: bool) -> None:
    """Copy the database to FILE, consistent and whole, while the daemon runs.

    \b
    nirid backup /backup/nirid-monday.db

    The daemon does it by itself every night (STATE/backups, the newest seven). nirid restore puts one back.
    """
    from daemon.upkeep import backup as upkeep_backup

    config = settings.load()
    with busy("copying and checking"):
        size = upkeep_backup.backup(config.database, file.absolute(), overwrite=overwrite)
    if as_json:
        print_json({"file": str(file.absolute()), "bytes": size})
    else:
        click.echo(f"{file}: {size / 1e6:.1f} MB, checked")


@click.command(short_help="Put a copy of the database back.")
@click.argument("file", type=Place(path_type=Path, readable=False))
@click.option("--drop", multiple=True, metavar="DIR", help="Folder with the raw frames.")
@click.option("--products", metavar="DIR", help="Folder with the products.")
@json_option
@click.pass_obj
@click.pass_context
def restore(
    ctx: click.Context,
    settings: Settings,
    file: Path,
    drop: tuple[str, ...],
    products: str | None,
    as_json: bool,
) -> None:
    """Put FILE, a copy of the database, in its place, with all that was decided and made since.

    \b
    systemctl stop nirid
    nirid restore /var/lib/nirid/backups/nirid-20160102.db
    systemctl start nirid

    As root, or as the account of the service; what it writes belongs to that. The copy is checked before
    anything is changed, and the database that was there is kept under another name. Frames that have landed
    since, products that were made and decisions that were taken (accept as well as reject) are taken in, in
    order; nothing is reduced again. Exit 75 while a daemon runs; 78 when the copy is of a newer program, or
    the folders may not be written; 1 when it is no whole copy, or the audit afterwards is not clean.
    """
    from daemon import instance
    from daemon import restore as restore_

    config = settings.load(
        watch_folders=[absolute(folder) for folder in drop] or None, products_folder=absolute(products)
    )
    with busy("checking and restoring"):
        answer = restore_.restore(instance.with_last_run(config), file.absolute())
    _tell(ctx, answer, as_json, f"{file} is in the place of {config.database}")


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
    nirid rebuild
    systemctl start nirid

    As root, or as the account of the service; what it writes belongs to that. A database that is there is
    kept under another name. The daemon does the same by itself when it starts and finds its database gone
    or damaged. Exit 1 when the audit afterwards is not clean.
    """
    from daemon import app, instance

    config = settings.load(
        watch_folders=[absolute(folder) for folder in drop] or None, products_folder=absolute(products)
    )
    answer = app.rebuild_offline(instance.with_last_run(config))
    _tell(ctx, answer, as_json)


def _tell(ctx: click.Context, answer: dict[str, Any], as_json: bool, first: str = "") -> None:
    """What was taken in, and what is wrong afterwards: then exit 1."""
    from daemon.upkeep.audit import is_clean

    if as_json:
        print_json(answer)
    else:
        out = console()
        if first:
            out.print(first, markup=False, soft_wrap=True)
        if answer["kept"]:
            out.print(f"the database that was there is {answer['kept']}", markup=False, soft_wrap=True)
        out.print(
            f"taken in: {answer['files']} files, {answer['products']} products, "
            f"{answer['decisions']} decisions",
            markup=False,
        )
        bad = answer["left"] + answer["audit"]["unaccounted"] + answer["audit"]["products"]["broken"]
        if bad:
            out.print(table(("path", "why"), [(item["path"], item["why"]) for item in bad]))
        else:
            out.print("every file is in one known state, every product is whole", markup=False)
    if not is_clean(answer["audit"]):
        ctx.exit(FAILED)
