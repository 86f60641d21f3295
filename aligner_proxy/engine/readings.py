"""Which answers does a server read at the moment? Their names, and an end to those that were forgotten.

A name is random and known only to whoever opened the reading; one that nobody feeds for a while is let go of, and so is
one whose owner leaves while it waits for a word on it: it will not come back.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

from aligner_proxy.engine.protocol import AlignRequest, Engine, Reading, Span
from aligner_proxy.errors import ReadingLost
from aligner_proxy.types import Correction, SegmentScore

IDLE_S = 120.0
"""An upstream that has been silent for so long has gone; a gateway ends its readings itself."""


@dataclass(slots=True)
class _Open:
    reading: Reading
    touched: float


class Readings:
    """The readings of one engine, by name."""

    def __init__(self, engine: Engine, idle_s: float = IDLE_S) -> None:
        self._engine, self._idle_s = engine, idle_s
        self._open: dict[str, _Open] = {}
        self._looking: asyncio.Task[None] | None = None

    async def open(self, request: AlignRequest) -> str:
        """Begin one; its name."""
        await self._sweep()
        reading = await self._engine.read(request)
        name = secrets.token_urlsafe(16)
        self._open[name] = _Open(reading, time.monotonic())
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return name

    async def feed(self, name: str, text: str, *, ended: bool = False) -> tuple[SegmentScore, ...]:
        """More of an answer; the verdicts so far. Raises `ReadingLost` for a name that is not known."""
        reading = self._touched(name)
        told = await reading.feed(text)
        if ended:
            await reading.end()
        return told

    async def judged(self, name: str, known: int) -> tuple[SegmentScore, ...] | None:
        """The verdicts, when there are more than `known`."""
        reading = self._touched(name)
        try:
            return await reading.judged(known)
        except asyncio.CancelledError:
            await self.close(name)
            raise

    async def replace(self, name: str, span: Span) -> Correction:
        """What stands in place of a flagged stretch."""
        reading = self._touched(name)
        try:
            return await reading.replace(span)
        except asyncio.CancelledError:
            await self.close(name)
            raise

    async def finish(self, name: str, request: AlignRequest) -> Correction:
        """The end of an answer: its correction."""
        found = self._find(name)
        self._take(name)
        return await found.reading.finish(request)

    async def close(self, name: str) -> None:
        """Let go of one; an unknown one is let go of already."""
        found = self._take(name)
        if found is not None:
            await found.reading.aclose()

    async def aclose(self) -> None:
        """Let go of all."""
        await asyncio.gather(*(self.close(name) for name in list(self._open)))

    def _touched(self, name: str) -> Reading:
        found = self._find(name)
        found.touched = time.monotonic()
        return found.reading

    def _find(self, name: str) -> _Open:
        found = self._open.get(name)
        if found is None:
            raise ReadingLost("no such reading; it was ended, or forgotten for too long")
        return found

    def _take(self, name: str) -> _Open | None:
        found = self._open.pop(name, None)
        if not self._open and self._looking is not None and self._looking is not asyncio.current_task():
            self._looking.cancel()
        return found

    async def _look(self) -> None:
        """Sweep now and then: who opens no more would never let go of what its owner left behind."""
        while self._open:
            await asyncio.sleep(self._idle_s / 2)
            await self._sweep()

    async def _sweep(self) -> None:
        oldest = time.monotonic() - self._idle_s
        for name in [name for name, found in self._open.items() if found.touched < oldest]:
            await self.close(name)
