"""What commands print: one JSON document, or tables for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNFOLDED = 100_000  # columns: `| grep` and scripts find the whole of a path or a sentence in one line


class Place(click.Path):
    """A path as people write it, ~ and all; `--out=~/x` reaches us with the ~ in it."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from pipeline.files.places import expanded

        return super().convert(str(expanded(value)), param, ctx)


overwrite_option = click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a file that nirid did not make; never an input, a raw frame or a database in use.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")


def print_json(data: Any, *, one_line: bool = False) -> None:
    """ASCII only, so that odd file names cannot break the encoding of the terminal."""
    click.echo(json.dumps(data, indent=None if one_line else 2, default=str))


def console() -> Console:
    """Standard output for people; nothing is folded where neither it nor $COLUMNS says how wide it is."""
    from rich.console import Console

    told = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(highlight=False, width=None if told else UNFOLDED)


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Progress on standard error, at a terminal only, for what may take longer than two seconds."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn(doing), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(doing, total=None)
        yield


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> Table:
    """A plain table. What files and headers say is shown as text: no markup, no control characters."""
    from rich.table import Table
    from rich.text import Text

    from daemon.logs import printable  # here, as `nirid --help` needs no logging

    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        numeric = column.startswith(">")
        made.add_column(column.lstrip(">"), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    return made


def coloured(state: str) -> Any:
    """A state in its colour."""
    from rich.text import Text

    styles = {
        "done": "green",
        "ready": "green",
        "running": "cyan",
        "calibration": "green",
        "waiting": "yellow",
    }
    bad = {"failed": "red", "quarantined": "red", "incomplete": "yellow"}
    return Text(state, style=(styles | bad).get(state, ""))


def worth(row: Mapping[str, Any]) -> str:
    """One exposure of a stack in a line."""
    seen = (("FWHM", "FWHM {:.2f} pix"), ("SKYLEVEL", "sky {:.0f} e-"), ("D_ERR", "registered to {:.3f} pix"))
    said = [text.format(row[key]) for key, text in seen if row.get(key) is not None]
    if row.get("REGISTERED_BY") == "reference":
        said = [*said[:-1], "the others are registered to it"] if row.get("D_ERR") is not None else said
    use = row.get("VERDICT", "used")  # why is in a note
    return ", ".join([row["NAME"], *([use] if use != "used" else []), *said])


def print_sequences(
    answer: Mapping[str, Any], lines: Callable[[Mapping[str, Any]], Iterable[str]], *, one: bool
) -> None:
    """The sequences of a night, each in its lines; one : the answer is a single sequence"""
    rows = [answer] if one else answer["sequences"]
    said = [] if one else [f"night {answer['night']}" if answer["night"] else "no frames"]
    if not rows and answer["night"]:
        said = [f"{said[0]}: no sequences"]
    for line in (*said, *(line for row in rows for line in lines(row))):
        console().print(line, soft_wrap=True, highlight=False, markup=False)
