"""Streams that are corrected as a whole: held until the answer is there, or live, where the original passes at once.

A held stream is replayed in the shapes it came in, a new text spread over the events that carried the old one. If
nothing is corrected the upstream's own items are replayed. Streams that are released by segments are in sentences.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aligner_proxy.engine.api import Session
from aligner_proxy.errors import NotPutIn
from aligner_proxy.formats import Wire
from aligner_proxy.formats.base import corrected, no_store
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.streaming.prefill import PrefilledText
from aligner_proxy.gateway.streaming.queue import StreamQueue
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.types import Exchange, Outcome, SkipReason, Status


class HeldStream(StreamQueue[PrefilledText]):
    """A stream of which nothing goes out before its whole answer is corrected; the engine reads along meanwhile."""

    def __init__(self, wire: Wire, data: Mapping[str, Any], ledger: RequestState, corrector: ChoiceCorrector) -> None:
        super().__init__(wire, data, ledger, corrector)
        self._received: list[object] = []
        """What the upstream sent."""
        self._outgoing: Sequence[object] = ()
        """What may go out, once that is decided."""
        self._ended = False

    def _new_text(self, index: int) -> PrefilledText:
        pipeline = self._corrector.pipeline
        return PrefilledText(pipeline, self._ledger.policy, index, partial(self._decoder.exchange, index))

    async def _take(self, item: object) -> None:
        self._received.append(item)
        await super()._take(item)

    async def _end(self) -> None:
        """Correct the answer, unless the upstream broke off: then what came goes out as it is."""
        outcomes = await self._corrected()
        self._outgoing = self._received
        texts = corrected(outcomes)
        if texts:
            try:
                self._outgoing = self._replayed(texts)
            except NotPutIn:
                metrics.not_put_in(self._ledger)
                if any(map(pipeline_outcomes.blocks, self._ledger.outcomes)):
                    raise
        self._queue.clear()

    async def _corrected(self) -> Sequence[Outcome]:
        """The outcomes of all texts of the response; empty where the upstream failed or there is no text."""
        self._ended = True
        if self._broken is not None:
            self._give_up(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            return ()
        exchanges = self._exchanges()
        if not exchanges:
            self._give_up(Status.SKIPPED, SkipReason.EMPTY.value)
            return ()
        # The upstream's headers may stand on the stream only, not on its items.
        if no_store(self._data, self._source):
            exchanges = [replace(exchange, no_store=True) for exchange in exchanges]
        return await self._corrector.correct(exchanges, self._session)

    def _exchanges(self) -> list[Exchange]:
        return self._decoder.exchanges()

    def _session(self, index: int) -> Session | None:
        return self._texts[index].take_session() if index in self._texts else None

    def _replayed(self, texts: Mapping[int, str]) -> list[object]:
        """The events with the corrected texts in them."""
        for exchange in self._decoder.exchanges():
            if exchange.index in texts:
                self._text(exchange.index).replace(len(exchange.answer or ""), texts[exchange.index])
        return [queued.item()[0] for queued in self._queue]

    def _ready(self) -> list[object]:
        ready = list(self._outgoing)
        self._outgoing = ()
        for item in ready:
            self._sent(item, has_text=True)
        return ready

    async def _settle(self, *, finished: bool) -> None:
        if not self._ended:
            self._give_up(Status.FAILED, metrics.CANCELLED)
        for text in self._texts.values():
            await text.aclose()

    def _give_up(self, status: Status, reason: str) -> None:
        """Every choice that had begun ends like this."""
        ledger = self._ledger
        metrics.upstream_ended(ledger)
        begun = [exchange.index for exchange in self._exchanges()] or [0]
        ledger.settle([metrics.closed(ledger.call_id, ledger.policy, status, reason, index) for index in begun])


class LiveStream(HeldStream):
    """A stream whose original passes as it comes (shadow mode, `stream: live`); its correction is for the record.

    It is decoded when all has gone out, so that the client does not wait for that.
    """

    async def _flow(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        async with contextlib.aclosing(self._upstream(source)) as items:
            async for item in items:
                self._received.append(item)
                self.timeline.came()
                self._sent(item, has_text=True)
                yield item
        async with contextlib.aclosing(super()._flow(_nothing())) as comments:
            async for comment in comments:
                yield comment

    async def _end(self) -> None:
        await self._corrected()

    def _exchanges(self) -> list[Exchange]:
        for item in self._received:
            self._decoder.feed(item)
        self._decoder.flush()
        return super()._exchanges()


async def _nothing() -> AsyncGenerator[object, None]:
    """A stream of no items."""
    for item in list[object]():
        yield item
