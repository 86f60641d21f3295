"""Arguments of tool calls in whole and streamed responses: finds them, and puts corrected arguments back.

One function for each wire format both reads and writes: it calls `edit` with the arguments of each call and puts what
`edit` returns in their place. So what is rewritten is what was read. Only calls that the client has to execute count;
of any other call the upstream has used the arguments already. Nothing of a call but its arguments is touched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.formats.responses_objects import ITEM, ITEM_DONE, TERMINAL, as_list, get_field, kind_of, with_field
from aligner_proxy.formats.safe import call_or_raise
from aligner_proxy.formats.side_text import keep_if_same

Place = tuple[object, ...]
"""Identifies a call in a stream. Its first part is its group: the choice, block or item that holds it."""
_ITEM_FIELDS = {"function_call": "arguments", "custom_tool_call": "input"}
"""By type of an item of Responses, the field with its arguments."""
_EVENT_FIELDS = {"response.function_call_arguments": "arguments", "response.custom_tool_call_input": "input"}
"""By type of an event of Responses, without what follows the last dot, the field with all arguments."""


@dataclass(frozen=True, slots=True)
class CallText:
    """The arguments of one call, or a piece of them."""

    place: Place
    text: str
    name: str = ""
    """The name of the tool; empty where it is not repeated."""
    is_piece: bool = False
    """Whether `text` is only a piece of the arguments."""
    is_free: bool = False
    """Whether the arguments are any text, not JSON."""


Edit = Callable[[CallText], str]
"""Maps the arguments of a call, or a piece of them, to the new ones."""


class CallForm(Protocol):
    """How a wire format transports calls."""

    def edit_arguments(self, value: Any, edit: Edit) -> Any:
        """A body or event with `edit` applied to the arguments in it; the same object if nothing changed."""

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The groups (first parts of their `Place`) of the calls that end with an event; None if all calls end."""


class SafeCalls:
    """A `CallForm` whose failures are `Unreadable` or `NotPutIn`."""

    def __init__(self, form: CallForm) -> None:
        self._form = form

    def read(self, value: Any) -> list[CallText]:
        """Return the arguments of the calls in a body or event, or pieces of arguments; raises `Unreadable`."""
        calls: list[CallText] = []

        def note_call(call: CallText) -> str:
            calls.append(call)
            return call.text

        call_or_raise(Unreadable, self._form.edit_arguments, value, note_call)
        return calls

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The groups of the calls that end with an event, as in `CallForm`; raises `Unreadable`."""
        return call_or_raise(Unreadable, self._form.ended_groups, event)

    def replace(self, value: Any, edit: Edit) -> Any:
        """The body or event with `edit` applied to the arguments in it; raises `NotPutIn`."""
        return call_or_raise(NotPutIn, self._form.edit_arguments, value, edit)


class ChatCalls:
    """Calls in the messages of a chat completion and its deltas."""

    def edit_arguments(self, value: Any, edit: Edit) -> Any:
        return _edit_list(value, "choices", lambda position, choice: _edit_choice(position, choice, edit))

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The indexes of the choices that end with this chunk, that is, have a finish reason."""
        choices = as_list(get_field(event, "choices"))
        return [get_field(choice, "index") for choice in choices if get_field(choice, "finish_reason")]


def _edit_choice(position: int, choice: Any, edit: Edit) -> Any:
    """Return the choice with `edit` applied to the calls in its message or delta; `position` is that in its list."""
    for name in ("message", "delta"):
        body = get_field(choice, name)
        if body is not None:
            # Positions tell the choices of a whole response apart; a chunk has only some of its stream's choices.
            group = position if name == "message" else get_field(choice, "index")
            return with_field(choice, name, _edit_body(body, group, edit, is_piece=name == "delta"))
    return choice


def _edit_body(body: Any, group: object, edit: Edit, *, is_piece: bool) -> Any:
    """Return a message or delta with `edit` applied to its calls; `group` is the number of its choice.

    These are in `tool_calls` and, for older clients, in `function_call`. `is_piece` is True for a delta.
    """

    def edit_call(position: int, call: Any) -> Any:
        index = get_field(call, "index")
        place = (group, position if index is None else index)
        for name, field in (("function", "arguments"), ("custom", "input")):
            holder = get_field(call, name)
            if holder is not None:
                return with_field(call, name, _edit_field(holder, field, place, edit, is_piece=is_piece))
        return call

    body = _edit_list(body, "tool_calls", edit_call)
    single_call = get_field(body, "function_call")
    if single_call is None:
        return body
    place = (group, "function_call")
    return with_field(body, "function_call", _edit_field(single_call, "arguments", place, edit, is_piece=is_piece))


class MessagesCalls:
    """Blocks of type `tool_use` in a Messages response."""

    def edit_arguments(self, value: Any, edit: Edit) -> Any:
        kind = kind_of(value)
        if kind == "content_block_start":
            block = _edit_block((get_field(value, "index"),), get_field(value, "content_block"), edit)
            return with_field(value, "content_block", block)
        if kind == "content_block_delta":
            place = (get_field(value, "index"),)
            delta = _edit_field(get_field(value, "delta"), "partial_json", place, edit, is_piece=True)
            return with_field(value, "delta", delta)
        return _edit_list(value, "content", lambda position, block: _edit_block((position,), block, edit))

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The index of the block that ends with this event; None, for all blocks, if the message ends."""
        kind = kind_of(event)
        if kind in ("message_delta", "message_stop", "error"):
            return None
        return [get_field(event, "index")] if kind == "content_block_stop" else ()


def _edit_block(place: Place, block: Any, edit: Edit) -> Any:
    """Return a block with `edit` applied to its arguments if it is a call; other blocks are returned unchanged.

    The arguments are an object. At the beginning of a stream's block it is empty; pieces of its JSON follow.
    """
    if kind_of(block) != "tool_use":
        return block
    arguments = get_field(block, "input")
    # Upstreams write the pieces of a stream in this form, so a whole answer gives the same text.
    text = json.dumps(arguments, ensure_ascii=False) if arguments else ""
    edited_text = edit(CallText(place, text, name=str(get_field(block, "name") or ""), is_piece=not text))
    return block if edited_text == text else with_field(block, "input", json.loads(edited_text))


class ResponsesCalls:
    """Items of type `function_call` and `custom_tool_call` in a Responses response."""

    def edit_arguments(self, value: Any, edit: Edit) -> Any:
        kind = kind_of(value)
        place = (get_field(value, "output_index"),)
        if kind in ITEM:
            return with_field(value, "item", _edit_item(place, get_field(value, "item"), edit))
        event_family, _, step = kind.rpartition(".")
        whole_field = _EVENT_FIELDS.get(event_family)
        if whole_field is not None:
            is_piece = step == "delta"
            field = "delta" if is_piece else whole_field
            return _edit_field(value, field, place, edit, is_piece=is_piece, is_free=whole_field == "input")
        response = get_field(value, "response")
        if response is not None:
            return with_field(value, "response", self.edit_arguments(response, edit))
        return _edit_list(value, "output", lambda position, item: _edit_item((position,), item, edit))

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The index of the item that ends with this event; None, for all items, if the response ends."""
        kind = kind_of(event)
        if kind in TERMINAL or kind == "error":
            return None
        return [get_field(event, "output_index")] if kind == ITEM_DONE else ()


def _edit_item(place: Place, item: Any, edit: Edit) -> Any:
    """Return an item with `edit` applied to its arguments; the same object if it is no call or nothing changed."""
    field = _ITEM_FIELDS.get(kind_of(item))
    return item if field is None else _edit_field(item, field, place, edit)


def _edit_list(value: Any, name: str, edit_element: Callable[[int, Any], Any]) -> Any:
    """The value with `edit_element` applied to each (position, element) of its list `name`; the same if unchanged."""
    elements = as_list(get_field(value, name))
    edited_elements = [edit_element(position, element) for position, element in enumerate(elements)]
    edited_elements = keep_if_same(edited_elements, elements)
    return value if edited_elements is elements else with_field(value, name, edited_elements)


def _edit_field(
    holder: Any, field: str, place: Place, edit: Edit, *, is_piece: bool = False, is_free: bool | None = None
) -> Any:
    """Return `holder` with `edit` applied to a field; the same object if the field has no text or does not change.

    `is_piece` says whether the field has a piece of a streamed call, and `is_free` whether it has free text and no
    JSON. If `is_free` is None, only the field "input" has free text.
    """
    text = get_field(holder, field)
    if not isinstance(text, str):
        return holder
    name = str(get_field(holder, "name") or "")
    if is_free is None:
        is_free = field == "input"
    return with_field(holder, field, edit(CallText(place, text, name, is_piece=is_piece, is_free=is_free)))


def find_tool(data: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The definition of the tool with this name in a request; None if the request does not offer it."""
    if not name:
        return None
    return next((tool for tool in _offered_tools(data) if tool.get("name") == name), None)


def _offered_tools(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the definitions of a request's tools, without the object that some formats put around each definition."""
    for tools in (data.get("tools"), data.get("functions")):
        for tool in tools if isinstance(tools, Sequence) and not isinstance(tools, str) else ():
            if isinstance(tool, Mapping):
                definition = tool.get("function") or tool.get("custom")
                yield definition if isinstance(definition, Mapping) else tool


def arguments_schema(tool: Mapping[str, Any] | None) -> str | None:
    """The JSON schema of a tool's arguments as text; None without a schema, "false" (never met) for an invalid one."""
    if tool is None:
        return None
    schema = tool.get("parameters") or tool.get("input_schema")
    if not schema:
        return None
    try:
        return json.dumps(schema)
    except (TypeError, ValueError):
        return "false"


def has_grammar(tool: Mapping[str, Any] | None) -> bool:
    """Whether a tool takes only text that follows a grammar, which an edit might break."""
    input_format = tool.get("format") if tool else None
    return isinstance(input_format, Mapping) and str(input_format.get("type") or "") == "grammar"
