"""Decisions on the page: accept, reject, requeue, as the commands hand them to the daemon.

A login needs the token and a name; a decision a reason, the proof that stands in our own form, and a second
since the last one. It becomes a file in STATE/requests/, like any other; here nothing is decided.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from daemon.ledger import targets
from daemon.ledger.targets import UnknownTarget
from daemon.markup import Child, Safe, join, short, tag
from daemon.model.decisions import ACKNOWLEDGE
from daemon.model.plain import clean, loads
from daemon.people import requests
from daemon.web import assets, pages
from daemon.web.access import COOKIE, HOURS, LONGEST_NAME, Access
from daemon.web.source import Source
from pipeline.errors import NiridError

ACTIONS = {
    "reject": "take it out of use",
    "accept": "use it, or use it again",
    "requeue": "make it again",
}
MOST_REASON = 400


class NotAllowed(NiridError):
    """Who asks is not logged in, or the form is not one of ours."""


class Decisions:
    """The addresses of it."""

    def __init__(self, source: Source, access: Access) -> None:
        self.source, self.access = source, access

    def routes(self) -> list[Route]:
        return [
            Route("/login", self.login_page, methods=["GET"]),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/decide", self.decide, methods=["POST"]),
            Route("/alert/{number}", self.alert_page, methods=["GET"]),
            Route("/api/v1/decisions", self.decide_by_token, methods=["POST"]),
        ]

    def who(self, request: Request) -> str:
        return self.access.name_of(request.cookies.get(COOKIE, ""), time.time())

    # -- who --------------------------------------------------------------------------------

    async def login_page(self, request: Request) -> Response:
        return HTMLResponse(pages.plain("login", self._login_form(request, ""), key=assets.key()))

    def _login_form(self, request: Request, wrong: str) -> Safe:
        if not self.access.token:
            told = "Nobody can decide here: no token was made. nirid web --token makes one."
            return join(tag("h1", "Login"), tag("p", told))
        if name := self.who(request):
            out = tag("form", tag("button", "log out"), method="post", action="/logout")
            return join(tag("h1", "Login"), tag("p", "logged in as ", tag("b", name)), out)
        fields = [
            tag("p", tag("label", "name ", tag("input", name="name", required=True, maxlength=LONGEST_NAME))),
            tag("p", tag("label", "token ", tag("input", name="token", type="password", required=True))),
            tag("p", tag("button", "log in")),
        ]
        why = tag("p", wrong, class_="trouble") if wrong else None
        hint = tag(
            "p", f"The token is what nirid web --token says; a login lasts {HOURS:g} hours.", class_="dim"
        )
        return join(tag("h1", "Login"), why, tag("form", fields, method="post", action="/login"), hint)

    async def login(self, request: Request) -> Response:
        form = await _form(request)
        name, wrong = form.get("name", "").strip(), ""
        if self.access.too_soon("login"):
            wrong = "one try a second"
        elif not name or not self.access.is_token(form.get("token", "").strip()):
            wrong = "this is not the token"
        if wrong:
            page = pages.plain("login", self._login_form(request, wrong), key=assets.key())
            return HTMLResponse(page, 403)
        answer = RedirectResponse("/", 303)
        cookie, life = self.access.cookie(name, time.time()), int(3600 * HOURS)
        answer.set_cookie(COOKIE, cookie, max_age=life, httponly=True, samesite="strict", path="/")
        return answer

    async def logout(self, request: Request) -> Response:
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return answer

    # -- what -------------------------------------------------------------------------------

    def form(self, request: Request, answer: dict[str, Any]) -> Child:
        """What stands on the page of a thing: a form for whoever is logged in."""
        if not self.access.token or answer["kind"] not in ("file", "product", "group", "job"):
            return None
        if not (name := self.who(request)):
            return tag("p", tag("a", "log in", href="/login"), " to accept, reject or requeue", class_="dim")
        actions = [tag("option", f"{action}: {what}", value=action) for action, what in ACTIONS.items()]
        parts = [
            *self._hidden(request, answer["target"], answer["name"]),
            tag("label", "decide ", tag("select", actions, name="action")),
            tag("label", " reason ", tag("input", name="reason", required=True, maxlength=MOST_REASON)),
            " ",
            tag("button", f"as {name}"),
        ]
        return tag(
            "section", tag("h2", "decide"), tag("form", parts, method="post", action="/decide"), id="decide"
        )

    async def alert_page(self, request: Request) -> Response:
        """One alert, with the form by which somebody says that it is known."""
        number = request.path_params["number"]
        alert = next((alert for alert in self.source.now.alerts if alert.number == number), None)
        if alert is None:
            raise UnknownTarget("there is no such alert any more")
        if name := self.who(request):
            hours = [tag("option", f"{n} hours", value=n, selected=n == 16) for n in (1, 4, 16, 48, 168)]
            parts = [
                *self._hidden(request, f"alert:{number}", alert.what),
                tag("input", type="hidden", name="action", value=ACKNOWLEDGE),
                tag("label", "reason ", tag("input", name="reason", required=True, maxlength=MOST_REASON)),
                tag("label", " not again for ", tag("select", hours, name="hours")),
                " ",
                tag("button", f"known to {name}"),
            ]
            form = tag("form", parts, method="post", action="/decide")
        else:
            form = tag("p", tag("a", "log in", href="/login"), " to say that it is known", class_="dim")
        command = tag("pre", f'nirid acknowledge {number} --reason "..."')
        said = [tag("p", alert.why), tag("p", alert.do, class_="how")]
        body = join(tag("h1", alert.what), said, form, tag("h2", "in a shell"), command)
        return HTMLResponse(pages.plain("alert", body, key=assets.key()))

    def _hidden(self, request: Request, target: str, said: str) -> list[Safe]:
        """What every form of ours carries."""
        proof = self.access.proof(request.cookies.get(COOKIE, ""))
        fields = {"target": target, "said": short(said), "proof": proof}
        return [tag("input", type="hidden", name=name, value=value) for name, value in fields.items()]

    async def decide(self, request: Request) -> Response:
        """A form of ours: the browser goes back to the thing, where the decision will be seen."""
        form, cookie = await _form(request), request.cookies.get(COOKIE, "")
        name = self.who(request)
        if not name or not self.access.is_proof(cookie, form.get("proof", "")):
            raise NotAllowed("log in first; a login ends after a night")
        await self._submit(form, name)
        where = "/" if form["action"] == ACKNOWLEDGE else f"/thing/{quote(form['target'], safe='')}"
        return RedirectResponse(where, 303)

    async def decide_by_token(self, request: Request) -> Response:
        """{"action", "target", "reason", "name"} of a program that has the token as its bearer."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not self.access.is_token(token.strip()):
            raise NotAllowed("Authorization: Bearer with the token that nirid web --token says")
        try:
            told = loads(await request.body())
        except ValueError as error:
            return JSONResponse({"error": f"no JSON: {error}", "what_to_do": "send one object"}, 400)
        if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
            return JSONResponse({"error": "no object of texts", "what_to_do": "see docs/operations.md"}, 400)
        made = await self._submit(told, told.get("name", "").strip() or "a program")
        return Response(json.dumps({"version": 1, **made}), 202, media_type="application/json")

    async def _submit(self, told: dict[str, str], name: str) -> dict[str, str]:
        """Hand it over. Raises NotAllowed, UnknownTarget, NiridError."""
        action, reason = told.get("action", ""), clean(told.get("reason", "")).strip()[:MOST_REASON]
        if action not in (*ACTIONS, ACKNOWLEDGE):
            raise NotAllowed(f"no such decision: there are {', '.join((*ACTIONS, ACKNOWLEDGE))}")
        if not reason:
            raise NotAllowed("a decision needs a reason")
        if self.access.too_soon("decision"):
            raise NotAllowed("one decision a second")

        made: dict[str, Any] = {"action": action, "reason": reason, "by": clean(name)[:LONGEST_NAME]}
        if action == ACKNOWLEDGE:
            made["hours"] = _hours(told.get("hours", ""))

        def hand_over() -> dict[str, str]:
            target = said = told.get("target", "")
            if action != ACKNOWLEDGE:
                with self.source.read() as db:
                    found = targets.find(db, target)
                target, said = found.text, found.name
            made.update(target=target, said=short(told.get("said") or said))
            return {"request": requests.submit(self.source.config.state_folder, made), "target": target}

        return await asyncio.to_thread(hand_over)


def _hours(said: str) -> float:
    try:
        return float(said or 16)
    except ValueError:
        raise NotAllowed("hours must be a number") from None


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, each once."""
    text = (await request.body()).decode("utf-8", "replace")
    return {name: values[-1] for name, values in parse_qs(text, max_num_fields=20).items()}
