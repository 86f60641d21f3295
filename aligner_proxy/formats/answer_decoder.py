"""Decoder of the answers of a stream: of a text that begins with reasoning between tags, only what follows the tags.

The reasoning stays in its events, and corrected answers are put in behind it. A text is undecided while it is not
certain whether it begins with an opening tag; its events wait until then, and so do all events behind them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from aligner_proxy.errors import NotPutIn
from aligner_proxy.formats.safe import SafeDecoder, call_or_raise
from aligner_proxy.formats.stream_events import Rewrite, StreamDecoder, StreamEvent
from aligner_proxy.formats.think_tags import DividedText, ThinkTagReader, divide_exchange
from aligner_proxy.types import Exchange

_MAX_WAITING_EVENTS = 64
"""Most events that wait for the rest of a tag. When more would wait, undecided texts count as answers."""


class _ReadPiece(NamedTuple):
    """A piece of one of the stream's texts, after the reader of this text has read the piece."""

    text_number: int
    text: str
    start: int
    """Offset of the piece in its text, in characters."""
    reader: ThinkTagReader
    reasoning: str
    """The reasoning, without tags, that the reader returned for this piece."""

    def divide(self) -> DividedText:
        """Divide the piece where the reasoning of its text ends: (with tags, without tags, answer)."""
        end_in_piece = max(0, self.reader.reasoning_end - self.start)
        return DividedText(self.text[:end_in_piece], self.reasoning, self.text[end_in_piece:])


class AnswerDecoder(SafeDecoder):
    """Decoder that returns the answers behind reasoning between tags; with `drop`, the reasoning leaves the events."""

    def __init__(self, decoder: StreamDecoder, data: Mapping[str, Any], *, drop: bool = False) -> None:
        super().__init__(decoder, data)
        self.drops_reasoning = drop
        """Whether the reasoning is removed from the events."""
        self._readers: dict[int, ThinkTagReader] = {}
        """The readers of the texts that have begun, by number of the text."""
        self._waiting_events: deque[tuple[StreamEvent, Sequence[_ReadPiece]]] = deque()
        """The first event with an undecided text and all events behind it, each with its pieces."""

    @property
    def is_waiting(self) -> bool:
        """Whether events wait until it is decided whether a text begins with a tag."""
        return bool(self._waiting_events)

    def feed(self, item: object) -> list[StreamEvent]:
        """Read an item of the stream; return the events that are complete and do not wait for a tag."""
        return self._sort_events(super().feed(item))

    def flush(self) -> list[StreamEvent]:
        events = self._sort_events(super().flush())
        self._end_undecided()
        return [*events, *self._take_decided()]

    def exchange(self, index: int) -> Exchange:
        return self._divide_exchange(super().exchange(index))

    def exchanges(self) -> list[Exchange]:
        """Return all answers of a stream that has ended, or one exchange that says why the stream cannot be read."""
        return [*map(self._divide_exchange, super().exchanges())]

    def _divide_exchange(self, exchange: Exchange) -> Exchange:
        """Return the exchange with tagged reasoning moved out of its answer; the same exchange if there is none."""
        # A text that came only as a whole, not in pieces, has no reader.
        reader = None if exchange.answer is None else self._readers.get(exchange.index)
        return divide_exchange(exchange, None if reader is None else reader.reasoning_end)

    def _sort_events(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Read events; return those that are decided, in their order, and let the others wait."""
        decided_events: list[StreamEvent] = []
        for event in events:
            if not self._waiting_events and self._is_answer_only(event):
                decided_events.append(event)
                continue
            read_pieces = [self._read_piece(text_number, piece) for text_number, piece in event.pieces]
            self._waiting_events.append((event, read_pieces))
            for text_number in event.ended_texts:
                if text_number in self._readers:
                    self._readers[text_number].end()
            if len(self._waiting_events) > _MAX_WAITING_EVENTS:
                self._end_undecided()
            decided_events += self._take_decided()
        return decided_events

    def _is_answer_only(self, event: StreamEvent) -> bool:
        """Whether the event contains no text, or only pieces of texts whose answer has begun."""
        readers = self._readers
        return not event.repeated_texts and all(
            text_number in readers and readers[text_number].is_answer for text_number, _ in event.pieces
        )

    def _read_piece(self, text_number: int, piece: str) -> _ReadPiece:
        reader = self._readers.setdefault(text_number, ThinkTagReader())
        start = reader.read_chars
        reasoning = reader.feed(piece)
        return _ReadPiece(text_number, piece, start, reader, reasoning)

    def _end_undecided(self) -> None:
        """Tell all readers that no more text comes, so that undecided texts count as answers."""
        for reader in self._readers.values():
            reader.end()

    def _take_decided(self) -> list[StreamEvent]:
        """Remove the waiting events before the first undecided one; return them with only answers as their texts."""
        decided_events: list[StreamEvent] = []
        while self._waiting_events:
            event, read_pieces = self._waiting_events[0]
            if any(piece.reader.is_undecided for piece in read_pieces):
                break
            self._waiting_events.popleft()
            decided_events.append(self._divide_event(event, read_pieces))
        return decided_events

    def _divide_event(self, event: StreamEvent, read_pieces: Sequence[_ReadPiece]) -> StreamEvent:
        """Reduce the texts of an event to the answers in them, in place; unchanged if none begins with reasoning.

        With `drops_reasoning`, the reasoning is removed at once; else `event.rewrite` puts new answers behind it later.
        """
        pieces = [piece.divide() for piece in read_pieces]
        divided_wholes = {number: self._divide_whole(number) for number in event.repeated_texts}
        whole_texts = {number: text for number, text in divided_wholes.items() if text is not None}
        has_reasoning = bool(whole_texts) or any(piece.tagged_reasoning for piece in pieces)
        if event.rewrite is None or not has_reasoning:
            return event
        if self.drops_reasoning:
            answers = [piece.answer for piece in pieces]
            whole_answers = {number: text.answer for number, text in whole_texts.items()}
            try:
                event.item = call_or_raise(NotPutIn, event.rewrite, event.item, answers, whole_answers)
            except NotPutIn as error:
                self.fault = self.fault or str(error)
                return event
        else:
            tagged_reasoning = {number: text.tagged_reasoning for number, text in whole_texts.items()}
            event.rewrite = partial(_rewrite_answers, event.rewrite, pieces, tagged_reasoning)
        event.divided_texts = [text for text in (*pieces, *whole_texts.values()) if text.tagged_reasoning]
        event.pieces = [
            (read.text_number, piece.answer) for read, piece in zip(read_pieces, pieces, strict=True) if piece.answer
        ]
        return event

    def _divide_whole(self, text_number: int) -> DividedText | None:
        """Divide a text that an event repeats as a whole into reasoning and answer; None if it has no reasoning."""
        reader = self._readers.get(text_number)
        if reader is None:  # a text that came only as a whole
            exchanges = [exchange for exchange in self.exchanges() if exchange.index == text_number]
        else:
            exchanges = [self.exchange(text_number)] if reader.reasoning_end else []
        return next((DividedText.from_exchange(exchange) for exchange in exchanges if exchange.tagged_reasoning), None)


def _rewrite_answers(
    rewrite: Rewrite,
    pieces: Sequence[DividedText],
    tagged_reasoning: Mapping[int, str],
    item: object,
    answers: Sequence[str],
    whole_texts: Mapping[int, str],
) -> object:
    """Return a copy of the event `item`, made by `rewrite`, with new answers behind its reasoning.

    `pieces` are the old pieces of the event, and `tagged_reasoning` that of its whole texts, by number. `answers` has
    an answer for each piece that has one, and `whole_texts` the new answers of whole texts, by number.
    """
    remaining_answers = iter(answers)
    texts = [piece.tagged_reasoning + (next(remaining_answers) if piece.answer else "") for piece in pieces]
    new_wholes = {number: tagged_reasoning.get(number, "") + answer for number, answer in whole_texts.items()}
    return rewrite(item, texts, new_wholes)
