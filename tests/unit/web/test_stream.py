"""Server-sent events: everybody gets everything once, and nobody is waited for."""

import asyncio
import json

import pytest

from daemon.web.stream import MOST_BYTES, MOST_OF_ONE, Hub, TooMany, encoded


def told(text):
    """(id, event, data) of one message."""
    fields = dict(line.split(": ", 1) for line in text.decode().strip().splitlines())
    return fields.get("id"), fields.get("event"), json.loads(fields["data"]) if "data" in fields else None


async def opened(hub, first=list, address="::1"):
    """A viewer that has had what it had missed."""
    stream = hub.follow(address, first)
    assert (await anext(stream)).startswith(b"retry:")
    return stream


def test_what_is_missed_comes_first_and_what_happens_meanwhile_after_it():
    async def run():
        hub = Hub()

        def first():
            loop.call_soon_threadsafe(hub.publish, "frame", {"n": 2}, 2)
            return [(1, "frame", {"n": 1})]

        loop = asyncio.get_running_loop()
        stream = await opened(hub, first)
        return [told(await anext(stream)) for _ in range(2)]

    assert asyncio.run(run()) == [("1", "frame", {"n": 1}), ("2", "frame", {"n": 2})]


def test_a_stop_ends_every_stream_at_once():
    async def run():
        hub = Hub()
        streams = [await opened(hub, address=f"10.0.0.{n}") for n in range(20)]
        waiting = [asyncio.create_task(anext(stream, "ended")) for stream in streams]
        await asyncio.sleep(0.01)
        hub.stop()
        ends = await asyncio.wait_for(asyncio.gather(*waiting), 1.0)
        with pytest.raises(TooMany):
            hub.check("::1")
        return ends, hub.viewers

    ends, viewers = asyncio.run(run())
    assert ends == ["ended"] * 20
    assert viewers == []


def test_a_viewer_that_does_not_read_is_cut_off_and_told_so():
    async def run():
        hub = Hub()
        slow, quick = await opened(hub), await opened(hub)
        seen = 0
        reads = asyncio.create_task(anext(quick))
        await asyncio.sleep(0)
        asleep = asyncio.create_task(anext(slow))
        await asyncio.sleep(0.01)
        text = "x" * 10_000
        for _ in range(MOST_BYTES // 10_000 + 5):
            hub.publish("frame", {"text": text})
            await reads
            seen += 1
            reads = asyncio.create_task(anext(quick))
            await asyncio.sleep(0)
        await asleep  # the first one had left the queue
        rest = [told(each) async for each in slow]
        left = len(hub.viewers)
        reads.cancel()
        return hub, left, rest, seen

    hub, left, rest, seen = asyncio.run(run())
    assert [kind for _, kind, _ in rest] == ["reset"]
    assert (hub.dropped, left) == (1, 1)
    assert seen == MOST_BYTES // 10_000 + 5


def test_one_address_has_so_many_streams_and_no_more():
    async def run():
        hub = Hub()
        streams = [await opened(hub) for _ in range(MOST_OF_ONE)]
        with pytest.raises(TooMany):
            hub.check("::1")
        hub.check("10.0.0.1")
        await streams[0].aclose()
        hub.check("::1")

    asyncio.run(run())


def test_no_text_can_break_out_of_its_line():
    text = encoded((7, "frame", {"name": "a\n\nevent: evil\ndata: {}"}))
    assert text.count(b"\n\n") == 1
    assert told(text)[2] == {"name": "a\n\nevent: evil\ndata: {}"}
