"""The daemon as a whole in this process: what systemd hears, and what happens when a part fails."""

import logging
import os
import signal
import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import structlog

from daemon import app, logs, run
from daemon.config import load
from daemon.loop import MainLoop
from daemon.run import LOOK_SECONDS, STALLED_SECONDS, PartDied
from daemon.signals import Signals
from pipeline.errors import NiridError


@pytest.fixture(autouse=True)
def json_logs():
    logs.configure(format="json")
    yield
    structlog.reset_defaults()
    logging.basicConfig(force=True)
    logging.captureWarnings(False)


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "drop").mkdir()
    given = {"watch.folders": [str(tmp_path / "drop")], "products.folder": str(tmp_path / "products")}
    return load.load(None, {**given, "state.folder": str(tmp_path / "state"), "engine.workers": 1})


@pytest.fixture
def manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield sock


def test_what_systemd_hears_from_start_to_end(settings, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    heard = []

    def listen():
        while "STOPPING=1" not in "".join(heard):
            heard.append(manager.recv(4096).decode())
            if heard[-1].startswith("WATCHDOG=1"):
                os.kill(os.getpid(), signal.SIGHUP)  # changes nothing
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)  # an impatient operator changes nothing either

    listener = threading.Thread(target=listen)
    listener.start()
    before = signal.getsignal(signal.SIGTERM)
    run.serve(settings)
    listener.join()
    assert heard[0] == "READY=1\nSTATUS=0 files; jobs: none yet"
    assert heard[1].startswith("WATCHDOG=1\nSTATUS=")
    assert heard[-1].startswith("STOPPING=1")
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (settings.state_folder / "nirid.db-wal").exists(), "others cannot read it while we are down"


def test_a_drop_folder_that_is_missing_is_not_made_but_looked_for(settings, manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    drop = settings.drop_folders[0]
    drop.rmdir()
    with pytest.raises(NiridError, match=f"{drop}: no such folder"):
        run.batch(settings)
    settings = replace(settings, watch=replace(settings.watch, sweep_seconds=0.2))
    heard = []

    def listen():
        while "STOPPING=1" not in "".join(heard):
            heard.append(manager.recv(4096).decode())
            if heard[-1].startswith("READY=1"):
                assert not drop.exists()
                drop.mkdir()
                (drop / "N20160102S0001.fits").write_bytes(b"no FITS")
            if "MISSING" not in heard[-1] and "1 files" in heard[-1]:
                os.kill(os.getpid(), signal.SIGTERM)

    listener = threading.Thread(target=listen)
    listener.start()
    run.serve(settings)
    listener.join()
    assert heard[0] == f"READY=1\nSTATUS=0 files; jobs: none yet; THE DROP FOLDER {drop} IS MISSING"
    assert not settings.database.with_name("nirid.db-wal").exists()


def test_a_part_that_dies_of_a_bug_ends_the_daemon(settings, monkeypatch):
    def bug(self, stop):
        raise RuntimeError("bug")

    monkeypatch.setattr(MainLoop, "run", bug)
    began = time.monotonic()
    with pytest.raises(PartDied, match="the main loop has ended by a bug"):
        run.serve(settings)
    assert time.monotonic() - began < LOOK_SECONDS
    run.batch(settings)  # everything was given back: another instance can start


def test_the_daemon_ends_when_its_state_folder_is_replaced(settings, monkeypatch):
    """Else another would start beside it, on the same drop folder and the same products."""
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.05)
    ready = app.systemd.notify

    def replace(*lines):
        ready(*lines)
        if lines[0] == "READY=1":
            settings.state_folder.rename(settings.state_folder.with_name("aside"))

    monkeypatch.setattr(app.systemd, "notify", replace)
    with pytest.raises(PartDied, match="was removed or replaced"):
        run.serve(settings)


def test_a_main_loop_without_progress_is_not_vouched_for(monkeypatch):
    said = []
    monkeypatch.setattr(app.systemd, "notify", lambda *lines: said.append(lines))
    monkeypatch.setattr(run, "LOOK_SECONDS", 0.0)
    stalled = SimpleNamespace(progress_at=time.monotonic() - 2 * STALLED_SECONDS)
    lands = SimpleNamespace(
        progress_at=time.monotonic(), ignored={}, closed=lambda: "", watcher=SimpleNamespace(modes={})
    )
    told = {}
    turns = iter([False, False, True])
    run._watch_over(
        SimpleNamespace(main_loop=stalled, died=[], landing=lands, tell=told.update),
        SimpleNamespace(wait=lambda seconds: next(turns)),
        lambda: True,
    )
    assert len(said) == 2
    assert "no progress" in told["stalled"]
    assert all("WATCHDOG=1" not in lines and "no progress" in lines[0] for lines in said)


def test_a_signal_is_a_flag_that_wakes_the_main_loop_at_once():
    with Signals() as signals:
        assert not signals.wait(0.0)
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        assert signals.wait(30.0)
        assert time.monotonic() - began < 5
