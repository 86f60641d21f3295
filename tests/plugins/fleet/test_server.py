"""The shared Redis away, slow, full and back: nobody waits for it, one log line says so, and no request finds out."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis.exceptions import TimeoutError as RedisTimeout

from aligner_proxy_fleet import server as serving
from aligner_proxy_fleet.errors import RedisAway, RedisRefused
from aligner_proxy_fleet.server import RedisServer
from tests.support.redis_server import WELL_S, RedisProcess, needs_redis, redis_process

pytestmark = needs_redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with redis_process(tmp_path / "redis") as process:
        yield process


@pytest.fixture
async def server(redis: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisServer]:
    monkeypatch.setattr(serving, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(serving, "FULL_PAUSE_S", 0.05)
    made = RedisServer(redis.url, "SHARED")
    yield made
    await made.aclose()


def up(calls: str) -> float | None:
    return REGISTRY.get_sample_value("aligner_redis_up", {"redis": "SHARED", "calls": calls})


def ping(redis: Any) -> Any:
    return redis.ping()


def write(redis: Any) -> Any:
    return redis.set("name", "x" * 100)


async def until_back(server: RedisServer) -> None:
    while server.is_away:
        await asyncio.sleep(0.01)


def killed(redis: RedisProcess) -> None:
    redis.kill()


def stopped(redis: RedisProcess) -> None:
    redis.signal(signal.SIGSTOP)


def slow(redis: RedisProcess) -> None:
    redis.command("CLIENT", "PAUSE", "600", "ALL")


def started(redis: RedisProcess) -> None:
    redis.start()


def continued(redis: RedisProcess) -> None:
    redis.signal(signal.SIGCONT)


def nothing(_redis: RedisProcess) -> None:
    """It comes back by itself."""


@pytest.mark.parametrize(
    ("harm", "mend"),
    [(killed, started), (stopped, continued), (slow, nothing)],
    ids=["killed", "stopped", "slow"],
)
async def test_one_that_is_away_is_left_alone_until_it_is_back(
    redis: RedisProcess,
    server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[RedisProcess], None],
    mend: Callable[[RedisProcess], None],
) -> None:
    caplog.set_level(logging.INFO)
    assert await server.ask(ping)
    assert up("reads") == up("writes") == 1
    harm(redis)
    with pytest.raises(RedisAway):
        await server.ask(ping)
    assert server.is_away
    assert up("reads") == up("writes") == 0
    worked = []

    async def never(_redis: Any) -> None:
        worked.append(1)

    for _ in range(100):
        with pytest.raises(RedisAway):
            await server.ask(never)
    assert not worked
    mend(redis)
    await until_back(server)
    assert await server.ask(ping)
    assert up("reads") == up("writes") == 1
    assert caplog.text.count("works alone") == 1
    assert caplog.text.count("SHARED answers again") == 1
    assert str(redis.port) not in caplog.text


async def test_calls_at_the_same_time_find_out_together(redis: RedisProcess, server: RedisServer) -> None:
    stopped(redis)
    results = await asyncio.gather(*(server.ask(ping) for _ in range(100)), return_exceptions=True)
    assert {type(result) for result in results} == {RedisAway}
    continued(redis)
    await until_back(server)
    assert await server.ask(ping)


async def test_connections_that_do_not_close_in_time_hold_up_nothing(
    redis: RedisProcess, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.ask(ping)

    async def late(*_: Any, **__: Any) -> None:
        raise RedisTimeout("closing took too long")

    # As the library says it where the event loop is busy while connections are closed.
    monkeypatch.setattr(server._open_client().connection_pool, "disconnect", late)
    redis.signal(signal.SIGSTOP)
    with pytest.raises(RedisAway):
        await server.ask(ping)
    redis.signal(signal.SIGCONT)
    await asyncio.wait_for(until_back(server), 5)
    assert await server.ask(ping)


async def test_a_full_one_is_read_and_written_again_when_there_is_room(
    redis: RedisProcess, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await server.write(write)
    redis.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(RedisRefused, match="OOM"):
        await server.write(write)
    assert not server.is_away
    assert await server.ask(lambda client: client.get("name")) == b"x" * 100
    assert (up("reads"), up("writes")) == (1, 0)
    with pytest.raises(RedisRefused):
        await server.write(write)
    redis.command("CONFIG", "SET", "maxmemory", "0")
    while up("writes") == 0:
        await asyncio.sleep(0.01)
    assert await server.write(write)
    assert caplog.text.count("refuses writes") == 1


async def test_a_replica_is_read(redis: RedisProcess, server: RedisServer) -> None:
    redis.command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(RedisRefused, match="READONLY"):
        await server.write(write)
    assert not server.is_away


async def test_a_wrong_password_is_away_and_is_not_told(redis: RedisProcess, caplog: pytest.LogCaptureFixture) -> None:
    redis.command("CONFIG", "SET", "requirepass", "another")
    made = RedisServer(redis.url.replace("//", "//:hidden-word@"), "SHARED")
    with pytest.raises(RedisAway) as caught:
        await made.ask(ping)
    assert "hidden-word" not in caplog.text + str(caught.value)
    await made.aclose()


async def break_connection() -> None:
    raise ConnectionResetError("reset by the peer")


async def send_all() -> None:
    """Nothing fails, as in `asyncio.wait_for` of Python 3.11."""


@pytest.mark.parametrize("end", [break_connection, send_all])
async def test_a_cancellation_that_the_library_loses_is_kept(end: Callable[[], Awaitable[None]]) -> None:
    server = RedisServer("redis://127.0.0.1:9", "ALIGNER_TEST_REDIS", wait_s=WELL_S)
    asked = asyncio.Event()

    async def lose_cancellation(_: object) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await end()

    asking = asyncio.create_task(server.ask(lose_cancellation))
    await asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not server.is_away
    await server.aclose()
