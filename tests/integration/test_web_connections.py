"""Whoever comes too often, too slowly or with too much is turned away, and those who look do not notice."""

import asyncio
import contextlib
import signal

import pytest

from daemon.config.options import Config, State, Web
from daemon.web import feed, server
from daemon.web.guard import LONGEST_BODY, LONGEST_HEAD, LONGEST_TARGET
from daemon.web.stream import MOST_OF_ONE, MOST_STREAMS

PATIENCE = 20.0  # s that a test waits for what must come
writers = []  # of all connections of a test: what nobody holds is closed by Python
HEAD = b"Host: localhost\r\n"


@pytest.fixture
def serving(tmp_path, monkeypatch):
    """serving(client): run a server with a client beside it, `client(port)`; its answer."""
    monkeypatch.setattr(feed, "BEAT", 0.05)
    monkeypatch.setattr(server, "NICE", 0)
    server._Connection.of_addresses.clear()
    config = Config(state=State(str(tmp_path)), base=str(tmp_path), web=Web(hosts=("127.0.0.1",), port=0))

    async def beside(client):
        sockets = server.listening(config)
        page = server.build(config)
        task = asyncio.create_task(server._serve(page, sockets))
        try:
            async with asyncio.timeout(3 * PATIENCE):
                return await client(sockets[0].getsockname()[1])
        finally:
            for writer in writers:
                writer.close()
            signal.raise_signal(signal.SIGTERM)
            await task
            for writer in writers:
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
            writers.clear()

    return lambda client: asyncio.run(beside(client))


async def opened(port, address="127.0.0.1"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writers.append(writer)
    return reader, writer


async def answer(port, request, address="127.0.0.1"):
    """The whole answer to a request, to its end; b"" when the connection was cut."""
    try:
        reader, writer = await opened(port, address)
        writer.write(request)
        await writer.drain()
        found = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        return found
    except OSError:
        return b""


def get(path, more=b""):
    return b"GET " + path + b" HTTP/1.1\r\n" + HEAD + more + b"Connection: close\r\n\r\n"


async def stream(port, address="127.0.0.1"):
    """An open stream, with what stands in its first line."""
    reader, writer = await opened(port, address)
    writer.write(b"GET /api/v1/stream HTTP/1.1\r\n" + HEAD + b"\r\n")
    return reader, writer, await asyncio.wait_for(reader.readline(), PATIENCE)


async def beats(reader, number=3):
    """Wait for so many beats of a stream."""
    while number:
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
        assert line, "the stream has ended"
        number -= line == b"event: beat\n"


def test_a_head_that_does_not_come_in_time_is_not_waited_for(serving, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.4)

    async def dripping(writer, reader):
        with contextlib.suppress(OSError):
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)

    async def client(port):
        viewer, _, first = await stream(port)
        assert b"200" in first
        silent, _ = await opened(port)
        slow, writer = await opened(port)
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        drip = asyncio.create_task(dripping(writer, slow))
        found = await asyncio.wait_for(asyncio.gather(silent.read(), slow.read()), PATIENCE)
        drip.cancel()
        await beats(viewer, 12)  # whoever is answered is in no hurry
        assert b"200 OK" in await answer(port, get(b"/healthz"))
        return found

    assert serving(client) == [b"", b""]


def test_the_time_for_a_head_is_ten_seconds():
    assert server.HEADER_SECONDS == 10.0


def test_a_request_line_or_a_head_that_is_too_long(serving):
    async def client(port):
        long, longer = b"/?" + b"x" * LONGEST_TARGET, b"/?" + b"x" * LONGEST_HEAD
        found = [await answer(port, get(path)) for path in (long, longer)]
        found.append(await answer(port, get(b"/", b"X: " + b"y" * LONGEST_HEAD + b"\r\n")))
        assert b"200 OK" in await answer(port, get(b"/healthz"))
        return [one.partition(b"\r\n")[0].split(b" ")[1] for one in found]

    assert LONGEST_TARGET == 4096
    assert serving(client) == [b"414", b"414", b"431"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_not_taken(serving, chunked):
    body = b"x" * (LONGEST_BODY + 1)
    size = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    head = b"POST /login HTTP/1.1\r\n" + HEAD + b"Origin: http://localhost\r\n" + size + b"\r\n"

    async def client(port):
        found = await answer(port, head + b"Connection: close\r\n\r\n" + sent)
        assert b"200 OK" in await answer(port, get(b"/healthz"))
        return found.partition(b"\r\n")[0]

    assert b"413" in serving(client)


def test_so_many_streams_of_one_address_and_of_all_and_no_more(serving):
    async def client(port):
        addresses = [f"127.0.0.{n}" for n in range(2, 2 + MOST_STREAMS // MOST_OF_ONE)]
        streams = [await stream(port, address) for address in addresses for _ in range(MOST_OF_ONE)]
        assert all(b"200" in first for _, _, first in streams)
        assert len(streams) == MOST_STREAMS == 64
        assert b"503" in (await stream(port, "127.0.0.99"))[2]
        for writer in (streams[0][1], streams[-1][1]):
            writer.close()
        while b"503" in (found := await stream(port, "127.0.0.99"))[2]:
            found[1].close()
        other = [await stream(port, addresses[1])]  # the eight of that address are all there
        assert b"503" in other[0][2]
        await beats(streams[20][0])

    assert MOST_OF_ONE == 8
    serving(client)


def test_thousands_of_connections_are_bounded_and_viewers_do_not_notice(serving):
    """Opened and closed, opened and held in silence, from one address and from many."""
    count = server._Connection.of_addresses

    async def held(port, address):
        with contextlib.suppress(OSError):
            return await opened(port, address)

    async def client(port):
        viewers = [await stream(port, address) for address in ("127.0.0.1", "127.0.0.2")]
        most = 0
        for n in range(20):
            some = await asyncio.gather(*(held(port, f"127.0.1.{n % 5}") for _ in range(50)))
            most = max(most, count.total())
            for pair in filter(None, some):
                pair[1].close()
        silent = []
        for n in range(10):
            silent += await asyncio.gather(*(held(port, f"127.0.2.{n}") for _ in range(100)))
            await beats(viewers[0][0], 1)
            most = max(most, count.total())
            assert max(count.values()) <= server.MOST_OF_ONE + 100  # those that are being turned away
        for reader, _, _ in viewers:
            await beats(reader)
        kept = count.total()
        for pair in filter(None, silent):
            pair[1].close()
        while b"200 OK" not in await answer(port, get(b"/healthz")):
            await asyncio.sleep(0.05)
        return most, kept

    most, kept = serving(client)
    assert kept <= server.MOST_CONNECTIONS
    assert most <= server.MOST_CONNECTIONS + 100
    assert count.total() == 0
