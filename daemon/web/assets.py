"""The script, the style sheet and the icon: files of our own, and nothing from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib import resources

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FILES = {
    "pictures.js": "text/javascript; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@cache
def content(name: str) -> bytes:
    """One of FILES."""
    return resources.files("daemon.web").joinpath("static", name).read_bytes()


@cache
def packed(name: str) -> bytes:
    return gzip.compress(content(name), 9, mtime=0)


@cache
def key() -> str:
    """Changes when any of them does."""
    return hashlib.sha256(b"".join(content(name) for name in FILES)).hexdigest()[:12]


async def answer(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in FILES:
        raise HTTPException(404, "no such file")
    headers = {"Vary": "Accept-Encoding", "Cache-Control": "public, max-age=3600"}
    if request.query_params.get("v") == key():
        headers["Cache-Control"] = "public, max-age=31536000, immutable"
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed(name), media_type=FILES[name], headers={**headers, "Content-Encoding": "gzip"})
    return Response(content(name), media_type=FILES[name], headers=headers)
