"""What stands before every answer."""

import pytest

from daemon.web.guard import HEADERS, LONGEST_TARGET, Guard, allowed, host_of
from tests.asgi import ask

HOSTS = allowed(("127.0.0.1", "::1"), ("niri.example",))


async def program(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message["body"]
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % len(body)})


APP = Guard(program, HOSTS)
OURS = {"origin": "http://localhost:8321"}


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8321", "127.0.0.1:8321", "[::1]:8321", "NIRI.example"]
)
def test_our_own_names_are_answered(host):
    assert ask(APP, "/", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8321",
        "localhost.evil.example",
        "127.0.0.2",
        "",
        "[::2]",
        "localhost@evil",
        None,
    ],
)
def test_a_name_that_was_pointed_at_us_is_refused(host):
    assert ask(APP, "/", host=host).status == 400


def test_a_host_is_read_without_its_port():
    assert [host_of(h) for h in ("A:1", "[::1]:2", "[::1]", "b", "")] == ["a", "[::1]", "[::1]", "b", ""]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (OURS, 200),
        ({"origin": "https://localhost:8321"}, 200),
        ({**OURS, "sec_fetch_site": "same-origin"}, 200),
        ({**OURS, "sec_fetch_site": "cross-site"}, 403),
        ({**OURS, "sec_fetch_site": "same-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({}, 403),
    ],
)
def test_a_change_comes_from_a_page_of_ours(headers, status):
    assert ask(APP, "/", method="POST", **headers).status == status


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(method):
    assert ask(APP, "/", method=method, **OURS).status == 405


def test_a_long_address_is_refused():
    assert ask(APP, "/" + "x" * LONGEST_TARGET).status == 414
    assert ask(APP, "/?" + "x" * LONGEST_TARGET).status == 414


def test_a_long_body_is_not_read():
    assert ask(APP, "/", method="POST", body=b"x" * 9000, **OURS).text == "0"


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_every_answer_says_what_a_browser_may_do_with_it(host):
    answer = ask(APP, "/", host=host)
    for name, value in HEADERS:
        assert answer.headers[name.decode()] == value.decode()
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_what_goes_wrong_is_one_answer_and_is_told_in_the_log(capsys):
    async def fails(scope, receive, send):
        raise ZeroDivisionError

    answer = ask(Guard(fails, HOSTS), "/night/20160102")
    assert answer.status == 500
    assert "ZeroDivisionError" not in answer.text
    assert "content-security-policy" in answer.headers
