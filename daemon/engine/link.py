"""The connection to a Dask scheduler, in a thread of its own: it may be slow, the main loop never waits.

    link = Link("tcp://127.0.0.1:8786", greeting)
    link.start()
    link.take()                      # what has happened: [News(kind, about, said), ...]
    link.give(worker, key, text)     # a job for this worker
    link.read_end                    # readable when there is news

`distributed` is imported here, and only when a link is made. What goes over the wire is JSON text and the
names of functions in `daemon.engine.remote`; Dask itself uses pickle, hence loopback or TLS only.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from daemon.engine import remote
from daemon.model.address import is_loopback
from pipeline.errors import ConfigError, NiridError

LOOK_SECONDS = 1.0  # between two looks at who is there
ANSWER_SECONDS = 10.0  # that the scheduler has for an answer
PAUSES = (1.0, 60.0)  # first and longest, before the scheduler is tried again
EXPOSED = "it is neither on loopback nor behind TLS"


@dataclass(frozen=True)
class News:
    """kind, and what it is about:

    up, down : the scheduler; `said` is why
    joined : a worker, which is being greeted; ready : it can work, `said` is its answer
    unusable : a worker; `said["problem"]` is why
    left : a worker that is gone, with what it ran
    ended : the key of a job; `said` is an Outcome's fields, or {"lost": why, "killed": the worker died}
    """

    kind: Literal["up", "down", "joined", "ready", "unusable", "left", "ended"]
    about: str
    said: Mapping[str, Any] = field(default_factory=dict)


class Link:
    """One scheduler, tried again for ever.

    greeting : what each worker is told first, see `remote.greet`
    tls : {"tls_ca_file", "tls_client_cert", "tls_client_key"}, empty with tcp://
    Raises ConfigError when the package is missing or the certificates cannot be read.
    """

    def __init__(self, address: str, greeting: str, tls: Mapping[str, str] | None = None) -> None:
        self.address, self.greeting = address, greeting
        self._library, self._security = library(tls or {})
        self._news: deque[News] = deque()
        self.read_end, self._write_end = socket.socketpair()
        self.read_end.setblocking(False)
        self._write_end.setblocking(False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="dask", daemon=True)
        self._main: asyncio.Task[None] | None = None
        self._client: Any = None
        self._known: set[str] = set()
        self._tasks: dict[asyncio.Task[None], str] = {}  # and the worker that each is about
        self._started = threading.Event()

    # -- for the main loop ------------------------------------------------------------------------

    def start(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()
            self._started.wait()

    def take(self) -> list[News]:
        with contextlib.suppress(BlockingIOError):
            while self.read_end.recv(4096):
                pass
        return [self._news.popleft() for _ in range(len(self._news))]

    def give(self, worker: str, key: str, text: str) -> None:
        """Have a job done by this worker; its end comes as news about `key`."""
        self._soon(worker, lambda: self._follow(worker, key, text))

    def greet(self, worker: str) -> None:
        """Ask again whether this worker can be used: the answer comes when its job has ended."""
        self._soon(worker, lambda: self._greet(worker))

    def ask_to_stop(self, worker: str, key: str) -> None:
        self._soon(worker, lambda: self._ask_to_stop(worker, key))

    def close(self, timeout: float = 5.0) -> None:
        """Leave the cluster; what runs there is given up."""
        if self._loop is not None and self._main is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._main.cancel)
            self._thread.join(timeout)
        if not self._thread.is_alive():
            self.read_end.close()
            self._write_end.close()

    # -- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._life())

    async def _life(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._started.set()
        pause = PAUSES[0]
        while True:
            why = "the connection was lost"
            try:
                async with connect(self._library, self.address, self._security) as client:
                    if problem := await exposed(client, self.address):
                        raise ConfigError(problem)
                    self._client, pause = client, PAUSES[0]
                    self._tell("up", self.address)
                    while client.status == "running":
                        await self._look(client)
                        await asyncio.sleep(LOOK_SECONDS)
            except Exception as error:  # of any library beneath: what matters is that there is no scheduler
                why = words(error)
            finally:
                self._client = None
                self._known.clear()
                for task in list(self._tasks):
                    task.cancel()
            self._tell("down", self.address, {"why": why})
            await asyncio.sleep(pause)
            pause = min(PAUSES[1], pause * 2)

    async def _look(self, client: Any) -> None:
        there = set(await asyncio.wait_for(client.scheduler.ncores(), ANSWER_SECONDS))
        for worker in sorted(self._known - there):
            for task in [task for task, about in self._tasks.items() if about == worker]:
                task.cancel()  # Dask would wait for a worker at the same address
            self._tell("left", worker)
        for worker in sorted(there - self._known):
            self._tell("joined", worker)
            self._begin(worker, self._greet(worker))
        self._known = there

    async def _greet(self, worker: str) -> None:
        if worker not in self._known:
            return  # the caller has reported this worker as gone
        answer: dict[str, Any] = {"problem": EXPOSED}
        if safe(worker):
            try:
                answer = json.loads(await self._submit(remote.greet, self.greeting, worker=worker))
            except Exception as error:
                answer = {"problem": words(error)}
        self._tell("unusable" if answer["problem"] else "ready", worker, answer)

    async def _follow(self, worker: str, key: str, text: str) -> None:
        try:
            said = json.loads(await self._submit(remote.work, key, text, worker=worker, key=key))
        except Exception as error:
            said = {"lost": words(error), "killed": isinstance(error, self._library.KilledWorker)}
        self._tell("ended", key, said)

    async def _submit(self, function: Callable[..., str], *arguments: str, worker: str, **more: Any) -> str:
        """One call on one worker: no other may take it, and Dask tries nothing again."""
        if self._client is None or worker not in self._known:
            raise OSError(f"the Dask worker {worker} is gone")
        where = {"workers": [worker], "allow_other_workers": False}
        future = self._client.submit(function, *arguments, **where, pure=False, retries=0, **more)
        try:
            return str(await future)
        finally:
            future.release()

    async def _ask_to_stop(self, worker: str, key: str) -> None:
        if self._client is not None:
            with contextlib.suppress(Exception):  # its child is killed by the limits all the same
                await self._client.run(remote.ask_to_stop, key, workers=[worker], on_error="ignore")

    def _soon(self, worker: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread has ended
                self._loop.call_soon_threadsafe(lambda: self._begin(worker, make()))

    def _begin(self, worker: str, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks[task] = worker
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def _tell(
        self,
        kind: Literal["up", "down", "joined", "ready", "unusable", "left", "ended"],
        about: str,
        said: Mapping[str, Any] | None = None,
    ) -> None:
        self._news.append(News(kind, about, said or {}))
        with contextlib.suppress(BlockingIOError, OSError):
            self._write_end.send(b"!")


# -- shared with the doctor -----------------------------------------------------------------------------


def library(tls: Mapping[str, str]) -> tuple[Any, Any]:
    """(the package, its security settings). Raises ConfigError."""
    try:
        package = importlib.import_module("distributed")
    except ImportError as error:
        raise ConfigError(
            f'engine.kind = "dask" wants a package: pip install "nirid[dask]" ({error})'
        ) from None
    for name in ("distributed", "distributed.client"):  # we log the state of the connection ourselves
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not tls:
        return package, None
    try:
        security = package.Security(**tls, require_encryption=True)
        security.get_connection_args("client")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"engine: the TLS files cannot be used: {error}") from None
    return package, security


@contextlib.asynccontextmanager
async def connect(package: Any, address: str, security: Any) -> Any:
    """A client of the scheduler. Raises OSError when nothing answers."""
    client = package.Client(
        address,
        asynchronous=True,
        security=security,
        timeout=ANSWER_SECONDS,
        name="nirid",
        set_as_default=False,
    )
    try:
        yield await client
    finally:
        await client.close(ANSWER_SECONDS)


def introductions(address: str, tls: Mapping[str, str], greeting: str) -> dict[str, dict[str, Any]]:
    """{worker: what it says of itself, see `remote.introduce`}, without disturbing what runs.

    Raises ConfigError or OSError when the scheduler cannot be used.
    """
    package, security = library(tls)

    async def ask() -> dict[str, Any]:
        async with connect(package, address, security) as client:
            if problem := await exposed(client, address):
                raise ConfigError(problem)
            run = client.run(remote.introduce, greeting, on_error="return")
            return dict(await asyncio.wait_for(run, ANSWER_SECONDS))

    said: dict[str, dict[str, Any]] = {}
    for worker, answer in asyncio.run(ask()).items():
        said[worker] = {"problem": words(answer)} if isinstance(answer, Exception) else json.loads(answer)
        if not safe(worker):
            said[worker]["problem"] = EXPOSED
    return said


def safe(address: str) -> bool:
    """True of a TLS address, and of a TCP address on loopback."""
    parts = urlsplit(address)
    return parts.scheme == "tls" or (parts.scheme == "tcp" and is_loopback(parts.hostname or ""))


async def exposed(client: Any, address: str) -> str:
    """Why this scheduler cannot be trusted; "" when it is behind TLS or listens on loopback."""
    said = await asyncio.wait_for(client.scheduler.identity(n_workers=0), ANSWER_SECONDS)
    listens = str(said["address"])
    if safe(address) and safe(listens):
        return ""
    return f"it listens on {listens} without TLS: start it with --host 127.0.0.1, or use TLS"


def words(error: BaseException) -> str:
    """One line."""
    name = "" if isinstance(error, NiridError) else f"{type(error).__name__}: "
    return " ".join(f"{name}{error}".split()).rstrip(": ")
