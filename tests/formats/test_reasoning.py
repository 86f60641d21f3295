"""Reasoning in each wire format: read, or taken out so that the rest is as if there had been none."""

from __future__ import annotations

import copy
import json
from typing import Any, cast

import pytest
from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.openai import ErrorEvent, ResponsesAPIResponse
from litellm.types.utils import ModelResponse, ModelResponseStream

from aligner_proxy import formats
from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.formats.reasoning import SafeReasoning
from tests.e2e.event_streams import frames, message_events, response_events
from tests.support.stream_fixtures import FORMATS, events

THOUGHT = "The reader is a fool. I will say so."
BLOCK = {"type": "thinking", "thinking": THOUGHT, "signature": "c2ln"}
TOOLS = {"tools": [{"type": "function", "function": {"name": "look_up"}}]}
PATHS = {
    "chat": "/v1/chat/completions",
    "text": "/v1/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}
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
    return [json.loads(item.model_dump_json(exclude_none=True)) for item in items]


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


@pytest.mark.parametrize("is_first", [False, True])
def test_a_heartbeat_repeats_the_number_of_the_last_event_that_remains(is_first: bool) -> None:
    items = told(body(ITEM, SAID))[2 if is_first else 0 :]
    for number, item in enumerate(items):
        item.sequence_number = number
    end = next(number for number, item in enumerate(items) if getattr(item, "output_index", 0) == 1)
    heartbeat = ErrorEvent.model_construct(type="keepalive", sequence_number=end - 1)
    items.insert(end, heartbeat)
    dropper = RESPONSES.open_stream({}, drop=True)
    left = [item.sequence_number for sent in items for item in dropper.feed(sent)]
    events = [*range(len(left) - 1)]
    assert left == ([0, *events] if is_first else [0, 1, 1, *events[2:]])


# between tags in the text of an answer

TAGGED = f"<think>{THOUGHT}</think>"
IN_TEXT: dict[str, tuple[SafeReasoning, Any, Any]] = {
    "chat": (CHAT, chat(content=f"{TAGGED} So."), chat(content=" So.")),
    "chat, beside other reasoning": (
        CHAT,
        chat(content=f"{TAGGED} So.", reasoning_content="So?"),
        chat(content=" So."),
    ),
    "messages": (
        MESSAGES,
        message({"type": "text", "text": f"{TAGGED}So it is."}, SECOND),
        message({"type": "text", "text": "So it is."}, SECOND),
    ),
    "responses": (
        RESPONSES,
        ResponsesAPIResponse(**body({**SAID, "content": [{**SAID["content"][0], "text": f"{TAGGED}So it is."}]})),
        ResponsesAPIResponse(**body(SAID)),
    ),
}


@pytest.mark.parametrize("name", IN_TEXT)
def test_reasoning_in_a_text(name: str) -> None:
    form, with_tags, without = IN_TEXT[name]
    before = copy.deepcopy(with_tags)
    beside = "So?\n\n" if "beside" in name else ""
    assert form.texts(with_tags) == {0: f"{beside}{THOUGHT}"}
    # no client has to send it back, whatever tools the request offers
    for data in ({}, TOOLS):
        assert _plain(form.remove_reasoning(data, with_tags)) == _plain(without)
    assert with_tags == before
    assert form.remove_reasoning({}, without) is without


def _plain(response: Any) -> Any:
    return response if isinstance(response, dict) else response.model_dump(exclude_none=True)


def test_a_stream_with_reasoning_in_its_text() -> None:
    pieces = ["<thi", "nk>", THOUGHT, "</think>", "\n", "So it is."]
    for form in FORMATS:
        reasoning = formats.reasoning(PATHS[form.name])
        assert reasoning is not None
        items = form.tell(pieces)
        reader = reasoning.open_stream({}, drop=False)
        sizes = []
        for item in items:
            reader.feed(item)
            sizes.append(reader.piece_count)
        assert reader.texts == {0: THOUGHT}, form.name
        assert sizes[-1] in sizes[:-1], "what follows the reasoning adds nothing to it"
        dropper = reasoning.open_stream({}, drop=True)
        remaining = [each for item in items for each in dropper.feed(item)] + dropper.flush()
        assert form.read(remaining) == "\nSo it is."
        assert not dropper.is_unreadable
        # strict clients fail where the number of an event is missing
        numbers = [item.sequence_number for item in remaining if hasattr(item, "sequence_number")]
        assert numbers == list(range(len(numbers)))


def test_a_stream_that_becomes_unreadable_loses_nothing() -> None:
    dropper = CHAT.open_stream({}, drop=True)
    broken = chunk(content="So.")
    broken.choices[0].index = "first"
    items = [chunk(content="\n"), chunk(content="<thi"), broken]
    remaining = [each for item in items for each in dropper.feed(item)]
    assert dropper.is_unreadable
    assert remaining + dropper.unread_items() == items


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
