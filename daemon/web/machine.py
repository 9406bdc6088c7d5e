"""How the machine itself is: for monitors in a line or as figures, for people in words.

/healthz   the process lives          /readyz   what the page shows can be believed
/metrics   figures for Prometheus     /health   what the machine is doing, and whether it is well
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from daemon import instance
from daemon.judgement import pace
from daemon.ledger.upgrade import VERSION
from daemon.upkeep.health import room
from daemon.upkeep.metrics import FILE
from daemon.web import assets, pages, panels
from daemon.web.alerts import SILENT
from daemon.web.feed import Feed
from daemon.web.source import Source
from pipeline.errors import NiridError

GB = 1e9
# Jobs that are of now, and what people call them; done and dropped ones are history.
_JOBS = {"running": "running", "planned": "next", "waiting": "waiting", "failed": "failed"}


def routes(source: Source, feed: Feed) -> list[Route]:
    asked = _Machine(source, feed)
    return [
        Route("/healthz", asked.healthz),
        Route("/readyz", asked.readyz),
        Route("/metrics", asked.metrics),
        Route("/health", asked.health),
    ]


class _Machine:
    def __init__(self, source: Source, feed: Feed) -> None:
        self.source, self.feed, self.config = source, feed, source.config
        self.versions: dict[str, Any] = {  # of what runs, also when its files have been replaced since
            **{name: metadata.version(name) for name in ("nirid", "starlette", "uvicorn")},
            "Python": platform.python_version(),
            "schema of the database": VERSION,
        }

    async def healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """Whether what the page shows can be believed: the database is read, and the daemon's heart beats."""
        snapshot, heart = self.feed.snapshot, self.source.heart()
        why = snapshot.error or (heart.words if heart.state in ("stopped", "silent") else "")
        return PlainTextResponse(f"{why or 'ready'}\n", 503 if why else 200)

    async def metrics(self, request: Request) -> Response:
        """What the daemon has written last, and what is known here."""
        return PlainTextResponse(
            await asyncio.to_thread(self._metrics), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    def _metrics(self) -> str:
        hub = self.feed.hub
        own = (
            "# HELP nirid_web_viewers Pages that follow the night now.\n# TYPE nirid_web_viewers gauge\n"
            f"nirid_web_viewers {len(hub.viewers)}\n"
            "# HELP nirid_web_dropped_total Viewers that were cut off because they did not read.\n"
            f"# TYPE nirid_web_dropped_total counter\nnirid_web_dropped_total {hub.dropped}\n"
        )
        try:
            told = (self.config.state_folder / FILE).read_text("utf-8")
        except OSError:
            told = ""
        return told + own

    async def health(self, request: Request) -> Response:
        doing, parts = await asyncio.to_thread(self._health)
        heart = panels.heart(self.source.heart())
        alerts = panels.alerts(self.feed.snapshot.alerts)
        return HTMLResponse(pages.health(heart, alerts, doing, parts, assets.key()))

    def _health(self) -> tuple[list[str], dict[str, Mapping[str, Any]]]:
        """(what it is doing, tables of figures); whatever cannot be had is said to be so."""
        jobs: dict[str, int] | None
        running, snapshot = instance.running(self.config), self.feed.snapshot
        try:
            with self.source.read() as db:
                jobs, files = self.source.counted(db)
                doing = list(_doing(jobs))
        except NiridError as error:
            jobs, files, doing = None, {}, [f"What is to be done cannot be seen: {error}."]
        curves = snapshot.night.get("curves") or {"latency": ()}
        latency = pace.p95([seconds for _, seconds, _ in curves["latency"]])
        watched = (running or {}).get("watched") or {}
        folders = {
            str(folder): watched.get(str(folder), "not watched now") for folder in self.config.drop_folders
        }
        figures = {
            **{f"files {state}": n for state, n in files.items()},
            **({f"jobs {word}": jobs.get(state, 0) for state, word in _JOBS.items()} if jobs else {}),
            "landing to first look, 95 %": "not measured yet" if latency is None else f"{latency:.1f} s",
        }
        facts = {
            "state folder": str(self.config.state_folder),
            "products": str(self.config.product_folder),
            "database": snapshot.error or f"read, event {snapshot.event}",
            "the daemon is silent after": f"{SILENT:g} s",
            "viewers": len(self.feed.hub.viewers),
            "viewers that were cut off": self.feed.hub.dropped,
        }
        parts = {"drop folders, and how they are watched": folders, "figures": figures, "room": self._room()}
        return doing, {**parts, "places": facts, "versions": self.versions}

    def _room(self) -> dict[str, str]:
        found = {
            what: free if isinstance(free, str) else f"{free / GB:.1f} GB free"
            for what, free in room(self.config).items()
        }
        low = self.config.disk.low_water_mb / 1000
        return {**found, "work pauses below": f"{low:g} GB"}


def _doing(jobs: Mapping[str, int]) -> Iterator[str]:
    """`2 jobs run; 3 are next; 1 waits for a calibration.`"""
    told = []
    for state, one, many in (
        ("running", "1 job runs", "{} jobs run"),
        ("planned", "1 is next", "{} are next"),
        ("waiting", "1 waits for a calibration", "{} wait for a calibration"),
        ("failed", "1 has failed", "{} have failed"),
    ):
        if n := jobs.get(state, 0):
            told.append(one if n == 1 else many.format(n))
    if told:
        yield f"{'; '.join(told)}."
    else:
        yield "Nothing is to be done: all that has landed is reduced, or waits for more frames."
