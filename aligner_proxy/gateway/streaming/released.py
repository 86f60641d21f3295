"""Streams that are released segment by segment: an event goes out as soon as its texts are decided.

What repeats a whole text waits until that text is decided, and agrees with it.
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
    """A stream of which each text is corrected while it grows."""

    _edit_left_out = False
    """An edit did not go into its event, which went out as it came."""
    _contradicted = False
    """Its events contradict one another, and the policy wants an error in their place."""

    _undecided: Sequence[GrowingAnswer] = ()
    """The texts that may not be decided yet."""
    _over = False
    """The upstream has sent all."""

    @cached_property
    def _ended_texts(self) -> set[int]:
        """The texts behind which nothing may follow."""
        return set()

    def _new_text(self, index: int) -> GrowingAnswer:
        facts = partial(self._decoder.facts, index)
        policy = self._request.ledger.policy
        whole = policy.stream is StreamMode.HOLD
        text = GrowingAnswer(self._request.corrector.pipeline, policy, facts, self.changed.set, whole=whole)
        if self._room.is_shed:
            text.close(Status.FAILED, Shed.reason)
        self._undecided = (*self._undecided, text)
        return text

    async def take(self, item: object) -> None:
        """Decode an item and put its events in line."""
        await super().take(item)
        self._check_fault()
        self.changed.set()

    async def _enqueue(self, event: StreamEvent) -> None:
        self._check_agreement(event)
        text_count = len(self._texts)
        await super()._enqueue(event)
        if self._request.side is not None and event.pieces and self._request.side.pending:
            # What stood before the answer has ended.
            await self._request.side.settle((), ended_only=True)
        if len(self._texts) > text_count or not event.pieces or event.ends:
            for text in self._open():
                text.check()
        self._ended_texts.update(event.ends)
        for index in event.ends:
            if index in self._texts:
                await self._texts[index].end()

    def _open(self) -> Sequence[GrowingAnswer]:
        """The texts of which something is undecided."""
        self._undecided = tuple(text for text in self._undecided if not text.done)
        return self._undecided

    async def relieve(self) -> None:
        """Decide what waits only for more of the stream."""
        for text in self._open():
            await text.end_part()

    def give_way(self) -> None:
        """Give up what is undecided: the stream is shed."""
        self._room.is_shed = True
        for text in self._open():
            text.close(Status.FAILED, Shed.reason)
        self.changed.set()

    def _check_agreement(self, event: StreamEvent) -> None:
        """Events that contradict one another go out as they came, unless the policy wants an error in their place.

        An event that adds to a text behind its end is one of them.

        What is released was judged by its pieces: an event that says another text as the whole must not follow them.
        """
        if not self._decoder.disagrees and not any(index in self._ended_texts for index, _ in event.pieces):
            return
        outcome = Outcome(Status.SKIPPED, SkipReason.INCONSISTENT.value, None, self._request.ledger.policy)
        if outcomes.blocks(outcome):
            self._contradicted = True
            self._request.corrector.refuse(outcome)

    def _check_fault(self) -> None:
        """What cannot be read goes out as it is, unless the policy wants an error in its place."""
        if self._decoder.fault is None:
            return
        for text in self._texts.values():
            text.close(Status.FAILED, outcomes.INTERNAL)
        if not self._texts:
            self._request.corrector.refuse(Outcome(Status.FAILED, outcomes.INTERNAL, None, self._request.ledger.policy))

    async def _end(self) -> None:
        self._check_fault()
        for text in self._texts.values():
            if self._passes_broken:
                text.close(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            await text.end()
        if self._request.side is not None:
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
        """Whether what stands in the field for refusals may end the stream: how it reads is known at its end."""
        policy = self._request.ledger.policy
        reasons = (SkipReason.NON_TEXT, SkipReason.REFUSAL)
        return self._decoder.refusing and any(
            outcomes.blocks(Outcome(Status.SKIPPED, reason.value, None, policy)) for reason in reasons
        )

    def ready(self) -> Iterator[tuple[object, bool]]:
        """The items of which all texts are decided."""
        self._refuse(self._texts.values())
        if self._room.is_shed and self._request.side is not None:
            self._request.side.refuse_pending()
        # Others run while an item goes out: what was given up or came beside the answer meanwhile counts.
        while self._queue and not self._withholds_all() and _is_decided(queued := self._queue.first):
            self._refuse([*(text for text, _, _ in queued.places), *queued.wholes.values()])
            yield self._item(self._next())

    def _withholds_all(self) -> bool:
        """Whether nothing goes out now, because of a text beside the answer."""
        return (not self._over and self._withholds_refusal()) or (
            self._request.side is not None and self._request.side.pending
        )

    def _refuse(self, texts: Iterable[GrowingAnswer]) -> None:
        """End the stream where the policy wants an error in place of one of these texts."""
        for text in texts:
            if (outcome := text.stopped) is not None:
                self._request.corrector.refuse(outcome)

    def _item(self, queued: QueuedEvent[GrowingAnswer]) -> tuple[object, bool]:
        """What goes out in place of an event: the event itself where an edit does not go into it."""
        try:
            return queued.item()
        except NotPutIn:
            self._edit_left_out = True
            self._request.corrector.refuse(Outcome(Status.FAILED, outcomes.INTERNAL, None, self._request.ledger.policy))
            return queued.event.original, bool(queued.places)

    async def settle(self, *, finished: bool) -> None:
        """Let go of what is still worked on, and settle what is not settled."""
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
        if self._contradicted:
            reason = SkipReason.INCONSISTENT.value
            outcomes = [
                (exchange, replace(outcome, status=Status.SKIPPED, reason=reason)) for exchange, outcome in outcomes
            ]
        self._request.corrector.settle(outcomes)
        if self._edit_left_out:
            metrics.record_not_applied(self._request.ledger)

    def _without_text(self, finished: bool) -> tuple[Exchange, Outcome]:
        """The outcome of a stream in which there is no text."""
        policy = self._request.ledger.policy
        exchange = self._decoder.exchange(0)
        if not finished:
            return exchange, Outcome(Status.FAILED, metrics.CANCELLED, None, policy)
        if self._decoder.fault is not None:
            return exchange, Outcome(Status.FAILED, outcomes.INTERNAL, None, policy)
        reason = eligibility.check(exchange, policy) or SkipReason.EMPTY
        return exchange, Outcome(Status.SKIPPED, reason.value, None, policy)


def _is_decided(queued: QueuedEvent[GrowingAnswer]) -> bool:
    """Whether it is known what goes out in place of all of its texts."""
    return all(text.is_decided(end) for text, _, end in queued.places) and all(
        text.done for text in queued.wholes.values()
    )
