"""Does the engine answer at all? A circuit breaker in front of any engine, so that a dead one costs nobody a deadline.

Closed: requests pass. When `THRESHOLD` of them in a row found nobody (or nonsense), it opens: requests fail at once,
and after a growing pause the next one asks a small question first, alone (half-open). When as many ran out of time,
which a slow engine does as well as a hung one, that question is asked before anybody is turned away. Any answer is a
sign of life, also a refusal. Of our own, because the libraries for this let every request through while half-open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from aligner_proxy.engine.protocol import (
    AlignerInfo,
    AlignRequest,
    Engine,
    Reading,
    Span,
    Unread,
    WeighRequest,
    weigh,
)
from aligner_proxy.errors import BreakerOpen, CorrectionError, DeadlineExceeded, EngineUnavailable, InvalidOutput
from aligner_proxy.types import Correction, SegmentScore, Turn

log = logging.getLogger(__name__)

THRESHOLD = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
_SOON_S = 0.05
_SLOW_INFO_S = 0.25
"""A description that takes longer is late: it needs no model."""
PROBE = AlignRequest(
    request_id="probe",
    turns=(Turn("user", "Hello."),),
    answer="Hello.",
    objectives=("Greeting: the response should be a greeting",),
    caution=50.0,  # nothing is worth an edit here
    deadline_s=2.0,
)
"""What is asked to find out whether the engine works: a whole correction, because a hung model still answers /ready."""


class State(StrEnum):
    """What becomes of a request now."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


_T = TypeVar("_T")
Listener = Callable[[State], None]
Ask = Callable[[AlignRequest], Awaitable[Correction]]


@dataclass(slots=True)
class Circuit:
    """The state machine alone, without engine and clock: `now` is any clock that never goes back."""

    state: State = State.CLOSED
    lost: int = 0
    """Requests in a row that found nobody, or nonsense."""
    late: int = 0
    """Requests in a row that ran out of time."""
    pause_s: float = FIRST_PAUSE_S
    until: float = 0.0
    probing: bool = False

    def wants_probe(self, now: float) -> bool:
        """Whether the next request has to ask the small question first; only one may at a time."""
        if self.probing:
            return False
        return now >= self.until if self.state is State.OPEN else self.late >= THRESHOLD

    def begin_probe(self) -> None:
        """A request has taken the small question upon itself; one that only ran late turns nobody away meanwhile."""
        self.probing = True
        if self.state is State.OPEN:
            self.state = State.HALF_OPEN

    def end_probe(self, *, alive: bool | None, now: float) -> None:
        """What the small question found; None: it was not answered because its asker left."""
        self.probing = False
        if alive:
            self.alive()
        elif alive is False:
            self._open(now)
        elif self.state is State.HALF_OPEN:
            self.state = State.OPEN  # its pause is over, so the next request asks

    def alive(self) -> None:
        """The engine said something sensible."""
        self.lost = self.late = 0
        if self.state is not State.CLOSED:
            self.state, self.pause_s = State.CLOSED, FIRST_PAUSE_S

    def failed(self, now: float, *, late: bool) -> None:
        """A request found nobody or nonsense, or ran out of time."""
        if late:
            self.late += 1
            return
        self.lost += 1
        if self.state is State.CLOSED and self.lost >= THRESHOLD:
            self._open(now)

    def _open(self, now: float) -> None:
        again = self.state is not State.CLOSED
        self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S) if again else FIRST_PAUSE_S
        self.state, self.until = State.OPEN, now + self.pause_s


class Breaker:
    """Satisfies `Engine`. `changed` is told every new state of the circuit."""

    def __init__(
        self, engine: Engine, changed: Listener = lambda _: None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine, self._changed, self._clock = engine, changed, clock
        self.circuit = Circuit()
        self._probing: asyncio.Task[bool] | None = None
        self._told = self.circuit.state
        changed(self._told)

    async def info(self) -> AlignerInfo:
        """The engine's description; raises `BreakerOpen` while the engine is left alone.

        It is no sign of life: it may be remembered, and a hung model does not keep an engine from describing itself.
        """
        await self._passed()
        began = self._clock()
        try:
            with self._noting():
                return await self._engine.info()
        except asyncio.CancelledError:
            # Nobody knows here whether a client left or a deadline passed; to suspect wrongly costs one small question.
            if self._clock() - began >= _SLOW_INFO_S:
                self.circuit.failed(self._clock(), late=True)
            raise

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, unless the engine is left alone. A request that probes has less time afterwards."""
        return await self.asked(self._engine.align, request)

    async def read(self, request: AlignRequest) -> Reading:
        """Read ahead, where the engine is not in doubt: reading ahead asks no question and turns nobody away."""
        if self.circuit.state is not State.CLOSED or self.circuit.late >= THRESHOLD:
            return Unread(self)
        return _Guarded(self, await self._engine.read(request))

    async def weigh(self, request: WeighRequest) -> tuple[float, ...]:
        """Weigh, where the engine is not in doubt: without weights a request goes on, so it asks no question."""
        if self.circuit.state is not State.CLOSED or self.circuit.late >= THRESHOLD:
            raise BreakerOpen("the engine did not answer lately", self.circuit.pause_s)
        return await self.noted(weigh(self._engine, request))

    async def asked(self, ask: Ask, request: AlignRequest) -> Correction:
        """Ask for one correction, unless the engine is left alone."""
        before = self._clock()
        await self._passed()
        left = max(0.001, request.deadline_s - (self._clock() - before))
        with self._noting():
            correction = await ask(request.model_copy(update={"deadline_s": left}))
        self.circuit.alive()
        self._tell()
        return correction

    async def noted(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Wait for an engine that is asked already; the circuit sees what comes of it."""
        with self._noting():
            told = await call
        self.circuit.alive()
        self._tell()
        return told

    async def aclose(self) -> None:
        """Close the engine's client."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self._engine.aclose()

    async def _passed(self) -> None:
        """Return when a request may go on; raises `BreakerOpen` at once when it may not."""
        now = self._clock()
        if self.circuit.wants_probe(now):
            self.circuit.begin_probe()
            self._tell()
            # A task of its own: a request whose deadline is shorter than the question would never hear the answer.
            self._probing = asyncio.create_task(self._answers())
            self._probing.add_done_callback(self._answered)
            if not await asyncio.shield(self._probing):
                raise BreakerOpen("the engine still does not answer", self.circuit.pause_s)
        elif self.circuit.state is not State.CLOSED:
            raise BreakerOpen("the engine did not answer lately", max(_SOON_S, self.circuit.until - now))

    async def _answers(self) -> bool:
        """Ask the small question: is anybody there?"""
        try:
            async with asyncio.timeout(PROBE.deadline_s):
                await self._engine.align(PROBE)
        except (EngineUnavailable, InvalidOutput, DeadlineExceeded, TimeoutError):
            return False
        except CorrectionError:
            return True  # it is full, or has a fault with this text: somebody is there
        return True

    def _answered(self, probing: asyncio.Task[bool]) -> None:
        """The question has its answer, whether or not its asker is still there to hear it."""
        unknown = probing.cancelled() or probing.exception() is not None
        self.circuit.end_probe(alive=None if unknown else probing.result(), now=self._clock())
        self._tell()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Let the circuit see what a call raises."""
        try:
            yield
        except (EngineUnavailable, InvalidOutput, DeadlineExceeded) as error:
            self.circuit.failed(self._clock(), late=isinstance(error, DeadlineExceeded))
            self._tell()
            raise
        except CorrectionError:
            self.circuit.alive()
            self._tell()
            raise

    def _tell(self) -> None:
        if self.circuit.state is not self._told:
            self._told = self.circuit.state
            log.warning("circuit breaker of the engine: %s", self._told.name)
            self._changed(self._told)


class _Guarded:
    """Satisfies `Reading`. Only what somebody waits for counts: the rest is sent again with the whole answer."""

    def __init__(self, breaker: Breaker, reading: Reading) -> None:
        self._breaker, self._reading = breaker, reading

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer."""
        return await self._reading.feed(text)

    async def end(self) -> None:
        """There is no more."""
        await self._reading.end()

    async def judged(self, known: int) -> tuple[SegmentScore, ...] | None:
        """Its verdicts; somebody waits for them, so what goes wrong counts."""
        return await self._breaker.noted(self._reading.judged(known))

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch."""
        return await self._breaker.noted(self._reading.replace(span))

    async def finish(self, request: AlignRequest) -> Correction:
        """Its correction, unless the engine is left alone by now."""
        return await self._breaker.asked(self._reading.finish, request)

    async def aclose(self) -> None:
        """Let go of what was not finished."""
        await self._reading.aclose()
