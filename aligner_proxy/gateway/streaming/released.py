"""Streams that are released segment by segment: an event is delivered as soon as its texts are decided, that is, as
soon as it is clear what is delivered in their place.

An event that repeats a whole text waits until all of this text is decided, and gets the same edits.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

from aligner_proxy.errors import CopyStays, NotPutIn, Shed
from aligner_proxy.formats.stream_events import ContentBlock, StreamEvent
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.second_copies import NOTHING, StreamCopies, copy_outcome, withdraw_corrections
from aligner_proxy.gateway.streaming.delivery import StreamDelivery
from aligner_proxy.gateway.streaming.event_queue import QueuedEvent
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.answer_texts import GrowingTexts
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.stages import eligibility
from aligner_proxy.types import Exchange, IfNothingRemains, OnSkip, Outcome, SkipReason, Status, StreamMode


class ReleasedStream(StreamDelivery[GrowingAnswer]):
    """A stream whose texts are corrected while they grow."""

    _has_lost_edit = False
    """Whether an edit could not be inserted into its event, which was delivered unchanged."""
    _has_delivered_copy = False
    """Whether text that an edit removed has gone out in another field."""
    _has_contradiction = False
    """Whether events contradict one another and the policy prefers an error."""
    _answer_texts: GrowingTexts | None = None
    """All texts, if they belong to one answer that may be declined as a whole."""
    _undecided: Sequence[GrowingAnswer] = ()
    """Texts that may still be undecided."""
    _was_decided_early = False
    """Whether `decide_early` was called; from then on, the beginning of a block waits for no text."""
    _has_ended = False
    """Whether the upstream has ended."""
    _delivered_count = 0
    """How many of the next events the client has already."""

    @cached_property
    def _ended_texts(self) -> set[int]:
        return set()

    @cached_property
    def _copies(self) -> StreamCopies:
        """Finds second copies of what edits removed, in other fields of the events."""
        return StreamCopies(self._request.data)

    @cached_property
    def _edit_counts(self) -> Counter[int]:
        """By number of a text, how many of its edits were added to `_copies`."""
        return Counter()

    def note_delivered_opening(self, items: Sequence[object]) -> None:
        """Note the first items of the stream, which the client has already."""
        self._delivered_count = len(items)
        for item in items:
            self._copies.remember(item, ())

    def _new_text(self, index: int) -> GrowingAnswer:
        """Open text number `index`, which is corrected while it grows; close it as failed if correction was given up.

        If the policy declines an answer of which nothing remains, all texts of one answer share a `GrowingTexts`, which
        knows whether anything remains of them together.
        """
        policy = self._request.state.policy
        # A stream that was too long to be held is decided part by part, not segment by segment.
        is_whole = policy.stream is StreamMode.HOLD
        pipeline = self._request.corrector.pipeline
        notify: Callable[[], None] = self.delivery_signal.set  # called when more of the text is decided
        if policy.if_nothing_remains is not IfNothingRemains.ORIGINAL and self._decoder.is_one_answer:
            if self._answer_texts is None:
                self._answer_texts = GrowingTexts(
                    pipeline.refusal_text, self._texts, partial(self._decoder.exchange_without_text, 0)
                )
            notify = partial(_wake_delivery, self.delivery_signal, self._answer_texts)
        exchange_so_far = partial(self._decoder.exchange_without_text, index)
        text = GrowingAnswer(
            pipeline, policy, exchange_so_far, notify, hold_until_end=is_whole, texts=self._answer_texts
        )
        if self._memory.gave_up_correcting:
            text.close(Status.FAILED, Shed.reason)
        self._undecided = (*self._undecided, text)
        return text

    async def take_item(self, item: object) -> None:
        """Decode an item, queue its events, and check for faults."""
        await super().take_item(item)
        self._check_fault()
        self.delivery_signal.set()

    async def _enqueue(self, event: StreamEvent) -> None:
        """Queue an event, and end the texts that it ends. Raises `Blocked` if the policy prefers an error."""
        self._check_agreement(event)
        text_count = len(self._texts)
        await super()._enqueue(event)
        if self._request.side is not None and event.pieces and self._request.side.has_pending:
            # Texts beside the answer, such as reasoning, end where the answer begins.
            await self._request.side.judge_pending((), ended_only=True)
        has_new_text = len(self._texts) > text_count
        # Texts check again whether they may be edited, since the event may bring a tool call, which forbids edits.
        if has_new_text or not event.pieces or event.ended_texts:
            for text in self._list_undecided():
                text.check()
            if self._answer_texts is not None:
                self._answer_texts.check()
        self._ended_texts.update(event.ended_texts)
        for index in event.ended_texts:
            if index in self._texts:
                await self._end_text(index)

    async def _end_text(self, index: int) -> None:
        """End text number `index`; if it came as a whole, not in pieces, it is read first."""
        text = self._texts[index]
        if not text.length:
            whole_text = self._original_text(index)
            if whole_text:
                await text.feed(whole_text)
        await text.end()

    def _list_undecided(self) -> Sequence[GrowingAnswer]:
        """The texts that are not completely decided; the others are forgotten, so that the list stays short."""
        self._undecided = tuple(text for text in self._undecided if not text.done)
        return self._undecided

    async def decide_early(self) -> None:
        """Let undecided texts end their current part soon, so that it is decided and its events free memory."""
        self._was_decided_early = True
        if self._answer_texts is not None:
            self._answer_texts.free_room()
        for text in self._list_undecided():
            text.hasten_part()

    @property
    def needs_more_input(self) -> bool:
        """Whether the first event can be decided only after more of the stream was read.

        The event waits for the end of a part that `decide_early` asked to end soon, or of a side text or refusal, which
        is judged as a whole. A side text or refusal may exceed the memory limit of one stream, but not that of all.
        """
        if self._withholds_all():
            return not self._memory.account.is_crowded
        if not self._queue or self._is_decided(self._queue.first):
            return False
        return any(text.is_hastened for text in self._list_undecided())

    def give_up_correcting(self) -> None:
        """Close undecided texts as failed, because there is no memory to hold them; their rest passes unchanged."""
        self._memory.gave_up_correcting = True
        for text in self._list_undecided():
            text.close(Status.FAILED, Shed.reason)
        self.delivery_signal.set()

    def _check_agreement(self, event: StreamEvent) -> None:
        """Raise `Blocked` if the event contradicts earlier events and the policy prefers an error to such an answer.

        An event that adds to a text after its end is a contradiction. So is an event that repeats a whole text
        differently from its pieces, since a text that went out was judged by its pieces.
        """
        adds_to_ended_text = any(index in self._ended_texts for index, _ in event.pieces)
        if not (self._decoder.contradicts_itself or adds_to_ended_text):
            return
        outcome = Outcome(Status.SKIPPED, SkipReason.INCONSISTENT.value, None, self._request.state.policy)
        if outcomes.blocks(outcome):
            self._has_contradiction = True
            self._request.corrector.raise_if_blocked(outcome)

    def _check_fault(self) -> None:
        """Close all texts as failed if the stream cannot be decoded, so that the rest of it passes unchanged.

        If the policy prefers an error, `take_ready_items` raises it for the closed texts; if there are none, this does.
        """
        if self._decoder.fault is None:
            return
        for text in self._texts.values():
            text.close(Status.FAILED, outcomes.INTERNAL)
        if not self._texts:
            self._request.corrector.raise_if_blocked(
                Outcome(Status.FAILED, outcomes.INTERNAL, None, self._request.state.policy)
            )

    async def _end_answer(self) -> None:
        """End all texts, judge pending side texts, and check a refusal, which is complete only now.

        Called at the end of the upstream. Raises `Blocked` if the policy prefers an error to the refusal.
        """
        policy = self._request.state.policy
        self._check_fault()
        await self._end_texts()
        await self._judge_side_texts()
        if self._withholds_refusal():
            for exchange in self._decoder.exchanges():
                skip_reason = eligibility.check(exchange, policy)
                if skip_reason is not None:
                    self._request.corrector.raise_if_blocked(Outcome(Status.SKIPPED, skip_reason.value, None, policy))
        self._has_ended = True

    async def _end_texts(self) -> None:
        """End all texts, so that their last parts, which waited for more of the answer, are decided.

        If the upstream broke off and the policy does not judge a broken answer, undecided parts are skipped.
        """
        for text in self._texts.values():
            if self._skips_broken_answer:
                text.close(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            await text.end()
        if self._answer_texts is not None:
            self._answer_texts.end()

    async def _judge_side_texts(self) -> None:
        """Judge the texts beside the answers, after all answers have ended."""
        side = self._request.side
        if side is None:
            return
        texts = self._texts.values()
        if side.has_pending:
            # A side text that repeats an answer is not judged again, so the answers must be decided first.
            for text in texts:
                await text.wait_until_over()
        await side.judge_pending([text.render(0, text.length) for text in texts if text.done])

    def _withholds_refusal(self) -> bool:
        """Whether the answer has a refusal field for which the policy may block it, once the field is complete."""
        if not self._decoder.has_refusal:
            return False
        policy = self._request.state.policy
        possible_reasons = (SkipReason.NON_TEXT, SkipReason.REFUSAL)
        return any(outcomes.blocks(Outcome(Status.SKIPPED, reason.value, None, policy)) for reason in possible_reasons)

    def take_ready_items(self) -> Iterator[tuple[object, bool]]:
        """Yield (item, whether it has text) of each event, up to the first event with an undecided text.

        Raises `Blocked` if the policy prefers an error to what would go out.
        """
        self._raise_if_blocked(self._texts.values())
        if self._memory.gave_up_correcting and self._request.side is not None:
            self._request.side.raise_if_pending()
        # Other tasks run while an item is delivered, so all conditions are checked again before each item.
        while self._queue and not self._withholds_all() and self._is_decided(self._queue.first):
            queued = self._queue.first
            self._raise_if_blocked(
                [*(text for text, _start, _end in queued.piece_spans), *queued.repeated_texts.values()]
            )
            queued = self._pop_event()
            if self._delivered_count:  # it was delivered as part of the opening, before this stream took over
                self._delivered_count -= 1
            elif not self._leave_out_if_empty(queued):
                item, has_text = self._make_item(queued)
                if item is not NOTHING:
                    yield item, has_text

    @property
    def _may_show_next_event(self) -> bool:
        return not self._withholds_all() and self._decoder.fault is None

    def _is_decided(self, queued: QueuedEvent[GrowingAnswer]) -> bool:
        """Whether all texts in the event are decided, and it is also clear whether its block is delivered at all."""
        if not all(text.is_decided(end) for text, _start, end in queued.piece_spans):
            return False
        if not all(text.done for text in queued.repeated_texts.values()):
            return False
        block = queued.event.block
        return block is None or not block.is_text or self._is_block_decided(block)

    def _is_block_decided(self, block: ContentBlock) -> bool:
        """Whether it is clear that a text block is delivered, or that it is left out because its text became empty."""
        text = None if block.text_number is None else self._texts.get(block.text_number)
        if text is None:
            return block.has_ended or self._has_ended or self._was_decided_early or self._decoder.fault is not None
        if block.is_sent or text.has_output or text.done:
            return True
        # For lack of memory, a block goes out once its first character is decided, even if this is white space.
        return self._was_decided_early and text.is_decided(1)

    def _withholds_all(self) -> bool:
        """Whether delivery pauses because a side text or a refusal may still block the answer."""
        if not self._has_ended and self._withholds_refusal():
            return True
        return self._request.side is not None and self._request.side.has_pending

    def _raise_if_blocked(self, texts: Iterable[GrowingAnswer]) -> None:
        """Raise `Blocked` if the correction of one of these texts stopped and the policy prefers an error then."""
        for text in texts:
            outcome = text.stopped
            if outcome is not None:
                self._request.corrector.raise_if_blocked(outcome)

    def _make_item(self, queued: QueuedEvent[GrowingAnswer]) -> tuple[object, bool]:
        """The item to deliver for an event (`NOTHING` if nothing is left of it), and whether it has text.

        If an edit does not fit in, the original is returned or, if the policy prefers an error, `Blocked` is raised.
        """
        self._note_edits()
        try:
            item, pieces = self._render_item(queued)
            return self._remove_copies(queued, item, pieces), any(pieces)
        except NotPutIn:
            self._has_lost_edit = True
            self._request.corrector.raise_if_blocked(
                Outcome(Status.FAILED, outcomes.INTERNAL, None, self._request.state.policy)
            )
            return queued.event.original, bool(queued.piece_spans)

    def _note_edits(self) -> None:
        """Pass on to `_copies`, which looks for copies of removed text, the edits decided since the last event."""
        for index, text in self._texts.items():
            if not text.changed:
                continue
            edits = text.edits_after(self._edit_counts[index])
            if edits:  # so that `_edit_counts` stays empty until the first edit
                self._edit_counts[index] += len(edits)
            for original, corrected in edits:
                self._copies.add_removed(original, corrected)

    def _remove_copies(self, queued: QueuedEvent[GrowingAnswer], item: object, pieces: Sequence[str]) -> object:
        """The item without copies of removed text in other fields; `NOTHING` if nothing is left of it.

        `pieces` are the pieces of answers in the item. If a copy cannot be removed, or went out before the edit, this
        raises `Blocked` if the policy prefers an error, and otherwise returns the item.
        """
        own_texts = [*pieces, *(text.render(0, text.length) for text in queued.repeated_texts.values())]
        may_be_edited = self._may_lose_logprobs(queued)
        if not self._edit_counts:  # nothing has been removed yet
            return self._copies.remember(item, own_texts, may_be_edited=may_be_edited)
        if self._only_points_into_edit(queued):
            return self._make_stand_in(queued)
        try:
            unchanged_texts = queued.list_unchanged_texts()
            edited = self._may_point_into_edit(queued)
            item = self._copies.remove_copies(
                item, own_texts, unchanged_texts, edited=edited, may_be_edited=may_be_edited
            )
            self._copies.check_past_events()
        except CopyStays:
            self._has_delivered_copy = True
            self._request.corrector.raise_if_blocked(copy_outcome(self._request.state.policy))
        return item

    def _may_lose_logprobs(self, queued: QueuedEvent[GrowingAnswer]) -> bool:
        """Whether an edit may still change a text beside token probabilities in an event."""
        # Answers with token probabilities are edited only if the policy judges them.
        if self._request.state.policy.on_skip.logprobs is not OnSkip.JUDGE:
            return False
        if queued.repeated_texts:  # they are decided, or the event would still wait
            return False
        text = self._find_own_text(queued.event)
        if text is not None:
            return not text.done
        return not self._has_ended or bool(self._list_undecided())

    async def finalize_outcomes(self, *, is_complete: bool) -> None:
        """Close the texts, and record their outcomes unless this was done before.

        If not everything was delivered (`is_complete` is False), the texts are closed as cancelled.
        """
        for text in self._texts.values():
            if not is_complete:
                text.close(Status.FAILED, metrics.CANCELLED)
            await text.aclose()
        if self._answer_texts is not None:
            self._answer_texts.close()
        if self._request.state.is_final:
            return
        answers = [(self._decoder.exchange(index), text.outcome()) for index, text in sorted(self._texts.items())]
        if not answers:
            answers = [self._outcome_without_text(is_complete=is_complete)]
        self._request.corrector.record_outcomes(
            [(exchange, self._apply_blocking_reason(outcome)) for exchange, outcome in answers]
        )
        # Corrections count as failed if they were not delivered, or if their removed text went out elsewhere.
        if self._has_delivered_copy:
            withdraw_corrections(self._request.state)
        if self._has_lost_edit:
            metrics.record_not_applied(self._request.state)

    def _apply_blocking_reason(self, outcome: Outcome) -> Outcome:
        """The outcome to record for a text; if an error ended the stream, with the status and reason of the error."""
        if self._has_contradiction:
            return replace(outcome, status=Status.SKIPPED, reason=SkipReason.INCONSISTENT.value)
        if self._request.side is not None and self._request.side.ending_kind is not None:
            return replace(outcome, status=Status.FAILED, reason=self._request.side.ending_kind.value)
        return outcome

    def _outcome_without_text(self, *, is_complete: bool) -> tuple[Exchange, Outcome]:
        """The exchange and outcome to record for a stream in which no text of an answer arrived."""
        policy = self._request.state.policy
        exchange = self._decoder.exchange(0)
        if not is_complete:
            return exchange, Outcome(Status.FAILED, metrics.CANCELLED, None, policy)
        if self._decoder.fault is not None:
            return exchange, Outcome(Status.FAILED, outcomes.INTERNAL, None, policy)
        reason = eligibility.check(exchange, policy) or SkipReason.EMPTY
        return exchange, Outcome(Status.SKIPPED, reason.value, None, policy)


def _wake_delivery(delivery_signal: asyncio.Event, texts: GrowingTexts) -> None:
    """Wake delivery, and the texts that wait for other texts of the answer; called when more of a text is decided.

    This is not a method, because a bound method would refer to the stream and keep it in memory.
    """
    delivery_signal.set()
    texts.note_change()
