"""Pixels of looks and products, for the page and for scripts: by number and key from the ledger, as pictures.

GET /cutout/look/12/18f3a0b2c1?x=100&y=200&w=32                       # JSON, pixels count from 1 as in FITS
GET /difference/look/12/18f3a0b2c1/product/3/0123456789abcdef?step=3  # a line of JSON, then 16-bit floats

A file that has taken the place of the one that is meant gives 404 in words, never its values.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from daemon.ledger.board import Shown
from daemon.markup import short
from daemon.web import difference, pictures
from daemon.web.difference import NoDifference
from daemon.web.source import Source
from pipeline.errors import NiridError, RefusedFile
from pipeline.files import disk
from pipeline.files.window import Opened, Window
from pipeline.frame import FLAGS

VERSION = 1
WIDEST = 64  # pixels of a side of a cut-out
MOST_STEPS = 64
MOST_WAITING = 8  # differences that may wait: they are made one after the other
FOR_EVER = "public, max-age=31536000, immutable"
GONE = "it was replaced, or its product has taken its place"

Where = tuple[str, int, str]


@dataclass
class NotGiven(Exception):
    """status, what and what to do, as JSON has them."""

    status: int
    what: str
    do: str = "reload the page: it has the newest addresses"

    def answer(self) -> Response:
        body = json.dumps({"error": self.what, "what_to_do": self.do})
        return Response(body, self.status, media_type="application/json")


class Cutouts:
    """What reads pixels. One difference is made at a time: each reads two images."""

    def __init__(self, source: Source) -> None:
        self.source, self._products = source, source.config.product_folder
        self._one, self._waiting = asyncio.Semaphore(1), 0

    def routes(self) -> list[Route]:
        one, other = "{kind}/{number:int}/{key}", "{kind2}/{number2:int}/{key2}"
        return [
            Route(f"/cutout/{one}", _said(self.cutout)),
            Route(f"/difference/{one}/{other}", _said(self.difference)),
        ]

    async def cutout(self, request: Request) -> Response:
        """Up to 64 x 64 pixels with their errors and flags; x, y : of the lowest on the left"""
        place = _number(request, "x", 1 << 20), _number(request, "y", 1 << 20)
        wide = _number(request, "w", WIDEST, "1")
        body = await asyncio.to_thread(self._cutout, _where(request), *place, wide)
        return Response(body, media_type="application/json", headers={"Cache-Control": FOR_EVER})

    async def difference(self, request: Request) -> Response:
        """The first less the second."""
        step = _number(request, "step", MOST_STEPS, "1")
        if self._waiting >= MOST_WAITING:
            raise NotGiven(503, "other differences are made first", "try again in a few seconds")
        self._waiting += 1
        try:
            async with self._one:
                where = _where(request), _where(request, "2")
                body = await asyncio.to_thread(self._difference, *where, step)
        finally:
            self._waiting -= 1
        return Response(body, media_type="application/octet-stream", headers={"Cache-Control": FOR_EVER})

    def _cutout(self, where: Where, x: int, y: int, wide: int) -> str:
        with self._pixels(where) as (shown, opened):
            ny, nx = opened.shape
            if x > nx or y > ny:
                raise NotGiven(400, f"there is no pixel {x}, {y}", f"it has {nx} x {ny}, counted from 1")
            seen = opened.window(x - 1, y - 1, min(wide, nx - x + 1), min(wide, ny - y + 1))
            told = {"version": VERSION, "name": short(shown.name), "x": x, "y": y, "size": [nx, ny]}
            sky = _sky(shown)
            on_sky = {name: sky[name] for name in ("crpix", "crval", "cd") if name in sky}
            return json.dumps({**told, "unit": short(opened.unit), **_of(seen), "sky": on_sky})

    def _difference(self, where: Where, where_other: Where, step: int) -> bytes:
        with self._pixels(where) as (one, first), self._pixels(where_other) as (other, second):
            if math.prod(first.shape) > step * step << 19:  # 512 x 1024 or so: 1 MB
                raise NotGiven(400, f"that is too large with a step of {step}", "take a larger step")
            skies = _sky(one), _sky(other)
            try:
                found = difference.of(first, second, skies, step)
            except NoDifference as error:
                raise NotGiven(409, f"no difference: {error}", "look at both, one after the other") from None
            told = {"name": short(one.name), "other": short(other.name), "unit": short(first.unit)}
            return json.dumps({"version": VERSION, **told, **found.plain()}).encode() + b"\n" + found.halves()

    @contextlib.contextmanager
    def _pixels(self, where: Where) -> Iterator[tuple[Shown, Opened]]:
        """What is meant, with its pixels. Raises NotGiven."""
        with self.source.read() as db:
            shown = pictures.find(db, *where)
        if shown is None:
            raise NotGiven(404, GONE)
        try:
            fd = disk.open_below(Path(shown.path), self._products)
        except OSError:
            raise NotGiven(404, GONE) from None
        try:
            opened = Opened(fd)
            if not pictures.stands_for(self.source.read, shown, str(opened.cards.get("JOBKEY")), fd):
                raise NotGiven(404, GONE)
            yield shown, opened
        except RefusedFile as error:
            raise NotGiven(
                404, f"its file has no pixels to show: {short(error)}", "take the whole file"
            ) from None
        except (NiridError, OSError):  # what is said of odd bytes may quote them
            raise NotGiven(404, "its file cannot be read", "nirid audit --deep says more") from None
        finally:
            os.close(fd)


def _of(seen: Window) -> dict[str, Any]:
    """Rows from below, as JSON. null : no value; errors : one sigma, of files that have a variance"""
    void = np.zeros(seen.values.shape, bool) if seen.void is None else seen.void
    values = [
        [None if none else float(str(value)) for value, none in zip(row, nones, strict=True)]
        for row, nones in zip(seen.values, void, strict=True)
    ]
    told: dict[str, Any] = {"values": values, "errors": None, "flags": None, "meaning": {}}
    if seen.variance is not None:
        errors = np.sqrt(seen.variance)
        told["errors"] = [[float(f"{error:.5g}") for error in row] for row in errors]
    if seen.flags is not None:
        told["flags"] = seen.flags.tolist()
        told["meaning"] = {str(int(bit)): words for bit, words in FLAGS}
    return told


def _sky(shown: Shown) -> dict[str, Any]:
    """What its picture says of its sky."""
    return pictures.known(shown.path, f"/image/{shown.kind}/{shown.id}/{shown.key}")


def _number(request: Request, name: str, most: int, default: str = "") -> int:
    """A whole number from 1. Raises NotGiven."""
    said = request.query_params.get(name, default)
    if said.isascii() and said.isdigit() and len(said) < 8 and 1 <= int(said) <= most:
        return int(said)
    raise NotGiven(400, f"{name} must be a whole number from 1 to {most}", "as /cutout/...?x=100&y=200&w=32")


def _where(request: Request, suffix: str = "") -> Where:
    kind, number, key = (request.path_params[f"{name}{suffix}"] for name in ("kind", "number", "key"))
    return kind, number, key


def _said(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The same, with what is not given as an answer."""

    async def told(request: Request) -> Response:
        try:
            return await handler(request)
        except NotGiven as error:
            return error.answer()
        except NiridError as error:
            return NotGiven(503, str(error), "it is tried again at every request").answer()

    return told
