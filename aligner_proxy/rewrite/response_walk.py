"""Visitor of the places in objects and stream events of the Responses API that hold a text.

One walk both reads and writes these places, so that what is rewritten is what was read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DELTA, TEXT_DONE = "response.output_text.delta", "response.output_text.done"
PART_DONE, ITEM_DONE = "response.content_part.done", "response.output_item.done"
PART = ("response.content_part.added", PART_DONE)
ITEM = ("response.output_item.added", ITEM_DONE)
TERMINAL = ("response.completed", "response.incomplete", "response.failed")

Where = tuple[int, int]
"""Output index and content index."""
Edit = Callable[[Where, str, bool], str]
"""Given where a text stands, the text, and whether it is a piece; returns the text that is to stand there."""


def walk(event: object, edit: Edit) -> object:
    """The event with `edit` applied to each place that holds a text; the same object if nothing changed."""
    kind = kind_of(event)
    where = (_number(get(event, "output_index")), _number(get(event, "content_index")))
    if kind in (DELTA, TEXT_DONE):
        name = "delta" if kind == DELTA else "text"
        text = get(event, name)
        return put(event, name, edit(where, text, kind == DELTA)) if isinstance(text, str) else event
    if kind in PART:
        return put(event, "part", _walk_part(get(event, "part"), where, edit))
    if kind in ITEM:
        return put(event, "item", _walk_message(get(event, "item"), where[0], edit))
    return event


def walk_response(response: object, edit: Edit) -> object:
    """The response with `edit` applied to each of its texts; the same object if nothing changed."""
    items = as_list(get(response, "output"))
    edited = [_walk_message(item, number, edit) for number, item in enumerate(items)]
    return response if _same(edited, items) else put(response, "output", edited)


def _walk_message(item: object, index: int, edit: Edit) -> object:
    if get(item, "type") != "message":
        return item
    parts = as_list(get(item, "content"))
    edited = [_walk_part(part, (index, number), edit) for number, part in enumerate(parts)]
    return item if _same(edited, parts) else put(item, "content", edited)


def _walk_part(part: object, where: Where, edit: Edit) -> object:
    text = get(part, "text")
    is_text = get(part, "type") == "output_text" and isinstance(text, str)
    return put(part, "text", edit(where, text, False)) if is_text else part


def _same(edited: list[Any], original: list[Any]) -> bool:
    return all(new is old for new, old in zip(edited, original, strict=True))


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
