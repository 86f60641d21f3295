"""Streams that are corrected as a whole: held until the answer is there, or live, where the original passes at once.

A held stream is replayed in the shapes it came in, a new text spread over the events that carried the old one. If
nothing is corrected the upstream's own items are replayed. A stream that grows beyond what may be held goes on as one
that is released part by part (released.py), unless the policy blocks it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

from aligner_proxy.concurrency import run_to_end
from aligner_proxy.engine.api import Session
from aligner_proxy.errors import NotPutIn
from aligner_proxy.formats.base import StreamEvent, corrected_texts, no_store
from aligner_proxy.formats.packing import Packer
from aligner_proxy.gateway import litellm_internals, metrics
from aligner_proxy.gateway.side_texts import delivered_texts
from aligner_proxy.gateway.streaming.line import PACKED_FROM
from aligner_proxy.gateway.streaming.prefill import PrefilledText
from aligner_proxy.gateway.streaming.queue import StreamQueue, slices
from aligner_proxy.gateway.streaming.released import ReleasedStream
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.pipeline.part_cutter import is_blocked, longest_part
from aligner_proxy.types import Exchange, Outcome, SkipReason, Status


class HeldStream(StreamQueue[PrefilledText]):
    """A stream of which nothing goes out before its whole answer is corrected; the engine reads along meanwhile."""

    _outgoing: Collection[object] = ()
    """What may go out, once that is decided."""
    _has_outcome = False
    _released: ReleasedStream | None = None
    """The stream as which this one goes on, once it cannot be held as a whole."""

    @cached_property
    def _received(self) -> deque[object]:
        """What the upstream sent: items, or what the line keeps in their place."""
        return deque()

    def _new_text(self, index: int) -> PrefilledText:
        pipeline = self._request.corrector.pipeline
        return PrefilledText(pipeline, self._request.ledger.policy, index, partial(self._decoder.facts, index))

    async def take(self, item: object) -> None:
        """Decode an item and put it in line."""
        if self._released is not None:
            await self._released.take(item)
            return
        count_before = len(self._queue)
        await super().take(item)
        is_event = len(self._queue) == count_before + 1 and not isinstance(item, bytes | str)
        self._received.append(self._queue.last if is_event else item)
        if self._longest() > longest_part(self._request.ledger.policy):
            await self._go_on_in_parts()

    def _longest(self) -> int:
        """The length of the longest text."""
        return max((text.length for text in self._texts.values()), default=0)

    async def _go_on_in_parts(self) -> ReleasedStream:
        """Release what is held and what comes part by part; raises where the policy wants an error instead."""
        if is_blocked(self._request.ledger.policy, self._longest()):
            self._has_outcome = True
            self._give_up(Status.SKIPPED, SkipReason.TOO_LONG.value)
            self._request.corrector.refuse(self._request.ledger.outcomes[0])
        for text in self._texts.values():
            await run_to_end(text.aclose())
        self._texts.clear()
        while self._queue:
            self._next()
        side = self._request.side.reopen() if self._request.side else None
        request = self._request
        released = ReleasedStream(
            request.wire, request.data, request.ledger, request.corrector, self._room.account, side
        )
        released.client = self.client
        released.changed = self.changed
        self._released = released
        while self._received:
            await released.take(self._queue.original(self._received.popleft()))
            await self._time.pause()
        return released

    async def finish(self) -> None:
        """The upstream has sent all, or broke off."""
        if self._released is None:
            await super().finish()
        else:
            self._released.broken = self.broken
            await self._released.finish()

    async def relieve(self) -> None:
        """Hold no more than there is."""
        released = self._released or await self._go_on_in_parts()
        await released.relieve()

    def give_way(self) -> None:
        """Give up what is undecided."""
        if self._released is not None:
            self._released.give_way()

    @property
    def waits(self) -> bool:
        """Whether there are events in line."""
        return super().waits if self._released is None else self._released.waits

    async def _end(self) -> None:
        """Correct the answer, unless the upstream broke off: then what came goes out as it is."""
        self._has_outcome = True
        exchanges = self._exchanges()
        outcomes = await self._correct_texts(exchanges)
        texts = corrected_texts(outcomes)
        outgoing: Collection[object] = self._received
        if texts:
            try:
                outgoing = await self._replay_events(exchanges, texts)
            except NotPutIn:
                metrics.record_not_applied(self._request.ledger)
                if any(map(pipeline_outcomes.blocks, self._request.ledger.outcomes)):
                    raise
        if self._request.side is not None:
            changed = outgoing is not self._received
            await self._request.side.settle(delivered_texts(exchanges, outcomes, changed=changed))
        self._queue.clear()
        self._outgoing = outgoing  # at last: while others have their turn, nothing may go out

    async def _correct_texts(self, exchanges: Sequence[Exchange]) -> Sequence[Outcome]:
        """The outcomes of all texts of the response; empty where the upstream failed or there is no text."""
        if self._passes_broken:
            self._give_up(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            if any(map(pipeline_outcomes.blocks, self._request.ledger.outcomes)):
                self._request.corrector.refuse(self._request.ledger.outcomes[0])
            return ()
        if not exchanges:
            reason = SkipReason.EMPTY if self.broken is None else SkipReason.UPSTREAM_ERROR
            self._give_up(Status.SKIPPED, reason.value)
            return ()
        # The upstream's headers may stand on the stream only, not on its items.
        if no_store(self._request.data, self._source):
            exchanges = [replace(exchange, no_store=True) for exchange in exchanges]
        return await self._request.corrector.correct(exchanges, self._session)

    def _exchanges(self) -> list[Exchange]:
        return self._decoder.exchanges()

    def _session(self, index: int) -> Session | None:
        return self._texts[index].take_session() if index in self._texts else None

    async def _replay_events(self, exchanges: Sequence[Exchange], texts: Mapping[int, str]) -> list[object]:
        """The events with the corrected texts in them."""
        for exchange in exchanges:
            if exchange.index in texts:
                self._text(exchange.index).replace(len(exchange.answer or ""), texts[exchange.index])
        items: list[object] = []
        packer = Packer()
        for queued in self._queue:
            item = queued.item()[0]
            items.append(item if len(items) < PACKED_FROM else packer.pack(item))
            await self._time.pause()
        return items

    def ready(self) -> Iterator[tuple[object, bool]]:
        """All items, once the answer is corrected."""
        if self._released is not None:
            yield from self._released.ready()
        outgoing = self._outgoing
        self._outgoing = ()
        yield from ((self._queue.original(item), True) for item in outgoing)

    async def settle(self, *, finished: bool) -> None:
        """Let go of what is still worked on, and settle what is not settled."""
        if self._released is not None:
            await self._released.settle(finished=finished)
            return
        if not self._has_outcome:
            self._give_up(Status.FAILED, metrics.CANCELLED)
        for text in self._texts.values():
            await text.aclose()

    def _give_up(self, status: Status, reason: str) -> None:
        """Every choice that had begun ends like this."""
        ledger = self._request.ledger
        metrics.record_upstream_end(ledger)
        indices = [exchange.index for exchange in self._exchanges()] or [0]
        ledger.settle(
            [metrics.record_unprocessed(ledger.call_id, ledger.policy, status, reason, index) for index in indices]
        )


class LiveStream(HeldStream):
    """A stream whose original passes as it comes (shadow mode, `stream: live`); its correction is for the record.

    Each item is decoded when it has gone out, and only its text is kept.
    """

    async def _flow(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        chunks = litellm_internals.stream_chunks(source)
        async with contextlib.aclosing(self._upstream(source)) as items:
            async for item in items:
                self.client.timeline.note_upstream()
                self.client.note(item, has_text=True)
                yield item
                await self.take(item)
                chunks.merge()
        async with contextlib.aclosing(super()._flow(_nothing())) as comments:
            async for comment in comments:
                yield comment

    async def take(self, item: object) -> None:
        """Decode an item that has gone out."""
        for piece in slices(item):
            self._decoder.feed(piece)
            await self._time.pause()

    async def _enqueue(self, event: StreamEvent) -> None:
        """Nothing waits: all has gone out."""

    async def _end(self) -> None:
        self._has_outcome = True
        await self._correct_texts(self._exchanges())


async def _nothing() -> AsyncGenerator[object, None]:
    """A stream of no items."""
    for item in list[object]():
        yield item
