"""Every JSON answer of the API has the form that is published in tests/schemas/, of whatever ledger."""

import asyncio
import json
import re
from urllib.parse import quote, urlencode

import pytest

from daemon.config.options import Config, State, Web
from daemon.web import access, app
from daemon.web.stream import MOST_STREAMS
from tests import schemas
from tests.asgi import ask
from tests.integration.test_web import Engine, landed, page_of
from tests.night import example1, static_bpm
from tests.schemas import wrong

OURS = {"origin": "http://localhost:8321", "sec_fetch_site": "same-origin"}
THINGS = ("job:1", "group:1", "N20160102S0270.fits", "N20160102S0271_image", "look")


def paths_of(page):
    """Every address of the API, as its routes have it."""
    found = [route.path for route in page.app.app.routes]
    return sorted(path for path in found if path.startswith("/api/"))


def schema_of(path):
    return path.removeprefix("/api/v1/").partition("/")[0]


# What is asked at each; TARGET stands for each of THINGS.
ASKED = {
    "/api/v1/tonight": [""],
    "/api/v1/nights": ["", "?limit=1", "?programme=GN-2015B-Q-1&object=sn%202014j"],
    "/api/v1/night/{night}": ["20160102", "20160103"],
    "/api/v1/frames": ["?night=20160102", "?night=20160102&limit=200"],
    "/api/v1/products": ["?night=20160102"],
    "/api/v1/missing": ["", "?night=20160102"],
    "/api/v1/calibrations": [""],
    "/api/v1/trend": ["", "?metric=fwhm", "?metric=fwhm&days=20000&key=f6%20K(prime)"],
    "/api/v1/events": ["", "?after=30"],
    "/api/v1/alerts": [""],
    "/api/v1/thing/{target:path}": ["TARGET"],
}
BY_OTHER_TESTS = {"/api/v1/stream", "/api/v1/decisions"}


def addresses(path, things=()):
    start = path.partition("{")[0]
    for rest in ASKED[path]:
        for thing in things if rest == "TARGET" else [rest]:
            yield start + (quote(thing, safe="") if rest == "TARGET" else rest)


def things_of(daemon):
    names = daemon.rows("SELECT name FROM look ORDER BY id")
    made = daemon.rows("SELECT name FROM product ORDER BY id")
    jobs = [f"job:{row['id']}" for row in daemon.rows("SELECT id FROM job")]
    groups = [f"group:{row['id']}" for row in daemon.rows("SELECT id FROM frame_group")]
    frames = [row["name"] for row in daemon.rows("SELECT name FROM frame ORDER BY id")][::8]
    return [*jobs, *groups, *frames, *(row["name"] for row in made), *(row["name"] for row in names)]


def wrong_answers(page, things):
    """{address: what is wrong with its answer} of all that is asked."""
    found = {}
    for path in ASKED:
        for address in addresses(path, things):
            answer = ask(page.app, address)
            if answer.status != 200:
                found[address] = f"{answer.status}: {answer.text[:200]}"
            elif problems := wrong(schema_of(path), answer.json()):
                found[address] = problems
    return found


@pytest.fixture
def night(daemons):
    return landed(daemons)


def test_every_address_has_a_schema_and_is_asked(night):
    paths = paths_of(page_of(night))
    assert len(paths) > 10
    assert set(paths) == set(ASKED) | BY_OTHER_TESTS
    assert {schema_of(path) for path in paths} | {"error", "parts", "cutout", "difference"} == set(
        schemas.named()
    )


@pytest.mark.parametrize("name", sorted(schemas.named()))
def test_a_schema_is_one_and_lets_nothing_else_in(name):
    schema = schemas.named()[name]
    schemas.checker(name).check_schema(schema)

    def objects(part):
        if isinstance(part, dict):
            if "properties" in part:
                yield part
            for value in part.values():
                yield from objects(value)
        elif isinstance(part, list):
            for value in part:
                yield from objects(value)

    assert [part for part in objects(schema) if part.get("additionalProperties") is not False] == []


def test_answers_of_a_night_are_as_published(night):
    things = things_of(night)
    assert len(things) > 20
    assert wrong_answers(page_of(night), things) == {}


def test_answers_in_the_middle_of_it_are_as_published(daemons):
    """Sequences without a product, frames that arrive, jobs that wait."""
    daemon = landed(daemons, records=example1()[:14], until=40)
    assert wrong_answers(page_of(daemon), things_of(daemon)) == {}


def test_answers_after_decisions_and_failures_are_as_published(daemons):
    night = daemons(engine=Engine(endings={"N20160102S0296_image": ["failed"] * 20}), looks=True)
    night.land(*example1(), static_bpm())
    night.run(600)
    night.now += 10
    night.decide("reject", "N20160102S0279.fits", reason="trailed")
    night.decide("reject", "N20160102S0373_bpm", reason="bad")
    night.run(100)
    page = page_of(night)
    assert wrong_answers(page, things_of(night)) == {}
    whats = [row["what"] for row in ask(page.app, "/api/v1/alerts").json()["rows"]]
    assert "N20160102S0296_image has failed" in whats


def test_answers_of_an_empty_ledger_are_as_published(daemons):
    page = page_of(daemons())
    for address in [a for path in ASKED for a in addresses(path) if "metric" not in a]:
        answer = ask(page.app, address)
        assert (answer.status, wrong(schema_of(address.partition("?")[0]), answer.json())) == (200, []), (
            address
        )


def test_every_form_has_its_version(night):
    """Also where the answer of the command has a `version` of its own, as of a product."""
    page = page_of(night)
    for thing in things_of(night):
        assert ask(page.app, f"/api/v1/thing/{quote(thing, safe='')}").json()["version"] == 1
    told = ask(page.app, "/api/v1/thing/N20160102S0271_image").json()
    assert (
        told["product_version"]
        == night.rows("SELECT MAX(version) v FROM product WHERE name = ?", told["name"])[0]["v"]
    )


ERRORS = {
    "/api/v1/nothing": 404,
    "/api/v1/night/x": 404,
    "/api/v1/frames": 404,
    "/api/v1/frames?night=20160102&after=x": 404,
    "/api/v1/nights?limit=x": 404,
    "/api/v1/thing/N19990101S0001.fits": 404,
    "/api/v1/thing/": 404,
    "/api/v1/trend?metric=nothing": 404,
    "/api/v1/trend?metric=fwhm&key=nothing": 404,
    "/api/v1/calibrations?key=nothing": 404,
    "/api/v1/tonight?" + "x" * 5000: 414,
}


@pytest.mark.parametrize("address", ERRORS)
def test_an_error_says_what_to_do_in_its_published_form(night, address):
    answer = ask(page_of(night).app, address)
    assert (answer.status, wrong("error", answer.json())) == (ERRORS[address], [])


@pytest.mark.parametrize(
    ("more", "status"),
    [({"host": "evil.example"}, 400), ({"method": "DELETE"}, 405), ({"method": "POST"}, 403),
     ({"method": "POST", **OURS}, 405)],
)  # fmt: skip
def test_a_refusal_has_it_too(night, more, status):
    answer = ask(page_of(night).app, "/api/v1/tonight", **more)
    assert (answer.status, wrong("error", answer.json())) == (status, [])


def test_without_a_database_every_answer_is_an_error_but_that_of_the_night(tmp_path):
    page = app.build(Config(state=State(str(tmp_path)), base=str(tmp_path)))
    for path in ASKED:
        for address in addresses(path, THINGS[:1]):
            answer, name = ask(page.app, address), schema_of(path)
            if name in ("tonight", "alerts"):
                assert (answer.status, wrong(name, answer.json())) == (200, [])
            else:
                assert (answer.status, wrong("error", answer.json())) == (503, []), address
    assert "no database" in ask(page.app, "/api/v1/tonight").json()["error"]


def test_what_goes_wrong_is_an_error_too(night, monkeypatch):
    page = page_of(night)
    monkeypatch.setattr(page.source, "read", lambda: 1 / 0)
    answer = ask(page.app, "/api/v1/nights")
    assert (answer.status, wrong("error", answer.json())) == (500, [])


def messages(text):
    """The messages of a stream as the schema has them."""
    for part in text.split("\n\n"):
        fields = dict(re.findall(r"^(id|event|data): (.*)$", part, re.M))
        if "event" in fields:
            number = {"id": int(fields["id"])} if "id" in fields else {}
            yield {"event": fields["event"], **number, "data": json.loads(fields["data"])}


def test_every_event_of_the_stream_is_as_published(night):
    """As a viewer gets it who has seen nothing: all that has happened, the beat, the parts; and a reset."""
    page = page_of(night)

    async def seen():
        await page.feed.refresh()
        found = b""
        for after in (0, 10**9):
            stream = page.feed.hub.follow("::1", lambda after=after: page.feed.missed(after))
            async for text in stream:
                found += text
                if b"event: parts" in text:
                    break
            await stream.aclose()
        return found.decode()

    told = list(messages(asyncio.run(seen())))
    assert {one["event"] for one in told} >= {"frame", "look", "product", "job", "beat", "parts", "reset"}
    assert [problems for one in told if (problems := wrong("stream", one))] == []


def test_one_stream_too_many_is_an_error_as_published(night):
    page = page_of(night)
    page.feed.hub.closed = True
    answer = ask(page.app, "/api/v1/stream")
    assert (answer.status, wrong("error", answer.json())) == (503, [])
    assert MOST_STREAMS == 64


def test_a_decision_by_token_is_answered_as_published(night):
    config = Config(state=State(str(night.folder)), base=str(night.folder), web=Web())
    token = access.make(config)
    page = app.build(config)
    bearer = {"authorization": f"Bearer {token}", "content_type": "application/json"}
    said = {"action": "reject", "target": "N20160102S0279.fits", "reason": "trailed", "name": "ada"}
    answer = ask(page.app, "/api/v1/decisions", method="POST", body=json.dumps(said).encode(), **bearer)
    assert (answer.status, wrong("decisions", answer.json())) == (202, [])
    for body, headers in (
        (b"x", bearer),
        (b"[]", bearer),
        (b"{}", {**OURS}),
        (urlencode({"a": 1}).encode(), bearer),
    ):
        answer = ask(page.app, "/api/v1/decisions", method="POST", body=body, **headers)
        assert (answer.status in (400, 403), wrong("error", answer.json())) == (True, []), body


def test_a_field_too_many_and_one_of_another_kind_are_found(night):
    told = ask(page_of(night).app, "/api/v1/tonight").json()
    assert wrong("tonight", told) == []
    assert wrong("tonight", {**told, "more": 1})
    assert wrong("tonight", {**told, "event": "7"})
    told["frames"][0]["state"] = "lost"
    assert wrong("tonight", told)
