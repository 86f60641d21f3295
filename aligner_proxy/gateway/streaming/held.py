"""Streams that are corrected as a whole: held until the answer is complete, or live, with the original passing at once.
The opening of a held stream (its events before the first text) may go out earlier. An entry is an item in the compact
form of the queue.

A held stream is replayed in its original events, with a new text distributed over the events of the old one. If nothing
is corrected, the upstream's own items are replayed. A stream that grows beyond the limit for holding continues as one
that is released part by part (released.py), unless the policy blocks it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

from aligner_proxy import formats
from aligner_proxy.concurrency import run_to_end
from aligner_proxy.engine.api import Session
from aligner_proxy.errors import CopyStays, NotPutIn
from aligner_proxy.formats.base import corrected_texts
from aligner_proxy.formats.packing import Packer
from aligner_proxy.formats.reasoning import SafeReasoningStream
from aligner_proxy.formats.stream_events import StreamEvent
from aligner_proxy.gateway import litellm_internals, metrics, second_copies
from aligner_proxy.gateway.comment_lines import KEEPALIVE
from aligner_proxy.gateway.second_copies import NOTHING, DeliveredTexts, StreamCopies
from aligner_proxy.gateway.side_texts import delivered_texts
from aligner_proxy.gateway.streaming.delivery import StreamDelivery, cut_slices
from aligner_proxy.gateway.streaming.event_queue import PACKED_FROM, QueuedEvent
from aligner_proxy.gateway.streaming.opening import Opening
from aligner_proxy.gateway.streaming.prefill import PrefilledText
from aligner_proxy.gateway.streaming.released import ReleasedStream
from aligner_proxy.gateway.upstream_errors import UpstreamItems
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.pipeline.part_splitter import is_blocked, longest_part
from aligner_proxy.types import Exchange, Outcome, SideKind, SkipReason, Status


class HeldStream(StreamDelivery[PrefilledText]):
    """A stream that is delivered only after its whole answer is corrected; the engine reads it ahead meanwhile."""

    _outgoing_entries: Collection[object] = ()
    """The items to deliver, set once the answer is decided; some in the compact form of the queue."""
    _has_outcome = False
    """Whether outcomes of the choices are recorded, or will be by the correction that runs."""
    _released: ReleasedStream | None = None
    """The stream that takes over once this one is too long to be held."""
    _last_entry: object = None
    """The last event in the compact form of the queue."""
    _event_count = 0

    @cached_property
    def _opening(self) -> Opening:
        """Decides which of the first events may go out before the answer is decided."""
        return Opening(self._request)

    @cached_property
    def _received_entries(self) -> deque[object]:
        """Everything that the upstream sent, as items or in the compact form of the queue."""
        return deque()

    def _new_text(self, index: int) -> PrefilledText:
        pipeline = self._request.corrector.pipeline
        return PrefilledText(
            pipeline, self._request.state.policy, index, partial(self._decoder.exchange_without_text, index)
        )

    async def take_item(self, item: object) -> None:
        """Decode an item, queue its events, and keep the item, which is delivered if the answer stays as it is.

        If a text is too long to be held, the stream continues as `_released`, to which all later items go.
        """
        if self._released is not None:
            await self._released.take_item(item)
            return
        count_before = self._event_count
        was_waiting = self._decoder.is_waiting
        await super().take_item(item)
        # An item that is exactly one event is kept as the queue stores it, which takes less memory. Bytes may end
        # inside an event, and an event that waited in the decoder came with an earlier item.
        has_one_event = self._event_count == count_before + 1
        is_one_event = has_one_event and not (was_waiting or isinstance(item, bytes | str))
        self._received_entries.append(self._last_entry if is_one_event else item)
        if self._longest_text_length() > longest_part(self._request.state.policy):
            await self._switch_to_parts()

    async def _enqueue(self, event: StreamEvent) -> None:
        """Queue an event and, if it may belong to the opening (the events before the first text), note it there.

        Once a heartbeat was due, the opening may go out before the answer, so this also wakes delivery.
        """
        had_text = bool(self._texts)
        await super()._enqueue(event)
        self._last_entry = self._queue.last
        self._event_count += 1
        is_due = self.client.heartbeat_was_due
        # Until the first text, every event may belong to the opening; later events matter only once a heartbeat is due.
        if not self._opening.is_over and (is_due or not had_text):
            await self._opening.note_event(is_due=is_due)
            if is_due:
                self.delivery_signal.set()

    def _longest_text_length(self) -> int:
        return max((text.length for text in self._texts.values()), default=0)

    async def _switch_to_parts(self) -> ReleasedStream:
        """Stop holding an answer that became too long: a new stream corrects it part by part, from its beginning.

        Returns the new stream. Raises `Blocked` if the policy prefers an error for a too long answer.
        """
        if is_blocked(self._request.state.policy, self._longest_text_length()):
            self._has_outcome = True
            self._record_uncorrected(Status.SKIPPED, SkipReason.TOO_LONG.value)  # sets the outcomes in the state
            self._request.corrector.raise_if_blocked(self._request.state.outcomes[0])  # always raises here
        for text in self._texts.values():
            await run_to_end(text.aclose())
        self._texts.clear()
        # Empty this queue first: the new stream queues the same events again, and both count against one memory limit.
        while self._queue:
            self._pop_event()  # also subtracts the event's memory
        released = self._open_released_stream()
        self._released = released
        while self._received_entries:
            await released.take_item(self._queue.original_item(self._received_entries.popleft()))
            await self._time_slice.pause()
        return released

    def _open_released_stream(self) -> ReleasedStream:
        """A stream for the same request and client that corrects and delivers its answer part by part."""
        side = None if self._request.side is None else self._request.side.reopen()
        released = ReleasedStream(replace(self._request, side=side), self._memory.account)
        released.client = self.client
        released.delivery_signal = self.delivery_signal
        released.note_source(self._source)
        released.note_delivered_opening(self._opening.delivered)
        return released

    async def finish_reading(self) -> None:
        """Finish this stream, or the stream that has taken over from it."""
        if self._released is None:
            await super().finish_reading()
        else:
            self._released.upstream_error = self.upstream_error
            await self._released.finish_reading()

    async def decide_early(self) -> None:
        """Free memory by switching to release by parts."""
        released = self._released or await self._switch_to_parts()
        await released.decide_early()

    @property
    def needs_more_input(self) -> bool:
        return self._released is not None and self._released.needs_more_input

    def give_up_correcting(self) -> None:
        """Give up undecided parts, if parts are released."""
        if self._released is not None:
            self._released.give_up_correcting()

    @property
    def has_queued_events(self) -> bool:
        return super().has_queued_events if self._released is None else self._released.has_queued_events

    async def _end_answer(self) -> None:
        """Correct the complete answer and set the items to deliver, the original ones if nothing was corrected."""
        # Set before correction, since `correct` records an outcome even if the client leaves meanwhile.
        self._has_outcome = True
        exchanges = self._decoder.exchanges()
        outcomes = await self._correct_texts(exchanges)
        self._opening.is_over = True  # the rest goes out together
        corrected_items = None
        if corrected_texts(outcomes):
            corrected_items = await self._make_corrected_items(exchanges, outcomes)
        if self._request.side is not None:
            changed = corrected_items is not None
            await self._request.side.judge_pending(delivered_texts(exchanges, outcomes, changed=changed))
        # After an opening went out, the queue has the rest; `_received_entries` has all items, as they came.
        original_entries = self._queue.entries() if self._opening.delivered else self._received_entries
        self._queue.clear()
        # Set last, because setting the items lets them go out.
        self._outgoing_entries = original_entries if corrected_items is None else corrected_items

    async def _correct_texts(self, exchanges: Sequence[Exchange]) -> Sequence[Outcome]:
        """Correct all texts of the response and return the outcomes.

        If there is no text, or the upstream broke off and the policy does not judge a broken answer, the answer is
        recorded as skipped, and the result is empty. Raises `Blocked` if the policy prefers an error.
        """
        if self._skips_broken_answer:
            self._record_uncorrected(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            if any(map(pipeline_outcomes.blocks, self._request.state.outcomes)):
                self._request.corrector.raise_if_blocked(self._request.state.outcomes[0])
            return ()
        if not exchanges:
            reason = SkipReason.EMPTY if self.upstream_error is None else SkipReason.UPSTREAM_ERROR
            self._record_uncorrected(Status.SKIPPED, reason.value)
            return ()
        return await self._request.corrector.correct(exchanges, self._take_session)

    def _take_session(self, index: int) -> Session | None:
        """The engine's session on a text, which the caller must close; None if the text was not read ahead."""
        return self._texts[index].take_session() if index in self._texts else None

    async def _make_corrected_items(
        self, exchanges: Sequence[Exchange], outcomes: Sequence[Outcome]
    ) -> Collection[object] | None:
        """The items with the corrected texts; None if these cannot be made and the original has to go out.

        Raises `Blocked` if the policy does not let the original go out.
        """
        state = self._request.state
        texts = corrected_texts(outcomes)
        for exchange in exchanges:
            if exchange.index in texts:
                self._get_text(exchange.index).replace(len(exchange.answer or ""), texts[exchange.index])
        answers = await second_copies.compare_answers(exchanges, outcomes)
        try:
            return await self._replay_without_copies(answers)
        except NotPutIn:
            metrics.record_not_applied(state)
            for outcome in filter(pipeline_outcomes.blocks, state.outcomes):
                self._request.corrector.raise_if_blocked(outcome)
        except CopyStays:
            self._request.corrector.raise_if_blocked(second_copies.withdraw_corrections(state))
        return None

    async def _replay_without_copies(self, answers: DeliveredTexts) -> list[object]:
        """The items of `_replay_events`, with the reasoning left out only if it quotes what an edit removed."""
        if not answers.is_quoted_in_tagged_reasoning:
            try:
                return await self._replay_events(answers, without_reasoning=False)
            except CopyStays as copy:
                if copy.kind is not SideKind.REASONING:
                    raise
        return await self._replay_events(answers, without_reasoning=True)

    async def _replay_events(self, answers: DeliveredTexts, *, without_reasoning: bool) -> list[object]:
        """The items of all events with the corrected texts, and without copies of what was removed.

        `without_reasoning` says whether to remove all reasoning. Raises `NotPutIn` if a text does not fit into its
        event, and `CopyStays` if a copy cannot be removed.
        """
        request = self._request
        reasoning_format = formats.reasoning(request.state.arrival.route) if without_reasoning else None
        remover = reasoning_format.open_stream(request.data, drop=True) if reasoning_format is not None else None
        copies = StreamCopies(request.data, answers.removed)
        for item in self._opening.delivered:
            copies.remember(item, ())
            if remover is not None and remover.feed(item) != [item]:
                raise CopyStays(SideKind.REASONING)  # a part of the reasoning has gone out
        items: list[object] = []
        packer = Packer()
        self.client.ended_texts.clear()  # an earlier replay was given up
        for queued in self._queue:
            for item in self._replay_event(queued, answers, copies, remover):
                items.append(item if len(items) < PACKED_FROM else packer.pack(item))
            await self._time_slice.pause()
        copies.check_past_events()
        return items

    def _replay_event(
        self,
        queued: QueuedEvent[PrefilledText],
        answers: DeliveredTexts,
        copies: StreamCopies,
        remover: SafeReasoningStream | None,
    ) -> Iterator[object]:
        """Yield the items to deliver for an event, as `_replay_events` does for all; `remover` removes reasoning."""
        if self._leave_out_if_empty(queued):
            return
        if self._only_points_into_edit(queued):
            item = self._make_stand_in(queued)
            pieces: list[str] = []
            if item is NOTHING:
                return
        else:
            item, pieces = self._render_item(queued)
        own_texts = [*pieces, *answers.delivered]
        unchanged_texts = answers.unchanged if queued.has_changed_text else [*pieces, *answers.unchanged]
        items_left = [item] if remover is None else remover.feed(item)
        for item_left in items_left:
            cleaned = copies.remove_copies(
                item_left, own_texts, unchanged_texts, edited=self._may_point_into_edit(queued)
            )
            if cleaned is not NOTHING:
                yield cleaned

    def take_ready_items(self) -> Iterator[tuple[object, bool]]:
        """Yield (item, whether it adds any text) of each item that may go out now; each item only once.

        These are items of the opening, once it is due, and all other items once the answer is corrected.
        """
        if self._released is not None:
            yield from self._released.take_ready_items()
        while self._may_send_opening and self._opening.admit_next(self._queue.first):
            item, _ = self._render_item(self._pop_event())
            self._opening.delivered.append(item)
            yield item, False
        outgoing_entries = self._outgoing_entries
        self._outgoing_entries = ()
        for entry in outgoing_entries:
            yield self._queue.original_item(entry), True

    @property
    def _may_send_opening(self) -> bool:
        """Whether the next event may go out now if it opens the answer."""
        is_due = self.client.heartbeat_was_due and not self._opening.is_over
        return is_due and bool(self._queue) and self._may_show_next_event

    @property
    def _may_show_next_event(self) -> bool:
        return self._opening.is_cleared and self._decoder.fault is None

    @property
    def event_for_heartbeat(self) -> object:
        return super().event_for_heartbeat if self._released is None else self._released.event_for_heartbeat

    async def finalize_outcomes(self, *, is_complete: bool) -> None:
        """Close the engine's sessions, and record a failure for choices that have no outcome when the stream ends."""
        if self._released is not None:
            await self._released.finalize_outcomes(is_complete=is_complete)
            return
        if not self._has_outcome:
            blocking_kind = self._request.side.ending_kind if self._request.side else None
            reason = blocking_kind.value if blocking_kind else metrics.CANCELLED
            self._record_uncorrected(Status.FAILED, reason)
        for text in self._texts.values():
            await text.aclose()

    def _record_uncorrected(self, status: Status, reason: str) -> None:
        """Record this status and reason as the outcome of every choice that had begun."""
        state = self._request.state
        metrics.record_upstream_end(state)
        # A response without any text counts as one choice.
        choice_numbers = [exchange.index for exchange in self._decoder.exchanges()] or [0]
        metrics.finalize_unprocessed(state, status, reason, choice_numbers)


class LiveStream(HeldStream):
    """A stream whose original passes at once (shadow mode, `stream: passthrough`) and is corrected only for the record.

    Each item is decoded after it was delivered, and only its text is kept.
    """

    async def _deliver_items(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """Yield the upstream's items as they arrive, then comments while the answer is corrected for the record."""
        chunks = litellm_internals.stream_chunks(source)
        upstream = UpstreamItems(source)
        async for item in upstream:
            self.client.timeline.note_upstream()
            self.client.note_delivered(item, has_text=True)
            yield item
            await self.take_item(item)
            chunks.merge()
        self.upstream_error = upstream.error
        # Nothing is left to deliver, but correcting for the record takes a while; comments keep the connection alive.
        async with contextlib.aclosing(super()._deliver_items(_nothing())) as comments:
            async for comment in comments:
                yield comment

    async def take_item(self, item: object) -> None:
        """Decode an item that was already delivered."""
        for piece in cut_slices(item):
            self._decoder.feed(piece)
            await self._time_slice.pause()

    async def _enqueue(self, event: StreamEvent) -> None:
        """Do nothing, since every item was already delivered."""

    def make_heartbeat(self) -> object:
        """A comment, since the stream is the upstream's own."""
        return KEEPALIVE

    async def _end_answer(self) -> None:
        """Correct the delivered answer for the record."""
        self._has_outcome = True
        await self._correct_texts(self._decoder.exchanges())


async def _nothing() -> AsyncGenerator[object, None]:
    """An empty stream; the loop without items makes this function a generator."""
    for item in list[object]():
        yield item
