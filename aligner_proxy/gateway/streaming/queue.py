"""Queue of a stream's events on their way to the client.

All state of one stream is in one `StreamQueue` and goes away with it. A task reads the upstream, decodes it and puts
its events in line; they go out in order. A subclass decides what goes out in place of a text, and when: streaming.py
the whole answer at its end, sentences.py segment by segment. Comments keep the connection alive where nothing can go
out, and the last item is one, unless the stream ended inside an event.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from aligner_proxy.concurrency import to_the_end
from aligner_proxy.formats import Wire, sse
from aligner_proxy.formats.base import SafeDecoder, StreamEvent, with_texts
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState, Timeline

KEEPALIVE = b": keep-alive\n\n"
"""A comment of server-sent events; every parser ignores it."""
# How an upstream stream breaks: in any way. LiteLLM maps what providers do to errors of its own, but what it stumbles
# over itself (ValueError, KeyError) ends a stream as well. All of them are raised again behind what had come.
UPSTREAM_ERRORS = (Exception,)


class StreamText(Protocol):
    """One text of the stream: a choice, or a text part of one. Places in it are characters of the original."""

    changed: bool
    """Something else goes out in place of some of it."""

    @property
    def length(self) -> int:
        """How much of the original has come."""
        ...

    async def feed(self, piece: str) -> None:
        """More of the original."""
        ...

    def out(self, start: int, end: int) -> str:
        """What goes out in place of these characters."""
        ...


Text = TypeVar("Text", bound=StreamText)


@dataclass(frozen=True, slots=True)
class QueuedEvent(Generic[Text]):
    """An event in line: where its pieces stand in their texts, and the texts that it repeats as a whole."""

    event: StreamEvent
    places: tuple[tuple[Text, int, int], ...]
    wholes: Mapping[int, Text]

    def item(self) -> tuple[object, bool]:
        """What goes out, the very same object where its texts did not change, and whether it adds any text.

        Raises `NotPutIn`.
        """
        pieces = [
            text.out(start, end) if text.changed else piece
            for (text, start, end), (_, piece) in zip(self.places, self.event.pieces, strict=True)
        ]
        wholes = {index: text.out(0, text.length) for index, text in self.wholes.items() if text.changed}
        return with_texts(self.event, pieces, wholes), any(pieces)


class StreamQueue(abc.ABC, Generic[Text]):
    """One stream on its way through."""

    def __init__(self, wire: Wire, data: Mapping[str, Any], ledger: RequestState, corrector: ChoiceCorrector) -> None:
        self._data = data
        self._ledger = ledger
        self._corrector = corrector
        self._decoder = SafeDecoder(wire.decoder(data), data)
        self._texts: dict[int, Text] = {}
        self._queue: deque[QueuedEvent[Text]] = deque()
        self._changed = asyncio.Event()
        """Something may go out now."""
        self._source: object = None
        self._work: asyncio.Task[None] | None = None
        self._broken: Exception | None = None
        """What broke the upstream's stream."""
        self._ending = b""
        """The last bytes that went out: a comment may stand only between two events."""
        self._comment_at: float | None = None
        """When a comment is due, in the loop's time."""
        self.timeline = Timeline()
        self.items: list[object] = []
        """What went out."""
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
            await to_the_end(self._close(finished=finished))
        # A stream that never began stays a plain HTTP error.
        if (self.items or self._broken is None) and sse.at_rest(self._ending):
            self.comment = self._ledger.comment(self.timeline)
            yield self.comment
        if self._broken is not None:
            raise self._broken

    async def _flow(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """Everything in order until nothing is left; a comment now and then where nothing can go out."""
        # A task of its own: what a stream is made of may be bound to the task that reads it.
        work = self._work = asyncio.create_task(self._read(source))
        work.add_done_callback(lambda _: self._changed.set())
        self._put_off_comment()
        while True:
            over = work.done()
            if over:
                work.result()
            for item in self._ready():
                yield item
            if over and not self._queue:
                return
            if await self._silent():
                yield KEEPALIVE

    async def _read(self, source: AsyncIterable[object]) -> None:
        """Put the whole stream in line."""
        async with contextlib.aclosing(self._upstream(source)) as items:
            async for item in items:
                await self._take(item)
        for event in self._decoder.flush():
            await self._enqueue(event)
        await self._end()

    async def _upstream(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """The upstream's items; where it breaks off, they end."""
        try:
            async for item in source:
                yield item
        except UPSTREAM_ERRORS as error:
            self._broken = error

    async def _take(self, item: object) -> None:
        """Decode an item and put its events in line."""
        for event in self._decoder.feed(item):
            await self._enqueue(event)

    async def _enqueue(self, event: StreamEvent) -> None:
        places = []
        for index, piece in event.pieces:
            text = self._text(index)
            start = text.length
            await text.feed(piece)
            places.append((text, start, start + len(piece)))
        if places:
            self.timeline.came()
        wholes = {index: self._text(index) for index in event.wholes}
        self._queue.append(QueuedEvent(event, tuple(places), wholes))

    def _text(self, index: int) -> Text:
        if index not in self._texts:
            self._texts[index] = self._new_text(index)
        return self._texts[index]

    @abc.abstractmethod
    def _new_text(self, index: int) -> Text:
        """A text of which nothing has come yet."""

    @abc.abstractmethod
    async def _end(self) -> None:
        """The upstream has sent all, or broke off."""

    @abc.abstractmethod
    def _ready(self) -> list[object]:
        """The items that may go out now; raises where a failure is to end the stream."""

    @abc.abstractmethod
    async def _settle(self, *, finished: bool) -> None:
        """Let go of what is still worked on, and settle what is not settled; `finished`: all went out."""

    def _sent(self, item: object, *, has_text: bool) -> None:
        """Note that an item goes out."""
        self.items.append(item)
        self._ending = sse.tail(self._ending, item)
        if has_text:
            self.timeline.went()
        self._put_off_comment()

    def _put_off_comment(self) -> None:
        every_s = self._ledger.policy.keepalive_s
        self._comment_at = time.monotonic() + every_s if every_s else None

    async def _silent(self) -> bool:
        """Wait until something may go out; True when it took so long that a comment is due, and one may go out here."""
        left = None if self._comment_at is None else self._comment_at - time.monotonic()
        try:
            async with asyncio.timeout(left):
                await self._changed.wait()
        except TimeoutError:
            self._put_off_comment()
            return sse.at_rest(self._ending)
        self._changed.clear()
        return False

    async def _close(self, *, finished: bool) -> None:
        """End the work and settle it, also when the client has left."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        await self._settle(finished=finished)
