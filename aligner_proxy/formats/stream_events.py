"""The events of a stream, the texts in them, and what a decoder of a wire format does with a stream.

A `StreamDecoder` belongs to one stream. It numbers the texts of the stream in the order in which they begin. For each
event it says which texts the event continues, repeats as a whole, or ends. It also remembers what decides later whether
an answer may be corrected. Nothing here decides or waits.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aligner_proxy.formats.packing import PackedChunk
from aligner_proxy.formats.think_tags import DividedText
from aligner_proxy.types import Exchange

Rewrite = Callable[[Any, Sequence[str], Mapping[int, str]], object]
"""A function (event, all its new pieces in order, new whole texts by text number) that returns a copy with them."""


@dataclass(slots=True)
class ContentBlock:
    """A block of a streamed answer, in formats where the block of a text may not be empty."""

    index: int
    """The block's number among all blocks of the answer."""
    is_text: bool
    text_number: int | None = None
    """The number of the block's text; None as long as no text has come."""
    has_ended: bool = False
    is_sent: bool = False
    """Whether an event of the block was delivered, so that the block can no longer be left out."""


class RemainingNumbers:
    """Renumbers the blocks, items or events of a stream after some were removed; unless `enabled`, none is removed."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._removed: list[int] = []
        """The upstream's numbers of what was removed, sorted."""

    def remove(self, index: object) -> None:
        """Mark a block, item or event as removed; a value that is not a number is ignored."""
        if self._enabled and isinstance(index, int) and not self.is_removed(index):
            bisect.insort(self._removed, index)

    def is_removed(self, index: object) -> bool:
        """Whether what has this number in the upstream's stream was removed."""
        return isinstance(index, int) and self._count_below(index) < self._count_below(index + 1)

    def new_number(self, index: object) -> object:
        """The new number of what remains; a value that is not a number is returned unchanged.

        A removed number becomes that of the last one before it that remains, since a heartbeat may repeat the number of
        a removed event; 0 if none remains.
        """
        if not isinstance(index, int):
            return index
        new_index = index - self._count_below(index + 1)
        return max(new_index, 0) if self.is_removed(index) else new_index

    def _count_below(self, index: int) -> int:
        """How many removed numbers are smaller than `index`."""
        return bisect.bisect_left(self._removed, index)


@dataclass(slots=True)
class StreamEvent:
    """One event of a stream and the texts in it."""

    item: object
    """The event as it arrived, or stored compactly as a `PackedChunk`."""
    pieces: Sequence[tuple[int, str]] = ()
    """(number of a text, piece that the event adds to it)."""
    repeated_texts: Sequence[int] = ()
    """Numbers of the texts that the event repeats as a whole."""
    ended_texts: Sequence[int] = ()
    """Numbers of the texts that end with this event."""
    rewrite: Rewrite | None = None
    """Copies an event with new pieces and, by text number, those whole texts that changed; None if it has no text."""
    divided_texts: Sequence[DividedText] = ()
    """Texts and pieces of the event that begin with reasoning; `pieces` holds only the answers in them."""
    block: ContentBlock | None = None
    """The block that the event belongs to."""
    text_number: int | None = None
    """In formats without blocks: the number of the text that the event belongs to; None if there is no single one."""

    @property
    def original(self) -> object:
        """The event as it arrived, or an equal copy."""
        return self.item.unpack() if isinstance(self.item, PackedChunk) else self.item

    def with_texts(self, pieces: Sequence[str], whole_texts: Mapping[int, str]) -> object:
        """The event with new pieces and, by text number, new whole texts; the same object if no text differs."""
        has_old_pieces = all(new == old for new, (_, old) in zip(pieces, self.pieces, strict=True))
        if self.rewrite is None or (has_old_pieces and not whole_texts):
            return self.original  # so that it is sent byte by byte as it arrived
        return self.rewrite(self.original, pieces, whole_texts)


class StreamDecoder(Protocol):
    """Splits one stream into events and texts. The defaults suit a stream of items that come whole."""

    is_one_answer: bool
    """Whether all texts of the stream belong to one answer; otherwise each is an answer of its own."""

    def feed(self, item: object) -> list[StreamEvent]:
        """Read an item; return the events that it completes."""

    def flush(self) -> list[StreamEvent]:
        """The remaining events when the stream has ended, complete or not."""
        return []

    def exchange(self, index: int) -> Exchange:
        """The conversation with text number `index` as its answer, as far as the text has arrived.

        `finish_reason` is None until the stream gives one.
        """

    def exchange_without_text(self, index: int) -> Exchange:
        """The same as `exchange` without the text itself, at a cost that does not grow with the text."""

    @property
    def has_refusal(self) -> bool:
        """Whether the upstream filled a refusal field, which is delivered unchanged."""

    @property
    def contradicts_itself(self) -> bool:
        """Whether the events so far contradict one another."""
        return False

    def exchanges(self) -> list[Exchange]:
        """All texts of a stream that has ended, in response order; empty if the stream does not have this format."""

    def beginning(self) -> object:
        """The event that clients need before the event of a failure; None if clients need none, or nothing has come."""
        return None

    def empty_event(self, delivered: Sequence[Any], received: Any) -> object:
        """An event that adds nothing to the stream, to keep its client waiting; None if none is possible now.

        `delivered` are the items that the client has; `received` is the next event, whose text the client does not get.
        """
