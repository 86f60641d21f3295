"""The engine dies in mid-request: the client gets the original in time, and the next request is corrected again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

READINESS = "/health/readiness"
KIND = "The capital of France is Paris. It lies on the Seine."


@pytest.mark.some(1)
@pytest.mark.parametrize("stream", [False, True])
def test_sigkill_in_mid_request(gateway: Any, plain: Any, engine: Any, stream: bool) -> None:
    script = f"slow and killed {stream}"
    before = len(engine.calls())
    started = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        answering = pool.submit(gateway.chat_stream if stream else gateway.chat, script)
        while len(engine.calls()) == before:
            time.sleep(0.05)
            assert time.monotonic() - started < 20, "the engine was never asked"
        engine.kill()
        got = answering.result()
    if stream:
        assert got.comments == [": aligner status=failed reason=engine_unavailable"]
        assert got.untouched() == plain.chat_stream(script).untouched()
    else:
        assert (got.headers["x-aligner-status"], got.headers["x-aligner-reason"]) == ("failed", "engine_unavailable")
        assert got.content == plain.chat(script).content
    engine.start()
    again = gateway.chat(script)
    assert (again.headers["x-aligner-status"], again.json()["choices"][0]["message"]["content"]) == ("corrected", KIND)


def test_a_gateway_whose_policies_block_is_not_ready_without_its_engine(gateway: Any, engine: Any) -> None:
    def readiness() -> int:
        return int(gateway.http.get(READINESS).status_code)

    def until(status: int) -> None:
        end = time.monotonic() + 60
        while readiness() != status:
            assert time.monotonic() < end
            time.sleep(0.1)

    until(200)
    engine.kill()
    try:
        until(503)
        assert gateway.http.get(READINESS).json()["aligner"] in {"engine_unavailable", "breaker_open"}
        assert gateway.http.get("/health/liveliness").status_code == 200, "a restart of the gateway would not help"
    finally:
        engine.start()
    until(200)
