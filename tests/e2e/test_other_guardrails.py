"""Guardrails of LiteLLM's behind ours get what LiteLLM would give them, and no comments of ours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.attacks.attack import Attack, rows
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


BEHIND = rows(
    *(
        (
            f"live-guardrail-behind-{model}-{answer}",
            "upstream",
            f"{what}, on a route `{model}`, before a guardrail of LiteLLM that reads chunks",
            "that guardrail reads what LiteLLM would give it, and the client gets the right text",
            (model, answer),
        )
        for model in ("held", "released", "off")
        for answer, what in {"rude": "insults somebody in a stream", "late": "is silent for seconds"}.items()
        # what is off is byte for byte the upstream's: neither a correction nor a heartbeat
        if (model, answer) != ("off", "late")
    ),
    (
        "live-guardrail-behind-messages",
        "upstream",
        "insults somebody in a stream of messages, before the same guardrail",
        "that guardrail reads what LiteLLM would give it, and the client gets the right text",
        ("held-claude", "rude"),
    ),
)


@pytest.fixture(scope="module")
def streams(gateway: Any) -> dict[str, Any]:
    """What the client gets of each row; some wait for seconds."""

    def ask(row: Any) -> Any:
        model, answer = row.values[0].payload
        return (
            gateway.message_stream(answer, model=model)
            if "claude" in model
            else gateway.chat_stream(answer, model=model)
        )

    with ThreadPoolExecutor(len(BEHIND)) as pool:
        return dict(zip([row.values[0].id for row in BEHIND], pool.map(ask, BEHIND), strict=True))


@pytest.mark.parametrize("attack", BEHIND)
def test_a_guardrail_that_reads_chunks_reads_ours(streams: dict[str, Any], attack: Attack) -> None:
    model, _ = attack.payload
    stream = streams[attack.id]
    is_message = "claude" in model
    (text,) = stream.parts("content_block_delta", "index", "text") if is_message else (stream.text(),)
    is_off = model == "off"
    assert (stream.status_code, text) == (200, RUDE if is_off else KIND), stream.raw
    assert stream.comments == ([] if is_off else [": aligner status=corrected"])


@pytest.mark.parametrize("model", ["held", "released"])
def test_it_reads_whole_answers_too(gateway: Any, model: str) -> None:
    whole = gateway.chat("rude", model=model)
    assert whole.json()["choices"][0]["message"]["content"] == KIND
