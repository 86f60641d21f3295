"""Wire format of /v1/responses: converts `ResponsesAPIResponse` and its stream events to exchanges and back.
A part is one text of an output message.

Each text part of an output message is a separate answer. It is judged only against the conversation in the request,
because the turns behind `previous_response_id` are not visible here. A stream sends a part several times: in deltas;
when the text, the part and the item are done; and in the last event. The same walk reads and writes all of these
places, so they always agree. If they disagree in what the upstream sent, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

from aligner_proxy.formats import base
from aligner_proxy.formats.base import (
    ChoiceBuilder,
    GrowingText,
    RequestedForm,
    corrected_texts,
    has_citations,
    has_content,
    list_unusual_fields,
    raise_if_answer,
)
from aligner_proxy.formats.responses_objects import (
    BEGINNING,
    DELTA,
    ITEM,
    ITEM_DONE,
    KEEPALIVE,
    PART,
    PART_DONE,
    POINTERS,
    TERMINAL,
    TEXT_DONE,
    PlacedText,
    TextPlace,
    as_list,
    edit_event_texts,
    edit_response_texts,
    get_field,
    kind_of,
    list_whole_items,
    litellm_types,
    make_empty_delta,
    read_place,
    with_field,
)
from aligner_proxy.formats.side_text import USUAL_FIELDS
from aligner_proxy.formats.stream_events import StreamDecoder, StreamEvent
from aligner_proxy.types import Exchange, Outcome, Turn, join_surrogates

if TYPE_CHECKING:
    from litellm.types.llms.openai import ResponsesAPIResponse

_ERROR = "error"
_EVENT_BEGINNINGS = ("response.", _ERROR, KEEPALIVE)
"""Beginnings of the kinds of events that a stream has."""
_DONE_KINDS = (TEXT_DONE, PART_DONE, ITEM_DONE)
"""Kinds of events that end a text."""
_CLIENT_CALLS = {
    *("function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call"),
    "mcp_approval_request",
}
"""Items that the client has to execute."""
_ITEMS_BESIDE_ANSWERS = {
    *("reasoning", "compaction", "web_search_call", "file_search_call", "code_interpreter_call", "mcp_call"),
    "mcp_list_tools",
}
"""Items next to which a message is still an answer to the user; others may have to be read together with its text."""


@cache
def _usual_fields() -> frozenset[str]:
    """The names of the fields of a response and of its text parts that are read by their names."""
    return USUAL_FIELDS | {*litellm_types().ResponsesAPIResponse.model_fields, "annotations", "logprobs"}


def exchanges(data: Mapping[str, Any], response: object) -> list[Exchange]:
    """Return an exchange for each non-empty text part, numbered in the order of the output."""
    if get_field(response, "output") is None:
        raise_if_answer(response)
        return []
    builder = ChoiceBuilder()
    _record_response(builder, response)
    texts = (text for _, text in _list_texts(response))
    return builder.make_exchanges(data, dict(enumerate(texts)), _turns(data), response)


def apply(response: Any, outcomes: Sequence[Outcome]) -> Any:
    """Return a copy of the response with the corrected texts, or the same response if there are none."""
    return _replace_texts(response, corrected_texts(outcomes), numbers=count())


@dataclass(slots=True)
class _OutputPart:
    """One text part of a stream: its pieces, and the whole texts that events gave for it."""

    pieces: GrowingText = field(default_factory=GrowingText)
    whole: str | None = None
    """The first whole text that an event gave."""
    agrees: bool = True
    """Whether all later whole texts equal the first one."""
    came_whole: bool = False
    """Whether the text ended before any piece of it had come."""

    def add_whole_text(self, whole: str, *, is_end: bool) -> bool:
        """Record a whole text that an event gave; return whether it equals earlier whole texts and the pieces so far.

        `is_end` says whether the event ends the text; only then may the text have come without pieces.
        """
        whole = join_surrogates(whole)
        self.came_whole |= is_end and not self.pieces
        if self.whole is None:
            self.whole = whole
        elif whole != self.whole:
            self.agrees = False
        expected = self.text if is_end else self.joined_pieces
        return self.agrees and whole == expected

    @property
    def joined_pieces(self) -> str:
        """The pieces so far as one text; letters that were cut in half between them are whole."""
        return join_surrogates(str(self.pieces))

    @property
    def text(self) -> str:
        """The text of the part: its pieces or, without pieces, the whole text."""
        return self.joined_pieces if self.pieces else self.whole or ""


class ResponsesDecoder(StreamDecoder):
    """Decoder of one stream of typed events; parts are numbered in the order in which they receive text."""

    is_one_answer = True

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self._turns = _turns(data)
        self._builder = ChoiceBuilder()
        """What the events so far say about the response, without its texts."""
        self._part_numbers: dict[TextPlace, int] = {}
        self._parts: list[_OutputPart] = []
        self._response_texts: list[str] | None = None
        """Texts of the first event that contains a whole response with texts; None before such an event."""
        self._form = RequestedForm.from_request(data)
        self._has_unplaced_text = False
        """Whether some event did not say which part it belongs to, so that parts cannot be followed."""
        self._contradicts_itself = False
        """Whether a whole text differed from the pieces before it."""
        self._has_events = False
        """Whether any item has a type, as events have."""
        self._first_response: ResponsesAPIResponse | None = None
        """The response as the stream began; a copy, since LiteLLM writes its own id into those that are delivered."""
        self._is_complete = False
        """Whether the event that ends the response has come."""

    def feed(self, item: object) -> list[StreamEvent]:
        """Read an item and return it as one event, with the numbers of the parts whose texts it has."""
        kind = kind_of(item)
        if not kind.startswith(_EVENT_BEGINNINGS):
            raise_if_answer(item)
        if not self._has_events:
            self._note_beginning(item)
        self._has_events |= bool(kind)
        self._is_complete |= kind in TERMINAL
        _record_event(self._builder, item)
        pieces: list[tuple[int, str]] = []
        repeated_texts: list[int] = []

        def note_text(placed: PlacedText) -> str:
            if not placed.text:
                return placed.text
            number = self._number_part(placed.place)
            part = self._parts[number]
            if placed.is_piece:
                pieces.append((number, placed.text))
                part.pieces.append(placed.text)
            else:
                repeated_texts.append(number)
                if not part.add_whole_text(placed.text, is_end=kind in _DONE_KINDS):
                    self._contradicts_itself = True
            return placed.text

        edit_event_texts(item, note_text)
        # An event that begins a part may have a whole text, too, but ends nothing.
        ended_texts = repeated_texts if kind in _DONE_KINDS else []
        has_response_texts = self._note_response(item, is_end=kind in TERMINAL)
        # A whole response repeats all texts, and a terminal event ends all.
        if has_response_texts or kind in TERMINAL:
            repeated_texts = list(self._part_numbers.values())
            ended_texts = repeated_texts if kind in TERMINAL else []
        return [
            StreamEvent(
                item,
                pieces=tuple(pieces),
                repeated_texts=tuple(repeated_texts),
                ended_texts=tuple(ended_texts),
                rewrite=self._rewrite_event,
                text_number=self._part_numbers.get(read_place(item)),
            )
        ]

    def exchange(self, index: int) -> Exchange:
        """The exchange of a part with its pieces so far, or with its whole text if it came without pieces."""
        part = self._parts[index] if self._parts else _OutputPart()
        return self._make_exchange(index, GrowingText(part.text) if part.came_whole else part.pieces)

    def exchange_without_text(self, index: int) -> Exchange:
        return self._make_exchange(index, GrowingText())

    def _make_exchange(self, index: int, pieces: GrowingText) -> Exchange:
        inconsistent = self._builder.inconsistent or self._has_unplaced_text
        builder = replace(self._builder, pieces=pieces, inconsistent=inconsistent)
        return builder.make_exchange(self._data, index, self._turns, None, self._form)

    @property
    def has_refusal(self) -> bool:
        return self._builder.refusal

    @property
    def contradicts_itself(self) -> bool:
        return self._contradicts_itself or self._has_unplaced_text or self._builder.inconsistent

    def exchanges(self) -> list[Exchange]:
        """The exchanges of all parts in order; a stream without a terminal event counts as broken off ("error")."""
        if not self._has_events:
            return []
        texts = {number: self._parts[number].text for number in self._numbers_in_order()}
        parts = [self._parts[number] for number in texts]
        # A part may have come only in pieces, without a whole text, or only as a whole text.
        parts_agree = all(part.agrees and part.whole in (None, part.text) for part in parts)
        # Not every stream ends with the whole response.
        response_agrees = self._response_texts in (None, list(texts.values()))
        builder = replace(
            self._builder,
            finish_reason=self._builder.finish_reason if self._is_complete else "error",
            inconsistent=self._builder.inconsistent or not (parts_agree and response_agrees),
        )
        return builder.make_exchanges(self._data, texts, self._turns, None)

    def beginning(self) -> object:
        """The event that begins the stream, with an empty response; clients fail on a stream that begins otherwise."""
        response = self._first_response
        if response is None:
            return None
        types = litellm_types()
        empty_response = types.ResponsesAPIResponse(
            **{name: getattr(response, name) for name in ("id", "object", "created_at", "model")},
            **{"status": "in_progress", "output": [], "tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
        )
        kind = types.ResponsesAPIStreamEvents.RESPONSE_CREATED
        return types.ResponseCreatedEvent(type=kind, response=empty_response, sequence_number=0)

    def empty_event(self, delivered: Sequence[object], _received: object) -> object:
        """Return an event with the response in progress or, within an item, an empty delta.

        None before the response was delivered, or if not all of its items are known. The event repeats the number of
        the event before it, because clients that lost a stream go on from the number that they saw last, and the
        upstream numbers only its own events.
        """
        last_event = next((event for event in reversed(delivered) if kind_of(event) != KEEPALIVE), None)
        if self._first_response is None or last_event is None:
            return None
        number = get_field(delivered[-1], "sequence_number")
        if kind_of(last_event) not in (*BEGINNING, *ITEM):
            return make_empty_delta(last_event, number)
        # Clients may replace what they have by the response in this event, so it must have all delivered items.
        items = list_whole_items(delivered)
        if items is None:
            return None
        types = litellm_types()
        return types.ResponseInProgressEvent(
            type=types.ResponsesAPIStreamEvents.RESPONSE_IN_PROGRESS,
            response=self._first_response.model_copy(update={"output": items}),
            sequence_number=number,
        )

    def _note_beginning(self, event: object) -> None:
        """Keep a copy of the response in an event if the stream begins with it."""
        if kind_of(event) not in BEGINNING or not opens_answer(event):
            return
        response = get_field(event, "response")
        if isinstance(response, litellm_types().ResponsesAPIResponse):
            self._first_response = response.model_copy()

    def _number_part(self, place: TextPlace) -> int:
        """Return the number of the part at this place; the first time, give the part the next number."""
        if place not in self._part_numbers:
            self._has_unplaced_text |= min(place) < 0  # -1 stands for an index that the upstream left out
            self._part_numbers[place] = len(self._part_numbers)
            self._parts.append(_OutputPart())
        return self._part_numbers[place]

    def _numbers_in_order(self) -> list[int]:
        """The numbers of the parts that have a text, in the order of the output."""
        return [number for _, number in sorted(self._part_numbers.items()) if self._parts[number].text]

    def _note_response(self, event: object, *, is_end: bool) -> bool:
        """Compare the texts of the response in an event with the parts, and record contradictions.

        The texts are compared by order, not by index. `is_end` says whether the event ends the response. Returns
        whether the event has a response with texts.
        """
        placed_texts = _list_texts(get_field(event, "response"))
        if not placed_texts:
            return False
        # The event that ends the response may be the only one with texts.
        is_only_source = is_end and not self._numbers_in_order()
        for place, text in placed_texts:
            number = self._number_part(place)
            if is_only_source:
                self._parts[number].add_whole_text(text, is_end=True)
        whole_texts = [join_surrogates(text) for _, text in placed_texts]
        if self._response_texts is None:
            self._response_texts = whole_texts
        # An earlier event may have repeated the response with other texts.
        self._builder.inconsistent |= whole_texts != self._response_texts
        parts = [self._parts[number] for number in self._numbers_in_order()]
        # Until the response ends, a part has no more text than its pieces.
        expected_texts = [part.text if is_end else part.joined_pieces for part in parts]
        self._contradicts_itself |= whole_texts != expected_texts
        return True

    def _rewrite_event(self, event: object, pieces: Sequence[str], whole_texts: Mapping[int, str]) -> object:
        """Return the event with new pieces and, by part number, new whole texts, also in a response that it has."""
        remaining_pieces = iter(pieces)

        def edit_text(placed: PlacedText) -> str:
            """Return the new text at a place: the next piece, or the whole text of the part there."""
            if not placed.text:
                return placed.text
            if placed.is_piece:
                return next(remaining_pieces)
            return whole_texts.get(self._part_numbers[placed.place], placed.text)

        edited_event = edit_event_texts(event, edit_text)
        response = get_field(event, "response")
        if response is None:
            return edited_event
        edited_response = _replace_texts(response, whole_texts, numbers=self._numbers_in_order())
        return with_field(edited_event, "response", edited_response)


decoder = ResponsesDecoder


def opens_answer(event: object) -> bool:
    """Whether an event begins a response, an empty message or text part, has reasoning, or is a heartbeat."""
    kind = kind_of(event)
    if kind in BEGINNING:
        return not has_content(get_field(get_field(event, "response"), "output"))
    if kind in ITEM:
        item = get_field(event, "item")
        begins_message = kind != ITEM_DONE and kind_of(item) == "message"
        is_empty = not has_content(get_field(item, "content"))
        return (begins_message and is_empty) or kind_of(item) == "reasoning"
    if kind in PART:
        part = get_field(event, "part")
        begins_text = kind != PART_DONE and kind_of(part) == "output_text"
        is_empty = not any(has_content(get_field(part, name)) for name in ("text", *POINTERS))
        return (begins_text and is_empty) or kind_of(part) == "reasoning_text"
    return kind == KEEPALIVE or kind.startswith("response.reasoning")


def _list_texts(response: object) -> list[tuple[TextPlace, str]]:
    """Return place and text of each non-empty text of a response, in order."""
    texts: list[tuple[TextPlace, str]] = []

    def note_text(placed: PlacedText) -> str:
        if placed.text:
            texts.append((placed.place, placed.text))
        return placed.text

    edit_response_texts(response, note_text)
    return texts


def _replace_texts(response: object, texts: Mapping[int, str], numbers: Iterable[int]) -> object:
    """Return the response with new texts by number; `numbers` are the numbers of its non-empty texts, in order."""
    remaining_numbers = iter(numbers)

    def edit_text(placed: PlacedText) -> str:
        """Return the new text with the next number, else the old text; an empty text has no number."""
        if not placed.text:
            return placed.text
        return texts.get(next(remaining_numbers, -1), placed.text)

    return edit_response_texts(response, edit_text) if texts else response


def _turns(data: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The conversation in this request; items without a role (calls, their outputs, reasoning) are left out."""
    request_input = data.get("input")
    if isinstance(request_input, str):
        messages = [{"role": "user", "content": request_input}]
    else:
        messages = [item for item in as_list(request_input) if get_field(item, "role")]
    return base.make_system_turn(data.get("instructions")) + base.read_turns(messages)


def _record_response(builder: ChoiceBuilder, response: object) -> None:
    """Record in the builder the finish reason of a whole response, and what its fields and items are."""
    reason = get_field(response, "status")
    if reason == "incomplete":
        reason = get_field(get_field(response, "incomplete_details"), "reason") or reason
    builder.finish_reason = str(reason) if reason else None
    builder.annotations |= has_citations(get_field(response, "provider_specific_fields"))
    builder.note_unusual_fields(list_unusual_fields(response, _usual_fields()))
    # A field `output_text` would be a second copy of the text that is not edited. (LiteLLM's objects also have a
    # property of this name, which is not sent.)
    fields = response if isinstance(response, dict) else getattr(response, "model_extra", None)
    builder.inconsistent |= has_content((fields or {}).get("output_text"))
    for item in as_list(get_field(response, "output")):
        _record_item(builder, item)


def _record_event(builder: ChoiceBuilder, event: object) -> None:
    """Record in the builder what an event says about the answer besides its text."""
    kind = kind_of(event)
    if kind in TERMINAL:
        _record_response(builder, get_field(event, "response"))
    elif kind in ITEM:
        _record_item(builder, get_field(event, "item"))
    elif kind in PART:
        _record_part(builder, get_field(event, "part"))
    elif kind == _ERROR:
        builder.finish_reason = "error"
    if kind == "response.refusal.delta":
        builder.add_refusal(get_field(event, "delta"), is_piece=True)
    elif kind == "response.refusal.done":
        builder.add_refusal(get_field(event, "refusal"), is_piece=False)
    builder.annotations |= kind == "response.output_text.annotation.added"
    builder.logprobs |= kind in (DELTA, TEXT_DONE) and has_content(get_field(event, "logprobs"))


def _record_item(builder: ChoiceBuilder, item: object) -> None:
    """Record in the builder the kind of an item of the response and, of a message, what its parts are."""
    kind = kind_of(item)
    if kind == "message":
        builder.note_unusual_fields(list_unusual_fields(item))
        for part in as_list(get_field(item, "content")):
            _record_part(builder, part)
    elif kind in _CLIENT_CALLS:
        builder.tool_calls = True
    elif kind not in _ITEMS_BESIDE_ANSWERS:
        builder.non_text = True


def _record_part(builder: ChoiceBuilder, part: object) -> None:
    """Record in the builder the kind of a part of a message, and what a text part has besides its text."""
    kind = get_field(part, "type")
    if kind == "output_text":
        builder.note_unusual_fields(list_unusual_fields(part, _usual_fields()))
        builder.annotations |= has_content(get_field(part, "annotations"))
        builder.logprobs |= has_content(get_field(part, "logprobs"))
    elif kind == "refusal":
        builder.refusal = True
        builder.add_refusal(get_field(part, "refusal"), is_piece=False)
    elif kind != "reasoning_text":  # reasoning is read elsewhere (reasoning.py) and never edited
        builder.non_text = True
