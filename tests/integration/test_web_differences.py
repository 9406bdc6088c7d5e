"""How many differences are made at once, and of how much."""

import asyncio
import time
from collections import Counter

import pytest

from daemon.web import cutouts
from daemon.web.cutouts import MOST_WAITING, Cutouts
from daemon.web.difference import NoDifference
from tests.asgi import HOST, _ask, ask
from tests.integration.test_web import page_of
from tests.integration.test_web_pixels import landed, shown
from tests.night import example1


@pytest.fixture
def address(daemons):
    """(program, address of a difference)"""
    page = page_of(landed(daemons, until=2.0, step=0.5, records=example1()[:6]))
    return page.app, f"/difference/{shown(page, 'look')[0]}/{shown(page)[0]}"


def test_one_is_made_at_a_time_few_wait_and_others_are_answered(address, monkeypatch):
    app, where = address
    running, most = [], []

    def slow(self, *args):
        running.append(1)
        most.append(len(running))
        time.sleep(0.03)
        running.pop()
        return b"{}\n"

    async def many():
        asked = [_ask(app, where, "GET", b"", HOST) for _ in range(20)]
        return await asyncio.gather(*asked, _ask(app, "/api/v1/nights", "GET", b"", HOST))

    monkeypatch.setattr(Cutouts, "_difference", slow)
    *answers, other = asyncio.run(many())
    assert Counter(answer.status for answer in answers) == {200: MOST_WAITING, 503: 20 - MOST_WAITING}
    assert (max(most), len(most), other.status) == (1, MOST_WAITING, 200)
    assert ask(app, where).status == 200, "those that were sent away are not counted"


def test_what_would_be_a_large_answer_needs_a_larger_step(address, monkeypatch):
    app, where = address

    class Large(cutouts.Opened):
        def __init__(self, fd):
            super().__init__(fd)
            self.shape = (1024, 1024)

    def of(*args):
        raise NoDifference("it was allowed")

    monkeypatch.setattr(cutouts, "Opened", Large)
    monkeypatch.setattr(cutouts.difference, "of", of)
    assert [ask(app, f"{where}?step={step}").status for step in (1, 2, 64)] == [400, 409, 409]
