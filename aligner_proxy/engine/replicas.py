"""Which of several engines gets a request? The least loaded one that has not failed lately; another one if that fails.

A correction changes nothing anywhere, so one that was lost on its way may be asked for again elsewhere. A replica that
cannot be reached, or keeps failing where others do not, rests for a growing pause, and then proves itself with one
request at a time. When all rest, all are tried: a bad replica is better than none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aligner_proxy.engine.patience import NotYet, patiently
from aligner_proxy.engine.protocol import AlignerInfo, AlignRequest, Engine, Reading, Span, WeighRequest, weigh
from aligner_proxy.errors import (
    AnswerTooLong,
    CannotWeigh,
    CorrectionError,
    DeadlineExceeded,
    EngineOverloaded,
    EngineUnavailable,
    QuotaSpent,
    ReadingLost,
    UnknownAligner,
)
from aligner_proxy.types import Correction, SegmentScore

log = logging.getLogger(__name__)
_T = TypeVar("_T")

FAULTS = 3
"""So many failures in a row, other than not being there at all, make a replica an outlier."""
_LEAST_S = 0.001
FIRST_REST_S, LONGEST_REST_S = 0.5, 30.0


@dataclass(slots=True, eq=False)
class Replica:
    """One engine, and how it has been lately. `name` is shown to operators."""

    name: str
    engine: Engine
    busy: int = 0
    faults: int = 0
    rest_s: float = 0.0
    """The last pause; zero: it has none behind it that it has not made good since."""
    until: float = 0.0
    aligner: str = ""

    def rank(self, now: float) -> tuple[int, int]:
        """Who comes first: one that has to prove itself (or nobody would ask it again), the good, the resting."""
        return (0 if self.proves(now) else 2 if self.rest_s else 1), self.busy

    def proves(self, now: float) -> bool:
        """Whether its pause is over and nobody tries it yet."""
        return bool(self.rest_s) and now >= self.until and not self.busy

    def good(self) -> None:
        """It did what it was asked."""
        if self.rest_s:
            log.warning("engine %s works again", self.name)
        self.faults, self.rest_s = 0, 0.0

    def failed(self, error: CorrectionError, now: float) -> None:
        """It did not; one that was not there rests at once, one that may have had bad luck after some more."""
        self.faults += 1
        if isinstance(error, EngineUnavailable) or self.faults >= FAULTS or self.rest_s:
            self.rest_s = min(self.rest_s * 2, LONGEST_REST_S) or FIRST_REST_S
            self.until = now + self.rest_s
            log.warning("engine %s rests for %g s (%s)", self.name, self.rest_s, error.reason)


class Replicas:
    """Satisfies `Engine`. The engines should serve the same aligner; where they do not, it is said once in the log."""

    def __init__(
        self,
        engines: Sequence[tuple[str, Engine]],
        *,
        patience_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.replicas = [Replica(name, engine) for name, engine in engines]
        self._patience_s, self._clock = patience_s, clock
        self._turn = 0

    async def info(self) -> AlignerInfo:
        """The description of the first that gives one."""

        async def ask(replica: Replica, _: float) -> AlignerInfo:
            about = await replica.engine.info()
            self._same(replica, about.content_hash)
            return about

        return await self._anywhere(ask, max(self._patience_s, 1.0))

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer on the least loaded replica, elsewhere if that fails, within `request.deadline_s`."""

        async def ask(replica: Replica, left: float) -> Correction:
            correction = await replica.engine.align(request.model_copy(update={"deadline_s": left}))
            self._same(replica, correction.aligner)
            return correction

        return await self._anywhere(ask, request.deadline_s)

    async def weigh(self, request: WeighRequest) -> tuple[float, ...]:
        """Weigh objectives on the least loaded replica, elsewhere if that cannot."""
        return await self._anywhere(
            lambda replica, left: weigh(replica.engine, request.model_copy(update={"deadline_s": left})),
            request.deadline_s,
        )

    async def read(self, request: AlignRequest) -> Reading:
        """Let one replica read along; it stays with that one."""
        order = self._order()
        replica = next((r for r in order if not r.rest_s), order[0])
        return ReplicaReading(self, replica, await replica.engine.read(request))

    async def aclose(self) -> None:
        """Close them all."""
        done = await asyncio.gather(*(replica.engine.aclose() for replica in self.replicas), return_exceptions=True)
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure

    @contextlib.asynccontextmanager
    async def using(self, replica: Replica) -> AsyncIterator[None]:
        """One request on one replica: its load, and what becomes of it."""
        replica.busy += 1
        try:
            yield
        except (AnswerTooLong, CannotWeigh, EngineOverloaded, QuotaSpent, ReadingLost, UnknownAligner):
            replica.good()  # somebody is there, and answers sensibly
            raise
        except CorrectionError as error:
            replica.failed(error, self._clock())
            raise
        else:
            replica.good()
        finally:
            replica.busy -= 1

    async def _anywhere(self, ask: Callable[[Replica, float], Awaitable[_T]], deadline_s: float) -> _T:
        """The first good word; round after round while all are away or full, as long as patience lasts."""
        return await patiently(lambda left: self._round(ask, left), deadline_s, self._patience_s)

    async def _round(self, ask: Callable[[Replica, float], Awaitable[_T]], left: float) -> _T:
        until, last = self._clock() + left, CorrectionError("no engine was asked")
        for replica in self._order():
            left = until - self._clock()
            # One that proves itself and hangs leaves the others time to answer.
            share = left / 2 if replica.proves(self._clock()) else left
            try:
                async with self.using(replica):
                    return await ask(replica, max(_LEAST_S, share))
            except (AnswerTooLong, QuotaSpent):
                raise
            except DeadlineExceeded as error:
                if share == left:
                    raise
                last = _graver(last, error)
            except CorrectionError as error:
                last = _graver(last, error)
        raise NotYet(f"none of {len(self.replicas)} engines answers") if isinstance(last, EngineUnavailable) else last

    def _order(self) -> list[Replica]:
        """All of them, the one to be asked first first. Equals take turns."""
        now, start = self._clock(), self._turn % len(self.replicas)
        self._turn += 1
        return sorted(self.replicas[start:] + self.replicas[:start], key=lambda replica: replica.rank(now))

    def _same(self, replica: Replica, aligner: str) -> None:
        """Say once where replicas differ: corrections of one are not remembered as those of another."""
        known, replica.aligner = replica.aligner, aligner or replica.aligner
        others = {r.aligner for r in self.replicas if r.aligner} - {replica.aligner}
        if replica.aligner != known and others:
            log.warning("engine %s serves aligner %s, another one %s", replica.name, aligner[:12], min(others)[:12])


class ReplicaReading:
    """Satisfies `Reading`: on one replica as long as that is well, else the whole answer elsewhere."""

    def __init__(self, replicas: Replicas, replica: Replica, reading: Reading) -> None:
        self._replicas, self._replica, self._reading = replicas, replica, reading
        replica.busy += 1
        self._counted = True

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer; the verdicts that are there."""
        return await self._reading.feed(text)

    async def end(self) -> None:
        """There is no more."""
        await self._reading.end()

    async def judged(self, known: int) -> tuple[SegmentScore, ...] | None:
        """The verdicts, from whoever reads it: nobody else has read the answer."""
        async with self._replicas.using(self._replica):
            return await self._reading.judged(known)

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch, from the same."""
        async with self._replicas.using(self._replica):
            return await self._reading.replace(span)

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction, from whoever read it if he can."""
        started = time.monotonic()
        self._leave()
        try:
            async with self._replicas.using(self._replica):
                return await self._reading.finish(request)
        except (AnswerTooLong, DeadlineExceeded, QuotaSpent):
            raise
        except CorrectionError:
            left = max(_LEAST_S, request.deadline_s - (time.monotonic() - started))
            return await self._replicas.align(request.model_copy(update={"deadline_s": left}))

    async def aclose(self) -> None:
        """Nobody wants it any more."""
        self._leave()
        await self._reading.aclose()

    def _leave(self) -> None:
        self._replica.busy -= self._counted
        self._counted = False


def _graver(known: CorrectionError, error: CorrectionError) -> CorrectionError:
    """What to report when all failed: a full engine or a fault says more than one that is not there."""
    return known if isinstance(error, EngineUnavailable) and type(known) is not CorrectionError else error
