"""One answer as each wire format streams it, and what a client of that format reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from litellm.llms.openai.responses.transformation import OpenAIResponsesAPIConfig
from litellm.types.utils import ModelResponseStream, TextCompletionResponse

from aligner_proxy.formats import Wire, chat, messages, responses, text
from aligner_proxy.formats.base import corrected_texts
from aligner_proxy.formats.safe import SafeDecoder
from aligner_proxy.pipeline.replacements import ReplacementMap
from aligner_proxy.types import Exchange, Outcome, join_surrogates
from tests.e2e.event_streams import frames, message_events, response_events

Items = list[Any]


@dataclass(frozen=True)
class Format:
    """`tell` makes the items of a stream from the pieces of an answer; `read` the text that a client puts together."""

    name: str
    wire: Wire
    tell: Callable[[Sequence[str]], Items]
    read: Callable[[Items], str]


def decoded(wire: Wire, data: Mapping[str, Any], items: Sequence[object], *, safely: bool = False) -> list[Exchange]:
    """The exchanges of a whole stream; `safely`: what cannot be read is one that says so."""
    decoder = SafeDecoder(wire.decoder(data), data) if safely else wire.decoder(data)
    for item in items:
        decoder.feed(item)
    decoder.flush()
    return decoder.exchanges()


def replayed(wire: Wire, items: Sequence[object], outcomes: Sequence[Outcome]) -> Items:
    """The events of a whole stream with the corrected texts in them; without any, the items as they came."""
    texts = corrected_texts(outcomes)
    if not texts:
        return list(items)
    decoder = wire.decoder({})
    events = [event for item in items for event in decoder.feed(item)] + decoder.flush()
    edits = {exchange.index: ReplacementMap() for exchange in decoder.exchanges() if exchange.index in texts}
    for exchange in decoder.exchanges():
        if exchange.index in texts:
            edits[exchange.index].add(len(exchange.answer or ""), texts[exchange.index])
    seen: Counter[int] = Counter()

    def new(index: int, piece: str) -> str:
        start = seen[index]
        seen[index] += len(piece)
        return edits[index].render(start, seen[index], "") if index in edits else piece

    return [
        event.with_texts(
            [new(index, piece) for index, piece in event.pieces],
            {index: texts[index] for index in event.repeated_texts if index in texts},
        )
        for event in events
    ]


async def flow(items: Iterable[Any]) -> AsyncIterator[Any]:
    """The stream of an upstream that sends these; an error among them breaks it."""
    for item in items:
        if isinstance(item, BaseException):
            raise item
        yield item


async def broken_flow(items: Iterable[Any], error: Exception) -> AsyncIterator[Any]:
    """A stream that breaks after these items."""
    for item in items:
        yield item
    raise error


async def read_into(got: list[Any], source: AsyncIterable[Any]) -> None:
    """Add the items of a stream to `got`, which has those before an error, too."""
    async for item in source:
        got.append(item)


def chunk(content: str | None = None, index: int = 0, why: str | None = None, **delta: Any) -> ModelResponseStream:
    """A chat chunk."""
    choice = {"index": index, "delta": {"content": content, **delta}, "finish_reason": why}
    return ModelResponseStream(id="1", created=1, choices=[choice])


def chat_items(pieces: Sequence[str]) -> Items:
    """Role, pieces, finish, usage."""
    usage = ModelResponseStream(id="1", created=1, choices=[{"index": 0, "delta": {}}])
    return [chunk("", role="assistant"), *(chunk(piece) for piece in pieces), chunk(why="stop"), usage]


def chat_text(items: Items, index: int = 0) -> str:
    """The deltas of one choice."""
    choices = [c for item in items if isinstance(item, ModelResponseStream) for c in item.choices if c.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def text_items(pieces: Sequence[str]) -> Items:
    """Pieces and a finish."""
    said = [*((piece, None) for piece in pieces), ("", "stop")]
    return [
        TextCompletionResponse(choices=[{"index": 0, "text": piece, "finish_reason": why}])  # type: ignore[list-item]
        for piece, why in said
    ]


def text_text(items: Items) -> str:
    """The texts."""
    return "".join(i.choices[0].text or "" for i in items if isinstance(i, TextCompletionResponse))


def message_items(pieces: Sequence[str]) -> Items:
    """Frames, glued and torn without regard to where they end."""
    block = {"type": "text", "text": "".join(pieces)}
    whole = {"type": "message", "content": [block], "usage": {}, "stop_reason": "end_turn", "stop_sequence": None}
    raw = "".join(frames(message_events(whole, lambda _: pieces))).encode()
    return [raw[i : i + 97] for i in range(0, len(raw), 97)]


def message_text(items: Items) -> str:
    """The text deltas."""
    return "".join(event["delta"]["text"] for event in events(items) if event["type"] == "content_block_delta")


def events(items: Items) -> list[dict[str, Any]]:
    """What a Messages stream says."""
    raw = b"".join(item for item in items if isinstance(item, bytes)).decode()
    return [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: ")]


def response_items(pieces: Sequence[str]) -> Items:
    """Typed events, as LiteLLM makes them."""
    # where the text is repeated, no letter is cut in half
    part = {"type": "output_text", "text": join_surrogates("".join(pieces)), "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    body = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "output": [item]}
    return [response_event(event) for event in response_events(body, lambda _: pieces)]


def response_event(event: dict[str, Any]) -> Any:
    """A typed event of Responses, as LiteLLM makes it."""
    return OpenAIResponsesAPIConfig().transform_streaming_response("m", event, cast("Any", None))


def response_text(items: Items) -> str:
    """The deltas; every event that repeats the text must agree with them."""
    found = "".join(item.delta for item in items if kind(item) == "response.output_text.delta")
    for item in items:
        match kind(item):
            case "response.output_text.done":
                assert item.text == found
            case "response.content_part.done":
                assert read(item.part, "text") == found
            case "response.output_item.done":
                assert read(read(item.item, "content")[0], "text") == found
            case "response.completed":
                assert read(read(item.response.output[0], "content")[0], "text") == found
    return found


def kind(item: Any) -> str:
    """An event's type."""
    told = getattr(item, "type", "")
    return str(getattr(told, "value", told))


def read(thing: Any, name: str) -> Any:
    """From a dict or an object."""
    return thing[name] if isinstance(thing, dict) else getattr(thing, name)


FORMATS = [
    Format("chat", chat, chat_items, chat_text),
    Format("text", text, text_items, text_text),
    Format("messages", messages, message_items, message_text),
    Format("responses", responses, response_items, response_text),
]
