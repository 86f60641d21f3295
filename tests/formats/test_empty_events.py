"""Which events only open an answer, and which event adds nothing to a stream, in each wire format."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any, cast

from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.llms.openai import ResponseInProgressEvent
from litellm.types.utils import ModelResponseStream, TextCompletionResponse

from aligner_proxy.formats import chat, messages, responses, text
from aligner_proxy.formats.safe import SafeDecoder, SafeFormat
from tests.e2e import upstream_responses
from tests.support.stream_fixtures import chunk, kind, response_items, text_items

TOOL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LOGPROBS = {"content": [{"token": "So", "logprob": -0.1, "top_logprobs": []}]}
THINKING = {"type": "thinking", "thinking": "So."}


def empty_event(wire: Any, delivered: Sequence[Any], received: Any) -> Any:
    return SafeDecoder(wire.decoder({}), {}).empty_event(delivered, received)


def frame(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def test_a_chunk_opens_an_answer_with_roles_and_reasoning_alone() -> None:
    opening = [
        chunk("", role="assistant"),
        chunk(reasoning_content="So."),
        chunk(thinking_blocks=[THINKING]),
        chunk(provider_specific_fields={"reasoning": "So."}),
        ModelResponseStream(choices=[]),
    ]
    other = [
        chunk(" "),
        chunk("a"),
        chunk(why="stop"),
        chunk(tool_calls=[TOOL]),
        chunk(refusal="No."),
        chunk(provider_specific_fields={"refusal": "No."}),
        chunk(audio={"transcript": "So."}),
        chunk(aside="So."),
        ModelResponseStream(choices=[{"index": 0, "delta": {"role": "assistant"}, "logprobs": LOGPROBS}]),
        ModelResponseStream(choices=[chunk("").choices[0], chunk("a", index=1).choices[0]]),
        b"raw",
        {"choices": []},
    ]
    for wire in map(SafeFormat, (chat, text)):
        assert [item for item in opening if not wire.opens_answer(item)] == []
        # a piece of white space is a text, which the decoder knows
        assert [item for item in other if wire.opens_answer(item)] == [other[0]]
    assert [SafeFormat(text).opens_answer(item) for item in text_items(["", "a"])] == [True, False, False]


def test_an_event_of_messages_opens_an_answer_without_text() -> None:
    block = {"type": "content_block_start", "index": 0}
    delta = {"type": "content_block_delta", "index": 0}
    opening: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": []}},
        {"type": "ping"},
        {**block, "content_block": {"type": "text", "text": ""}},
        {**block, "content_block": THINKING},
        {**delta, "delta": {"type": "thinking_delta", "thinking": "So."}},
        {**delta, "delta": {"type": "signature_delta", "signature": "c2ln"}},
        {"type": "content_block_stop", "index": 0},
    ]
    other: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"content": [{"type": "text", "text": "a"}]}},
        {**block, "content_block": {"type": "text", "text": "a"}},
        {**block, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
        {**block, "content_block": {"text": "a"}},
        {**delta, "delta": {"type": "text_delta", "text": "a"}},
        {**delta, "delta": {"text": "a"}},
        {**delta, "delta": {"type": "citations_delta", "citation": {}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
        {"type": "error", "error": {"message": "no"}},
        {"type": "novel", "text": "a"},
        {},
    ]
    wire = SafeFormat(messages)
    for form in (dict, frame):
        assert [event for event in opening if not wire.opens_answer(form(event))] == []
        assert [event for event in other if event and wire.opens_answer(form(event))] == []
    lines = [b": wait\n\n", b": wait\ndata: {broken\n\n", b"data: a text\n\n", b"\n\n", ": wait\n\n"]
    assert [wire.opens_answer(line) for line in lines] == [True, False, False, False, False]


def test_an_event_of_responses_opens_an_answer_without_text() -> None:
    part = {"item_id": "i", "output_index": 0, "content_index": 0}
    opening: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "item": {"type": "reasoning", "summary": []}},
        {"type": "response.output_item.done", "item": {"type": "reasoning", "summary": [{"text": "So."}]}},
        {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": "", "annotations": []}, **part},
        {"type": "response.content_part.done", "part": {"type": "reasoning_text", "text": "So."}, **part},
        {"type": "response.reasoning_summary_text.delta", "delta": "So."},
        {"type": "keepalive", "sequence_number": 3},
    ]
    other: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"output": [{"type": "message"}]}},
        {"type": "response.output_item.added", "item": {"type": "message", "content": [{"text": "a"}]}},
        {"type": "response.output_item.done", "item": {"type": "message", "content": []}},
        {"type": "response.output_item.added", "item": {"type": "function_call", "arguments": ""}},
        {"type": "response.content_part.added", "part": {"type": "output_text", "text": "a"}},
        {"type": "response.content_part.added", "part": {"type": "refusal", "refusal": ""}},
        {"type": "response.content_part.done", "part": {"type": "output_text", "text": ""}},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "error", "message": "no"},
        {"type": "response.novel", "text": "a"},
        {},
    ]
    wire = SafeFormat(responses)
    assert [event for event in opening if not wire.opens_answer(event)] == []
    assert [event for event in other if wire.opens_answer(event)] == []
    events = typed(opening) + response_items(["a"])
    opened = len(opening) + 4
    assert [wire.opens_answer(event) for event in events] == [True] * opened + [False] * (len(events) - opened)


def test_an_empty_chunk_has_the_head_of_its_stream() -> None:
    first = ModelResponseStream(
        id="1",
        created=7,
        model="m",
        system_fingerprint="f",
        citations=["a"],
        provider_specific_fields={"note": "a"},
        usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        choices=[{"index": 0, "delta": {"role": "assistant", "content": "a", "reasoning_content": "b"}}],
    )
    first._hidden_params = {"model_id": "d"}
    shown = first.model_dump_json()
    for made in (empty_event(chat, [first], None), empty_event(chat, [], first)):
        assert isinstance(made, ModelResponseStream)
        assert made.model_dump(exclude_none=True) == {
            "id": "1",
            "created": 7,
            "model": "m",
            "object": "chat.completion.chunk",
            "system_fingerprint": "f",
            "choices": [{"index": 0, "delta": {"content": ""}}],
        }
        assert made._hidden_params == {"model_id": "d"}
    assert first.model_dump_json() == shown
    told = text_items(["a"])[0]
    made = empty_event(text, [], told)
    assert isinstance(made, TextCompletionResponse)
    assert (made.id, made.created, made.choices[0].text, made.usage) == (told.id, told.created, "", None)


def test_an_empty_chunk_is_of_a_choice_that_has_not_ended() -> None:
    one, other = chunk("a"), chunk("b", index=1)
    ends = [chunk(why="stop"), chunk(why="stop", index=1)]
    tail = ModelResponseStream(id="1", created=1, choices=[])
    cases = [
        ([one, other], 1),
        ([one, other, ends[1]], 0),
        ([one, other, ends[0], tail], 1),
        ([one, other, *ends, tail], None),
        ([one, ends[0]], None),
        ([tail], None),
        ([], None),
        ([b"raw", {"choices": [{}]}], None),
    ]
    found = [empty_event(chat, delivered, None) for delivered, _ in cases]
    assert [made and made.choices[0].index for made in found] == [index for _, index in cases]
    assert empty_event(chat, [tail, ends[0]], other).choices[0].index == 1
    assert empty_event(chat, [], ends[0]).choices[0].index == 0


def test_an_empty_event_of_messages_is_a_ping_in_the_form_of_the_stream() -> None:
    start = {"type": "message_start", "message": {"content": []}}
    assert empty_event(messages, [frame(start)], None) == frame({"type": "ping"})
    assert empty_event(messages, [start], None) == {"type": "ping"}
    assert empty_event(messages, [], frame(start)) is None


def typed(events: Sequence[dict[str, Any]]) -> list[Any]:
    config = OpenAIResponsesAPIConfig()
    return [config.transform_streaming_response("m", event, cast("Any", None)) for event in events]


def test_an_empty_event_of_responses_is_one_that_the_upstream_might_send_there() -> None:
    events = typed(upstream_responses.stream("reasoning", "m"))
    decoder = SafeDecoder(responses.decoder({}), {})
    for event in events:
        decoder.feed(event)
    events[0].response.id = events[1].response.id = "LiteLLM's own"
    kinds: list[tuple[str, str]] = []
    for count, event in enumerate(events[:-1], 1):
        made: Any = decoder.empty_event(events[:count], None)
        assert made.sequence_number == event.sequence_number
        told = json.loads(made.model_dump_json(exclude_none=True, exclude_unset=True))
        if told["type"] == "response.in_progress":
            assert type(made) is ResponseInProgressEvent  # or the serialiser warns
            assert told["response"]["id"] == "resp_1"
            made.response.id = "LiteLLM's own"
        else:
            assert told["delta"] == ""
        if (kind(event), told["type"]) not in kinds:
            kinds.append((kind(event), told["type"]))
    in_progress = "response.in_progress"
    summary = "response.reasoning_summary_text.delta"
    text_delta = "response.output_text.delta"
    assert kinds == [
        ("response.created", in_progress),
        ("response.in_progress", in_progress),
        ("response.output_item.added", in_progress),
        ("response.reasoning_summary_part.added", summary),
        ("response.reasoning_summary_text.delta", summary),
        ("response.reasoning_summary_text.done", summary),
        ("response.reasoning_summary_part.done", summary),
        ("response.output_item.done", in_progress),
        ("response.content_part.added", text_delta),
        ("response.output_text.delta", text_delta),
        ("response.output_text.done", text_delta),
        ("response.content_part.done", text_delta),
    ]


def test_a_client_may_put_the_response_in_progress_in_place_of_what_it_has() -> None:
    """As openai-node does; then every part that an event continues must be there."""
    for name in ("reasoning", "rude", "messages", "tools"):
        plain = upstream_responses.stream(name, "m")
        events = typed(plain)
        decoder = SafeDecoder(responses.decoder({}), {})
        told: list[Any] = []
        for count, event in enumerate(events[:-1], 1):
            decoder.feed(event)
            beat: Any = decoder.empty_event(events[:count], None)
            told += [event, *([beat] if beat is not None else [])]
        shown = [json.loads(event.model_dump_json(exclude_none=True)) for event in told]
        assert put_together(shown) == put_together(plain[:-1]) == plain[-1]["response"]["output"], name


PARTS = {"response.content_part.added": "content", "response.reasoning_summary_part.added": "summary"}
DELTAS = {"response.output_text.delta": "content", "response.reasoning_summary_text.delta": "summary"}


def put_together(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output that a strict client has before the last event: it goes on only with what it has."""
    output: list[dict[str, Any]] = []
    for event in copy.deepcopy(list(events)):
        name = event["type"]
        if name in ("response.created", "response.in_progress"):
            output = event["response"]["output"]
        elif name == "response.output_item.added":
            assert event["output_index"] == len(output)
            output.append(event["item"])
        elif name == "response.output_item.done":
            output[event["output_index"]] = event["item"]
        elif name in PARTS:
            output[event["output_index"]][PARTS[name]].append(event["part"])
        elif name in DELTAS:
            index = event[f"{DELTAS[name]}_index"]
            output[event["output_index"]][DELTAS[name]][index]["text"] += event["delta"]
    return output


def test_there_is_none_of_a_response_that_did_not_begin_or_began_with_text() -> None:
    created, _, *more = response_items(["a"])
    created.response.output = more[-1].response.output
    cases: list[Any] = [
        more[0],
        created,
        b"raw",
        {"type": "response.created"},
        {"type": "response.created", "response": 1},
    ]
    for first in cases:
        decoder = SafeDecoder(responses.decoder({}), {})
        decoder.feed(first)
        assert decoder.empty_event([first], None) is decoder.empty_event([], first) is None
        assert decoder.fault is None
