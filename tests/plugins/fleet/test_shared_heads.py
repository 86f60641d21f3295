"""Heads that hosts share through a real Redis: what one was taught the others have, and nothing that was not."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.policy.config import load
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching.store import WHOLE_FILE, Count, HeadStore, Version, scope_of
from aligner_proxy_fleet import shared_heads
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.server import RedisServer
from aligner_proxy_fleet.shared_heads import SharedHeads
from tests.support.redis_server import WELL_S, RedisProcess, needs_redis, redis_process
from tests.teaching.examples import TEXT, listed

pytestmark = needs_redis
NAME = "no-feelings"
ALIGNER = "a" * 64
KEY = bytes(range(32))
POLICIES = f"""
objectives: {{{NAME}: {{text: "{TEXT}", examples: feelings.yaml}}}}
tenants:
  - match: {{team: acme}}
    objectives: {{{NAME}: {{text: "{TEXT}", examples: feelings.yaml}}}}
"""


def head(n: int, text: str = TEXT, aligner: str = ALIGNER) -> TaughtHead:
    return TaughtHead(text, aligner, 1.0, float(n), struct.pack("<4e", 1.0, 2.0, 3.0, float(n)))


def version(n: int, text: str = TEXT) -> Version:
    return Version(
        head=head(n, text).content_hash,
        text=text,
        called="default",
        aligner=ALIGNER,
        against=n,
        fine=0,
        digest="d",
        at=1_790_000_000.0 + n,
        found=Count(hits=1, of=2),
        false=Count(hits=0, of=100),
        threshold=0.0,
    )


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Host:
    """A host with a home of its own, and its policies file at a path of its own."""

    def __init__(self, folder: Path, url: str, key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        (folder / "feelings.yaml").write_text(listed())
        (folder / "policies.yaml").write_text(POLICIES)
        self.folder = folder
        self.server = RedisServer(url, "REDIS_URL", wait_s=WELL_S)
        self.shared = SharedHeads(self.server, EntryCodec(key))
        self._patch = monkeypatch

    @property
    def store(self) -> HeadStore:
        self._patch.setenv("ALIGNER_PROXY_HOME", str(self.folder / "home"))
        return HeadStore(self.folder / "policies.yaml")

    @property
    def file(self) -> PolicyFile:
        return load(self.folder / "policies.yaml")

    async def exchange(self) -> bool:
        assert self.store
        return await self.shared.exchange(self.file)

    def keep(self, n: int, scope: str = WHOLE_FILE) -> None:
        self.store.activate(scope, NAME, version(n), head(n).to_bytes())

    def in_force(self, scope: str = WHOLE_FILE) -> int | None:
        """By the number of its examples; its bytes are there and whole."""
        store = self.store
        found = store.index().objective(scope, NAME).active_version("default")
        if found is None:
            return None
        assert store.head(found.head) == head(found.against).to_bytes()
        return found.against


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    with redis_process(tmp_path / "redis") as server:
        yield server


Make = Callable[..., Host]


@pytest.fixture
async def make(redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes hosts."""
    hosts: list[Host] = []

    def make_host(key: bytes = KEY) -> Host:
        hosts.append(Host(tmp_path / f"host-{len(hosts)}", redis.url, key, monkeypatch))
        return hosts[-1]

    yield make_host
    for host in hosts:
        host.shared.close()
        await host.server.aclose()


async def exchanged(*hosts: Host) -> None:
    for host in (*hosts, *hosts):
        await host.exchange()


async def test_what_one_host_is_taught_takes_back_or_forgets_is_in_force_at_the_other(make: Make) -> None:
    one, other = make(), make()
    for n in (1, 2):
        one.keep(n)
        assert await one.exchange(), "it says that there is something to announce"
        await other.exchange()
        assert other.in_force() == n
    assert not await one.exchange()
    other.store.rollback(WHOLE_FILE, NAME, TEXT)
    await exchanged(other, one)
    assert one.in_force() == 1
    one.store.forget(WHOLE_FILE, NAME)
    await exchanged(one, other)
    assert other.in_force() is None
    assert other.store.index().objective(WHOLE_FILE, NAME).is_forgotten("default"), "it is not taught again by itself"
    other.keep(3)
    await exchanged(other, one)
    assert one.in_force() == 3
    fresh = make()
    await fresh.exchange()
    assert fresh.in_force() == 3


async def test_a_tenants_head_stays_with_the_tenant(make: Make) -> None:
    one, other = make(), make()
    acme = scope_of(one.file.tenants[0])
    one.keep(1, acme)
    await exchanged(one, other)
    assert other.in_force(acme) == 1
    assert other.in_force() is None


async def test_what_reached_redis_first_stands_and_the_log_says_so(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = make(), make()
    one.keep(1)
    await exchanged(one, other)
    one.keep(2)
    other.keep(3)
    await exchanged(one, other)
    assert (one.in_force(), other.in_force()) == (2, 2)
    assert "was changed on this host and on another one at the same time" in caplog.text


async def test_redis_may_lose_everything_and_one_that_knows_nothing_overrules_nobody(
    make: Make, redis: RedisProcess
) -> None:
    one, other = make(), make()
    one.keep(1)
    one.keep(2)
    await exchanged(one, other)
    one.keep(4)
    await exchanged(one, other)
    redis.command("FLUSHALL")
    fresh = make()
    fresh.keep(9)
    await fresh.exchange()
    await exchanged(one, fresh)
    assert (one.in_force(), fresh.in_force()) == (4, 4)
    names = [name for name in redis.command("KEYS", "*head:*") if head(4).content_hash.encode() in name]
    redis.command("DEL", *names)
    await exchanged(other)
    newest = make()
    await newest.exchange()
    assert newest.in_force() == 4, "a head that was evicted is put back by whoever has it"


async def test_an_index_that_was_removed_takes_nothing_from_the_others(make: Make) -> None:
    one, other = make(), make()
    one.keep(1)
    await exchanged(one, other)
    one.store.index_path.unlink()
    await exchanged(one, other)
    assert (one.in_force(), other.in_force()) == (1, 1)


def spoilt(names: list[bytes], redis: RedisProcess, how: Callable[[bytes], bytes]) -> None:
    for name in names:
        redis.command("SET", name, how(redis.command("GET", name)), "PX", "60000")


@pytest.mark.parametrize("what", ["head:*", "taught:*"])
@pytest.mark.parametrize(
    ("reason", "how"),
    [
        ("truncated", lambda entry: entry[:-9]),
        ("altered", lambda entry: entry[:-1] + bytes([entry[-1] ^ 1])),
        ("foreign", lambda _: b"of another program"),
    ],
)
async def test_what_is_spoilt_is_counted_left_out_and_put_back(
    make: Make, redis: RedisProcess, what: str, reason: str, how: Callable[[bytes], bytes]
) -> None:
    one, other = make(), make()
    one.keep(1)
    await one.exchange()
    spoilt(redis.command("KEYS", f"*{what}"), redis, how)
    before = counted("aligner_redis_refused_entries_total", reason=reason)
    await other.exchange()
    assert counted("aligner_redis_refused_entries_total", reason=reason) - before == 1
    assert other.in_force() is None
    await exchanged(one, other)
    assert other.in_force() == 1


async def test_an_entry_of_another_place_or_key_is_refused(make: Make, redis: RedisProcess) -> None:
    one, other, foreign = make(), make(), make(bytes(32))
    one.keep(1)
    one.keep(2, scope_of(one.file.tenants[0]))
    await one.exchange()
    records = redis.command("KEYS", "*taught:*")
    contents = [redis.command("GET", name) for name in records]
    for name, content in zip(records, reversed(contents), strict=True):
        redis.command("SET", name, content, "PX", "60000")
    before = counted("aligner_redis_refused_entries_total", reason="altered")
    await other.exchange()
    assert other.in_force() is None
    assert counted("aligner_redis_refused_entries_total", reason="altered") - before == 2
    await foreign.exchange()
    assert foreign.in_force() is None


@pytest.mark.parametrize("wrong", [head(8), head(1, "Other: text"), head(1, aligner="b" * 64), b"no head at all"])
async def test_bytes_that_are_not_the_head_that_is_named_are_refused(
    make: Make, redis: RedisProcess, wrong: TaughtHead | bytes
) -> None:
    """Sealed with the right key under the right name, and wrong all the same."""
    one, other = make(), make()
    one.keep(1)
    await one.exchange()
    (name,) = redis.command("KEYS", "*head:*")
    data = wrong if isinstance(wrong, bytes) else wrong.to_bytes()
    entry = EntryCodec(KEY).pack(name.decode(), data)
    assert entry is not None
    redis.command("SET", name, entry, "PX", "60000")
    await other.exchange()
    assert other.in_force() is None
    assert redis.command("EXISTS", name) == 0


async def test_a_record_of_a_later_version_is_left_as_it_is(make: Make, redis: RedisProcess) -> None:
    one = make()
    one.keep(1)
    await one.exchange()
    (name,) = redis.command("KEYS", "*taught:*")
    later = EntryCodec(KEY).pack(name.decode(), b'{"revision": 9, "taught": {"versions": [], "colour": "red"}}')
    assert later is not None
    redis.command("SET", name, later, "PX", "60000")
    one.keep(2)
    assert not await one.exchange()
    assert redis.command("GET", name) == later
    assert one.in_force() == 2


async def test_hosts_with_other_texts_do_not_disturb_each_other(make: Make) -> None:
    """A policies file is changed on one host after the other."""
    one, other = make(), make()
    one.keep(1)
    await exchanged(one, other)
    new = "Feelings: claim none"
    (one.folder / "policies.yaml").write_text(POLICIES.replace(TEXT, new))
    one.store.activate(WHOLE_FILE, NAME, version(2, new), head(2, new).to_bytes())
    await exchanged(one, other)
    assert other.in_force() == 1
    (other.folder / "policies.yaml").write_text(POLICIES.replace(TEXT, new))
    await other.exchange()
    found = other.store.index().objective(WHOLE_FILE, NAME).active_version("default")
    assert found is not None
    assert found.text == new


async def test_one_process_of_a_host_exchanges_until_it_ends(make: Make, redis: RedisProcess) -> None:
    one = make()
    one.keep(1)
    assert await one.exchange()
    beside = SharedHeads(one.server, EntryCodec(KEY))
    one.keep(2)
    assert not await beside.exchange(one.file)
    one.shared.close()
    assert await beside.exchange(one.file)
    beside.close()


async def test_nothing_in_redis_can_be_read_and_all_of_it_expires(make: Make, redis: RedisProcess) -> None:
    one = make()
    one.keep(1)
    await one.exchange()
    names = redis.command("KEYS", "*")
    assert len(names) == 2
    for name in names:
        assert b"feelings" not in name + redis.command("GET", name)
        assert 0 < redis.command("PTTL", name) <= shared_heads.LIVES_S * 1000


async def test_a_change_in_the_same_moment_is_not_lost(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator teaches while heads are fetched: the next exchange finds both."""
    one, other = make(), make()
    one.keep(1)
    await one.exchange()
    take = HeadStore.replace_history

    def meanwhile(store: HeadStore, *given: object) -> bool:
        monkeypatch.setattr(HeadStore, "replace_history", take)
        other.keep(5)
        return take(store, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(HeadStore, "replace_history", meanwhile)
    await other.exchange()
    assert other.in_force() == 5
    await asyncio.sleep(0)
    await exchanged(other, one)
    assert one.in_force() == other.in_force()
