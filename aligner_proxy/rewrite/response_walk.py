"""Where does an object or a stream event of the Responses API tell a text, and how is another one put there?

One walk both reads and writes these places, so that what is rewritten is what was read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DELTA, TEXT_DONE = "response.output_text.delta", "response.output_text.done"
PART = ("response.content_part.added", "response.content_part.done")
ITEM = ("response.output_item.added", "response.output_item.done")
TERMINAL = ("response.completed", "response.incomplete", "response.failed")

Where = tuple[int, int]
"""Output index and content index."""
Say = Callable[[Where, str, bool], str]
"""Told where a text stands, the text, and whether it is a piece or the whole; says what shall stand there."""


def walk(event: object, say: Say) -> object:
    """The event with what `say` says in each place that tells a text; the same object if that is what stood there."""
    kind, where = kind_of(event), (_number(get(event, "output_index")), _number(get(event, "content_index")))
    if kind in (DELTA, TEXT_DONE):
        name = "delta" if kind == DELTA else "text"
        text = get(event, name)
        return put(event, name, say(where, text, kind == DELTA)) if isinstance(text, str) else event
    if kind in PART:
        return put(event, "part", _walk_part(get(event, "part"), where, say))
    if kind in ITEM:
        return put(event, "item", _walk_message(get(event, "item"), where[0], say))
    return event


def _walk_message(item: object, index: int, say: Say) -> object:
    parts = as_list(get(item, "content"))
    if get(item, "type") != "message":
        return item
    said = [_walk_part(part, (index, number), say) for number, part in enumerate(parts)]
    return item if all(new is old for new, old in zip(said, parts, strict=True)) else put(item, "content", said)


def _walk_part(part: object, where: Where, say: Say) -> object:
    text = get(part, "text")
    is_text = get(part, "type") == "output_text" and isinstance(text, str)
    return put(part, "text", say(where, text, False)) if is_text else part


def walk_response(response: object, say: Say) -> object:
    """The response with what `say` says in place of each of its texts; the same object if nothing changed."""
    items = as_list(get(response, "output"))
    said = [_walk_message(item, number, say) for number, item in enumerate(items)]
    return response if all(new is old for new, old in zip(said, items, strict=True)) else put(response, "output", said)


def as_list(value: object) -> list[Any]:
    """A list, or what is none as an empty one."""
    return value if isinstance(value, list) else []


def _number(value: object) -> int:
    """An index of an event; some upstreams leave it out."""
    return value if isinstance(value, int) else -1


def kind_of(event: object) -> str:
    """The type of an event or item, enum or text."""
    kind = get(event, "type")
    return str(getattr(kind, "value", kind) or "")


def get(thing: object, name: str) -> Any:
    """LiteLLM's types, the OpenAI client's types and plain dicts stand side by side in one response."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def put(thing: Any, name: str, value: object) -> Any:
    """A copy with another value in it; the same object if it is the same value."""
    old = get(thing, name)
    if old is value or (isinstance(value, str) and old == value):
        return thing
    return {**thing, name: value} if isinstance(thing, dict) else thing.model_copy(update={name: value})
