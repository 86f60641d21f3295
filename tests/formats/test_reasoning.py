"""Reasoning in each wire format: read, or taken out so that the rest is as if there had been none."""

from __future__ import annotations

import copy
import json
from typing import Any, cast

import pytest
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse, ModelResponseStream

from aligner_proxy import formats
from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.formats.reasoning import SafeReasoning
from tests.e2e.event_streams import frames, message_events, response_events
from tests.support.stream_fixtures import events

THOUGHT = "The reader is a fool. I will say so."
BLOCK = {"type": "thinking", "thinking": THOUGHT, "signature": "c2ln"}
TOOLS = {"tools": [{"type": "function", "function": {"name": "look_up"}}]}
CHAT, MESSAGES, RESPONSES = (
    cast("SafeReasoning", formats.reasoning(route))
    for route in ("/v1/chat/completions", "/v1/messages", "/v1/responses")
)


def test_other_endpoints_show_none() -> None:
    assert formats.reasoning("/v1/embeddings") is None
    assert formats.reasoning(None) is None


# chat


def chat(**message: Any) -> ModelResponse:
    choices = [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "So.", **message}}]
    return ModelResponse(id="1", created=1, model="m", choices=choices)


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning_content": THOUGHT},
        {"thinking_blocks": [BLOCK]},
        {"reasoning_content": THOUGHT, "thinking_blocks": [BLOCK]},
        {"reasoning_content": THOUGHT, "provider_specific_fields": {"reasoning_content": THOUGHT}},
    ],
)
def test_a_chat_message(message: dict[str, Any]) -> None:
    response = chat(**message)
    before = response.model_dump_json()
    assert CHAT.texts(response) == {0: THOUGHT}
    left = CHAT.remove_reasoning({}, response)
    assert THOUGHT not in left.model_dump_json()
    assert left.model_dump(exclude_none=True)["choices"] == chat().model_dump(exclude_none=True)["choices"]
    assert response.model_dump_json() == before
    assert CHAT.remove_reasoning({}, left) is left
    assert CHAT.texts(left) == {}


def test_what_tools_may_need_back_stays_in_chat() -> None:
    signed = chat(reasoning_content=THOUGHT, thinking_blocks=[BLOCK])
    assert CHAT.remove_reasoning(TOOLS, signed) is signed
    plain = chat(reasoning_content=THOUGHT)
    assert THOUGHT not in CHAT.remove_reasoning(TOOLS, plain).model_dump_json()


def chunk(why: str | None = None, **delta: Any) -> ModelResponseStream:
    return ModelResponseStream(id="1", created=1, choices=[{"index": 0, "delta": delta, "finish_reason": why}])


CHUNKS = [
    chunk(role="assistant", content=""),
    chunk(reasoning_content=THOUGHT[:9]),
    chunk(reasoning_content=THOUGHT[9:], thinking_blocks=[BLOCK]),
    chunk(content="So."),
    chunk("stop"),
]


def test_a_chat_stream() -> None:
    reader = CHAT.open_stream({}, drop=False)
    assert [item for sent in CHUNKS for item in reader.feed(sent)] == CHUNKS
    assert reader.texts == {0: THOUGHT}
    dropper = CHAT.open_stream({}, drop=True)
    left = [item for sent in CHUNKS for item in dropper.feed(sent)] + dropper.flush()
    assert left == [CHUNKS[0], *CHUNKS[3:]]
    assert dropper.texts == {0: THOUGHT}


def test_a_chunk_that_says_more_goes_on() -> None:
    dropper = CHAT.open_stream({}, drop=True)
    (left,) = dropper.feed(chunk(content="So.", reasoning_content=THOUGHT))
    assert left.choices[0].delta.content == "So."  # type: ignore[attr-defined]
    assert not getattr(left.choices[0].delta, "reasoning_content", None)  # type: ignore[attr-defined]
    signed = chunk(reasoning_content=THOUGHT, thinking_blocks=[BLOCK])
    assert CHAT.open_stream(TOOLS, drop=True).feed(signed) == [signed]


# messages


def message(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": list(blocks),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 9},
    }


REDACTED = {"type": "redacted_thinking", "data": "eA=="}
FIRST, SECOND = ({"type": "text", "text": text} for text in ("So it is.", "And so on."))
WITH = message(BLOCK, FIRST, REDACTED, BLOCK, SECOND)
WITHOUT = message(FIRST, SECOND)


def test_a_message() -> None:
    before = copy.deepcopy(WITH)
    assert MESSAGES.texts(WITH) == {0: f"{THOUGHT}\n\n{THOUGHT}"}
    assert MESSAGES.remove_reasoning({}, WITH) == WITHOUT
    assert MESSAGES.remove_reasoning(TOOLS, WITH) is WITH
    assert MESSAGES.remove_reasoning({}, WITHOUT) is WITHOUT
    assert before == WITH


@pytest.mark.parametrize("size", [1, 97, 10_000])
def test_a_messages_stream(size: int) -> None:
    raw = "".join(frames(message_events(WITH))).encode()
    items = [raw[i : i + size] for i in range(0, len(raw), size)]
    dropper = MESSAGES.open_stream({}, drop=True)
    left = [item for sent in items for item in dropper.feed(sent)] + dropper.flush()
    assert events(left) == message_events(WITHOUT)
    assert dropper.texts == {0: f"{THOUGHT}\n\n{THOUGHT}"}
    kept = MESSAGES.open_stream(TOOLS, drop=True)
    assert b"".join(item for sent in items for item in kept.feed(sent)) == raw  # type: ignore[misc]


# responses


ITEM = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]}
SAID = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "So it is.", "annotations": []}],
}


def body(*items: dict[str, Any]) -> dict[str, Any]:
    return {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": list(items)}


def told(whole: dict[str, Any]) -> list[Any]:
    config = OpenAIResponsesAPIConfig()
    nobody = cast("Any", None)
    return [config.transform_streaming_response("m", event, nobody) for event in response_events(whole)]


def plain(items: list[Any]) -> list[dict[str, Any]]:
    """The events without their numbers, of which some are missing."""
    dumped = [json.loads(item.model_dump_json(exclude_none=True)) for item in items]
    return [{name: value for name, value in event.items() if name != "sequence_number"} for event in dumped]


def test_a_response() -> None:
    response = ResponsesAPIResponse(**body(ITEM, SAID, ITEM))
    assert RESPONSES.texts(response) == {0: f"{THOUGHT}\n\n{THOUGHT}"}
    assert [item.type for item in RESPONSES.remove_reasoning({}, response).output] == ["message"]
    assert len(response.output) == 3
    assert RESPONSES.remove_reasoning(TOOLS, response) is response


def test_a_responses_stream() -> None:
    items = told(body(ITEM, SAID, ITEM, SAID))
    dropper = RESPONSES.open_stream({}, drop=True)
    left = [item for sent in items for item in dropper.feed(sent)] + dropper.flush()
    assert plain(left) == plain(told(body(SAID, SAID)))
    assert dropper.texts == {0: f"{THOUGHT}\n\n{THOUGHT}"}
    assert [item for sent in items for item in RESPONSES.open_stream(TOOLS, drop=True).feed(sent)] == items


# what nobody expects


@pytest.mark.parametrize("form", [CHAT, MESSAGES, RESPONSES])
@pytest.mark.parametrize("response", [None, 3, "text", {"content": 3}, {"content": [3]}, {}])
def test_what_is_no_response_stays_as_it_is(form: SafeReasoning, response: Any) -> None:
    assert form.texts(response) == {}
    assert form.remove_reasoning({}, response) is response
    assert form.open_stream({}, drop=True).feed(response) in ([response], [])


def test_failures_have_a_name() -> None:
    broken = chat(reasoning_content=THOUGHT)
    broken.choices = cast("Any", 3)
    with pytest.raises(Unreadable):
        CHAT.texts(broken)
    with pytest.raises(NotPutIn):
        CHAT.remove_reasoning({}, broken)
