"""Reads or removes the reasoning that an upstream sends with its answer, in whole and streamed responses.

Reasoning has fields, blocks or items of its own, or stands between tags in the text of the answer (think_tags.py). It
is never edited. If the request offers tools, reasoning that the client may have to send back unchanged is kept:
thinking blocks, which are signed, and reasoning items of Responses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.formats import sse
from aligner_proxy.formats.answer_decoder import AnswerDecoder
from aligner_proxy.formats.base import GrowingText, RemainingNumbers, StreamEvent, has_content
from aligner_proxy.formats.responses_objects import DELTA, ITEM, as_list, get_field, kind_of, with_field
from aligner_proxy.formats.safe import SafeFormat, call_or_raise
from aligner_proxy.formats.side_text import keep_if_same
from aligner_proxy.formats.think_tags import remove_tags
from aligner_proxy.types import Exchange, join_surrogates, replace_surrogates

_PLAIN = ("reasoning_content", "reasoning")
_SIGNED = ("thinking_blocks", "reasoning_items")
"""Fields that the client may have to send back unchanged."""
FIELDS = (*_PLAIN, *_SIGNED, "reasoning_details")
"""Fields of a chat message or delta that hold reasoning."""
_THINKING = ("thinking", "redacted_thinking")
_REASONING = "reasoning"
_DELTAS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
_MESSAGES_DELTA = "content_block_delta"
_NEXT_PART = "response.reasoning_summary_part.added"
_BETWEEN = "\n\n"
"""Separates the parts of one reasoning."""
_MAX_PIECES = 200_000
"""Most pieces that are kept of one stream."""


class ReasoningStream(Protocol):
    """Reads or removes the reasoning of one stream, item by item."""

    def feed(self, item: object) -> list[object]:
        """The items to pass on in place of `item`."""

    def flush(self) -> list[object]:
        """The remaining items when the stream has ended."""

    def unread_items(self) -> list[object]:
        """Items that were fed earlier and not yet passed on."""

    @property
    def piece_count(self) -> int:
        """Number of the pieces of reasoning so far."""

    @property
    def texts(self) -> Mapping[int, str]:
        """The reasoning so far, by choice."""


class ReasoningForm(Protocol):
    """How a wire format transports reasoning."""

    def texts(self, response: Any) -> dict[int, str]:
        """The reasoning of a whole response, by choice."""

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """A copy without reasoning; the same response if there is none that may be removed."""

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> ReasoningStream:
        """A reader of one stream, which also removes the reasoning if `drop`."""


class SafeReasoning:
    """The reasoning of a route: what its form transports, and what stands between tags in the texts of its wire format.

    Raises `Unreadable` if reading reasoning fails, and `NotPutIn` if the response without it cannot be made.
    """

    def __init__(self, form: ReasoningForm, wire: SafeFormat) -> None:
        self._form = form
        self._wire = wire

    def texts(self, response: Any) -> dict[int, str]:
        """The reasoning of a whole response, by choice; raises `Unreadable`."""
        texts = call_or_raise(Unreadable, self._form.texts, response)
        texts = _join_texts(texts, _tagged_texts(self._wire.exchanges({}, response)))
        return {index: replace_surrogates(text) for index, text in texts.items()}

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """A copy without reasoning; raises `NotPutIn`."""
        remaining = call_or_raise(NotPutIn, self._form.remove_reasoning, data, response)
        return self._wire.remove_reasoning(data, remaining)

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> SafeReasoningStream:
        """A reader of one stream, which also removes the reasoning if `drop`."""
        decoder = AnswerDecoder(self._wire.decoder(data), data, drop=drop)
        return SafeReasoningStream(self._form.open_stream(data, drop=drop), decoder, NotPutIn if drop else Unreadable)


class SafeReasoningStream:
    """Wrapper of a stream reader that raises every error as `error_type`; also reads or removes reasoning between tags.

    `decoder` finds the reasoning between tags.
    """

    def __init__(
        self, stream: ReasoningStream, decoder: AnswerDecoder, error_type: type[NotPutIn | Unreadable]
    ) -> None:
        self._stream = stream
        self._decoder = decoder
        self._error_type = error_type
        self._tagged_event_count = 0
        """Number of events with reasoning between tags."""

    def feed(self, item: object) -> list[object]:
        """The items to pass on in place of `item`; raises the `error_type` given at construction."""
        items = call_or_raise(self._error_type, self._stream.feed, item)
        return self._pass_events(event for item in items for event in self._decoder.feed(item))

    def flush(self) -> list[object]:
        """The remaining items when the stream has ended; raises the `error_type` given at construction."""
        items = call_or_raise(self._error_type, self._stream.flush)
        events = [event for item in items for event in self._decoder.feed(item)]
        return self._pass_events([*events, *self._decoder.flush()])

    def unread_items(self) -> list[object]:
        return [*(event.original for event in self._decoder.flush()), *self._stream.unread_items()]

    def _pass_events(self, events: Iterable[StreamEvent]) -> list[object]:
        """The items of events, without those of which nothing remains."""
        items: list[object] = []
        for event in events:
            if event.divided_texts and not event.repeated_texts:
                self._tagged_event_count += 1
            was_emptied = event.divided_texts and self._decoder.drops and _is_empty(event)
            if not was_emptied:
                items.append(event.original)
        return items

    @property
    def is_unreadable(self) -> bool:
        """Whether reasoning between tags can no longer be found or removed; items then pass unchanged."""
        return self._decoder.fault is not None

    @property
    def piece_count(self) -> int:
        """Number of pieces of reasoning so far."""
        return self._stream.piece_count + self._tagged_event_count

    @property
    def texts(self) -> dict[int, str]:
        """The reasoning so far, by choice, with that between tags."""
        texts = {index: join_surrogates(text) for index, text in self._stream.texts.items()}
        # building the exchanges takes time, and nearly no stream has such tags
        tagged_texts = _tagged_texts(self._decoder.exchanges()) if self._tagged_event_count else {}
        return _join_texts(texts, tagged_texts)


def _tagged_texts(exchanges: Iterable[Exchange]) -> dict[int, str]:
    """The reasoning between tags of each exchange, by the exchange's index."""
    return {exchange.index: remove_tags(exchange.tagged_reasoning) for exchange in exchanges}


def _join_texts(*sources: Mapping[int, str]) -> dict[int, str]:
    """The texts of all sources, by choice; choices whose text is empty are left out."""
    texts_by_index: dict[int, list[str]] = {}
    for texts in sources:
        for index, text in texts.items():
            if text.strip():
                texts_by_index.setdefault(index, []).append(text)
    return {index: _BETWEEN.join(texts) for index, texts in sorted(texts_by_index.items())}


def _must_come_back(data: Mapping[str, Any]) -> bool:
    """Whether the client may have to send reasoning back unchanged, because the request offers tools."""
    return has_content(data.get("tools")) or has_content(data.get("functions"))


class _CollectedReasoning:
    """Reasoning gathered from a stream, by choice."""

    def __init__(self) -> None:
        self._texts: dict[int, GrowingText] = defaultdict(GrowingText)
        """By choice."""
        self._breaks: set[int] = set()
        """Choices whose next piece begins a new part."""
        self.piece_count = 0
        """Number of pieces."""

    def add(self, index: int, piece: str) -> None:
        """Add a piece to the reasoning of a choice; beyond `_MAX_PIECES` pieces are ignored."""
        if piece and self.piece_count < _MAX_PIECES:
            self.piece_count += 1
            # the first part has none before it to be separated from
            if index in self._breaks and index in self._texts:
                self._texts[index].append(_BETWEEN)
            self._breaks.discard(index)
            self._texts[index].append(piece)

    def unread_items(self) -> list[object]:
        """Nothing, since no item is held back."""
        return []

    def flush(self) -> list[object]:
        """Nothing, since no item is held back."""
        return []

    def begin_part(self) -> None:
        """Let the next piece of the first choice's reasoning begin a new part, separated by a blank line."""
        self._breaks.add(0)

    @property
    def texts(self) -> Mapping[int, str]:
        return {index: str(text) for index, text in self._texts.items()}


class ChatReasoning:
    """Reasoning in the fields of a chat message and its deltas."""

    def texts(self, response: Any) -> dict[int, str]:
        choices = getattr(response, "choices", None) or ()
        return {index: _body_reasoning(getattr(choice, "message", None)) for index, choice in enumerate(choices)}

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """A copy whose messages have no reasoning."""
        if getattr(response, "choices", None) is None:
            return response
        return _strip_choices(response, "message", keeps_signed=_must_come_back(data))

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> ReasoningStream:
        return _ChatReasoningStream(drop=drop, keeps_signed=_must_come_back(data))


class _ChatReasoningStream(_CollectedReasoning):
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
        remaining = _strip_choices(item, "delta", keeps_signed=self._keeps_signed)
        # a chunk that held only reasoning is not passed on empty
        return [] if remaining is not item and not _carries_more(remaining) else [remaining]


def _body_reasoning(body: Any) -> str:
    """The reasoning of a message or delta, from the first field that has any."""
    for name in _PLAIN:
        text = getattr(body, name, None)
        if isinstance(text, str) and text:
            return text
    return "".join(_thinking_text(block) for block in as_list(getattr(body, "thinking_blocks", None)))


def _thinking_text(block: object) -> str:
    """The thinking in a block or delta; empty if it has none."""
    text = get_field(block, "thinking")
    return text if isinstance(text, str) else ""


def _strip_choices(response: Any, name: str, *, keeps_signed: bool) -> Any:
    """The response without the reasoning in field `name` of its choices, "message" or "delta".

    Returns the same object if there is no reasoning that may be removed. `keeps_signed` is as in `_strip_body`.
    """
    bodies = [getattr(choice, name, None) for choice in response.choices]
    bare_bodies = keep_if_same([_strip_body(body, keeps_signed=keeps_signed) for body in bodies], bodies)
    # the same object tells the caller that nothing has to be sent again
    if bare_bodies is bodies:
        return response
    copy = response.model_copy()
    copy.choices = [choice.model_copy() for choice in response.choices]
    for choice, body in zip(copy.choices, bare_bodies, strict=True):
        setattr(choice, name, body)
    return copy


def _strip_body(body: Any, *, keeps_signed: bool) -> Any:
    """A copy of a message or delta without reasoning; the same object if nothing may be removed.

    If `keeps_signed`, nothing is removed from a body with reasoning that its provider signed: the client must send that
    back unchanged.
    """
    provider_fields = getattr(body, "provider_specific_fields", None)
    if not isinstance(provider_fields, Mapping):
        provider_fields = {}
    provider_names = [name for name in FIELDS if name in provider_fields]
    body_names = [name for name in FIELDS if has_content(getattr(body, name, None))]
    names = {*body_names, *provider_names}
    if not names or (keeps_signed and not names.isdisjoint(_SIGNED)):
        return body
    copy = body.model_copy()
    for name in body_names:
        delattr(copy, name)  # LiteLLM itself omits a field in this way
    if provider_names:
        remaining_fields = {name: value for name, value in provider_fields.items() if name not in names}
        copy.provider_specific_fields = remaining_fields or None
    return copy


def _is_empty(event: StreamEvent) -> bool:
    """Whether nothing is left of an event whose reasoning was removed."""
    if event.pieces or event.repeated_texts or event.ended_texts:
        return False
    item = event.original
    if getattr(item, "choices", None) is not None:
        return not _carries_more(item)
    return kind_of(sse.as_frame(item).event or item) in (_MESSAGES_DELTA, DELTA)


def _carries_more(chunk: Any) -> bool:
    """Whether a chunk still has content after its reasoning was removed."""
    usage = getattr(chunk, "usage", None)
    # every chunk of a text completion has a usage, all but the last one of no tokens
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
        """The thinking of the message, listed as choice 0."""
        blocks = as_list(get_field(response, "content")) if isinstance(response, dict) else []
        return {0: _BETWEEN.join(filter(None, map(_thinking_text, blocks)))}

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """A copy without thinking blocks."""
        blocks = as_list(get_field(response, "content")) if isinstance(response, dict) else []
        remaining = [block for block in blocks if kind_of(block) not in _THINKING]
        if len(remaining) == len(blocks) or _must_come_back(data):
            return response
        return {**response, "content": remaining}

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> ReasoningStream:
        return _MessagesReasoningStream(drop=drop and not _must_come_back(data))


class _MessagesReasoningStream(_CollectedReasoning):
    """Reader of a stream of Messages; with `drop`, removes thinking blocks and renumbers the others."""

    def __init__(self, *, drop: bool) -> None:
        super().__init__()
        self._splitter = sse.FrameSplitter()
        self._numbers = RemainingNumbers(enabled=drop)
        """New numbers of the blocks that remain."""

    def feed(self, item: object) -> list[object]:
        frames = self._splitter.feed(item)
        return [item for frame in frames for item in self._pass_frame(frame)]

    def flush(self) -> list[object]:
        return [item for frame in self._splitter.flush() for item in self._pass_frame(frame)]

    def unread_items(self) -> list[object]:
        return [frame.item for frame in self._splitter.flush()]

    def _pass_frame(self, frame: sse.EventFrame) -> Iterator[object]:
        """Record the reasoning in an event; yield the event with its new number, unless its block is removed."""
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
        """The reasoning of the response, listed as choice 0."""
        items = as_list(get_field(response, "output"))
        return {0: _BETWEEN.join(filter(None, map(_item_reasoning, items)))}

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """A copy without reasoning items."""
        has_items = get_field(response, "output") is not None
        return _strip_items(response) if has_items and not _must_come_back(data) else response

    def open_stream(self, data: Mapping[str, Any], *, drop: bool) -> ReasoningStream:
        return _ResponsesReasoningStream(drop=drop and not _must_come_back(data))


class _ResponsesReasoningStream(_CollectedReasoning):
    """Reader of a stream of Responses; with `drop`, removes reasoning items and renumbers the others."""

    def __init__(self, *, drop: bool) -> None:
        super().__init__()
        self._drop = drop
        self._numbers = RemainingNumbers(enabled=drop)
        """New numbers of the items that remain."""

    def feed(self, item: object) -> list[object]:
        """Record the reasoning in an event; return the event with its new number, or nothing if it is removed."""
        kind = kind_of(item)
        if kind in _DELTAS and isinstance(get_field(item, "delta"), str):
            self.add(0, get_field(item, "delta"))
        if kind == _NEXT_PART:
            self.begin_part()
        if not self._drop:
            return [item]
        index = get_field(item, "output_index")
        if kind in ITEM and kind_of(get_field(item, "item")) == _REASONING:
            self._numbers.remove(index)
        # all events about a removed item go, even those that do not say its number
        if self._numbers.is_removed(index) or kind.startswith("response.reasoning"):
            return []
        number = self._numbers.new_number(index)
        renumbered = item if number == index else with_field(item, "output_index", number)
        response = get_field(renumbered, "response")
        return [renumbered if response is None else with_field(renumbered, "response", _strip_items(response))]


def _item_reasoning(item: object) -> str:
    """The text of a reasoning item: its summary or, without one, its content."""
    if kind_of(item) != _REASONING:
        return ""
    for name in ("summary", "content"):
        texts = [get_field(part, "text") for part in as_list(get_field(item, name))]
        strings = [text for text in texts if isinstance(text, str)]
        if strings:
            return _BETWEEN.join(strings)
    return ""


def _strip_items(response: Any) -> Any:
    """The response without reasoning items; the same object if it has none."""
    items = as_list(get_field(response, "output"))
    remaining = [item for item in items if kind_of(item) != _REASONING]
    return response if len(remaining) == len(items) else with_field(response, "output", remaining)
