"""Streams that are released segment by segment: an event is delivered as soon as its texts are decided.

An event that repeats a whole text waits until all of that text is decided, and gets the same edits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

from aligner_proxy.errors import CopyStays, NotPutIn, Shed
from aligner_proxy.formats.base import ContentBlock, StreamEvent
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.second_copies import NOTHING, StreamCopies, copy_outcome, withdraw_corrections
from aligner_proxy.gateway.streaming.line import QueuedEvent
from aligner_proxy.gateway.streaming.queue import StreamQueue
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.answer_texts import GrowingTexts
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.types import Exchange, IfNothingRemains, Outcome, SkipReason, Status, StreamMode


class ReleasedStream(StreamQueue[GrowingAnswer]):
    """A stream whose texts are corrected while they grow."""

    _edit_left_out = False
    """Whether an edit could not be inserted into its event, which was delivered unchanged."""
    _copy_stays = False
    """Whether text that an edit removed has gone out in another field."""
    _contradicted = False
    """Whether events contradict one another and the policy prefers an error."""

    _answer_texts: GrowingTexts | None = None
    """All texts, if they belong to one answer that may be declined as a whole."""
    _undecided: Sequence[GrowingAnswer] = ()
    """Texts that may still be undecided."""
    _is_relieved = False
    """Whether `relieve` was called; from then on, the beginning of a block waits for no text."""
    _has_ended = False
    """Whether the upstream has ended."""
    _skipped_count = 0
    """How many of the next events the client has already."""

    @cached_property
    def _ended_texts(self) -> set[int]:
        """Numbers of the texts that have ended."""
        return set()

    @cached_property
    def _copies(self) -> StreamCopies:
        """Finds second copies of what edits removed, in other fields of the events."""
        return StreamCopies(self._request.data)

    @cached_property
    def _edit_counts(self) -> Counter[int]:
        """By number of a text, how many of its edits `_copies` was told."""
        return Counter()

    def note_opening(self, items: Sequence[object]) -> None:
        """Note the first items of the stream, which the client has already."""
        self._skipped_count = len(items)
        for item in items:
            self._copies.read(item, ())

    def _new_text(self, index: int) -> GrowingAnswer:
        """A text that is corrected while it grows; closed as failed at once if there is no room to correct it."""
        facts = partial(self._decoder.exchange_without_text, index)
        policy = self._request.state.policy
        # A stream that was too long to be held is decided part by part, not segment by segment.
        is_whole = policy.stream is StreamMode.HOLD
        pipeline = self._request.corrector.pipeline
        notify: Callable[[], None] = self.changed.set
        if policy.if_nothing_remains is not IfNothingRemains.ORIGINAL and self._decoder.is_one_answer:
            self._answer_texts = self._answer_texts or GrowingTexts(
                pipeline.refusal_text, self._texts, partial(self._decoder.exchange_without_text, 0)
            )
            notify = partial(_note_change, self.changed, self._answer_texts)
        text = GrowingAnswer(pipeline, policy, facts, notify, whole=is_whole, texts=self._answer_texts)
        if self._room.gave_up_correcting:
            text.close(Status.FAILED, Shed.reason)
        self._undecided = (*self._undecided, text)
        return text

    async def take(self, item: object) -> None:
        """Decode an item, queue its events, and check for faults."""
        await super().take(item)
        self._check_fault()
        self.changed.set()

    async def _enqueue(self, event: StreamEvent) -> None:
        """Queue an event and end the texts that it ends.

        If it brings more than pieces of known texts, the undecided texts check again whether they may be edited.
        """
        self._check_agreement(event)
        text_count = len(self._texts)
        await super()._enqueue(event)
        if self._request.side is not None and event.pieces and self._request.side.has_pending:
            # Texts beside the answer, such as reasoning, end where the answer begins.
            await self._request.side.judge_pending((), ended_only=True)
        # More than known text arrived: a new text, an end, or something like a tool call, which may forbid edits.
        if len(self._texts) > text_count or not event.pieces or event.ended_texts:
            for text in self._list_undecided():
                text.check()
            if self._answer_texts is not None:
                self._answer_texts.check()
        self._ended_texts.update(event.ended_texts)
        for index in event.ended_texts:
            if index in self._texts:
                await self._texts[index].end()

    def _list_undecided(self) -> Sequence[GrowingAnswer]:
        """The texts that are not completely decided."""
        self._undecided = tuple(text for text in self._undecided if not text.done)
        return self._undecided

    async def relieve(self) -> None:
        """Decide texts that only wait for more of the stream, by letting their current part end soon."""
        self._is_relieved = True
        if self._answer_texts is not None:
            self._answer_texts.free_room()
        for text in self._list_undecided():
            text.hasten_part()

    @property
    def needs_more(self) -> bool:
        """Whether the first event can be decided only after more of the stream was read.

        It waits for the end of a sentence, or of a text that is judged as a whole. Such a text may take more room than
        one stream has, but not more than all streams together.
        """
        if self._withholds_all():
            return not self._room.account.is_crowded
        return (
            bool(self._queue)
            and not self._is_decided(self._queue.first)
            and any(text.is_hastened for text in self._list_undecided())
        )

    def give_up_correcting(self) -> None:
        """Close undecided texts as failed, because there is no room to hold them."""
        self._room.gave_up_correcting = True
        for text in self._list_undecided():
            text.close(Status.FAILED, Shed.reason)
        self.changed.set()

    def _check_agreement(self, event: StreamEvent) -> None:
        """Raise `Blocked` if the event contradicts earlier ones and the policy prefers an error; otherwise let it pass.

        An event that adds to a text after its end is a contradiction. So is one that repeats a whole text differently
        from its pieces, since released text was judged by its pieces.
        """
        if not self._decoder.contradicts_itself and not any(index in self._ended_texts for index, _ in event.pieces):
            return
        outcome = Outcome(Status.SKIPPED, SkipReason.INCONSISTENT.value, None, self._request.state.policy)
        if outcomes.blocks(outcome):
            self._contradicted = True
            self._request.corrector.raise_if_blocked(outcome)

    def _check_fault(self) -> None:
        """Close all texts as failed if the stream cannot be read; it then passes unless the policy prefers an error."""
        if self._decoder.fault is None:
            return
        for text in self._texts.values():
            text.close(Status.FAILED, outcomes.INTERNAL)
        if not self._texts:
            self._request.corrector.raise_if_blocked(
                Outcome(Status.FAILED, outcomes.INTERNAL, None, self._request.state.policy)
            )

    async def _end(self) -> None:
        """End all texts, judge pending side texts, and check a refusal, which is complete only now."""
        self._check_fault()
        await self._end_texts()
        if self._request.side is not None:
            # A side text that repeats an answer is not judged again, so the answers must be decided first.
            for text in self._texts.values() if self._request.side.has_pending else ():
                await text.wait_until_over()
            await self._request.side.judge_pending(
                [text.render(0, text.length) for text in self._texts.values() if text.done]
            )
        if self._withholds_refusal():
            for exchange in self._decoder.exchanges():
                if (reason := eligibility.check(exchange, self._request.state.policy)) is not None:
                    self._request.corrector.raise_if_blocked(
                        Outcome(Status.SKIPPED, reason.value, None, self._request.state.policy)
                    )
        self._has_ended = True

    async def _end_texts(self) -> None:
        """End all texts, and let those that wait for more of the answer be decided."""
        for text in self._texts.values():
            if self._passes_broken:
                text.close(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            await text.end()
        if self._answer_texts is not None:
            self._answer_texts.end()

    def _withholds_refusal(self) -> bool:
        """Whether the refusal field may block the stream, which is known only when the field is complete."""
        policy = self._request.state.policy
        reasons = (SkipReason.NON_TEXT, SkipReason.REFUSAL)
        return self._decoder.has_refusal and any(
            outcomes.blocks(Outcome(Status.SKIPPED, reason.value, None, policy)) for reason in reasons
        )

    def ready(self) -> Iterator[tuple[object, bool]]:
        """The items whose texts are all decided, each with whether it has text; raises `Blocked` as the policy says."""
        self._raise_if_blocked(self._texts.values())
        if self._room.gave_up_correcting and self._request.side is not None:
            self._request.side.raise_if_pending()
        # Other tasks run while an item is delivered, so check for given-up texts and new side texts each time.
        while self._queue and not self._withholds_all() and self._is_decided(queued := self._queue.first):
            self._raise_if_blocked([*(text for text, _, _ in queued.piece_spans), *queued.repeated_texts.values()])
            queued = self._pop_event()
            if self._skipped_count:
                self._skipped_count -= 1
            elif not self._leaves_out(queued) and (item := self._make_item(queued))[0] is not NOTHING:
                yield item

    @property
    def _may_show_next(self) -> bool:
        return not self._withholds_all() and self._decoder.fault is None

    def _is_decided(self, queued: QueuedEvent[GrowingAnswer]) -> bool:
        """Whether all texts of the event are decided, and whether its block is delivered."""
        texts_decided = all(text.is_decided(end) for text, _, end in queued.piece_spans) and all(
            text.done for text in queued.repeated_texts.values()
        )
        block = queued.event.block
        return texts_decided and (block is None or not block.is_text or self._is_block_decided(block))

    def _is_block_decided(self, block: ContentBlock) -> bool:
        """Whether it is clear that a text block is delivered, or that it is not."""
        text = None if block.text_number is None else self._texts.get(block.text_number)
        if text is None:
            return block.has_ended or self._has_ended or self._is_relieved or self._decoder.fault is not None
        # without room, white space that begins a text waits for no letter
        is_known = text.has_output or text.done or (self._is_relieved and text.is_decided(1))
        return block.is_sent or is_known

    def _withholds_all(self) -> bool:
        """Whether delivery pauses because of a side text or a refusal."""
        return (not self._has_ended and self._withholds_refusal()) or (
            self._request.side is not None and self._request.side.has_pending
        )

    def _raise_if_blocked(self, texts: Iterable[GrowingAnswer]) -> None:
        """Raise `Blocked` if the policy prefers an error to one of these texts."""
        for text in texts:
            if (outcome := text.stopped) is not None:
                self._request.corrector.raise_if_blocked(outcome)

    def _make_item(self, queued: QueuedEvent[GrowingAnswer]) -> tuple[object, bool]:
        """The item to deliver for an event, and whether it has text; the original if an edit does not fit in.

        In the latter case `Blocked` is raised instead if the policy prefers an error.
        """
        self._note_edits()
        try:
            item, pieces = self._deliverable(queued)
            return self._without_copies(queued, item, pieces), any(pieces)
        except NotPutIn:
            self._edit_left_out = True
            self._request.corrector.raise_if_blocked(
                Outcome(Status.FAILED, outcomes.INTERNAL, None, self._request.state.policy)
            )
            return queued.event.original, bool(queued.piece_spans)

    def _note_edits(self) -> None:
        """Tell `_copies` what edits removed since the last event."""
        for index, text in self._texts.items():
            if text.changed and (edits := text.edits_after(self._edit_counts[index])):
                self._edit_counts[index] += len(edits)
                for original, corrected in edits:
                    self._copies.add_removed(original, corrected)

    def _without_copies(self, queued: QueuedEvent[GrowingAnswer], item: object, pieces: Sequence[str]) -> object:
        """The item without copies of removed text; `NOTHING` if nothing is left of it.

        What went out before an edit cannot be taken back: `Blocked` is raised if the policy then prefers an error.
        """
        own_texts = [*pieces, *(text.render(0, text.length) for text in queued.repeated_texts.values())]
        if not self._edit_counts:
            self._copies.read(item, own_texts)
            return item
        try:
            unchanged_texts = () if queued.changes else own_texts
            item = self._copies.clean(item, own_texts, unchanged_texts, edited=self._is_beside_edit(queued))
            self._copies.check()
        except CopyStays:
            self._copy_stays = True
            self._request.corrector.raise_if_blocked(copy_outcome(self._request.state.policy))
        return item

    async def finalize(self, *, finished: bool) -> None:
        for text in self._texts.values():
            if not finished:
                text.close(Status.FAILED, metrics.CANCELLED)
            await text.aclose()
        if self._answer_texts is not None:
            self._answer_texts.close()
        if self._request.state.is_final:
            return
        outcomes = [(self._decoder.exchange(index), text.outcome()) for index, text in sorted(self._texts.items())]
        outcomes = outcomes or [self._outcome_without_text(finished)]
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
        self._request.corrector.record_outcomes(outcomes)
        self._withdraw_edits()

    def _withdraw_edits(self) -> None:
        """Take back the status of corrections that did not go out, or not alone."""
        if self._copy_stays:
            withdraw_corrections(self._request.state)
        if self._edit_left_out:
            metrics.record_not_applied(self._request.state)

    def _outcome_without_text(self, finished: bool) -> tuple[Exchange, Outcome]:
        """The exchange and outcome to record for a stream in which no text of an answer arrived."""
        policy = self._request.state.policy
        exchange = self._decoder.exchange(0)
        if not finished:
            return exchange, Outcome(Status.FAILED, metrics.CANCELLED, None, policy)
        if self._decoder.fault is not None:
            return exchange, Outcome(Status.FAILED, outcomes.INTERNAL, None, policy)
        reason = eligibility.check(exchange, policy) or SkipReason.EMPTY
        return exchange, Outcome(Status.SKIPPED, reason.value, None, policy)


def _note_change(changed: asyncio.Event, texts: GrowingTexts) -> None:
    """Wake delivery, and the texts that wait for others.

    A function, because a bound method would refer to the stream and keep it in memory.
    """
    changed.set()
    texts.note_change()
