"""Answers under `enforce` and `on_error: block`: a defect is corrected or blocked, whatever stands beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from litellm.types.utils import ModelResponse, ModelResponseStream

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import AnswerTooLong, QuotaSpent
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.gateway.test_guardrail import build, data, ledger_of, user
from tests.support.scripted import ScriptedEngine, SegmentEngine
from tests.support.stream_fixtures import chat_text, flow

FILE = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "defaults": {"on_error": "block"},
    "routes": [
        {"match": {"model": "sentence"}, "stream": "sentence", "objectives": []},
        {"match": {"model": "half"}, "sample": 0.0, "objectives": []},
        {"match": {"model": "*"}, "objectives": []},
    ],
    "tenants": [{"match": {}, "enforce": ["kind"]}],
}
DEFECT = "You fool."
TEXT = f"The library opens at nine. {DEFECT} Bring a coat."
CLEAN = "The library opens at nine. Bring a coat."
TOOL = {"id": "c1", "type": "function", "function": {"name": "open", "arguments": "{}"}}
LOGPROBS = {"content": [{"token": "You fool.", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
CITATION = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 9, "url": "https://a.example"}}
IMAGE = {"type": "image_url", "index": 0, "image_url": {"url": "data:image/png;base64,AA=="}}

BESIDE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tool call": ({"tool_calls": [TOOL]}, {"finish_reason": "tool_calls"}),
    "tool call without its reason": ({"tool_calls": [TOOL]}, {}),
    "blank refusal": ({"refusal": " "}, {}),
    "refusal": ({"refusal": "I cannot help."}, {}),
    "length": ({}, {"finish_reason": "length"}),
    "filter": ({}, {"finish_reason": "content_filter"}),
    "unknown reason": ({}, {"finish_reason": "function_call"}),
    "token probabilities": ({}, {"logprobs": LOGPROBS}),
    "citation": ({"annotations": [CITATION]}, {}),
    "image": ({"images": [IMAGE]}, {}),
}
CONTENTS = {
    "text": TEXT,
    "spaces": TEXT + " " * 24_001,
    "JSON": json.dumps({"note": TEXT, "n": 1}),
    "list": json.dumps([TEXT]),
    "short JSON": json.dumps({"a": f"Take the coat. {DEFECT}"}),
    "surrogate": f"{TEXT} \ud800",
    "refusing words": f"I can't help with that. Let me know. {DEFECT}",
}


def script(request: AlignRequest) -> str:
    return request.answer.replace(f" {DEFECT}", "")


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    made = build(tmp_path, monkeypatch, FILE)
    made.pipeline = Pipeline(ScriptedEngine(script), extensions=made.pipeline.extensions)
    return made


def response(message: dict[str, Any], choice: dict[str, Any]) -> ModelResponse:
    filled = {"index": 0, "finish_reason": "stop", **choice, "message": {"role": "assistant", **message}}
    return ModelResponse(id="1", created=1, model="m", choices=[filled])


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("content", CONTENTS)
async def test_text_is_corrected_whatever_stands_beside_it(guard: AlignerGuardrail, beside: str, content: str) -> None:
    message, choice = BESIDE[beside]
    original = response({**message, "content": CONTENTS[content]}, choice)
    request = data()
    delivered = await guard.async_post_call_success_hook(request, user(), original)
    assert DEFECT not in delivered.model_dump_json()
    corrected = delivered.choices[0].message
    assert len(corrected.content) >= len(CONTENTS[content]) - len(DEFECT) - 1
    assert corrected.tool_calls == original.choices[0].message.tool_calls  # type: ignore[union-attr]
    assert ledger_of(request).headers()["x-aligner-status"] == "corrected"


async def test_a_question_that_cannot_be_encoded_turns_nothing_off(guard: AlignerGuardrail) -> None:
    request = data() | {"messages": [{"role": "user \ud800", "content": "What? \udfff"}]}
    delivered = await guard.async_post_call_success_hook(request, user(), response({"content": TEXT}, {}))
    assert delivered.choices[0].message.content == CLEAN


@pytest.mark.parametrize("error", [AnswerTooLong("x"), QuotaSpent("x")], ids=["too long", "quota"])
async def test_what_the_engine_does_not_judge_is_blocked(guard: AlignerGuardrail, error: Exception) -> None:
    guard.pipeline = Pipeline(ScriptedEngine(lambda _: error))
    with pytest.raises(Blocked, match=error.reason):  # type: ignore[attr-defined]
        await guard.async_post_call_success_hook(data(), user(), response({"content": TEXT}, {}))


async def test_an_answer_of_parts_is_blocked(guard: AlignerGuardrail) -> None:
    original = response({"content": None, "images": [IMAGE]}, {})
    with pytest.raises(Blocked, match="non_text"):
        await guard.async_post_call_success_hook(data(), user(), original)


async def test_an_answer_without_text_passes(guard: AlignerGuardrail) -> None:
    original = response({"content": None, "tool_calls": [TOOL]}, {"finish_reason": "tool_calls"})
    assert await guard.async_post_call_success_hook(request := data(), user(), original) in (None, original)
    assert ledger_of(request).headers()["x-aligner-reason"] == "tool_calls"


async def test_what_is_not_sampled_is_refused_before_anything_is_spent(guard: AlignerGuardrail) -> None:
    with pytest.raises(Blocked, match="not_sampled"):
        await guard.async_pre_call_hook(user(), None, data("half"), "acompletion")


def chunks(message: dict[str, Any], choice: dict[str, Any], text: str) -> list[ModelResponseStream]:
    """A stream in which what stands beside the text comes first, and the reason last."""
    choice = dict(choice)
    reason = choice.pop("finish_reason", "stop")
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    deltas = [{"role": "assistant", **message}, *({"content": piece} for piece in pieces), {}]
    return [
        ModelResponseStream(
            id="1",
            created=1,
            model="m",
            choices=[{"index": 0, "delta": delta, "finish_reason": reason if n == len(deltas) - 1 else None, **choice}],
        )
        for n, delta in enumerate(deltas)
    ]


@pytest.mark.parametrize("mode", ["hold", "sentence"])
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("content", ["text", "JSON", "surrogate"])
@pytest.mark.parametrize("form", [None, "json_object"])
async def test_streams_are_corrected_whatever_stands_beside_the_text(
    guard: AlignerGuardrail, mode: str, beside: str, content: str, form: str | None
) -> None:
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: "")
    guard.pipeline = Pipeline(engine, extensions=guard.pipeline.extensions)
    message, choice = BESIDE[beside]
    if "tool_calls" in message:
        message = {"tool_calls": [{**TOOL, "index": 0}]}

    request = data(mode) | ({"response_format": {"type": form}} if form else {})
    items: list[Any] = []
    stream = guard.async_post_call_streaming_iterator_hook(
        user(), flow(chunks(message, choice, CONTENTS[content])), request
    )
    if form and content != "JSON":  # no text can be edited so that it meets a form which it does not meet
        with pytest.raises(Blocked, match="gate_json_schema"):
            items += [item async for item in stream]
        assert items == []
        return
    items += [item async for item in stream]
    text = chat_text([item for item in items if not isinstance(item, bytes)])
    assert "fool" not in text
    assert "coat" in text
    assert ledger_of(request).status.value == "corrected"
