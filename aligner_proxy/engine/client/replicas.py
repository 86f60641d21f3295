"""Several engines ("replicas") as one: a request goes to the least busy healthy replica, or to another if that fails.

A correction has no side effects, so a lost request may be sent to another replica. A replica that cannot be reached, or
has several consecutive failures, is unhealthy and gets no requests during a growing pause. Afterwards it is tried with
one request at a time. If all replicas are unhealthy, all are tried, because one of them may still answer.
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
"""Longest pause of an unhealthy replica; longer than in the circuit breaker, as other replicas answer meanwhile."""
_INFO_S = 1.0
"""Seconds for a description from any replica; an engine needs no model for it."""
_LATE_INFO_S = 3.0
"""Seconds for a second try, if all replicas were late: on a busy machine every answer is late."""
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
        """Whether its circuit is closed: it gets requests without being tried first."""
        return self.circuit.state is State.CLOSED

    def is_due(self, now: float) -> bool:
        """Whether its pause is over and no request is trying it yet."""
        return not self.busy and self.circuit.wants_probe(now)

    def rank(self, now: float) -> tuple[int, int]:
        """Sort key by which a replica is chosen: (group, running requests), lowest first.

        Group 0 are unhealthy replicas that are due for a try, which would never be tried otherwise. Group 1 are healthy
        replicas, and group 2 are the rest.
        """
        if self.is_due(now):
            return 0, self.busy
        if self.healthy:
            return 1, self.busy
        return 2, self.busy

    def note_end(self, now: float, *, alive: bool | None, failure: CorrectionError | None, probing: bool) -> None:
        """Record the end of a request, and log changes of health.

        `alive` says whether the request showed a working replica; None if it was abandoned or its error is excused.
        `failure` is its error if that counts. `probing` says whether the request tried an unhealthy replica. A replica
        that cannot be reached becomes unhealthy at once; after other failures, only if they repeat.
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
        # each failed try is logged, but not the failed requests between two tries
        elif failure is not None and not self.healthy and (was_healthy or probing):
            log.warning("engine %s unhealthy (%s), next try in %g s", self.name, failure.reason, self.circuit.pause_s)


class Replicas:
    """Several engines as one engine; `engines` has each with its name for operators. They should serve the same
    aligner; a warning is logged if they do not."""

    def __init__(
        self, engines: Sequence[tuple[str, Engine]], *, wait_s: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.replicas = [Replica(name, engine) for name, engine in engines]
        self._wait_s = wait_s  # how long a request may wait until a replica begins it
        self._clock = clock
        self._order_count = 0  # calls of `_order_replicas` so far

    async def info(self) -> AlignerInfo:
        """The description from the first replica that answers; each gets only a part of the time.

        If all are late, as on a busy machine, they are asked once more, with more time.
        """

        async def ask_replica(replica: Replica, seconds: float) -> AlignerInfo:
            async with enforce_deadline(seconds):
                info = await replica.engine.info()
            self._note_aligner(replica, info.content_hash)
            return info

        try:
            return await self._try_replicas(ask_replica, max(self._wait_s, _INFO_S), divided=True)
        except DeadlineExceeded:
            return await self._try_replicas(ask_replica, max(self._wait_s, _LATE_INFO_S), divided=True)

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer on the least busy replica, or on another if that fails, within `request.deadline_s`."""

        async def ask_replica(replica: Replica, seconds: float) -> Correction:
            correction = await replica.engine.align(request.with_deadline(seconds))
            self._note_aligner(replica, correction.aligner)
            return correction

        return await self._try_replicas(ask_replica, request.deadline_s)

    async def states(self, request: StatesRequest) -> list[list[float]]:
        return await self._try_replicas(
            lambda replica, seconds: text_states(replica.engine, request.with_deadline(seconds)), request.deadline_s
        )

    async def put_head(self, data: bytes) -> str:
        """Upload a taught head to all replicas; raises the first error if none of them accepts it."""
        uploads = (self._put_in_replica(replica, data) for replica in self.replicas)
        results = await asyncio.gather(*uploads, return_exceptions=True)
        hashes = [result for result in results if isinstance(result, str)]
        failures = [result for result in results if isinstance(result, BaseException)]
        if not hashes:
            raise failures[0]
        return hashes[0]

    async def rows(self, request: RowsRequest) -> RowsResponse:
        return await self._try_replicas(
            lambda replica, seconds: require_teachable(replica.engine).rows(request.with_deadline(seconds)),
            request.deadline_s,
        )

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        """Return what a token classifier says of an answer."""

        async def ask_replica(replica: Replica, seconds: float) -> TokenLabels:
            return await require_judges(replica.engine).label_tokens(request.with_deadline(seconds))

        # if a classifier fails or is slow, the aligner on the same engine may still work
        return await self._try_replicas(ask_replica, request.deadline_s, excused=(DeadlineExceeded, EngineFault))

    async def _put_in_replica(self, replica: Replica, data: bytes) -> str:
        """Upload a taught head to one replica and return its content hash."""
        async with self.use_replica(replica):
            return await require_teachable(replica.engine).put_head(data)

    async def read(self, request: AlignRequest) -> Session:
        """Let one replica read an answer while it is being written; the session stays with that replica."""
        order = self._order_replicas()
        # a healthy replica, if there is one, because the session cannot move to another replica
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
        """Return a context manager for one request: counts it as load and records its end in the replica's health.

        Errors that are `excused` do not change the health.
        """
        probing = replica.is_due(self._clock())
        if probing:
            replica.circuit.begin_probe()
        replica.busy += 1
        alive: bool | None = None  # it stays None if the request is abandoned or its error is excused
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
        ask_replica: Callable[[Replica, float], Awaitable[_T]],
        deadline_s: float,
        *,
        divided: bool = False,
        excused: _Errors = (),
    ) -> _T:
        """Return the first result of `ask_replica`, which is called with a replica and the seconds that it may take.

        While all replicas are unreachable or full and time is left, all are tried again. `divided` says whether the
        time is divided among the replicas, for requests that any engine can answer at once. Errors that are `excused`
        do not count against the health of a replica.
        """
        ask_all = partial(self._ask_in_turn, ask_replica, divided=divided, excused=excused)
        return await retry(ask_all, deadline_s, self._wait_s)

    async def _ask_in_turn(
        self, ask_replica: Callable[[Replica, float], Awaitable[_T]], seconds: float, *, divided: bool, excused: _Errors
    ) -> _T:
        """Ask the replicas in turn, within `seconds`, and return the first result.

        With `divided`, each replica but the last gets half of the time that is left. If none succeeds, raises
        `NotReady` if none was reached, else the most telling error.
        """
        deadline = self._clock() + seconds
        gravest_error = CorrectionError("no engine was asked")
        order = self._order_replicas()
        for replica in order:
            left_s = deadline - self._clock()
            is_last = replica is order[-1]
            # a replica that is tried after a pause may hang, so it gets only half of the time
            gets_half = replica.is_due(self._clock()) or (divided and not is_last)
            granted_s = left_s / 2 if gets_half else left_s
            try:
                async with self.use_replica(replica, excused):
                    return await ask_replica(replica, max(MIN_DEADLINE_S, granted_s))
            except (AnswerTooLong, QuotaSpent):
                raise  # the other replicas would refuse the request, too
            except DeadlineExceeded as error:
                if not gets_half:
                    raise  # no time is left for another replica
                gravest_error = _choose_graver(gravest_error, error)
            except CorrectionError as error:
                gravest_error = _choose_graver(gravest_error, error)
        if isinstance(gravest_error, EngineUnavailable):
            raise NotReady(f"none of {len(self.replicas)} engines answers")
        raise gravest_error

    def _order_replicas(self) -> list[Replica]:
        """All replicas in the order in which to try them; replicas of equal rank take turns at being first."""
        now = self._clock()
        start = self._order_count % len(self.replicas)
        self._order_count += 1
        return sorted(self.replicas[start:] + self.replicas[:start], key=lambda replica: replica.rank(now))

    def _note_aligner(self, replica: Replica, aligner: str) -> None:
        """Record the content hash of a replica's aligner; if it has changed and others differ from it, log a warning.

        An empty `aligner` is ignored. Corrections of different aligners are cached separately.
        """
        previous_aligner = replica.aligner
        replica.aligner = aligner or previous_aligner
        other_aligners = {other.aligner for other in self.replicas if other.aligner} - {replica.aligner}
        if replica.aligner != previous_aligner and other_aligners:
            log.warning(
                "engine %s serves aligner %s, but another engine serves %s; use the same aligner on all engines",
                replica.name,
                aligner[:12],
                min(other_aligners)[:12],
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
        self._stop_counting()  # from here on, `use_replica` counts the session
        try:
            async with self._replicas.use_replica(self._replica):
                return await super().finish(request)
        except (AnswerTooLong, DeadlineExceeded, QuotaSpent):
            raise  # another replica would fail, too
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
    """The error to report if all replicas fail: any other error says more than `EngineUnavailable`."""
    if type(previous) is CorrectionError:  # no replica has failed before
        return error
    return previous if isinstance(error, EngineUnavailable) else error
