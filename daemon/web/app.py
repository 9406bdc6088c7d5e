"""What is answered at which address.

page = build(config)
page.app            # ASGI, with the guard before it
page.feed           # to be run beside it
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from daemon.config.options import Config
from daemon.ledger.targets import UnknownTarget
from daemon.web import api, assets, machine, pages, panels, pictures
from daemon.web.access import Access
from daemon.web.cutouts import FOR_EVER, Cutouts
from daemon.web.decide import Decisions, NotAllowed
from daemon.web.feed import Feed
from daemon.web.guard import App, Guard, allowed
from daemon.web.pictures import Cache
from daemon.web.source import Absent, Source
from daemon.web.stream import Hub, TooMany
from pipeline.errors import NiridError
from pipeline.files import disk

PIECE = 1 << 18  # bytes of a FITS file at a time


@dataclass
class Page:
    """Everything behind the page."""

    config: Config
    source: Source
    feed: Feed
    cache: Cache
    app: App = None  # type: ignore[assignment]

    # -- the night --------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        await self.feed.refresh()
        return self._kept(request, pages.tonight(self.feed.parts, self.feed.keys, assets.key()), "text/html")

    async def parts(self, request: Request) -> Response:
        """Parts by name, as a page that has seen older ones asks for them."""
        names = [name for name in request.query_params.get("names", "").split(",") if name in panels.NAMES]
        return JSONResponse(
            {
                name: {"html": self.feed.parts.get(name, ""), "key": self.feed.keys.get(name, "")}
                for name in names
            }
        )

    async def tonight(self, request: Request) -> Response:
        await self.feed.refresh()
        snapshot = self.feed.snapshot
        answer = {
            **snapshot.night,
            "version": api.VERSION,
            "event": snapshot.event,
            "heart": vars(self.source.heart()),
            "alerts": [alert.plain() for alert in snapshot.alerts],
            "error": snapshot.error,
        }
        return self._kept(request, json.dumps(answer, default=str), "application/json")

    def _kept(self, request: Request, text: str, kind: str) -> Response:
        """With the tag of the snapshot: who has it already gets 304."""
        headers = {"ETag": self.feed.etag, "Cache-Control": "no-cache"}
        if self.feed.etag and request.headers.get("if-none-match") == self.feed.etag:
            return Response(status_code=304, headers=headers)
        return Response(text, media_type=kind, headers=headers)

    async def stream(self, request: Request) -> Response:
        """Server-sent events. Last-Event-ID, or ?after= of a page that was hidden, resumes."""
        address = request.client.host if request.client else ""
        try:
            self.feed.hub.check(address)
        except TooMany:
            told = {"error": "too many streams are open", "what_to_do": "close one, or ask again in 10 s"}
            return JSONResponse(told, 503, headers={"Retry-After": "10"})
        said = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = int(said) if said.isascii() and said.isdigit() and len(said) < 18 else None
        body = self.feed.hub.follow(address, lambda: self.feed.missed(after))
        return StreamingResponse(body, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    # -- pictures and files -------------------------------------------------------------------

    async def image(self, request: Request) -> Response:
        size = pictures.SIZES.get(request.query_params.get("w", "full"))
        if size is None:
            return _error(404, "no such size", "there are 96, 256, 512, fixed and full")
        where = _where(request)
        if (kept := self.cache.get((*where, size))) is None:
            found = await asyncio.to_thread(self._picture, where, size)
            if found is None:
                return _error(404, "no such picture", "it was replaced, or its product has taken its place")
            kept = found[0]
            self.cache.put((*where, size), kept)
        kind = "image/jpeg" if kept[:2] == b"\xff\xd8" else "image/png"
        return Response(kept, media_type=kind, headers={"Cache-Control": FOR_EVER})

    def _picture(self, where: tuple[str, int, str], size: int) -> tuple[bytes, str] | None:
        with self.source.read() as db:
            found = pictures.find(db, *where)
        return pictures.read(self.source.read, found, self.config.product_folder, size) if found else None

    async def fits(self, request: Request) -> Response:
        found = await asyncio.to_thread(self._open, _where(request))
        if found is None:
            return _error(404, "no such file", "it was replaced, or its product has taken its place")
        file, name, length = found
        headers = {
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
            "Cache-Control": FOR_EVER,
            "Content-Length": str(length),
        }
        return StreamingResponse(_pieces(file), media_type="application/fits", headers=headers)

    def _open(self, where: tuple[str, int, str]) -> tuple[BinaryIO, str, int] | None:
        with self.source.read() as db:
            found = pictures.find(db, *where)
        if found is None:
            return None
        path = Path(found.path)
        try:
            fd = disk.open_below(path, self.config.product_folder)
        except OSError:
            return None
        if not pictures.stands_for(self.source.read, found, pictures.job_of(fd), fd):
            os.close(fd)
            return None
        return os.fdopen(fd, "rb", 0), path.name, os.fstat(fd).st_size


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


def _where(request: Request) -> tuple[str, int, str]:
    values = request.path_params
    return values["kind"], values["number"], values["key"]


def _error(status: int, what: str, do: str) -> Response:
    return HTMLResponse(pages.error(status, what, do, assets.key()), status)


def build(config: Config) -> Page:
    """Everything, wired together; nothing is read yet."""
    source, access = Source(config), Access.of(config)
    deciding = Decisions(source, access)
    page = Page(source.config, source, Feed(source, Hub()), Cache())
    routes = [
        Route("/", page.index),
        Route("/parts", page.parts),
        Route("/api/v1/tonight", page.tonight),
        Route("/api/v1/stream", page.stream),
        Route("/image/{kind}/{number:int}/{key}", page.image),
        Route("/fits/{kind}/{number:int}/{key}", page.fits),
        Route("/static/{name}", assets.answer),
        *Cutouts(page.source).routes(),
        *deciding.routes(),
        *api.routes(page.source, page.feed, deciding),
        *machine.routes(page.source, page.feed),
    ]
    handlers = {HTTPException: _not_there, NiridError: _not_read, Exception: _went_wrong}
    handlers[ClientDisconnect] = _too_long
    inner = Starlette(routes=routes, exception_handlers=handlers)
    inner.router.redirect_slashes = False
    page.app = Guard(inner, allowed(config.web.hosts, config.web.names), access.may_look)
    return page


async def _not_there(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = error.detail if isinstance(error, HTTPException) else "it went wrong"
    return _told(request, status, said, "the address may be mistyped; / is the night")


async def _too_long(request: Request, error: Exception) -> Response:
    """The guard has cut the body; or the client has gone, and nobody reads this."""
    return _told(request, 413, "the body is too long", "send less than 8 kB")


async def _went_wrong(request: Request, error: Exception) -> Response:
    return _told(request, 500, "it went wrong", "the log of nirid web says how")


async def _not_read(request: Request, error: Exception) -> Response:
    """What the ledger, or a person's word, makes impossible: in one line, as a command says it."""
    status = 403 if isinstance(error, NotAllowed) else 404 if isinstance(error, UnknownTarget) else 503
    do = (
        "look for another name"
        if status == 404
        else "it is tried again at every request; nirid doctor says more"
    )
    if status == 403:
        do = "/login asks for the token and a name"
    if isinstance(error, Absent):
        do = "start the daemon: this page shows the night as soon as it runs"
    return _told(request, status, str(error), do)


def _told(request: Request, status: int, what: str, do: str) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": what, "what_to_do": do}, status)
    return _error(status, what, do)
