"""What stands before every answer: who may ask, how much, and what a browser may do with the answer.

A page on another site could let a browser ask us: the Host must be one of ours (a name that was pointed at
us is not), and what changes anything must come from a page of ours. Nothing is answered that could run as a
script but our own file, and no byte names another place.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from daemon import logs
from daemon.markup import short

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LONGEST_TARGET = 4096  # bytes of a path with its query
LONGEST_HEAD = 16 << 10  # bytes of all headers
LONGEST_BODY = 8192
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer a browser hides the origin of our own forms, too
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
READING = ("GET", "HEAD")
# What to do about a refusal.
_DO = {
    303: "with the token of nirid web --token, and a name",
    400: "ask for it by one of its names",
    401: "send the token as Authorization: Bearer, or log in",
    403: "use the form of the page, or the token as Authorization: Bearer",
    405: "docs/operations.md lists the addresses",
    413: "send less than 8 kB",
    414: "ask for less in one address",
    431: "send fewer cookies and headers",
    500: "the log of nirid web says how",
}


@dataclass
class Guard:
    """Wraps the whole program. hosts : what may stand in Host, without the port, in small letters

    may_look : told the path and the headers, whether it is answered without a login
    """

    app: App
    hosts: frozenset[str]
    may_look: Callable[[str, Headers], bool] = lambda path, headers: True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if refused := self.refusal(
            scope["method"], scope["raw_path"], scope["query_string"], scope["headers"]
        ):
            await _answer(send, scope["path"], *refused)
            return
        if not self.may_look(scope["path"], scope["headers"]):
            where = [] if _is_for_programs(scope["path"]) else [(b"location", b"/login")]
            await _answer(send, scope["path"], 303 if where else 401, "log in first: /login", where)
            return

        begun = ended = False

        async def guarded(message: Message) -> None:
            nonlocal begun, ended
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                begun = True
                given = {name for name, _ in message["headers"]}
                more = [(name, value) for name, value in HEADERS if name not in given]
                if b"cache-control" not in given:
                    more.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *more]
            await send(message)

        try:
            await self.app(scope, _limited(receive), guarded)
        except Exception:  # one answer goes wrong, and is told in the log; the page goes on
            logs.get().exception("web_error", method=scope["method"], path=short(scope["path"]))
            if ended:  # the program has said so itself
                return
            if begun:
                raise
            await _answer(send, scope["path"], 500, "it went wrong")

    def refusal(self, method: str, path: bytes, query: bytes, headers: Headers) -> tuple[int, str] | None:
        """(status, why) of what is not answered."""
        if len(path) + len(query) > LONGEST_TARGET:
            return 414, "the address is too long"
        if method not in (*READING, "POST"):
            return 405, f"only GET, HEAD and POST are answered, not {method[:20]}"
        if sum(len(name) + len(value) for name, value in headers) > LONGEST_HEAD:
            return 431, "the head of the request is too long"
        lengths = [value for name, value in headers if name == b"content-length"]
        if any(not value.isdigit() or int(value[:12]) > LONGEST_BODY for value in lengths):
            return 413, "the body is too long"
        hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if len(hosts) != 1 or host_of(hosts[0]) not in self.hosts:
            return 400, "this is not the host that is meant: [web] names lists those that are"
        if method not in READING and not _same_origin(hosts[0], headers):
            return 403, "a change must come from a page of this host"
        return None


def host_of(header: str) -> str:
    """The host of a Host header without its port, in small letters; "" where it is none."""
    name, bracket, _ = header.partition("]")
    if bracket:
        return f"{name}]".lower()
    return header.partition(":")[0].lower()


def allowed(addresses: Sequence[str], names: Sequence[str]) -> frozenset[str]:
    """What may stand in Host of a server that listens at these addresses and is called so."""
    told = {"localhost", *(name.lower() for name in names)}
    for address in addresses:
        told.add(f"[{address.lower()}]" if ip_address(address).version == 6 else address)
    return frozenset(told)


def _same_origin(host: str, headers: Headers) -> bool:
    """True when the browser says that a page of this host asks; what says nothing is no browser."""
    values = {name: value.decode("latin-1") for name, value in headers}
    if values.get(b"authorization", "").lower().startswith("bearer "):
        return True  # a program: no browser sends that of itself, nor for another site without asking us
    if values.get(b"sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = values.get(b"origin")
    return origin is not None and origin in (f"http://{host}", f"https://{host}")


def _limited(receive: Receive) -> Receive:
    """A body that is longer than any of ours ends early: what reads it finds it wanting."""
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            if size > LONGEST_BODY:
                return {"type": "http.disconnect"}
        return message

    return limited


def _is_for_programs(path: str) -> bool:
    return path.startswith("/api/")


async def _answer(
    send: Send, path: str, status: int, why: str, more: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    do = _DO[status]
    if _is_for_programs(path):
        body, kind = json.dumps({"error": why, "what_to_do": do}).encode(), b"application/json"
    else:
        body, kind = f"{why}; {do}\n".encode(), b"text/plain; charset=utf-8"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    headers += [*more, *HEADERS, (b"cache-control", b"no-store"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
