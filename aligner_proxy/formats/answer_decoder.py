"""Decoder of the answers of a stream: of a text that begins with reasoning between tags, only what follows it.

The reasoning stays in its events, and corrected answers are put in behind it. While it is not certain whether a text
begins with an opening tag, its events wait, and those behind them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from aligner_proxy.errors import NotPutIn
from aligner_proxy.formats.base import Rewrite, StreamDecoder, StreamEvent
from aligner_proxy.formats.safe import SafeDecoder, call_or_raise
from aligner_proxy.formats.think_tags import DividedText, ThinkTagReader, divide_exchange
from aligner_proxy.types import Exchange

_MAX_WAITING = 64
"""Most events that wait for the rest of a tag. Beyond that, what is undecided is part of the answer."""


class _ReadPiece(NamedTuple):
    """A piece of one of the stream's texts, after the reader of this text has read it."""

    number: int
    """The number of the text."""
    text: str
    """The piece itself."""
    start: int
    """Offset of the piece in the text."""
    reader: ThinkTagReader
    """The reader of the text."""
    reasoning: str
    """The reasoning, without tags, that the reader returned for this piece."""

    def divide(self) -> DividedText:
        """The piece, divided where the reasoning of its text ends."""
        reasoning_end = max(0, self.reader.reasoning_end - self.start)
        return DividedText(self.text[:reasoning_end], self.reasoning, self.text[reasoning_end:])


class AnswerDecoder(SafeDecoder):
    """A `SafeDecoder` whose texts are the answers alone; with `drop`, its events hold no other texts either."""

    def __init__(self, decoder: StreamDecoder, data: Mapping[str, Any], *, drop: bool = False) -> None:
        super().__init__(decoder, data)
        self.drops = drop
        """Whether the reasoning is removed from the events."""
        self._readers: dict[int, ThinkTagReader] = {}
        """By number of the text."""
        self._waiting: deque[tuple[StreamEvent, Sequence[_ReadPiece]]] = deque()
        """From the first event with a text that may go on with a tag: all events, in order, each with its pieces."""

    @property
    def is_waiting(self) -> bool:
        """Whether events wait for the rest of a tag."""
        return bool(self._waiting)

    def feed(self, item: object) -> list[StreamEvent]:
        """Read an item; return the events that are complete and decided."""
        return self._sort_events(super().feed(item))

    def flush(self) -> list[StreamEvent]:
        events = self._sort_events(super().flush())
        self._end_undecided()
        return [*events, *self._take_decided()]

    def exchange(self, index: int) -> Exchange:
        return self._divide_exchange(super().exchange(index))

    def exchanges(self) -> list[Exchange]:
        """All answers of a stream that has ended, or one exchange that says why the stream cannot be read."""
        return [*map(self._divide_exchange, super().exchanges())]

    def _divide_exchange(self, exchange: Exchange) -> Exchange:
        """The exchange with its tagged reasoning moved out of the answer; the same exchange if there is none."""
        # a text that came only as a whole has no reader
        reader = None if exchange.answer is None else self._readers.get(exchange.index)
        return divide_exchange(exchange, None if reader is None else reader.reasoning_end)

    def _sort_events(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Read events; return those that are decided, with waiting ones before them, and let the others wait."""
        ready: list[StreamEvent] = []
        for event in events:
            if not self._waiting and self._is_answer_only(event):
                ready.append(event)
                continue
            self._waiting.append((event, [self._read_piece(*piece) for piece in event.pieces]))
            for index in event.ended_texts:
                if index in self._readers:
                    self._readers[index].end()
            if len(self._waiting) > _MAX_WAITING:
                self._end_undecided()
            ready += self._take_decided()
        return ready

    def _is_answer_only(self, event: StreamEvent) -> bool:
        """Whether the event holds nothing but pieces of answers that have begun, or no text."""
        readers = self._readers
        return not event.repeated_texts and all(
            index in readers and readers[index].is_answer for index, _ in event.pieces
        )

    def _read_piece(self, index: int, piece: str) -> _ReadPiece:
        """Let the reader of a text read the next piece of it."""
        reader = self._readers.setdefault(index, ThinkTagReader())
        start = reader.read_chars
        return _ReadPiece(index, piece, start, reader, reader.feed(piece))

    def _end_undecided(self) -> None:
        """Let all texts whose beginning is undecided count as answers."""
        for reader in self._readers.values():
            reader.end()

    def _take_decided(self) -> list[StreamEvent]:
        """Remove the waiting events before the first undecided one; return them with their texts divided."""
        decided: list[StreamEvent] = []
        while self._waiting and not any(piece.reader.is_undecided for piece in self._waiting[0][1]):
            decided.append(self._divide_event(*self._waiting.popleft()))
        return decided

    def _divide_event(self, event: StreamEvent, read_pieces: Sequence[_ReadPiece]) -> StreamEvent:
        """Reduce the texts of an event to the answers in them, in place; unchanged if none begins with reasoning."""
        pieces = [piece.divide() for piece in read_pieces]
        divided_wholes = {index: self._divide_whole(index) for index in event.repeated_texts}
        whole_texts = {index: text for index, text in divided_wholes.items() if text is not None}
        has_reasoning = bool(whole_texts) or any(piece.tagged_reasoning for piece in pieces)
        if event.rewrite is None or not has_reasoning:
            return event
        if self.drops:
            try:
                event.item = _drop_reasoning(event.rewrite, event.item, pieces, whole_texts)
            except NotPutIn as error:
                self.fault = self.fault or str(error)
                return event
        else:
            tagged_reasoning = {index: text.tagged_reasoning for index, text in whole_texts.items()}
            event.rewrite = partial(_rewrite_answers, event.rewrite, pieces, tagged_reasoning)
        event.divided_texts = [text for text in (*pieces, *whole_texts.values()) if text.tagged_reasoning]
        event.pieces = [
            (read.number, piece.answer) for read, piece in zip(read_pieces, pieces, strict=True) if piece.answer
        ]
        return event

    def _divide_whole(self, index: int) -> DividedText | None:
        """The text of this number, which an event repeats as a whole, divided; None if it begins with no reasoning."""
        reader = self._readers.get(index)
        if reader is None:  # a text that came only as a whole
            exchanges = [exchange for exchange in self.exchanges() if exchange.index == index]
        else:
            exchanges = [self.exchange(index)] if reader.reasoning_end else []
        return next((DividedText.from_exchange(each) for each in exchanges if each.tagged_reasoning), None)


def _drop_reasoning(
    rewrite: Rewrite, item: object, pieces: Sequence[DividedText], whole_texts: Mapping[int, DividedText]
) -> object:
    """A copy of an event in which only the answers of its texts remain; raises `NotPutIn`."""
    answers = [piece.answer for piece in pieces]
    whole_answers = {index: text.answer for index, text in whole_texts.items()}
    return call_or_raise(NotPutIn, rewrite, item, answers, whole_answers)


def _rewrite_answers(
    rewrite: Rewrite,
    pieces: Sequence[DividedText],
    tagged_reasoning: Mapping[int, str],
    item: object,
    answers: Sequence[str],
    whole_texts: Mapping[int, str],
) -> object:
    """Copy an event with new answers behind its reasoning; `pieces` and `tagged_reasoning` are those of the event."""
    remaining_answers = iter(answers)
    texts = [piece.tagged_reasoning + (next(remaining_answers) if piece.answer else "") for piece in pieces]
    return rewrite(item, texts, {index: tagged_reasoning.get(index, "") + text for index, text in whole_texts.items()})
