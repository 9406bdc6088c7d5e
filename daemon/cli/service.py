"""nirid run, nirid check-config: the daemon and its configuration."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from daemon.cli import FAILED, Settings, absolute
from daemon.cli.output import coloured, console, json_option, print_json, table

if TYPE_CHECKING:
    from daemon.config.options import Config

MOST_REASONS = 15  # for which files are in no product, that are shown


@click.command(short_help="The daemon; with --until-idle, all that is there and done.")
@click.option("--drop", multiple=True, metavar="DIR", help="Folder to watch; may be given several times.")
@click.option("--products", metavar="DIR", help="Folder for the products.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Jobs at the same time.")
@click.option(
    "--until-idle", is_flag=True, help="Take what is there as though every wait had passed; end when done."
)
@click.option(
    "--unpack",
    is_flag=True,
    help="With --until-idle: take frames out of tar files, into folders beside them.",
)
@json_option
@click.pass_obj
@click.pass_context
def run(
    ctx: click.Context,
    settings: Settings,
    drop: tuple[str, ...],
    products: str | None,
    workers: int | None,
    until_idle: bool,
    unpack: bool,
    as_json: bool,
) -> None:
    """Watch the drop folders and reduce what lands, until SIGTERM or Ctrl-C.

    With --drop or --products it is not the service of this machine: /etc/nirid/nirid.toml is not read, and
    the state folder is ./state, or that of --state, which the other commands then need as well.

    With --until-idle: one sweep of the folders, every group reduced, exit 0. Exit 1 if a job failed, or a
    folder, a file or a disk was in the way. Same decisions and same products as the live daemon. At the end
    it says which files are in no product, and why. A night from the archive, tar file and all:

    \b
    nirid run --until-idle --unpack --drop 20160102 --products reduced
    """
    from daemon import logs
    from daemon import run as run_
    from daemon.config import service

    if unpack and not until_idle:
        raise click.UsageError("--unpack goes with --until-idle: a service does not open tar files")

    config = settings.load(
        of_service=not (drop or products),
        watch_folders=[absolute(folder) for folder in drop] or None,
        products_folder=absolute(products),
        engine_workers=workers,
    )
    logs.configure(config.log.level, config.log.format, wait=False)
    if not config.path and not settings.state and (service_file := service.file()):
        ask = f"nirid --state {config.state_folder} status"
        logs.get().info("not_the_service", passed_over=str(service_file), ask=ask)
    if not until_idle:
        run_.serve(config)
        return
    answer = _watched(config, unpack=unpack, level=config.log.level if settings.verbose else "warning")
    if as_json:
        print_json(answer)
    else:
        _print_batch(answer)
    logs.flush()
    for why in answer["blocked"]:
        click.echo(f"nirid: {logs.printable(why)}", err=True)
    if answer["failed"] or answer["blocked"]:
        ctx.exit(FAILED)


def _watched(config: Config, *, unpack: bool, level: str) -> dict[str, Any]:
    """The batch run; at a terminal with a bar, and only what is worth a warning beside it."""
    from daemon import logs
    from daemon import run as run_
    from daemon.cli.batchscreen import Screen

    with Screen() as screen:
        if screen.at_a_terminal:
            logs.configure(level, config.log.format, screen.beside, wait=False)
        try:
            return run_.batch(config, unpack=unpack, shown=screen)
        finally:
            logs.flush()
            if screen.at_a_terminal:
                logs.configure(config.log.level, config.log.format, wait=False)


def _print_batch(answer: dict[str, Any]) -> None:
    from daemon.cli import streams

    out = console()
    rows = [("made", p["name"], p["path"]) for p in answer["products"]]
    rows += [(job["state"], job["name"] or job["rule"], job["reason"]) for job in answer["waiting"]]
    rows += [(job["state"], job["name"], job["reason"]) for job in answer["failed"]]
    shown = table(("", "product", ""), [(coloured(row[0]), *row[1:]) for row in rows])
    left = [(one["files"], one["state"], one["reason"], one["example"]) for one in answer["left_out"]]
    try:
        out.print(shown)
        if left:
            files = sum(row[0] for row in left)
            out.print(f"\n{files} files are in no product:", markup=False)
            out.print(table((">files", "", "why", "such as"), left[:MOST_REASONS]))
            if more := left[MOST_REASONS:]:
                count = sum(row[0] for row in more)
                out.print(f"and {count} more, for {len(more)} other reasons: nirid ledger", markup=False)
        streams.finish()
    except streams.NotWritten as error:  # the work is done all the same
        click.echo(f"nirid: {error}: the list of products is not shown", err=True)


@click.command("check-config", short_help="Every option, its value, where it came from.")
@json_option
@click.pass_obj
def check_config(settings: Settings, as_json: bool) -> None:
    """Every option, its value, and where it came from. Exit 78 and one line for each mistake."""
    from daemon.config import load

    loaded = settings.load()
    rows = list(load.options(loaded))
    if as_json:
        options = {name: {"value": value, "from": origin} for name, value, origin, _ in rows}
        where = {"found": _found_by(settings, loaded.path), "state": str(loaded.state_folder)}
        print_json({"file": loaded.path or None, **where, "options": options})
        return
    out = console()
    out.print(
        f"configuration file: {loaded.path or 'none'} ({_found_by(settings, loaded.path)})", markup=False
    )
    out.print(f"state folder: {loaded.state_folder}", markup=False)
    shown = [(name, _short(value), origin, doc) for name, value, origin, doc in rows]
    out.print(table(("option", "value", "from", ""), shown))


def _found_by(settings: Settings, path: str) -> str:
    """Why this file is in force, or why none is."""
    from daemon.config import service
    from daemon.config.service import FILE

    if settings.config:
        return "of --config"
    if os.environ.get("NIRID_CONFIG"):
        return "of $NIRID_CONFIG"
    if path:
        return "of the service on this machine"
    if settings.state and (file := service.file()):
        return f"{file} is the service's, and --state means another state folder"
    return f"{service.place(FILE)} is not there"


def _short(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "\n".join(str(item.get("recipe") or item) for item in value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
