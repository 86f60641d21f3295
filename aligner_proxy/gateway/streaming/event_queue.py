"""Compact queue of a stream's events on their way to the client. An event that only adds a piece to a text is kept as a
tuple of plain values (`PlainEvent`), and rebuilt for delivery. A packed chunk is stored as its differences from
another.

An event is a handful of objects that refer to each other, and Python's garbage collector visits every one of them. With
half a million queued events, one collection blocked the loop for most of a second. The collector ignores plain values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from aligner_proxy.formats.packing import PackedChunk, Packer, Paths
from aligner_proxy.formats.safe import replace_event_texts
from aligner_proxy.formats.stream_events import Rewrite, StreamEvent

PACKED_FROM = 256
"""Number of queued events from which chunks are packed; an answer of ordinary length keeps its own objects."""
NO_REPEATED_TEXTS: Mapping[int, Any] = MappingProxyType({})
"""Shared by all events that repeat no text."""
_MAX_SHAPES = 16
"""Most shapes known in one queue; an event of any further shape is kept unpacked."""
PlainEvent = tuple[int, tuple[object, ...], str, int, int]
"""An event as plain values: number of its shape, values of its chunk, its piece, the piece's offset, and its size."""


class StreamText(Protocol):
    """One text of the stream: a choice or a text part of one. Offsets count characters of the original."""

    @property
    def changed(self) -> bool:
        """Whether any part of the text is replaced."""

    @property
    def has_output(self) -> bool:
        """Whether anything but white space is delivered, as far as it is decided."""

    @property
    def length(self) -> int:
        """Characters of the original so far."""

    async def feed(self, piece: str) -> None:
        """Add a piece of the original."""

    def render(self, start: int, end: int) -> str:
        """The text to deliver in place of these original characters."""


Text = TypeVar("Text", bound=StreamText)


@dataclass(frozen=True, slots=True)
class QueuedEvent(Generic[Text]):
    """A queued event, with the position of each of its pieces in its text and the texts that it repeats as a whole."""

    event: StreamEvent
    piece_spans: tuple[tuple[Text, int, int], ...]
    """(text, start, end) of each piece, in the order of the event's pieces."""
    repeated_texts: Mapping[int, Text]
    """The texts that the event repeats as a whole, by number."""
    size: int
    """Estimated bytes."""

    @property
    def has_changed_text(self) -> bool:
        """Whether a text of which this event has a piece, or which it repeats as a whole, is changed anywhere."""
        return any(text.changed for text, _start, _end in self.piece_spans) or any(
            text.changed for text in self.repeated_texts.values()
        )

    def list_unchanged_texts(self) -> list[str]:
        """The pieces and whole texts in the event that are as the upstream wrote them."""
        pieces = [text.render(start, end) for text, start, end in self.piece_spans if not text.changed]
        return pieces + [text.render(0, text.length) for text in self.repeated_texts.values() if not text.changed]

    def render_item(self) -> tuple[object, list[str]]:
        """The item to deliver (the event's own object if no text in it changed), and the pieces of text in it.

        Raises `NotPutIn` if a changed text cannot be inserted.
        """
        pieces: list[str] = []
        for (text, start, end), (_, original_piece) in zip(self.piece_spans, self.event.pieces, strict=True):
            pieces.append(text.render(start, end) if text.changed else original_piece)
        whole_texts = {
            index: text.render(0, text.length) for index, text in self.repeated_texts.items() if text.changed
        }
        return replace_event_texts(self.event, pieces, whole_texts), pieces


@dataclass(frozen=True, slots=True)
class _Shape(Generic[Text]):
    """What many events of one text have in common, stored once for all of them."""

    template: object
    """The chunk that the packed chunks differ from."""
    paths: Paths
    """Where in the chunk they differ."""
    rewrite: Rewrite | None
    index: int
    """Number of the text."""
    text: Text


class EventQueue(Generic[Text]):
    """First-in, first-out queue of the waiting events of one stream. An entry is an event or, to save memory, an event
    as plain values (`PlainEvent`); what many plain entries have in common is stored once, as a shape.
    """

    def __init__(self) -> None:
        self._entries: deque[QueuedEvent[Text] | PlainEvent] = deque()
        self._shapes: list[_Shape[Text]] = []
        """Shapes of the plain entries, which refer to them by their place in this list."""
        self._packer = Packer()

    def pack(self, item: object) -> object:
        """An item for the queue, packed if the queue is long."""
        return item if len(self) < PACKED_FROM else self._packer.pack(item)

    def append(self, queued: QueuedEvent[Text]) -> None:
        self._entries.append(self._pack_event(queued) or queued)

    def popleft(self) -> QueuedEvent[Text]:
        return self._unpack_entry(self._entries.popleft())

    @property
    def first(self) -> QueuedEvent[Text]:
        return self._unpack_entry(self._entries[0])

    @property
    def last(self) -> StreamEvent | PlainEvent:
        """The last event, packed if it was stored so; `original_item` returns the upstream's own chunk for it."""
        return _stored_event(self._entries[-1])

    def entries(self) -> list[StreamEvent | PlainEvent]:
        """All events as they are stored, packed or not; `original_item` returns the upstream's own chunk for each."""
        return [*map(_stored_event, self._entries)]

    def original_item(self, entry: object) -> object:
        """The upstream's own chunk for an entry of this queue, for an event, or for a chunk that may be packed."""
        if isinstance(entry, tuple):
            return self._unpack_entry(entry).event.original
        if isinstance(entry, StreamEvent):
            return entry.original
        if isinstance(entry, PackedChunk):
            return entry.unpack()
        return entry

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[QueuedEvent[Text]]:
        return map(self._unpack_entry, self._entries)

    def _pack_event(self, queued: QueuedEvent[Text]) -> PlainEvent | None:
        """An event as plain values; None if it is not just a packed chunk with one piece, or there are many shapes."""
        event = queued.event
        chunk = event.item
        if (
            not isinstance(chunk, PackedChunk)
            or len(queued.piece_spans) != 1
            or queued.repeated_texts
            or event.repeated_texts
            or event.ended_texts
        ):
            return None
        text, start, _end = queued.piece_spans[0]
        index, piece = event.pieces[0]
        shape_number = self._find_shape(_Shape(chunk.template, chunk.paths, event.rewrite, index, text))
        if shape_number is None:
            return None
        return shape_number, chunk.values, piece, start, queued.size

    def _find_shape(self, candidate: _Shape[Text]) -> int | None:
        """The index of the shape `candidate` in `_shapes`, to which it is added if new; None if `_shapes` is full."""
        for number, shape in enumerate(self._shapes):
            # Objects are compared by identity where possible, since this runs for every event.
            is_alike = (
                shape.template is candidate.template and shape.text is candidate.text and shape.index == candidate.index
            )
            if is_alike and shape.paths == candidate.paths and shape.rewrite == candidate.rewrite:
                return number
        if len(self._shapes) == _MAX_SHAPES:  # so that the search above stays short
            return None
        self._shapes.append(candidate)
        return len(self._shapes) - 1

    def _unpack_entry(self, entry: QueuedEvent[Text] | PlainEvent) -> QueuedEvent[Text]:
        """The event of a stored entry, rebuilt if it is stored as plain values."""
        if not isinstance(entry, tuple):
            return entry
        shape_number, values, piece, start, size = entry
        shape = self._shapes[shape_number]
        item = PackedChunk(shape.template, shape.paths, values)
        event = StreamEvent(item, [(shape.index, piece)], rewrite=shape.rewrite)
        piece_span = (shape.text, start, start + len(piece))
        return QueuedEvent(event, (piece_span,), NO_REPEATED_TEXTS, size)


def _stored_event(entry: QueuedEvent[Any] | PlainEvent) -> StreamEvent | PlainEvent:
    """The event of an entry, packed if it is stored so, without its positions in the texts."""
    return entry if isinstance(entry, tuple) else entry.event
