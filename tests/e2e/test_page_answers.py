"""What the API says of a night that was really reduced has the published form, and the command's numbers."""

import asyncio
import json
import shutil

import pytest

from daemon.config.options import Config, Products, State, Watch
from daemon.ledger.reading import reading
from daemon.web import app
from tests.asgi import ask
from tests.e2e.test_night import TINY, Place, frames, tiny_night  # noqa: F401  (fixture)
from tests.integration.test_web_schemas import wrong_answers
from tests.schemas import wrong


@pytest.fixture(scope="module")
def night(tiny_night, tmp_path_factory):  # noqa: F811
    """With one frame that a person has rejected."""
    place = Place(tmp_path_factory.mktemp("answers"))
    for path in frames(tiny_night):
        shutil.copy(path, place.drop)
    place.run()
    place.nirid("reject", "N20160102S0277.fits", "--reason", "trailed")
    place.run()
    return place


@pytest.fixture
def page(night):
    folders = {"state": State(str(night.state)), "products": Products(str(night.products))}
    made = app.build(Config(**folders, watch=Watch(folders=(str(night.drop),)), base=str(night.folder)))
    asyncio.run(made.feed.refresh())
    return made


def things(night):
    """Everything that can be explained."""
    with reading(night.state / "nirid.db") as db:
        for table, word in (("job", "job:{}"), ("frame_group", "group:{}")):
            yield from (word.format(row[0]) for row in db.execute(f"SELECT id FROM {table}"))
        for table in ("frame", "product", "look"):
            yield from (row[0] for row in db.execute(f"SELECT DISTINCT name FROM {table}"))


def test_every_answer_is_as_published(night, page):
    known = list(things(night))
    assert len(known) > 30
    assert wrong_answers(page, known) == {}
    told = ask(page.app, "/api/v1/tonight").json()
    assert {one["name"] for one in told["products"]} == set(TINY.values())
    assert set(told["newest"]["sky"]) >= {"scale", "north", "east", "shape", "cd"}


def test_every_event_is_as_published(page):
    told = [
        {"event": kind, "data": fields, **({"id": number} if number else {})}
        for number, kind, fields in page.feed.missed(0)
    ]
    assert {one["event"] for one in told} >= {"frame", "job", "product", "beat", "parts"}
    told = json.loads(json.dumps(told, default=str))
    assert [problems for one in told if (problems := wrong("stream", one))] == []


def test_the_numbers_are_those_of_the_commands(night, page):
    rows = ask(page.app, "/api/v1/calibrations").json()["rows"]
    assert {row["kind"] for row in rows} >= {"dark", "flat", "mask"}
    figures = [(row["key"], figure) for row in rows for figure in row["figures"]]
    assert len(figures) > 5
    for key, figure in figures:
        said = json.loads(night.nirid("trend", figure["metric"], "--key", key, "--json"))
        assert figure["points"] == said
