"""What happens to a stream that is released segment by segment? Its events go out in order, each as soon as its text is
decided.

One `ReleasedStream` per request; all state is in it and its passages (passage.py). An event whose texts are those that
it came with is the very same object. What repeats a whole text waits until that text is decided, and agrees with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from aligner_proxy import eligibility, failures, telemetry
from aligner_proxy.errors import NotPutIn
from aligner_proxy.ledger import Ledger
from aligner_proxy.passage import Passage
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.rewrite import Wire, sse
from aligner_proxy.rewrite.careful import CarefulTelling
from aligner_proxy.rewrite.telling import Told
from aligner_proxy.telemetry import CANCELLED
from aligner_proxy.timeline import Timeline
from aligner_proxy.types import Exchange, Outcome, SkipReason, Status
from aligner_proxy.waiting import KEEPALIVE, Inflow, to_the_end

Settle = Callable[[Sequence[tuple[Exchange, Outcome]]], None]
"""Told what became of every text."""
Refuse = Callable[[Outcome], None]
"""Raises where the policy wants an error in place of an uncorrected answer."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event that has come: where its pieces stand in their texts."""

    told: Told
    places: tuple[tuple[Passage, int, int], ...]
    wholes: Mapping[int, Passage]

    @property
    def ready(self) -> bool:
        """Whether all that it tells is decided."""
        return all(passage.decided(end) for passage, _, end in self.places) and all(
            passage.done for passage in self.wholes.values()
        )

    def item(self) -> tuple[object, bool]:
        """What goes out, and whether it says anything."""
        pieces = [passage.out(start, end) for passage, start, end in self.places]
        wholes = {i: passage.out(0, len(passage.text)) for i, passage in self.wholes.items() if passage.edited}
        return self.told.saying(pieces, wholes), any(pieces)


class ReleasedStream:
    """One stream on its way through."""

    def __init__(
        self, wire: Wire, data: Mapping[str, Any], ledger: Ledger, pipeline: Pipeline, settle: Settle, refuse: Refuse
    ) -> None:
        self._telling = CarefulTelling(wire.telling(data), data)
        self._ledger, self._pipeline = ledger, pipeline
        self._settle, self._refuse = settle, refuse
        self._passages: dict[int, Passage] = {}
        self._unsaid = False
        """An edit did not go into its event, which went out as it came."""
        self._queue: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._ending = b""
        self.timeline = Timeline()
        self.items: list[object] = []
        """What went out."""
        self.comment: bytes | None = None
        """The last item, once it is due."""

    async def play(self, source: AsyncIterable[object]) -> AsyncGenerator[object, None]:
        """All items of the stream. One that breaks upstream is delivered as far as it came, and then breaks."""
        inflow, finished = Inflow(source, self._changed.set), False
        try:
            async with contextlib.aclosing(self._flow(inflow)) as items:
                async for item in items:
                    yield item
            finished = True
        finally:
            await to_the_end(self._close(inflow, finished=finished))
        if (self.items or inflow.error is None) and sse.at_rest(self._ending):
            self.comment = self._ledger.comment(self.timeline)
            yield self.comment
        if inflow.error is not None:
            raise inflow.error

    async def _flow(self, inflow: Inflow) -> AsyncGenerator[object, None]:
        """Everything in its order, until nothing is left; a comment now and then where nothing is ready."""
        ended = False
        while not ended or self._queue:
            await self._take(inflow)
            if inflow.over and not inflow.items and not ended:
                ended = True
                await self._end(inflow.error)
            for item in self._ready():
                yield item
            if (self._queue or not ended) and await self._silent():
                yield KEEPALIVE

    async def _take(self, inflow: Inflow) -> None:
        """Hear everything that has come."""
        while inflow.items:
            for told in self._telling.take(inflow.items.popleft()):
                await self._hear(told)
            self._look()

    def _look(self) -> None:
        """What cannot be read goes out as it is, unless the policy wants an error in its place."""
        if self._telling.fault is not None:
            for passage in self._passages.values():
                passage.close(Status.FAILED, failures.INTERNAL)
            if not self._passages:
                self._refuse(Outcome(Status.FAILED, failures.INTERNAL, None, self._ledger.policy))

    async def _hear(self, told: Told) -> None:
        """Pass on what an event says, and let it wait in line."""
        places, begun = [], False
        for index, piece in told.pieces:
            begun |= index not in self._passages
            passage = self._passage(index)
            places.append((passage, len(passage.text), len(passage.text) + len(piece)))
            await passage.hear(piece)
        if told.pieces:
            self.timeline.came()
        if begun or not told.pieces or told.ends:
            for passage in self._passages.values():
                passage.check()
        for index in told.ends:
            if index in self._passages:
                await self._passages[index].end()
        wholes = {index: self._passages[index] for index in told.wholes if index in self._passages}
        self._queue.append(_Waiting(told, tuple(places), wholes))

    def _passage(self, index: int) -> Passage:
        if index not in self._passages:
            exchange = partial(self._telling.exchange, index)
            self._passages[index] = Passage(self._pipeline, self._ledger.policy, exchange, self._changed.set)
        return self._passages[index]

    def _ready(self) -> list[object]:
        """The items at the head of the line that may go out; raises where a failure is to end the stream."""
        for passage in self._passages.values():
            if passage.failed:
                self._refuse(passage.outcome())
        found: list[object] = []
        while self._queue and self._queue[0].ready:
            item, spoke = self._said(self._queue.popleft())
            found.append(item)
            self._ending = sse.tail(self._ending, item)
            if spoke:
                self.timeline.went()
        self.items += found
        return found

    def _said(self, waiting: _Waiting) -> tuple[object, bool]:
        """What goes out in place of an event: the event itself where an edit does not go into it."""
        try:
            return waiting.item()
        except NotPutIn:
            self._unsaid = True
            return waiting.told.item, bool(waiting.places)

    async def _silent(self) -> bool:
        """Wait until something has changed; True when it took so long that the client should hear of it."""
        try:
            async with asyncio.timeout(self._ledger.policy.keepalive_s or None):
                await self._changed.wait()
        except TimeoutError:
            return sse.at_rest(self._ending)
        self._changed.clear()
        return False

    async def _end(self, error: BaseException | None) -> None:
        """The upstream has said all, or broke off: then what it said goes out as it is."""
        for told in self._telling.flush():
            await self._hear(told)
        self._look()
        for passage in self._passages.values():
            if error is not None:
                passage.close(Status.SKIPPED, SkipReason.UPSTREAM_ERROR.value)
            await passage.end()

    async def _close(self, inflow: Inflow, *, finished: bool) -> None:
        """Let go of everything and settle the books, also when the client has left."""
        await inflow.aclose()
        for passage in self._passages.values():
            if not finished:
                passage.close(Status.FAILED, CANCELLED)
            await passage.aclose()
        if self._ledger.settled:
            return
        found = [(self._telling.exchange(i), passage.outcome()) for i, passage in sorted(self._passages.items())]
        self._settle(found or [self._wordless(finished)])
        if self._unsaid:
            telemetry.not_put_in(self._ledger)

    def _wordless(self, finished: bool) -> tuple[Exchange, Outcome]:
        """The outcome of a stream without any text."""
        policy, exchange = self._ledger.policy, self._telling.exchange(0)
        if not finished or self._telling.fault is not None:
            return exchange, Outcome(Status.FAILED, failures.INTERNAL if finished else CANCELLED, None, policy)
        reason = eligibility.check(exchange, policy) or SkipReason.EMPTY
        return exchange, Outcome(Status.SKIPPED, reason.value, None, policy)
