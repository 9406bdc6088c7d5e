"""The command `nirid`. Each command is a thin call; what it needs is imported when it runs.

Exit codes: 0 done; 1 the operation failed, one clear line on standard error; 2 wrong usage;
75 another instance holds the state folder; 78 configuration error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from daemon import guard
from daemon.cli.usage import in_one_line

if TYPE_CHECKING:
    from daemon.config.options import Config

FAILED, BUSY, BAD_CONFIG = 1, 75, 78


@dataclass
class Settings:
    """The global options; `load` turns them into the configuration."""

    config: str | None = None
    state: str | None = None
    verbose: bool = False

    def load(self, *, of_service: bool = True, **command_line: Any) -> Config:
        """The configuration, with logging set up as it says.

        of_service : False for what is not the service's; with a state folder of one's own it never is
        command_line : watch_folders=..., for the option watch.folders; None where not given
        """
        from daemon import logs
        from daemon.config import load

        given = {name.replace("_", ".", 1): value for name, value in command_line.items()}
        given |= {"state.folder": self.state, "log.level": "debug" if self.verbose else None}
        file = load.find_file(self.config, of_service=of_service and not self.state)
        loaded = load.load(file, given)
        if loaded.cache:  # of the service, beside it: its compiled loops are the ones that are meant
            os.environ.setdefault("NUMBA_CACHE_DIR", os.path.join(loaded.cache, "numba"))
        logs.configure(loaded.log.level, loaded.log.format)
        return loaded


class _InOrder(click.Group):
    """Lists commands in the order of their definition: the service first. Wrong usage is told in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def make_context(self, *words: Any, **more: Any) -> click.Context:
        with in_one_line():
            return super().make_context(*words, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with in_one_line():
            return super().invoke(ctx)


def _global_options(**more: Any) -> list[click.Option]:
    return [
        click.Option(
            ["--config"],
            metavar="FILE",
            help="Configuration file.  [default: $NIRID_CONFIG, else /etc/nirid/nirid.toml]",
            **more,
        ),
        click.Option(
            ["--state"],
            metavar="DIR",
            help="Folder of the database.  [default: the service's, else ./state]",
            **more,
        ),
        click.Option(["-v", "--verbose"], is_flag=True, help="Log more.", **more),
    ]


def _take_after_the_command(command: click.Command) -> None:
    """Let the global options stand after the command as well, where it has none of that name itself."""

    def keep(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        settings = ctx.find_object(Settings)
        if value and settings and option.name:
            setattr(settings, option.name, value)

    if isinstance(command, click.Group):
        for part in command.commands.values():
            _take_after_the_command(part)
    taken = {name for option in command.params for name in option.opts}
    for option in _global_options(expose_value=False, callback=keep):
        if not taken & set(option.opts):
            command.params.append(option)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(metadata.version("nirid"), prog_name="nirid")
@click.pass_context
def cli(ctx: click.Context, config: str | None, state: str | None, verbose: bool) -> None:
    """Reduce Gemini NIRI frames as they land in a folder.

    \b
    nirid demo                                  a synthetic night, from landing to products
    nirid run --drop drop --products products   the daemon, until SIGTERM or Ctrl-C
    nirid run --until-idle --drop NIGHT         what is there, and done
    nirid status                                what has arrived, what is missing, what waits and why
    """
    ctx.obj = Settings(config, state, verbose)


cli.params[:0] = _global_options()


# Module of this folder and its command, in the order in which help lists them.
_COMMANDS = (
    "service.run", "service.check_config", "doctor.doctor", "status.status", "missing.missing",
    "nightreport.report", "nights.nights", "verdict.verdict", "enough.enough", "verdict.trend", "web.web",
    "alerts.alerts", "alerts.acknowledge", "health.health",
    "report.ledger", "report.audit", "explain.explain", "reproduce.reproduce", "decide.requeue",
    "decide.reject", "decide.accept", "decide.list_requests", "backup.backup", "backup.restore",
    "backup.rebuild", "replay.replay", "demonstrate.simulate", "demonstrate.demo", "toolkit.reduce",
    "toolkit.dataselect", "toolkit.showd", "toolkit.typewalk", "parameters.showpars",
    "parameters.showrecipes", "caldb.caldb", "products.provenance", "products.picture",
    "completion.completion",
)  # fmt: skip


def _add_commands() -> None:
    for name in _COMMANDS:
        module, _, function = name.partition(".")
        command = getattr(importlib.import_module(f"daemon.cli.{module}"), function)
        _take_after_the_command(command)
        cli.add_command(command)


def main(words: Sequence[str] | None = None) -> None:
    """The entry point: every error that we raise on purpose becomes one line and an exit code.

    words : instead of those on the command line
    """
    from daemon.cli import streams
    from pipeline.errors import ConfigError, NiridError
    from pipeline.files.places import make_sure_of_a_home

    streams.settle()
    if complaint := guard.complaint():
        fail(complaint, BAD_CONFIG)
    make_sure_of_a_home()
    _add_commands()
    try:
        try:
            cli(words, prog_name="nirid")
        finally:
            streams.finish()
    except ConfigError as error:
        fail(error, BAD_CONFIG)
    except BrokenPipeError:
        sys.exit(FAILED)
    except PermissionError as error:
        from daemon import owner

        fail(owner.in_words(error), FAILED)
    except (NiridError, OSError) as error:
        fail(_no_folder() or _words(error), getattr(error, "exit_code", FAILED))


def _words(error: Exception) -> str:
    """An error in one line. Python writes the name of a file as code: bytes that are no text twice over."""
    if not isinstance(error, OSError) or type(error).__str__ is not OSError.__str__:
        return str(error)
    names = [os.fsdecode(n) for n in (error.filename, error.filename2) if isinstance(n, (str, bytes))]
    return f"{' -> '.join(names)}: {error.strerror}" if names else str(error)


def _no_folder() -> str:
    """What is wrong when the working folder was deleted, which an error does not tell; "" otherwise."""
    try:
        os.getcwd()
    except OSError as error:
        return f"the folder in which this was started is not there any more ({error.strerror})"
    return ""


def fail(error: Exception | str, code: int) -> None:
    """Say why on standard error, a line for each mistake, and end."""
    from daemon.cli import streams
    from daemon.logs import flush, printable

    flush()
    streams.forget()
    for line in str(error).splitlines() or [type(error).__name__]:
        with contextlib.suppress(OSError):  # nobody can be told
            click.echo(f"nirid: {printable(line)}", err=True)
    sys.exit(code)


def absolute(folder: str | None) -> str | None:
    """As an option means it: relative to where the command was typed."""
    from pipeline.files.places import expanded

    return os.path.abspath(expanded(folder)) if folder else None
