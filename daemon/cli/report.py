"""nirid status, ledger, audit: what the daemon knows, read from its database whether it runs or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from daemon.cli import FAILED, Settings
from daemon.cli.output import busy, coloured, console, json_option, print_json, table
from daemon.cli.words import Night, state_of_a_file

if TYPE_CHECKING:
    from daemon.ledger.store import Reader


@contextmanager
def database(settings: Settings) -> Iterator[tuple[Any, Reader]]:
    """(configuration, what the ledger's questions are asked of); one clear line when there is no database."""
    from daemon.instance import with_last_run
    from daemon.ledger.reading import reading
    from pipeline.errors import NiridError

    config = with_last_run(settings.load())
    if not config.database.exists():
        raise NiridError(f"{config.database}: no database; has the daemon run with this state folder?")
    with reading(config.database) as db:
        yield config, db


def group_of(db: Reader, target: str) -> int:
    """The group that a word means: itself, of a job, of a product, or the first of a frame."""
    from daemon.ledger import answers, contents, targets
    from pipeline.errors import NiridError

    found = targets.find(db, target)
    if found.kind == "group":
        return found.id
    if found.kind == "job":
        return answers.job(db, found.id).group
    if found.kind == "product":
        return answers.job(db, answers.product(db, found.id).job).group
    content = contents.by_number(db, found.id)
    groups = contents.groups_of_frame(db, content.frame) if content.frame else []
    if not groups:
        raise NiridError(f"{target}: in no group")
    return groups[0]


@click.command(short_help="Every content ever seen, its state, and why.")
@click.option("--night", type=Night(), metavar="NIGHT", help="Only this UT date: 20160102 or 2016-01-02.")
@click.option(
    "--state",
    "states",
    multiple=True,
    metavar="STATE|DIR",
    help="Only files in this state; a path is the folder of the database.",
)
@json_option
@click.pass_obj
def ledger(settings: Settings, night: str | None, states: tuple[str, ...], as_json: bool) -> None:
    """Every content ever seen: its state, why, and what it was used for. With --json one object a line.

    \b
    nirid ledger --state quarantined
    nirid ledger --night 2016-01-02 --state /var/lib/nirid --state excluded
    """
    from daemon.ledger import contents

    wanted, folder = state_of_a_file(states)
    settings.state = folder or settings.state
    with database(settings) as (_, db):
        rows = list(contents.everything(db, night=night, state=wanted))
    if as_json:
        for row in rows:
            print_json(row, one_line=True)
        return
    shown = [
        (
            (row["sha256"] or "")[:12],
            coloured(row["state"]),
            row["runs"],
            ", ".join(map(str, row["group"])),
            row["paths"][0] if row["paths"] else "",
            row["reason"],
        )
        for row in rows
    ]
    console().print(table(("sha256", "state", ">runs", "group", "path", "why"), shown))


@click.command(short_help="Is every file accounted for, every product whole?")
@click.option("--deep", is_flag=True, help="Hash every file again.")
@json_option
@click.pass_obj
@click.pass_context
def audit(ctx: click.Context, settings: Settings, deep: bool, as_json: bool) -> None:
    """Hold every file on disk against the ledger; exit 0 only if all are accounted for and whole."""
    from daemon.ledger.cells import damaged_cells
    from daemon.upkeep import audit as upkeep_audit
    from pipeline.errors import NiridError

    with database(settings) as (config, db), busy("looking at every file and every product"):
        if cells := damaged_cells(db):
            raise NiridError(f"{config.database} is damaged: {', '.join(cells)} cannot be read")
        answer = upkeep_audit.audit(db, config.drop_folders, config.product_folder, deep=deep)
    if as_json:
        print_json(answer)
    else:
        out = console()
        for state, n in answer["files"]["by_state"].items():
            out.print(f"{n:6} files {state}", markup=False)
        out.print(f"{answer['products']['total']:6} products", markup=False)
        bad = answer["unaccounted"] + answer["products"]["broken"]
        if bad:
            out.print(table(("path", "why"), [(item["path"], item["why"]) for item in bad]))
        else:
            out.print("every file is in one known state, every product is whole", markup=False)
    if not upkeep_audit.is_clean(answer):
        ctx.exit(FAILED)
