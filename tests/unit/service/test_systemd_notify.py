"""What systemd is told, read from the other end of the socket; and the unit files themselves."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import systemd

UNITS = Path(__file__).parents[3] / "systemd"


@pytest.fixture
def manager(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        path = str(tmp_path / "notify")
        sock.bind(path)
        sock.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


def test_one_datagram_with_a_line_for_each(manager):
    assert systemd.notify("READY=1", "STATUS=watching\n1 folder")
    assert manager.recv(1000) == b"READY=1\nSTATUS=watching 1 folder"


def test_abstract_address(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"nirid-test-{os.getpid()}"
        sock.bind("\0" + name)
        sock.settimeout(2)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert systemd.notify("WATCHDOG=1")
        assert sock.recv(100) == b"WATCHDOG=1"


def test_no_manager_or_a_deaf_one_is_no_error(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not systemd.notify("READY=1")


def test_a_manager_that_does_not_read_holds_nobody_up(manager):
    sent = [systemd.notify("STATUS=" + "x" * 1000) for _ in range(5000)]
    assert sent[0]
    assert not sent[-1]


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("120000000", None, 120.0),
        ("120000000", "me", 120.0),
        ("120000000", "1", None),
        ("", None, None),
        ("x", None, None),
    ],
)
def test_watchdog_interval(monkeypatch, usec, pid, seconds):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "me" else pid)
    assert systemd.watchdog_seconds() == seconds


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
class TestUnit:
    @pytest.fixture
    def unit(self, tmp_path):
        """The unit with a program that exists, and no page of ours in /opt."""
        text = (UNITS / "nirid.service").read_text().replace("/opt/nirid/bin/nirid", sys.executable)
        (tmp_path / "nirid.service").write_text(text)
        return str(tmp_path / "nirid.service")

    def test_verify_is_clean(self, unit):
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
        complaints = [line for line in done.stderr.splitlines() if "nirid" in line]
        assert (done.returncode, complaints) == (0, [])

    def test_hardened_as_far_as_the_compiler_allows(self, unit):
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--no-pager", unit],
            capture_output=True,
            text=True,
        )
        if done.returncode and "offline" in done.stderr:
            pytest.skip("this systemd-analyze cannot do it offline")
        score = float(re.search(r"exposure level for nirid.service: ([\d.]+)", done.stdout)[1])
        assert score <= 2.0


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize(
    "name", ["nirid.service", "nirid-web.service", "dask-scheduler.service", "dask-worker.service"]
)
def test_examples_for_a_cluster_are_clean(name, tmp_path):
    """The daemon's unit with its drop-in, and those of the cluster, with a program that exists."""
    (tmp_path / "nirid.service.d").mkdir()
    for source in [UNITS / "nirid.service", UNITS / "nirid-web.service", *UNITS.rglob("*.example")]:
        text = re.sub("/opt/nirid/bin/(nirid|dask)", sys.executable, source.read_text())
        (tmp_path / str(source.relative_to(UNITS)).removesuffix(".example")).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if name in line or "dask" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="systemd-sysusers is not here")
@pytest.mark.parametrize("tool", ["sysusers", "tmpfiles"])
def test_account_and_folders(tool, tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for name in ("sysusers", "tmpfiles")[: 1 if tool == "sysusers" else 2]:
        command = [f"systemd-{name}", f"--root={root}", str(UNITS / f"nirid.{name}.conf")]
        if name == "tmpfiles":
            command.insert(1, "--create")
        done = subprocess.run(command, capture_output=True, text=True)
        if "Permission denied" in done.stderr or "not permitted" in done.stderr:
            pytest.skip("only root may make accounts and folders of others")
        assert done.returncode == 0, done.stderr
    assert "nirid:" in (root / "etc/passwd").read_text()
    if tool == "tmpfiles":
        assert (root / "srv/nirid/products").stat().st_mode & 0o777 == 0o755
