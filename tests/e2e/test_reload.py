"""Policies and keys change while a gateway of several workers is busy: every answer goes by one version, whole."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from aligner_proxy.gateway import reload
from tests.e2e.clients import MASTER_KEY, Gateway
from tests.e2e.deployment import LITELLM
from tests.e2e.processes import Process, free_port
from tests.e2e.warm_litellm import COMMON
from tests.support.sampling import SAMPLED

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

WORKERS = 1 if SAMPLED in os.environ else 2
"""One in the sample, where it is forked in a second: several start anew, each by half a minute of imports."""
KEY = "key-reload-1"


def version(number: int) -> dict[str, Any]:
    """Policies in which the route's name and its objectives both say which version they are of."""
    return {
        "objectives": {f"kind{number}": "Kindness: the response should never insult the reader"},
        "routes": [{"match": {}, "name": f"v{number}", "objectives": [f"kind{number}"]}],
        "keys": "keys.yaml",
    }


@dataclass
class Reloading:
    """A gateway of its own, and the files that it goes by."""

    folder: Path
    address: str
    log: Path

    def policies(self, what: Any) -> None:
        self._write("policies.yaml", what if isinstance(what, str) else yaml.safe_dump(what))

    def keys(self, what: Any) -> None:
        self._write("keys.yaml", what if isinstance(what, str) else yaml.safe_dump(what))

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def gateway(self, key: str = MASTER_KEY) -> Gateway:
        return Gateway(self.address, key)


def entry(key: str) -> dict[str, str]:
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "alias": "reload"}


@pytest.fixture(scope="module")
def reloading(folder: Path, upstream: str, engine: Any) -> Iterator[Reloading]:
    """LiteLLM with so many workers."""
    own = folder / "reload"
    own.mkdir()
    port = free_port()
    started = Reloading(own, f"http://127.0.0.1:{port}", own / "proxy.log")
    started.policies(version(0))
    started.keys([entry(KEY)])
    params = {"model": "openai/up", "api_base": f"{upstream}/v1", "api_key": "none"}
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    settings = {
        "model_list": [{"model_name": "gpt", "litellm_params": params}],
        "general_settings": {"master_key": MASTER_KEY, "custom_auth": "aligner_proxy.auth.user_api_key_auth"},
        "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail}],
    }
    (own / "litellm.yaml").write_text(yaml.safe_dump(settings))
    env = {
        **COMMON,
        "ALIGNER_PROXY_ENGINE": f"unix:{engine.socket}",
        "ALIGNER_PROXY_HOME": str(own / "home"),
        "NO_PROXY": "*",
    }
    # uvicorn ends a worker that does not answer for 5 s; on a busy machine importing LiteLLM alone takes longer.
    workers = ["--num_workers", str(WORKERS), "--timeout_worker_healthcheck", "120"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False", *workers]
    process = Process([LITELLM, "--config", str(own / "litellm.yaml"), *where], started.log, env, warm=WORKERS == 1)
    process.start()
    try:
        process.wait_for(f"{started.address}/health/readiness", within_s=WORKERS * 240)
        yield started
    finally:
        process.stop()


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def policy_now(gateway: Gateway) -> str:
    return str(gateway.chat("good").headers["x-aligner-policy"])


def everywhere(reloading: Reloading, name: str) -> None:
    """Wait until every worker goes by a version; each request may meet either of them."""

    def all_of_it() -> bool:
        gateways = [reloading.gateway() for _ in range(8)]
        try:
            return {policy_now(one) for one in gateways} == {name}
        finally:
            for one in gateways:
                one.http.close()

    until(all_of_it, f"not everybody went by {name}: {reloading.log.read_text()[-2000:]}")


def test_under_load_every_answer_goes_by_one_version(reloading: Reloading) -> None:
    seen: Counter[tuple[int, str, str]] = Counter()
    done = threading.Event()

    def ask() -> None:
        gateway = reloading.gateway()
        while not done.is_set():
            got = gateway.chat("good")
            seen[got.status_code, got.headers["x-aligner-policy"], got.headers["x-aligner-objectives"]] += 1
            done.wait(0.05)
        gateway.http.close()

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for number in range(1, 5):
                if number == 3:
                    reloading.policies("routes: [\n")
                    time.sleep(3)
                    continue
                reloading.policies(version(number))
                until(lambda now=f"v{number}": any(name == now for _, name, _ in seen), f"version {number} never came")
        finally:
            done.set()
        for one in asking:
            one.result()
    assert {status for status, _, _ in seen} == {200}
    assert all(objectives == f"kind{name[1:]}" for _, name, objectives in seen), seen
    assert {"v1", "v2", "v4"} <= {name for _, name, _ in seen} <= {"v0", "v1", "v2", "v4"}
    everywhere(reloading, "v4")


@pytest.mark.full
def test_a_request_keeps_the_version_it_began_with(reloading: Reloading, engine: Any) -> None:
    reloading.policies(version(5))
    everywhere(reloading, "v5")
    before = len(engine.calls())
    gateway = reloading.gateway()
    with engine.holding() as let_go, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(gateway.chat, "held over a change")
        until(lambda: len(engine.calls()) == before + 1, "the engine was never asked")
        reloading.policies(version(6))
        everywhere(reloading, "v6")
        let_go()
        got = asked.result()
    assert (got.headers["x-aligner-policy"], got.headers["x-aligner-objectives"]) == ("v5", "kind5")
    assert got.headers["x-aligner-status"] == "corrected"
    gateway.http.close()


@pytest.mark.full
def test_a_bad_file_is_refused_by_every_worker_and_doctor_knows_why(
    reloading: Reloading, monkeypatch: pytest.MonkeyPatch
) -> None:
    reloading.policies(version(7))
    everywhere(reloading, "v7")
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(reloading.folder / "home"))
    bad = yaml.safe_dump(version(8)) + "defaults: {on_error: {timeuot: block}}\n"
    reloading.policies(bad)
    until(lambda: sum(one.refused is not None for one in reload.read_reports()) == WORKERS, "nobody refused it")
    refusals = {str(one.refused) for one in reload.read_reports()}
    line = bad.count("\n")
    assert refusals == {f"policies.yaml:{line}: unknown key 'timeuot' in defaults.on_error; did you mean 'timeout'?"}
    everywhere(reloading, "v7")
    assert reloading.log.read_text().count("unknown key 'timeuot'") == WORKERS
    reloading.policies(version(9))
    everywhere(reloading, "v9")
    assert all(one.refused is None for one in reload.read_reports())


@pytest.mark.full
def test_a_key_is_revoked_whatever_the_policies_are(reloading: Reloading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(reloading.folder / "home"))
    ours = reloading.gateway(KEY)
    reloading.policies("rotues: []\n")
    until(
        lambda: sum(one.refused is not None for one in reload.read_reports()) == WORKERS, "nobody refused the policies"
    )
    reloading.keys([entry("key-reload-2")])
    until(lambda: statuses(ours) == {401}, "a revoked key lived on with broken policies")
    reloading.keys([entry(KEY)])
    until(lambda: statuses(ours) == {200}, "the key never came back")
    (reloading.folder / "keys.yaml").unlink()
    until(lambda: statuses(ours) == {401}, "a key lived on without its file")
    reloading.keys([entry(KEY)])
    reloading.policies(version(10))
    until(lambda: statuses(ours) == {200}, "the key never came back")
    everywhere(reloading, "v10")
    ours.http.close()


def statuses(gateway: Gateway) -> set[int]:
    return {gateway.chat("good").status_code for _ in range(6)}


@pytest.mark.full
def test_keys_come_and_go_and_a_broken_file_locks_nobody_out(reloading: Reloading) -> None:
    ours = reloading.gateway(KEY)
    new = reloading.gateway("key-reload-2")

    assert (statuses(ours), statuses(new)) == ({200}, {401})
    reloading.keys("- {sha256: key-reload-2, alias: x}\n")
    time.sleep(3)
    assert (statuses(ours), statuses(new)) == ({200}, {401})
    reloading.keys([entry("key-reload-2")])
    until(lambda: statuses(new) == {200} and statuses(ours) == {401}, "the keys never changed")
    assert "key-reload-2" not in reloading.log.read_text()
    for gateway in (ours, new):
        gateway.http.close()
