"""Quotas across gateways: what a tenant uses through one counts in all, and without Redis each counts alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.engine.admission import Admission, AdmittedEngine
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import QuotaSpent
from aligner_proxy.types import Correction, Quota
from aligner_proxy_fleet.quotas import KNOWN_S, SharedAccounts
from aligner_proxy_fleet.server import RedisServer
from tests.engine.test_admission import House, asked, settle
from tests.support.redis_server import RedisProcess, needs_redis, redis_process
from tests.support.scripted import ScriptedEngine

pytestmark = needs_redis
QUOTA = Quota("account", 6.0)
OTHER = Quota("other", 6.0)


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("aligner_redis_refused_entries_total", {"reason": reason}) or 0.0


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
    assert not one.is_used_up(QUOTA)
    assert not other.is_used_up(QUOTA)
    for accounts in (one, other, one):
        await accounts.exchange()
    assert one.is_used_up(QUOTA)
    assert other.is_used_up(QUOTA)
    assert not one.is_used_up(OTHER)


async def test_it_is_forgotten_by_the_servers_time(gateway: Callable[[], SharedAccounts], redis: RedisProcess) -> None:
    one = gateway()
    one.charge(QUOTA, 7.0)
    await one.exchange()
    assert one.is_used_up(QUOTA)
    name = "aligner:1:used:account"
    redis.command("HINCRBYFLOAT", name, "at", "-30")  # half a minute passes: three of the six seconds are forgotten
    await one.exchange()
    assert not one.is_used_up(QUOTA)
    assert 3.9 < float(redis.command("HGET", name, "used")) <= 4.0
    assert 0 < redis.command("PTTL", name) <= 120_000


async def test_what_is_used_during_an_exchange_is_told_with_the_next(gateway: Callable[[], SharedAccounts]) -> None:
    one = gateway()
    one.charge(QUOTA, 2.0)
    telling = asyncio.create_task(one.exchange())
    await asyncio.sleep(0)
    one.charge(QUOTA, 4.5)
    await telling
    assert one.is_used_up(QUOTA)
    await one.exchange()
    other = gateway()
    other.is_used_up(QUOTA)
    await other.exchange()
    assert other.is_used_up(QUOTA)


async def test_without_redis_each_counts_alone_and_later_together_again(
    gateway: Callable[[], SharedAccounts], redis: RedisProcess
) -> None:
    one = gateway()
    other = gateway()
    redis.kill()
    one.charge(QUOTA, 7.0)
    await one.exchange()
    assert one.is_used_up(QUOTA)
    await other.exchange()
    assert not other.is_used_up(QUOTA)
    redis.start()
    while one._server.is_away:
        await asyncio.sleep(0.02)
    one.charge(OTHER, 7.0)
    await one.exchange()
    other.is_used_up(OTHER)
    while other._server.is_away:
        await asyncio.sleep(0.02)
    await other.exchange()
    assert other.is_used_up(OTHER)


def held(accounts: SharedAccounts, **places: int) -> None:
    accounts.register_slots(lambda: Counter(places))


async def test_places_that_a_tenant_has_through_one_gateway_are_known_in_the_other(
    gateway: Callable[[], SharedAccounts],
) -> None:
    one, other, third = gateway(), gateway(), gateway()
    held(one, acme=7, zeta=1)
    held(other, acme=2)
    for accounts in (one, other, third, one):
        assert accounts.count_slots_elsewhere("acme") == 0
        await accounts.exchange()
    assert one.count_slots_elsewhere("acme") == 2
    assert other.count_slots_elsewhere("acme") == 7
    assert third.count_slots_elsewhere("acme") == 9
    assert third.count_slots_elsewhere("zeta") == 0, "not asked for yet"
    held(one)
    for accounts in (one, third):
        await accounts.exchange()
    assert third.count_slots_elsewhere("acme") == 2


async def test_who_died_has_no_places_soon(
    gateway: Callable[[], SharedAccounts], redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aligner_proxy_fleet.quotas.KNOWN_S", 0.3)
    one, other = gateway(), gateway()
    held(one, acme=7)
    held(other, acme=1)
    one.count_slots_elsewhere("acme")
    await one.exchange()
    await one.aclose()
    for _ in range(2):  # whoever speaks keeps the name alive, and not what the dead one said
        await asyncio.sleep(0.2)
        other.count_slots_elsewhere("acme")
        await other.exchange()
    assert other.count_slots_elsewhere("acme") == 0
    assert redis.command("HLEN", "aligner:1:places:acme") == 1


async def test_while_redis_is_away_others_are_soon_forgotten(
    gateway: Callable[[], SharedAccounts], redis: RedisProcess
) -> None:
    now = [0.0]
    one = gateway()
    other = gateway()
    other.clock = lambda: now[0]
    held(one, acme=7)
    for accounts in (one, other):
        accounts.count_slots_elsewhere("acme")
        await accounts.exchange()
    assert other.count_slots_elsewhere("acme") == 7
    redis.kill()
    await other.exchange()
    assert other.count_slots_elsewhere("acme") == 7
    now[0] = KNOWN_S
    assert other.count_slots_elsewhere("acme") == 0


SPOILT = (("SET", "x"), ("RPUSH", "x"), ("HSET", "used", "nan", "at", "inf"), ("HSET", "used", "x"))


@pytest.mark.parametrize("spoil", SPOILT)
async def test_a_spoilt_account_is_counted_and_begun_anew(
    gateway: Callable[[], SharedAccounts], redis: RedisProcess, spoil: tuple[str, ...]
) -> None:
    redis.command(spoil[0], "aligner:1:used:account", *spoil[1:])
    before = refused("altered")
    one = gateway()
    one.charge(QUOTA, 4.0)
    await one.exchange()
    assert refused("altered") - before == 1
    assert not one._server.is_away
    assert not one.is_used_up(QUOTA)
    one.charge(QUOTA, 3.0)
    await one.exchange()
    assert one.is_used_up(QUOTA)


async def test_spoilt_places_are_counted_and_left_out(
    gateway: Callable[[], SharedAccounts], redis: RedisProcess
) -> None:
    one = gateway()
    now = int(redis.command("TIME")[0]) * 1000
    name = "aligner:1:places:acme"
    said = {"a": f"{now}:3", "b": f"{now}:many", "c": f"{now}:9999999999", "d": "noise", "e": f"{now + 9**9}:5"}
    redis.command("HSET", name, *(word for pair in said.items() for word in pair))
    before = refused("altered")
    one.count_slots_elsewhere("acme")
    await one.exchange()
    assert one.count_slots_elsewhere("acme") == 3
    assert refused("altered") - before == 2
    redis.command("DEL", name)
    redis.command("SET", name, "x")
    await one.exchange()
    assert one.count_slots_elsewhere("acme") == 0
    assert not one._server.is_away


async def test_a_tenant_takes_no_share_on_every_host(gateway: Callable[[], SharedAccounts]) -> None:
    """Two hosts, each with an engine of four places: who fills the second one gives way at the first."""
    houses = [House() for _ in range(2)]
    hosts = [AdmittedEngine(Admission(house, slots=4), slots=2**31, accounts=gateway()) for house in houses]
    working: dict[str, asyncio.Task[Correction]] = {}

    async def come(host: int, tenant: str) -> None:
        name = f"{tenant}{len(working)}"
        working[name] = asyncio.create_task(hosts[host].align(asked(name, tenant)))
        await settle()

    async def exchanged() -> None:
        for host in (*hosts, *hosts):
            host.count_slots_everywhere("acme")
            await cast(SharedAccounts, host._accounts).exchange()

    for _ in range(4):
        await come(1, "acme")
    await exchanged()
    for tenant in ("acme", "acme", "zeta", "zeta"):
        await come(0, tenant)
    assert Counter(houses[0].inside) == {"acme": 2, "zeta": 2}
    await come(0, "zeta")
    await come(0, "zeta")
    assert Counter(houses[0].inside) == {"acme": 1, "zeta": 3}, "by its own counting the first host leaves two each"
    await come(0, "acme")
    assert Counter(houses[0].inside) == {"acme": 1, "zeta": 3}
    assert Counter(houses[1].inside) == {"acme": 4}
    for task in working.values():
        task.cancel()
    await asyncio.gather(*working.values(), return_exceptions=True)


async def test_a_quota_spent_through_one_gateway_ends_at_the_other(gateway: Callable[[], SharedAccounts]) -> None:
    """Through the engines of two gateways; the exchange goes on by itself."""
    inside = [ScriptedEngine(lambda request: Correction(request.answer, ms=4000.0)) for _ in range(2)]
    engines = [AdmittedEngine(engine, slots=2**31, accounts=gateway()) for engine in inside]
    request = AlignRequest(
        request_id="r", objectives=("Kind: be kind",), turns=(), answer="Yes.", deadline_s=5.0, quota=QUOTA
    )
    await engines[0].align(request)
    await engines[1].align(request)
    for engine in engines:
        while not engine._accounts.is_used_up(QUOTA):  # the suite's own limit ends a wait in vain
            await asyncio.sleep(0.02)
        with pytest.raises(QuotaSpent):
            await engine.align(request)
    assert await engines[0].align(request.model_copy(update={"quota": OTHER}))
