"""nirid provenance, nirid picture: what a product was made of, and a picture of it with what DQ says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from daemon.cli.output import console, json_option, overwrite_option, print_json, table
from daemon.cli.words import File

if TYPE_CHECKING:
    from pipeline.toolkit.ancestry import Ancestor


@click.command(short_help="Show what a product was made of, and how.")
@click.argument("file", type=File())
@click.option("-p", "--provenance", "inputs", is_flag=True, help="Only the files that went in.")
@click.option("--history", "steps", is_flag=True, help="Only the steps, with all parameters.")
@json_option
def provenance(file: str, inputs: bool, steps: bool, as_json: bool) -> None:
    """Show every file that went into a product and every step with its parameters.

    \b
    nirid provenance N20160102S0271_image.fits
    nirid provenance N20160102S0373_flat.fits --history

    Of each calibration that lies beside the product or in a folder beside its folder, what that was made of
    is shown as well, and whether it is the very file that was used. Products of DRAGONS are read too.
    """
    from pipeline.files.read import read_provenance
    from pipeline.toolkit import ancestry
    from pipeline.toolkit.dataset import Dataset

    path = Dataset(file).path  # told in words when it is no FITS file
    both = inputs == steps
    found = ancestry.ancestors(path)
    history = read_provenance(Path(path))[1]
    if as_json:
        answer: dict[str, Any] = {"file": path}
        if inputs or both:
            answer["provenance"] = [one.to_json() for one in found]
        if steps or both:
            keys = ("step", "parameters", "version")
            answer["history"] = [dict(zip(keys, row, strict=True)) for row in history]
        print_json(answer)
        return
    if inputs or both:
        console().print(table(("file", "as", "sha256", ""), _rows(found, set())), soft_wrap=True)
    if steps or both:
        told = [(step, ", ".join(f"{k}={v}" for k, v in values.items()), by) for step, values, by in history]
        console().print(table(("step", "parameters", "by"), told))


def _rows(found: Iterable[Ancestor], seen: set[str], indent: str = "") -> Iterator[tuple[str, str, str, str]]:
    """A row a file; what a calibration was made of is told where it comes first."""
    for one in found:
        where = "" if one.role in ("input", "") else "not found near the product"
        if one.path:
            where = one.path if one.same else f"{one.path} is another file now"
        before = bool(one.made_of) and one.sha256 in seen
        yield (
            f"{indent}{one.name}",
            one.role,
            one.sha256[:12],
            "made of what is listed above" if before else where,
        )
        if not before:
            seen.add(one.sha256)
            yield from _rows(one.made_of, seen, indent + "    ")


@click.command(short_help="Draw a picture of a file, with what DQ says in colour.")
@click.argument("file", type=File())
@click.option("-o", "--output", metavar="PNG", type=File(), help="Where to.  [default: NAME.png here]")
@click.option("--dq", is_flag=True, help="Flagged pixels in colour; the strip says which is what.")
@overwrite_option
def picture(file: str, output: str | None, dq: bool, overwrite: bool) -> None:
    """Draw the picture that products have beside them, of any frame that can be read.

    \b
    nirid picture N20160102S0271_image.fits --dq -o flags.png
    """
    from pipeline.files import outputs, preview
    from pipeline.files.disk import write_whole
    from pipeline.names import base_of
    from pipeline.toolkit.dataset import Dataset

    frame = Dataset(file).frame
    path = Path(output or f"{base_of(file)}{'_dq' if dq else ''}.png")
    outputs.check(path, "picture", inputs=[file], overwrite=overwrite)
    write_whole(path, preview.with_flags(frame) if dq else preview.drawn(frame))
    click.echo(f"wrote {path}", err=True)
