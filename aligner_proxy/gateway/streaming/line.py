"""Line of a stream's events on their way to the client, in which most are kept as plain values.

An event is a handful of objects that refer to each other, and Python's garbage collector looks at every one of them:
with half a million events in line, one collection kept the loop from answering for most of a second. An event that only
adds a piece to a text is therefore kept as a tuple of plain values, which the collector lets alone, and made again when
it goes out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from aligner_proxy.formats.base import Rewrite, StreamEvent, replace_event_texts
from aligner_proxy.formats.packing import PackedChunk, Packer, Paths

PACKED_FROM = 256
"""Events in line from which on chunks are kept packed: an ordinary answer is replayed in its own objects."""
NO_WHOLES: Mapping[int, Any] = MappingProxyType({})
_MOST_SHAPES = 16
"""Shapes that are known in one line; an event of yet another one is kept as it is."""
Plain = tuple[int, tuple[object, ...], str, int, int]
"""An event as plain values: its shape, the values of its chunk, its piece, where that begins, and its size."""


class StreamText(Protocol):
    """One text of the stream: a choice, or a text part of one. Places in it are characters of the original."""

    @property
    def changed(self) -> bool:
        """Whether something else goes out in place of some of it."""
        ...

    @property
    def length(self) -> int:
        """How much of the original has come."""
        ...

    async def feed(self, piece: str) -> None:
        """More of the original."""
        ...

    def render(self, start: int, end: int) -> str:
        """What goes out in place of these characters."""
        ...


Text = TypeVar("Text", bound=StreamText)


@dataclass(frozen=True, slots=True)
class QueuedEvent(Generic[Text]):
    """An event in line: where its pieces stand in their texts, and the texts that it repeats as a whole."""

    event: StreamEvent
    places: tuple[tuple[Text, int, int], ...]
    wholes: Mapping[int, Text]
    size: int

    def item(self) -> tuple[object, bool]:
        """What goes out, the very same object where its texts did not change, and whether it adds any text.

        Raises `NotPutIn`.
        """
        pieces = [
            text.render(start, end) if text.changed else piece
            for (text, start, end), (_, piece) in zip(self.places, self.event.pieces, strict=True)
        ]
        wholes = {index: text.render(0, text.length) for index, text in self.wholes.items() if text.changed}
        return replace_event_texts(self.event, pieces, wholes), any(pieces)


@dataclass(frozen=True, slots=True)
class _Shape(Generic[Text]):
    """What many events have in common."""

    template: object
    paths: Paths
    rewrite: Rewrite | None
    index: int
    text: Text


class EventLine(Generic[Text]):
    """The events of one stream that wait, first in, first out."""

    def __init__(self) -> None:
        self._entries: deque[QueuedEvent[Text] | Plain] = deque()
        self._shapes: list[_Shape[Text]] = []
        self._packer = Packer()

    def pack(self, item: object) -> object:
        """An item that is to wait, packed where many do."""
        return item if len(self) < PACKED_FROM else self._packer.pack(item)

    def append(self, queued: QueuedEvent[Text]) -> None:
        """One more event."""
        self._entries.append(self._plain(queued) or queued)

    def popleft(self) -> QueuedEvent[Text]:
        """The first one, which leaves the line."""
        return self._whole(self._entries.popleft())

    @property
    def first(self) -> QueuedEvent[Text]:
        """The first one."""
        return self._whole(self._entries[0])

    @property
    def last(self) -> StreamEvent | Plain:
        """The last one as it is kept; `original` makes its item of it."""
        entry = self._entries[-1]
        return entry if isinstance(entry, tuple) else entry.event

    def original(self, entry: object) -> object:
        """An item as it came, out of what it was kept as."""
        if isinstance(entry, tuple):
            return self._whole(entry).event.original
        if isinstance(entry, StreamEvent):
            return entry.original
        return entry.unpack() if isinstance(entry, PackedChunk) else entry

    def clear(self) -> None:
        """Nothing waits any more."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[QueuedEvent[Text]]:
        return map(self._whole, self._entries)

    def _plain(self, queued: QueuedEvent[Text]) -> Plain | None:
        """An event as plain values; None where it is more than a piece of one text in a chunk like others."""
        event = queued.event
        chunk = event.item
        if not isinstance(chunk, PackedChunk) or len(queued.places) != 1 or queued.wholes or event.wholes or event.ends:
            return None
        ((text, start, _),) = queued.places
        ((index, piece),) = event.pieces
        shape = self._shape(_Shape(chunk.template, chunk.paths, event.rewrite, index, text))
        return None if shape is None else (shape, chunk.values, piece, start, queued.size)

    def _shape(self, new: _Shape[Text]) -> int | None:
        """The number of a shape; None where too many are known."""
        for number, shape in enumerate(self._shapes):
            alike = shape.template is new.template and shape.text is new.text and shape.index == new.index
            if alike and shape.paths == new.paths and shape.rewrite == new.rewrite:
                return number
        if len(self._shapes) == _MOST_SHAPES:
            return None
        self._shapes.append(new)
        return len(self._shapes) - 1

    def _whole(self, entry: QueuedEvent[Text] | Plain) -> QueuedEvent[Text]:
        """An event out of what it was kept as."""
        if not isinstance(entry, tuple):
            return entry
        number, values, piece, start, size = entry
        shape = self._shapes[number]
        item = PackedChunk(shape.template, shape.paths, values)
        event = StreamEvent(item, [(shape.index, piece)], rewrite=shape.rewrite)
        return QueuedEvent(event, ((shape.text, start, start + len(piece)),), NO_WHOLES, size)
