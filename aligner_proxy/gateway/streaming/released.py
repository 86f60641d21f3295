"""Streams that are released segment by segment: an event goes out as soon as its texts are decided.

What repeats a whole text waits until that text is decided, and agrees with it.
"""

from __future__ import annotations

from functools import partial

from aligner_proxy.errors import NotPutIn
from aligner_proxy.formats.base import StreamEvent
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.streaming.queue import QueuedEvent, StreamQueue
from aligner_proxy.pipeline import eligibility, outcomes
from aligner_proxy.pipeline.streaming import StreamingCorrection
from aligner_proxy.types import Exchange, Outcome, SkipReason, Status


class ReleasedStream(StreamQueue[StreamingCorrection]):
    """A stream of which each text is corrected while it grows."""

    _lost = False
    """An edit did not go into its event, which went out as it came."""

    def _new_text(self, index: int) -> StreamingCorrection:
        exchange = partial(self._decoder.exchange, index)
        return StreamingCorrection(self._corrector.pipeline, self._ledger.policy, exchange, self._changed.set)

    async def _take(self, item: object) -> None:
        await super()._take(item)
        self._check_fault()
        self._changed.set()

    async def _enqueue(self, event: StreamEvent) -> None:
        known = len(self._texts)
        await super()._enqueue(event)
        if len(self._texts) > known or not event.pieces or event.ends:
            for text in self._texts.values():
                text.check()
        for index in event.ends:
            if index in self._texts:
                await self._texts[index].end()

    def _check_fault(self) -> None:
        """What cannot be read goes out as it is, unless the policy wants an error in its place."""
        if self._decoder.fault is None:
            return
        for text in self._texts.values():
            text.close(Status.FAILED, outcomes.INTERNAL)
        if not self._texts:
            self._corrector.refuse(Outcome(Status.FAILED, outcomes.INTERNAL, None, self._ledger.policy))

    async def _end(self) -> None:
        self._check_fault()
        for text in self._texts.values():
            if self._broken is not None:
                text.close(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            await text.end()

    def _ready(self) -> list[object]:
        for text in self._texts.values():
            if (outcome := text.stopped) is not None:
                self._corrector.refuse(outcome)
        ready: list[object] = []
        while self._queue and _decided(self._queue[0]):
            item, has_text = self._item(self._queue.popleft())
            ready.append(item)
            self._sent(item, has_text=has_text)
        return ready

    def _item(self, queued: QueuedEvent[StreamingCorrection]) -> tuple[object, bool]:
        """What goes out in place of an event: the event itself where an edit does not go into it."""
        try:
            return queued.item()
        except NotPutIn:
            self._lost = True
            self._corrector.refuse(Outcome(Status.FAILED, outcomes.INTERNAL, None, self._ledger.policy))
            return queued.event.item, bool(queued.places)

    async def _settle(self, *, finished: bool) -> None:
        for text in self._texts.values():
            if not finished:
                text.close(Status.FAILED, metrics.CANCELLED)
            await text.aclose()
        if self._ledger.settled:
            return
        outcomes = [(self._decoder.exchange(index), text.outcome()) for index, text in sorted(self._texts.items())]
        self._corrector.settle(outcomes or [self._without_text(finished)])
        if self._lost:
            metrics.not_put_in(self._ledger)

    def _without_text(self, finished: bool) -> tuple[Exchange, Outcome]:
        """The outcome of a stream in which there is no text."""
        policy = self._ledger.policy
        exchange = self._decoder.exchange(0)
        if not finished:
            return exchange, Outcome(Status.FAILED, metrics.CANCELLED, None, policy)
        if self._decoder.fault is not None:
            return exchange, Outcome(Status.FAILED, outcomes.INTERNAL, None, policy)
        reason = eligibility.check(exchange, policy) or SkipReason.EMPTY
        return exchange, Outcome(Status.SKIPPED, reason.value, None, policy)


def _decided(queued: QueuedEvent[StreamingCorrection]) -> bool:
    """Whether it is known what goes out in place of all of its texts."""
    return all(text.decided(end) for text, _, end in queued.places) and all(
        text.done for text in queued.wholes.values()
    )
