"""Safe wrappers around a wire format: what cannot be read or written is delivered as it came.

LiteLLM's objects are not always what their types say, and a release may change them. What cannot be read becomes an
exchange with a `fault`, which the pipeline turns into a failure that the policy knows (`internal_error`, class bug);
what cannot be written is `NotPutIn`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.rewrite.telling import StreamDecoder, StreamEvent, Wire
from aligner_proxy.types import Exchange, Outcome

_T = TypeVar("_T")


class SafeFormat:
    """A wire format whose failures cost no answer. What it does not name is the format's own."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    def exchanges(self, data: Mapping[str, Any], response: Any) -> list[Exchange]:
        """The exchanges of a whole response, or one that says why it cannot be read."""
        try:
            return _numbered(_named(Unreadable, self._wire.exchanges, data, response))
        except Unreadable as error:
            return [_faulty(data, str(error))]

    def apply(self, response: Any, outcomes: Sequence[Outcome]) -> Any:
        """The corrected copy; raises `NotPutIn`."""
        return _named(NotPutIn, self._wire.apply, response, outcomes)

    def opening(self, data: Mapping[str, Any], index: int) -> Exchange:
        """A choice before the upstream has sent anything of it."""
        return self._wire.decoder(data).exchange(index)


class SafeDecoder:
    """A `StreamDecoder` that passes all items as they came from the first one on that cannot be read.

    `fault` then says why. No byte is lost: what the format had taken in and not given out yet goes first.
    """

    def __init__(self, decoder: StreamDecoder, data: Mapping[str, Any]) -> None:
        self._decoder = decoder
        self._data = data
        self._pending = b""
        self.fault: str | None = None

    def feed(self, item: object) -> list[StreamEvent]:
        """The events that are complete with this item, or the item itself."""
        events = self._attempt(self._decoder.feed, item)
        if events is None:
            return [*self._rest(), StreamEvent(item)]
        if self._pending or isinstance(item, bytes | str):
            self._pending = (self._pending + _raw(item))[sum(len(_raw(event.item)) for event in events) :]
        return events

    def flush(self) -> list[StreamEvent]:
        """What is left when the stream has ended."""
        events = self._attempt(self._decoder.flush)
        return self._rest() if events is None else events

    def exchange(self, index: int) -> Exchange:
        """A text as far as it has come, or why it cannot be read."""
        try:
            return _named(Unreadable, self._decoder.exchange, index)
        except Unreadable as error:
            self.fault = self.fault or str(error)
            return _faulty(self._data, str(error))

    def exchanges(self) -> list[Exchange]:
        """All texts of a stream that has ended, or one that says why it cannot be read."""
        try:
            if self.fault is None:
                return _numbered(_named(Unreadable, self._decoder.exchanges))
        except Unreadable as error:
            self.fault = str(error)
        return [_faulty(self._data, self.fault)]

    def _attempt(self, decode: Callable[..., list[StreamEvent]], *given: object) -> list[StreamEvent] | None:
        """The events that `decode` gives; None from the first failure on."""
        try:
            if self.fault is None:
                return _checked(_named(Unreadable, decode, *given))
        except Unreadable as error:
            self.fault = str(error)
        return None

    def _rest(self) -> list[StreamEvent]:
        rest = self._pending
        self._pending = b""
        return [StreamEvent(rest)] if rest else []


def with_texts(event: StreamEvent, pieces: Sequence[str], wholes: Mapping[int, str]) -> object:
    """The event with other texts in it; raises `NotPutIn`."""
    return _named(NotPutIn, event.with_texts, pieces, wholes)


def _named(kind: type[Unreadable | NotPutIn], call: Callable[..., _T], *given: object) -> _T:
    """What `call` returns. What it raises becomes a `kind` that gives only its type: a message may quote the text."""
    try:
        return call(*given)
    except Exception as error:
        raise kind(type(error).__name__) from error


def _raw(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode(errors="surrogatepass")
    return item if isinstance(item, bytes) else b""


def _checked(events: list[StreamEvent]) -> list[StreamEvent]:
    """Upstreams number choices and send text; LiteLLM's objects may hold anything in their place."""
    for event in events:
        for index, piece in event.pieces:
            if not (isinstance(index, int) and isinstance(piece, str)):
                raise Unreadable(TypeError.__name__)
    return events


def _numbered(exchanges: list[Exchange]) -> list[Exchange]:
    """Upstreams number choices; a name there would end up in logs."""
    if not all(isinstance(exchange.index, int) for exchange in exchanges):
        raise Unreadable(TypeError.__name__)
    return exchanges


def _faulty(data: Mapping[str, Any], fault: str | None) -> Exchange:
    return Exchange(str(data.get("litellm_call_id") or ""), 0, (), None, fault=fault)
