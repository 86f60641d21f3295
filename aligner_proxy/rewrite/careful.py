"""What if a response cannot be read, or a correction not put into it? Then it is delivered as it came.

LiteLLM's objects are not always what their types say, and a release may change them. One boundary around every wire
format: what cannot be read becomes an exchange with a `fault`, which the pipeline turns into a failure that the policy
knows (`internal_error`, class bug); what cannot be put in is `NotPutIn`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aligner_proxy.errors import NotPutIn, Unreadable
from aligner_proxy.types import Exchange, Outcome

if TYPE_CHECKING:
    from aligner_proxy.rewrite import Wire


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
