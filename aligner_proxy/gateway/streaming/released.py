"""Streams that are released segment by segment: an event is delivered as soon as its texts are decided.

An event that repeats a whole text waits until all of that text is decided, and gets the same edits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

from aligner_proxy.errors import NotPutIn, Shed
from aligner_proxy.formats.base import StreamEvent
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.streaming.line import QueuedEvent
from aligner_proxy.gateway.streaming.queue import StreamQueue
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.types import Exchange, Outcome, SkipReason, Status, StreamMode


class ReleasedStream(StreamQueue[GrowingAnswer]):
    """A stream whose texts are corrected while they grow."""

    _edit_left_out = False
    """Whether an edit could not be inserted into its event, which was delivered unchanged."""
    _contradicted = False
    """Whether events contradict one another and the policy prefers an error."""

    _undecided: Sequence[GrowingAnswer] = ()
    """Texts that may still be undecided."""
    _over = False
    """Whether the upstream has ended."""
    skipped_count = 0
    """How many of the next events the client has already."""

    @cached_property
    def _ended_texts(self) -> set[int]:
        """Numbers of the texts that have ended."""
        return set()

    def _new_text(self, index: int) -> GrowingAnswer:
        """A text that is corrected while it grows; given up at once if the stream was shed."""
        facts = partial(self._decoder.facts, index)
        policy = self._request.ledger.policy
        # A stream that was too long to be held is decided part by part, not segment by segment.
        whole = policy.stream is StreamMode.HOLD
        text = GrowingAnswer(self._request.corrector.pipeline, policy, facts, self.changed.set, whole=whole)
        if self._room.is_shed:
            text.close(Status.FAILED, Shed.reason)
        self._undecided = (*self._undecided, text)
        return text

    async def take(self, item: object) -> None:
        """Decode an item, queue its events, and check for faults."""
        await super().take(item)
        self._check_fault()
        self.changed.set()

    async def _enqueue(self, event: StreamEvent) -> None:
        """Queue an event, and end or check the texts that it affects."""
        self._check_agreement(event)
        text_count = len(self._texts)
        await super()._enqueue(event)
        if self._request.side is not None and event.pieces and self._request.side.pending:
            # Side texts before the answer have ended.
            await self._request.side.settle((), ended_only=True)
        # Something other than text arrived, such as a tool call, which may forbid edits.
        if len(self._texts) > text_count or not event.pieces or event.ends:
            for text in self._open():
                text.check()
        self._ended_texts.update(event.ends)
        for index in event.ends:
            if index in self._texts:
                await self._texts[index].end()

    def _open(self) -> Sequence[GrowingAnswer]:
        """The texts that are not completely decided."""
        self._undecided = tuple(text for text in self._undecided if not text.done)
        return self._undecided

    async def relieve(self) -> None:
        """Decide texts that only wait for more of the stream, by ending their current part."""
        for text in self._open():
            await text.end_part()

    def give_way(self) -> None:
        """Give up undecided texts, because the stream is shed."""
        self._room.is_shed = True
        for text in self._open():
            text.close(Status.FAILED, Shed.reason)
        self.changed.set()

    def _check_agreement(self, event: StreamEvent) -> None:
        """Raise `Blocked` if the event contradicts earlier ones and the policy prefers an error; otherwise let it pass.

        An event that adds to a text after its end is a contradiction. So is one that repeats a whole text differently
        from its pieces, since released text was judged by its pieces.
        """
        if not self._decoder.disagrees and not any(index in self._ended_texts for index, _ in event.pieces):
            return
        outcome = Outcome(Status.SKIPPED, SkipReason.INCONSISTENT.value, None, self._request.ledger.policy)
        if outcomes.blocks(outcome):
            self._contradicted = True
            self._request.corrector.refuse(outcome)

    def _check_fault(self) -> None:
        """Close all texts as failed if the stream cannot be read; it then passes unless the policy prefers an error."""
        if self._decoder.fault is None:
            return
        for text in self._texts.values():
            text.close(Status.FAILED, outcomes.INTERNAL)
        if not self._texts:
            self._request.corrector.refuse(Outcome(Status.FAILED, outcomes.INTERNAL, None, self._request.ledger.policy))

    async def _end(self) -> None:
        """End all texts, judge pending side texts, and check a refusal, which is complete only now."""
        self._check_fault()
        for text in self._texts.values():
            if self._passes_broken:
                text.close(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            await text.end()
        if self._request.side is not None:
            # A side text that repeats an answer is not judged again, so the answers must be decided first.
            for text in self._texts.values() if self._request.side.pending else ():
                await text.wait_until_over()
            await self._request.side.settle([text.render(0, text.length) for text in self._texts.values() if text.done])
        if self._withholds_refusal():
            for exchange in self._decoder.exchanges():
                if (reason := eligibility.check(exchange, self._request.ledger.policy)) is not None:
                    self._request.corrector.refuse(
                        Outcome(Status.SKIPPED, reason.value, None, self._request.ledger.policy)
                    )
        self._over = True

    def _withholds_refusal(self) -> bool:
        """Whether the refusal field may block the stream, which is known only when the field is complete."""
        policy = self._request.ledger.policy
        reasons = (SkipReason.NON_TEXT, SkipReason.REFUSAL)
        return self._decoder.refusing and any(
            outcomes.blocks(Outcome(Status.SKIPPED, reason.value, None, policy)) for reason in reasons
        )

    def ready(self) -> Iterator[tuple[object, bool]]:
        """The items whose texts are all decided."""
        self._refuse(self._texts.values())
        if self._room.is_shed and self._request.side is not None:
            self._request.side.refuse_pending()
        # Other tasks run while an item is delivered, so check for given-up texts and new side texts each time.
        while self._queue and not self._withholds_all() and _is_decided(queued := self._queue.first):
            self._refuse([*(text for text, _, _ in queued.places), *queued.wholes.values()])
            if self.skipped_count:
                self.skipped_count -= 1
                self._next()
            else:
                yield self._item(self._next())

    @property
    def _may_show_next(self) -> bool:
        return not self._withholds_all() and self._decoder.fault is None

    def _withholds_all(self) -> bool:
        """Whether delivery pauses because of a side text or a refusal."""
        return (not self._over and self._withholds_refusal()) or (
            self._request.side is not None and self._request.side.pending
        )

    def _refuse(self, texts: Iterable[GrowingAnswer]) -> None:
        """Raise `Blocked` if the policy prefers an error to one of these texts."""
        for text in texts:
            if (outcome := text.stopped) is not None:
                self._request.corrector.refuse(outcome)

    def _item(self, queued: QueuedEvent[GrowingAnswer]) -> tuple[object, bool]:
        """The item to deliver for an event; its original if an edit cannot be inserted and the policy permits that."""
        try:
            return queued.item()
        except NotPutIn:
            self._edit_left_out = True
            self._request.corrector.refuse(Outcome(Status.FAILED, outcomes.INTERNAL, None, self._request.ledger.policy))
            return queued.event.original, bool(queued.places)

    async def settle(self, *, finished: bool) -> None:
        """Close all texts and settle their outcomes."""
        for text in self._texts.values():
            if not finished:
                text.close(Status.FAILED, metrics.CANCELLED)
            await text.aclose()
        if self._request.ledger.is_settled:
            return
        outcomes = [(self._decoder.exchange(index), text.outcome()) for index, text in sorted(self._texts.items())]
        outcomes = outcomes or [self._without_text(finished)]
        if self._request.side is not None and self._request.side.ending_kind is not None:
            reason = self._request.side.ending_kind.value
            outcomes = [
                (exchange, replace(outcome, status=Status.FAILED, reason=reason)) for exchange, outcome in outcomes
            ]
        # The client got an error, whatever was decided about each text before.
        if self._contradicted:
            reason = SkipReason.INCONSISTENT.value
            outcomes = [
                (exchange, replace(outcome, status=Status.SKIPPED, reason=reason)) for exchange, outcome in outcomes
            ]
        self._request.corrector.settle(outcomes)
        if self._edit_left_out:
            metrics.record_not_applied(self._request.ledger)

    def _without_text(self, finished: bool) -> tuple[Exchange, Outcome]:
        """Exchange and outcome of a stream without any text."""
        policy = self._request.ledger.policy
        exchange = self._decoder.exchange(0)
        if not finished:
            return exchange, Outcome(Status.FAILED, metrics.CANCELLED, None, policy)
        if self._decoder.fault is not None:
            return exchange, Outcome(Status.FAILED, outcomes.INTERNAL, None, policy)
        reason = eligibility.check(exchange, policy) or SkipReason.EMPTY
        return exchange, Outcome(Status.SKIPPED, reason.value, None, policy)


def _is_decided(queued: QueuedEvent[GrowingAnswer]) -> bool:
    """Whether all texts of the event are decided."""
    return all(text.is_decided(end) for text, _, end in queued.places) and all(
        text.done for text in queued.wholes.values()
    )
