"""Arguments of tool calls in a response, in whole and streamed responses: finds them, and puts corrected ones back.

Only calls that the client has to execute count. Of any other call the upstream has used the arguments already. One walk
both reads and writes, so what is rewritten is what was read. Nothing of a call but its arguments is touched.
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
_GRAMMAR = "grammar"
_DELTA_SUFFIX = ".delta"
_FIELDS = {"function_call": "arguments", "custom_tool_call": "input"}
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
        """The arguments in a body or event, or the pieces of them; raises `Unreadable`."""
        texts: list[CallText] = []

        def note(call: CallText) -> str:
            """Record the arguments, and return them unchanged."""
            texts.append(call)
            return call.text

        call_or_raise(Unreadable, self._form.edit_arguments, value, note)
        return texts

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The groups of the calls that end with an event, as in `CallForm`; raises `Unreadable`."""
        return call_or_raise(Unreadable, self._form.ended_groups, event)

    def replace(self, value: Any, edit: Edit) -> Any:
        """The body or event with `edit` applied to the arguments in it; raises `NotPutIn`."""
        return call_or_raise(NotPutIn, self._form.edit_arguments, value, edit)


class ChatCalls:
    """Calls in the messages of a chat completion and its deltas."""

    def edit_arguments(self, value: Any, edit: Edit) -> Any:
        """The response or chunk with `edit` applied."""
        return _edit_list(value, "choices", lambda number, choice: _edit_choice(number, choice, edit))

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The choices that say why they finish."""
        choices = as_list(get_field(event, "choices"))
        return [get_field(choice, "index") for choice in choices if get_field(choice, "finish_reason")]


def _edit_choice(number: int, choice: Any, edit: Edit) -> Any:
    """The choice at position `number` with `edit` applied to the calls in its message or delta."""
    for name in ("message", "delta"):
        body = get_field(choice, name)
        if body is not None:
            group = number if name == "message" else get_field(choice, "index")
            return with_field(choice, name, _edit_body(body, group, edit, is_piece=name == "delta"))
    return choice


def _edit_body(body: Any, group: object, edit: Edit, *, is_piece: bool) -> Any:
    """A message or delta with `edit` applied to its calls and to `function_call`, the single call of older clients."""

    def edit_call(number: int, call: Any) -> Any:
        """The call at position `number` with `edit` applied to its arguments."""
        index = get_field(call, "index")
        place = (group, number if index is None else index)
        for name, field in (("function", "arguments"), ("custom", "input")):
            if get_field(call, name) is not None:
                edited = _edit_field(get_field(call, name), field, place, edit, is_piece=is_piece)
                return with_field(call, name, edited)
        return call

    body = _edit_list(body, "tool_calls", edit_call)
    single = get_field(body, "function_call")
    if single is None:
        return body
    return with_field(
        body, "function_call", _edit_field(single, "arguments", (group, "function_call"), edit, is_piece=is_piece)
    )


class MessagesCalls:
    """Blocks of type `tool_use` in a Messages response."""

    def edit_arguments(self, value: Any, edit: Edit) -> Any:
        """The message or event with `edit` applied."""
        kind = kind_of(value)
        if kind == "content_block_start":
            block = _edit_block((get_field(value, "index"),), get_field(value, "content_block"), edit)
            return with_field(value, "content_block", block)
        if kind == "content_block_delta":
            delta = get_field(value, "delta")
            place = (get_field(value, "index"),)
            return with_field(value, "delta", _edit_field(delta, "partial_json", place, edit, is_piece=True))
        return _edit_list(value, "content", lambda number, block: _edit_block((number,), block, edit))

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The block that ends; all blocks with the message."""
        kind = kind_of(event)
        if kind in ("message_delta", "message_stop", "error"):
            return None
        return [get_field(event, "index")] if kind == "content_block_stop" else ()


def _edit_block(place: Place, block: Any, edit: Edit) -> Any:
    """A block of a call, whose arguments are an object; at the beginning of a stream's block it is empty."""
    if kind_of(block) != "tool_use":
        return block
    arguments = get_field(block, "input")
    # as the pieces of a stream are written, so that a whole answer gives the same text
    text = json.dumps(arguments, ensure_ascii=False) if arguments else ""
    edited = edit(CallText(place, text, str(get_field(block, "name") or ""), is_piece=not text))
    return block if edited == text else with_field(block, "input", json.loads(edited))


class ResponsesCalls:
    """Items of type `function_call` and `custom_tool_call` in a Responses response."""

    def edit_arguments(self, value: Any, edit: Edit) -> Any:
        """The response or event with `edit` applied."""
        kind = kind_of(value)
        place = (get_field(value, "output_index"),)
        if kind in ITEM:
            return with_field(value, "item", _edit_item(place, get_field(value, "item"), edit))
        prefix, _, step = kind.rpartition(".")
        field = _EVENT_FIELDS.get(prefix)
        if field is not None:
            is_piece = f".{step}" == _DELTA_SUFFIX
            return _edit_field(
                value, "delta" if is_piece else field, place, edit, is_piece=is_piece, is_free=field == "input"
            )
        response = get_field(value, "response")
        if response is not None:
            return with_field(value, "response", self.edit_arguments(response, edit))
        return _edit_list(value, "output", lambda number, item: _edit_item((number,), item, edit))

    def ended_groups(self, event: Any) -> Collection[object] | None:
        """The item that ends; all items with the response."""
        kind = kind_of(event)
        if kind in TERMINAL or kind == "error":
            return None
        return [get_field(event, "output_index")] if kind == ITEM_DONE else ()


def _edit_item(place: Place, item: Any, edit: Edit) -> Any:
    """An item with `edit` applied to its arguments; the same object if it is no call or nothing changed."""
    field = _FIELDS.get(kind_of(item))
    return item if field is None else _edit_field(item, field, place, edit)


def _edit_list(value: Any, name: str, edit_element: Callable[[int, Any], Any]) -> Any:
    """The value with `edit_element` applied to each element of a list in it; the same object if nothing changed."""
    elements = as_list(get_field(value, name))
    edited = keep_if_same([edit_element(number, element) for number, element in enumerate(elements)], elements)
    return value if edited is elements else with_field(value, name, edited)


def _edit_field(
    holder: Any, field: str, place: Place, edit: Edit, *, is_piece: bool = False, is_free: bool | None = None
) -> Any:
    """The object with `edit` applied to a field; the same object if the field holds no text or does not change.

    `is_piece`: the field holds a piece of a streamed call. `is_free`: it holds free text and no JSON; if None, only the
    field "input" does.
    """
    text = get_field(holder, field)
    if not isinstance(text, str):
        return holder
    name = str(get_field(holder, "name") or "")
    if is_free is None:
        is_free = field == "input"
    return with_field(holder, field, edit(CallText(place, text, name, is_piece, is_free)))


def find_tool(data: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The definition of the tool with this name in a request; None if the request does not offer it."""
    return next((tool for tool in _offered_tools(data) if name and tool.get("name") == name), None)


def _offered_tools(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the definitions of a request's tools, without the object that some formats put around each."""
    for tools in (data.get("tools"), data.get("functions")):
        for tool in tools if isinstance(tools, Sequence) and not isinstance(tools, str) else ():
            if isinstance(tool, Mapping):
                inner = tool.get("function") or tool.get("custom")
                yield inner if isinstance(inner, Mapping) else tool


def arguments_schema(tool: Mapping[str, Any] | None) -> str | None:
    """The JSON schema of a tool's arguments as text; None without one, "false" (nothing meets it) if it is invalid."""
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
    form = tool.get("format") if tool else None
    return isinstance(form, Mapping) and str(form.get("type") or "") == _GRAMMAR
