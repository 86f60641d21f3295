"""Wrappers of wire formats and stream decoders that turn their failures into exchanges with a fault.

LiteLLM's objects may hold anything, and no answer may be lost because it cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from aligner_proxy.errors import CopyStays, NotPutIn, Unreadable
from aligner_proxy.formats.base import Wire
from aligner_proxy.formats.stream_events import StreamDecoder, StreamEvent
from aligner_proxy.formats.think_tags import OPENING, divide_exchange
from aligner_proxy.types import Exchange, Outcome, Policy, Status, is_first_half, join_surrogates

MAX_TEXTS = 256
"""Most texts in one stream. A stream with more is not read, since each text costs work on every event."""
_NO_POLICY = Policy(name="-")
"""Given to `Wire.apply` in place of a policy, with texts that no policy chose."""
_T = TypeVar("_T")


class SafeFormat:
    """Wrapper of a wire format that turns its failures into exchanges with a fault; other attributes are its own."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def exchanges(self, data: Mapping[str, Any], response: Any) -> list[Exchange]:
        """Return the exchanges of a response, without reasoning between tags, or one that says why reading failed."""
        try:
            exchanges = _check_indices(call_or_raise(Unreadable, self._wire.exchanges, data, response))
        except Unreadable as error:
            return [_faulty_exchange(data, str(error))]
        return [
            divide_exchange(exchange) if OPENING.match(exchange.answer or "") else exchange for exchange in exchanges
        ]

    def apply(self, response: Any, outcomes: Sequence[Outcome], exchanges: Sequence[Exchange] = ()) -> Any:
        """Return a copy of the response with the corrected texts; raises `NotPutIn`.

        `exchanges` are those of the response; reasoning that stands between tags before their answers stays there.
        """
        reasoning = {exchange.index: exchange.tagged_reasoning for exchange in exchanges if exchange.tagged_reasoning}
        if reasoning:
            outcomes = [
                replace(outcome, text=reasoning.get(outcome.index, "") + (outcome.text or "")) for outcome in outcomes
            ]
        return call_or_raise(NotPutIn, self._wire.apply, response, outcomes)

    def remove_reasoning(self, data: Mapping[str, Any], response: Any) -> Any:
        """Return a copy of a response without tagged reasoning; the same response if it has none. Raises `NotPutIn`."""
        # An answer without its reasoning is put in as if it were a corrected text.
        outcomes = [
            Outcome(Status.CORRECTED, reason=None, text=exchange.answer, policy=_NO_POLICY, index=exchange.index)
            for exchange in self.exchanges(data, response)
            if exchange.tagged_reasoning
        ]
        return call_or_raise(NotPutIn, self._wire.apply, response, outcomes) if outcomes else response

    def first_exchange(self, data: Mapping[str, Any]) -> Exchange:
        """The exchange of the first choice, of which the upstream has sent nothing yet."""
        return self._wire.decoder(data).exchange(0)

    def opens_answer(self, event: object) -> bool:
        """Whether an event has no text of the answer yet (see `Wire`); false if it cannot be read."""
        try:
            return call_or_raise(Unreadable, self._wire.opens_answer, event)
        except Unreadable:
            return False


class SafeDecoder:
    """Wrapper of a `StreamDecoder` that returns all items unchanged once an item cannot be read.

    `fault` then gives the reason. No byte is lost, because the bytes that the decoder has read but not returned are
    returned first. Attributes that are not defined here are those of the wrapped decoder.
    """

    def __init__(self, decoder: StreamDecoder, data: Mapping[str, Any]) -> None:
        self._decoder = decoder
        self._data = data
        self._pending_bytes = bytearray()
        """Bytes that the decoder has read and not returned as events."""
        self._text_numbers: set[int] = set()
        self._first_halves: dict[int, str] = {}
        """By number of a text, the first half of a letter (a lone surrogate) whose second half has not arrived."""
        self.is_unstored = False
        """Whether the upstream forbids to store its answer in headers that belong to the stream, not to an item."""
        self.fault: str | None = None
        """Why an item could not be read, such as the type of the error; None while all items can be."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def feed(self, item: object) -> list[StreamEvent]:
        """Read an item; return the events that it completes, or the item itself after a fault."""
        events = self._call_decoder(self._decoder.feed, item)
        if events is None:
            # The bytes that the decoder had read and not returned come first, so that the order stays.
            return [*self._take_pending(), StreamEvent(item)]
        # Decoders never hold dicts back, so only bytes can be lost.
        if self._pending_bytes or isinstance(item, bytes | str):
            self._pending_bytes += _to_bytes(item)
            returned_byte_count = sum(len(_to_bytes(event.item)) for event in events)
            del self._pending_bytes[:returned_byte_count]
        return self._join_halves(events)

    def flush(self) -> list[StreamEvent]:
        events = self._call_decoder(self._decoder.flush)
        return self._take_pending() if events is None else self._join_halves(events)

    def exchange(self, index: int) -> Exchange:
        """The exchange of text number `index` so far, or an exchange that says why it cannot be read."""
        return self._make_exchange(self._decoder.exchange, index)

    def exchange_without_text(self, index: int) -> Exchange:
        return self._make_exchange(self._decoder.exchange_without_text, index)

    def _make_exchange(self, make_exchange: Callable[[int], Exchange], index: int) -> Exchange:
        """The exchange that the decoder makes of text number `index`, or one that says why it cannot be read."""
        try:
            return self._complete_exchange(call_or_raise(Unreadable, make_exchange, index))
        except Unreadable as error:
            self.fault = self.fault or str(error)
            return _faulty_exchange(self._data, str(error))

    def exchanges(self) -> list[Exchange]:
        """All exchanges of a stream that has ended, or one exchange that says why the stream cannot be read."""
        try:
            if self.fault is None:
                exchanges = _check_indices(call_or_raise(Unreadable, self._decoder.exchanges))
                return [*map(self._complete_exchange, exchanges)]
        except Unreadable as error:
            self.fault = str(error)
        return [_faulty_exchange(self._data, self.fault)]

    def empty_event(self, delivered: Sequence[object], received: object) -> object:
        """An event that adds nothing to the stream (see `StreamDecoder`); None, too, if the events cannot be read."""
        try:
            return call_or_raise(Unreadable, self._decoder.empty_event, delivered, received)
        except Unreadable:
            return None

    def _complete_exchange(self, exchange: Exchange) -> Exchange:
        """Return the exchange marked `no_store` if needed, and without half a letter that waits for its second half."""
        if self.is_unstored:
            exchange = replace(exchange, no_store=True)
        if exchange.answer and exchange.index in self._first_halves:
            return replace(exchange, answer=exchange.answer[:-1])
        return exchange

    def _call_decoder(self, decode: Callable[..., list[StreamEvent]], *arguments: object) -> list[StreamEvent] | None:
        """Return the events that a function of the decoder returns; None from the first failure on."""
        try:
            if self.fault is None:
                return self._check_events(call_or_raise(Unreadable, decode, *arguments))
        except Unreadable as error:
            self.fault = str(error)
        return None

    def _check_events(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """Return the events; raises `Unreadable` for wrong types of indices or texts, or over `MAX_TEXTS` texts."""
        for event in events:
            for index, piece in event.pieces:
                if not (isinstance(index, int) and isinstance(piece, str)):
                    raise Unreadable(TypeError.__name__)
                self._text_numbers.add(index)
        if len(self._text_numbers) > MAX_TEXTS:
            raise Unreadable(OverflowError.__name__)
        return events

    def _join_halves(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """Move the first half of a letter (a surrogate) at the end of a piece into the event that has the second half.

        Halves that stay alone are replaced. The events are changed in place and returned.
        """
        for event in events:
            joined_pieces = []
            has_moved = False
            for text_number, piece in event.pieces:
                earlier_half = self._first_halves.pop(text_number, "")
                joined_piece = earlier_half + piece
                has_moved |= bool(earlier_half)
                if joined_piece and is_first_half(joined_piece[-1]):
                    self._first_halves[text_number] = joined_piece[-1]
                    joined_piece = joined_piece[:-1]
                    has_moved = True
                joined_pieces.append((text_number, join_surrogates(joined_piece)))
            event.pieces = joined_pieces
            if has_moved and event.rewrite is not None:
                texts = [piece for _, piece in joined_pieces]
                try:
                    event.item = call_or_raise(NotPutIn, event.rewrite, event.item, texts, {})
                except NotPutIn as error:
                    self.fault = str(error)
        return events

    def _take_pending(self) -> list[StreamEvent]:
        """Return the bytes that were read and not returned yet as one event; no event if there are none."""
        pending_bytes = bytes(self._pending_bytes)
        self._pending_bytes = bytearray()
        return [StreamEvent(pending_bytes)] if pending_bytes else []


def replace_event_texts(event: StreamEvent, pieces: Sequence[str], whole_texts: Mapping[int, str]) -> object:
    """Return the event with new pieces and, by text number, new whole texts; raises `NotPutIn`."""
    return call_or_raise(NotPutIn, event.with_texts, pieces, whole_texts)


def call_or_raise(error_type: type[Unreadable | NotPutIn], function: Callable[..., _T], *arguments: object) -> _T:
    """Call the function with these arguments and return its result; raise every error as `error_type`.

    The new error has only the type of the old one as its message, because the old message may quote text. `CopyStays`,
    which has no text, is raised unchanged.
    """
    try:
        return function(*arguments)
    except CopyStays:
        raise
    except Exception as error:
        raise error_type(type(error).__name__) from error


def _to_bytes(item: object) -> bytes:
    """The bytes of an item that is bytes or text; no bytes for any other item."""
    if isinstance(item, str):
        return item.encode(errors="surrogatepass")
    return item if isinstance(item, bytes) else b""


def _check_indices(exchanges: list[Exchange]) -> list[Exchange]:
    """Return the exchanges; raise `Unreadable` if an index is not a number, since indices are logged."""
    if not all(isinstance(exchange.index, int) for exchange in exchanges):
        raise Unreadable(TypeError.__name__)
    return exchanges


def _faulty_exchange(data: Mapping[str, Any], fault: str | None) -> Exchange:
    """An exchange without an answer that says why the response cannot be read."""
    return Exchange(str(data.get("litellm_call_id") or ""), 0, (), None, fault=fault)
