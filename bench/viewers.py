"""python -m bench.viewers ADDRESS MANY SLOW: people who look at the page, without their browsers.

Each follows the stream of events, and asks for the parts of the page and the pictures that have changed, as
the page's script does. SLOW of them open the stream and read nothing. Ends with SIGTERM: one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PICTURE = re.compile(r'src="(/image/[^"]+)"')
A_HOST = 4  # viewers of one address: the page lets eight streams of one come in


@dataclass
class Seen:
    """waits : from the server's note that a part has changed to the part itself, s, of all viewers"""

    waits: list[float] = field(default_factory=list)
    pictures: int = 0
    bytes: int = 0
    lost: int = 0


async def viewer(number: int, host: str, port: int, seen: Seen) -> None:
    """Follow for ever; a page that is not there yet is tried again."""
    known: set[str] = set()
    while True:
        try:
            reader, writer = await _open(number, host, port, "/api/v1/stream")
            try:
                await _follow(reader, number, host, port, seen, known)
            finally:
                writer.close()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            seen.lost += 1
        await asyncio.sleep(0.5)


async def _follow(
    reader: asyncio.StreamReader, number: int, host: str, port: int, seen: Seen, known: set[str]
) -> None:
    kind = ""
    while line := (await reader.readline()).decode():
        if line.startswith("event: "):
            kind = line[7:].strip()
        elif line.startswith("data: ") and kind == "parts":
            changed = json.loads(line[6:])
            asked = f"/parts?names={','.join(changed['keys'])}"
            parts = json.loads(await _get(number, host, port, asked, seen))
            seen.waits.append(time.time() - changed["at"])
            for address in PICTURE.findall(" ".join(part["html"] for part in parts.values())):
                if address not in known:
                    known.add(address)
                    seen.pictures += 1
                    await _get(number, host, port, address, seen)


async def _open(number: int, host: str, port: int, path: str) -> Any:
    reader, writer = await asyncio.open_connection(
        host, port, local_addr=(f"127.0.1.{1 + number // A_HOST}", 0), limit=1 << 20
    )
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    if b" 200 " not in await reader.readline():
        writer.close()
        raise ConnectionError(path)
    while (await reader.readline()).strip():
        pass
    return reader, writer


async def _get(number: int, host: str, port: int, path: str, seen: Seen) -> bytes:
    reader, writer = await _open(number, host, port, path)
    try:
        body: bytes = await reader.read()
    finally:
        writer.close()
    seen.bytes += len(body)
    return body


async def slow(number: int, host: str, port: int) -> None:
    """Open the stream, and read nothing of it."""
    while True:
        try:
            await _open(number, host, port, "/api/v1/stream")
            await asyncio.Event().wait()
        except OSError:
            await asyncio.sleep(0.5)


async def main(address: str, many: int, idle: int) -> None:
    where = urlsplit(address)
    host, port, seen = str(where.hostname), int(where.port or 80), Seen()
    os.nice(19)  # they would look from machines of their own
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    tasks = [asyncio.create_task(viewer(n, host, port, seen)) for n in range(many)]
    tasks += [asyncio.create_task(slow(100 + n, host, port)) for n in range(idle)]
    await over.wait()
    for task in tasks:
        task.cancel()
    print(json.dumps(vars(seen)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
