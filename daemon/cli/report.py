"""nirid status, ledger, audit: what the daemon knows, read from its database whether it runs or not."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import click

from daemon.cli import FAILED, Settings
from daemon.cli.output import busy, coloured, console, json_option, print_json, table
from daemon.cli.words import Night, state_of_a_file


@contextmanager
def database(settings: Settings) -> Iterator[tuple[Any, sqlite3.Connection]]:
    """(configuration, connection that cannot write); one clear line when there is no database."""
    from daemon import schema
    from daemon.instance import with_last_run
    from daemon.ledger import connect_readonly, damaged
    from pipeline.errors import NiridError

    config = with_last_run(settings.load())
    if not config.database.exists():
        raise NiridError(f"{config.database}: no database; has the daemon run with this state folder?")
    try:
        db = connect_readonly(config.database)
    except sqlite3.Error as error:
        raise NiridError(f"{config.database}: {error}") from None
    with closing(db):
        try:
            yield config, db
        except sqlite3.DatabaseError as error:
            if schema.is_older(config.database):
                said = (
                    f"it is of an older schema ({error}); the next start of the daemon brings it up to date"
                )
                error = sqlite3.DatabaseError(said)
            elif "no such table" in str(error):  # killed before the first transaction
                error = sqlite3.DatabaseError("nothing is in it yet; the next start of the daemon fills it")
            raise NiridError(f"{config.database}: {error}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            if why := damaged(config.database):
                anew = "the next start of the daemon, or nirid rebuild, makes it anew"
                raise NiridError(f"{config.database} is damaged ({why}): {anew}") from None
            raise


@click.command(short_help="What runs, waits, failed; what is missing in each group.")
@json_option
@click.pass_obj
def status(settings: Settings, as_json: bool) -> None:
    """What is running, waiting and failed; per group what has arrived and what is missing."""
    from rich.markup import escape

    from daemon import instance, outdated, queries, requests
    from daemon.health import span
    from daemon.heart import setting_of

    with database(settings) as (config, db):
        running = instance.running(config)
        answer = {
            "daemon": running,
            "paused": _paused(config, running),
            "missing": [str(folder) for folder in config.drop_folders if not folder.is_dir()],
            "requests": len(requests.waiting(config.state_folder)),
            "outdated": outdated.count(
                lambda sql, *v: db.execute(sql, v).fetchall(), setting_of(config), config.parameters
            ),
            **queries.status(db),
            "now": queries.iso(time.time()),
            "waits": queries.waits(db),
            "refused": len(requests.refused(db, time.time() - 86400)),
        }
        products = queries.products(db)
    if as_json:
        print_json(answer)
        return
    out = console()
    daemon = answer["daemon"]
    out.print(
        f"daemon    running, process {daemon['pid']}" if daemon else "daemon    not running", markup=False
    )
    waits = answer["waits"]
    ago = "" if waits["arrival"] is None else span(time.time() - waits["arrival"])
    last = f"last frame {waits['name']}, {ago} ago" if ago else "no frame yet"
    out.print(f"clock     {answer['now'][:19].replace('T', ' ')} UTC; {last}", markup=False)
    if daemon and daemon["stalled"]:
        out.print(f"[bold red]stalled[/]   {escape(daemon['stalled'])}")
    if daemon and daemon["links"]:
        out.print(f"links     {daemon['links']} links in the drop folders are not followed", markup=False)
    if waits["publishing"]:
        out.print(f"waiting   {waits['publishing']} products are made and not in their places", markup=False)
    if answer["paused"]:
        out.print(f"[bold red]paused[/]    {escape(answer['paused'])}")
    for folder in answer["missing"]:
        out.print(f"[bold red]missing[/]   the drop folder {escape(folder)}: is it mounted?")
    if daemon and daemon["engine"]:
        out.print(f"[bold red]workers[/]   {escape(daemon['engine'])}")
    if answer["requests"]:
        out.print(f"requests  {answer['requests']} decisions wait to be applied", markup=False)
    if answer["refused"]:
        out.print(f"refused   {answer['refused']} decisions since yesterday (nirid requests)", markup=False)
    if answer["outdated"]:
        said = f"{answer['outdated']} products of an older release or configuration (requeue --outdated)"
        out.print(f"outdated  {said}", markup=False)
    for what in ("files", "jobs", "products"):
        counted = ", ".join(f"{n} {state}" for state, n in sorted(answer["counts"][what].items()))
        out.print(f"{what:9} {counted or 'none'}", markup=False)
    for state in ("running", "planned", "waiting", "failed"):
        if rows := answer[state]:
            out.print()
            out.print(table(("job", state, "recipe", "frames", "why"), [_job_row(row) for row in rows]))
    if groups := answer["groups"]:
        out.print()
        out.print(
            table(("group", "", "rule", "frames", "", "what is missing"), [_group_row(g) for g in groups])
        )
    if products:
        out.print()
        rows = [(p["night"], p["name"], p["version"], _waited(p), p["path"]) for p in products]
        out.print(table(("night", "product", ">version", ">after its last frame", "path"), rows))


def _paused(config: Any, running: dict[str, Any] | None) -> str:
    """Why no job is started; asked of the disk itself, since a full one may keep the daemon from saying."""
    from daemon import diskguard

    said = running["paused"] if running else ""
    return said or diskguard.of(config).check(0.0)


def _job_row(job: dict[str, Any]) -> tuple[Any, ...]:
    why = job["error"].strip().rpartition("\n")[2] or job["reason"]  # of a traceback what it says
    return job["id"], job["name"] or f"group {job['group']}", job["recipe"], len(job["inputs"]), why


def _waited(product: dict[str, Any]) -> str:
    """Empty while frames that have come since are not in it."""
    return "" if product["waited"] is None else f"{product['waited']:.1f} s"


def _group_row(group: dict[str, Any]) -> tuple[Any, ...]:
    names = [name.removesuffix(".fits") for name in group["names"]]
    span = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}" if names else ""
    return group["id"], coloured(group["state"]), group["rule"], group["frames"], span, group["reason"]


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
    from daemon import queries

    wanted, folder = state_of_a_file(states)
    settings.state = folder or settings.state
    with database(settings) as (_, db):
        rows = list(queries.ledger(db, night=night, state=wanted))
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
    from daemon import audit as auditing
    from daemon.cells import damaged_cells
    from pipeline.errors import NiridError

    with database(settings) as (config, db), busy("looking at every file and every product"):
        if cells := damaged_cells(db):
            raise NiridError(f"{config.database} is damaged: {', '.join(cells)} cannot be read")
        answer = auditing.audit(db, config.drop_folders, config.product_folder, deep=deep)
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
    if not auditing.is_clean(answer):
        ctx.exit(FAILED)
