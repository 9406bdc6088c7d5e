"""Server-sent events: what has happened goes to every viewer, and what a viewer has missed it gets again.

    hub.publish("frame", {...}, number=812)      # to all; from the loop's thread only
    async for text in hub.follow(address, seen): ...
    hub.stop()                                   # every stream ends now, or a server would wait for ever

Our own forty lines: one way, resumed by the number of the last event, seen with curl. A viewer that does not
read is not waited for: its queue is cut, and it is told to begin anew.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_STREAMS, MOST_OF_ONE = 64, 8  # streams at the same time, and of one address
MOST_BYTES = 1 << 20  # that wait for one viewer
RETRY = 2000  # ms after which a browser comes back

Message = tuple[int | None, str, dict[str, Any]]  # number of the event, kind, fields


class TooMany(Exception):
    """There are as many streams as there may be."""


def encoded(message: Message) -> bytes:
    number, kind, fields = message
    line = json.dumps(fields, default=str, separators=(",", ":"))
    begin = f"id: {number}\n" if number is not None else ""
    return f"{begin}event: {kind}\ndata: {line}\n\n".encode()


@dataclass
class _Viewer:
    address: str
    waiting: deque[bytes] = field(default_factory=deque)
    size: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False

    def put(self, text: bytes) -> bool:
        """False when it does not read: what waited is dropped, and its stream ends with `reset`."""
        if self.size + len(text) > MOST_BYTES:
            self.waiting.clear()
            self.waiting.append(encoded((None, "reset", {"why": "too slow"})))
            self.ended = True
            self.wake.set()
            return False
        self.waiting.append(text)
        self.size += len(text)
        self.wake.set()
        return True


@dataclass
class Hub:
    """All who look. Everything here happens in the thread of the loop."""

    viewers: list[_Viewer] = field(default_factory=list)
    dropped: int = 0
    closed: bool = False

    def publish(self, kind: str, fields: dict[str, Any], number: int | None = None) -> None:
        text = encoded((number, kind, fields))
        for viewer in list(self.viewers):
            if not viewer.put(text):
                self.dropped += 1
                self.viewers.remove(viewer)

    def stop(self) -> None:
        """The last item of every stream."""
        self.closed = True
        for viewer in self.viewers:
            viewer.ended = True
            viewer.wake.set()

    def check(self, address: str) -> None:
        """Raises TooMany."""
        of_one = Counter(viewer.address for viewer in self.viewers)[address]
        if self.closed or len(self.viewers) >= MOST_STREAMS or of_one >= MOST_OF_ONE:
            raise TooMany

    async def follow(self, address: str, first: Callable[[], Sequence[Message]]) -> AsyncIterator[bytes]:
        """What is to be sent. first : what the viewer has missed, asked for after it is on the list"""
        viewer = _Viewer(address)
        self.viewers.append(viewer)
        try:
            yield f"retry: {RETRY}\n\n".encode()
            for message in await asyncio.to_thread(first):
                yield encoded(message)
            while True:
                while viewer.waiting:
                    text = viewer.waiting.popleft()
                    viewer.size -= len(text)
                    yield text
                if viewer.ended:
                    return
                viewer.wake.clear()
                await viewer.wake.wait()
        finally:
            if viewer in self.viewers:
                self.viewers.remove(viewer)
