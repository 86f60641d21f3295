"""Hosts that are gone without a word: they are noticed long before the deadline, so that another engine is asked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from aligner_proxy.engine.api import AlignerInfo, AlignRequest
from aligner_proxy.engine.client import http, replicas
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.client.replicas import Replicas
from aligner_proxy.engine.client.retry import NotReady
from aligner_proxy.errors import EngineUnavailable
from aligner_proxy.types import Turn
from tests.support.scripted import ScriptedEngine

REQUEST = AlignRequest(request_id="1", turns=(Turn("user", "Why?"),), answer="So.", objectives=("a: b",), deadline_s=60)


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which connecting is never answered: the queue of its listener is full, and nobody takes from it."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_connecting_is_given_up(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    monkeypatch.setattr(http, "CONNECT_S", 0.1)
    engine = HttpEngine(silent, wait_s=0)
    with pytest.raises(NotReady):
        await engine.align(REQUEST)
    await engine.aclose()


async def test_another_engine_is_asked(monkeypatch: pytest.MonkeyPatch, silent: str) -> None:
    monkeypatch.setattr(http, "CONNECT_S", 0.1)
    other = ScriptedEngine()
    both = Replicas([("silent", HttpEngine(silent, wait_s=0)), ("other", other)])
    for _ in range(2):
        assert (await both.align(REQUEST)).text == REQUEST.answer
    assert len(other.seen) == 2
    assert not both.replicas[0].healthy
    await both.aclose()


async def test_another_engine_says_what_it_serves() -> None:
    """A description has a second for all engines together, so a silent one must not use it up."""

    class Silent(ScriptedEngine):
        async def info(self) -> AlignerInfo:
            await asyncio.Event().wait()
            raise AssertionError

    other = ScriptedEngine()
    both = Replicas([("silent", Silent()), ("other", other)], wait_s=0)
    for _ in range(2):
        assert await both.info() == other.about


async def test_engines_that_are_late_on_a_busy_machine_are_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(ScriptedEngine):
        async def info(self) -> AlignerInfo:
            await asyncio.sleep(0.5)
            return self.about

    monkeypatch.setattr(replicas, "_INFO_S", 0.1)
    monkeypatch.setattr(replicas, "_LATE_INFO_S", 60.0)
    both = Replicas([("one", Late()), ("other", Late())], wait_s=0)
    assert (await both.info()).model == "scripted"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="needs Linux")
async def test_the_kernel_watches_every_connection() -> None:
    """A request that was sent to a host that is gone by now ends with an error of the connection."""
    watched: list[tuple[int, int, int]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        (connection,) = engine._connections.client._transport._pool.connections  # type: ignore[attr-defined]
        made = connection._connection._network_stream.get_extra_info("socket")
        silent_ms = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        idle_s = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        watched.append((silent_ms, made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), idle_s))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    engine = HttpEngine(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", wait_s=0)
    with pytest.raises(EngineUnavailable):
        await engine.align(REQUEST)
    ((silent_ms, kept_alive, idle_s),) = watched
    assert 0 < silent_ms <= 5000
    assert kept_alive
    assert idle_s <= 5
    await engine.aclose()
    server.close()
