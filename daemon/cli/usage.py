"""Wrong usage is told in one line, as every other failure is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import click


class Mistake(click.UsageError):
    """Wrong usage, told in one line as every other failure is."""

    def show(self, file: Any = None) -> None:
        from daemon.logs import printable

        path = self.ctx.command_path if self.ctx else "nirid"
        said = " ".join(self.format_message().split()).rstrip(".")
        click.echo(f"nirid: {printable(said)} ({path} --help)", err=True)


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """A usage error within becomes a Mistake; a group without a command goes on to print its help."""
    try:
        yield
    except (Mistake, click.exceptions.NoArgsIsHelpError):
        raise
    except click.UsageError as error:
        raise Mistake(error.format_message(), error.ctx) from None
