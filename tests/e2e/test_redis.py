"""Two gateways that share a real Redis: one corrects for both, no tenant gets another's, and Redis may fail."""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.cli import doctor
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.teaching.store import WHOLE_FILE, Count, HeadStore, Version
from tests.e2e.clients import KEYS, Gateway
from tests.e2e.deployment import Deployment, two_proxies
from tests.e2e.processes import EngineProcess
from tests.support.redis_server import RedisProcess, needs_redis, redis_process

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), needs_redis]
TEXT = "Kindness: the response should never insult the reader"


class Shared(Deployment):
    """A deployment with an objective that can be taught, and a tenant with a quota."""

    def policies(self) -> dict[str, Any]:
        """The policies file."""
        file = super().policies()
        file["objectives"] = {"kind": {"text": TEXT, "examples": "kind.yaml"}}
        file["tenants"] = [*file["tenants"], {"match": {"team": "other"}, "name": "other", "quota": 6}]
        return file


DEPLOYMENT = Shared().model("gpt")
DEPLOYMENT.cache = {"redis_env": "ALIGNER_TEST_REDIS", "key_env": "ALIGNER_TEST_REDIS_KEY"}
KEY = base64.b64encode(bytes(range(32))).decode()
INSULT = "You are an idiot for asking."
SOON_S = 30.0


@dataclass
class Fleet:
    """Two gateways, the engine behind both, and the Redis between them."""

    gateways: list[Gateway]
    engine: EngineProcess
    redis: RedisProcess
    folders: list[Path]

    def asked(self) -> int:
        return len(self.engine.calls())

    def ask(self, question: str, at: int) -> str:
        """The answer of one gateway; corrected, or the request has failed."""
        got = self.gateways[at].chat(question)
        assert got.status_code == 200, got.text
        text = str(got.json()["choices"][0]["message"]["content"])
        assert got.headers["x-aligner-status"] == "corrected", dict(got.headers)
        assert INSULT not in text
        return text

    def metric(self, name: str, at: int = 0) -> float:
        """The sum of a metric's samples whose line begins with `name`."""
        text = self.gateways[at].http.get("/metrics/").text
        lines = re.findall(rf"^{re.escape(name)}\S* (\S+)$", text, re.MULTILINE)
        return sum(map(float, lines))

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for something that one gateway hears of another."""
        end = time.monotonic() + SOON_S
        while not true():
            assert time.monotonic() < end, what
            time.sleep(0.2)

    def taught(self, at: int) -> str:
        """What one gateway says is taught."""
        return str(self.gateways[at].chat("rude taught").headers.get("x-aligner-taught", ""))

    def wait_until_up(self, value: float, at: int = 0) -> None:
        until = time.monotonic() + SOON_S
        while self.metric('aligner_redis_up{calls="reads"', at) != value:
            assert time.monotonic() < until
            time.sleep(0.1)


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, upstream: str, engine: EngineProcess
) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        mine = tmp_path_factory.mktemp("fleet")
        redis = stack.enter_context(redis_process(mine / "redis", "--maxmemory", "64mb"))
        env = {"ALIGNER_TEST_REDIS": redis.url, "ALIGNER_TEST_REDIS_KEY": KEY}
        started = stack.enter_context(two_proxies(DEPLOYMENT, mine, folder, upstream, engine, env))
        gateways = [stack.enter_context(contextlib.closing(Gateway(made.address, log=made.log))) for made in started]
        yield Fleet(gateways, engine, redis, [mine / f"gateway-{number}" for number in range(2)])


def test_what_one_corrected_the_other_knows(fleet: Fleet) -> None:
    before = fleet.asked()
    assert fleet.ask("rude shared", 0) == fleet.ask("rude shared", 1) == fleet.ask("rude shared", 1)
    assert fleet.asked() - before == 1
    assert fleet.metric('aligner_redis_lookups_total{result="hit"}', 1) >= 1


def test_one_corrects_for_both_at_the_same_time(fleet: Fleet) -> None:
    before = fleet.asked()
    with fleet.engine.holding() as open_door, ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(fleet.ask, "held rude at once", number % 2) for number in range(4)]
        until = time.monotonic() + SOON_S
        while fleet.asked() == before:
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)  # the others had time to ask
        open_door()
        assert len({answer.result() for answer in answers}) == 1
    assert fleet.asked() - before == 1


def test_no_tenant_gets_what_was_corrected_for_another(fleet: Fleet) -> None:
    before = fleet.asked()
    for number, alias in enumerate(("acme", "other", "strict")):
        with contextlib.closing(Gateway(fleet.gateways[number % 2].address, KEYS[alias])) as tenant:
            assert tenant.chat("rude tenants").headers["x-aligner-status"] == "corrected"
    assert fleet.asked() - before == 3


def test_redis_holds_no_text(fleet: Fleet) -> None:
    fleet.ask("rude sealed", 0)
    names = fleet.redis.command("KEYS", "*correction*")
    assert names
    assert all(b"rude" not in name for name in names)
    assert all(fleet.redis.command("GET", name).startswith(b"als:") for name in names)
    log = fleet.gateways[0].log
    assert log is not None
    assert fleet.redis.url not in log.read_text()
    assert KEY not in log.read_text()


def test_spoilt_entries_are_counted_and_corrected_anew(fleet: Fleet) -> None:
    """Cut off, changed and of another program; one after the other under the names that gateways look for."""
    for number, spoil in enumerate((lambda entry: entry[:-9], lambda entry: entry[:-1] + b"\0", lambda _: b"other")):
        known = set(fleet.redis.command("KEYS", "*correction*"))
        fleet.ask(f"rude spoilt {number}", 0)
        (name,) = set(fleet.redis.command("KEYS", "*correction*")) - known
        fleet.redis.command("SET", name, spoil(fleet.redis.command("GET", name)), "PX", "60000")
        before = fleet.metric("aligner_redis_refused_entries_total", 1)
        asked = fleet.asked()
        fleet.ask(f"rude spoilt {number}", 1)
        assert fleet.metric("aligner_redis_refused_entries_total", 1) - before == 1
        assert fleet.asked() - asked == 1


def test_a_quota_that_is_spent_through_both_gateways_is_spent(fleet: Fleet) -> None:
    """Six seconds a minute; four through each gateway, which alone would be within it."""
    with contextlib.ExitStack() as stack:
        tenant = [
            stack.enter_context(contextlib.closing(Gateway(gateway.address, KEYS["other"])))
            for gateway in fleet.gateways
        ]
        for at, gateway in enumerate(tenant):
            assert gateway.chat(f"costly {at}").headers["x-aligner-status"] == "corrected"
        questions = itertools.count()
        for at, gateway in enumerate(tenant):
            ask = lambda gateway=gateway: gateway.chat(f"rude spent {next(questions)}").headers.get("x-aligner-reason")  # noqa: E731
            fleet.until(lambda ask=ask: ask() == "quota", f"gateway {at} never knew that the quota is spent")
    assert fleet.ask("rude of nobody with a quota", 0)


def test_a_head_is_in_force_at_every_gateway_and_so_is_that_it_was_forgotten(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(at: int) -> HeadStore:
        monkeypatch.setenv("ALIGNER_PROXY_HOME", str(fleet.folders[at] / "home"))
        return HeadStore(fleet.folders[at] / "configs" / "policies.yaml")

    assert fleet.taught(0) == fleet.taught(1) == ""
    head = TaughtHead(TEXT, "a" * 64, 1.0, 0.0, bytes(8))
    none = Count(hits=0, of=0)
    version = Version(
        head=head.content_hash,
        text=TEXT,
        called="default",
        aligner="a" * 64,
        against=4,
        fine=0,
        digest="d",
        at=1_790_000_000.0,
        found=none,
        false=none,
        threshold=0.0,
    )
    store(0).activate(WHOLE_FILE, "kind", version, head.to_bytes())
    for at in (0, 1):
        fleet.until(lambda at=at: fleet.taught(at).startswith("kind=4@"), f"gateway {at} was never taught")
    assert store(1).head(head.content_hash) == head.to_bytes()
    store(1).forget(WHOLE_FILE, "kind")
    for at in (0, 1):
        fleet.until(lambda at=at: fleet.taught(at) == "", f"gateway {at} forgot nothing")


def test_gateways_say_when_they_go_by_different_policies(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    differs = 'aligner_fleet_differs{what="policies"'
    for at in (0, 1):
        fleet.until(lambda at=at: fleet.metric("aligner_fleet_gateways", at) == 2, "they do not know each other")
        fleet.until(lambda at=at: fleet.metric(differs, at) == 0, "they have the same file")
    path = fleet.folders[1] / "configs" / "policies.yaml"
    before = path.read_text()
    path.write_text(before.replace("deadline_s: 20", "deadline_s: 19"))
    fleet.until(lambda: fleet.metric(differs, 0) == 1, "one file was changed")
    monkeypatch.setenv("ALIGNER_TEST_REDIS", fleet.redis.url)
    monkeypatch.setenv("ALIGNER_TEST_REDIS_KEY", KEY)
    (told,) = [one for one in doctor.redis(fleet.folders[0] / "configs" / "policies.yaml") if one.check == "fleet"]
    assert told.verdict is doctor.Verdict.NOTE
    assert "2 gateway processes on 1 hosts: policies differ" in told.found
    path.write_text(before)
    fleet.until(lambda: fleet.metric(differs, 0) == 0, "it was changed back")


def full(redis: RedisProcess) -> None:
    redis.command("CONFIG", "SET", "maxmemory", "1")


def stopped(redis: RedisProcess) -> None:
    redis.signal(signal.SIGSTOP)


def killed(redis: RedisProcess) -> None:
    redis.kill()


def room_again(redis: RedisProcess) -> None:
    redis.command("CONFIG", "SET", "maxmemory", "64mb")


def running_again(redis: RedisProcess) -> None:
    redis.signal(signal.SIGCONT)


FAULTS: dict[str, tuple[Any, Any]] = {
    "killed": (killed, RedisProcess.start),
    "stopped": (stopped, running_again),
    "full": (full, room_again),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_goes_on_alone_and_comes_back_by_itself(fleet: Fleet, fault: str) -> None:
    harm, mend = FAULTS[fault]
    fleet.ask(f"rude before {fault}", 0)
    failures = [fleet.metric("aligner_redis_failures_total", at) for at in range(2)]
    harm(fleet.redis)
    try:
        asked = fleet.asked()
        # Each corrects for itself, and then knows it by its own disk or memory.
        answers = {fleet.ask(f"rude while {fault}", at) for at in (0, 1, 0, 1)}
        assert len(answers) == 1
        assert fleet.asked() - asked == 2
        for at in range(2):
            assert fleet.metric("aligner_redis_failures_total", at) > failures[at]
    finally:
        mend(fleet.redis)
    for at in range(2):
        fleet.wait_until_up(1.0, at)
        until = time.monotonic() + SOON_S
        while fleet.metric('aligner_redis_up{calls="writes"', at) != 1.0:
            assert time.monotonic() < until
            time.sleep(0.1)
    asked = fleet.asked()
    fleet.ask(f"rude after {fault}", 0)
    fleet.ask(f"rude after {fault}", 1)
    assert fleet.asked() - asked == 1
