"""Who reads an answer that is released while it is written, and what if the engine stops reading it?

One `Reader` per passage. What the engine has forgotten, or never took in because it was full or away, is read again
from the beginning, within the deadline: verdicts are causal, so they are the same. As long as nothing went out there
is a better way, which is the caller's: to hold the answer and send it whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aligner_proxy.engine.patience import NotYet, patiently
from aligner_proxy.engine.protocol import Reading, Span, Unread
from aligner_proxy.errors import CorrectionError, EngineOverloaded, EngineUnavailable, ReadingLost
from aligner_proxy.pipeline import Pipeline
from aligner_proxy.types import Correction, Exchange, Policy, SegmentScore

_T = TypeVar("_T")
LOST = (ReadingLost, EngineUnavailable, EngineOverloaded)
"""The engine does not read the answer; what else goes wrong would go wrong again."""
PATIENCE_S = 5.0
"""How long an engine that is away or full is asked to read again, like one that is asked for a whole answer."""


class Reader:
    """`exchange` tells the answer so far. `feed` and `end` never raise what the engine says: whoever waits hears it."""

    def __init__(self, pipeline: Pipeline, policy: Policy, exchange: Callable[[], Exchange]) -> None:
        self._pipeline, self._policy, self._exchange = pipeline, policy, exchange
        self._text, self._ended = "", False
        self._reading: Reading | None = None
        self._failure: CorrectionError | None = None

    async def begin(self) -> bool:
        """Let the engine read along; False where the answer may not be edited, or only as a whole."""
        try:
            self._reading = await self._pipeline.read(self._exchange(), self._policy)
        except LOST as error:
            self._failure = error
        return self._reading is not None or self._failure is not None

    async def hold(self) -> Reading:
        """Whoever finishes an answer that is held: who reads it, as long as he does."""
        if self._failure is not None or self._reading is None:
            await self.aclose()
            return Unread(self._pipeline.engine_of(self._policy))
        return self._reading

    async def feed(self, text: str) -> None:
        """More of the answer."""
        self._text += text
        await self._tell(lambda reading: reading.feed(text))

    async def end(self) -> None:
        """There is no more."""
        self._ended = True
        await self._tell(lambda reading: reading.end())

    async def judged(self, known: int, *, again: bool) -> tuple[SegmentScore, ...] | None:
        """More verdicts than `known`; None: this engine has none before the end. `again`: read again what is lost."""
        return await self._asked(lambda reading: reading.judged(known), again)

    async def replace(self, span: Span, *, again: bool) -> Correction:
        """What stands in place of a flagged stretch."""
        return await self._asked(lambda reading: reading.replace(span), again)

    async def aclose(self) -> None:
        """Let the engine go."""
        reading, self._reading = self._reading, None
        if reading is not None:
            await reading.aclose()

    async def _tell(self, telling: Callable[[Reading], Awaitable[object]]) -> None:
        reading = self._reading
        if reading is None:
            return
        try:
            await telling(reading)
        except CorrectionError as error:
            if reading is self._reading:
                self._failure = error

    async def _asked(self, ask: Callable[[Reading], Awaitable[_T]], again: bool) -> _T:
        try:
            if self._failure is not None or self._reading is None:
                raise self._failure or ReadingLost("nobody reads this answer")
            return await ask(self._reading)
        except LOST as error:
            self._failure = error
            if not again:
                raise
        return await patiently(lambda _: self._asked_anew(ask), self._policy.deadline_s, PATIENCE_S)

    async def _asked_anew(self, ask: Callable[[Reading], Awaitable[_T]]) -> _T:
        await self._begin_again()
        assert self._reading is not None
        told = await ask(self._reading)
        if told is None:
            raise NotYet("the engine is in doubt and reads nothing ahead")
        return told

    async def _begin_again(self) -> None:
        """Another reading in place of the lost one, which hears everything that there is so far."""
        await self.aclose()
        reading = await self._pipeline.read(self._exchange(), self._policy)
        if reading is None:
            raise ReadingLost("this answer may not be edited any more")
        heard = 0
        try:
            while heard < len(self._text):
                more, heard = self._text[heard:], len(self._text)
                await reading.feed(more)
            self._reading, self._failure = reading, None
            if self._ended:
                await reading.end()
        except BaseException:
            await reading.aclose()
            raise
