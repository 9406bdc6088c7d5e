"""The other addresses: JSON in the command line's own words and keys, and the pages that stand still.

Everything that asks the ledger runs in a thread, on one snapshot that ends before anything is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from daemon.ledger import board, measures, nightsearch, targets
from daemon.ledger.board import Shown
from daemon.ledger.store import DatabaseError, Reader, on_paper
from daemon.ledger.targets import UnknownTarget
from daemon.markup import Safe, join, short, tag
from daemon.model.names import is_date
from daemon.people import board as people_board
from daemon.people import calibrations, enough, missing, nightlist, nightreport, nightsheet, trends, verdicts
from daemon.people import explain as people_explain
from daemon.upkeep import reports
from daemon.web import assets, levels, pages, signs, thing
from daemon.web.decide import Decisions
from daemon.web.feed import Feed, message
from daemon.web.source import Source
from pipeline.errors import NiridError

VERSION = 1
MOST = 200  # rows of one answer
_NIGHT = re.compile(r"\d{8}")
_NUMBER = re.compile(r"[Ss]?([0-9]{1,4})")

Handler = Callable[[Request], Awaitable[Response]]


def routes(source: Source, feed: Feed, deciding: Decisions) -> list[Route]:
    """All but the night's own."""
    asked = _Asked(source, feed, deciding)
    return [
        Route("/find", asked.find),
        Route("/nights", asked.nights_page),
        Route("/night/{night}", asked.night_page),
        Route("/night/{night}/print", asked.sheet),
        Route("/frames/{night}", asked.frames_page),
        Route("/calibrations", asked.calibrations_page),
        Route("/thing/{target:path}", asked.thing_page),
        Route("/api/v1/nights", asked.of(_nights)),
        Route("/api/v1/night/{night}", asked.of(asked.report)),
        Route("/api/v1/frames", asked.of(asked.frames)),
        Route("/api/v1/products", asked.of(_products)),
        Route("/api/v1/missing", asked.of(asked.missing)),
        Route("/api/v1/calibrations", asked.of(asked.calibrations)),
        Route("/api/v1/trend", asked.of(_trend)),
        Route("/api/v1/events", asked.of(_events)),
        Route("/api/v1/alerts", asked.alerts),
        Route("/api/v1/thing/{target:path}", asked.thing),
    ]


def night_in(request: Request, default: str = "") -> str:
    """A UT date as 20160102, of the path or the query. Raises UnknownTarget."""
    said = str(request.path_params.get("night") or request.query_params.get("night") or default).replace(
        "-", ""
    )
    if is_date(said):
        return said
    raise UnknownTarget("no such night: a UT date is meant, as 20160102")


def _number(request: Request, name: str, default: float, most: float) -> float:
    said = request.query_params.get(name, "")
    try:
        return max(0.0, min(float(said), most)) if said else default
    except ValueError:
        raise UnknownTarget(f"{name} must be a number") from None


def _after(request: Request) -> tuple[float, int] | None:
    """(ut, id) of `?after=1451710000.5:812`."""
    if not (said := request.query_params.get("after", "")):
        return None
    at, _, number = said.partition(":")
    try:
        return float(at), max(0, min(int(number), 1 << 62))
    except ValueError:
        raise UnknownTarget("after must be as the address of the older frames has it") from None


# -- answers of the ledger, as JSON -------------------------------------------------------------


def _nights(db: Reader, request: Request, limit: int = 60) -> list[dict[str, Any]]:
    """All, or those in which a programme or an object was observed."""
    asked = request.query_params
    return nightlist.rows(
        db,
        programme=asked.get("programme", ""),
        object_=asked.get("object", ""),
        limit=int(_number(request, "limit", limit, MOST)),
        before=_number(request, "before", nightsearch.EVER, nightsearch.EVER),
    )


def _products(db: Reader, request: Request) -> Any:
    limit = int(_number(request, "limit", 50, MOST))
    return [people_board.shown(one) for one in board.products(db, night_in(request), limit)]


def _trend(db: Reader, request: Request) -> Any:
    """As `nirid trend`: all that there is, or the last so many days. Raises UnknownTarget."""
    name, key = request.query_params.get("metric", ""), request.query_params.get("key")
    if not name:
        return [{"name": each, "keys": measures.keys(db, each)} for each in measures.names(db)]
    days = _number(request, "days", 0.0, 36500.0)
    points = measures.trend(db, name, key=key, since=time.time() - days * 86400 if days else 0.0)
    if not points and (name not in measures.names(db) or (key and key not in measures.keys(db, name))):
        raise UnknownTarget(trends.nothing(db, short(name), short(key) if key else None, None))
    return [trends.plain(point) for point in points]


def _events(db: Reader, request: Request) -> Any:
    found = board.events(db, int(_number(request, "after", 0, 1 << 62)), MOST)
    return [{"id": number, "kind": kind, **fields} for number, kind, fields in map(message, found)]


class _Asked:
    """What needs the configuration besides."""

    def __init__(self, source: Source, feed: Feed, deciding: Decisions) -> None:
        self.source, self.feed, self.config, self.setting = source, feed, source.config, source.setting
        self.deciding = deciding

    def of(self, ask: Callable[[Reader, Request], Any]) -> Handler:
        """A question to the ledger, as an address that answers JSON."""

        def answer(request: Request) -> Any:
            with self.source.read() as db:
                return ask(db, request)

        async def handler(request: Request) -> Response:
            found = await asyncio.to_thread(answer, request)
            return _json({"version": VERSION, **({"rows": found} if isinstance(found, list) else found)})

        return handler

    def report(self, db: Reader, request: Request) -> Any:
        now = datetime.now(UTC)
        rules, breakpoints = self.setting.rules, self.setting.policy.breakpoints
        return nightreport.answer(db, rules, self.config.request, night_in(request), now, breakpoints)

    def frames(self, db: Reader, request: Request) -> Any:
        limit = int(_number(request, "limit", people_board.FRAMES, MOST))
        night = night_in(request)
        return people_board.frames(db, night, self.config.request, limit=limit, after=_after(request))

    def missing(self, db: Reader, request: Request) -> Any:
        night = night_in(request) if "night" in request.query_params else None
        return missing.answer(
            db, self.setting.rules, night, datetime.now(UTC), self.setting.policy.breakpoints
        )

    def calibrations(self, db: Reader, request: Request) -> Any:
        key = request.query_params.get("key") or None
        answer = calibrations.answer(db, self.setting.policy.breakpoints, key)
        if key and not answer["rows"]:
            raise UnknownTarget("there is no calibration of this key")
        return answer

    async def alerts(self, request: Request) -> Response:
        rows = [alert.plain() for alert in self.feed.snapshot.alerts]
        return _json({"version": VERSION, "rows": rows})

    async def thing(self, request: Request) -> Response:
        answer, _ = await asyncio.to_thread(self._explained, request.path_params["target"])
        return _json({**_renamed(answer), "version": VERSION})

    def _explained(self, target: str) -> tuple[dict[str, Any], list[Shown]]:
        """(what `nirid explain` answers, what has a picture, the newest first). Raises NiridError."""
        with self.source.read():  # whether it can be read at all, in words
            pass
        with _in_words(self.config.database), on_paper(self.config.database) as tx:
            found = targets.find(tx.reader, target, looks=True)
            answer = people_explain.explain(tx, found, self.setting, self.config.parameters)
            answer["conditions"] = verdicts.in_words(tx.reader, answer, self.config.request)
            answer["enough"] = enough.in_words(tx.reader, answer, self.config.goal, time.time())
            return answer, thing.pictured(tx.reader, answer, found.id)

    # -- pages ------------------------------------------------------------------------------

    async def find(self, request: Request) -> Response:
        """The search box: what `nirid explain` takes, a night, or the number of a frame of the night."""
        word = request.query_params.get("q", "").strip()[:200]
        if _NIGHT.fullmatch(word.replace("-", "")):
            return RedirectResponse(f"/night/{word.replace('-', '')}", 303)
        if (number := _NUMBER.fullmatch(word)) and (night := self.feed.snapshot.night.get("night")):
            word = f"N{night}S{int(number[1]):04d}.fits"
        return RedirectResponse(f"/thing/{quote(word, safe='')}" if word else "/", 303)

    async def thing_page(self, request: Request) -> Response:
        answer, shown = await asyncio.to_thread(self._explained, request.path_params["target"])
        body = join(thing.page(answer, shown), self.deciding.form(request, answer))
        return HTMLResponse(pages.thing(answer["name"], body, thing.night_of(answer), assets.key()))

    async def nights_page(self, request: Request) -> Response:
        def ask() -> list[dict[str, Any]]:
            with self.source.read() as db:
                return _nights(db, request, pages.NIGHTS)

        found = await asyncio.to_thread(ask)
        words = {name: request.query_params.get(name, "")[: nightlist.LONGEST] for name in pages.SEARCHED}
        return HTMLResponse(pages.nights(found, words, assets.key()))

    async def frames_page(self, request: Request) -> Response:
        def ask() -> list[dict[str, Any]]:
            with self.source.read() as db:
                limit = people_board.FRAMES + 1
                return people_board.frames(
                    db, night_in(request), self.config.request, limit=limit, after=_after(request)
                )

        rows = await asyncio.to_thread(ask)
        more = len(rows) > people_board.FRAMES
        return HTMLResponse(
            pages.frames(night_in(request), rows[: people_board.FRAMES], more=more, key=assets.key())
        )

    async def calibrations_page(self, request: Request) -> Response:
        def ask() -> dict[str, Any]:
            with self.source.read() as db:
                found: dict[str, Any] = self.calibrations(db, request)
                return found

        body = levels.page(await asyncio.to_thread(ask), request.query_params.get("key") or "")
        return HTMLResponse(pages.plain("calibrations", body, key=assets.key()))

    async def night_page(self, request: Request) -> Response:
        def ask() -> tuple[dict[str, Any], list[Shown]]:
            with self.source.read() as db:
                return self.report(db, request), board.products(db, night_in(request), 60)

        answer, made = await asyncio.to_thread(ask)
        found = [_thumb(one) for one in reversed(made)]
        return HTMLResponse(pages.report(answer, list(nightreport.lines(answer)), found, assets.key()))

    async def sheet(self, request: Request) -> Response:
        """The report to print, made now: its own style may be in it, and nothing else."""

        def ask() -> str:
            with self.source.read() as db:
                now = datetime.now(UTC)
                return reports.build(db, self.config, self.setting, night_in(request), now).page

        policy = f"{nightsheet.POLICY}; frame-ancestors 'none'"
        return HTMLResponse(await asyncio.to_thread(ask), headers={"Content-Security-Policy": policy})


@contextlib.contextmanager
def _in_words(database: Path) -> Iterator[None]:
    """What SQLite says of a database while it is read. Raises NiridError for it."""
    try:
        yield
    except DatabaseError as error:
        raise NiridError(f"{database}: {error}") from None


def _renamed(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer of `explain` whose own `version` does not stand in the place of the form's."""
    name = "product_version" if answer["kind"] == "product" else "recipe_version"
    return {name if key == "version" else key: value for key, value in answer.items()}


def _json(body: dict[str, Any]) -> Response:
    return Response(json.dumps(body, default=str), media_type="application/json")


def _thumb(one: Shown) -> Safe:
    row = people_board.shown(one)
    image = tag("img", src=f"{row['picture']}?w=96", alt="", width=96, height=96, loading="lazy")
    text = tag("span", signs.broken(row["name"]), f", {row['frames']} frames")
    return tag("li", tag("a", image, text, href=f"/thing/{quote(row['name'], safe='')}"))
