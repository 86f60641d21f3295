"""The fleet through a real Redis: who goes by other files is known, by announcements, and by looking without them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.concurrency import end_tasks
from aligner_proxy.gateway.reload import Policies
from aligner_proxy_fleet import announcements, fleet
from aligner_proxy_fleet.announcements import Announcements
from aligner_proxy_fleet.entries import EntryCodec
from aligner_proxy_fleet.fleet import Fleet, FleetHeartbeat, read_member_state
from aligner_proxy_fleet.server import RedisServer
from tests.support.redis_server import WELL_S, RedisProcess, needs_redis, redis_process

pytestmark = needs_redis
FILE = "cache: {redis_env: ALIGNER_TEST_REDIS}\ndefaults: {caution: %s}\n"


@pytest.fixture
def redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisProcess]:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fleet, "LOOK_S", 0.02)
    with redis_process(tmp_path / "redis") as server:
        monkeypatch.setenv("ALIGNER_TEST_REDIS", server.url)
        yield server


Make = Callable[[], Fleet]


@pytest.fixture
async def gateway(redis: RedisProcess, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes gateways with a policies file of their own; the first one's are watched by the tests."""
    made: list[tuple[Fleet, RedisServer]] = []

    def make() -> Fleet:
        folder = tmp_path / f"gateway-{len(made)}"
        folder.mkdir()
        (folder / "policies.yaml").write_text(FILE % 1.0)
        server = RedisServer(redis.url, "ALIGNER_TEST_REDIS", wait_s=WELL_S)
        made.append((Fleet(server, Policies(folder / "policies.yaml")), server))
        return made[-1][0]

    yield make
    for one, server in made:
        await one.aclose()
        await server.aclose()


def differs(what: str) -> float:
    return REGISTRY.get_sample_value("aligner_fleet_differs", {"what": what}) or 0.0


def changed(one: Fleet, caution: float) -> None:
    path = one._policies.path
    path.write_text(FILE % caution)
    one._policies.check_files()
    one._policies.check_files()


async def looked(*gateways: Fleet) -> None:
    for one in (*gateways, *gateways):
        await one.synchronise(read_member_state(one._policies))


async def test_who_goes_by_other_policies_is_known_until_it_does_not(
    gateway: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = gateway(), gateway()
    await looked(other, one)
    assert differs("policies") == 0
    assert REGISTRY.get_sample_value("aligner_fleet_gateways") == 2
    changed(other, 2.0)
    await looked(other, one)
    assert differs("policies") == 1
    assert differs("release") == 0
    assert caplog.text.count("policies: host") == 2, "each says so once"
    changed(other, 1.0)
    await looked(other, one)
    assert differs("policies") == 0


async def test_the_form_of_a_file_does_not_count(gateway: Make) -> None:
    one, other = gateway(), gateway()
    path = other._policies.path
    path.write_text("# the same\n" + (FILE % 1.0).replace("{caution: 1.0}", "\n  caution: 1.0"))
    other._policies.check_files()
    other._policies.check_files()
    assert read_member_state(one._policies).policies == read_member_state(other._policies).policies


async def test_an_announcement_makes_the_others_look_at_once(gateway: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "POLL_S", 3600.0)
    one, other = gateway(), gateway()
    for started in (one, other):
        started.start()
    while REGISTRY.get_sample_value("aligner_fleet_gateways") != 2 or differs("policies"):
        await asyncio.sleep(0.02)
    changed(other, 2.0)
    while not (one._has_difference.get("policies") and other._has_difference.get("policies")):
        await asyncio.sleep(0.02)


async def test_where_announcements_are_lost_it_is_found_by_looking(
    gateway: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "POLL_S", 0.1)

    async def lost(self: Announcements) -> None:
        """It reaches nobody."""

    monkeypatch.setattr(Announcements, "announce", lost)
    one, other = gateway(), gateway()
    for started in (one, other):
        started.start()
    changed(other, 2.0)
    while not (one._has_difference.get("policies") and other._has_difference.get("policies")):
        await asyncio.sleep(0.02)


async def test_listening_is_begun_anew_when_redis_was_away(
    redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "FIRST_PAUSE_S", 0.02)
    server = RedisServer(redis.url, "ALIGNER_TEST_REDIS", wait_s=WELL_S)
    channel = Announcements(server, "aligner:1:")
    heard = asyncio.Event()
    listening = asyncio.create_task(channel.listen(heard.set))
    for _ in range(2):
        await heard.wait()  # it has subscribed, and may have missed something before
        heard.clear()
        redis.command("PUBLISH", "aligner:1:look", "")
        await heard.wait()
        redis.kill()
        heard.clear()
        redis.start()
    listening.cancel()
    await server.aclose()


async def test_while_redis_is_away_nothing_is_said_and_later_it_is(gateway: Make, redis: RedisProcess) -> None:
    one, other = gateway(), gateway()
    redis.kill()
    await looked(one)
    redis.start()
    for each in (one, other):
        while each._heartbeat.server.is_away:
            await asyncio.sleep(0.02)
    await looked(one, other)
    assert REGISTRY.get_sample_value("aligner_fleet_gateways") == 2


async def test_what_is_forged_is_counted_and_nobody(gateway: Make, redis: RedisProcess) -> None:
    one = gateway()
    await looked(one)
    ((member, said),) = redis.command("HGETALL", "aligner:1:gateways").items()
    now = redis.command("TIME")[0] * 1000
    redis.command("HSET", "aligner:1:gateways", "another", said, "third", f"{now}:noise")
    before = [refused("altered"), refused("foreign")]
    server = RedisServer(redis.url, "ALIGNER_TEST_REDIS", wait_s=WELL_S)
    assert len(await FleetHeartbeat(server, EntryCodec()).exchange(None)) == 1
    assert [refused("altered") - before[0], refused("foreign") - before[1]] == [1, 1]
    sealed = FleetHeartbeat(server, EntryCodec(bytes(32)))
    await sealed.exchange(read_member_state(one._policies))
    await sealed.exchange(None)
    assert redis.command("HLEN", sealed.entries.prefix + "gateways") == 0, "who says nothing is not there"
    await server.aclose()
    assert member


def refused(reason: str) -> float:
    return REGISTRY.get_sample_value("aligner_redis_refused_entries_total", {"reason": reason}) or 0.0


class BrokenSubscription:
    """A subscription whose connection cannot be closed in order."""

    async def __aenter__(self) -> BrokenSubscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        raise ConnectionResetError("reset by the peer")

    async def subscribe(self, _: str) -> None:
        """Accept the channel."""

    async def get_message(self, **_: object) -> None:
        """Wait for a message that never comes."""
        await asyncio.Event().wait()


class BrokenClient:
    """A client of such subscriptions."""

    def pubsub(self) -> BrokenSubscription:
        return BrokenSubscription()

    async def aclose(self) -> None:
        """Close nothing."""


async def test_listening_ends_though_its_connection_breaks_while_it_is_cancelled(
    redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = RedisServer(redis.url, "ALIGNER_TEST_REDIS", wait_s=WELL_S)
    monkeypatch.setattr(server, "new_client", BrokenClient)
    subscribed = asyncio.Event()
    listening = asyncio.create_task(Announcements(server, "test:").listen(subscribed.set))
    await subscribed.wait()
    await asyncio.wait_for(end_tasks(listening), WELL_S)
    assert listening.done()
    await server.aclose()
