"""nirid caldb: the calibration store of a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from daemon.cli.output import console, json_option, print_json, table
from daemon.cli.toolkit import files_argument
from daemon.cli.words import File, expanded, names_of

if TYPE_CHECKING:
    from pipeline.cal_service import LocalDB


F = TypeVar("F", bound=Callable[..., None])


def where_options(function: F) -> F:
    """-c and -d: which database is meant."""
    database = click.option("-d", "--database", metavar="FILE", type=File(), help="This database, no other.")
    config = click.option(
        "-c", "--config", "calibs", metavar="FILE", type=File(), help="Which databases.  [default: $NIRIDRC]"
    )
    return config(database(function))


def _local(calibs: str | None, database: str | None) -> LocalDB:
    from pipeline import cal_service

    return cal_service.LocalDB(database) if database else cal_service.set_local_database(calibs)


@click.group(short_help="Keep processed calibrations, so that reduce finds them.")
def caldb() -> None:
    """Keep processed calibrations in a small database, so that nirid reduce finds them by itself.

    \b
    nirid caldb init                      make cal_manager.db here, or as the configuration says
    nirid caldb add bpm_20010317_niri_niri_11_full_1amp.fits
    nirid caldb config                    which databases are asked, and which is written to
    nirid caldb list
    nirid caldb get N20160102S0270.fits   what would be used for this frame, or why nothing
    nirid caldb remove N20160102S0423_dark.fits

    \b
    The configuration is given with -c, else $NIRIDRC, else nirirc here, else ~/.nirid/nirirc:
        [calibs]
        databases = ~/nirid/cal_manager.db get store
                    /var/lib/nirid/nirid.db get

    Into the daemon's database only the daemon writes: add and remove hand it a request, which waits while
    no daemon runs. A calibration that lands in its drop folder is registered there by itself.
    """


@caldb.command(short_help="Make a new database.")
@click.option("-w", "--wipe", is_flag=True, help="Empty one that exists.")
@where_options
def init(wipe: bool, calibs: str | None, database: str | None) -> None:
    """Make a new, empty database."""
    store = _local(calibs, database)
    store.init(wipe)
    click.echo(f"made {store.path}", err=True)


@caldb.command(short_help="Show which databases are asked.")
@json_option
@where_options
def config(as_json: bool, calibs: str | None, database: str | None) -> None:
    """Show where the configuration is, which databases it names, and what each is for."""
    from pathlib import Path

    from pipeline import cal_service
    from pipeline.calibrations.stores import Database, config_path, is_the_daemons

    found = config_path(calibs)
    named = (Database(Path(database).absolute()),) if database else cal_service.databases(calibs)
    rows = [
        {
            "path": str(one.path),
            "get": one.get,
            "store": one.store,
            "exists": Path(one.path).exists(),
            "daemon": is_the_daemons(one.path),
        }
        for one in named
    ]
    if as_json:
        print_json({"configuration": str(found) if found and not database else None, "databases": rows})
        return
    where = "-d" if database else found or "none: cal_manager.db in this folder"
    click.echo(f"configuration  {where}")
    shown = [
        (
            row["path"],
            " ".join(word for word in ("get", "store") if row[word]),
            "" if row["exists"] else "not there yet: nirid caldb init",
            "the daemon's: asked, never written" if row["daemon"] else "",
        )
        for row in rows
    ]
    console().print(table(("database", "for", "", ""), shown))


@caldb.command(short_help="Register processed calibrations where they lie.")
@files_argument
@click.option("-k", "-w", "--walk", is_flag=True, help="Of a folder, take the sub-folders as well.")
@where_options
def add(files: tuple[str, ...], walk: bool, calibs: str | None, database: str | None) -> None:
    """Register processed darks, flats and bad-pixel masks where they lie; of a folder, all that are in it.

    Exits with 1 when any file was not added; each is told with the reason.
    """
    from pathlib import Path

    from pipeline.cal_service import NotACalibration
    from pipeline.errors import NiridError

    store, refused = _local(calibs, database), []
    if _is_the_daemons(store):
        _ask_to_add(store, files, walk)
        return
    for name in expanded(files):
        if Path(name).is_dir():
            for calibration in store.add_directory(name, walk):
                click.echo(f"added {calibration.path} as {calibration.kind}", err=True)
            continue
        try:
            click.echo(f"added {name} as {store.add_cal(name).kind}", err=True)
        except NotACalibration as error:
            refused.append(str(error))
    if refused:
        raise NiridError("\n".join(refused))


@caldb.command(short_help="Take calibrations out of use; the files stay.")
@files_argument
@where_options
def remove(files: tuple[str, ...], calibs: str | None, database: str | None) -> None:
    """Take calibrations out of use, by name; the files stay where they are."""
    store = _local(calibs, database)
    if _is_the_daemons(store):
        _ask_to_remove(store, files)
        return
    for name in expanded(files):
        store.remove_cal(name)
        click.echo(f"removed {name}", err=True)


def _is_the_daemons(store: LocalDB) -> bool:
    from pipeline.calibrations.stores import is_the_daemons

    return is_the_daemons(store.path)


def _ask_to_add(store: LocalDB, files: tuple[str, ...], walk: bool) -> None:
    """A request for each; what a file is, is read here, so that the daemon need not wait for its disk."""
    import os
    from dataclasses import replace
    from pathlib import Path

    from daemon.arrivals.read import ingest
    from daemon.model.decisions import record_to_json
    from pipeline.cal_service import NotACalibration, as_calibration
    from pipeline.errors import NiridError
    from pipeline.select import fits_files

    refused = []
    for name in expanded(files):
        for path in fits_files(name, recursive=walk) if Path(name).is_dir() else [name]:
            try:
                calibration = as_calibration(path)
            except NotACalibration as error:
                refused.append(str(error))
                continue
            record = replace(
                ingest(os.path.abspath(path), patience="batch"),
                state="calibration",
                reason="added by a person",
                kind=calibration.kind.value,
            )
            _hand_over(store, {"action": "add", "said": str(path), "record": record_to_json(record)})
    if refused:
        raise NiridError("\n".join(refused))


def _ask_to_remove(store: LocalDB, files: tuple[str, ...]) -> None:
    for name in expanded(files):
        why = "taken out with nirid caldb remove"
        _hand_over(store, {"action": "reject", "said": name, "target": name, "reason": why})


def _hand_over(store: LocalDB, request: dict[str, Any]) -> None:
    from daemon.cli import Settings
    from daemon.cli.decide import hand_over, say
    from daemon.ledger import targets
    from daemon.ledger.reading import reading

    config = Settings(state=str(store.path.parent)).load()
    with reading(store.path) as db:
        if "target" in request:
            found = targets.find(db, request["target"])
            request = {**request, "target": found.text}
        say(hand_over(config, db, request))


@caldb.command("list", short_help="List what is in use.")
@json_option
@where_options
def list_(as_json: bool, calibs: str | None, database: str | None) -> None:
    """List the calibrations in use, with the folder that each is in."""
    import os

    store = _local(calibs, database)
    known = sorted(store.calibrations(), key=lambda c: (os.path.basename(c.path), c.path))
    if as_json:
        rows = [
            {"name": os.path.basename(c.path), "path": c.path, "kind": c.kind, "ut": c.ut, "sha256": c.sha256}
            for c in known
        ]
        print_json(rows)
        return
    for c in known:
        folder, name = os.path.split(c.path)
        click.echo(f"{name:<30} {folder}")


def _kinds() -> list[str]:
    from pipeline.association import CalKind

    return list(CalKind)


@caldb.command(short_help="Say which calibrations belong to a file.")
@click.argument("file", type=File())
@click.argument("kind", required=False, shell_complete=names_of(_kinds))
@json_option
@where_options
def get(file: str, kind: str | None, as_json: bool, calibs: str | None, database: str | None) -> None:
    """Say which calibration of each kind, or of one KIND, would be used for a file, or why none."""
    from pathlib import Path

    from pipeline import cal_service
    from pipeline.association import CalKind, Found
    from pipeline.calibrations.stores import Database, check, find_first
    from pipeline.errors import NiridError
    from pipeline.toolkit.dataset import Dataset

    ad = Dataset(file)
    where = (Database(Path(database).absolute()),) if database else cal_service.databases(calibs)
    check([Database(d.path, d.get, store=False, named=d.named) for d in where])
    matches = {
        name: find_first(cal_service.kinds_of(name) if kind else (CalKind(name),), ad.facts, where)
        for name in ([kind] if kind else list(CalKind))
    }
    found = {
        name: match.candidate.path if isinstance(match, Found) else None for name, match in matches.items()
    }
    if as_json:
        print_json({name: {"path": found[name], "why": match.why} for name, match in matches.items()})
    elif kind and found[kind]:
        click.echo(found[kind])
    elif not kind:
        rows = [(name, found[name] or "none", match.why) for name, match in matches.items()]
        console().print(table(("kind", "file", "why"), rows))
    if kind and not found[kind]:
        raise NiridError(f"{ad.filename}: {matches[kind].why}")
