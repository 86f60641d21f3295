"""Reads or removes the reasoning that an upstream sends with its answer, in whole and streamed responses.

Reasoning has fields, blocks or items of its own, or stands between tags in the text of the answer (think_tags.py). It
is never edited. If the request offers tools, reasoning that the client may have to send back unchanged is kept:
thinking blocks, which are signed, and reasoning items of Responses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.formats import sse
from aligner_proxy.formats.answer_decoder import AnswerDecoder
from aligner_proxy.formats.base import GrowingText, has_content
from aligner_proxy.formats.copies import drop_foreign_logprobs
from aligner_proxy.formats.responses_objects import DELTA, ITEM, as_list, get_field, kind_of, with_field
from aligner_proxy.formats.safe import SafeFormat, call_or_raise
from aligner_proxy.formats.side_text import keep_if_same
from aligner_proxy.formats.stream_events import RemainingNumbers, StreamEvent
from aligner_proxy.formats.think_tags import remove_tags
from aligner_proxy.types import Exchange, join_surrogates, replace_surrogates

_PLAIN_FIELDS = ("reasoning_content", "reasoning")
_SIGNED_FIELDS = ("thinking_blocks", "reasoning_items")
"""Fields that the client may have to send back unchanged."""
FIELDS = (*_PLAIN_FIELDS, *_SIGNED_FIELDS, "reasoning_details")
"""Fields of a chat message or delta that hold reasoning."""
_THINKING = ("thinking", "redacted_thinking")
_REASONING = "reasoning"
_DELTAS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_EVENT_NUMBER = "sequence_number"
"""Field with the number of an event of Responses. Some clients take a gap between two numbers for a lost event."""
_PART_SEPARATOR = "\n\n"
"""Separates the parts of one reasoning."""
_MAX_PIECES = 200_000
"""Most pieces that are kept of one stream."""


class ReasoningForm(Protocol):
    """How a wire format transports reasoning."""

    def texts(self, response: Any) -> dict[int, str]:
        """The reasoning of a whole response, by choice."""

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """A copy without reasoning; the same response if it has no reasoning that may be removed."""

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> ReasoningStream:
        """A reader of one stream, which also removes the reasoning if `drop` is set."""


class SafeReasoning:
    """Reader and remover of the reasoning of a route: in fields (`form`), and between tags in texts (`wire`)."""

    def __init__(self, form: ReasoningForm, wire: SafeFormat) -> None:
        self._form = form
        self._wire = wire

    def texts(self, response: Any) -> dict[int, str]:
        """Return the reasoning of a whole response by choice; raises `Unreadable`."""
        field_texts = call_or_raise(Unreadable, self._form.texts, response)
        tagged_texts = _tagged_texts(self._wire.exchanges({}, response))
        return {index: replace_surrogates(text) for index, text in _join_texts(field_texts, tagged_texts).items()}

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """Return a copy of the response without reasoning; raises `NotPutIn`."""
        response = call_or_raise(NotPutIn, self._form.remove_reasoning, data, response)
        return self._wire.remove_reasoning(data, response)

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> SafeReasoningStream:
        """Return a reader of one stream, which also removes the reasoning if `drop` is set."""
        stream = self._form.open_stream(data, drop=drop)
        decoder = AnswerDecoder(self._wire.decoder(data), data, drop=drop)
        return SafeReasoningStream(stream, decoder, error_type=NotPutIn if drop else Unreadable)


class SafeReasoningStream:
    """Reader of the reasoning of one stream, which also removes it if its `stream` and `decoder` do.

    `stream` reads reasoning in fields, and `decoder` reads it between tags. Every error is raised as `error_type`.
    """

    def __init__(
        self, stream: ReasoningStream, decoder: AnswerDecoder, error_type: type[NotPutIn | Unreadable]
    ) -> None:
        self._stream = stream
        self._decoder = decoder
        self._error_type = error_type
        self._tagged_event_count = 0
        """Number of events with reasoning between tags."""
        self._event_numbers = RemainingNumbers()
        """New numbers of the events that remain, if the format numbers them."""
        self._begun_answers: set[int] = set()
        """Numbers of the texts whose answer has begun; only kept if the reasoning is removed."""

    def feed(self, item: object) -> list[object]:
        """Return the items to pass on in place of `item`; raises the `error_type` given at construction."""
        items = call_or_raise(self._error_type, self._stream.feed, item)
        if not items:
            self._event_numbers.remove(get_field(item, _EVENT_NUMBER))
        return self._take_items(event for item in items for event in self._decoder.feed(item))

    def flush(self) -> list[object]:
        """Return the remaining items when the stream has ended; raises the `error_type` given at construction."""
        items = call_or_raise(self._error_type, self._stream.flush)
        events = [event for item in items for event in self._decoder.feed(item)]
        return self._take_items([*events, *self._decoder.flush()])

    def unread_items(self) -> list[object]:
        return [*(event.original for event in self._decoder.flush()), *self._stream.unread_items()]

    def _take_items(self, events: Iterable[StreamEvent]) -> list[object]:
        """Return the items of events, without events of which nothing remains once their reasoning is removed."""
        items: list[object] = []
        for event in events:
            if event.divided_texts and not event.repeated_texts:
                self._tagged_event_count += 1
            was_emptied = event.divided_texts and self._decoder.drops_reasoning and _is_empty(event)
            item = event.original
            if was_emptied:
                self._event_numbers.remove(get_field(item, _EVENT_NUMBER))
            else:
                items.append(call_or_raise(self._error_type, self._adapt_item, event, item))
        return items

    def _adapt_item(self, event: StreamEvent, item: object) -> object:
        """Return the item of an event with its new number, and without probabilities of removed tokens."""
        if self._decoder.drops_reasoning and not self.is_unreadable:
            item = self._drop_early_logprobs(event, item)
        number = get_field(item, _EVENT_NUMBER)
        new_number = self._event_numbers.new_number(number)
        return item if new_number == number else with_field(item, _EVENT_NUMBER, new_number)

    def _drop_early_logprobs(self, event: StreamEvent, item: Any) -> object:
        """Return the item without probabilities of other tokens than its own, where the answer beside them has not
        begun; the same item if it has none.

        Tokens may come before their text, so they may be tokens of reasoning although no tag has come yet. Once an
        answer has begun, all its tokens are its own.
        """
        choices = getattr(item, "choices", None)
        if isinstance(choices, list):
            stripped_choices = keep_if_same([self._strip_choice(choice) for choice in choices], choices)
            if stripped_choices is not choices:
                item = item.model_copy(update={"choices": stripped_choices})
            self._begun_answers.update(choice.index for choice in choices if _has_answer(choice))
        elif event.divided_texts or not self._has_begun(event):
            item = drop_foreign_logprobs(item, keeps_ending=True)
        self._begun_answers.update(index for index, piece in event.pieces if piece)
        return item

    def _strip_choice(self, choice: Any) -> Any:
        return choice if choice.index in self._begun_answers else drop_foreign_logprobs(choice, keeps_ending=True)

    def _has_begun(self, event: StreamEvent) -> bool:
        """Whether the answers in all texts of an event have begun; False if it is not known which texts it has."""
        numbers = {*(index for index, _ in event.pieces), *event.repeated_texts}
        own_number = event.text_number if event.block is None else event.block.text_number
        if own_number is not None:
            numbers.add(own_number)
        return bool(numbers) and numbers <= self._begun_answers

    @property
    def is_unreadable(self) -> bool:
        """Whether reasoning between tags can no longer be found or removed; items then pass unchanged."""
        return self._decoder.fault is not None

    @property
    def piece_count(self) -> int:
        return self._stream.piece_count + self._tagged_event_count

    @property
    def texts(self) -> dict[int, str]:
        """The reasoning so far by choice: that in fields, then that between tags."""
        field_texts = {index: join_surrogates(text) for index, text in self._stream.texts.items()}
        # Building the exchanges takes time, and nearly no stream has such tags.
        tagged_texts = _tagged_texts(self._decoder.exchanges()) if self._tagged_event_count else {}
        return _join_texts(field_texts, tagged_texts)


def _tagged_texts(exchanges: Iterable[Exchange]) -> dict[int, str]:
    """The reasoning between tags of each exchange, by the exchange's index."""
    return {exchange.index: remove_tags(exchange.tagged_reasoning) for exchange in exchanges}


def _join_texts(*sources: Mapping[int, str]) -> dict[int, str]:
    """Join the texts of all sources for each choice; empty texts, and choices without other texts, are left out."""
    texts_by_index: dict[int, list[str]] = {}
    for texts in sources:
        for index, text in texts.items():
            if text.strip():
                texts_by_index.setdefault(index, []).append(text)
    return {index: _PART_SEPARATOR.join(texts) for index, texts in sorted(texts_by_index.items())}


def _must_come_back(data: Mapping[str, Any]) -> bool:
    """Whether the client may have to send reasoning back unchanged, because the request offers tools."""
    return has_content(data.get("tools")) or has_content(data.get("functions"))


class ReasoningStream(ABC):
    """Reads or removes the reasoning of one stream, item by item, and gathers it by choice."""

    def __init__(self) -> None:
        self._texts: dict[int, GrowingText] = defaultdict(GrowingText)
        """The reasoning so far, by index of the choice."""
        self._begins_part = False
        """Whether the next piece begins a new part; only in formats with a single choice."""
        self.piece_count = 0

    @abstractmethod
    def feed(self, item: Any) -> list[object]:
        """Record the reasoning in an item; return the items to pass on in its place."""

    def flush(self) -> list[object]:
        """The remaining items when the stream has ended."""
        return []

    def unread_items(self) -> list[object]:
        """Items that were fed earlier and not yet passed on."""
        return []

    def add(self, index: int, piece: str) -> None:
        """Add a piece to the reasoning of the choice `index`; it is ignored if `_MAX_PIECES` pieces have come."""
        if piece and self.piece_count < _MAX_PIECES:
            self.piece_count += 1
            # No separator is needed before the first part.
            if self._begins_part and index in self._texts:
                self._texts[index].append(_PART_SEPARATOR)
            self._begins_part = False
            self._texts[index].append(piece)

    def begin_part(self) -> None:
        """Let the next piece begin a new part, separated by a blank line."""
        self._begins_part = True

    @property
    def texts(self) -> Mapping[int, str]:
        """The reasoning so far, by choice."""
        return {index: str(text) for index, text in self._texts.items()}


class ChatReasoning:
    """Reasoning in the fields of a chat message and its deltas."""

    def texts(self, response: Any) -> dict[int, str]:
        choices = getattr(response, "choices", None) or ()
        return {index: _body_reasoning(getattr(choice, "message", None)) for index, choice in enumerate(choices)}

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        if getattr(response, "choices", None) is None:
            return response
        return _strip_choices(response, "message", keeps_signed=_must_come_back(data))

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> ReasoningStream:
        return _ChatReasoningStream(drop=drop, keeps_signed=_must_come_back(data))


class _ChatReasoningStream(ReasoningStream):
    """Reader of a stream of chunks; with `drop`, removes reasoning, but no signed fields if `keeps_signed`."""

    def __init__(self, *, drop: bool, keeps_signed: bool) -> None:
        super().__init__()
        self._drop = drop
        self._keeps_signed = keeps_signed

    def feed(self, item: Any) -> list[object]:
        """Record the reasoning in a chunk; return the chunk, or what is left of it, or nothing."""
        if getattr(item, "choices", None) is None:
            return [item]
        for choice in item.choices:
            self.add(choice.index, _body_reasoning(getattr(choice, "delta", None)))
        if not self._drop:
            return [item]
        stripped_item = _strip_choices(item, "delta", keeps_signed=self._keeps_signed)
        had_only_reasoning = stripped_item is not item and not _has_other_content(stripped_item)
        return [] if had_only_reasoning else [stripped_item]


def _body_reasoning(body: Any) -> str:
    """The reasoning of a message or delta, from the first field that has any."""
    for name in _PLAIN_FIELDS:
        text = getattr(body, name, None)
        if isinstance(text, str) and text:
            return text
    return "".join(_thinking_text(block) for block in as_list(getattr(body, "thinking_blocks", None)))


def _thinking_text(block: object) -> str:
    """The thinking in a block or delta; empty if it has none."""
    text = get_field(block, "thinking")
    return text if isinstance(text, str) else ""


def _strip_choices(response: Any, name: str, *, keeps_signed: bool) -> Any:
    """Return a response or chunk without reasoning in field `name` of its choices; the same object if none may go."""
    bodies = [getattr(choice, name, None) for choice in response.choices]
    stripped_bodies = keep_if_same([_strip_body(body, keeps_signed=keeps_signed) for body in bodies], bodies)
    if stripped_bodies is bodies:
        return response
    stripped_response = response.model_copy()
    stripped_response.choices = [choice.model_copy() for choice in response.choices]
    for index, (body, stripped_body) in enumerate(zip(bodies, stripped_bodies, strict=True)):
        if stripped_body is not body:
            setattr(stripped_response.choices[index], name, stripped_body)
            # The token probabilities of some upstreams have the tokens of reasoning, too.
            choice = stripped_response.choices[index]
            stripped_response.choices[index] = drop_foreign_logprobs(choice, keeps_ending=True)
    return stripped_response


def _strip_body(body: Any, *, keeps_signed: bool) -> Any:
    """Return a copy of a message or delta without reasoning; the same object if nothing may be removed.

    If `keeps_signed` is set, nothing is removed from a body with reasoning that its provider signed, because the client
    must send such reasoning back unchanged.
    """
    provider_fields = getattr(body, "provider_specific_fields", None)
    if not isinstance(provider_fields, Mapping):
        provider_fields = {}
    provider_names = [name for name in FIELDS if name in provider_fields]
    body_names = [name for name in FIELDS if has_content(getattr(body, name, None))]
    names = {*body_names, *provider_names}
    if not names or (keeps_signed and not names.isdisjoint(_SIGNED_FIELDS)):
        return body
    stripped_body = body.model_copy()
    for name in body_names:
        delattr(stripped_body, name)  # LiteLLM itself omits a field in this way
    if provider_names:
        remaining_fields = {name: value for name, value in provider_fields.items() if name not in names}
        stripped_body.provider_specific_fields = remaining_fields or None
    return stripped_body


def _has_answer(choice: Any) -> bool:
    """Whether the delta of a choice has something that only comes after the reasoning and is no text of the answer."""
    delta = getattr(choice, "delta", None)
    return any(has_content(getattr(delta, name, None)) for name in ("tool_calls", "function_call", "refusal"))


def _is_empty(event: StreamEvent) -> bool:
    """Whether nothing is left of an event whose reasoning was removed."""
    if event.pieces or event.repeated_texts or event.ended_texts:
        return False
    item = event.original
    if getattr(item, "choices", None) is not None:
        return not _has_other_content(item)
    return kind_of(sse.as_frame(item).event or item) in ("content_block_delta", DELTA)


def _has_other_content(chunk: Any) -> bool:
    """Whether a chunk still has content after its reasoning was removed."""
    usage = getattr(chunk, "usage", None)
    # Every chunk of a text completion has a usage, but only the last one counts tokens.
    if has_content(usage) and getattr(usage, "total_tokens", None) != 0:
        return True
    for choice in chunk.choices:
        values = [value for name, value in getattr(choice, "delta", ()) if name != "provider_specific_fields"]
        if choice.finish_reason or any(has_content(value) for value in values):
            return True
    return False


class MessagesReasoning:
    """Thinking blocks of a Messages response."""

    def texts(self, response: Any) -> dict[int, str]:
        """Return the thinking of the message as that of choice 0."""
        blocks = as_list(get_field(response, "content")) if isinstance(response, dict) else []
        return {0: _PART_SEPARATOR.join(filter(None, map(_thinking_text, blocks)))}

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """Return a copy without thinking blocks; the same response if it has none that may be removed."""
        blocks = as_list(get_field(response, "content")) if isinstance(response, dict) else []
        remaining_blocks = [block for block in blocks if kind_of(block) not in _THINKING]
        if len(remaining_blocks) == len(blocks) or _must_come_back(data):
            return response
        return {**response, "content": remaining_blocks}

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> ReasoningStream:
        return _MessagesReasoningStream(drop=drop and not _must_come_back(data))


class _MessagesReasoningStream(ReasoningStream):
    """Reader of a stream of Messages; with `drop`, removes thinking blocks and renumbers the others."""

    def __init__(self, *, drop: bool) -> None:
        super().__init__()
        self._splitter = sse.FrameSplitter()
        self._numbers = RemainingNumbers(enabled=drop)
        """New numbers of the blocks that remain."""

    def feed(self, item: object) -> list[object]:
        frames = self._splitter.feed(item)
        return [item for frame in frames for item in self._take_items(frame)]

    def flush(self) -> list[object]:
        return [item for frame in self._splitter.flush() for item in self._take_items(frame)]

    def unread_items(self) -> list[object]:
        return [frame.item for frame in self._splitter.flush()]

    def _take_items(self, frame: sse.EventFrame) -> Iterator[object]:
        """Record the reasoning in an event; yield the event with its block's new index, unless the block is removed."""
        event = frame.event or {}
        block = event.get("content_block")
        index = event.get("index")
        if isinstance(block, Mapping) and kind_of(dict(block)) in _THINKING:
            self.begin_part()
            self.add(0, _thinking_text(block))
            self._numbers.remove(index)
        delta = event.get("delta")
        if isinstance(delta, Mapping):
            self.add(0, _thinking_text(delta))
        if not self._numbers.is_removed(index):
            yield frame.with_index(self._numbers.new_number(index))


class ResponsesReasoning:
    """Reasoning items of a Responses response."""

    def texts(self, response: Any) -> dict[int, str]:
        """Return the reasoning of the response as that of choice 0."""
        items = as_list(get_field(response, "output"))
        return {0: _PART_SEPARATOR.join(filter(None, map(_item_reasoning, items)))}

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """Return a copy without reasoning items; the same response if it has none that may be removed."""
        has_items = get_field(response, "output") is not None
        return _strip_items(response) if has_items and not _must_come_back(data) else response

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> ReasoningStream:
        return _ResponsesReasoningStream(drop=drop and not _must_come_back(data))


class _ResponsesReasoningStream(ReasoningStream):
    """Reader of a stream of Responses; with `drop`, removes reasoning items and renumbers the others."""

    def __init__(self, *, drop: bool) -> None:
        super().__init__()
        self._drop = drop
        self._numbers = RemainingNumbers(enabled=drop)
        """New numbers of the items that remain."""

    def feed(self, item: object) -> list[object]:
        """Record the reasoning in an event; return the event with its item's new index, or nothing if it is removed."""
        kind = kind_of(item)
        if kind in _DELTAS and isinstance(get_field(item, "delta"), str):
            self.add(0, get_field(item, "delta"))
        if kind == "response.reasoning_summary_part.added":
            self.begin_part()
        if not self._drop:
            return [item]
        index = get_field(item, "output_index")
        if kind in ITEM and kind_of(get_field(item, "item")) == _REASONING:
            self._numbers.remove(index)
        # All events about a removed item are removed, even those that do not have its index.
        if self._numbers.is_removed(index) or kind.startswith("response.reasoning"):
            return []
        new_index = self._numbers.new_number(index)
        if new_index != index:
            item = with_field(item, "output_index", new_index)
        response = get_field(item, "response")
        return [item if response is None else with_field(item, "response", _strip_items(response))]


def _item_reasoning(item: object) -> str:
    """The text of a reasoning item: its summary or, without one, its content."""
    if kind_of(item) != _REASONING:
        return ""
    for name in ("summary", "content"):
        texts = [get_field(part, "text") for part in as_list(get_field(item, name))]
        strings = [text for text in texts if isinstance(text, str)]
        if strings:
            return _PART_SEPARATOR.join(strings)
    return ""


def _strip_items(response: Any) -> Any:
    """Return the response without reasoning items; the same object if it has none."""
    items = as_list(get_field(response, "output"))
    remaining_items = [item for item in items if kind_of(item) != _REASONING]
    return response if len(remaining_items) == len(items) else with_field(response, "output", remaining_items)
