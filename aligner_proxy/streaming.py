"""What happens to a stream that is held? It is withheld, aligned as a whole, and replayed in the shapes it came in.

One `HeldStream` per request, after the pattern of starlette's gzip responder: all state of a stream is in it and goes
away with it. If nothing is corrected the original items are replayed untouched. Where the original is delivered anyway
(shadow mode, `stream: live`), items pass as they come. Comments keep the connection alive meanwhile, and the last item
is one, unless the stream ended inside an event. Streams that are released segment by segment are in sentences.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from aligner_proxy import failures, telemetry
from aligner_proxy.errors import NotPutIn
from aligner_proxy.ledger import Ledger
from aligner_proxy.rewrite import Wire, sse
from aligner_proxy.rewrite.request import no_store
from aligner_proxy.timeline import Timeline
from aligner_proxy.types import Exchange, Mode, Outcome, SkipReason, Status
from aligner_proxy.waiting import heartbeats

# How an upstream stream breaks: in any way. LiteLLM maps what providers do to errors of its own, but what it stumbles
# over itself (ValueError, KeyError) ends a stream as well. All of them are raised again behind what had come.
UPSTREAM_ERRORS = (Exception,)

Align = Callable[[Sequence[Exchange]], Awaitable[Sequence[Outcome]]]
Hear = Callable[[object], Awaitable[bool]]
"""Told an item; says whether it held any text."""


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
        self.timeline = Timeline()
        self.items: list[object] = []
        """What the upstream sent; after the alignment, what the client gets."""
        self._ending = b""
        """The last bytes of `items`, by which it is known without a walk whether a comment may follow."""
        self._broken: Exception | None = None
        self.comment: bytes | None = None
        """The last item, once it is due."""

    async def play(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """All items of the stream, corrected where the pipeline says so.

        A stream that breaks upstream is delivered as far as it came, uncorrected, and then breaks: what a client of
        LiteLLM alone would have seen. A client that leaves cancels this generator and the work that it awaits.
        """
        live = self._ledger.policy.mode is Mode.SHADOW
        if live:
            async with contextlib.aclosing(self._live(source)) as items:
                async for item in items:
                    yield item
        work = self._correct(source) if live else self._withheld(source)
        async with contextlib.aclosing(heartbeats(work, self._ledger.policy.keepalive_s)) as comments:
            async for comment in comments:
                if not live or sse.at_rest(self._ending):
                    yield comment
        for item in () if live else self.items:
            self.timeline.went()
            yield item
        began = bool(self.items) or self._broken is None  # a stream that never began stays a plain HTTP error
        if began and sse.at_rest(self._ending):
            self.comment = self._ledger.comment(self.timeline)
            yield self.comment
        if self._broken is not None:
            raise self._broken

    async def _live(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        async with contextlib.aclosing(self._gathered(source)) as items:
            async for item, spoke in items:
                if spoke:
                    self.timeline.went()
                yield item

    async def _withheld(self, source: AsyncIterable[object]) -> None:
        async with contextlib.aclosing(self._gathered(source)) as items:
            async for _ in items:
                pass
        await self._correct(source)

    async def _gathered(self, source: AsyncIterable[object]) -> AsyncGenerator[tuple[object, bool], None]:
        """The items as they come, kept, each with whether it held text; where the upstream breaks off, they end."""
        came_to_an_end = False
        try:
            async for item in source:
                self.items.append(item)
                self._ending = sse.tail(self._ending, item)
                spoke = await self._hear(item)
                if spoke:
                    self.timeline.came()
                yield item, spoke
            came_to_an_end = True
        except UPSTREAM_ERRORS as error:
            came_to_an_end = True
            self._give_up(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            self._broken = error
        finally:
            if not came_to_an_end:
                self._give_up(Status.FAILED, telemetry.CANCELLED)

    async def _correct(self, source: object) -> None:
        if self._broken is not None:
            return
        exchanges = self._wire.stream_exchanges(self._data, self.items)
        if not exchanges:
            self._give_up(Status.SKIPPED, SkipReason.EMPTY.value)
            return
        if no_store(self._data, source):  # the upstream's headers may be known of the stream only, not of its items
            exchanges = [replace(exchange, no_store=True) for exchange in exchanges]
        outcomes = await self._align(exchanges)
        try:
            self.items = self._wire.stream_apply(self.items, outcomes)
            self._ending = reduce(sse.tail, self.items, b"")
        except NotPutIn:
            telemetry.not_put_in(self._ledger)
            if any(map(failures.blocks, self._ledger.outcomes)):
                raise

    def _give_up(self, status: Status, reason: str) -> None:
        """Every choice that had begun ends like this."""
        ledger = self._ledger
        telemetry.upstream_ended(ledger)
        begun = [exchange.index for exchange in self._wire.stream_exchanges(self._data, self.items)] or [0]
        ledger.settle([telemetry.closed(ledger.call_id, ledger.policy, status, reason, index) for index in begun])
