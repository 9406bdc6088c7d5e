"""Asks a web program without a socket, as a browser on this machine would."""

import asyncio
import json
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

HOST = {"host": "localhost:8321"}


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)


def ask(app, target, *, method="GET", body=b"", **headers):
    """headers : by name with _ for -; None leaves one out"""
    given = {**HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return asyncio.run(_ask(app, target, method, body, {k: v for k, v in given.items() if v is not None}))


async def _ask(app, target, method, body, headers):
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "surrogateescape"),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8321),
    }
    sent, told = [], [{"type": "http.request", "body": body, "more_body": False}]
    ended = asyncio.Event()

    async def receive():
        if told:
            return told.pop()
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    ended.set()
    start = sent[0]
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answer(start["status"], answered, b"".join(m.get("body", b"") for m in sent[1:]))
