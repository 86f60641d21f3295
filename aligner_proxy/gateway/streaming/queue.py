"""Queue of a stream's events on their way to the client.

All state of one stream is in one `StreamQueue` and goes away with it. A task reads the upstream, decodes it and puts
its events in line; they go out in order. A subclass decides what goes out in place of a text, and when: held.py
the whole answer at its end, released.py segment by segment. Comments keep the connection alive where nothing can go
out, and the last item is one, unless the stream ended inside an event. While the line is too long (budget.py), the
upstream is not read on.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic

from aligner_proxy.concurrency import TimeSlice, run_to_end
from aligner_proxy.formats import Wire, sse
from aligner_proxy.formats.base import SafeDecoder, StreamEvent
from aligner_proxy.gateway import litellm_internals, metrics
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState, Timeline
from aligner_proxy.gateway.side_texts import SideTexts
from aligner_proxy.gateway.streaming.budget import StreamAccount, StreamBudget, size_of
from aligner_proxy.gateway.streaming.line import NO_WHOLES, EventLine, QueuedEvent, Text
from aligner_proxy.types import OnSkip

KEEPALIVE = b": keep-alive\n\n"
"""A comment of server-sent events; every parser ignores it."""
# How an upstream stream breaks: in any way. LiteLLM maps what providers do to errors of its own, but what it stumbles
# over itself (ValueError, KeyError) ends a stream as well. All of them are raised again behind what had come.
UPSTREAM_ERRORS = (Exception,)
RELIEVED_S = 1.0
"""Shortest time between two parts that end because all streams together hold too much: parts stay worth a look."""
PATIENCE_S = 5.0
"""How long a stream waits for room that other streams take up."""
_SLICE_BYTES = 1 << 16
"""Bytes of one item that are decoded before other work gets its turn."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The request that a stream answers, and what works on its answer."""

    wire: Wire
    data: Mapping[str, Any]
    ledger: RequestState
    corrector: ChoiceCorrector
    side: SideTexts | None
    """Texts beside the answer, where they are looked at before they go out."""


@dataclass(slots=True)
class StreamRoom:
    """The room that a stream takes up."""

    account: StreamAccount
    relieved_at: float = 0.0
    is_shed: bool = False
    """There was no room for what it holds; the rest goes out as it is, or not at all."""


class ClientSide:
    """What went out to the client, and when a comment has to keep its connection alive."""

    def __init__(self, ledger: RequestState) -> None:
        self._ledger = ledger
        self.timeline = Timeline()
        self.served_items = litellm_internals.ServedItems()
        self._ending = b""
        """The last bytes that went out: a comment may stand only between two events."""
        self._comment_at: float | None = None
        """When a comment is due, in the loop's time."""

    @property
    def is_at_rest(self) -> bool:
        """Whether what went out ends between two events."""
        return sse.is_between_events(self._ending)

    @property
    def seconds_to_comment(self) -> float | None:
        """How long nothing may go out before a comment is due; None: for as long as it takes."""
        return None if self._comment_at is None else self._comment_at - time.monotonic()

    def note(self, item: object, *, has_text: bool) -> None:
        """An item goes out."""
        self.served_items.append(item)
        self._ending = sse.stream_tail(self._ending, item)
        if has_text:
            self.timeline.note_client()
        self.put_off_comment()

    def put_off_comment(self) -> None:
        """A comment is due so long after now."""
        every_s = self._ledger.policy.keepalive_s
        self._comment_at = time.monotonic() + every_s if every_s else None


class StreamQueue(abc.ABC, Generic[Text]):
    """One stream on its way through."""

    def __init__(
        self,
        wire: Wire,
        data: Mapping[str, Any],
        ledger: RequestState,
        corrector: ChoiceCorrector,
        account: StreamAccount | None = None,
        side: SideTexts | None = None,
    ) -> None:
        self._request = StreamRequest(wire, data, ledger, corrector, side)
        self._decoder = SafeDecoder(wire.decoder(data), data)
        self._texts: dict[int, Text] = {}
        self._queue: EventLine[Text] = EventLine()
        self._room = StreamRoom(account or StreamBudget().open("-"))
        self._time = TimeSlice()
        self.changed = asyncio.Event()
        """Something may go out now."""
        self._source: object = None
        self._work: asyncio.Task[None] | None = None
        self.broken: Exception | None = None
        """What broke the upstream's stream."""
        self.client = ClientSide(ledger)
        self.comment: bytes | None = None
        """The last item, once it is due."""

    async def play(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """All items of the stream. One that breaks upstream is delivered as far as it came, and then breaks.

        A client that leaves closes this generator and ends the work behind it.
        """
        self._source = source
        finished = False
        try:
            async with contextlib.aclosing(self._flow(source)) as items:
                async for item in items:
                    yield item
            finished = True
        finally:
            await run_to_end(self._close(finished=finished))
        # A stream that never began stays a plain HTTP error.
        if (self.client.served_items.any or self.broken is None) and self.client.is_at_rest:
            self.comment = self._request.ledger.comment(self.client.timeline)
            yield self.comment
        if self.broken is not None:
            if self._request.side is not None:
                await self._request.side.silence(self.broken)
            raise self.broken

    async def _flow(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """Everything in order until nothing is left; a comment now and then where nothing can go out."""
        # A task of its own: what a stream is made of may be bound to the task that reads it.
        work = self._work = asyncio.create_task(self._read(source))
        work.add_done_callback(lambda _: self.changed.set())
        self.client.put_off_comment()
        while True:
            over = work.done()
            if over:
                work.result()
            for item, has_text in self.ready():
                self.client.note(item, has_text=has_text)
                yield item
                await self._time.pause()
            if over and not self.waits:
                return
            if await self._silent():
                yield KEEPALIVE

    async def _read(self, source: AsyncIterable[object]) -> None:
        """Put the whole stream in line."""
        chunks = litellm_internals.stream_chunks(source)
        async with contextlib.aclosing(self._upstream(source)) as items:
            async for item in items:
                await self.take(item)
                chunks.merge()
                await self._time.pause()
                if self._room.account.full:
                    await self._make_room()
        await self.finish()

    async def finish(self) -> None:
        """The upstream has sent all, or broke off."""
        for event in self._decoder.flush():
            await self._enqueue(event)
        await self._end()

    async def _upstream(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """The upstream's items; where it breaks off, they end."""
        try:
            async for item in source:
                yield item
        except UPSTREAM_ERRORS as error:
            self.broken = error

    async def take(self, item: object) -> None:
        """Decode an item and put its events in line."""
        for piece in slices(item):
            for event in self._decoder.feed(piece):
                await self._enqueue(event)
                await self._time.pause()

    async def _make_room(self) -> None:
        """Decide what can be decided, and wait until enough of it went out.

        Where other streams take up the room and the wait is too long, or this tenant has more than its share, the
        stream is shed.
        """
        if self._room.account.too_long or time.monotonic() - self._room.relieved_at > RELIEVED_S:
            self._room.relieved_at = time.monotonic()
            await self.relieve()
        while self._room.account.full and self.waits:
            crowded_out = not self._room.is_shed and self._room.account.over_share
            if crowded_out or not (await self._room.account.wait_for_room(PATIENCE_S) or self._room.is_shed):
                metrics.record_stream_shed(self._request.ledger)
                self._room.is_shed = True
                self.give_way()

    async def _enqueue(self, event: StreamEvent) -> None:
        places = []
        for index, piece in event.pieces:
            text = self._text(index)
            start = text.length
            await text.feed(piece)
            places.append((text, start, start + len(piece)))
            self._room.account.keep(len(piece))
        if places:
            self.client.timeline.note_upstream()
        wholes = {index: self._text(index) for index in event.wholes} or NO_WHOLES
        if self._request.side is not None:
            self._request.side.read(
                event.original, [*(piece for _, piece in event.pieces), *map(self._original, wholes)]
            )
        event.item = self._queue.pack(event.item)
        size = size_of(event) + sum(text.length for text in wholes.values())
        self._room.account.hold(size)
        self._queue.append(QueuedEvent(event, tuple(places), wholes, size))

    def _original(self, index: int) -> str:
        """A text as far as it has come, as the upstream wrote it."""
        return self._decoder.exchange(index).answer or ""

    def _next(self) -> QueuedEvent[Text]:
        """The first event in line, which leaves it."""
        queued = self._queue.popleft()
        self._room.account.free(queued.size)
        return queued

    @property
    def waits(self) -> bool:
        """Whether there are events in line."""
        return bool(self._queue)

    def _text(self, index: int) -> Text:
        if index not in self._texts:
            self._texts[index] = self._new_text(index)
        return self._texts[index]

    @property
    def _passes_broken(self) -> bool:
        """Whether the upstream failed, and what had come goes out unjudged, not like an answer that was cut off."""
        return self.broken is not None and self._request.ledger.policy.on_skip.upstream_error is not OnSkip.JUDGE

    @abc.abstractmethod
    def _new_text(self, index: int) -> Text:
        """A text of which nothing has come yet."""

    @abc.abstractmethod
    async def _end(self) -> None:
        """The upstream has sent all, or broke off."""

    @abc.abstractmethod
    def ready(self) -> Iterator[tuple[object, bool]]:
        """The items that may go out now, and whether each adds any text; raises where a failure ends the stream."""

    @abc.abstractmethod
    async def relieve(self) -> None:
        """Decide what waits only for more of the stream."""

    @abc.abstractmethod
    def give_way(self) -> None:
        """Give up what is undecided: the stream is shed."""

    @abc.abstractmethod
    async def settle(self, *, finished: bool) -> None:
        """Let go of what is still worked on, and settle what is not settled; `finished`: all went out."""

    async def _silent(self) -> bool:
        """Wait until something may go out; True when it took so long that a comment is due, and one may go out here."""
        try:
            async with asyncio.timeout(self.client.seconds_to_comment):
                await self.changed.wait()
        except TimeoutError:
            self.client.put_off_comment()
            return self.client.is_at_rest
        self.changed.clear()
        return False

    async def _close(self, *, finished: bool) -> None:
        """End the work and settle it, also when the client has left."""
        work = self._work
        self._work = None  # what ended it knows the stream: together they would wait for the garbage collector
        if work is not None:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        self._room.account.close()
        await self.settle(finished=finished)


def slices(item: object) -> Iterator[object]:
    """An item as it is, or in pieces where it is a long run of bytes."""
    if isinstance(item, bytes) and len(item) > _SLICE_BYTES:
        yield from (item[at : at + _SLICE_BYTES] for at in range(0, len(item), _SLICE_BYTES))
    else:
        yield item
