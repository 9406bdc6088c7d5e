"""The process behind the page: sockets, limits on connections, signals.

    serve(config)      # until SIGTERM or SIGINT

Loopback unless the configuration says otherwise. What is open when it is to end is ended: every stream gets
its last item, and nothing is waited for longer than a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from daemon import logs
from daemon.config.options import Config
from daemon.web import access
from daemon.web.app import Page, build
from daemon.web.guard import LONGEST_HEAD
from pipeline.errors import NiridError

HEADER_SECONDS = 10.0  # that a client may take for the head of a request
MOST_CONNECTIONS, MOST_OF_ONE = 256, 64  # at the same time, and of one address
NICE = 5  # below the daemon and its workers: who looks must not slow down who works


class _Connection(H11Protocol):
    """One that comes too often, or takes its time over a request, is closed."""

    of_addresses: ClassVar[Counter[str]] = Counter()
    _timer: Any = None
    _address = ""

    def connection_made(self, transport: Any) -> None:
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        self.of_addresses[self._address] += 1
        super().connection_made(transport)
        if self.of_addresses.total() > MOST_CONNECTIONS or self.of_addresses[self._address] > MOST_OF_ONE:
            transport.abort()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        self.of_addresses[self._address] -= 1
        if not self.of_addresses[self._address]:
            del self.of_addresses[self._address]
        super().connection_lost(exc)

    def _wait(self) -> None:
        """A request is on its way: its head must come in time. While one is answered there is no hurry."""
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    """Ends its streams before it waits for them, and leaves signals to us."""

    page: Page

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.page.feed.hub.stop()
        await super().shutdown(sockets)


def listening(config: Config) -> list[socket.socket]:
    """Sockets at every address. Raises NiridError, when the port is taken or an address is not ours."""
    made: list[socket.socket] = []
    for address in config.web.hosts:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        # Named so, asyncio sends at once (TCP_NODELAY); else each answer on a kept connection waits 40 ms.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if family == socket.AF_INET6:
                found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            port = config.web.port or (made[0].getsockname()[1] if made else 0)
            found.bind((address, port))
            found.listen(128)
        except OSError as error:
            found.close()
            if family == socket.AF_INET6 and made:  # a machine without the newer protocol has the older one
                logs.get().warning("address_not_there", address=address, why=error.strerror)
                continue
            for other in made:
                other.close()
            raise NiridError(f"[web] {address} port {config.web.port}: {error.strerror}") from None
        made.append(found)
    return made


def serve(config: Config) -> None:
    """Answer until SIGTERM or SIGINT. Raises NiridError, ConfigError."""
    access.check(config)
    sockets = listening(config)
    port = sockets[0].getsockname()[1]
    page = build(config)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    addresses = [_url(found) for found in sockets]
    logs.get().info(
        "web_started", pid=os.getpid(), addresses=addresses, state=str(config.state_folder), port=port
    )
    asyncio.run(_serve(page, sockets))
    logs.get().info("web_stopped")


def _url(found: socket.socket) -> str:
    host, port = found.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


async def _serve(page: Page, sockets: list[socket.socket]) -> None:
    options = uvicorn.Config(
        page.app,
        http=_Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
    )
    server = _Server(options)
    server.page = page

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    following = asyncio.create_task(page.feed.run())
    following.add_done_callback(lambda task: stop())  # a page that nobody looks after must not look alive
    try:
        await server.serve(sockets=sockets)
    finally:
        if following.done() and not following.cancelled() and (error := following.exception()):
            raise NiridError(f"the page cannot go on: {type(error).__name__}: {error}")
        following.cancel()
