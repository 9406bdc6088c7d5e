"""Looks after the page: sees that the ledger has changed, makes the parts anew, and tells all viewers.

feed = Feed(source, hub)
await feed.run()                    # until it is cancelled
feed.parts, feed.keys               # the parts as HTML, and what tells one from its last version
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from daemon.ledger import board, events
from daemon.ledger.board import Told
from daemon.markup import Safe, short
from daemon.web import panels
from daemon.web.bell import Bell
from daemon.web.source import Heart, Snapshot, Source
from daemon.web.stream import Hub, Message
from pipeline.errors import NiridError

POLL, REST = 0.1, 0.25  # s between looks at the files; and after a snapshot that was made, as it costs
BEAT, CHECK = 5.0, 10.0  # s between signs of life, and between looks at folders and disks
MOST_MISSED = 1000  # events; who has missed more begins anew

# The kind of an event, by the beginning of its name in the log.
_KINDS = (
    ("file_", "frame"),
    ("frame_", "frame"),
    ("look_", "look"),
    ("product_", "product"),
    ("job_done", "product"),
    ("job_", "job"),
    ("calibration_need", "missing"),
    ("calibration_", "alert"),
    ("decision", "group"),
    ("request_", "group"),
    ("halving_", "job"),
    ("publish_", "job"),
)
_SHOWN = (
    "job",
    "group",
    "name",
    "path",
    "state",
    "kind",
    "look",
    "night",
    "product",
    "reason",
    "what",
    "recipe",
)


def kind_of(name: str) -> str:
    return next((kind for begin, kind in _KINDS if name.startswith(begin)), "note")


def message(told: Told) -> Message:
    """At most a kilobyte of an event."""
    fields = {name: _small(told.fields[name]) for name in _SHOWN if name in told.fields}
    return told.number, kind_of(told.name), {"at": told.at, "event": told.name, **fields}


def _small(value: Any) -> Any:
    return value if isinstance(value, (int, float, bool, type(None))) else short(value, 120)


@dataclass
class Feed:
    """All its methods but `missed` are called in the thread of the loop."""

    source: Source
    hub: Hub
    parts: dict[str, Safe] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    snapshot: Snapshot = field(default_factory=Snapshot)
    etag: str = ""
    bell: Bell = field(init=False)
    _event: int = 0
    _heart: Heart = field(default_factory=lambda: Heart("", ""))

    def __post_init__(self) -> None:
        self.bell = Bell(self.source.config.alert)

    async def run(self) -> None:
        """Until it is cancelled."""
        parts = (self._follow, self._beat, self._check, self.bell.run)
        tasks = [asyncio.create_task(each()) for each in parts]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _follow(self) -> None:
        while True:
            before = self.snapshot
            await self.refresh()
            await asyncio.sleep(POLL if self.snapshot is before else REST)

    async def _beat(self) -> None:
        while True:
            heart = self.source.heart()
            if heart.state != self._heart.state:
                self._heart = heart
                self._show(self.snapshot, heart)
            self.hub.publish("beat", {**self.beat(), "heart": heart.state})
            await asyncio.sleep(BEAT)

    async def _check(self) -> None:
        while True:
            await asyncio.to_thread(self.source.check)
            await asyncio.sleep(CHECK)

    def beat(self) -> dict[str, Any]:
        """What the time is here, and how many look."""
        now = time.time()
        return {
            "at": now,
            "ut": f"{datetime.fromtimestamp(now, UTC):%H:%M:%S}",
            "viewers": len(self.hub.viewers),
        }

    async def refresh(self) -> None:
        """Make anew what is old, and tell of it."""
        if not self.source.is_old() and self.snapshot.made:
            return
        found = await asyncio.to_thread(self._made)
        if found is not None:
            self._tell(*found)

    def _made(self) -> tuple[Snapshot, dict[str, Safe], list[Message]] | None:
        snapshot = self.source.look()
        if snapshot is self.snapshot:
            return None
        return snapshot, panels.made(snapshot), self._news(snapshot)

    def _news(self, snapshot: Snapshot) -> list[Message]:
        """The events between two snapshots; none of those before the first."""
        if not self._event or snapshot.event <= self._event:
            return []
        try:
            with self.source.read() as db:
                return [message(told) for told in board.events(db, self._event, MOST_MISSED)]
        except NiridError:
            return []

    def _tell(self, snapshot: Snapshot, parts: dict[str, Safe], news: Sequence[Message]) -> None:
        self._event = max(
            (number for number, _, _ in news if number), default=max(self._event, snapshot.event)
        )
        for number, kind, fields in news:
            self.hub.publish(kind, fields, number)
        self._heart = snapshot.heart
        self._keep(snapshot, parts)

    def _show(self, snapshot: Snapshot, heart: Heart) -> None:
        """Only the heart has changed."""
        told = Snapshot(**{**vars(snapshot), "heart": heart})
        self._keep(told, {**self.parts, "head": panels.head(told)})
        self.snapshot = snapshot

    def _keep(self, snapshot: Snapshot, parts: dict[str, Safe]) -> None:
        keys = {name: hashlib.sha256(html.encode()).hexdigest()[:12] for name, html in parts.items()}
        changed = {name: key for name, key in keys.items() if self.keys.get(name) != key}
        self.snapshot, self.parts, self.keys = snapshot, parts, keys
        self.bell.hear(snapshot.alerts)
        self.etag = f'"{snapshot.event}-{hashlib.sha256("".join(keys.values()).encode()).hexdigest()[:12]}"'
        if changed:
            self.hub.publish("parts", {"keys": changed, "at": time.time()})

    def missed(self, after: int | None) -> list[Message]:
        """What a viewer has missed that has seen event `after`; None : it has just come. From any thread."""
        parts: Message = (None, "parts", {"keys": dict(self.keys), "at": time.time()})
        begin: list[Message] = [(None, "beat", {**self.beat(), "heart": self._heart.state}), parts]
        if after is None:
            return begin
        try:
            with self.source.read() as db:
                last = events.last_number(db)
                if not 0 <= last - after <= MOST_MISSED:
                    return [(None, "reset", {"why": "too much has happened"}), *begin]
                return [*(message(told) for told in board.events(db, after, MOST_MISSED)), *begin]
        except NiridError:
            return begin
