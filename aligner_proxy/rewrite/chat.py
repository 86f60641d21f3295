"""/v1/chat/completions: between `ModelResponse` / `ModelResponseStream` and exchanges.

Only `message.content` and `delta.content` are ever replaced; reasoning, tool calls, refusals, audio, annotations and
provider fields are carried as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from litellm.types.utils import ModelResponse, ModelResponseStream

from aligner_proxy.rewrite import request
from aligner_proxy.rewrite.choice import Reading, Speech, carries, cites, corrected, spread
from aligner_proxy.rewrite.telling import ChunkTelling, Telling
from aligner_proxy.types import Exchange, Outcome


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """One exchange per choice, numbered by position (some upstreams number all choices 0)."""
    if not isinstance(response, ModelResponse):
        return []
    turns = request.turns(data.get("messages"))
    found = []
    for index, choice in enumerate(response.choices):
        reading = Reading()
        _absorb(reading, choice, getattr(choice, "message", None))
        found.append(reading.exchange(data, index, turns, response))
    return found


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """The same response if nothing is corrected, else a copy with new texts in it."""
    texts = corrected(outcomes)
    if not texts:
        return response
    edited = response.model_copy()
    edited.choices = [
        _with_content(choice, "message", texts[index]) if index in texts else choice
        for index, choice in enumerate(response.choices)
    ]
    return edited


def stream_exchanges(data: Mapping[str, Any], items: Sequence[object]) -> list[Exchange]:
    """One exchange per choice index, its deltas joined."""
    readings: dict[int, Reading] = {}
    for choice in _stream_choices(items):
        _absorb(readings.setdefault(choice.index, Reading()), choice, choice.delta)
    turns = request.turns(data.get("messages"))
    return [readings[index].exchange(data, index, turns, items[0]) for index in sorted(readings)]


def opening(data: Mapping[str, Any], index: int) -> Exchange:
    """What is known of a choice before the upstream has said anything."""
    return Reading().exchange(data, index, request.turns(data.get("messages")), None)


def speech() -> Speech:
    """A listener for one stream."""
    return _spoken


def _spoken(item: object) -> list[tuple[int, str]]:
    return [(choice.index, choice.delta.content) for choice in _stream_choices([item]) if _speaks(choice)]


def telling(data: Mapping[str, Any]) -> Telling:
    """A stream taken apart as it comes."""
    turns = request.turns(data.get("messages"))
    return ChunkTelling(
        ModelResponseStream,
        lambda choice: choice.delta.content if _speaks(choice) else "",
        lambda choice, text: _with_content(choice, "delta", text),
        lambda reading, choice: _absorb(reading, choice, choice.delta),
        lambda reading, index: reading.exchange(data, index, turns, None),
    )


def stream_apply(items: Sequence[object], outcomes: Sequence[Outcome]) -> list[object]:
    """The new texts in the shapes of the chunks that carried the old ones; every other item is the same object."""
    pieces = {index: iter(spread(text, _sizes(items, index))) for index, text in corrected(outcomes).items()}
    return [_replayed(item, pieces) for item in items] if pieces else list(items)


def _replayed(item: object, pieces: Mapping[int, Iterator[str]]) -> object:
    if not isinstance(item, ModelResponseStream) or not any(_speaks(c) and c.index in pieces for c in item.choices):
        return item
    edited = item.model_copy()
    edited.choices = [
        _with_content(c, "delta", next(pieces[c.index])) if _speaks(c) and c.index in pieces else c
        for c in item.choices
    ]
    return edited


def _stream_choices(items: Sequence[object]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, ModelResponseStream):
            yield from item.choices


def _speaks(choice: Any) -> bool:
    return isinstance(getattr(choice.delta, "content", None), str) and choice.delta.content != ""


def _sizes(items: Sequence[object], index: int) -> list[int]:
    return [len(c.delta.content) for c in _stream_choices(items) if c.index == index and _speaks(c)]


def _with_content(choice: Any, body: str, text: str) -> Any:
    """A copy of the choice and its body with another content; everything else is shared with the original."""
    edited, holder = choice.model_copy(), getattr(choice, body).model_copy()
    holder.content = text
    setattr(edited, body, holder)
    return edited


def _absorb(reading: Reading, choice: Any, body: Any) -> None:
    content = getattr(body, "content", None)
    if isinstance(content, str):
        reading.pieces.append(content)
    elif content is not None:
        reading.non_text = True
    reading.finish_reason = getattr(choice, "finish_reason", None) or reading.finish_reason
    reading.tool_calls |= any(carries(getattr(body, name, None)) for name in ("tool_calls", "function_call"))
    reading.refusal |= _refuses(body)
    reading.non_text |= any(carries(getattr(body, name, None)) for name in ("audio", "images"))
    reading.annotations |= _points_into_text(body)
    reading.logprobs |= carries(getattr(choice, "logprobs", None))


def _refuses(body: Any) -> bool:
    """OpenAI puts a refusal beside the content; LiteLLM keeps it as an attribute or among the provider's fields."""
    fields = getattr(body, "provider_specific_fields", None)
    inner = fields.get("refusal") if isinstance(fields, Mapping) else None
    return carries(getattr(body, "refusal", None)) or carries(inner)


def _points_into_text(body: Any) -> bool:
    """Citations that give offsets into the answer, or quote it, would point to the wrong words after an edit."""
    for note in getattr(body, "annotations", None) or ():
        citation = note.get("url_citation") if isinstance(note, Mapping) else getattr(note, "url_citation", None)
        if citation is not None:
            return True
    return cites(getattr(body, "provider_specific_fields", None))
