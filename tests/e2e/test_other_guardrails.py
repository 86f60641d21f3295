"""Guardrails of LiteLLM's behind ours get what LiteLLM would give them, and no comments of ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.deployment import CLAUDE, Deployment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = (
    Deployment()
    .case("held", keepalive_s=0.5)
    .case("released", stream="sentence", keepalive_s=0.5)
    .case("off", mode="off")
    .model("held-claude", CLAUDE)
    .guardrail("tool_permission", default_action="allow", rules=[{"id": "any", "tool_name": ".*", "decision": "allow"}])
)
KIND = "The capital of France is Paris. It lies on the Seine."
RUDE = "The capital of France is Paris. You are an idiot for asking. It lies on the Seine."


@pytest.mark.parametrize("model", ["held", "released"])
def test_a_guardrail_that_reads_chunks_reads_ours(gateway: Any, model: str) -> None:
    whole = gateway.chat("rude", model=model)
    assert whole.json()["choices"][0]["message"]["content"] == KIND
    stream = gateway.chat_stream("rude", model=model)
    assert (stream.status_code, stream.text()) == (200, KIND), stream.raw
    assert stream.comments == [": aligner status=corrected"]


def test_a_guardrail_that_reads_chunks_reads_heartbeats(gateway: Any) -> None:
    with ThreadPoolExecutor(2) as pool:  # both wait for seconds
        streams = list(pool.map(lambda model: gateway.chat_stream("late", model=model), ("held", "released")))
    for stream in streams:
        assert (stream.status_code, stream.text()) == (200, KIND), stream.raw
        assert stream.comments == [": aligner status=corrected"]


def test_with_mode_off_it_reads_the_upstreams(gateway: Any) -> None:
    stream = gateway.chat_stream("rude", model="off")
    assert (stream.status_code, stream.text(), stream.comments) == (200, RUDE, [])


def test_it_reads_messages_too(gateway: Any) -> None:
    stream = gateway.message_stream("rude", model="held-claude")
    assert stream.status_code == 200
    assert stream.parts("content_block_delta", "index", "text") == [KIND]
    assert stream.comments == [": aligner status=corrected"]
