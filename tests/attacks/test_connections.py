"""Clients that take their time, or too much room, at the engine's server. The real proxy: tests/e2e/test_serve.py."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvicorn

from aligner_proxy import connections
from aligner_proxy.connections import ConnectionLimits
from aligner_proxy.engine import sockets
from aligner_proxy.engine.server import app
from tests.attacks.attack import Attack, rows
from tests.support import tiny
from tests.support.scripted import ScriptedEngine

PLACES = 8
QUICK = ConnectionLimits(connections=PLACES, head_s=0.5, body_s=0.5, unread_s=0.5, body_bytes=100_000)
HEAD = b"POST /v1/corrections HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
GOOD = tiny.request().model_dump_json().encode()
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(GOOD) + GOOD

SLOW = rows(
    ("slow-silent", "client", "a connection on which nothing comes", "408 when its time is over", b""),
    ("slow-head", "client", "half the head of a request", "408 when its time is over", HEAD),
    ("slow-body", "client", "half a body", "408 when its time is over", HEAD + b"content-length: 900\r\n\r\n{"),
    ("slow-second", "client", "half a request behind a whole one", "408 behind the first answer", WHOLE + HEAD),
    ("long-head", "client", "a head of twenty thousand bytes", "400", HEAD + b"x-a: " + b"a" * 20_000),
    ("long-body", "client", "a body longer than any", "413", HEAD + b"content-length: 999999999\r\n\r\n"),
    (
        "long-chunks",
        "client",
        "a body that does not say how long it is, and does not end",
        "the connection is closed",
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"8000\r\n" + b"x" * (8 << 12) + b"\r\n",
    ),
)
FLOOD = rows(
    (
        "slow-flood",
        "client",
        "several times as many half requests as there are places",
        "the slowest go, and quick requests are answered",
        8 * PLACES,
    ),
)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """The engine's server with short bounds; its port."""
    with sockets.listen_on_port("127.0.0.1", 0) as listener:
        application = app.create_app(ScriptedEngine())
        config = uvicorn.Config(application, log_config=None, lifespan="off", **connections.uvicorn_settings(QUICK))
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()[1]
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        server.should_exit = True
        await task


async def said(port: int, payload: bytes) -> bytes:
    """What comes back until the server closes, where a client sends this and, if it is a part of a body, more of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError), contextlib.closing(writer):
        writer.write(payload)
        while payload.endswith(b"x\r\n") and not reader.at_eof() and not writer.is_closing():
            writer.write(payload[payload.index(b"8000") :])
            await writer.drain()
        return await reader.read()
    return b""


@pytest.mark.parametrize("attack", SLOW)
async def test_a_client_that_takes_its_time_or_too_much_room_is_sent_away(attack: Attack) -> None:
    async with serving() as port:
        answer = await said(port, attack.payload)
        expected = {"408": b"HTTP/1.1 408 ", "400": b"HTTP/1.1 400 ", "413": b"HTTP/1.1 413 "}.get(attack.holds[:3])
        assert expected is None or expected in answer
        assert b"HTTP/1.1 200 " in await said(port, WHOLE.replace(b"host: x", b"host: x\r\nconnection: close"))


@pytest.mark.parametrize("attack", FLOOD)
async def test_many_slow_clients_do_not_keep_quick_ones_out(attack: Attack) -> None:
    async with serving() as port, contextlib.AsyncExitStack() as clients:
        for _ in range(attack.payload):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            clients.callback(writer.close)
            writer.write(HEAD)
        for _ in range(4):
            assert b"HTTP/1.1 200 " in await said(port, WHOLE.replace(b"host: x", b"host: x\r\nconnection: close"))
