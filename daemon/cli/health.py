"""nirid health: one line and an exit code, for cron, systemd timers and Nagios-style monitors."""

from __future__ import annotations

import click

from daemon.cli import FAILED, Settings
from daemon.cli.output import json_option, print_json

NAGIOS = {"OK": 0, "WARNING": 1, "CRITICAL": 2}


@click.command(short_help="One line and an exit code for a monitor.")
@click.option(
    "--still",
    type=click.FloatRange(1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Without progress of the daemon.",
)
@click.option(
    "--last-frame",
    type=click.FloatRange(0),
    default=0.0,
    metavar="HOURS",
    help="Without a new frame; 0, the default, is not looked at.",
)
@click.option(
    "--planned",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="MINUTES",
    help="That a job may wait for a worker.",
)
@click.option(
    "--waiting",
    type=click.FloatRange(0),
    default=0.0,
    metavar="HOURS",
    help="That a job may wait for a calibration; 0, the default, is not looked at.",
)
@click.option(
    "--failed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Failed jobs that are put up with.",
)
@click.option(
    "--refused",
    type=click.FloatRange(0),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="How long a refused decision is told.",
)
@click.option(
    "--killed",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    metavar="N",
    help="Times that a job may be killed.",
)
@click.option("--nagios", is_flag=True, help="Exit 1 for a warning, 2 for what is critical, 3 for unknown.")
@json_option
@click.pass_obj
@click.pass_context
def health(
    ctx: click.Context,
    settings: Settings,
    still: float,
    last_frame: float,
    planned: float,
    waiting: float,
    failed: int,
    refused: float,
    killed: int,
    nagios: bool,
    as_json: bool,
) -> None:
    """Is all well? One line on standard output; exit 0 when it is, 1 when something is not.

    \b
    nirid health                                 daemon, workers, disks, drop folder, database, decisions
    nirid health --last-frame 1 --waiting 24     in the night: a frame an hour, no job a day late
    nirid health --nagios                        0, 1, 2, 3 as plugins of Nagios, Icinga, Zabbix end

    Nothing is written, and the daemon is not asked: a hanging one is told as well as a dead one. See
    docs/operations.md for cron, systemd timers and monitors.
    """
    from daemon.instance import with_last_run
    from daemon.logs import printable
    from daemon.upkeep.health import Limits, examine
    from pipeline.errors import NiridError

    try:
        config = with_last_run(settings.load())
        report = examine(config, Limits(still, last_frame, planned, waiting, failed, refused, killed))
    except (NiridError, OSError) as error:
        if not nagios:
            raise
        click.echo(f"NIRID UNKNOWN - {printable(str(error))}")
        ctx.exit(3)
    if as_json:
        problems = [vars(problem) for problem in report.problems]
        print_json({"state": report.word, "problems": problems, **report.facts})
    else:
        click.echo(printable(report.line()))
    if report.problems:
        ctx.exit(NAGIOS[report.word] if nagios else FAILED)
