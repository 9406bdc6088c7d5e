"""Tells a program of the operator's of each new alert: a mail, a message, whatever it does.

    bell = Bell(config.alert)
    bell.hear(snapshot.alerts)       # whenever they may have changed
    await bell.run()                 # beside everything else, until it is cancelled

The alert is one line of JSON on the program's standard input; no shell, no text of a header in its arguments.
An alert is told once while it lasts, and not at all while somebody knows of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from daemon import logs
from daemon.config.options import Alerting
from daemon.web.alerts import Alert

HOUR = 3600.0
MOST_WAITING = 100


@dataclass
class Bell:
    """clock : monotonic"""

    how: Alerting
    clock: Callable[[], float] = time.monotonic
    _told: set[str] = field(default_factory=set)
    _waiting: deque[Alert] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))
    _rung: deque[float] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, alerts: Iterable[Alert]) -> None:
        """All that there are now: what is new is to be told, what is over may be told again one day."""
        if not self.how.command:
            return
        found = {alert.number: alert for alert in alerts}
        self._told &= found.keys()
        self._waiting = deque((a for a in self._waiting if a.number in found), maxlen=MOST_WAITING)
        for number, alert in found.items():
            if number not in self._told and not alert.known_to:
                self._told.add(number)
                self._waiting.append(alert)
        if self._waiting:
            self._wake.set()

    async def run(self) -> None:
        """One after the other, with a pause between."""
        while True:
            await self._wake.wait()
            while self._waiting:
                alert = self._waiting.popleft()
                if self.is_too_many():
                    logs.get().warning("alert_not_told", alert=alert.number, why="too many in an hour")
                    continue
                await self.tell(alert)
                await asyncio.sleep(self.how.pause_seconds)
            self._wake.clear()

    def is_too_many(self) -> bool:
        """Counts this run, unless there were as many in the last hour as there may be."""
        now = self.clock()
        while self._rung and now - self._rung[0] >= HOUR:
            self._rung.popleft()
        if len(self._rung) >= self.how.per_hour:
            return True
        self._rung.append(now)
        return False

    async def tell(self, alert: Alert) -> int | None:
        """Run the program; its exit code, None where it could not be run or took too long."""
        text = json.dumps(alert.plain(), default=str).encode() + b"\n"
        nowhere = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *self.how.command, stdin=asyncio.subprocess.PIPE, stdout=nowhere, stderr=nowhere
            )
        except OSError as error:
            logs.get().error("alert_not_told", alert=alert.number, why=str(error))
            return None
        try:
            await asyncio.wait_for(process.communicate(text), self.how.seconds)
        except (TimeoutError, asyncio.CancelledError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise
            logs.get().error("alert_not_told", alert=alert.number, why=f"killed after {self.how.seconds:g} s")
            return None
        logs.get().info("alert_told", alert=alert.number, what=alert.what, code=process.returncode)
        return process.returncode
