"""Bytes that are no text, in every path given or found: carried or written out, never a traceback."""

import io
import json
import os
import socket
import sqlite3

import pytest
import structlog

from daemon import instance, logs, systemd
from daemon.arrivals.sweep import Index
from daemon.config import load
from daemon.engine.words import Words
from daemon.ledger.store import Ledger, connect_readonly
from daemon.model.plain import clean
from daemon.model.publication import Old, PublishPlan
from daemon.people import requests
from daemon.upkeep import backup

ODD = os.fsdecode(b"caf\xe9-\xff.fits")
SHOWN = r"caf\xe9-\xff.fits"


@pytest.fixture(autouse=True)
def plain_logs():
    yield
    structlog.reset_defaults()


@pytest.fixture
def place(tmp_path):
    """A configuration of folders none of whose names is text."""
    top = tmp_path / ODD
    for name in ("drop", "products", "state"):
        (top / f"{name}-{ODD}").mkdir(parents=True)
    given = {
        "watch.folders": [str(top / f"drop-{ODD}")],
        "products.folder": str(top / f"products-{ODD}"),
        "state.folder": str(top / f"state-{ODD}"),
    }
    return load.load(None, given)


def to_the_service_manager(place, monkeypatch):
    address = str(place.state_folder / "socket")
    monkeypatch.chdir(place.state_folder)  # the name of a socket may have 108 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("socket")
        monkeypatch.setenv("NOTIFY_SOCKET", "socket")
        assert systemd.notify(f"STATUS=THE DROP FOLDER {ODD} IS MISSING"), address
        return manager.recv(4096).decode("utf-8")


def to_sqlite(place, monkeypatch):
    Ledger(place.database).close()
    copy = place.state_folder / ODD
    assert backup.backup(place.database, copy) > 0
    assert not [path for path in place.state_folder.iterdir() if path.name.endswith(".part")]
    with connect_readonly(copy) as db:
        assert db.execute("SELECT COUNT(*) FROM job").fetchone()[0] == 0
    with sqlite3.connect(":memory:") as db:
        return db.execute("SELECT ?", (clean(ODD),)).fetchone()[0]


def to_a_note(place, monkeypatch):
    with instance.only_one(place):
        instance.tell(place, paused=f"the folder for products, {ODD}: it is full")
        assert instance.with_last_run(place).drop_folders == place.drop_folders
        running = instance.running(place)
    return logs.printable(running["paused"])


def to_a_plan(place, monkeypatch):
    plan = PublishPlan(1, 1, "n", "20160102", ODD, ODD, "", 1, (Old(1, ODD, ODD),), {})
    assert PublishPlan.from_json(plan.to_json()) == plan
    return logs.printable(PublishPlan.from_json(plan.to_json()).final)


def to_a_request(place, monkeypatch):
    requests.submit(place.state_folder, {"action": "reject", "target": ODD, "reason": f"bad: {ODD}"})
    (file,) = requests.waiting(place.state_folder)
    return json.loads(file.read_text("utf-8"))["reason"]


def to_a_log(place, monkeypatch):
    said = io.StringIO()
    logs.configure(format="json", stream=said)
    logs.get().info("file_ingested", path=ODD)
    assert json.loads(said.getvalue())["path"] == ODD
    logs.configure(format="console", stream=said)
    logs.get().info("file_ingested", path=ODD)
    said.getvalue().encode("utf-8")
    return said.getvalue().splitlines()[-1]


def from_a_worker(place, monkeypatch):
    read_end, write_end = os.pipe()
    words = Words(read_end)
    words.start(1)
    os.write(write_end, b"OSError: caf\xe9-\xff.fits\n")
    os.close(write_end)
    return words.last(5)


def from_a_folder(place, monkeypatch):
    (place.drop_folders[0] / ODD).write_bytes(b"")
    found = Index().sweep([str(place.drop_folders[0])])
    return logs.printable(os.path.basename(found.candidates[0][0]))


def to_a_terminal(place, monkeypatch):
    import click

    from daemon import cli

    lines = []
    monkeypatch.setattr(click, "echo", lambda text, **how: lines.append(text))
    monkeypatch.setattr("daemon.cli.streams.forget", lambda: None)
    monkeypatch.setattr(cli, "_add_commands", lambda: None)
    monkeypatch.setattr(cli, "cli", lambda words, **how: os.stat(place.drop_folders[0] / ODD))
    with pytest.raises(SystemExit):
        cli.main([])
    return lines[0]


@pytest.mark.parametrize(
    "boundary",
    [
        to_the_service_manager, to_sqlite, to_a_note, to_a_plan, to_a_request, to_a_log, from_a_worker,
        from_a_folder, to_a_terminal,
    ],
)  # fmt: skip
def test_every_boundary(place, monkeypatch, boundary):
    said = boundary(place, monkeypatch)
    said.encode("utf-8")
    assert SHOWN in said
