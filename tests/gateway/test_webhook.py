"""Reports of doubtful answers: to a real server that is there, slow, away or broken; what they say, who may set it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from tenacity.wait import wait_none

from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import webhook
from aligner_proxy.gateway.webhook import ATTEMPTS, SIGNATURE, WebhookSender
from aligner_proxy.policy import config
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import Correction, Exchange, HandOff, Objective, Outcome, Policy, SegmentScore, Status, Turn
from tests.support.background import wait_for_reports

SECRET = "a secret of some length"
QUESTION = "What of my sister?"
ANSWER = "It is so. You fool."


@dataclass
class Desk:
    """A webhook: what came, and how it answers."""

    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    statuses: list[int] = field(default_factory=lambda: [204])
    """Of each report; the last one counts for all further ones."""
    extra: str = ""
    """A header of its answers."""
    endless: bool = False
    """Whether its answers have no end."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, with one report."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
        headers = {name.lower(): value for name, _, value in lines}
        self.bodies.append(await reader.readexactly(int(headers["content-length"])))
        self.headers.append(headers)
        await self.gate.wait()
        status = self.statuses[min(len(self.bodies), len(self.statuses)) - 1]
        length = "" if self.endless else "content-length: 0\r\n"
        writer.write(f"HTTP/1.1 {status} so\r\n{self.extra}{length}connection: close\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            while self.endless:
                writer.write(b"a" * 65_536)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[Desk]:
    desk = Desk(**settings)
    server = await asyncio.start_server(desk.serve, "127.0.0.1", 0)
    desk.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/doubts"
    desk.gate.set()
    try:
        yield desk
    finally:
        desk.gate.set()
        server.close()
        await server.wait_closed()


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_SECRET", SECRET)


@pytest.fixture
async def hand_offs() -> AsyncIterator[WebhookSender]:
    made = WebhookSender(backoff=wait_none())
    yield made
    await made.aclose()


def outcome_of(url: str, score: float = 0.3, **to: Any) -> Outcome:
    policy = Policy("chat", (Objective("kind", "Kindness: be kind"),), tenant="team:acme")
    policy = replace(policy, hand_off=HandOff(url, "DESK_SECRET", **({"within": 0.5} | to)))
    scores = (SegmentScore("It is so.", -4.0, False), SegmentScore("You fool.", score, score > 0, 0))
    return Outcome(Status.UNCHANGED, None, ANSWER, policy, correction=Correction(ANSWER, scores, aligner="f00d"))


def asked(**more: Any) -> Exchange:
    return Exchange("call-1", 0, (Turn("user", QUESTION),), ANSWER, **more)


def told(result: str) -> float:
    return REGISTRY.get_sample_value("aligner_hand_offs_total", {"result": result, "policy": "chat"}) or 0.0


async def counted(hand_offs: WebhookSender, offer: Callable[[], None]) -> dict[str, float]:
    """What was counted for what is offered."""
    before = {result: told(result) for result in ("sent", "failed", "dropped")}
    offer()
    await wait_for_reports(hand_offs)
    return {result: told(result) - count for result, count in before.items() if told(result) != count}


async def test_a_doubtful_answer_is_reported_signed_and_without_text(hand_offs: WebhookSender) -> None:
    async with opened() as desk:
        sent = await counted(hand_offs, lambda: hand_offs.offer(asked(), outcome_of(desk.url), "id-1"))
        assert sent == {"sent": 1}
        [body] = desk.bodies
        [headers] = desk.headers
    parts = dict(part.split("=") for part in headers[SIGNATURE].split(","))
    expected = hmac.new(SECRET.encode(), f"{parts['t']}.".encode() + body, hashlib.sha256).hexdigest()
    assert parts["v1"] == expected
    report = json.loads(body)
    assert (report["id"], report["tenant"], report["margin"], report["aligner"]) == ("id-1", "team:acme", 0.3, "f00d")
    assert report["segments"][1] == {"segment": 1, "score": 0.3, "flagged": True, "objective": "kind"}
    assert not {"question", "answer", "edited"} & report.keys()
    assert b"fool" not in body
    assert b"sister" not in body


@pytest.mark.parametrize("score", [0.6, -0.6])
async def test_what_is_not_near_the_threshold_is_not_reported(hand_offs: WebhookSender, score: float) -> None:
    async with opened() as desk:
        assert await counted(hand_offs, lambda: hand_offs.offer(asked(), outcome_of(desk.url, score), "id")) == {}
        assert not desk.bodies


async def test_text_is_sent_where_it_is_asked_for_redacted_and_never_of_what_may_not_be_stored() -> None:
    redacting = WebhookSender(lambda text: text.replace("sister", "***"), backoff=wait_none())
    async with opened() as desk:
        redacting.offer(asked(), outcome_of(desk.url, text=True), "id")
        redacting.offer(asked(no_store=True), outcome_of(desk.url, text=True), "id")
        await wait_for_reports(redacting)
        await redacting.aclose()
        first, second = map(json.loads, desk.bodies)
    assert (first["question"], first["answer"]) == ("What of my ***?", ANSWER)
    assert "question" not in second


async def test_a_webhook_that_fails_is_asked_again_and_then_given_up(
    hand_offs: WebhookSender, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(statuses=[500, 503, 204]) as desk:
        assert await counted(hand_offs, lambda: hand_offs.offer(asked(), outcome_of(desk.url), "id")) == {"sent": 1}
        assert len(desk.bodies) == 3
    async with opened(statuses=[500]) as desk:
        with caplog.at_level(logging.DEBUG):
            failed = await counted(hand_offs, lambda: hand_offs.offer(asked(), outcome_of(desk.url), "id"))
        assert failed == {"failed": 1}
        assert len(desk.bodies) == ATTEMPTS
    assert "HTTP 500" in caplog.text
    assert SECRET not in caplog.text


async def test_nobody_there_and_a_refusal_are_failures(hand_offs: WebhookSender) -> None:
    async with opened() as desk:
        url = desk.url
    assert await counted(hand_offs, lambda: hand_offs.offer(asked(), outcome_of(url), "id")) == {"failed": 1}
    async with opened(statuses=[403]) as desk:
        assert await counted(hand_offs, lambda: hand_offs.offer(asked(), outcome_of(desk.url), "id")) == {"failed": 1}
        assert len(desk.bodies) == 1


async def test_no_redirect_is_followed(hand_offs: WebhookSender) -> None:
    async with opened() as inner, opened(statuses=[307], extra=f"location: {inner.url}\r\n") as desk:
        assert await counted(hand_offs, lambda: hand_offs.offer(asked(), outcome_of(desk.url), "id")) == {"failed": 1}
        assert len(desk.bodies) == 1
        assert not inner.bodies


async def test_a_slow_webhook_delays_nothing_and_what_exceeds_the_bound_is_dropped() -> None:
    hand_offs = WebhookSender(max_waiting=3, backoff=wait_none())
    before = told("dropped")
    async with opened() as desk:
        desk.gate.clear()
        for n in range(10):
            hand_offs.offer(asked(), outcome_of(desk.url), f"id-{n}")  # waits for nothing: no await
        assert told("dropped") - before == 7
        desk.gate.set()
        await wait_for_reports(hand_offs)
        assert [json.loads(body)["id"] for body in desk.bodies] == ["id-0", "id-1", "id-2"]
    await hand_offs.aclose()


async def test_at_the_end_what_cannot_be_sent_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "LAST_S", 0.0)
    hand_offs = WebhookSender(backoff=wait_none())
    before = told("dropped")
    async with opened() as desk:
        desk.gate.clear()
        for n in range(2):
            hand_offs.offer(asked(), outcome_of(desk.url), f"id-{n}")
        await hand_offs.aclose()
    assert told("dropped") - before == 2


def _file(path: Path, block: object, **more: Any) -> Path:
    path.write_text(yaml.safe_dump({"routes": [{"match": {}, "hand_off": block}]} | more, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"url": "ftp://a/b", "secret_env": "DESK_SECRET"}, "must be an address such as https://"),
        ({"url": "desk", "secret_env": "DESK_SECRET"}, "must be an address such as https://"),
        ({"url": "http://u:p@desk/", "secret_env": "DESK_SECRET"}, "without user, password"),
        ({"url": "http://desk/", "secret_env": "DESK SECRET"}, "secret_env"),
        ({"url": "http://desk/"}, "secret_env"),
        ({"url": "http://desk/", "secret_env": "DESK_SECRET", "within": 0}, "within"),
    ],
)
def test_what_cannot_be_a_webhook_is_refused_with_the_line(tmp_path: Path, block: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=r"p.yaml:\d+: .*" + problem):
        config.load(_file(tmp_path / "p.yaml", block))


def test_a_short_or_missing_secret_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = config.load(_file(tmp_path / "p.yaml", {"url": "http://desk/", "secret_env": "DESK_SECRET"}))
    config.check_hand_offs(file)
    for value in ("short", ""):
        monkeypatch.setenv("DESK_SECRET", value)
        with pytest.raises(ConfigError, match=r"p.yaml:\d+: hand_off.secret_env: DESK_SECRET must hold a secret"):
            config.check_hand_offs(file)


@pytest.mark.parametrize("where", ["defaults", "tenants"])
def test_a_route_alone_may_say_it(tmp_path: Path, where: str) -> None:
    block = {"hand_off": {"url": "http://desk/", "secret_env": "DESK_SECRET"}}
    data = {where: block if where == "defaults" else [{"match": {}} | block]}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="unknown key 'hand_off'"):
        config.load(tmp_path / "p.yaml")


def test_neither_trusted_metadata_nor_a_request_may_say_it(tmp_path: Path) -> None:
    theirs = {"url": "http://evil/", "secret_env": "DESK_SECRET"}
    block = {"url": "http://desk/", "secret_env": "DESK_SECRET"}
    trust = {"key_metadata": True, "team_metadata": True}
    resolver = PolicyResolver(config.load(_file(tmp_path / "p.yaml", block, trust=trust)))
    facts = RequestFacts("gpt", key_settings={"hand_off": theirs}, team_settings={"hand_off": theirs})
    policy = resolver.resolve(replace(facts, fields={"hand_off": theirs}))
    assert policy.hand_off == HandOff("http://desk/", "DESK_SECRET", 0.5)
