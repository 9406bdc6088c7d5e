"""Decisions on the page: only with the token, only from our own form, and applied like those of commands."""

import asyncio
import json
import os
import re
import stat
from urllib.parse import urlencode

import pytest
from click.testing import CliRunner

from daemon.cli import Settings
from daemon.cli import alerts as alerts_command
from daemon.config.options import Config, State, Web
from daemon.people import requests
from daemon.web import access, app
from daemon.web.access import Access
from pipeline.errors import ConfigError
from tests.asgi import ask
from tests.integration.test_web import landed

OURS = {"origin": "http://localhost:8321", "sec_fetch_site": "same-origin"}
FRAME = "N20160102S0279.fits"


def config_of(daemon, **web):
    return Config(state=State(str(daemon.folder)), base=str(daemon.folder), web=Web(**web))


@pytest.fixture
def daemon(daemons):
    made = landed(daemons)
    requests.folder(made.folder / "state")  # where the daemon of these tests looks
    (made.folder / "requests").symlink_to(made.folder / "state" / "requests")
    return made


@pytest.fixture
def token(daemon):
    return access.make(config_of(daemon))


@pytest.fixture
def page(daemon, token):
    return app.build(config_of(daemon))


def post(page, path, fields, **headers):
    body = urlencode(fields).encode()
    kind = {"content_type": "application/x-www-form-urlencoded"}
    return ask(page.app, path, method="POST", body=body, **{**OURS, **kind, **headers})


def logged_in(page, token, name="ada"):
    answer = post(page, "/login", {"name": name, "token": token})
    assert answer.status == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    return cookie.partition(";")[0]


def proof_in(page, cookie, target=FRAME):
    text = ask(page.app, f"/thing/{target}", cookie=cookie).text
    return re.search(r'name="proof" value="([0-9a-f]+)"', text)[1], re.search(
        r'name="target" value="([^"]+)"', text
    )[1]


def waiting(daemon):
    return [requests.read(path) for path in requests.waiting(daemon.folder / "state")]


def test_a_decision_goes_the_way_of_the_commands_under_the_name_of_the_login(daemon, page, token):
    cookie = logged_in(page, token)
    proof, target = proof_in(page, cookie)
    fields = {"action": "reject", "target": target, "reason": "trailed", "proof": proof}
    answer = post(page, "/decide", fields, cookie=cookie)
    assert answer.status == 303
    (request,) = waiting(daemon)
    assert (request["action"], request["reason"], request["user"]) == ("reject", "trailed", "ada (web)")
    daemon.run(600)
    text = ask(page.app, f"/thing/{FRAME}").text
    assert "excluded" in text
    assert "reject by ada (web): trailed" in text


def test_who_is_not_logged_in_sees_no_form_and_decides_nothing(daemon, page, token):
    assert 'name="proof"' not in ask(page.app, f"/thing/{FRAME}").text
    cookie = logged_in(page, token)
    proof, target = proof_in(page, cookie)
    fields = {"action": "reject", "target": target, "reason": "x", "proof": proof}
    assert post(page, "/decide", fields).status == 403
    assert post(page, "/decide", fields, cookie="nirid=x.9999999999.y").status == 403
    assert post(page, "/decide", {**fields, "proof": "0" * 40}, cookie=cookie).status == 403
    assert post(page, "/decide", fields, cookie=cookie, sec_fetch_site="cross-site").status == 403
    assert post(page, "/decide", fields, cookie=cookie, origin="http://evil.example").status == 403
    assert waiting(daemon) == []


@pytest.mark.parametrize(
    "change", [{"reason": " "}, {"action": "add"}, {"action": "quarantine"}, {"target": "nothing"}]
)
def test_what_makes_no_sense_is_refused(daemon, page, token, change):
    cookie = logged_in(page, token)
    proof, target = proof_in(page, cookie)
    fields = {"action": "reject", "target": target, "reason": "x", "proof": proof, **change}
    assert post(page, "/decide", fields, cookie=cookie).status in (403, 404)
    assert waiting(daemon) == []


def test_one_decision_and_one_try_to_log_in_a_second(daemon, page, token):
    cookie = logged_in(page, token)
    assert post(page, "/login", {"name": "eve", "token": token}).status == 403
    proof, target = proof_in(page, cookie)
    fields = {"action": "requeue", "target": target, "reason": "x", "proof": proof}
    assert [post(page, "/decide", fields, cookie=cookie).status for _ in range(3)] == [303, 403, 403]


def test_the_wrong_token_is_refused(page, token):
    assert post(page, "/login", {"name": "eve", "token": token[:-1]}).status == 403


def test_a_program_decides_with_the_token_as_its_bearer(daemon, page, token):
    body = b'{"action": "requeue", "target": "group:1", "reason": "better now", "name": "robot"}'
    how = {"method": "POST", "body": body}
    assert ask(page.app, "/api/v1/decisions", **how, authorization="Bearer wrong").status == 403
    assert ask(page.app, "/api/v1/decisions", **how).status == 403
    assert ask(page.app, "/api/v1/decisions", **how, authorization=f"Bearer {token}").status == 202
    (request,) = waiting(daemon)
    assert request["user"] == "robot (web)"


def test_a_login_ends_after_a_night_and_with_its_token():
    mine = Access("t" * 24)
    cookie = mine.cookie("ada", 1000.0)
    assert mine.name_of(cookie, 1000.0 + 15 * 3600) == "ada"
    assert mine.name_of(cookie, 1000.0 + 17 * 3600) == ""
    assert Access("u" * 24).name_of(cookie, 1000.0) == ""
    assert Access("").name_of(cookie, 1000.0) == ""
    who, until, signed = cookie.split(".")
    assert mine.name_of(f"{who}.{int(until) + 1}.{signed}", 1000.0) == ""


def test_without_a_token_nobody_can_decide(daemon):
    page = app.build(config_of(daemon))
    assert post(page, "/login", {"name": "eve", "token": ""}).status == 403
    assert ask(page.app, "/login").text.count("<form") == 2  # the search, and the help


def test_the_token_is_the_accounts_alone(daemon, token):
    path = daemon.folder / access.FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert access.make(config_of(daemon)) == token
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        access.read(config_of(daemon))


def test_other_machines_look_only_with_a_login(daemon):
    outside = config_of(daemon, hosts=("0.0.0.0",), names=("niri.example",))
    with pytest.raises(ConfigError, match="--token"):
        access.check(outside)
    token = access.make(outside)
    access.check(outside)
    page = app.build(outside)
    for path in ("/", "/night/20160102", "/metrics", "/image/look/1/a"):
        answer = ask(page.app, path)
        assert (answer.status, answer.headers["location"]) == (303, "/login"), path
    assert ask(page.app, "/api/v1/tonight").status == 401
    for path in ("/login", "/static/page.css", "/healthz"):
        assert ask(page.app, path).status == 200
    cookie = logged_in(page, token)
    assert ask(page.app, "/", cookie=cookie).status == 200
    assert ask(page.app, "/api/v1/tonight", authorization=f"Bearer {token}").status == 200


def test_only_the_accounts_own_file_names_somebody_else(daemon, monkeypatch):
    """Another member of the group cannot decide under a name that is not his."""
    requests.submit(
        daemon.folder / "state", {"action": "reject", "target": FRAME, "reason": "x", "by": "ada"}
    )
    (path,) = requests.waiting(daemon.folder / "state")
    assert requests.read(path)["user"] == "ada (web)"
    monkeypatch.setattr(requests.os, "geteuid", lambda: os.getuid() + 1)
    assert requests.read(path)["user"] == requests._name(os.getuid())


def test_an_alert_that_somebody_knows_of_is_shown_so_and_not_counted(daemon, page, token):
    """Also after a restart: it is a decision in the ledger. The drop folder is missing here."""
    asyncio.run(page.feed.refresh())
    page.source.check()
    first = ask(page.app, "/api/v1/tonight").json()["alerts"]
    assert first
    told = first[0]
    cookie = logged_in(page, token)
    number = told["alert"].partition(":")[2]
    text = ask(page.app, f"/alert/{number}", cookie=cookie).text
    proof = re.search(r'name="proof" value="([0-9a-f]+)"', text)[1]
    fields = {
        "action": "acknowledge",
        "target": told["alert"],
        "reason": "on its way",
        "hours": "4",
        "proof": proof,
    }
    assert post(page, "/decide", fields, cookie=cookie).status == 303
    daemon.run(10)
    again = app.build(config_of(daemon))
    again.source.clock = lambda: 1.6e9 + daemon.now + 3600
    asyncio.run(again.feed.refresh())
    again.source.check()
    shown = {alert["alert"]: alert for alert in ask(again.app, "/api/v1/tonight").json()["alerts"]}
    assert shown[told["alert"]]["known_to"] == "ada (web)"
    assert shown[told["alert"]]["known_why"] == "on its way"
    assert f'data-count="{len(first) - 1}"' in ask(again.app, "/").text
    again.source.clock = lambda: 1.6e9 + daemon.now + 5 * 3600
    again.source._dirty_until = 1.0
    late = {alert["alert"]: alert for alert in ask(again.app, "/api/v1/tonight").json()["alerts"]}
    assert late[told["alert"]]["known_to"] == ""


@pytest.mark.parametrize(
    "change", [{"hours": 0}, {"hours": 1e9}, {"reason": ""}, {"target": "alert:x"}, {"hours": -1}]
)
def test_what_cannot_be_acknowledged_is_refused(daemon, change):
    daemon.decide("acknowledge", **{"target": "alert:0123abcd", "reason": "x", "said": "disk", **change})
    daemon.run(10)
    assert [name for name, _ in daemon.events if name in ("decision", "request_refused")] == [
        "request_refused"
    ]


def test_the_command_lists_what_the_page_lists_and_hands_over_who_knows(daemon, tmp_path_factory):
    apart = tmp_path_factory.mktemp("apart")  # a command wants drop, products and state apart
    (apart / "state").mkdir()
    for name in ("nirid.db", "nirid.db-wal", "nirid.db-shm", "requests"):
        (apart / "state" / name).symlink_to(daemon.folder / name)
    file = apart / "nirid.toml"
    folders = {"state": apart / "state", "products": daemon.products}
    file.write_text("".join(f"[{name}]\nfolder = '{path}'\n" for name, path in folders.items()))
    settings = Settings(config=str(file))
    page = app.build(settings.load())
    listed = CliRunner().invoke(alerts_command.alerts, ["--json"], obj=settings)
    assert listed.exit_code == 0, listed.output
    found = json.loads(listed.output)
    page.source.check()
    on_page = ask(page.app, "/api/v1/tonight").json()["alerts"]
    assert {alert["alert"] for alert in found} == {alert["alert"] for alert in on_page} != set()
    number = found[0]["alert"].partition(":")[2]
    words = [number, "--reason", "on its way", "--hours", "2"]
    done = CliRunner().invoke(alerts_command.acknowledge, words, obj=settings)
    assert done.exit_code == 0, done.output
    daemon.run(10)
    assert daemon.rows("SELECT user, reason FROM decision WHERE subject = ?", f"alert {number}") == [
        {"user": requests._name(os.getuid()), "reason": "on its way"}
    ]
    wrong = CliRunner().invoke(alerts_command.acknowledge, ["00000000", "--reason", "x"], obj=settings)
    assert "no such alert" in str(wrong.exception)
