"""Reasoning between tags in the text, through the real proxy: what is no answer to it, whoever wrote the tags there.

LiteLLM takes `<think>` out of whole chat answers of OpenAI-like upstreams alone, and out of no stream; with
`merge_reasoning_content_in_choices` it writes the tags into streams itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.attacks.attack import Attack, rows
from tests.e2e.clients import Gateway
from tests.e2e.deployment import CHAT_ONLY, CLAUDE, INSTRUCT, OPENAI, VLLM, Deployment
from tests.e2e.scripted_answers import THOUGHT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

KIND = "The capital of France is Paris. It lies on the Seine."
TAGGED = f"<think>{THOUGHT}</think>"
UPSTREAMS = {
    "gpt": OPENAI,
    "vllm": VLLM,
    "claude": CLAUDE,
    "chatonly": CHAT_ONLY,
    "instruct": INSTRUCT,
    "merging": {**OPENAI, "merge_reasoning_content_in_choices": True},
}
CASES: dict[str, dict[str, Any]] = {
    "held": {},
    "released": {"stream": "sentence"},
    "dropped": {"reasoning": "drop"},
    "dropped-released": {"reasoning": "drop", "stream": "sentence"},
    "judged": {"reasoning": "judge"},
    "strict": {"reasoning": "judge", "on_error": "block"},
    "shadowed": {"mode": "shadow"},
}
DEPLOYMENT = Deployment()
for case, settings in CASES.items():
    for upstream, kind in UPSTREAMS.items():
        DEPLOYMENT.model(f"{case}-{upstream}", kind).route(f"{case}-{upstream}", **settings)


def _chat(proxy: Gateway, script: str, model: str) -> tuple[str, str, Any]:
    message = proxy.chat(script, model=model).json()["choices"][0]["message"]
    stream = proxy.chat_stream(script, model=model)
    return message["content"], stream.text(), stream


def _text(proxy: Gateway, script: str, model: str) -> tuple[str, str, Any]:
    stream = proxy.complete_stream(script, model=model)
    return proxy.complete(script, model=model).json()["choices"][0]["text"], stream.text(), stream


def _responses(proxy: Gateway, script: str, model: str) -> tuple[str, str, Any]:
    output = proxy.respond(script, model=model).json()["output"]
    stream = proxy.respond_stream(script, model=model)
    (text,) = stream.parts("response.output_text.delta", "output_index", "delta") or [""]
    assert [event["text"] for event in stream.chunks if event["type"] == "response.output_text.done"] == [text]
    last = stream.chunks[-1]["response"]["output"]
    assert [item["content"][0]["text"] for item in last if item["type"] == "message"] == [text]
    return next(item["content"][0]["text"] for item in output if item["type"] == "message"), text, stream


def _messages(proxy: Gateway, script: str, model: str) -> tuple[str, str, Any]:
    content = proxy.message(script, model=model).json()["content"]
    stream = proxy.message_stream(script, model=model)
    text = "".join(stream.parts("content_block_delta", "index", "text"))
    return next(block["text"] for block in content if block["type"] == "text"), text, stream


ENDPOINTS: dict[str, Callable[[Gateway, str, str], tuple[str, str, Any]]] = {
    "chat": _chat,
    "text": _text,
    "responses": _responses,
    "messages": _messages,
}
# (endpoint, upstream, script, whether whole answers still hold the tags, white space before the answer), in an order in
# which every second has each endpoint.
ASKED = [
    ("chat", "gpt", "thinks", False, "\n\n"),
    ("text", "instruct", "thinks", True, "\n\n"),
    ("chat", "vllm", "thinks", False, "\n\n"),
    ("responses", "chatonly", "thinks", False, "\n\n"),
    ("responses", "gpt", "thinks", True, "\n\n"),
    ("messages", "claude", "thinks", True, "\n\n"),
    ("messages", "vllm", "thinks", False, "\n\n"),
    ("chat", "merging", "reasoning", False, ""),
    ("chat", "claude", "thinks", True, "\n\n"),
]
TAGGED_ANSWERS = rows(
    *(
        (
            f"live-tags-{case[0]}-{case[1]}",
            "upstream",
            f"reasons between tags in the text, with an insult in both ({case[1]}, read as {case[0]})",
            "the answer alone is corrected; judged reasoning is reported, and with `reasoning: drop` it is gone",
            case,
        )
        for case in ASKED
    )
)


@pytest.mark.some(5)
@pytest.mark.parametrize("attack", TAGGED_ANSWERS)
def test_the_answer_alone_is_corrected(gateway: Gateway, attack: Attack) -> None:
    endpoint, model, script, is_tagged, gap = attack.payload
    for case in ("held", "released", "judged"):
        whole, streamed, stream = ENDPOINTS[endpoint](gateway, script, f"{case}-{model}")
        assert whole == (TAGGED if is_tagged else "") + gap + KIND
        assert streamed == TAGGED + gap + KIND
        expected = ": aligner status=corrected" + (" reasoning=1/1:kind" if case == "judged" else "")
        assert stream.comments == [expected]


@pytest.mark.some(5)
@pytest.mark.parametrize("attack", TAGGED_ANSWERS)
def test_drop_leaves_the_answer_alone(gateway: Gateway, attack: Attack) -> None:
    endpoint, model, script, _, gap = attack.payload
    for case in ("dropped", "dropped-released"):
        whole, streamed, stream = ENDPOINTS[endpoint](gateway, script, f"{case}-{model}")
        assert whole == streamed == gap + KIND
        assert "think" not in stream.raw


@pytest.mark.covering("ask")
@pytest.mark.parametrize(
    ("ask", "model"), [(ENDPOINTS[endpoint], model) for endpoint, model, script, *_ in ASKED if script == "thinks"]
)
def test_a_stream_whose_answer_stays_is_litellms_to_the_byte(
    gateway: Gateway, plain: Gateway, ask: Any, model: str
) -> None:
    for case in ("held", "released", "shadowed"):
        *_, ours = ask(gateway, "thinks_well", f"{case}-{model}")
        *_, theirs = ask(plain, "thinks_well", f"{case}-{model}")
        assert ours.untouched() == theirs.untouched()


def test_a_stream_that_ends_in_its_reasoning(gateway: Gateway, plain: Gateway) -> None:
    for case in ("held", "released"):
        ours = gateway.chat_stream("thinks_on", model=f"{case}-gpt")
        assert ours.comments == [": aligner status=skipped reason=empty"]
        assert ours.untouched() == plain.chat_stream("thinks_on", model=f"{case}-gpt").untouched()
    for case in ("dropped", "dropped-released"):
        assert gateway.chat_stream("thinks_on", model=f"{case}-gpt").text() == ""


def test_reasoning_that_blocks(gateway: Gateway) -> None:
    got = gateway.chat("thinks", model="strict-claude")
    assert got.status_code == 422, got.text
    assert "could not be aligned (reasoning)" in got.text
    for upstream, script in (("claude", "thinks"), ("gpt", "thinks"), ("merging", "reasoning")):
        stream = gateway.chat_stream(script, model=f"strict-{upstream}")
        assert "could not be aligned (reasoning)" in stream.raw
        assert "idiot" not in stream.raw
