"""Whoever gives up a request leaves no connection behind, at whatever moment and however often it is cancelled."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aligner_proxy.engine.client.http import Connections, PendingRequest


async def until(true: Callable[[], object], what: str) -> None:
    """Wait for what happens in the background."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(what)


class Silent:
    """A server that answers none but /well, when it may; `open` is how many connections it has."""

    def __init__(self) -> None:
        self.open = 0
        self.well = asyncio.Event()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            if b"/well" in await reader.readline():
                await self.well.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell")
            while await reader.read(65536):
                pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def silent(place: Path) -> AsyncIterator[tuple[Silent, Connections]]:
    """The server, and connections to it."""
    server = Silent()
    listening = await asyncio.start_unix_server(server.take, place / "s")
    connections = Connections("http://engine", str(place / "s"))
    try:
        yield server, connections
    finally:
        await connections.aclose()
        await until(lambda: not server.open, "a connection that nobody closes")
        listening.close()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_nothing_is_left_at_whatever_step_it_is_cancelled(tmp_path: Path, times: int) -> None:
    async with silent(tmp_path) as (server, connections):
        for steps in range(60):
            asking = asyncio.create_task(connections.fetch_response("POST", "/x", content=b"x"))
            for _ in range(steps):
                await asyncio.sleep(0)
            for _ in range(times):
                asking.cancel()
                await asyncio.sleep(0)
            assert (await asyncio.gather(asking, return_exceptions=True))[0].__class__ is asyncio.CancelledError
        pool = connections.client._transport._pool  # type: ignore[attr-defined]
        await until(lambda: not server.open and not pool.connections, "connections that nobody closes")


async def test_a_request_that_waits_is_not_disturbed_by_another_that_is_given_up(tmp_path: Path) -> None:
    async with silent(tmp_path) as (server, connections):
        well = asyncio.create_task(connections.fetch_response("GET", "/well"))
        gone = asyncio.create_task(connections.fetch_response("GET", "/gone"))
        await until(lambda: server.open == 2, "connections that were never made")
        gone.cancel()
        await until(lambda: server.open == 1, "a connection that nobody closes")
        server.well.set()
        response = await well
        assert (response.status_code, response.content) == (200, b"well")


async def test_closing_ends_what_was_given_up(tmp_path: Path) -> None:
    async with silent(tmp_path) as (server, connections):
        asking = asyncio.create_task(connections.fetch_response("GET", "/x"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await connections.aclose()
        assert not [task for task in asyncio.all_tasks() if PendingRequest._abandon.__qualname__ in repr(task)]
        await until(lambda: not server.open, "a connection that nobody closes")


@pytest.mark.parametrize("socket", [None, "/nowhere/s"])
async def test_certificates_are_read_only_where_they_may_be_needed(
    monkeypatch: pytest.MonkeyPatch, socket: str | None
) -> None:
    read: list[object] = []
    load = ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *place: [read.append(place), load(*place)])
    connections = Connections("http://engine", socket)
    assert connections.client
    await connections.aclose()
    assert bool(read) is (socket is None)
