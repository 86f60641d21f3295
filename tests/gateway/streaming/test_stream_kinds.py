"""Streams of the kinds that real upstreams send: a good one goes out as it came, of a rude one only texts differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import ModelResponseStream

from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.e2e.event_streams import Event, frames, message_events, pieces, response_events
from tests.fuzz.observed import events, frozen, only_texts_differ
from tests.gateway.test_guardrail import build
from tests.support.comments import take_comment
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import chunk, flow, response_event

FILE = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "routes": [
        {"match": {"model": "hold"}, "objectives": ["kind"]},
        {"match": {"model": "sentence"}, "objectives": ["kind"], "stream": "sentence"},
        {
            "match": {"model": "strict"},
            "objectives": ["kind"],
            "stream": "sentence",
            "on_error": "block",
            "on_skip": {"inconsistent": "block"},
        },
    ],
}
GOOD = "The harbour opens at nine. It closes at six. Bring your papers."
INSULT = " You fool."
RUDE = f"The harbour opens at nine.{INSULT} It closes at six. Bring your papers."
Items = list[Any]
Tell = Callable[[Sequence[str]], Items]
USAGE = {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30}
PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
THINKING = {"type": "thinking", "thinking": "They ask about the harbour.", "signature": "EqQBCkYI=="}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"place": "Brest"}}


@pytest.fixture
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlignerGuardrail:
    guardrail = build(tmp_path, monkeypatch, FILE)
    engine = SegmentEngine(lambda text: 4.0 if "fool" in text else -4.0)
    guardrail.pipeline = Pipeline(engine, extensions=guardrail.pipeline.extensions)
    return guardrail


def make_chunk(choices: Sequence[Event], **fields: Any) -> ModelResponseStream:
    """A chat chunk with these choices and further fields."""
    return ModelResponseStream(**{"id": "1", "created": 1, "choices": list(choices), **fields})


def make_call(index: int, arguments: str, **more: Any) -> Event:
    """A delta of one tool call."""
    return {"index": index, "type": "function", "function": {"arguments": arguments, **more}}


def tell_with_calls(*deltas: Sequence[Event]) -> Tell:
    """A chat stream with these deltas of tool calls behind its text."""

    def tell(parts: Sequence[str]) -> Items:
        calls = [chunk(None, tool_calls=list(calls)) for calls in deltas]
        return [*map(chunk, parts), *calls, chunk(why="tool_calls")]

    return tell


def tell_each(**delta: Any) -> Tell:
    """A chat stream with these fields in each of its deltas."""
    return lambda parts: [*(chunk(part, **delta) for part in parts), chunk("", why="stop", **delta)]


def tell_two_choices(parts: Sequence[str]) -> Items:
    """Two choices in each chunk, numbered with a gap, the second a good one."""
    other = pieces(GOOD)
    other += [""] * (len(parts) - len(other))
    parts = [*parts, *[""] * (len(other) - len(parts))]
    both = [
        make_chunk([{"index": 2, "delta": {"content": part}}, {"index": 0, "delta": {"content": second}}])
        for part, second in zip(parts, other, strict=True)
    ]
    return [*both, make_chunk([{"index": index, "delta": {}, "finish_reason": "stop"} for index in (2, 0)])]


def tell_filtered(parts: Sequence[str]) -> Items:
    """The results of a content filter before the text and after it, in chunks without choices and without deltas."""
    results = {"hate": {"filtered": False, "severity": "safe"}}
    last = make_chunk([{"index": 0, "content_filter_results": results}])
    prompt = make_chunk([], prompt_filter_results=[{"prompt_index": 0, "content_filter_results": results}])
    return [prompt, *map(chunk, parts), chunk(why="stop"), last]


CHAT: dict[str, Tell] = {
    "finish reason beside the last text": lambda parts: [*map(chunk, parts[:-1]), chunk(parts[-1], why="stop")],
    "all in one chunk": lambda parts: [chunk("".join(parts), why="stop", role="assistant")],
    "finish reason twice": lambda parts: [*map(chunk, parts), chunk(why="stop"), chunk(why="stop")],
    "usage in each chunk and alone": lambda parts: [
        *(make_chunk([{"index": 0, "delta": {"content": part}}], usage=USAGE) for part in parts),
        chunk(why="stop"),
        make_chunk([], usage=USAGE),
    ],
    "ids and models that vary": lambda parts: [
        *(make_chunk([{"index": 0, "delta": {"content": part}}], id=part, model=part[:3]) for part in parts),
        chunk(why="stop"),
    ],
    "role and empty lists in each delta": tell_each(role="assistant", tool_calls=[], reasoning_content=""),
    "fields of an account": lambda parts: [
        *(
            make_chunk([{"index": 0, "delta": {"content": part}}], service_tier="default", obfuscation="abc", seed=1)
            for part in parts
        ),
        chunk(why="stop"),
    ],
    "two choices in a chunk": tell_two_choices,
    "results of a filter": tell_filtered,
    "calls with a gap between indices": tell_with_calls(
        [make_call(0, "", name="f", id="a")], [make_call(2, "{}", name="g")], [make_call(0, "{}"), make_call(2, "")]
    ),
    "two calls with one index": tell_with_calls([make_call(0, '{"a": 1}', name="f")], [make_call(0, "{}", name="g")]),
    "a call with a signature": tell_with_calls([make_call(0, "{}", name="f") | {"extra_content": {"sig": "c2ln"}}]),
}


def tell_response(
    *output: Event, part: Event | None = None, change: Callable[[Event], Event | None] = lambda event: event
) -> Tell:
    """A stream of Responses with these items before its message; `change` makes other events, None for no event."""

    def tell(parts: Sequence[str]) -> Items:
        text = {"type": "output_text", "text": "".join(parts), "annotations": [], "logprobs": [], **(part or {})}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
        body = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "usage": None}
        told = response_events({**body, "output": [*output, message]}, lambda _: parts)
        return [response_event(event) for event in map(change, told) if event is not None]

    return tell


def keep_kinds(*kinds: str) -> Callable[[Event], Event | None]:
    """Keep only events of these kinds, by the end of their names."""
    return lambda event: event if event["type"].endswith(kinds) else None


RESPONSES: dict[str, Tell] = {
    "no sequence numbers": tell_response(
        change=lambda event: {name: value for name, value in event.items() if name != "sequence_number"}
    ),
    "no deltas": tell_response(change=lambda event: None if event["type"].endswith("text.delta") else event),
    "text in its item alone": tell_response(change=keep_kinds("created", "item.added", "item.done", "completed")),
    "text in the last event alone": tell_response(change=keep_kinds("created", "completed")),
    "encrypted reasoning": tell_response({"id": "rs_1", "type": "reasoning", "encrypted_content": "gAAAAAB"}),
    "a custom call": tell_response({"id": "ctc_1", "type": "custom_tool_call", "name": "sql", "input": "SELECT 1"}),
    "a search with its sources": tell_response(
        {"id": "ws_1", "type": "web_search_call", "action": {"type": "search", "sources": [{"url": "https://e.org"}]}}
    ),
}


def tell_message(*blocks: Event, make: Callable[[list[str]], Items], text: Event | None = None) -> Tell:
    """A Messages stream with these blocks before its text, in the bytes that `make` makes of its frames."""

    def tell(parts: Sequence[str]) -> Items:
        block = {"type": "text", "text": "".join(parts), **(text or {})}
        body = {"type": "message", "usage": {"output_tokens": 9}, "stop_reason": "end_turn", "stop_sequence": None}
        told = message_events({**body, "content": [*blocks, block]}, pieces)
        return make(frames(told))

    return tell


def encode_frames(lines: list[str]) -> Items:
    """Each frame by itself."""
    return [line.encode() for line in lines]


MESSAGES: dict[str, Tell] = {
    "signed and hidden thinking": tell_message(
        THINKING, {"type": "redacted_thinking", "data": "EmwKAhgB"}, make=encode_frames
    ),
    "a call before the text": tell_message(CALL, make=encode_frames),
    "an empty block before the text": tell_message({"type": "text", "text": ""}, make=encode_frames),
    "a tool of the upstream's that failed": tell_message(
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"error_code": "max_uses_exceeded"}},
        make=encode_frames,
    ),
    "line ends of another system": tell_message(make=lambda lines: [x.replace("\n", "\r\n").encode() for x in lines]),
    "single bytes": tell_message(make=lambda lines: [bytes([byte]) for byte in "".join(lines).encode()]),
    "one piece": tell_message(make=lambda lines: ["".join(lines).encode()]),
    "events without names": tell_message(make=lambda lines: [x[x.index("data:") :].encode() for x in lines]),
    "comments, ids and retries": tell_message(
        make=lambda lines: [f": hm\n\nid: 1\nretry: 9\n{x}".encode() for x in lines]
    ),
    "blank lines between events": tell_message(make=lambda lines: [f"\n\n{x}".encode() for x in lines]),
    "data over several lines": tell_message(
        make=lambda lines: [x.replace(', "', ',\ndata: "').encode() for x in lines]
    ),
}
KINDS = [
    (path, name, tell)
    for path, kinds in (("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSES), ("/v1/messages", MESSAGES))
    for name, tell in kinds.items()
]


async def deliver(guard: AlignerGuardrail, path: str, items: Items, model: str) -> tuple[str, Items]:
    """The closing comment, and what goes out without it."""
    user = UserAPIKeyAuth(request_route=path)
    data = {"model": model, "litellm_call_id": "c", "metadata": {}, "messages": []}
    sent = [item async for item in guard.async_post_call_streaming_iterator_hook(user, flow(items), data)]
    return take_comment(sent).decode(), sent


@pytest.mark.parametrize("model", ["hold", "sentence", "strict"])
async def test_only_the_text_of_a_rude_stream_differs(guard: AlignerGuardrail, model: str) -> None:
    for path, name, tell in KINDS:
        comment, sent = await deliver(guard, path, tell(pieces(GOOD)), model)
        assert "status=unchanged" in comment, (name, comment)
        assert frozen(events(sent)) == frozen(events(tell(pieces(GOOD)))), name
        comment, sent = await deliver(guard, path, tell(pieces(RUDE)), model)
        assert "status=corrected" in comment, (name, comment)
        only_texts_differ(frozen(events(sent)), frozen(events(tell(pieces(RUDE)))))
