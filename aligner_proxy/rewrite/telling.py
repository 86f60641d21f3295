"""Wire formats, and the decoder that takes a stream of one apart as it comes.

A `StreamDecoder` belongs to one stream. It numbers the texts of the stream as they begin, gives for every event the
pieces that it adds to them, those that it repeats as a whole and those that it ends, and gathers what eligibility looks
at. Nothing here decides or waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aligner_proxy.rewrite.choice import ChoiceBuilder
from aligner_proxy.types import Exchange, Outcome

Rewrite = Callable[[Sequence[str], Mapping[int, str]], object]


@dataclass(slots=True)
class StreamEvent:
    """One event of a stream, and how texts stand in it."""

    item: object
    """The event as it came."""
    pieces: Sequence[tuple[int, str]] = ()
    """(text, piece): what it adds to which text."""
    wholes: Sequence[int] = ()
    """The texts that it repeats as a whole."""
    ends: Sequence[int] = ()
    """The texts behind which nothing follows."""
    rewrite: Rewrite | None = None
    """Makes the same event of other pieces and, by text, of other wholes: those that changed."""

    def with_texts(self, pieces: Sequence[str], wholes: Mapping[int, str]) -> object:
        """This event with other texts in it; the very same object where they are the ones that it came with."""
        same = all(new == old for new, (_, old) in zip(pieces, self.pieces, strict=True))
        return self.item if self.rewrite is None or (same and not wholes) else self.rewrite(pieces, wholes)


class StreamDecoder(Protocol):
    """Takes one stream apart."""

    def feed(self, item: object) -> list[StreamEvent]:
        """The events that are complete with this item."""
        ...

    def flush(self) -> list[StreamEvent]:
        """What is left when the stream has ended, whole or not."""
        ...

    def exchange(self, index: int) -> Exchange:
        """A text as far as it has come; its finish reason is None until the stream gives one."""
        ...

    def exchanges(self) -> list[Exchange]:
        """All texts of a stream that has ended, in the order of the response; empty if it is none of this format."""
        ...


class Wire(Protocol):
    """A wire format."""

    def exchanges(self, data: Mapping[str, Any], response: Any) -> list[Exchange]:
        """One exchange per choice of a whole response; empty if it is no response of this format."""
        ...

    def apply(self, response: Any, outcomes: Sequence[Outcome]) -> Any:
        """The response with the corrected texts in it; the very same object where none is corrected."""
        ...

    def decoder(self, data: Mapping[str, Any]) -> StreamDecoder:
        """A decoder for one stream."""
        ...


class ChunkDecoder:
    """Decoder of chunks with choices, as chat and text completions have them.

    `kind` is LiteLLM's class of a chunk; `text` gives the text that a choice adds, `with_text` a copy of the choice
    with another one; `absorb` gathers a choice, of which `exchange` makes the exchange, given also its index and the
    first item of the stream (LiteLLM keeps the upstream's headers beside it).
    """

    def __init__(
        self,
        kind: type,
        text: Callable[[Any], str],
        with_text: Callable[[Any, str], Any],
        absorb: Callable[[ChoiceBuilder, Any], None],
        exchange: Callable[[ChoiceBuilder, int, object], Exchange],
    ) -> None:
        self._kind = kind
        self._text = text
        self._with_text = with_text
        self._absorb = absorb
        self._exchange = exchange
        self._builders: dict[int, ChoiceBuilder] = {}
        self._first: object = None

    def feed(self, item: Any) -> list[StreamEvent]:
        """The item: a chunk is one event."""
        if self._first is None:
            self._first = item
        if not isinstance(item, self._kind):
            return [StreamEvent(item)]
        pieces: list[tuple[int, str]] = []
        ends: list[int] = []
        for choice in item.choices:  # type: ignore[attr-defined]
            index = choice.index
            self._absorb(self._builders.setdefault(index, ChoiceBuilder()), choice)
            if text := self._text(choice):
                pieces.append((index, text))
            if choice.finish_reason:
                ends.append(index)
        return [StreamEvent(item, pieces, (), ends, partial(self._rewritten, item))]

    def flush(self) -> list[StreamEvent]:
        """Nothing: chunks come whole."""
        return []

    def exchange(self, index: int) -> Exchange:
        """A choice as far as it has come."""
        return self._exchange(self._builders.get(index, ChoiceBuilder()), index, self._first)

    def exchanges(self) -> list[Exchange]:
        """Every choice by its index."""
        return [self.exchange(index) for index in sorted(self._builders)]

    def _rewritten(self, chunk: Any, pieces: Sequence[str], _: Mapping[int, str]) -> object:
        texts = iter(pieces)
        copy = chunk.model_copy()
        copy.choices = [self._with_next(choice, texts) for choice in chunk.choices]
        return copy

    def _with_next(self, choice: Any, texts: Iterator[str]) -> Any:
        old = self._text(choice)
        new = next(texts) if old else old
        return choice if new == old else self._with_text(choice, new)
