"""nirid doctor: can the daemon work here?"""

from __future__ import annotations

from pathlib import Path

import click

from daemon.cli import FAILED, Settings, absolute
from daemon.cli.output import busy, console, json_option, print_json


@click.command(short_help="Do events work here, is there room, does a worker start?")
@click.option("--drop", multiple=True, metavar="DIR", help="Folder to watch, instead of the configured ones.")
@click.option("--products", metavar="DIR", help="Folder for the products.")
@json_option
@click.pass_obj
@click.pass_context
def doctor(
    ctx: click.Context, settings: Settings, drop: tuple[str, ...], products: str | None, as_json: bool
) -> None:
    """Look at everything that the daemon needs, and say what is wrong. Run it as the user of the service.

    \b
    nirid doctor                                   with the folders of the last run, or of --config
    sudo -u nirid nirid doctor                     the service of this machine
    nirid doctor --drop /nfs/niri --json

    Does an event arrive for a touched file, or will the folder be polled? Which file systems are these?
    Clock, permissions, locks, free space, limits, integrity of the database, versions of what the pixels
    depend on, what the processor can do. A worker is started and does every recipe once: seconds, or on a
    new machine, where it compiles, a minute or two.
    Exit 1 when something is wrong; notes alone are no fault.
    """
    from daemon.instance import with_last_run
    from daemon.upkeep import doctor as upkeep_doctor

    config = with_last_run(
        settings.load(
            watch_folders=[absolute(folder) for folder in drop] or None, products_folder=absolute(products)
        )
    )
    with busy("looking, and starting a worker"):
        found = upkeep_doctor.examine(config)
    wrong = [finding for finding in found if finding.level == "wrong"]
    if as_json:
        rows = [{"check": f.check, "level": f.level, "text": f.text} for f in found]
        print_json({"ok": not wrong, "checks": rows})
    else:
        from rich.text import Text

        from daemon.logs import printable

        out = console()
        style = {"ok": "green", "note": "yellow", "wrong": "bold red"}
        for f in found:
            line = f"{printable(f.check.replace(str(Path.cwd()) + '/', ''))}: {printable(f.text)}"
            out.print(Text(f"{f.level:<6}", style=style[f.level]) + Text(line))
        out.print(f"{len(wrong)} things are wrong" if wrong else "the daemon can work here", markup=False)
    if wrong:
        ctx.exit(FAILED)
