"""The path of a stream's events from the upstream to the client. The events wait in a queue until it is decided what is
delivered in place of their texts.

All state of one stream is in one `StreamDelivery` and is freed with it. A task reads the upstream, decodes it and
queues its events, which are delivered in order. A subclass decides what replaces a text, and when: held.py decides
about the whole answer at its end, released.py segment by segment.

An answer has one text for each choice or, in Responses and Messages, for each text part; `index` is its number.

While nothing can be delivered, heartbeats keep the connection alive: empty events in the format of the stream, or
comments where the format has no empty events. The status follows as a comment before the event that ends the stream, or
as the last item where LiteLLM writes that event, unless the stream ended inside an event. While the queue is too long
(budget.py), the upstream is not read further.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from aligner_proxy.concurrency import TimeSlice, end_tasks, run_to_end
from aligner_proxy.formats import Wire, sse
from aligner_proxy.formats.answer_decoder import AnswerDecoder
from aligner_proxy.formats.base import is_storing_forbidden
from aligner_proxy.formats.copies import is_pointing_event
from aligner_proxy.formats.responses_objects import get_field, make_empty_delta
from aligner_proxy.formats.safe import SafeFormat
from aligner_proxy.formats.stream_events import RemainingNumbers, StreamEvent
from aligner_proxy.gateway import litellm_internals, metrics
from aligner_proxy.gateway.choice_corrector import Blocked, ChoiceCorrector
from aligner_proxy.gateway.comment_lines import KEEPALIVE
from aligner_proxy.gateway.request_state import RequestState, Timeline
from aligner_proxy.gateway.second_copies import NOTHING, event_value
from aligner_proxy.gateway.side_texts import SideTexts, withhold_error
from aligner_proxy.gateway.streaming.budget import StreamAccount, StreamBudget, estimate_event_bytes
from aligner_proxy.gateway.streaming.event_queue import NO_REPEATED_TEXTS, EventQueue, QueuedEvent, Text
from aligner_proxy.gateway.upstream_errors import UpstreamItems
from aligner_proxy.types import OnSkip

DECIDE_EARLY_EVERY_S = 1.0
"""Seconds between two calls of `decide_early` because all streams together hold too much; keeps parts useful."""
WAIT_S = 5.0
"""Seconds that a stream waits for other streams to free memory."""
_SLICE_BYTES = 1 << 16
"""Bytes of one item that are decoded at once, before other tasks get their turn."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The request of a stream, and the objects that process its answer."""

    wire: Wire | SafeFormat
    data: Mapping[str, Any]
    """The request as LiteLLM passes it to hooks."""
    state: RequestState
    corrector: ChoiceCorrector
    side: SideTexts | None = None
    """Collector of side texts; None if they are not checked before delivery."""


@dataclass(slots=True)
class StreamMemory:
    """The memory that a stream takes, and what was done because it took too much."""

    account: StreamAccount
    decided_early_at: float = 0.0
    """Monotonic time of the last call of `decide_early`; 0 before the first."""
    gave_up_correcting: bool = False
    """Whether correction was given up for lack of memory; the rest is delivered unchanged, or blocked."""


class ClientSide:
    """What the client of one stream got so far, and when it is to get a heartbeat."""

    def __init__(self, state: RequestState) -> None:
        self._state = state
        self.timeline = Timeline()
        self.served_items = litellm_internals.ServedItems()
        """All delivered items, for LiteLLM's log."""
        self.last_event_keeper = sse.LastEventKeeper()
        """Keeps back the event that ends the stream, so that our final comment can come before it."""
        self._last_bytes = b""
        """The last delivered bytes, needed because a heartbeat is allowed only between two events."""
        self._heartbeat_at: float | None = None
        """Monotonic time at which the next heartbeat is due; None for never."""
        self.heartbeat_was_due = False
        self.comment: bytes | None = None
        self.ended_texts: set[int] = set()
        """Numbers of the texts whose end was delivered, or is to go out next."""

    @property
    def is_between_events(self) -> bool:
        """Whether the delivered bytes end between two events."""
        return sse.is_between_events(self._last_bytes)

    @property
    def seconds_to_heartbeat(self) -> float | None:
        """Seconds until a heartbeat is due; None for never."""
        return None if self._heartbeat_at is None else self._heartbeat_at - time.monotonic()

    def note_delivered(self, item: object, *, has_text: bool) -> None:
        """Record an item that is delivered now; `has_text` says whether it adds text to an answer."""
        self.served_items.append(item)
        self._last_bytes = sse.stream_tail(self._last_bytes, item)
        if has_text:
            self.timeline.note_client()
        self.schedule_heartbeat()

    def schedule_heartbeat(self) -> None:
        """Schedule the next heartbeat, `keepalive_s` seconds from now."""
        every_s = self._state.policy.keepalive_s
        self._heartbeat_at = time.monotonic() + every_s if every_s else None


class StreamDelivery(abc.ABC, Generic[Text]):
    """Delivers one stream of an upstream to the client: `deliver` yields the items that the client gets."""

    def __init__(self, request: StreamRequest, account: StreamAccount | None = None) -> None:
        self._request = request
        self._decoder = AnswerDecoder(request.wire.decoder(request.data), request.data)
        self._texts: dict[int, Text] = {}
        """The texts of the answers so far, by number of choice or text part."""
        self._queue: EventQueue[Text] = EventQueue()
        self._block_numbers = RemainingNumbers()
        """Renumbers the blocks that are delivered, since others are left out."""
        self._memory = StreamMemory(account or StreamBudget().open("-"))
        self._time_slice = TimeSlice()
        self.delivery_signal = asyncio.Event()
        """Set when items may have become ready for delivery."""
        self._source: object = None
        """The upstream's stream; None before `deliver`."""
        self._reading_task: asyncio.Task[None] | None = None
        """The task that reads the upstream; None before it starts and after it was ended."""
        self.upstream_error: Exception | None = None
        """The exception that broke the upstream's stream; None if it is intact."""
        self.client = ClientSide(request.state)

    async def deliver(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """Yield all items for the client. If the upstream breaks off, yield what arrived, then raise its error.

        Raises `Blocked` if the policy prefers an error to the answer. When the client leaves, this generator is closed
        and the reading task ends.
        """
        self.note_source(source)
        is_complete = False
        try:
            async with contextlib.aclosing(self._deliver_items(source)) as items:
                async for item in items:
                    for item_to_send in self.client.last_event_keeper.feed(item):
                        yield item_to_send
            is_complete = True
        except Blocked:
            # In some formats, clients understand the event of a failure only after the event that begins a response.
            beginning = None if self.client.served_items.has_any else self._decoder.beginning()
            if beginning is not None:
                yield beginning
            raise
        finally:
            await run_to_end(self._close(is_complete=is_complete))
        # A stream that broke before its first item gets no comment, so that LiteLLM can answer with an HTTP error.
        if (self.client.served_items.has_any or self.upstream_error is None) and self.client.is_between_events:
            self.client.comment = self._request.state.comment(self.client.timeline)
            yield self.client.comment
        for item_to_send in self.client.last_event_keeper.flush():
            yield item_to_send
        if self.upstream_error is not None:
            other_error = await withhold_error(self._request.state, self._request.side, self.upstream_error)
            raise self.upstream_error if other_error is None else other_error

    def note_source(self, source: object) -> None:
        """Keep the upstream's stream, and note whether its headers forbid to store the answer."""
        self._source = source
        # LiteLLM may store the upstream's headers only with the stream, not with its items.
        self._decoder.is_unstored = is_storing_forbidden(self._request.data, source)

    async def _deliver_items(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """Yield all items in order, with heartbeats while nothing can be delivered."""
        # A single task reads the stream, since objects in it may be bound to the task that reads them.
        reading_task = asyncio.create_task(self._read(source))
        reading_task.add_done_callback(lambda _: self.delivery_signal.set())
        self._reading_task = reading_task
        self.client.schedule_heartbeat()
        is_heartbeat_due = False
        while True:
            # Asked before `take_ready_items`, because the task may still queue items while others are delivered.
            has_ended = reading_task.done()
            if has_ended:
                reading_task.result()  # raises the error of the task
            for item, has_text in self.take_ready_items():
                is_heartbeat_due = False
                self.client.note_delivered(item, has_text=has_text)
                yield item
                await self._time_slice.pause()
            if has_ended and not self.has_queued_events:
                return
            if is_heartbeat_due:
                yield self.make_heartbeat()
            is_heartbeat_due = await self._wait_for_items()

    async def _read(self, source: AsyncIterable[object]) -> None:
        """Read and queue the whole stream; pause while the queued events take too much memory."""
        chunks = litellm_internals.stream_chunks(source)
        upstream = UpstreamItems(source)
        async for item in upstream:
            await self.take_item(item)
            chunks.merge()
            await self._time_slice.pause()
            if self._memory.account.is_full:
                await self._wait_for_memory()
        self.upstream_error = self.upstream_error or upstream.error  # `LiveStream` has met the error before
        await self.finish_reading()

    async def finish_reading(self) -> None:
        """Queue the remaining events and decide the rest of the answer, after the upstream has ended or broken off."""
        for event in self._decoder.flush():
            await self._enqueue(event)
        self.note_source(self._source)  # another model may have taken the stream over, with other headers
        await self._end_answer()

    async def take_item(self, item: object) -> None:
        """Decode an item of the upstream and queue its events; long bytes are decoded slice by slice."""
        for item_slice in cut_slices(item):
            for event in self._decoder.feed(item_slice):
                await self._enqueue(event)
                await self._time_slice.pause()  # lets other tasks run if this one has used up its turn

    async def _wait_for_memory(self) -> None:
        """Decide texts early, so that events can be delivered; then wait until the queued events take less memory.

        Gives up correcting the stream if its tenant holds more than its share, or if the memory that other streams hold
        is not freed within `WAIT_S`. Does not wait if the first event needs more of the stream to be decided.
        """
        memory = self._memory
        if memory.account.is_too_long or time.monotonic() - memory.decided_early_at > DECIDE_EARLY_EVERY_S:
            memory.decided_early_at = time.monotonic()
            await self.decide_early()
        while memory.account.is_full and self.has_queued_events and not self.needs_more_input:
            # Correction is given up only once; after that the stream only waits for its own client.
            gives_up = not memory.gave_up_correcting and memory.account.is_over_share
            if not gives_up:
                has_memory = await memory.account.wait_for_freed_bytes(WAIT_S)
                gives_up = not has_memory and not memory.gave_up_correcting
            if gives_up:
                metrics.record_stream_shed(self._request.state)
                memory.gave_up_correcting = True
                self.give_up_correcting()

    async def _enqueue(self, event: StreamEvent) -> None:
        """Add the event's pieces to their texts, then queue the event with the positions of the pieces.

        The texts beside the answer, such as reasoning, go to the collector `side`, if there is one.
        """
        piece_spans = []
        for index, piece in event.pieces:
            text = self._get_text(index)
            start = text.length
            await text.feed(piece)
            piece_spans.append((text, start, start + len(piece)))
            self._memory.account.add_kept_chars(len(piece))
        if piece_spans:  # other events, such as roles and usage, do not count as text
            self.client.timeline.note_upstream()
        repeated_texts = NO_REPEATED_TEXTS
        if event.repeated_texts:
            repeated_texts = {index: self._get_text(index) for index in event.repeated_texts}
        if self._request.side is not None:
            answer_texts = [piece for _, piece in event.pieces]
            answer_texts += map(self._original_text, repeated_texts)
            self._request.side.read(event.original, answer_texts, event.divided_texts)
        event.divided_texts = ()  # frees memory: `side` has read them, and the event may wait for long
        event.item = self._queue.pack(event.item)
        # `estimate_event_bytes` counts only pieces; an event that repeats whole texts contains these, too.
        size = estimate_event_bytes(event)
        if repeated_texts:
            size += sum(text.length for text in repeated_texts.values())
        self._memory.account.add_queued_bytes(size)
        self._queue.append(QueuedEvent(event, tuple(piece_spans), repeated_texts, size))

    def _original_text(self, index: int) -> str:
        """The text with this number as far as it has arrived, before any correction."""
        return self._decoder.exchange(index).answer or ""

    def _pop_event(self) -> QueuedEvent[Text]:
        """Remove and return the first queued event, whose memory no longer counts."""
        queued = self._queue.popleft()
        self._memory.account.free_queued_bytes(queued.size)
        return queued

    def _leave_out_if_empty(self, queued: QueuedEvent[Text]) -> bool:
        """Whether to leave the event out because its content block has no text left; later blocks get lower numbers.

        No event is left out if an earlier event of its block was delivered.
        """
        block = queued.event.block
        if block is None or block.is_sent or block.text_number is None:
            return False
        text = self._texts.get(block.text_number)
        is_empty = text is not None and text.changed and not text.has_output
        if is_empty:
            self._block_numbers.remove(block.index)
        return is_empty

    def _may_point_into_edit(self, queued: QueuedEvent[Text]) -> bool:
        """Whether pointers in an event, such as citations, may point into an edited text."""
        text = self._find_own_text(queued.event)
        return text is None or text.changed  # None: it is not known into which text they point

    def _only_points_into_edit(self, queued: QueuedEvent[Text]) -> bool:
        """Whether not to deliver an event because it only points into an edited text, as a citation does."""
        text = self._find_own_text(queued.event)
        if text is None or not text.changed:
            return False
        return is_pointing_event(event_value(sse.as_frame(queued.event.original)))

    def _make_stand_in(self, queued: QueuedEvent[Text]) -> object:
        """What to deliver in place of an event that only points into an edited text: an empty delta of this text with
        the number of the event, so that the numbers of the events have no gap; `NOTHING` if they have no numbers.

        `NOTHING`, too, if the text has ended, because some clients fail on a delta that follows.
        """
        event = queued.event.original
        number = get_field(event, "sequence_number")
        if number is None or queued.event.text_number in self.client.ended_texts:
            return NOTHING
        return make_empty_delta(event, number) or NOTHING

    def _find_own_text(self, event: StreamEvent) -> Text | None:
        """The text to which an event belongs; None if this is not known, or there are several."""
        text_number = event.text_number if event.block is None else event.block.text_number
        return None if text_number is None else self._texts.get(text_number)

    def _render_item(self, queued: QueuedEvent[Text]) -> tuple[object, list[str]]:
        """The item to deliver for an event, and the pieces of text in it; raises `NotPutIn` if an edit does not fit."""
        item, pieces = queued.render_item()
        if queued.event.ended_texts:
            self.client.ended_texts.update(queued.event.ended_texts)
        block = queued.event.block
        if block is not None:
            block.is_sent = True
            number = self._block_numbers.new_number(block.index)
            if number != block.index:  # earlier blocks were left out
                item = sse.as_frame(item).with_index(number)
        return item, pieces

    @property
    def has_queued_events(self) -> bool:
        """Whether events wait for delivery."""
        return bool(self._queue)

    def _get_text(self, index: int) -> Text:
        """The text with this number, created when it is first needed."""
        if index not in self._texts:
            self._texts[index] = self._new_text(index)
        return self._texts[index]

    @property
    def _skips_broken_answer(self) -> bool:
        """Whether the upstream failed and the text that arrived is delivered without being judged."""
        return self.upstream_error is not None and self._request.state.policy.on_skip.upstream_error is not OnSkip.JUDGE

    @abc.abstractmethod
    def _new_text(self, index: int) -> Text:
        """Create the object for a text of which nothing has arrived yet."""

    @abc.abstractmethod
    async def _end_answer(self) -> None:
        """Decide what is still open of the answer, after all its events were queued."""

    @abc.abstractmethod
    def take_ready_items(self) -> Iterator[tuple[object, bool]]:
        """The items to deliver now, each with whether it adds any text; raises if a failure ends the stream."""

    @property
    @abc.abstractmethod
    def _may_show_next_event(self) -> bool:
        """Whether a heartbeat may show the id and similar fields of the first queued event before its text goes out."""

    @abc.abstractmethod
    async def decide_early(self) -> None:
        """Decide texts that only wait for more of the stream."""

    @property
    @abc.abstractmethod
    def needs_more_input(self) -> bool:
        """Whether the stream has to be read further before what is queued can be decided."""

    @abc.abstractmethod
    def give_up_correcting(self) -> None:
        """Give up correcting undecided texts for lack of memory; what follows is delivered unchanged, or blocked."""

    @abc.abstractmethod
    async def finalize_outcomes(self, *, is_complete: bool) -> None:
        """Stop running work and make the outcomes final; `is_complete` is False if not everything was delivered."""

    def make_heartbeat(self) -> object:
        """An event without content, which keeps the connection alive; a comment if the format has no such event."""
        # After the event that ends a stream there can be no other event.
        if self.client.last_event_keeper.is_at_end:
            return KEEPALIVE
        return self._decoder.empty_event(self.client.served_items.items, self.event_for_heartbeat) or KEEPALIVE

    @property
    def event_for_heartbeat(self) -> object:
        """The next event for the client, from which a heartbeat takes the id; None if not even the id may go out."""
        return self._queue.first.event.original if self._queue and self._may_show_next_event else None

    async def _wait_for_items(self) -> bool:
        """Wait for items or the time of the next heartbeat; return whether to send a heartbeat now.

        No heartbeat is sent while the client has only the first part of an event.
        """
        try:
            async with asyncio.timeout(self.client.seconds_to_heartbeat):
                await self.delivery_signal.wait()
        except TimeoutError:
            self.client.schedule_heartbeat()
            self.client.heartbeat_was_due = True
            return self.client.is_between_events
        self.delivery_signal.clear()
        return False

    async def _close(self, *, is_complete: bool) -> None:
        """End reading, give back the memory of queued events and make outcomes final.

        `is_complete` says whether everything was delivered.
        """
        reading_task = self._reading_task
        self._reading_task = None  # avoids a reference cycle: the traceback of the task's error refers to this object
        if reading_task is not None:
            await end_tasks(reading_task)
        self._memory.account.close()
        await self.finalize_outcomes(is_complete=is_complete)


def cut_slices(item: object) -> Iterator[object]:
    """The item itself, or slices of it if it is long bytes, which would block the event loop if decoded at once."""
    if isinstance(item, bytes) and len(item) > _SLICE_BYTES:
        yield from (item[start : start + _SLICE_BYTES] for start in range(0, len(item), _SLICE_BYTES))
    else:
        yield item
