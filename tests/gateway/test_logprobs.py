"""Token probabilities through the hooks: of text that an edit or `reasoning: drop` removed, none goes out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import ModelResponse, ModelResponseStream
from pydantic import BaseModel

from aligner_proxy.formats.copies import drop_foreign_logprobs
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.e2e.event_streams import response_events
from tests.gateway.test_guardrail import build
from tests.support.comments import take_comment
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import chat_text, flow, response_event


def route(name: str, logprobs: str = "judge", **settings: Any) -> dict[str, Any]:
    on_skip = {"logprobs": logprobs}
    return {"match": {"model": name}, "name": name, "objectives": ["kind"], "on_skip": on_skip, **settings}


FILE = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        route("hold"),
        route("sentence", stream="sentence"),
        route("passthrough", "passthrough", stream="sentence"),
        route("hold-drop", reasoning="drop"),
        route("sentence-drop", stream="sentence", reasoning="drop"),
        route("passthrough-drop", "passthrough", stream="sentence", reasoning="drop"),
    ],
}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    guardrail = build(tmp_path, monkeypatch, FILE)
    engine = SegmentEngine(lambda text: 4.0 if "zot" in text else -4.0)
    guardrail.pipeline = Pipeline(engine, extensions=guardrail.pipeline.extensions)
    return guardrail


class Step(NamedTuple):
    """What one chunk brings: a piece of the text, and the tokens whose probabilities stand beside it."""

    piece: str
    tokens: Sequence[str | bytes]


def entry(token: str | bytes) -> dict[str, Any]:
    """The probability of a token; of a part of a letter the token is named by its bytes."""
    raw = token if isinstance(token, bytes) else token.encode()
    name = token if isinstance(token, str) else "".join(f"\\x{byte:02x}" for byte in token)
    return {"token": name, "logprob": -0.25, "bytes": [*raw], "top_logprobs": []}


KEPT = ["The", " office", " opens", " at", " nine", "."]
REMOVED = [" You", " zot", "!"]
LAST = [" Bring", " your", " papers", "."]
FACE = "\U0001f926".encode()
BESIDE = [Step(token, [token]) for token in [*KEPT, *REMOVED, *LAST]]
"""Each token beside its own text."""
LATE = [
    *(Step(token, [token]) for token in KEPT[:-1]),
    Step("", ["."]),
    Step(".", [" You"]),
    Step(" You", [" zot"]),
    Step(" zot", ["!"]),
    Step("!", []),
    *(Step(token, [token]) for token in LAST),
]
"""The text follows a token later, as with an upstream that waits whether a stop string follows."""
HALVES = [
    *(Step(token, [token]) for token in KEPT),
    Step(REMOVED[0], [REMOVED[0]]),
    Step("", [b" " + FACE[:2]]),
    Step(" \U0001f926", [FACE[2:]]),
    *(Step(token, [token]) for token in REMOVED[1:]),
    *(Step(token, [token]) for token in LAST),
]
"""A letter of the removed sentence comes in two tokens, of which the first adds no text."""
CUTS = {"beside": BESIDE, "late": LATE, "halves": HALVES}
KEPT_NAMES = {*KEPT, *LAST}
CLEAN = "".join([*KEPT, *LAST])
THOUGHT = ["They", " ask", " for", " hours", "!"]


def token_names(value: object) -> Iterator[str]:
    """The tokens whose probabilities are anywhere in what goes out."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        if isinstance(value.get("token"), str):
            yield value["token"]
        if isinstance(value.get("tokens"), list):
            yield from value["tokens"]
        value = [*value.values()]
    if isinstance(value, list | tuple):
        for inner in value:
            yield from token_names(inner)


def chat_chunk(step: Step, why: str | None = None, **delta: Any) -> ModelResponseStream:
    logprobs = {"content": [entry(token) for token in step.tokens], "refusal": None} if step.tokens else None
    choice = {"index": 0, "delta": {"content": step.piece, **delta}, "finish_reason": why, "logprobs": logprobs}
    return ModelResponseStream(id="1", created=1, model="m", choices=[choice])


async def send_stream(guard: AlignerGuardrail, path: str, items: list[Any], model: str) -> tuple[list[Any], bytes]:
    user = UserAPIKeyAuth(request_route=path)
    data = {"model": model, "litellm_call_id": "c", "metadata": {}, "messages": []}
    sent = [item async for item in guard.async_post_call_streaming_iterator_hook(user, flow(items), data)]
    return sent, take_comment(sent)


@pytest.mark.parametrize("model", ["hold", "sentence"])
@pytest.mark.parametrize("cut", CUTS)
async def test_a_stream_of_chat_has_no_token_of_removed_text(guard: AlignerGuardrail, cut: str, model: str) -> None:
    items = [chat_chunk(Step("", []), role="assistant"), *map(chat_chunk, CUTS[cut]), chat_chunk(Step("", []), "stop")]
    sent, comment = await send_stream(guard, "/v1/chat/completions", items, model)
    assert b"corrected" in comment
    assert chat_text(sent) == CLEAN
    assert {*token_names(sent)} <= KEPT_NAMES


@pytest.mark.parametrize("model", ["sentence", "passthrough-drop"])
async def test_the_probabilities_of_a_refusal_stay(guard: AlignerGuardrail, model: str) -> None:
    """A refusal is never edited."""
    items = [chat_chunk(Step("", []), role="assistant")]
    for token in ["I", " cannot", "."]:
        chunk = chat_chunk(Step("", [token]), content=None, refusal=token)
        chunk.choices[0].logprobs.refusal = chunk.choices[0].logprobs.content
        chunk.choices[0].logprobs.content = None
        items.append(chunk)
    items.append(chat_chunk(Step("", []), "stop"))
    sent, _ = await send_stream(guard, "/v1/chat/completions", items, model)
    assert [*token_names(sent)] == ["I", " cannot", "."]


@pytest.mark.parametrize("logprobs", [{"content": None}, {"content": [], "refusal": None}, {"tokens": []}])
def test_probabilities_without_tokens_stay_as_they_are(logprobs: dict[str, Any]) -> None:
    choice = {"delta": {"content": "The"}, "logprobs": logprobs}
    assert drop_foreign_logprobs(choice) is choice
    choice["logprobs"] = {**logprobs, "others": [entry("You")]}
    assert "logprobs" not in drop_foreign_logprobs(choice)


def response_stream(steps: Sequence[Step]) -> list[Any]:
    part = {
        "type": "output_text",
        "text": "".join(step.piece for step in steps),
        "annotations": [],
        "logprobs": [entry(token) for step in steps for token in step.tokens],
    }
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    body = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": [item]}
    told = response_events(body, lambda _: [step.piece for step in steps])
    remaining = iter(steps)
    for event in told:
        if event["type"] == "response.output_text.delta":
            event["logprobs"] = [entry(token) for token in next(remaining).tokens]
        if event["type"] == "response.output_text.done":
            event["logprobs"] = part["logprobs"]
        if event["type"] == "response.content_part.added":
            event["part"] = {**event["part"], "logprobs": []}
    return [response_event(json.loads(json.dumps(event))) for event in told]


@pytest.mark.parametrize("model", ["hold", "sentence"])
@pytest.mark.parametrize("cut", CUTS)
async def test_a_stream_of_responses_has_no_token_of_removed_text(
    guard: AlignerGuardrail, cut: str, model: str
) -> None:
    sent, comment = await send_stream(guard, "/v1/responses", response_stream(CUTS[cut]), model)
    assert b"corrected" in comment
    assert {*token_names(sent)} <= KEPT_NAMES


def whole_chat(tokens: Sequence[str]) -> ModelResponse:
    """An answer of one choice with the probability of each token."""
    message = {"role": "assistant", "content": "".join(tokens)}
    logprobs = {"content": [*map(entry, tokens)], "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    return ModelResponse(id="1", created=1, model="m", choices=[choice])


async def send_whole(guard: AlignerGuardrail, response: Any, model: str) -> Any:
    data = {"model": model, "litellm_call_id": "c", "metadata": {}, "messages": []}
    user = UserAPIKeyAuth(request_route="/v1/chat/completions")
    edited = await guard.async_post_call_success_hook(data, user, response)
    return response if edited is None else edited


async def test_an_edited_choice_loses_its_token_probabilities_and_another_keeps_them(guard: AlignerGuardrail) -> None:
    response = whole_chat([*KEPT, *REMOVED, *LAST])
    response.choices += whole_chat([*KEPT, *LAST]).choices
    sent = await send_whole(guard, response, "hold")
    assert [choice.message.content for choice in sent.choices] == [CLEAN, "".join([*KEPT, *LAST])]
    assert [*token_names(sent)] == [*KEPT, *LAST]


@pytest.mark.parametrize("model", ["hold", "sentence", "passthrough"])
async def test_an_answer_that_stays_keeps_its_token_probabilities(guard: AlignerGuardrail, model: str) -> None:
    steps = HALVES if model == "passthrough" else [Step(token, [token]) for token in [*KEPT, *LAST]]
    items = [chat_chunk(Step("", []), role="assistant"), *map(chat_chunk, steps), chat_chunk(Step("", []), "stop")]
    sent, _ = await send_stream(guard, "/v1/chat/completions", items, model)
    assert [*token_names(sent)] == [*token_names(items)]
    assert chat_text(sent) == chat_text(items)


async def test_a_whole_response_at_the_end_keeps_the_probabilities_of_an_answer_that_stays(
    guard: AlignerGuardrail,
) -> None:
    """Also where they name the token that ended the answer."""
    steps = [Step(token, [token]) for token in [*KEPT, *LAST]]
    items = response_stream(steps)
    end = "<|im_end|>"
    part = items[-1].response.output[0].content[0]
    part.logprobs = [*part.logprobs, entry(end)]
    sent, _ = await send_stream(guard, "/v1/responses", items, "sentence")
    assert [*token_names(sent[-1])] == [*KEPT, *LAST, end]


# `reasoning: drop`


@pytest.mark.parametrize("removed", [[], REMOVED])
async def test_token_probabilities_of_dropped_reasoning_go_with_it(guard: AlignerGuardrail, removed: list[str]) -> None:
    """Those of the answer behind the reasoning stay, unless it was edited."""
    response = whole_chat([*THOUGHT, *KEPT, *removed, *LAST])
    message = response.choices[0].message
    message.content = "".join([*KEPT, *removed, *LAST])
    message.reasoning_content = "".join(THOUGHT)
    sent = await send_whole(guard, response, "hold-drop")
    assert sent.choices[0].message.content == CLEAN
    assert [*token_names(sent)] == ([] if removed else [*KEPT, *LAST])


async def test_probabilities_that_do_not_end_with_the_answer_go_with_the_reasoning(guard: AlignerGuardrail) -> None:
    response = whole_chat([*THOUGHT, *KEPT, "<|im_end|>"])
    response.choices[0].message.content = "".join(KEPT)
    response.choices[0].message.reasoning_content = "".join(THOUGHT)
    sent = await send_whole(guard, response, "hold-drop")
    assert [*token_names(sent)] == []


async def test_token_probabilities_of_the_answer_alone_stay(guard: AlignerGuardrail) -> None:
    response = whole_chat([*KEPT, *LAST])
    response.choices[0].message.reasoning_content = "".join(THOUGHT)
    sent = await send_whole(guard, response, "hold-drop")
    assert [*token_names(sent)] == [*KEPT, *LAST]


IN_FIELDS = [Step("", [token]) for token in THOUGHT]
IN_TAGS = [Step(token, [token]) for token in ["<think>", *THOUGHT, "</think>"]]
BEFORE_TAGS = [
    Step("", ["<think>"]),
    *(Step("", [token]) for token in THOUGHT),
    Step("<think>" + "".join(THOUGHT), ["</think>"]),
    Step("</think>", []),
]
"""All tokens of the reasoning come before its text."""
LATE_TAGS = [Step("<think>", ["They"]), *(Step("", [token]) for token in THOUGHT), Step("".join(THOUGHT), ["</think>"])]


@pytest.mark.parametrize("model", ["hold-drop", "sentence-drop"])
@pytest.mark.parametrize("removed", [[], REMOVED])
@pytest.mark.parametrize("thought", [IN_FIELDS, IN_TAGS, [*LATE_TAGS, Step("</think>", [])], BEFORE_TAGS])
async def test_a_stream_has_no_token_of_dropped_reasoning(
    guard: AlignerGuardrail, thought: list[Step], removed: list[str], model: str
) -> None:
    fields: list[dict[str, Any]] = [{}] * len(thought)
    if thought is IN_FIELDS:
        fields = [{"reasoning_content": token} for token in THOUGHT]
    before = [chat_chunk(step, **more) for step, more in zip(thought, fields, strict=True)]
    before[0].choices[0].delta.role = "assistant"
    answer = [chat_chunk(Step(token, [token])) for token in [*KEPT, *removed, *LAST]]
    sent, _ = await send_stream(
        guard, "/v1/chat/completions", [*before, *answer, chat_chunk(Step("", []), "stop")], model
    )
    assert chat_text(sent) == CLEAN
    assert {*token_names(sent)} <= KEPT_NAMES


@pytest.mark.parametrize("model", ["hold-drop", "sentence-drop", "passthrough-drop"])
async def test_an_answer_behind_dropped_reasoning_keeps_its_probabilities(guard: AlignerGuardrail, model: str) -> None:
    """Also where a letter of the answer has two tokens in two chunks, unless an edit may still remove the letter."""
    halves = [Step("", [b" " + FACE[:2]]), Step(" \U0001f926", [FACE[2:]])]
    answer = [Step(token, [token]) for token in KEPT]
    answer += halves if model == "passthrough-drop" else []
    items = [*map(chat_chunk, [*IN_TAGS, *answer]), chat_chunk(Step("", []), "stop")]
    sent, _ = await send_stream(guard, "/v1/chat/completions", items, model)
    assert [*token_names(sent)] == [*token_names([*map(chat_chunk, answer)])]


async def test_each_choice_of_a_chunk_loses_only_the_probabilities_of_its_own_reasoning(
    guard: AlignerGuardrail,
) -> None:
    def pair(first: Step, second: Step) -> ModelResponseStream:
        chunk = chat_chunk(first)
        other = chat_chunk(second).choices[0]
        other.index = 1
        chunk.choices.append(other)
        return chunk

    halves = [Step("", [b" " + FACE[:2]]), Step(" \U0001f926", [FACE[2:]])]
    first = [Step("The", ["The"]), *halves, Step(" office", [" office"])]
    second = [Step("", ["<think>"]), Step("", ["They"]), Step("<think>They", ["</think>"]), Step("</think>", [])]
    ends = [chat_chunk(Step("", []), "stop"), chat_chunk(Step("", []), "stop")]
    ends[1].choices[0].index = 1
    sent, _ = await send_stream(guard, "/v1/chat/completions", [*map(pair, first, second), *ends], "passthrough-drop")
    assert [*token_names(sent)] == [*token_names([*map(chat_chunk, first)])]


async def test_probabilities_of_calls_stay_where_reasoning_is_dropped(guard: AlignerGuardrail) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "open", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "{}"}}
    items = [
        chat_chunk(Step("", []), role="assistant", tool_calls=[call]),
        chat_chunk(Step("", ["{}"]), tool_calls=[more]),
        chat_chunk(Step("", []), "tool_calls"),
    ]
    sent, _ = await send_stream(guard, "/v1/chat/completions", items, "passthrough-drop")
    assert [*token_names(sent)] == ["{}"]
