"""Circuit breaker around an engine, so that requests do not spend their deadline on an engine that does not answer.

While the circuit is closed, requests pass. After `THRESHOLD` consecutive requests that met no engine (or invalid
output), the circuit opens and requests fail at once. After a growing pause, the next request first sends a single probe
(half-open). After `THRESHOLD` consecutive timeouts, a probe is sent before any request is refused, because a slow
engine times out as well as a hung one. Any answer, even a refusal, shows that the engine is alive. We have our own
implementation, because the libraries for this let every request through while half-open."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from aligner_proxy.engine.api import (
    AlignerInfo,
    AlignRequest,
    DeferredSession,
    Engine,
    ForwardingSession,
    RowsRequest,
    RowsResponse,
    Session,
    Span,
    StatesRequest,
    require_teachable,
    text_states,
)
from aligner_proxy.errors import BreakerOpen, CorrectionError, DeadlineExceeded, EngineUnavailable, InvalidOutput
from aligner_proxy.types import Correction, SegmentScore, Turn

log = logging.getLogger(__name__)

THRESHOLD = 3
"""Consecutive failures of one kind after which it is in doubt whether the engine works."""
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
"""Seconds from one probe to the next: the first and the longest pause; each failed probe doubles the pause."""
_RETRY_DURING_PROBE_S = 0.05
"""Seconds after which a refused request may be sent again while a probe is running."""
_SLOW_INFO_S = 0.25
"""Seconds after which a description is late; an engine can describe itself without its model."""
PROBE = AlignRequest(
    request_id="probe",
    turns=(Turn("user", "Hello."),),
    answer="Hello.",
    objectives=("Greeting: the response should be a greeting",),
    score_only=True,
    deadline_s=2.0,
)
"""The probe request. It scores an answer, because an engine with a hung model still answers /ready."""


class State(StrEnum):
    """The states of a circuit."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


_T = TypeVar("_T")
NoteState = Callable[[State], None]
"""Called with the new state of a circuit."""
Ask = Callable[[AlignRequest], Coroutine[Any, Any, Correction]]
"""Sends a request to the engine and returns the correction."""


@dataclass(slots=True)
class Circuit:
    """State machine of an engine's health, independent of engine and clock; `now` is the time of a monotonic clock."""

    longest_pause_s: float = LONGEST_PAUSE_S
    state: State = State.CLOSED
    loss_count: int = 0
    """Consecutive requests that met no engine or got invalid output."""
    timeout_count: int = 0
    """Consecutive requests that timed out."""
    pause_s: float = FIRST_PAUSE_S
    """Length of the current pause, or of the last one."""
    paused_until: float = 0.0
    """End of the pause, while the circuit is open."""
    is_probing: bool = False
    """Whether a probe is running."""

    def wants_probe(self, now: float) -> bool:
        """Whether the next request has to send a probe to the engine first; only one probe runs at a time."""
        if self.is_probing:
            return False
        if self.state is State.OPEN:
            return now >= self.paused_until
        # a closed circuit probes only after timeouts, which leave in doubt whether the engine is slow or dead
        return self.timeout_count >= THRESHOLD

    def begin_probe(self) -> None:
        """Record that a probe begins; an open circuit becomes half-open, a closed one still lets requests pass."""
        self.is_probing = True
        if self.state is State.OPEN:
            self.state = State.HALF_OPEN

    def end_probe(self, *, alive: bool | None, now: float) -> None:
        """Record whether the probe showed a living engine; `alive` is None if the probe ended without a result."""
        self.is_probing = False
        if alive:
            self.note_answer()
        elif alive is False:
            self._open(now)
        elif self.state is State.HALF_OPEN:
            self.state = State.OPEN  # the pause is over, so the next request sends another probe

    def note_answer(self) -> None:
        """Record that the engine answered: reset the counts and close the circuit."""
        self.loss_count = 0
        self.timeout_count = 0
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self.pause_s = FIRST_PAUSE_S

    def note_failure(self, now: float, *, late: bool = False, unavailable: bool = False) -> None:
        """Record a failed request.

        `late` says whether it timed out. If not, it met no engine or got invalid output, and `unavailable` says whether
        this failure alone is enough to open the circuit.
        """
        if late:
            self.timeout_count += 1
            return  # a slow engine times out as well, so a probe decides (`wants_probe`)
        self.loss_count += 1
        if self.state is State.CLOSED and (unavailable or self.loss_count >= THRESHOLD):
            self._open(now)

    def _open(self, now: float) -> None:
        """Open the circuit for the first pause, or after a failed probe for a pause twice as long as the last one."""
        if self.state is State.CLOSED:
            self.pause_s = FIRST_PAUSE_S
        else:
            self.pause_s = min(self.pause_s * 2, self.longest_pause_s)
        self.state = State.OPEN
        self.paused_until = now + self.pause_s


class Breaker:
    """An engine behind a circuit breaker. `note_state` is called with the first and every new state of the circuit."""

    def __init__(
        self, engine: Engine, note_state: NoteState = lambda _: None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._note_state = note_state
        self._clock = clock
        self.circuit = Circuit()
        self._probe_task: asyncio.Task[bool] | None = None  # the latest probe; its result: whether the engine answered
        self._reported_state = self.circuit.state  # the state that `note_state` was called with last
        note_state(self._reported_state)

    async def info(self) -> AlignerInfo:
        """The engine's description; raises `BreakerOpen` while the circuit is open.

        A description does not show that the engine works: it may be cached, and an engine with a hung model still
        describes itself.
        """
        await self._wait_for_circuit()
        start = self._clock()
        try:
            return await self._engine.info()
        except CorrectionError as error:
            self._note_error(error)
            raise
        except asyncio.CancelledError:
            # A client may have left, or a deadline may have passed. A wrong suspicion only costs one probe.
            if self._clock() - start >= _SLOW_INFO_S:
                self.circuit.note_failure(self._clock(), late=True)
            raise

    async def align(self, request: AlignRequest, ask: Ask | None = None) -> Correction:
        """Correct one answer; raises `BreakerOpen` while the circuit is open.

        `ask` corrects it instead of the engine's `align`, for a session that has read the answer. The time for a probe
        is subtracted from the request's deadline.
        """
        ask = ask or self._engine.align
        start = self._clock()
        await self._wait_for_circuit()
        remaining_s = request.deadline_s - (self._clock() - start)
        # not through `watch_call`, which would be one more frame on the way of every correction
        try:
            correction = await ask(request.with_deadline(remaining_s))
        except CorrectionError as error:
            self._note_error(error)
            raise
        self.circuit.note_answer()
        self._report_change()
        return correction

    async def read(self, request: AlignRequest) -> Session:
        """Return a session that reads an answer ahead, or only corrects it at its end if the engine may not work.

        Never sends a probe, because reading ahead is optional.
        """
        if self.circuit.state is not State.CLOSED or self.circuit.timeout_count >= THRESHOLD:
            return DeferredSession(self)
        return _GuardedSession(self, await self._engine.read(request))

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Return hidden states; raises `BreakerOpen` if the engine may not work.

        Never sends a probe, because states are optional.
        """
        if self.circuit.state is not State.CLOSED or self.circuit.timeout_count >= THRESHOLD:
            raise BreakerOpen("the engine did not answer lately", self.circuit.pause_s)
        return await self.watch_call(text_states(self._engine, request))

    async def put_head(self, data: bytes) -> str:
        """Store a taught head in the engine; the circuit records the outcome."""
        return await self.watch_call(require_teachable(self._engine).put_head(data))

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Return rows of segments; the circuit records the outcome."""
        return await self.watch_call(require_teachable(self._engine).rows(request))

    async def watch_call(self, call: Coroutine[Any, Any, _T]) -> _T:
        """Return the result of `call`, and record in the circuit whether the engine answered.

        The call is made in any state of the circuit, even while it is open.
        """
        try:
            result = await call
        except CorrectionError as error:
            self._note_error(error)
            raise
        self.circuit.note_answer()
        self._report_change()
        return result

    async def aclose(self) -> None:
        """Cancel a running probe and close the engine."""
        if self._probe_task is not None:
            self._probe_task.cancel()
            await asyncio.gather(self._probe_task, return_exceptions=True)
        await self._engine.aclose()

    async def _wait_for_circuit(self) -> None:
        """Return when a request may go on, after a probe if one is due; raises `BreakerOpen` if it may not go on."""
        now = self._clock()
        if self.circuit.wants_probe(now):
            self.circuit.begin_probe()
            self._report_change()
            # a separate task, because the probe must go on if the request's deadline passes before it ends
            self._probe_task = asyncio.create_task(self._probe())
            self._probe_task.add_done_callback(self._note_probe_end)
            engine_answers = await asyncio.shield(self._probe_task)
            if not engine_answers:
                raise BreakerOpen("the engine still does not answer", self.circuit.pause_s)
        elif self.circuit.state is not State.CLOSED:
            retry_after_s = max(_RETRY_DURING_PROBE_S, self.circuit.paused_until - now)
            raise BreakerOpen("the engine did not answer lately", retry_after_s)

    async def _probe(self) -> bool:
        """Send the probe; return whether the engine answers in time, even with an error of its own."""
        try:
            async with asyncio.timeout(PROBE.deadline_s):
                await self._engine.align(PROBE)
        except (EngineUnavailable, InvalidOutput, DeadlineExceeded, TimeoutError):
            return False
        except CorrectionError:
            return True  # a full engine, or one that fails on this text, still answers
        return True

    def _note_probe_end(self, probe_task: asyncio.Task[bool]) -> None:
        """Tell the circuit the probe's result, even if the request that started it does not wait any more."""
        has_result = not probe_task.cancelled() and probe_task.exception() is None
        alive = probe_task.result() if has_result else None
        self.circuit.end_probe(alive=alive, now=self._clock())
        self._report_change()

    def _note_error(self, error: CorrectionError) -> None:
        """Record in the circuit how a call failed; an error that a living engine reports is an answer."""
        if isinstance(error, EngineUnavailable | InvalidOutput | DeadlineExceeded):
            self.circuit.note_failure(self._clock(), late=isinstance(error, DeadlineExceeded))
        else:
            self.circuit.note_answer()
        self._report_change()

    def _report_change(self) -> None:
        """Log the circuit's state and pass it to `note_state`, if it has changed."""
        if self.circuit.state is self._reported_state:
            return
        self._reported_state = self.circuit.state
        if self._reported_state is State.OPEN:
            log.warning("circuit breaker open: the engine does not answer, next probe in %g s", self.circuit.pause_s)
        else:
            log.warning("circuit breaker %s", self._reported_state.value.replace("_", "-"))
        self._note_state(self._reported_state)


class _GuardedSession(ForwardingSession):
    """A session behind the breaker. Failures of `feed` do not count, as text can be sent again at the end."""

    def __init__(self, breaker: Breaker, session: Session) -> None:
        super().__init__(session)
        self._breaker = breaker

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        return await self._breaker.watch_call(super().wait_for_verdicts(known_count))

    async def replace(self, span: Span) -> Correction:
        return await self._breaker.watch_call(super().replace(span))

    async def finish(self, request: AlignRequest) -> Correction:
        """Correct the whole answer; raises `BreakerOpen` if the circuit has opened."""
        return await self._breaker.align(request, super().finish)
