"""nirid reject, accept, requeue: what a person decides, handed to the daemon as a small file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from daemon.cli import Settings
from daemon.cli.output import json_option, print_json
from daemon.cli.report import database
from daemon.cli.words import Night

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.config.options import Config
    from daemon.ledger.events import Event
    from daemon.ledger.store import Reader

WAIT_SECONDS = 10.0  # for the daemon's answer


@click.command(short_help="Take a frame, a calibration or a product out of use.")
@click.argument("target")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept with the decision.")
@json_option
@click.pass_obj
def reject(settings: Settings, target: str, reason: str, as_json: bool) -> None:
    """Take a frame, a calibration or a product out of use; what depends on it is made again without it.

    \b
    nirid reject N20160102S0425.fits --reason "trailed, guiding lost"
    nirid reject N20160102S0423_dark --reason "light leak"    a product is withdrawn to superseded/
    nirid reject 3f8a21c9 --reason "wrong filter"             by the beginning of its SHA-256
    nirid reject group:7 --reason "lamp was warming up"       the product of a group, or of job:12

    The file itself is never touched. nirid accept takes the decision back.
    """
    _decide(settings, "reject", target, as_json, reason=reason)


@click.command(short_help="Take a rejection back, or overrule a QA state of Fail.")
@click.argument("target")
@click.option("--reason", default="", metavar="TEXT", help="Why; it is kept with the decision.")
@json_option
@click.pass_obj
def accept(settings: Settings, target: str, reason: str, as_json: bool) -> None:
    """Take a rejection back; use a frame whose QA state is Fail, or that was blamed for a failed job.

    \b
    nirid accept N20160102S0425.fits
    nirid accept N20160102S0425.fits       of a frame in use: used whatever the pipeline finds of it
    nirid accept N20160102S0423_dark       in use again; one that never was rejected is kept for good

    A frame that the pipeline's own judgement has left out is forced in so; to undo that, reject it and
    accept it once: then the pipeline judges again.

    Damaged files stay quarantined: there is nothing in them to accept.
    """
    _decide(settings, "accept", target, as_json, reason=reason)


@click.command(short_help="Make a product again, or try a failed job again.")
@click.argument("target", required=False)
@click.option("--outdated", is_flag=True, help="All that an older release or configuration has made.")
@click.option("--night", type=Night(), metavar="NIGHT", help="With --outdated: only this UT date.")
@json_option
@click.pass_obj
def requeue(settings: Settings, target: str | None, outdated: bool, night: str | None, as_json: bool) -> None:
    """Make a product again with what is best now, or try a failed job again.

    \b
    nirid requeue N20160102S0271_image     nirid explain says whether a better calibration is there
    nirid requeue group:7                  or job:12, which has failed; or a raw frame: all it is part of
    nirid requeue --outdated --night 20160102
    """
    if bool(target) == outdated:
        raise click.UsageError("give a TARGET, or --outdated")
    if night and not outdated:
        raise click.UsageError("--night goes with --outdated")
    _decide(settings, "requeue", target or "", as_json, outdated=outdated, night=night or "")


@click.command("requests", short_help="Decisions that wait, and those that were refused lately.")
@click.option("--cancel", metavar="NAME", help="Take a decision back that was not applied yet.")
@click.option("--days", type=click.FloatRange(0), default=7.0, show_default=True, help="How far back.")
@json_option
@click.pass_obj
def list_requests(settings: Settings, cancel: str | None, days: float, as_json: bool) -> None:
    """Decisions on their way to the daemon, and those that it has refused lately, with the reason.

    \b
    nirid requests
    nirid requests --cancel 20160102T050102.123456-0a1b2c3d
    """
    from daemon.logs import printable
    from daemon.people import requests

    with database(settings) as (config, db):
        if cancel:
            requests.cancel(config.state_folder, cancel)
        waiting = [_waiting(path) for path in requests.waiting(config.state_folder)]
        refused = requests.refused(db, time.time() - 86400 * days)
    if as_json:
        print_json({"waiting": waiting, "refused": refused, "cancelled": cancel})
        return
    if cancel:
        click.echo(f"{printable(cancel)} is taken back")
    for row in waiting:
        click.echo(printable(f"waits    {row['request']}  {row['user']}: {row['what']}"))
    for row in refused:
        click.echo(printable(f"refused  {row['request']}  {row['at'][:19]}: {row['reason']}"))
    if not waiting and not refused:
        click.echo("no decision waits, none was refused")


def _waiting(path: Path) -> dict[str, str]:
    """What a request says, as far as we may read it."""
    from daemon.model.plain import clean
    from daemon.people import requests
    from pipeline.errors import NiridError

    try:
        said = requests.read(path)
    except (NiridError, OSError) as error:
        return {"request": clean(path.stem), "user": "unknown", "what": f"cannot be read: {error}"}
    reason = f" ({said['reason']})" if said["reason"] else ""
    what = f"{said['action']} {said['said'] or 'outdated products'}{reason}"
    return {"request": said["request"], "user": said["user"], "what": what}


def _decide(settings: Settings, action: str, said: str, as_json: bool, **more: Any) -> None:
    """Find out what is meant, hand it over, wait a little for the answer."""
    from daemon.ledger import targets

    if not said.strip() and action != "requeue":  # which takes --outdated for a target
        raise click.UsageError("give a TARGET")
    with database(settings) as (config, db):
        request: dict[str, Any] = {"action": action, "said": said, **more}
        found = targets.find(db, said) if said else None
        if found is not None:
            request["target"] = found.text
        answer = hand_over(config, db, request)
    name = found.name if found else "outdated products"
    if as_json:
        print_json({"action": action, "target": found.text if found else None, "name": name, **answer})
        return
    if found is not None and found.also:
        click.echo(f"{said} is taken as {found.text}; {found.also}", err=True)
    say(answer)


def hand_over(config: Config, db: Reader, request: dict[str, Any]) -> dict[str, Any]:
    """{"request", "applied", "outcome"} of a request. Raises NiridError when the daemon refuses it."""
    from daemon import instance
    from daemon.ledger import events
    from daemon.people import requests
    from pipeline.errors import NiridError

    before = events.last_number(db)
    name = requests.submit(config.state_folder, request)
    if instance.running(config) is None:
        waits = "no daemon is running: the decision waits, and is done when one starts"
        return {"request": name, "applied": False, "outcome": waits}
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if told := _answer(db, name, before):
            if told.name == "request_refused":
                raise NiridError(told.fields["reason"])
            return {"request": name, "applied": True, "outcome": told.fields["outcome"]}
        time.sleep(0.1)
    return {"request": name, "applied": False, "outcome": "the daemon is busy; the decision waits for it"}


def _answer(db: Reader, name: str, after: int) -> Event | None:
    """How the daemon has answered a request since an event; None as long as it has not."""
    from daemon.ledger import events

    told = events.later_than(db, after, "decision", "request_refused")
    return next((event for event in told if event.fields.get("request") == name), None)


def say(answer: dict[str, Any]) -> None:
    from daemon.logs import printable

    click.echo(printable(answer["outcome"]), err=not answer["applied"])
