"""What if a response cannot be read, or a correction not put into it? Then it is delivered as it came.

LiteLLM's objects are not always what their types say, and a release may change them. One boundary around every wire
format: what cannot be read becomes an exchange with a `fault`, which the pipeline turns into a failure that the policy
knows (`internal_error`, class bug); what cannot be put in is `NotPutIn`. A stream that is taken apart as it comes
(`CarefulTelling`) passes as it is from the first item on that cannot be read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.rewrite.telling import Say, Told
from aligner_proxy.types import Exchange, Outcome

if TYPE_CHECKING:
    from aligner_proxy.rewrite import Wire
    from aligner_proxy.rewrite.telling import Telling


class Careful:
    """A wire format whose failures cost no answer. What it does not name is the format's own."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def exchanges(self, data: Mapping[str, Any], response: Any) -> list[Exchange]:
        """The exchanges of a whole response, or one that says why there are none."""
        try:
            with _named(Unreadable):
                return _numbered(self._wire.exchanges(data, response))
        except Unreadable as error:
            return [_faulty(data, error)]

    def stream_exchanges(self, data: Mapping[str, Any], items: Sequence[object]) -> list[Exchange]:
        """The same of a stream."""
        try:
            with _named(Unreadable):
                return _numbered(self._wire.stream_exchanges(data, items))
        except Unreadable as error:
            return [_faulty(data, error)]

    def apply(self, response: Any, outcomes: Sequence[Outcome]) -> Any:
        """The corrected copy; raises `NotPutIn`."""
        with _named(NotPutIn):
            return self._wire.apply(response, outcomes)

    def stream_apply(self, items: Sequence[object], outcomes: Sequence[Outcome]) -> list[object]:
        """The corrected stream; raises `NotPutIn`."""
        with _named(NotPutIn):
            return self._wire.stream_apply(items, outcomes)


class CarefulTelling:
    """Satisfies `Telling`. From the first item on that cannot be read, all items are told as they came, without a word.

    `fault` then says why. No byte is lost: what the format had taken in and not told yet is told first.
    """

    def __init__(self, telling: Telling, data: Mapping[str, Any]) -> None:
        self._telling, self._data = telling, data
        self._untold = b""
        self.fault: str | None = None

    def take(self, item: object) -> list[Told]:
        """The events that are complete with this item, or the item itself."""
        if self.fault is None:
            try:
                with _named(Unreadable):
                    told = _checked(self._telling.take(item))
                self._untold = (self._untold + _raw(item))[sum(len(_raw(one.item)) for one in told) :]
                return told
            except Unreadable as error:
                self.fault = str(error)
        return [*self._rest(), Told(item)]

    def flush(self) -> list[Told]:
        """What is left when the stream has ended."""
        if self.fault is None:
            try:
                with _named(Unreadable):
                    return _checked(self._telling.flush())
            except Unreadable as error:
                self.fault = str(error)
        return self._rest()

    def exchange(self, index: int) -> Exchange:
        """A text as far as it has been told, or why it cannot be read."""
        try:
            with _named(Unreadable):
                return self._telling.exchange(index)
        except Unreadable as error:
            self.fault = self.fault or str(error)
            return _faulty(self._data, error)

    def _rest(self) -> list[Told]:
        rest, self._untold = self._untold, b""
        return [Told(rest)] if rest else []


def _raw(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode(errors="surrogatepass")
    return item if isinstance(item, bytes) else b""


def _checked(told: list[Told]) -> list[Told]:
    """Upstreams number choices and say text; LiteLLM's objects may hold anything in their place."""
    for one in told:
        if not all(isinstance(index, int) and isinstance(piece, str) for index, piece in one.pieces):
            raise TypeError("a piece that is no text, or of no number")
    return [replace(one, say=partial(_said, one.say)) if one.say else one for one in told]


def _said(say: Say, pieces: Sequence[str], wholes: Mapping[int, str]) -> object:
    """An event with other texts in it; raises `NotPutIn`."""
    with _named(NotPutIn):
        return say(pieces, wholes)


def _numbered(exchanges: list[Exchange]) -> list[Exchange]:
    """Upstreams number choices; a name there would end up in logs."""
    if not all(isinstance(exchange.index, int) for exchange in exchanges):
        raise TypeError("a choice without a number")
    return exchanges


def _faulty(data: Mapping[str, Any], error: Exception) -> Exchange:
    return Exchange(str(data.get("litellm_call_id") or ""), 0, (), None, fault=str(error))


@contextlib.contextmanager
def _named(kind: type[Unreadable | NotPutIn]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise kind(type(error).__name__) from error
