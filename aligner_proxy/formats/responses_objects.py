"""Objects of /v1/responses: the kinds of events and items, their fields, and the places of the texts in them.

Responses and events come as LiteLLM's types, as the OpenAI client's types, or as plain dicts. Nothing here knows of
exchanges; `responses.py` converts these objects to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from aligner_proxy.formats.base import has_content
from aligner_proxy.formats.side_text import keep_if_same

DELTA = "response.output_text.delta"
TEXT_DONE = "response.output_text.done"
PART_DONE = "response.content_part.done"
ITEM_DONE = "response.output_item.done"
PART = ("response.content_part.added", PART_DONE)
ITEM = ("response.output_item.added", ITEM_DONE)
TERMINAL = ("response.completed", "response.incomplete", "response.failed")
BEGINNING = ("response.created", "response.queued", "response.in_progress")
KEEPALIVE = "keepalive"
"""The upstream's own heartbeat, which it does not document."""
POINTERS = ("annotations", "logprobs")
"""Fields beside a text that point into it."""
_PLACE_FIELDS = ("item_id", "output_index", "content_index", "summary_index")
"""Fields that say to which part of a response an event belongs."""
_DELTAS = {
    "response.output_text": DELTA,
    "response.reasoning_text": "response.reasoning_text.delta",
    "response.reasoning_summary": "response.reasoning_summary_text.delta",
}
"""By the beginning of an event's kind, the delta of the part that it belongs to."""

TextPlace = tuple[int, int]
"""(output index, content index) of a text; -1 for an index that the upstream omits."""


class PlacedText(NamedTuple):
    """A text in a response or event."""

    place: TextPlace
    text: str
    is_piece: bool = False
    """Whether it is only a piece that a delta adds."""


Edit = Callable[[PlacedText], str]
"""Returns the new text in place of one."""


def litellm_types() -> Any:
    """LiteLLM's classes of responses and events; importing them takes seconds, except inside the proxy."""
    from litellm.types.llms import openai

    return openai


def edit_event_texts(event: object, edit: Edit) -> object:
    """The event with `edit` applied to each of its texts; the same object if nothing changed."""
    kind = kind_of(event)
    place = read_place(event)
    if kind in (DELTA, TEXT_DONE):
        name = "delta" if kind == DELTA else "text"
        text = get_field(event, name)
        if not isinstance(text, str):
            return event
        return _replace_text(event, name, edit(PlacedText(place, text, is_piece=kind == DELTA)))
    if kind in PART:
        return with_field(event, "part", _edit_part_text(get_field(event, "part"), place, edit))
    if kind in ITEM:
        return with_field(event, "item", _edit_message_texts(get_field(event, "item"), place[0], edit))
    return event


def edit_response_texts(response: object, edit: Edit) -> object:
    """The response with `edit` applied to each of its texts; the same object if nothing changed."""
    items = as_list(get_field(response, "output"))
    edited = keep_if_same([_edit_message_texts(item, number, edit) for number, item in enumerate(items)], items)
    return response if edited is items else with_field(response, "output", edited)


def _edit_message_texts(item: object, index: int, edit: Edit) -> object:
    """The item with `edit` applied to its texts; the same object if nothing changed or it is no message."""
    if get_field(item, "type") != "message":
        return item
    content = get_field(item, "content")
    if isinstance(content, str):  # some upstreams send the text in place of its parts
        return _replace_text(item, "content", edit(PlacedText((index, 0), content)))
    parts = as_list(content)
    edited = keep_if_same([_edit_part_text(part, (index, number), edit) for number, part in enumerate(parts)], parts)
    return item if edited is parts else with_field(item, "content", edited)


def _edit_part_text(part: object, place: TextPlace, edit: Edit) -> object:
    """The part with `edit` applied to its text; the same object if nothing changed or it is no text part."""
    text = get_field(part, "text")
    is_text = get_field(part, "type") == "output_text" and isinstance(text, str)
    return _replace_text(part, "text", edit(PlacedText(place, text))) if is_text else part


def _replace_text(thing: Any, name: str, text: str) -> Any:
    """A copy with a new text, without annotations and logprobs of the old one; the same object if nothing changed."""
    if get_field(thing, name) == text:
        return thing
    for pointers in POINTERS:
        if has_content(get_field(thing, pointers)):
            thing = with_field(thing, pointers, [])
    return with_field(thing, name, text)


def as_list(value: object) -> list[Any]:
    """The value if it is a list, else an empty list."""
    return value if isinstance(value, list) else []


def read_place(event: object) -> TextPlace:
    """The place of the text that an event belongs to."""
    return _read_index(get_field(event, "output_index")), _read_index(get_field(event, "content_index"))


def _read_index(value: object) -> int:
    """An index of an event; -1 if the upstream omits it."""
    return value if isinstance(value, int) else -1


def kind_of(event: object) -> str:
    """The type of an event or item, given as an enum or as text."""
    kind = get_field(event, "type")
    return str(getattr(kind, "value", kind) or "")


def get_field(thing: object, name: str) -> Any:
    """A field of a dict or object: one response may mix LiteLLM's types, the OpenAI client's types and plain dicts."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def with_field(thing: Any, name: str, value: object) -> Any:
    """A copy with a field set to `value`; the same object if the field has this value already."""
    old = get_field(thing, name)
    if old is value or (isinstance(value, str) and old == value):
        return thing
    return {**thing, name: value} if isinstance(thing, dict) else thing.model_copy(update={name: value})


def list_whole_items(delivered: Iterable[object]) -> list[object] | None:
    """The items of the response as delivered last; None if one of them is known only in part, or one is missing."""
    items: dict[object, object] = {}
    open_indices: set[object] = set()
    last_index: object = None
    for event in delivered:
        if kind_of(event) not in ITEM:
            continue
        last_index = get_field(event, "output_index")
        items[last_index] = get_field(event, "item")
        if kind_of(event) == ITEM_DONE:
            open_indices.discard(last_index)
        else:
            open_indices.add(last_index)
    # The event that begins an item does not hold what follows in it, so only the last item may be unfinished. The
    # indices must be 0, 1, 2, ..., so that no item is missing.
    is_whole = open_indices <= {last_index} and [*items] == [*range(len(items))]
    return [*items.values()] if is_whole else None


def make_empty_delta(event: object, number: object) -> object:
    """A delta that adds nothing to the part that an event belongs to; None if it belongs to no text or reasoning."""
    kind = f"response.{kind_of(get_field(event, 'part'))}" if kind_of(event) in PART else kind_of(event)
    delta = next((delta for beginning, delta in _DELTAS.items() if kind.startswith(beginning)), None)
    if delta is None:
        return None
    places = {name: get_field(event, name) for name in _PLACE_FIELDS if get_field(event, name) is not None}
    types = litellm_types()
    if delta == DELTA:
        type_ = types.ResponsesAPIStreamEvents.OUTPUT_TEXT_DELTA
        return types.OutputTextDeltaEvent(type=type_, delta="", logprobs=[], sequence_number=number, **places)
    return types.GenericEvent(type=delta, delta="", sequence_number=number, **places)
