"""Bounds of connections, with a real server and raw sockets: slow clients go, quick ones stay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from aligner_proxy import connections
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine import sockets

LONG = ConnectionLimits(
    connections=4, head_s=600, body_s=600, idle_s=600, unread_s=600, drain_s=600, body_bytes=100_000
)
"""Nothing ends within a test unless the test sets it shorter."""
WHOLE = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"
HEAD_ONLY = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"


@dataclass
class Served:
    """A running server, and what its application saw."""

    port: int
    server: uvicorn.Server = field(init=False)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    working: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection with something sent on it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        await writer.drain()
        return reader, writer

    async def ask(self, sent: bytes = WHOLE) -> bytes:
        """Everything that comes back until the connection is closed."""
        reader, writer = await self.connect(sent)
        with contextlib.closing(writer):
            return await reader.read()

    async def closed_to_new_clients(self) -> None:
        """Wait until a connection is refused, or reset because the listening socket closed before it was accepted."""
        with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
            while True:
                _, writer = await self.connect()
                writer.close()
                await asyncio.sleep(0.02)

    async def all_known(self, count: int) -> None:
        """Wait until the server has taken so many connections."""
        while len(self.server.server_state.connections) != count:
            await asyncio.sleep(0.01)


def application(served: Served) -> Starlette:
    """It returns the length of a body, works until it may end, or sends without an end."""

    async def length(request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except ClientDisconnect:
            served.gone.set()
            return Response(status_code=499)

    async def work(_: Request) -> Response:
        served.working.set()
        await served.may_end.wait()
        return PlainTextResponse("done")

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 65_536
                await asyncio.sleep(0)
        finally:
            served.gone.set()

    async def endless(_: Request) -> Response:
        return StreamingResponse(pieces())

    return Starlette(
        routes=[Route("/", length, methods=["POST"]), Route("/work", work), Route("/endless", endless)],
    )


@contextlib.asynccontextmanager
async def serving(limits: ConnectionLimits) -> AsyncIterator[Served]:
    """A running server with these limits."""
    with sockets.listen_on_port("127.0.0.1", 0) as listener:
        served = Served(listener.getsockname()[1])
        config = uvicorn.Config(
            application(served), log_config=None, lifespan="off", **connections.uvicorn_settings(limits)
        )
        served.server = server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            yield served
        finally:
            served.may_end.set()
            for connection in list(server.server_state.connections):
                connection.transport.abort()
            server.should_exit = True
            await task


@pytest.mark.parametrize("sent", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nhost: x\r\nx-slow: 1\r\n"])
async def test_a_head_that_does_not_end_is_closed(sent: bytes) -> None:
    async with serving(replace(LONG, head_s=0.2)) as served:
        assert (await served.ask(sent)).startswith(b"HTTP/1.1 408 ")


async def test_a_dripping_head_is_closed_although_something_comes_all_the_time() -> None:
    async with serving(replace(LONG, head_s=0.3)) as served:
        reader, writer = await served.connect(b"POST / HTTP/1.1\r\n")
        answer = asyncio.create_task(reader.read())
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            while not answer.done():
                writer.write(b"x-a: b\r\n")
                await asyncio.sleep(0.02)
        # on a busy machine, what is written after the answer resets the connection before the answer is read
        with contextlib.suppress(ConnectionResetError):
            assert (await answer).startswith(b"HTTP/1.1 408 ")


async def test_the_head_of_a_second_request_has_its_own_clock() -> None:
    async with serving(replace(LONG, head_s=0.2)) as served:
        answer = await served.ask(WHOLE + b"POST / HTTP")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\n\r\n5HTTP/1.1 408 " in answer


async def test_a_body_that_does_not_come_is_closed_and_its_work_ended() -> None:
    async with serving(replace(LONG, body_s=0.2)) as served:
        assert (await served.ask(HEAD_ONLY + b"he")).startswith(b"HTTP/1.1 408 ")
        await served.gone.wait()


async def test_a_slow_body_may_take_longer_the_more_of_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MIN_BYTES_PER_S", 100)
    async with serving(replace(LONG, body_s=0.5)) as served:
        reader, writer = await served.connect(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n")
        for _ in range(5):
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.2)
        assert b"200 OK" in await reader.readuntil(b"5000")
        writer.close()


@pytest.mark.parametrize(
    "body",
    [
        b"content-length: 100001\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65_536 + b"\r\n" * 1,
    ],
    ids=["announced", "in pieces"],
)
async def test_a_body_that_is_too_long_is_413(body: bytes) -> None:
    async with serving(LONG) as served:
        reader, writer = await served.connect(b"POST / HTTP/1.1\r\nhost: x\r\n" + body)
        with contextlib.suppress(ConnectionError), contextlib.closing(writer):
            writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")


async def test_the_slowest_client_makes_room_and_the_quick_ones_are_served(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(LONG) as served:
        caplog.clear()
        slow = [await served.connect(b"POST / HT") for _ in range(LONG.connections)]
        await served.all_known(LONG.connections)
        for _ in range(10):
            reader, writer = await served.connect(WHOLE)
            assert (await reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200 ")
            writer.close()
        assert (await slow[0][0].read()).startswith(b"HTTP/1.1 408 ")
        assert caplog.text.count("connection limit of 4 reached") == 1
        for _, writer in slow:
            writer.close()


async def test_where_all_work_a_new_connection_is_503_at_once() -> None:
    async with serving(LONG) as served:
        working = [await served.connect(b"GET /work HTTP/1.1\r\nhost: x\r\n\r\n") for _ in range(LONG.connections)]
        await served.all_known(LONG.connections)
        while len(served.server.server_state.tasks) != LONG.connections:
            await asyncio.sleep(0.01)
        assert (await served.ask(b"")).startswith(b"HTTP/1.1 503 ")
        served.may_end.set()
        for reader, writer in working:
            assert b"done" in await reader.readuntil(b"done")
            writer.close()


async def test_a_client_that_reads_nothing_is_dropped() -> None:
    async with serving(replace(LONG, unread_s=0.2)) as served:
        _, writer = await served.connect(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        await served.gone.wait()
        writer.close()


async def test_a_request_on_an_idle_connection_of_a_stopping_server_is_answered() -> None:
    async with serving(LONG) as served:
        idle, writer = await served.connect(WHOLE)
        await idle.readuntil(b"\r\n\r\n5")
        working, other = await served.connect(b"GET /work HTTP/1.1\r\nhost: x\r\n\r\n")
        await served.working.wait()
        served.server.should_exit = True
        await served.closed_to_new_clients()
        writer.write(WHOLE)
        served.may_end.set()
        for reader in (idle, working):
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in answer.lower()
        writer.close()
        other.close()


async def test_a_silent_connection_does_not_keep_a_stopping_server() -> None:
    async with serving(replace(LONG, drain_s=0.2)) as served:
        reader, writer = await served.connect(WHOLE)
        await reader.readuntil(b"\r\n\r\n5")
        served.server.should_exit = True
        assert await reader.read() == b""
        writer.close()
