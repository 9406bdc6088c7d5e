"""nirid reproduce: is a product what its own record says? Made again, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli import FAILED, Settings
from daemon.cli.output import Place, busy, console, json_option, print_json

if TYPE_CHECKING:
    from daemon.config.options import Config
    from daemon.ledger.store import Reader
    from daemon.upkeep.inputfiles import Finder
    from daemon.upkeep.reproduce import Reproduction

CANNOT = 3  # exit code: something that it was made of cannot be had
MOST = 30  # differences that are shown


@click.command(short_help="Make a product again of what it was made of: is it the same, bit for bit?")
@click.argument("product", metavar="PRODUCT")
@click.option("--into", type=Place(file_okay=False), metavar="DIR", help="Keep the new file in this folder.")
@click.option(
    "--from", "searched", multiple=True, type=Place(exists=True, file_okay=False), metavar="DIR",
    help="Look for inputs in this folder as well, whatever they are called.",
)  # fmt: skip
@click.option("--why", is_flag=True, help="Also say where each input was found, and with which versions.")
@json_option
@click.pass_obj
@click.pass_context
def reproduce(
    ctx: click.Context,
    settings: Settings,
    product: str,
    into: str | None,
    searched: tuple[str, ...],
    why: bool,
    as_json: bool,
) -> None:
    """Make a product again of its own record (PROVENANCE, HISTORY, JOBKEY), and compare the two.

    \b
    nirid reproduce N20160102S0271_image              by name, with what the ledger knows
    nirid reproduce old/N20160102S0271_image.fits --from raw/     a file from elsewhere
    nirid reproduce N20160102S0373_flat --into /tmp/again --why

    Inputs are found by their SHA-256, wherever they lie by now; a calibration that is gone is made again
    first. Nothing of the daemon's is touched.

    \b
    exit 0  identical: every byte of the file
    exit 1  it differs: cards, table cells and pixels are listed, with the largest difference in sqrt(VAR)
    exit 3  cannot: an input is gone, or has other bytes now
    """
    from daemon import logs
    from daemon.engine import compiled
    from daemon.instance import with_last_run
    from daemon.upkeep import reproduce as upkeep_reproduce
    from pipeline.parallel import cores

    config = with_last_run(settings.load())
    compiled.settle(config.cache_folder)
    if not settings.verbose:  # the steps of what is made again are no news
        logs.configure("error", config.log.format)
    with ExitStack() as stack:
        db = _ledger(config, stack)
        path = _path(db, product)
        finder = _finder(config, db, path, searched)
        with busy(f"making {path.name} again"):
            answer = upkeep_reproduce.reproduce(
                path, finder, into=Path(into) if into else None, threads=cores()
            )
    if as_json:
        print_json(_plain(answer))
    else:
        for line in _lines(answer, why):
            console().print(line, soft_wrap=True, highlight=False, markup=False)
    if answer.result != "identical":
        ctx.exit(FAILED if answer.result == "different" else CANNOT)


def _ledger(config: Config, stack: ExitStack) -> Reader | None:
    """What the daemon knows; None where there is no database: a product alone tells enough."""
    from daemon.ledger.reading import reading

    return stack.enter_context(reading(config.database)) if config.database.exists() else None


def _path(db: Reader | None, said: str) -> Path:
    """The file that is meant: a path, or a product, group or job of the ledger."""
    from daemon.ledger import answers, targets
    from pipeline.errors import NiridError
    from pipeline.files.places import expanded

    path = expanded(said)
    if path.is_file():
        return path.absolute()
    if db is None:
        raise NiridError(f"{said}: no such file, and there is no database to look it up in")
    meant = targets.find(db, said, looks=True)
    if meant.kind in ("product", "group", "job"):
        record = answers.product_meant(db, meant.kind, meant.id)
        if record is None:
            raise NiridError(f"{said}: no product of it is there")
        if not Path(record.path).is_file():
            raise NiridError(f"{said}: {record.path} is not there")
        return Path(record.path)
    raise NiridError(f"{said}: {meant.name} is no product")


def _finder(config: Config, db: Reader | None, path: Path, searched: tuple[str, ...]) -> Finder:
    from daemon.ledger.publications import is_night
    from daemon.upkeep.inputfiles import Finder
    from daemon.upkeep.reproduce import night_folder

    night = night_folder(path)
    beside = [night.parent] if is_night(night.name) else []  # products of another daemon
    folders = [f for f in (*config.drop_folders, config.product_folder, *beside) if f.is_dir()]
    return Finder(db, folders, [Path(each) for each in searched])


def _plain(answer: Reproduction) -> dict[str, Any]:
    return {
        "product": str(answer.product),
        "result": answer.result,
        "why": answer.why,
        "only_releases": answer.only_releases,
        "largest": answer.sigma,
        "differences": [asdict(one) for one in answer.differences],
        "missing": [asdict(one) for one in answer.missing],
        "releases": [asdict(one) | {"differs": one.differs} for one in answer.releases],
        "used": [asdict(one) for one in answer.used],
        "preview": answer.preview,
        "notes": list(answer.notes),
        "made": str(answer.made) if answer.made else None,
    }


def _lines(answer: Reproduction, why: bool) -> Iterator[str]:
    from daemon.logs import printable

    for line in _said(answer, why):
        yield printable(line)


def _said(answer: Reproduction, why: bool) -> Iterator[str]:
    name = answer.product.name
    if answer.result == "identical":
        yield f"identical: {name}, made again of {len(answer.used)} files"
    elif answer.result == "cannot":
        lacking = answer.missing
        yield f"cannot: {name}" + ("" if lacking else f": {answer.why}")
        yield from (f"  {one.role} {one.name}: {one.how}" for one in lacking)
    else:
        most = "" if answer.sigma is None else f", pixels by up to {answer.sigma:.3g} sqrt(VAR)"
        only = "only in the versions that it was made with, which it names" if answer.only_releases else ""
        yield f"different: {name}, {only or f'in {len(answer.differences)} places{most}'}"
        yield from (f"  {one.words}" for one in answer.differences[:MOST])
        if len(answer.differences) > MOST:
            yield f"  and {len(answer.differences) - MOST} more: --json has all"
    yield from (f"  note: {note}" for note in answer.notes)
    for one in answer.releases:
        if one.differs:
            yield f"  made with {one.name} {one.made}, here {one.here}"
    if answer.preview is False and answer.result == "identical":
        yield "  the picture beside it is drawn otherwise here"
    if why:
        yield from (
            f"  {one.role:<10} {one.name}  {one.path or 'not there'}: {one.how}" for one in answer.used
        )
        same = (one for one in answer.releases if not one.differs)
        yield from (f"  {one.name} {one.here}{'' if one.made else ' (not recorded then)'}" for one in same)
    if answer.made:
        yield f"  the new one is {answer.made}"
