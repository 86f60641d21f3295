"""Bodies and streams in which an answer's sentence stands a second time, in a field drawn at random.

Each case is drawn from its seed: wire format, place, name of the field and form of the copy. `holds_copy` reads what a
client gets, also where a text comes in pieces.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse, ModelResponseStream, TextCompletionResponse

from aligner_proxy.formats.copies import normalize
from aligner_proxy.formats.side_text import side_strings
from tests.e2e.event_streams import frames, message_events, pieces, response_events
from tests.support.stream_fixtures import response_event

FIRST = "The harbour office opens at nine in the morning."
REMOVED = "Only a perfect fool would ask that."
LAST = "Bring your boat papers with you."
ANSWER = f"{FIRST} {REMOVED} {LAST}"
ROUTES = {
    "chat": "/v1/chat/completions",
    "text": "/v1/completions",
    "messages": "/v1/messages",
    "responses": "/v1/responses",
}
NAMES = (
    *("trace", "modelOutput", "grounding_metadata", "groundingSupports", "segment", "citations", "citationsContent"),
    *("annotations", "copy", "note", "raw", "debug", "x_extra", "cited_text", "answer", "output_text", "title"),
    *("vertex_ai_grounding_metadata", "search_results", "audio", "prompt_logprobs", "tokens", "explanation"),
)
REASONING = ("reasoning_content", "reasoning")


@dataclass(frozen=True)
class Case:
    """One response with a second copy: `whole` as a body, `items` as a stream."""

    seed: int
    format: str
    whole: Any
    items: Sequence[Any]


def make_case(seed: int) -> Case:
    """The case of a seed."""
    draw = random.Random(seed)
    kind = draw.choice(list(ROUTES))
    whole, items = _MAKERS[kind](draw)
    return Case(seed, kind, whole, items)


def holds_copy(values: Iterable[object]) -> bool:
    """Whether what a client gets holds the removed sentence anywhere, in one text or in pieces of it."""
    texts: dict[object, list[str]] = {}
    for value in values:
        for _, path, text in side_strings(value):
            texts.setdefault(path, []).append(text)
    return any(normalize(REMOVED) in normalize("".join(parts)) for parts in texts.values())


def _copy(draw: random.Random) -> Any:
    """The sentence in one of the forms in which providers repeat an answer."""
    forms: list[Callable[[], Any]] = [
        lambda: REMOVED,
        lambda: ANSWER,
        lambda: f"{REMOVED} {LAST}",
        lambda: [FIRST, REMOVED, LAST],
        lambda: json.dumps({"output": ANSWER}),
        lambda: [f"{word} " for word in REMOVED.split()],
        lambda: {"startIndex": 49, "endIndex": 84, "text": REMOVED},
        lambda: [{"segment": {"text": REMOVED}, "groundingChunkIndices": [0]}],
        lambda: REMOVED.replace(" ", "\n"),
        lambda: REMOVED.replace(" ", "%20"),
    ]
    return draw.choice(forms)()


def _field(draw: random.Random) -> tuple[str, Any]:
    """A field with a copy, perhaps some levels down."""
    value = _copy(draw)
    for _ in range(draw.randrange(3)):
        value = {draw.choice(NAMES): value} if draw.random() < 0.6 else [value]
    return draw.choice(NAMES), value


def cut_text(text: str) -> list[str]:
    """A text in pieces of eight characters."""
    return [text[at : at + 8] for at in range(0, len(text), 8)]


def _in_some_event(draw: random.Random, count: int) -> int:
    """The number of an event to put a copy into; often near an end."""
    return draw.choice([0, 1, count // 2, count - 2, count - 1])


def _chat(draw: random.Random) -> tuple[Any, list[Any]]:
    name, value = _field(draw)
    place = draw.choice(["body", "choice", "message", "provider", "reasoning"])
    if place == "reasoning":
        name, value = draw.choice(REASONING), f"They ask again. {REMOVED} So I will say it."
    if name in ("annotations", "audio") and place != "provider":
        name = "notes"
    message: dict[str, Any] = {"role": "assistant", "content": ANSWER}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": message}
    body: dict[str, Any] = {"id": "1", "created": 1, "model": "m", "choices": [choice]}
    _put(place, name, value, body, choice, message)
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        *({"content": part} for part in pieces(ANSWER)),
    ]
    chunks = [_chat_chunk(delta) for delta in deltas] + [_chat_chunk({}, "stop")]
    texts = cut_text(value) if isinstance(value, str) and draw.random() < 0.4 else [value]
    at = _in_some_event(draw, len(chunks))
    extra = []
    for text in texts:
        raw = _chat_chunk({})
        _put(place, name, text, raw, raw["choices"][0], raw["choices"][0]["delta"])
        extra.append(raw)
    chunks[at:at] = extra
    return ModelResponse(**body), [ModelResponseStream(**raw) for raw in chunks]


def _chat_chunk(delta: dict[str, Any], why: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": why}
    return {"id": "1", "created": 1, "model": "m", "choices": [choice]}


def _put(place: str, name: str, value: Any, body: Any, choice: Any, message: Any) -> None:
    if place == "body":
        body[name] = value
    elif place == "choice":
        choice[name] = value
    elif place == "provider":
        message["provider_specific_fields"] = {name: value}
    else:
        message[name] = value


def _text(draw: random.Random) -> tuple[Any, list[Any]]:
    name, value = _field(draw)
    place = draw.choice(["body", "choice"])
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "text": ANSWER}
    body: dict[str, Any] = {"id": "1", "created": 1, "model": "m", "choices": [choice]}
    (body if place == "body" else choice)[name] = value
    chunks: list[dict[str, Any]] = [
        {"id": "1", "choices": [{"index": 0, "text": part, "finish_reason": None}]} for part in pieces(ANSWER)
    ]
    chunks.append({"id": "1", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
    raw = draw.choice(chunks)
    (raw if place == "body" else raw["choices"][0])[name] = value
    return TextCompletionResponse(**body), [TextCompletionResponse(**chunk) for chunk in chunks]


def _messages(draw: random.Random) -> tuple[Any, list[Any]]:
    name, value = _field(draw)
    place = draw.choice(["body", "block", "thinking"])
    block: dict[str, Any] = {"type": "text", "text": ANSWER}
    content = [block]
    if place == "thinking":
        content.insert(0, {"type": "thinking", "thinking": f"They ask. {REMOVED}", "signature": "c2ln"})
    body: dict[str, Any] = {
        **{"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content},
        **{"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 9}},
    }
    events = message_events(body)
    if place == "body":
        draw.choice(events)[name] = value
        body[name] = value
    elif place == "block":
        block[name] = value
        delta = draw.choice([event for event in events if isinstance(event.get("delta"), dict)])
        delta["delta"] = {**delta["delta"], name: value}
    return body, [frame.encode() for frame in frames(events)]


def _responses(draw: random.Random) -> tuple[Any, list[Any]]:
    name, value = _field(draw)
    place = draw.choice(["body", "item", "part", "event", "reasoning"])
    part: dict[str, Any] = {"type": "output_text", "text": ANSWER, "annotations": []}
    item: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    item["content"] = [part]
    output = [item]
    if place == "reasoning":
        summary = [{"type": "summary_text", "text": f"They ask. {REMOVED}"}]
        output.insert(0, {"id": "rs_1", "type": "reasoning", "summary": summary})
    body: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed"}
    body |= {"model": "m", "output": output}
    holder = {"body": body, "item": item, "part": part}.get(place)
    if holder is not None and not (place == "part" and name == "annotations") and name != "output_text":
        holder[name] = value
    events = response_events(body)
    if place == "event":
        draw.choice(events[2:-1])[name] = value
    return ResponsesAPIResponse(**body), [response_event(event) for event in events]


_MAKERS: dict[str, Callable[[random.Random], tuple[Any, list[Any]]]] = {
    "chat": _chat,
    "text": _text,
    "messages": _messages,
    "responses": _responses,
}
