"""What the daemon tells systemd: one datagram to $NOTIFY_SOCKET (see sd_notify(3)). Elsewhere, nothing."""

from __future__ import annotations

import os
import socket

from daemon.model.plain import clean


def notify(*assignments: str) -> bool:
    """Send for instance `notify("READY=1", "STATUS=watching 1 folder")`. True when systemd was told.

    Without a service manager this does nothing, and a manager that does not listen is ignored.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):  # Linux abstract namespace
        address = "\0" + address[1:]
    text = "\n".join(clean(line.replace("\n", " ")) for line in assignments)  # systemd takes UTF-8 only
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)  # a manager that does not read must not block us
            sock.connect(address)
            sock.sendall(text.encode())
    except (OSError, ValueError):  # ValueError: not a socket address
        return False
    return True


def watchdog_seconds() -> float | None:
    """How long systemd waits for `WATCHDOG=1` before it kills us; None when it does not watch."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    watched = os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdecimal() or (watched and watched != str(os.getpid())):
        return None
    return int(microseconds) / 1e6 or None
