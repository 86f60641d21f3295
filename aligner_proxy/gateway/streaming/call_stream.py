"""Corrects the tool calls of one stream before anything else reads it. The events of a call, and all events behind
them, wait for the end of the call. A place (`Place`) says where in the response a call stands.

If the waiting events take more memory than a stream may have, they go on uncorrected. Of a corrected call, the first
piece gets all of its new arguments, and the other pieces become empty. Without an edit the events go on as they came.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aligner_proxy.concurrency import TimeSlice
from aligner_proxy.errors import CopyStays, NotPutIn, Unreadable
from aligner_proxy.formats import sse
from aligner_proxy.formats.answer_decoder import AnswerDecoder
from aligner_proxy.formats.base import GrowingText, Wire
from aligner_proxy.formats.calls import CallText, Place
from aligner_proxy.formats.packing import PackedChunk, Packer
from aligner_proxy.formats.safe import SafeFormat
from aligner_proxy.formats.stream_events import StreamEvent
from aligner_proxy.gateway.call_arguments import CallArguments
from aligner_proxy.gateway.litellm_internals import WatchedStream
from aligner_proxy.gateway.second_copies import NOTHING, event_value
from aligner_proxy.gateway.streaming.budget import StreamAccount, estimate_bytes
from aligner_proxy.gateway.upstream_errors import UpstreamItems
from aligner_proxy.pipeline.stages.eligibility import LONGEST_JSON
from aligner_proxy.types import SideKind

_MAX_EVENTS = 50_000
_PACKED_FROM = 256
"""Number of waiting events from which chunks are packed."""


@dataclass(frozen=True, slots=True)
class _WaitingEvent:
    """An event, and the answer's texts in it."""

    item: object
    """The event as it arrived, or a `PackedChunk` of it."""
    answer_texts: Sequence[str]

    @property
    def original(self) -> Any:
        """The event as it arrived."""
        return self.item.unpack() if isinstance(self.item, PackedChunk) else self.item


@dataclass(slots=True)
class _GrowingCall:
    """A call whose arguments arrive in pieces."""

    name: str
    """The name of the tool; empty until an event says it."""
    is_free: bool
    """Whether the arguments are any text, not JSON."""
    pieces: GrowingText


class WaitingEvents:
    """The events that wait for the end of a call, and the calls in them."""

    def __init__(self, account: StreamAccount) -> None:
        self.calls: list[CallText] = []
        """Calls in the waiting events whose arguments are complete."""
        self._events: list[_WaitingEvent] = []
        self._packer = Packer()
        self._account = account
        self._call_chars = 0
        """Characters of the calls in the waiting events."""

    def __bool__(self) -> bool:
        return bool(self._events)

    @property
    def is_full(self) -> bool:
        """Whether the events take more memory than they may, or their calls are too long to be corrected."""
        return self._call_chars > LONGEST_JSON or len(self._events) > _MAX_EVENTS or self._account.is_full

    def add(self, event: _WaitingEvent, call_chars: int) -> None:
        """Add an event, packed to save memory if many wait; `call_chars` counts the characters of its calls."""
        if len(self._events) >= _PACKED_FROM:
            event = replace(event, item=self._packer.pack(event.item))
        self._events.append(event)
        self._call_chars += call_chars
        self._account.add_queued_bytes(estimate_bytes(event.item, call_chars + sum(map(len, event.answer_texts))))

    def take_all(self) -> tuple[list[_WaitingEvent], list[CallText]]:
        """Take out and return all events and calls. The caller still holds them, so they count until `free_memory`."""
        events = self._events
        calls = self.calls
        self._events = []
        self.calls = []
        self._call_chars = 0
        return events, calls

    def free_memory(self) -> None:
        """Stop counting the memory of the events that `take_all` returned."""
        self._account.free_queued_bytes(self._account.held_bytes)

    def close(self) -> None:
        """Stop counting all memory; called when the stream ends."""
        self._account.close()


class CallStream:
    """One stream whose calls are corrected."""

    def __init__(self, calls: CallArguments, wire: Wire | SafeFormat, account: StreamAccount) -> None:
        self._calls = calls
        self._decoder = AnswerDecoder(wire.decoder(calls.data), calls.data)
        self._source: object = None
        """The upstream's stream; None before `correct`."""
        self._open_calls: dict[Place, _GrowingCall] = {}
        """The calls that have not ended, by place in the response."""
        self._whole_arguments: dict[Place, str] = {}
        """The complete original arguments of calls that have ended, by place."""
        self._waiting = WaitingEvents(account)
        self._filled_places: set[Place] = set()
        """The places of the calls whose new arguments have been put into an event."""
        self._time_slice = TimeSlice()
        self._has_given_up = False
        """Whether correction was given up: from then on events do not wait, and no further call is corrected."""

    def correct(self, source: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """The stream with its calls corrected, as an object in which LiteLLM still finds the attributes of `source`."""
        self._source = source
        return WatchedStream(self._correct_items(source), source)

    async def _correct_items(self, source: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        """Yield the items of a stream with corrected calls; if the upstream breaks off, raise its error after them."""
        upstream = UpstreamItems(source)
        try:
            async with contextlib.aclosing(self._read_events(upstream)) as events:
                async for event in events:
                    for item in await self._take_event(event):
                        yield item
                    # While a call arrives, nothing is yielded, so other tasks run only in this pause.
                    await self._time_slice.pause()
            for item in await self._end_calls():
                yield item
        finally:
            self._waiting.close()
        upstream.raise_error()

    async def _read_events(self, upstream: UpstreamItems) -> AsyncGenerator[StreamEvent, None]:
        """Yield the decoded events of a stream; if the upstream breaks off, end, and `upstream` keeps the error."""
        async for item in upstream:
            for event in self._decoder.feed(item):
                yield event
        for event in self._decoder.flush():
            yield event

    async def _take_event(self, event: StreamEvent) -> Sequence[object]:
        """The items to deliver now that `event` has arrived; none while a call in it, or before it, has not ended."""
        answer_texts = [piece for _, piece in event.pieces]
        answer_texts += [self._decoder.exchange(index).answer or "" for index in event.repeated_texts]
        arrived = _WaitingEvent(event.original, answer_texts)
        new_calls = [] if self._has_given_up else self._read_calls(arrived.item)
        if not new_calls and not self._waiting:
            item = self._make_later_item(arrived)
            return () if item is NOTHING else [item]
        self._waiting.add(arrived, call_chars=sum(len(call.text) for call in new_calls if call.is_piece))
        if self._waiting.is_full or self._decoder.fault is not None:
            self._has_given_up = True
        if self._open_calls and not self._has_given_up:
            return ()
        return await self._end_calls()

    def _read_calls(self, item: object) -> list[CallText]:
        """Add the calls in an event to those that wait for correction, and end the calls that the event ends.

        Returns the calls and pieces of calls for which the event has to wait, without whole calls that were judged
        before or that hold no prose.
        """
        value = event_value(sse.as_frame(item))
        ended_groups: Collection[object] | None = ()
        try:
            calls = self._calls.call_format.read(value)
            if self._open_calls or calls:
                ended_groups = self._calls.call_format.ended_groups(value)
        except Unreadable:
            self._has_given_up = True
            return []
        new_calls = [call for call in calls if call.is_piece or not self._calls.is_known(call)]
        for call in new_calls:
            if call.is_piece:
                self._add_piece(call)
            else:
                self._waiting.calls.append(call)
        for place in list(self._open_calls):
            group = place[0]  # the choice or item that the call belongs to
            if ended_groups is None or group in ended_groups:  # None means that the event ends every call
                self._end_call(place)
        return new_calls

    def _add_piece(self, piece: CallText) -> None:
        if piece.place in self._whole_arguments:
            # The upstream continues a call after its end, so the call was corrected before it was complete.
            self._has_given_up = True
        call = self._open_calls.setdefault(piece.place, _GrowingCall("", piece.is_free, GrowingText()))
        call.name = call.name or piece.name
        call.pieces.append(piece.text)

    def _end_call(self, place: Place) -> None:
        """Move an open call, whose arguments are complete now, to the calls that are corrected next."""
        call = self._open_calls.pop(place)
        self._whole_arguments[place] = str(call.pieces)
        self._waiting.calls.append(CallText(place, self._whole_arguments[place], call.name, is_free=call.is_free))

    async def _end_calls(self) -> Sequence[object]:
        """End all open calls, correct the calls in the waiting events, and return the items of these events.

        If a correction does not fit into its event, or a copy of removed text elsewhere in the events cannot be
        removed, none of these calls is corrected.
        """
        for place in list(self._open_calls):
            self._end_call(place)
        events, calls = self._waiting.take_all()
        if not self._has_given_up:
            await self._calls.correct(calls, self._source)
        self._waiting.free_memory()
        try:
            items = await self._map_with_pauses(self._put_in_arguments, events)
            if self._calls.has_edits:
                items = await self._map_with_pauses(self._remove_copies, items, events)
        except (CopyStays, NotPutIn) as error:
            self._calls.withdraw(calls, error)
            self._has_given_up = True
            return await self._map_with_pauses(self._put_in_arguments_if_possible, events)
        await self._calls.report_judged_calls(calls)
        return items

    async def _map_with_pauses(self, make_item: Callable[..., object], *columns: Sequence[Any]) -> list[object]:
        """The results of `map(make_item, *columns)`, without those that are `NOTHING`.

        Other tasks run between two results, since there may be thousands of them.
        """
        items = []
        for arguments in zip(*columns, strict=True):
            item = make_item(*arguments)
            if item is not NOTHING:
                items.append(item)
            await self._time_slice.pause()
        return items

    def _make_later_item(self, event: _WaitingEvent) -> object:
        """The item to deliver at once for an event that brings no new call, while no event waits.

        The event may repeat a corrected call, or quote text that was removed from a call, and is then changed likewise.
        `NOTHING` if nothing is left of it.
        """
        if not self._calls.has_edits:
            # An unreadable event cannot be searched for copies; the check of texts beside the answer reports it later.
            with contextlib.suppress(NotPutIn):
                self._calls.copies.remember(event.original, event.answer_texts)
            return event.original
        item = self._put_in_arguments_if_possible(event)
        try:
            return self._remove_copies(item, event)
        except (CopyStays, NotPutIn):
            # The corrected call has gone out, so its edits cannot be withdrawn.
            self._calls.side.note_unjudged(SideKind.TOOL_ARGUMENTS)
            return item

    def _put_in_arguments_if_possible(self, event: _WaitingEvent) -> Any:
        """The item of an event with the new arguments of its calls; the original if they cannot be put in."""
        try:
            return self._put_in_arguments(event)
        except NotPutIn:
            self._calls.side.note_unjudged(SideKind.TOOL_ARGUMENTS)
            return event.original

    def _put_in_arguments(self, event: _WaitingEvent) -> Any:
        """The item of an event with the new arguments of its calls; raises `NotPutIn`."""
        item = event.original
        if not self._calls.has_edits:
            return item
        frame = sse.as_frame(item)
        value = event_value(frame)
        edited = self._calls.call_format.replace(value, self._find_new_text)
        return item if edited is value else frame.with_event(edited)

    def _find_new_text(self, call: CallText) -> str:
        """The text to deliver in place of arguments or a piece of them.

        Of a corrected call the first piece becomes all of the new arguments, and the other pieces become empty.
        """
        if not call.is_piece:
            return self._calls.find_new_text(call)
        arguments = self._whole_arguments.get(call.place, "")
        new_arguments = self._calls.find_new_text(replace(call, text=arguments))
        if not call.text or new_arguments == arguments:
            return call.text
        if call.place in self._filled_places:
            return ""
        self._filled_places.add(call.place)
        return new_arguments

    def _remove_copies(self, item: Any, event: _WaitingEvent) -> object:
        """The item without copies of removed text (`NOTHING` if nothing is left); raises `CopyStays` or `NotPutIn`."""
        cleaned = self._calls.copies.remove_copies(item, event.answer_texts, event.answer_texts, edited=False)
        self._calls.copies.check_past_events()
        return cleaned
