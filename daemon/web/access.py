"""Who may decide on the page: whoever knows the token, under a name; all others only look.

    access = Access.of(config)                 # with the token of STATE/web-token, if there is one
    cookie = access.cookie("ada", now)         # after a login; HttpOnly, SameSite=Strict
    access.name_of(cookie, now)                # "ada", or "" for a cookie that is none of ours, or old
    access.proof(cookie)                       # stands in every form: a page on another site cannot know it

Nothing is kept between requests: a cookie is signed with the token, so a new token ends every login.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from daemon import owner
from daemon.config.options import Config
from daemon.model.address import is_loopback
from daemon.model.plain import clean
from daemon.web.guard import Headers
from pipeline.errors import ConfigError
from pipeline.files.disk import write_whole

FILE = "web-token"
COOKIE = "nirid"
HOURS = 16.0  # that a login lasts: a night
LONGEST_NAME = 40
EVERY = 1.0  # s between two decisions, and between two tries to log in


def make(config: Config) -> str:
    """The token, made if there is none yet; the account of the service reads it. ConfigError, OSError."""
    with owner.acting(config):
        path = config.state_folder / FILE
        if not path.exists():
            config.state_folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            write_whole(path, f"{secrets.token_urlsafe(24)}\n".encode(), mode=0o600, alone=True)
        return read(config)


def read(config: Config) -> str:
    """The token; "" when none was made. Raises ConfigError for one that others can read, or too short."""
    path = Path(config.state_folder, FILE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077:
            raise ConfigError(f"{path}: others can read it: chmod 600 {path}, or remove it for a new one")
        token = file.read(1024).decode("ascii", "replace").strip()
    if len(token) < 20:
        raise ConfigError(f"{path}: too short: remove it, and nirid web --token makes a new one")
    return token


def check(config: Config) -> None:
    """Raises ConfigError when other machines could look without a token."""
    others = [address for address in config.web.hosts if not is_loopback(address)]
    if others and not read(config):
        raise ConfigError(
            f"[web] hosts = {others[0]!r}: other machines look only with a token: nirid web --token makes it"
        )


@dataclass
class Access:
    """token : "" where nobody may decide; closed : to look needs a login as well"""

    token: str = ""
    closed: bool = False
    clock: Callable[[], float] = time.monotonic
    _last: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config) -> Access:
        closed = not all(is_loopback(address) for address in config.web.hosts)
        return cls(read(config), closed)

    def is_token(self, said: str) -> bool:
        return bool(self.token) and hmac.compare_digest(said.encode(), self.token.encode())

    def cookie(self, name: str, now: float) -> str:
        """now : seconds since the epoch"""
        who = base64.urlsafe_b64encode(clean(name).strip()[:LONGEST_NAME].encode()).decode().rstrip("=")
        told = f"{who}.{int(now + 3600 * HOURS)}"
        return f"{told}.{self._signed('login', told)}"

    def name_of(self, cookie: str, now: float) -> str:
        """Who is logged in; "" for nobody."""
        told, _, signed = cookie.rpartition(".")
        if not self.token or not hmac.compare_digest(signed.encode(), self._signed("login", told).encode()):
            return ""
        who, _, until = told.partition(".")
        with contextlib.suppress(ValueError):
            if now < int(until):
                return base64.urlsafe_b64decode(who + "=" * (-len(who) % 4)).decode("utf-8", "replace")
        return ""

    def proof(self, cookie: str) -> str:
        return self._signed("form", cookie)

    def is_proof(self, cookie: str, said: str) -> bool:
        return bool(cookie) and hmac.compare_digest(said.encode(), self.proof(cookie).encode())

    def _signed(self, what: str, text: str) -> str:
        key = hashlib.sha256(f"nirid {what} {self.token}".encode()).digest()
        return hmac.new(key, text.encode(), "sha256").hexdigest()[:40]

    def may_look(self, path: str, headers: Headers) -> bool:
        """Whether an address is answered: on loopback all of them, else for whoever is logged in or has the
        token as a bearer; the login itself, and whether the process lives, always."""
        if not self.closed or path in ("/login", "/healthz") or path.startswith("/static/"):
            return True
        values = {name: value.decode("latin-1") for name, value in headers}
        kind, _, token = values.get(b"authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(token.strip()):
            return True
        cookies = (part.strip().partition("=") for part in values.get(b"cookie", "").split(";"))
        return any(self.name_of(value, time.time()) for name, _, value in cookies if name == COOKIE)

    def too_soon(self, what: str) -> bool:
        """True when the last of its kind was less than a second ago; counts this one otherwise."""
        now = self.clock()
        if now - self._last.get(what, float("-inf")) < EVERY:
            return True
        self._last[what] = now
        return False
