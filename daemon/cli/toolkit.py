"""nirid reduce, dataselect, showd, typewalk: the toolkit of `pipeline` from a shell, without the daemon."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from daemon.cli import Settings
from daemon.cli.output import Place, console, json_option, overwrite_option, print_json, table
from daemon.cli.words import File, existing, names_of, pairs, sorted_out


def _recipes() -> Iterable[str]:
    from pipeline.recipes import RECIPES

    return RECIPES


def _descriptors() -> Iterable[str]:
    from pipeline.toolkit.methods import DESCRIPTORS

    return DESCRIPTORS


def _tags() -> Iterable[str]:
    from pipeline.headers.tags import RULES

    return {tag for rule in RULES for tag in rule.tags.split()}


files_argument = click.argument("files", nargs=-1, required=True, type=File(), metavar="FILES...")
tags_option = click.option(
    "--tags", default="", metavar="A,B", shell_complete=names_of(_tags), help="All of these tags."
)
xtags_option = click.option(
    "--xtags", default="", metavar="C,D", shell_complete=names_of(_tags), help="None of these tags."
)


@click.command(short_help="Run a recipe on files.")
@files_argument
@click.option(
    "-r", "--recipe", default="_default", metavar="RECIPE", shell_complete=names_of(_recipes),
    help="A recipe, a single step, or file.NAME.  [default: by the tags of the first file]",
)  # fmt: skip
@click.option(
    "-p", "--param", "params", multiple=True, metavar="step:param=value",
    help="A parameter; several may follow one -p, or it is repeated.",
)  # fmt: skip
@click.option(
    "--user-cal", "--user_cal", "user_cals", multiple=True, metavar="KIND:FILE",
    help="processed_dark, processed_flat, processed_bpm, static_bpm or zero_point: before any database.",
)  # fmt: skip
@click.option("--preset", type=click.Choice(["nirid", "dragons"]), default="nirid", show_default=True)
@click.option(
    "--mode",
    type=click.Choice(["sq", "ql", "qa"]),
    default="sq",
    show_default=True,
    help="sq insists on calibrations.",
)
@click.option("--ql", "mode", flag_value="ql", help="As --mode ql.")
@click.option("--qa", "mode", flag_value="qa", help="As --mode qa.")
@click.option("--out", default=".", type=Place(file_okay=False), metavar="DIR", help="Where the products go.")
@click.option("--suffix", metavar="_TEXT", help="Instead of the recipe's, as _mine.")
@click.option("--preview", is_flag=True, help="Draw a PNG beside each product.")
@overwrite_option
@click.option(
    "--strict-cals", is_flag=True, help="A calibration given by hand must match every frame: else an error."
)
@click.option(
    "-c", "--calibs", metavar="FILE", type=File(), help="Configuration of the calibration databases."
)
@click.option("--logfile", metavar="FILE", type=File(), help="Add what is said to a file.")
@click.option(
    "--logmode", type=click.Choice(["quiet", "standard", "verbose", "debug"]), help="How much is said."
)
@json_option
@click.pass_obj
def reduce(
    settings: Settings,
    files: tuple[str, ...],
    recipe: str,
    params: tuple[str, ...],
    user_cals: tuple[str, ...],
    preset: Any,
    mode: Any,
    out: str,
    suffix: str | None,
    preview: bool,
    overwrite: bool,
    strict_cals: bool,
    calibs: str | None,
    logfile: str | None,
    logmode: Any,
    as_json: bool,
) -> None:
    """Reduce files of one kind; the product appears in the working directory, whole or not at all.

    \b
    nirid reduce @darks20s.lis
    nirid reduce @flats.lis @darks1s.lis -r makeProcessedBPM
    nirid reduce @flats.lis -p addDQ:user_bpm=N20160102S0373_bpm.fits
    nirid reduce @stdstar.lis -p addDQ:user_bpm=N20160102S0373_bpm.fits -p darkCorrect:do_cal=skip
    nirid reduce @target.lis -p skyCorrect:scale_sky=False --out reduced --preview
    nirid reduce @target.lis --user-cal processed_dark:N20160102S0423_dark.fits
    nirid reduce @target.lis -p stackFrames:skip_primitive=True -p skyCorrect:write_outputs=True

    Calibrations that are stored are found by themselves; see nirid caldb. What a step can be told: nirid
    showpars FILE STEP.
    """
    from pipeline import logutils
    from pipeline.reduce import Reduce

    logutils.config(logfile, logmode or ("verbose" if settings.verbose else "standard"))
    words, more_params, more_cals = sorted_out(files, bool(params), bool(user_cals))
    paths = existing(words)
    Path(out).mkdir(parents=True, exist_ok=True)
    reduction = Reduce(
        files=paths,
        recipename=recipe,
        uparms=pairs([*params, *more_params], "=", "-p"),
        ucals=dict(pairs([*user_cals, *more_cals], ":", "--user-cal")),
        preset=preset,
        mode=mode,
        suffix=suffix,
        out=out,
        config_file=calibs,
        preview=preview,
        overwrite=overwrite,
        strict_cals=strict_cals,
    )
    reduction.runr()
    if as_json:
        print_json({"recipe": reduction.recipename, "products": reduction.output_filenames})


@click.command(short_help="Choose files by tags and descriptors.")
@files_argument
@tags_option
@xtags_option
@click.option("--expr", default="", metavar="EXPR", help="A condition on descriptors.")
@click.option("--strict", is_flag=True, help="Numbers are equal exactly, names hold component numbers.")
@click.option(
    "-o", "--output", metavar="LIST", type=File(), help="Write a list for @LIST instead of printing."
)
@overwrite_option
@json_option
def dataselect(
    files: tuple[str, ...],
    tags: str,
    xtags: str,
    expr: str,
    strict: bool,
    output: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Print the files that have all of the tags, none of the xtags, and meet the expression.

    \b
    nirid dataselect raw/*.fits --tags DARK --expr 'exposure_time==20' -o darks20s.lis
    nirid dataselect raw/*.fits --tags IMAGE --xtags FLAT --expr 'object!="FS 17"'
    nirid dataselect '../playdata/*.fits' --expr 'filter_name=="K(prime)" and not (coadds==1)'
    nirid dataselect @all.lis --expr 'ut_datetime > 2016-01-02 07:30:00 and object in ("FS 17", "FS 27")'

    exposure_time==20 finds 20.002 unless --strict is given. Names of descriptors: nirid showd --help.
    """
    from pipeline import select
    from pipeline.files import outputs
    from pipeline.files.lists import comment_line, list_line

    check_tags(tags, xtags)
    paths = existing(files)
    chosen = select.select_data(paths, tags, xtags, select.expr_parser(expr, strict))
    if output:
        told = {"Includes tags": tags, "Excludes tags": xtags, "Descriptor expression": expr}
        head = [comment_line(what, value) for what, value in told.items()]
        lists = [name[1:] for name in files if name.startswith("@")]
        outputs.check(output, "list", inputs=[*paths, *lists], overwrite=overwrite)
        _write_list(Path(output), [*head, *map(list_line, chosen)])
    if as_json:
        print_json(chosen)
    elif not output:
        for name in chosen:
            click.echo(name)


def check_tags(*given: str) -> None:
    """Raises UsageError for names that are no tags, each with the nearest."""
    from pipeline import select

    if said := select.unknown_tags(",".join(given)):
        raise click.UsageError("; ".join(said))


def _write_list(path: Path, lines: Iterable[str]) -> None:
    from pipeline.files.disk import write_whole

    text = "".join(f"{line}\n" for line in lines)
    write_whole(path, text.encode("utf-8", "surrogateescape"), flush=False)


@click.command(short_help="Show descriptors of files.")
@files_argument
@click.option(
    "-d", "--descriptors", required=True, metavar="A,B", shell_complete=names_of(_descriptors),
    help="Names with commas; 'tags' is one too.",
)  # fmt: skip
@click.option("--csv", "as_csv", is_flag=True, help="Values with commas.")
@click.option("--long", "plain", is_flag=True, help="Names with component numbers, as in the header.")
@json_option
def showd(files: tuple[str, ...], descriptors: str, as_csv: bool, plain: bool, as_json: bool) -> None:
    """Show what the headers of files say.

    \b
    nirid showd raw/*.fits -d object,exposure_time,filter_name
    nirid showd @target.lis -d ut_datetime,airmass --csv > target.csv
    nirid showd N20160102S0270.fits -d tags,read_mode,well_depth_setting --json

    \b
    Descriptors: airmass, camera, coadds, data_label, dec, exposure_time, filter_name, gain,
    gcal_lamp, object, observation_class, observation_id, observation_type, pixel_scale,
    program_id, qa_state, ra, read_mode, read_noise, saturation_level, target_ra, ut_datetime,
    wavefront_sensor, well_depth_setting ...; the whole list: python -m pydoc pipeline.toolkit.methods
    """
    from pipeline import select

    rows = select.showd(existing(files), descriptors, pretty=not plain)
    if as_json:
        print_json([{key: _for_json(value) for key, value in row.items()} for row in rows])
        return
    columns = list(rows[0])
    if as_csv:
        import csv
        import sys

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerows([columns, *([_shown(value) for value in row.values()] for row in rows)])
        return
    for line in _dashed(columns, [[_shown(value) for value in row.values()] for row in rows]):
        click.echo(line)


def _dashed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as Gemini's showd draws it: the first column to the left, the others to the right."""
    from daemon.logs import printable

    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in rows)) for i, column in enumerate(columns)]

    def line(cells: Sequence[str]) -> str:
        right = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "   ".join([cells[0].ljust(widths[0]), *right])

    rule = "-" * len(line(columns))
    return [rule, line(columns), rule, *(line(row) for row in rows)]


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def _for_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date | dt.time) else value


@click.command(short_help="Show the tags of all files in a folder.")
@click.argument("folder", required=False, type=Place(file_okay=False), metavar="[DIR]")
@click.option("-d", "--dir", "named", type=Place(file_okay=False), metavar="DIR", help="The same as DIR.")
@click.option("-f", "--filemask", metavar="REGEX", help="Only files whose whole name matches.")
@tags_option
@xtags_option
@click.option("--or", "either", is_flag=True, help="Any of the --tags is enough.")
@click.option("-n", "--norecurse", is_flag=True, help="Leave out sub-folders.")
@click.option(
    "-o", "--out", "--output", "output", metavar="LIST", type=File(), help="Also write a list for @LIST."
)
@overwrite_option
@json_option
def typewalk(
    folder: str | None,
    named: str | None,
    filemask: str | None,
    tags: str,
    xtags: str,
    either: bool,
    norecurse: bool,
    output: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Walk through a folder and show what kind of frame each file is.

    \b
    nirid typewalk raw
    nirid typewalk -d raw --tags DARK --xtags PROCESSED -o darks.lis
    nirid typewalk raw --tags DARK,FLAT --or -f 'N201601.*'
    """
    from pipeline import select
    from pipeline.files import outputs
    from pipeline.files.lists import comment_line, list_line

    if folder and named:
        raise click.UsageError("the folder is given twice")
    if folder and folder.upper() in _tags() and not Path(folder).exists():
        raise click.UsageError(f"several tags have commas between them: --tags A,{folder}")
    check_tags(tags, xtags)
    rows = select.typewalk(
        named or folder or ".", tags, xtags, recursive=not norecurse, either=either, mask=filemask
    )
    if output:
        outputs.check(output, "list", inputs=[row["filename"] for row in rows], overwrite=overwrite)
        head = [comment_line("Includes tags", tags), comment_line("Excludes tags", xtags)]
        _write_list(Path(output), [*head, *(list_line(r["filename"]) for r in rows if "error" not in r)])
    if as_json:
        print_json(rows)
        return
    shown = [(row["filename"], row.get("error") or " ".join(row["tags"])) for row in rows]
    where = named or folder or "."
    console().print(table(("file", "tags"), shown) if shown else f"no FITS file in {where}", soft_wrap=True)
