"""How is a stream taken apart as it comes, and each of its events put together again with other texts?

A `Telling` belongs to one stream. It numbers the texts of the stream as they begin, says of every event which of them
it carries on, repeats as a whole, or ends, and remembers what eligibility asks about. Nothing here decides or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aligner_proxy.rewrite.choice import Reading
from aligner_proxy.types import Exchange

Say = Callable[[Sequence[str], Mapping[int, str]], object]


@dataclass(frozen=True, slots=True)
class Told:
    """One event: `item` as it came, the (text, piece) that it adds, the texts that it repeats whole, and those it ends.

    `say` makes the same event with other pieces and other wholes (those that changed, by text).
    """

    item: object
    pieces: tuple[tuple[int, str], ...] = ()
    wholes: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    say: Say | None = None

    def saying(self, pieces: Sequence[str], wholes: Mapping[int, str]) -> object:
        """This event with other texts in it; the very same object where they are the ones that it came with."""
        same = all(new == old for new, (_, old) in zip(pieces, self.pieces, strict=True))
        return self.item if self.say is None or (same and not wholes) else self.say(pieces, wholes)


class Telling(Protocol):
    """One stream, taken apart."""

    def take(self, item: object) -> list[Told]:
        """The events that are complete with this item."""
        ...

    def flush(self) -> list[Told]:
        """What is left when the stream has ended, whole or not."""
        ...

    def exchange(self, index: int) -> Exchange:
        """A text as far as it has been told; its finish reason is None as long as nothing was said of it."""
        ...


class ChunkTelling:
    """Chat and text completions: chunks with choices. The functions say what a format calls things."""

    def __init__(
        self,
        kind: type,
        text_of: Callable[[Any], str],
        put: Callable[[Any, str], Any],
        absorb: Callable[[Reading, Any], None],
        exchange: Callable[[Reading, int], Exchange],
    ) -> None:
        self._kind, self._text_of, self._put, self._absorb, self._exchange = kind, text_of, put, absorb, exchange
        self._readings: dict[int, Reading] = {}

    def take(self, item: Any) -> list[Told]:
        """A chunk is one event."""
        if not isinstance(item, self._kind):
            return [Told(item)]
        choices: list[Any] = item.choices  # type: ignore[attr-defined]
        for choice in choices:
            self._absorb(self._readings.setdefault(choice.index, Reading()), choice)
        pieces = tuple((choice.index, text) for choice in choices if (text := self._text_of(choice)))
        ends = tuple(choice.index for choice in choices if choice.finish_reason)
        return [Told(item, pieces, (), ends, lambda new, _: self._said(item, new))]

    def flush(self) -> list[Told]:
        """Chunks come whole."""
        return []

    def exchange(self, index: int) -> Exchange:
        """A choice as far as it has been told."""
        return self._exchange(self._readings.get(index, Reading()), index)

    def _said(self, chunk: Any, pieces: Sequence[str]) -> object:
        texts, edited = iter(pieces), chunk.model_copy()
        edited.choices = [self._put(c, next(texts)) if self._text_of(c) else c for c in chunk.choices]
        return edited
