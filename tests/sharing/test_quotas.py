"""Quotas across gateways: what a tenant uses through one counts in all, and without Redis each counts alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from aligner_proxy.engine.admission import AdmittedEngine
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import QuotaSpent
from aligner_proxy.sharing.quotas import SharedAccounts
from aligner_proxy.sharing.server import RedisServer
from aligner_proxy.types import Correction, Quota
from tests.support.redis_server import RedisProcess, needs_redis, redis_process
from tests.support.scripted import ScriptedEngine

pytestmark = needs_redis
QUOTA = Quota("account", 6.0)
OTHER = Quota("other", 6.0)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with redis_process(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def gateway(redis: RedisProcess) -> AsyncIterator[Callable[[], SharedAccounts]]:
    """Makes the accounts of gateways; their clocks differ, as those of hosts do."""
    made: list[tuple[SharedAccounts, RedisServer]] = []

    def make() -> SharedAccounts:
        server = RedisServer(redis.url, "REDIS_URL")
        start = 1e6 * len(made)
        made.append((SharedAccounts(server, "aligner:1:", lambda: start), server))
        return made[-1][0]

    yield make
    for accounts, server in made:
        await accounts.aclose()
        await server.aclose()


async def test_what_one_gateway_used_counts_in_the_other(gateway: Callable[[], SharedAccounts]) -> None:
    one = gateway()
    other = gateway()
    one.charge(QUOTA, 4.0)
    other.charge(QUOTA, 3.0)
    assert not one.spent(QUOTA)
    assert not other.spent(QUOTA)
    for accounts in (one, other, one):
        await accounts.exchange()
    assert one.spent(QUOTA)
    assert other.spent(QUOTA)
    assert not one.spent(OTHER)


async def test_it_is_forgotten_by_the_servers_time(gateway: Callable[[], SharedAccounts], redis: RedisProcess) -> None:
    one = gateway()
    one.charge(QUOTA, 7.0)
    await one.exchange()
    assert one.spent(QUOTA)
    name = "aligner:1:used:account"
    redis.command("HINCRBYFLOAT", name, "at", "-30")  # half a minute passes: three of the six seconds are forgotten
    await one.exchange()
    assert not one.spent(QUOTA)
    assert 3.9 < float(redis.command("HGET", name, "used")) <= 4.0
    assert 0 < redis.command("PTTL", name) <= 120_000


async def test_what_is_used_during_an_exchange_is_told_with_the_next(gateway: Callable[[], SharedAccounts]) -> None:
    one = gateway()
    one.charge(QUOTA, 2.0)
    telling = asyncio.create_task(one.exchange())
    await asyncio.sleep(0)
    one.charge(QUOTA, 4.5)
    await telling
    assert one.spent(QUOTA)
    await one.exchange()
    other = gateway()
    other.spent(QUOTA)
    await other.exchange()
    assert other.spent(QUOTA)


async def test_without_redis_each_counts_alone_and_later_together_again(
    gateway: Callable[[], SharedAccounts], redis: RedisProcess
) -> None:
    one = gateway()
    other = gateway()
    redis.kill()
    one.charge(QUOTA, 7.0)
    await one.exchange()
    assert one.spent(QUOTA)
    await other.exchange()
    assert not other.spent(QUOTA)
    redis.start()
    while one._server.is_away:
        await asyncio.sleep(0.02)
    one.charge(OTHER, 7.0)
    await one.exchange()
    other.spent(OTHER)
    while other._server.is_away:
        await asyncio.sleep(0.02)
    await other.exchange()
    assert other.spent(OTHER)


async def test_a_quota_spent_through_one_gateway_ends_at_the_other(gateway: Callable[[], SharedAccounts]) -> None:
    """Through the engines of two gateways; the exchange goes on by itself."""
    inside = [ScriptedEngine(lambda request: Correction(request.answer, ms=4000.0)) for _ in range(2)]
    engines = [AdmittedEngine(engine, seats=2**31, accounts=gateway()) for engine in inside]
    request = AlignRequest(
        request_id="r", objectives=("Kind: be kind",), turns=(), answer="Yes.", deadline_s=5.0, quota=QUOTA
    )
    await engines[0].align(request)
    await engines[1].align(request)
    for engine in engines:
        while not engine._accounts.spent(QUOTA):  # the suite's own limit ends a wait in vain
            await asyncio.sleep(0.02)
        with pytest.raises(QuotaSpent):
            await engine.align(request)
    assert await engines[0].align(request.model_copy(update={"quota": OTHER}))
