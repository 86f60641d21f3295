"""Objects of /v1/responses: the kinds of events and items, their fields, and the places of the texts in them.

A text part has a place: (index of its item in the output, index of the part in the item). `edit` functions get each
text with its place and return the new text; they serve for reading, too.

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
"""Fields beside a text that are about its passages or tokens, and so wrong about another text."""
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
    """Return the event with `edit` applied to each of its texts; the same object if nothing changed."""
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
        item_index, _ = place
        return with_field(event, "item", _edit_message_texts(get_field(event, "item"), item_index, edit))
    return event


def edit_response_texts(response: object, edit: Edit) -> object:
    """Return the response with `edit` applied to each of its texts; the same object if nothing changed."""
    items = as_list(get_field(response, "output"))
    edited_items = [_edit_message_texts(item, index, edit) for index, item in enumerate(items)]
    edited_items = keep_if_same(edited_items, items)
    return response if edited_items is items else with_field(response, "output", edited_items)


def _edit_message_texts(item: object, item_index: int, edit: Edit) -> object:
    """Return the item with `edit` applied to its texts; the same object if nothing changed or it is no message."""
    if get_field(item, "type") != "message":
        return item
    content = get_field(item, "content")
    if isinstance(content, str):  # some upstreams send the text in place of its parts
        return _replace_text(item, "content", edit(PlacedText((item_index, 0), content)))
    parts = as_list(content)
    edited_parts = [_edit_part_text(part, (item_index, part_index), edit) for part_index, part in enumerate(parts)]
    edited_parts = keep_if_same(edited_parts, parts)
    return item if edited_parts is parts else with_field(item, "content", edited_parts)


def _edit_part_text(part: object, place: TextPlace, edit: Edit) -> object:
    """Return the part with `edit` applied to its text; the same object if nothing changed or it is no text part."""
    text = get_field(part, "text")
    if get_field(part, "type") != "output_text" or not isinstance(text, str):
        return part
    return _replace_text(part, "text", edit(PlacedText(place, text)))


def _replace_text(holder: Any, text_field: str, text: str) -> Any:
    """Return `holder` with a new text in `text_field` and without `POINTERS`; the same object if nothing changes."""
    if get_field(holder, text_field) == text:
        return holder
    for detail_field in POINTERS:
        if has_content(get_field(holder, detail_field)):
            holder = with_field(holder, detail_field, [])
    return with_field(holder, text_field, text)


def as_list(value: object) -> list[Any]:
    """The value if it is a list, else an empty list."""
    return value if isinstance(value, list) else []


def read_place(event: object) -> TextPlace:
    """The place of the text that an event belongs to: (output index, content index)."""
    return _read_index(get_field(event, "output_index")), _read_index(get_field(event, "content_index"))


def _read_index(value: object) -> int:
    """An index of an event; -1 if the upstream omits it."""
    return value if isinstance(value, int) else -1


def kind_of(event: object) -> str:
    """The type of an event or item, given as an enum or as text."""
    kind = get_field(event, "type")
    return str(getattr(kind, "value", kind) or "")


def get_field(thing: object, name: str) -> Any:
    """A field of a dict or object; None if missing. One response may mix LiteLLM's, OpenAI's types and dicts."""
    return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)


def with_field(thing: Any, name: str, value: object) -> Any:
    """Return a copy with a field set to `value`; the same object if the field has this value already."""
    old_value = get_field(thing, name)
    if old_value is value or (isinstance(value, str) and old_value == value):
        return thing
    return {**thing, name: value} if isinstance(thing, dict) else thing.model_copy(update={name: value})


def list_whole_items(delivered: Iterable[object]) -> list[object] | None:
    """The items of the response in the delivered events, as delivered last; None if one is missing or unfinished."""
    item_by_index: dict[object, object] = {}
    unfinished_indices: set[object] = set()
    last_index: object = None
    for event in delivered:
        if kind_of(event) not in ITEM:
            continue
        last_index = get_field(event, "output_index")
        item_by_index[last_index] = get_field(event, "item")
        if kind_of(event) == ITEM_DONE:
            unfinished_indices.discard(last_index)
        else:
            unfinished_indices.add(last_index)
    # The event that begins an item does not have what follows in the item, so only the last item may be unfinished.
    # The indices must be 0, 1, 2, ..., so that no item is missing.
    is_whole = unfinished_indices <= {last_index} and [*item_by_index] == [*range(len(item_by_index))]
    return [*item_by_index.values()] if is_whole else None


def make_empty_delta(event: object, number: object) -> object:
    """A delta numbered `number` that adds nothing to the part of an event; None if the part is no text or reasoning."""
    kind = f"response.{kind_of(get_field(event, 'part'))}" if kind_of(event) in PART else kind_of(event)
    delta_kind = next((delta for beginning, delta in _DELTAS.items() if kind.startswith(beginning)), None)
    if delta_kind is None:
        return None
    place_fields = {name: get_field(event, name) for name in _PLACE_FIELDS if get_field(event, name) is not None}
    types = litellm_types()
    if delta_kind == DELTA:
        text_delta = types.ResponsesAPIStreamEvents.OUTPUT_TEXT_DELTA
        return types.OutputTextDeltaEvent(
            type=text_delta, delta="", logprobs=[], sequence_number=number, **place_fields
        )
    return types.GenericEvent(type=delta_kind, delta="", sequence_number=number, **place_fields)
