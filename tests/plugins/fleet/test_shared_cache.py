"""Corrections that gateways share through a real Redis: found by all, computed by one, and never anybody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.errors import EngineFault
from aligner_proxy.types import Correction, SegmentScore
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.leases import SharedEntries
from aligner_proxy_fleet.server import RedisServer
from aligner_proxy_fleet.shared_cache import SharedCache
from tests.support.redis_server import WELL_S, RedisProcess, needs_redis, redis_process

pytestmark = needs_redis
MADE = Correction("It is so.", (SegmentScore("It is so, fool.", 2.5, True),), ms=12.5, aligner="content")
Make = Callable[..., SharedCache]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with redis_process(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(running: RedisProcess) -> RedisProcess:
    running.command("FLUSHALL")
    return running


@pytest.fixture
async def gateway(redis: RedisProcess, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes caches of gateways, each with a disk of its own."""
    made: list[SharedCache] = []

    def make(*, key: bytes | None = None, lease_s: float = 1.5, ttl_s: float = 60.0) -> SharedCache:
        entries = EntryCodec(key)
        server = RedisServer(redis.url, "REDIS_URL", wait_s=WELL_S)
        shared = SharedEntries(server, entries.prefix, ttl_s, lease_s=lease_s)
        made.append(SharedCache(tmp_path / f"disk-{len(made)}", ttl_s, 4, shared, entries))
        return made[-1]

    yield make
    for cache in made:
        await cache.aclose()


class Engine:
    """Counts what it computes; `door` holds it up."""

    def __init__(self, correction: Correction = MADE, error: Exception | None = None) -> None:
        self.asked = 0
        self.began = asyncio.Event()
        self.door = asyncio.Event()
        self.door.set()
        self._correction = correction
        self._error = error

    async def __call__(self) -> Correction:
        self.asked += 1
        self.began.set()
        await self.door.wait()
        if self._error:
            raise self._error
        return self._correction


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def counts(name: str, more: float = 1.0, **labels: str) -> AsyncIterator[None]:
    before = counted(name, **labels)
    yield
    assert counted(name, **labels) - before == more


async def until(true: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for something that will be; the suite's own limit ends a wait in vain."""
    while True:
        now = true()
        if now is True or (now is not False and await now):
            return
        await asyncio.sleep(0.01)


def name(cache: SharedCache, key: str) -> str:
    return cache._shared.entry_name(key)


@pytest.mark.parametrize("key", [None, bytes(range(32))], ids=["plain", "encrypted"])
async def test_what_one_gateway_computed_the_other_finds(gateway: Make, redis: RedisProcess, key: bytes | None) -> None:
    one = gateway(key=key)
    other = gateway(key=key)
    engine = Engine()
    assert await one.get_or_compute("k", engine, aligner="content") == (MADE, False)
    assert await other.get_or_compute("k", engine, aligner="content") == (MADE, True)
    assert engine.asked == 1
    entry = redis.command("GET", name(one, "k"))
    assert 0 < redis.command("PTTL", name(one, "k")) <= 60_000
    assert b"It is so" not in entry
    assert redis.command("EXISTS", f"{one._entries.prefix}lease:k") == 0


async def test_found_once_it_is_known_without_redis(gateway: Make, redis: RedisProcess) -> None:
    one = gateway()
    await one.put("k", MADE)
    other = gateway()
    assert await other.get("k") == MADE
    redis.command("FLUSHALL")
    assert await other.get("k") == MADE
    assert await gateway().get("k") is None


async def test_it_is_kept_in_memory_no_longer_than_in_redis(gateway: Make, redis: RedisProcess) -> None:
    one = gateway()
    await one.put("k", MADE)
    other = gateway()
    # long enough for a busy machine to connect and read in
    redis.command("PEXPIRE", name(one, "k"), "1000")
    assert await other.get("k") == MADE
    await until(lambda: redis.command("EXISTS", name(one, "k")) == 0)
    await asyncio.sleep(0.05)
    assert await other.get("k") is None


async def test_gateways_compute_once_for_all(gateway: Make) -> None:
    engine = Engine()
    engine.door.clear()
    caches = [gateway() for _ in range(3)]
    async with counts("aligner_redis_computed_total", 2, how="elsewhere"):
        waiting = [asyncio.create_task(cache.get_or_compute("k", engine, aligner="content")) for cache in caches * 2]
        await engine.began.wait()
        await asyncio.sleep(0.1)
        engine.door.set()
        assert await asyncio.gather(*waiting) == [(MADE, False)] * 6
    assert engine.asked == 1


async def test_a_lease_is_renewed_while_its_holder_works(gateway: Make) -> None:
    engine = Engine()
    engine.door.clear()
    one = gateway(lease_s=0.15)
    other = gateway(lease_s=0.15)
    first = asyncio.create_task(one.get_or_compute("k", engine, aligner="content"))
    await engine.began.wait()
    second = asyncio.create_task(other.get_or_compute("k", engine, aligner="content"))
    await asyncio.sleep(0.5)  # more than three leases
    assert engine.asked == 1
    engine.door.set()
    assert await first == await second == (MADE, False)
    assert engine.asked == 1


async def test_a_dead_holder_delays_others_by_its_lease_alone(gateway: Make, redis: RedisProcess) -> None:
    one = gateway()
    redis.command("SET", f"{one._entries.prefix}lease:k", "7", "PX", "200")  # nobody renews it
    engine = Engine()
    assert await one.get_or_compute("k", engine, aligner="content") == (MADE, False)
    assert engine.asked == 1
    assert await gateway().get("k") == MADE


async def test_nobody_waits_for_a_holder_longer_than_half_of_the_time_left(gateway: Make, redis: RedisProcess) -> None:
    one = gateway()
    lease = f"{one._entries.prefix}lease:k"
    redis.command("SET", lease, "7")  # held for ever
    engine = Engine()
    async with counts("aligner_redis_computed_total", how="alone"):
        found = await one.get_or_compute("k", engine, aligner="content", deadline=time.monotonic() + 0.6)
    assert found == (MADE, False)
    assert engine.asked == 1
    assert redis.command("GET", lease) == b"7"
    assert await gateway().get("k") is None  # what the holder writes must not be replaced, nor come before it


async def test_a_late_holder_replaces_nothing(gateway: Make, redis: RedisProcess) -> None:
    late = gateway()
    slow = Engine(replace(MADE, text="Late."))
    slow.door.clear()
    first = asyncio.create_task(late.get_or_compute("k", slow, aligner="content"))
    await slow.began.wait()
    redis.command("DEL", f"{late._entries.prefix}lease:k")  # as after a pause longer than the lease
    assert await gateway().get_or_compute("k", Engine(), aligner="content") == (MADE, False)
    slow.door.set()
    async with counts("aligner_redis_computed_total", how="superseded"):
        assert (await first)[0].text == "Late."  # its own client gets what was computed for it
    assert await gateway().get("k") == MADE
    assert await late.get("k") == MADE


async def test_a_late_holder_fills_a_gap(gateway: Make, redis: RedisProcess) -> None:
    late = gateway()
    slow = Engine()
    slow.door.clear()
    first = asyncio.create_task(late.get_or_compute("k", slow, aligner="content"))
    await slow.began.wait()
    redis.command("DEL", f"{late._entries.prefix}lease:k")
    slow.door.set()
    await first
    assert await gateway().get("k") == MADE


async def test_tokens_grow(gateway: Make) -> None:
    shared = gateway()._shared
    claims = [await shared.claim(key) for key in ("a", "b", "a")]
    assert [claim.is_granted for claim in claims] == [True, True, False]
    assert claims[0].token < claims[1].token
    assert claims[2].others_compute


@pytest.mark.parametrize(
    "unshared", [Engine(error=EngineFault("it failed")), Engine(replace(MADE, untaught=1))], ids=["failed", "untaught"]
)
async def test_where_the_holder_has_nothing_to_share_all_compute_at_once(gateway: Make, unshared: Engine) -> None:
    unshared.door.clear()
    first = asyncio.create_task(gateway().get_or_compute("k", unshared, aligner="content"))
    await unshared.began.wait()
    together = asyncio.Barrier(2)

    async def compute() -> Correction:
        await together.wait()  # passed only by two at a time
        return replace(MADE, untaught=1)

    others = [asyncio.create_task(gateway().get_or_compute("k", compute, aligner="content")) for _ in range(2)]
    await asyncio.sleep(0.05)
    unshared.door.set()
    await asyncio.gather(first, return_exceptions=True)
    assert [found[0].text for found in await asyncio.gather(*others)] == [MADE.text] * 2


async def test_when_the_holders_client_leaves_the_next_gateway_computes(gateway: Make) -> None:
    left = Engine()
    left.door.clear()
    first = asyncio.create_task(gateway().get_or_compute("k", left, aligner="content"))
    await left.began.wait()
    engine = Engine()
    others = [asyncio.create_task(gateway().get_or_compute("k", engine, aligner="content")) for _ in range(2)]
    await asyncio.sleep(0.05)
    assert engine.asked == 0
    first.cancel()
    assert await asyncio.gather(*others) == [(MADE, False)] * 2
    assert engine.asked == 1


async def test_without_a_memory_nothing_is_shared(gateway: Make, redis: RedisProcess) -> None:
    engine = Engine()
    assert await gateway().get_or_compute("k", engine, remember=False) == (MADE, None)
    assert redis.command("DBSIZE") == 0


def cut(entry: bytes) -> bytes:
    return entry[:-5]


def changed(entry: bytes) -> bytes:
    return entry[:-5] + bytes([entry[-5] ^ 1]) + entry[-4:]


def of_another_program(_entry: bytes) -> bytes:
    return b"\x80\x04\x95pickle"


@pytest.mark.parametrize(
    ("spoil", "reason"), [(cut, "truncated"), (changed, "altered"), (of_another_program, "foreign")]
)
async def test_what_is_not_whole_is_counted_and_made_anew(
    gateway: Make,
    redis: RedisProcess,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[bytes], bytes],
    reason: str,
) -> None:
    one = gateway()
    await one.put("k", MADE)
    redis.command("SET", name(one, "k"), spoil(redis.command("GET", name(one, "k"))), "PX", "60000")
    engine = Engine()
    async with counts("aligner_redis_refused_entries_total", reason=reason):
        assert await gateway().get_or_compute("k", engine, aligner="content") == (MADE, False)
    assert engine.asked == 1
    assert await gateway().get("k") == MADE
    assert MADE.text not in caplog.text


async def test_an_entry_moved_under_another_key_is_refused(gateway: Make, redis: RedisProcess) -> None:
    """As where a tenant's correction is put under another tenant's key."""
    one = gateway()
    await one.put("theirs", MADE)
    redis.command("SET", name(one, "mine"), redis.command("GET", name(one, "theirs")), "PX", "60000")
    async with counts("aligner_redis_refused_entries_total", reason="altered"):
        assert await gateway().get("mine") is None


async def test_an_entry_of_another_aligner_is_refused(gateway: Make) -> None:
    await gateway().put("k", replace(MADE, aligner="another"))
    async with counts("aligner_redis_refused_entries_total", reason="foreign"):
        assert await gateway().get_or_compute("k", Engine(), aligner="content") == (MADE, False)


async def test_one_without_an_end_or_of_another_kind_is_refused(gateway: Make, redis: RedisProcess) -> None:
    one = gateway()
    await one.put("k", MADE)
    redis.command("PERSIST", name(one, "k"))
    redis.command("LPUSH", name(one, "list"), "a")
    async with counts("aligner_redis_refused_entries_total", 2, reason="foreign"):
        assert await gateway().get("k", "content") is None
        assert await gateway().get("list") is None
    assert redis.command("EXISTS", name(one, "k"), name(one, "list")) == 0


async def test_an_entry_of_any_size_is_read_to_a_bound(gateway: Make, redis: RedisProcess) -> None:
    one = gateway()
    redis.command("SETRANGE", name(one, "k"), str(50 * 2**20), b"x")
    redis.command("PEXPIRE", name(one, "k"), "60000")
    async with counts("aligner_redis_refused_entries_total", reason="foreign"):
        assert await one.get("k") is None


async def test_an_answer_to_another_question_is_refused(
    gateway: Make, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a connection was left with an answer that nobody read."""
    one = gateway()
    await one.put("theirs", MADE)
    fresh = gateway()
    look = fresh._shared.look_up

    async def other(_key: str) -> Any:
        return await look("theirs")

    monkeypatch.setattr(fresh._shared, "look_up", other)
    async with counts("aligner_redis_refused_entries_total", reason="altered"):
        assert await fresh.get("mine", "content") is None


async def test_a_correction_too_large_to_share_is_delivered(gateway: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aligner_proxy_fleet.entries.LARGEST", 10)
    engine = Engine()
    assert await gateway().get_or_compute("k", engine, aligner="content") == (MADE, False)
    assert await gateway().get_or_compute("k", engine, aligner="content") == (MADE, False)
    assert engine.asked == 2
