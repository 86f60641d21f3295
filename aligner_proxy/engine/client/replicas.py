"""Several engines as one: a request goes to the least loaded healthy replica, and to another if that fails.

A correction has no side effects, so a lost request may be sent to another replica. A replica that cannot be reached, or
has several consecutive failures, gets no requests during a growing pause. Afterwards it is tried with one request at a
time. If all replicas are unhealthy, all are tried, because a bad replica is better than none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine.api import (
    MIN_DEADLINE_S,
    AlignerInfo,
    AlignRequest,
    Engine,
    ForwardingSession,
    RowsRequest,
    RowsResponse,
    Session,
    Span,
    StatesRequest,
    TokenLabels,
    TokenLabelsRequest,
    require_judges,
    require_teachable,
    text_states,
)
from aligner_proxy.engine.client.circuit_breaker import Circuit, State
from aligner_proxy.engine.client.retry import NotReady, retry
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    HeadRefused,
    HeadsUnavailable,
    QuotaSpent,
    SessionLost,
    StatesUnavailable,
    UnknownAligner,
    UnknownHead,
    UnknownJudge,
)
from aligner_proxy.types import Correction, SegmentScore

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_Errors = tuple[type[CorrectionError], ...]

LONGEST_PAUSE_S = 30.0
"""Longest pause of an unhealthy replica; longer than in the circuit breaker, because others answer meanwhile."""
_INFO_S = 1.0
"""Seconds for a description, all replicas together; any engine has its description at once."""
_LATE_INFO_S = 3.0
"""Seconds for a second try after all were late: on a busy machine everything is, and requests have more time."""
_REFUSALS = (
    AnswerTooLong,
    StatesUnavailable,
    HeadsUnavailable,
    HeadRefused,
    UnknownHead,
    EngineOverloaded,
    QuotaSpent,
    SessionLost,
    UnknownAligner,
    UnknownJudge,
)
"""Errors that do not count as failures, because an engine that refuses a request works."""


@dataclass(slots=True, eq=False)
class Replica:
    """One engine of several, its load and its health. `name` is shown to operators."""

    name: str
    engine: Engine
    busy: int = 0
    """Requests and sessions that it has now."""
    circuit: Circuit = field(default_factory=lambda: Circuit(LONGEST_PAUSE_S))
    aligner: str = ""
    """Content hash of the aligner that it served last; empty before its first answer."""

    @property
    def healthy(self) -> bool:
        """Whether its circuit is closed, so that it gets requests."""
        return self.circuit.state is State.CLOSED

    def is_due(self, now: float) -> bool:
        """Whether its pause is over and no request is trying it yet."""
        return not self.busy and self.circuit.wants_probe(now)

    def rank(self, now: float) -> tuple[int, int]:
        """Sort key of the choice: replicas due for a try first (else they never would be), then healthy, then others.

        Within each group, the least busy replica comes first.
        """
        if self.is_due(now):
            return 0, self.busy
        if self.healthy:
            return 1, self.busy
        return 2, self.busy

    def note_end(self, now: float, *, alive: bool | None, failure: CorrectionError | None, probing: bool) -> None:
        """Record the end of a request and log changes of health; `alive` is None if it was abandoned and shows nothing.

        A replica that cannot be reached becomes unhealthy at once, after other failures only if they repeat. `probing`
        says whether the request was the one that tries an unhealthy replica.
        """
        was_healthy = self.healthy
        if probing:
            self.circuit.end_probe(alive=alive, now=now)
        elif alive:
            self.circuit.note_answer()
        elif failure is not None:
            self.circuit.note_failure(now, unavailable=isinstance(failure, EngineUnavailable))
        if self.healthy and not was_healthy:
            log.warning("engine %s works again", self.name)
        # each failed try is logged, but not the requests that fail in between
        elif failure is not None and not self.healthy and (was_healthy or probing):
            log.warning("engine %s unhealthy (%s), next try in %g s", self.name, failure.reason, self.circuit.pause_s)


class Replicas:
    """Several engines as one engine. They should serve the same aligner; if they do not, that is logged once."""

    def __init__(
        self,
        engines: Sequence[tuple[str, Engine]],
        *,
        wait_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replicas = [Replica(name, engine) for name, engine in engines]
        self._wait_s = wait_s  # how long a request may wait for any of them
        self._clock = clock
        self._turn = 0  # choices so far; where the next one starts among equals

    async def info(self) -> AlignerInfo:
        """The description from the first replica that answers; each gets only a part of the time.

        If all are late, as on a busy machine, they are asked once more, with more time.
        """

        async def ask(replica: Replica, left_s: float) -> AlignerInfo:
            async with enforce_deadline(left_s):
                about = await replica.engine.info()
            self._note_aligner(replica, about.content_hash)
            return about

        try:
            return await self._try_replicas(ask, max(self._wait_s, _INFO_S), divided=True)
        except DeadlineExceeded:
            return await self._try_replicas(ask, max(self._wait_s, _LATE_INFO_S), divided=True)

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer on the least loaded replica, or on another if that fails, within `request.deadline_s`."""

        async def ask(replica: Replica, left_s: float) -> Correction:
            correction = await replica.engine.align(request.with_deadline(left_s))
            self._note_aligner(replica, correction.aligner)
            return correction

        return await self._try_replicas(ask, request.deadline_s)

    async def states(self, request: StatesRequest) -> list[list[float]]:
        return await self._try_replicas(
            lambda replica, left_s: text_states(replica.engine, request.with_deadline(left_s)),
            request.deadline_s,
        )

    async def put_head(self, data: bytes) -> str:
        """Upload a taught head to all replicas; raises the first error if none of them accepts it."""
        uploads = (self._put_in_replica(replica, data) for replica in self.replicas)
        results = await asyncio.gather(*uploads, return_exceptions=True)
        for result in results:
            if isinstance(result, str):
                return result
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure
        raise EngineUnavailable("there are no engines")

    async def rows(self, request: RowsRequest) -> RowsResponse:
        return await self._try_replicas(
            lambda replica, left_s: require_teachable(replica.engine).rows(request.with_deadline(left_s)),
            request.deadline_s,
        )

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        """Return what a classifier says of an answer; its failures do not count against the health of a replica."""

        async def ask(replica: Replica, left_s: float) -> TokenLabels:
            return await require_judges(replica.engine).label_tokens(request.with_deadline(left_s))

        # a classifier that fails or is slow says nothing about the aligner beside it
        return await self._try_replicas(ask, request.deadline_s, excused=(DeadlineExceeded, EngineFault))

    async def _put_in_replica(self, replica: Replica, data: bytes) -> str:
        """Upload a taught head to one replica and return its content hash."""
        async with self.use_replica(replica):
            return await require_teachable(replica.engine).put_head(data)

    async def read(self, request: AlignRequest) -> Session:
        """Let one replica read an answer while it is being written; the session stays with that replica."""
        order = self._order_replicas()
        # not one that is due for a try, because the session could not move to another replica
        replica = next((candidate for candidate in order if candidate.healthy), order[0])
        return ReplicaSession(self, replica, await replica.engine.read(request))

    async def aclose(self) -> None:
        """Close all engines, and raise the first error."""
        results = await asyncio.gather(*(replica.engine.aclose() for replica in self.replicas), return_exceptions=True)
        for failure in results:
            if isinstance(failure, BaseException):
                raise failure

    @contextlib.asynccontextmanager
    async def use_replica(self, replica: Replica, excused: _Errors = ()) -> AsyncIterator[None]:
        """Context of one request on a replica: counts its load, and records in its health how the request ended.

        Errors that are `excused` leave no trace in its health.
        """
        probing = replica.is_due(self._clock())
        if probing:
            replica.circuit.begin_probe()
        replica.busy += 1
        alive: bool | None = None  # it stays None if the request is abandoned
        failure: CorrectionError | None = None
        try:
            yield
            alive = True
        except _REFUSALS:
            alive = True
            raise
        except excused:
            raise
        except CorrectionError as error:
            alive = False
            failure = error
            raise
        finally:
            replica.busy -= 1
            replica.note_end(self._clock(), alive=alive, failure=failure, probing=probing)

    async def _try_replicas(
        self,
        ask: Callable[[Replica, float], Awaitable[_T]],
        deadline_s: float,
        *,
        divided: bool = False,
        excused: _Errors = (),
    ) -> _T:
        """Return the first success of `ask`, which is given a replica and the seconds that it may take.

        While all replicas are away or full and time is left, all are tried again. With `divided` each replica gets only
        a part of the time, for requests that any engine can answer at once. Errors that are `excused` do not count
        against the health of a replica.
        """
        ask_once = partial(self._ask_in_turn, ask, divided=divided, excused=excused)
        return await retry(ask_once, deadline_s, self._wait_s)

    async def _ask_in_turn(
        self, ask: Callable[[Replica, float], Awaitable[_T]], left_s: float, *, divided: bool, excused: _Errors
    ) -> _T:
        """Ask the replicas in turn and return the first result.

        If none succeeds, raises `NotReady` if none was reached, else the most telling error.

        With `divided`, a replica gets only half of the time that is left as long as others follow it.
        """
        deadline = self._clock() + left_s
        worst_error = CorrectionError("no engine was asked")
        order = self._order_replicas()
        for replica in order:
            left_s = deadline - self._clock()
            is_last = replica is order[-1]
            # A replica that is tried after a pause may hang, so it gets only half of the time.
            gets_half = replica.is_due(self._clock()) or (divided and not is_last)
            granted_s = left_s / 2 if gets_half else left_s
            try:
                async with self.use_replica(replica, excused):
                    return await ask(replica, max(MIN_DEADLINE_S, granted_s))
            except (AnswerTooLong, QuotaSpent):
                raise  # the other replicas would refuse it, too
            except DeadlineExceeded as error:
                if not gets_half:
                    raise  # no time is left for another replica
                worst_error = _choose_graver(worst_error, error)
            except CorrectionError as error:
                worst_error = _choose_graver(worst_error, error)
        if isinstance(worst_error, EngineUnavailable):
            raise NotReady(f"none of {len(self.replicas)} engines answers")
        raise worst_error

    def _order_replicas(self) -> list[Replica]:
        """All replicas in the order in which to try them; equally ranked ones take turns."""
        now = self._clock()
        start = self._turn % len(self.replicas)
        self._turn += 1
        return sorted(self.replicas[start:] + self.replicas[:start], key=lambda replica: replica.rank(now))

    def _note_aligner(self, replica: Replica, aligner: str) -> None:
        """Record a replica's aligner, and log once if replicas differ; their corrections are then cached separately."""
        previous = replica.aligner
        replica.aligner = aligner or previous
        others = {other.aligner for other in self.replicas if other.aligner} - {replica.aligner}
        if replica.aligner != previous and others:
            log.warning(
                "engine %s serves aligner %s, but another engine serves %s; use the same aligner on all engines",
                replica.name,
                aligner[:12],
                min(others)[:12],
            )


class ReplicaSession(ForwardingSession):
    """A session on one replica; if that fails, the whole answer is corrected on another one."""

    def __init__(self, replicas: Replicas, replica: Replica, session: Session) -> None:
        super().__init__(session)
        self._replicas = replicas
        self._replica = replica
        replica.busy += 1  # a session is load on its replica between its requests, too
        self._is_counted = True  # whether this session is part of `replica.busy`

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        async with self._replicas.use_replica(self._replica):
            return await super().wait_for_verdicts(known_count)

    async def replace(self, span: Span) -> Correction:
        async with self._replicas.use_replica(self._replica):
            return await super().replace(span)

    async def finish(self, request: AlignRequest) -> Correction:
        """Correct the whole answer on the replica that has read it, or on any other if that fails."""
        deadline_at = time.monotonic() + request.deadline_s
        self._stop_counting()  # from here on, `use_replica` counts it
        try:
            async with self._replicas.use_replica(self._replica):
                return await super().finish(request)
        except (AnswerTooLong, DeadlineExceeded, QuotaSpent):
            raise  # another replica could not do better
        except CorrectionError:
            return await self._replicas.align(request.with_deadline(deadline_at - time.monotonic()))

    async def aclose(self) -> None:
        """Give up the session and stop counting it as load."""
        self._stop_counting()
        await super().aclose()

    def _stop_counting(self) -> None:
        """Stop counting the session as load of its replica; only the first call does anything."""
        if self._is_counted:
            self._replica.busy -= 1
            self._is_counted = False


def _choose_graver(previous: CorrectionError, error: CorrectionError) -> CorrectionError:
    """The error to report if all replicas fail: a full engine or a fault says more than an unreachable engine."""
    if type(previous) is CorrectionError:  # the error before any replica was asked
        return error
    return previous if isinstance(error, EngineUnavailable) else error
