"""What happens to a stream? It is withheld, aligned as a whole, and replayed in the shapes it came in.

One `HeldStream` per request, after the pattern of starlette's gzip responder: all state of a stream is in it and goes
away with it. If nothing is corrected the original items are replayed untouched. In shadow mode, where the original is
delivered anyway, items pass as they come. The last item is an SSE comment.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
from openai import OpenAIError

from aligner_proxy import telemetry
from aligner_proxy.ledger import Ledger
from aligner_proxy.rewrite import Wire
from aligner_proxy.types import Exchange, Mode, Outcome, SkipReason, Status

# How an upstream stream breaks: LiteLLM maps what providers do to subclasses of OpenAIError; the rest is transport.
UPSTREAM_ERRORS = (OpenAIError, httpx.HTTPError, OSError)

Align = Callable[[Sequence[Exchange]], Awaitable[Sequence[Outcome]]]
Hear = Callable[[object], Awaitable[None]]


class HeldStream:
    """One stream on its way through. `align` settles the ledger, or raises when the policy wants failures blocked.

    `hear` is told every item as it comes, so that the engine can read along.
    """

    def __init__(self, wire: Wire, data: Mapping[str, Any], ledger: Ledger, align: Align, hear: Hear) -> None:
        self._wire = wire
        self._data = data
        self._ledger = ledger
        self._align = align
        self._hear = hear
        self.items: list[object] = []
        """What the upstream sent; after the alignment, what the client gets."""

    async def play(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """All items of the stream, corrected where the pipeline says so.

        A stream that breaks upstream is delivered as far as it came, uncorrected, and then breaks: what a client of
        LiteLLM alone would have seen. A client that leaves cancels this generator and the work that it awaits.
        """
        live = self._ledger.policy.mode is Mode.SHADOW
        broken = None
        async with contextlib.aclosing(self._gathered(source)) as items:
            async for item in items:
                if isinstance(item, Broken):
                    broken = item.error
                elif live:
                    yield item
        if broken is None:
            await self._correct()
        for item in () if live else self.items:
            yield item
        if self.items or broken is None:  # a stream that never began stays a plain HTTP error
            yield self._ledger.comment()
        if broken is not None:
            raise broken

    async def _gathered(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """The items as they come, kept; the last one is a `Broken` if the upstream broke off."""
        came_to_an_end = False
        try:
            async for item in source:
                self.items.append(item)
                await self._hear(item)
                yield item
            came_to_an_end = True
        except UPSTREAM_ERRORS as error:
            came_to_an_end = True
            self._give_up(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            yield Broken(error)
        finally:
            if not came_to_an_end:
                self._give_up(Status.FAILED, telemetry.CANCELLED)

    async def _correct(self) -> None:
        exchanges = self._wire.stream_exchanges(self._data, self.items)
        if not exchanges:
            self._give_up(Status.SKIPPED, SkipReason.EMPTY.value)
            return
        self.items = self._wire.stream_apply(self.items, await self._align(exchanges))

    def _give_up(self, status: Status, reason: str) -> None:
        """Every choice that had begun ends like this."""
        ledger = self._ledger
        begun = [exchange.index for exchange in self._wire.stream_exchanges(self._data, self.items)] or [0]
        ledger.settle([telemetry.closed(ledger.call_id, ledger.policy, status, reason, index) for index in begun])


class Broken:
    """Stands at the end of the items for an upstream that broke off."""

    def __init__(self, error: Exception) -> None:
        self.error = error
