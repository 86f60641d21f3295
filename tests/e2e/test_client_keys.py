"""Limits of the keys file in the real proxy: models, requests a minute, requests at a time, bodies, an end."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.clients import Gateway
from tests.e2e.deployment import Deployment, proxy
from tests.e2e.processes import EngineProcess

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

MIB = 1024 * 1024
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "some-models": {"models": ["gpt"]},
    "few-a-minute": {"rpm": 3},
    "few-aligned": {"rpm": 2},
    "one-at-a-time": {"max_parallel": 1},
    "small": {"max_body_mb": 1},
    "ended": {"expires": "2020-01-01"},
    "listener": {"routes": ["/v1/audio/*"]},
    **{f"many-{number}": {"rpm": 1} for number in range(80)},
}


@pytest.fixture(scope="module")
def clients(folder: Path, upstream: str, engine: EngineProcess) -> Iterator[dict[str, Gateway]]:
    """A proxy of its own, and a client with each key by its alias."""
    own = folder / "limits"
    models = Deployment(()).model("gpt").model("claude")
    started = proxy(models, own, folder, upstream, engine, guarded=True)
    entries = [
        {"sha256": hashlib.sha256(f"key-{alias}".encode()).hexdigest(), "alias": alias, **settings}
        for alias, settings in SETTINGS.items()
    ]
    (own / "keys.yaml").write_text(yaml.safe_dump(entries))
    with contextlib.ExitStack() as stack:
        stack.callback(started.process.stop)
        started.process.start()
        started.wait()
        gateways = {alias: Gateway(started.address, f"key-{alias}", started.log) for alias in SETTINGS}
        for gateway in gateways.values():
            stack.callback(gateway.close)
        yield gateways


def test_a_key_calls_its_models_alone(clients: dict[str, Gateway]) -> None:
    client = clients["some-models"]
    assert client.chat("good").status_code == 200
    for body in ({"model": "claude"}, {"fallbacks": ["claude"]}, {"fallbacks": [{"gpt": ["claude"]}]}):
        assert client.chat("good", **body).status_code in (401, 403), body
    good = {"model": "gpt", "messages": [{"role": "user", "content": "good"}]}
    for address in ("/v1/chat/completions?model=claude", "/engines/claude/chat/completions"):
        assert client.http.post(address, json=good).status_code in (401, 403), address
    assert [model["id"] for model in client.http.get("/v1/models").json()["data"]] == ["gpt"]


def test_requests_a_minute_are_counted(clients: dict[str, Gateway]) -> None:
    client = clients["few-a-minute"]
    answers = [client.chat("good", stream=number % 2 == 0) for number in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert clients["plain"].chat("good").status_code == 200


def test_answers_that_a_client_brings_are_bounded_like_its_requests(clients: dict[str, Gateway]) -> None:
    body = {"messages": [{"role": "user", "content": "good"}], "answer": "All is well.", "model": "gpt"}
    assert clients["some-models"].http.post("/v1/align", json=body).status_code == 200
    assert clients["some-models"].http.post("/v1/align", json=body | {"model": "claude"}).status_code in (401, 403)
    assert clients["small"].http.post("/v1/align", json=body | {"answer": "x" * 2 * MIB}).status_code == 413
    statuses = [clients["few-aligned"].http.post("/v1/align", json=body).status_code for _ in range(4)]
    assert statuses == [200, 200, 429, 429]


def test_many_keys_are_counted_at_once(clients: dict[str, Gateway]) -> None:
    many = [client for alias, client in clients.items() if alias.startswith("many")]
    assert {client.chat("good").status_code for client in many} == {200}
    assert {client.chat("good").status_code for client in many} == {429}


@pytest.mark.parametrize("stream", [False, True])
def test_requests_at_a_time_are_counted(clients: dict[str, Gateway], engine: EngineProcess, stream: bool) -> None:
    client = clients["one-at-a-time"]
    before = len(engine.calls())
    with engine.holding() as let_go, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.chat, f"held at a time {stream}", stream=stream)
        until(lambda: len(engine.calls()) > before)
        second = client.chat("good")
        let_go()
        assert first.result().status_code == 200
    assert second.status_code == 429
    assert int(second.headers["retry-after"]) > 0
    until(lambda: client.chat("good").status_code == 200)


def test_a_client_that_leaves_gives_its_place_back(clients: dict[str, Gateway], upstream: str) -> None:
    client = clients["one-at-a-time"]
    body = {"model": "gpt", "stream": True, "messages": [{"role": "user", "content": "paused and left"}]}
    with (
        contextlib.suppress(httpx.ReadTimeout),
        client.http.stream("POST", "/v1/chat/completions", json=body, timeout=3) as response,
    ):
        for _ in response.iter_bytes():
            break
    until(lambda: client.chat("good").status_code == 200)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_bound_of_its_sender_is_refused(clients: dict[str, Gateway], declared: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(16):
            yield b" " * MIB

    for client in (clients["small"], Gateway(clients["small"].address, "unknown")):
        sent = b" " * (16 * MIB) if declared else chunks()
        assert client.http.post("/v1/chat/completions", content=sent).status_code == 413
    assert clients["small"].chat("good").status_code == 200
    big = "good " + "x" * (2 * MIB)
    assert clients["plain"].chat(big).status_code == 200
    assert clients["small"].chat(big).status_code == 413


def test_a_key_that_has_ended_is_refused(clients: dict[str, Gateway]) -> None:
    answer = clients["ended"].chat("good")
    assert (answer.status_code, "expired" in answer.text) == (401, True)


def test_an_endpoint_that_nothing_corrects_needs_an_entry(clients: dict[str, Gateway]) -> None:
    body = {"model": "gpt", "input": "good", "voice": "alloy"}
    assert clients["plain"].http.post("/v1/audio/speech", json=body).status_code == 403
    assert clients["listener"].http.post("/v1/audio/speech", json=body).status_code != 403
    assert clients["listener"].http.get("/v1/files").status_code == 403


def until(true: Any) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)
