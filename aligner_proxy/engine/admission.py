"""Who may use the engine now? Places are shared equally among the tenants that are there, engine time by quota.

It stands in the engine's process, before the engine, because only there the requests of all gateway workers are seen,
and nothing behind it has a bound of its own. A full house first takes places from answers that are only read ahead.
Then it turns away whoever has more than an equal share; who has less gets the place of the latest request of whoever
has most. It knows tenants as digests only and keeps nothing of a request.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from aligner_proxy.engine.phases import refused
from aligner_proxy.engine.protocol import (
    AlignerInfo,
    AlignRequest,
    Local,
    Reading,
    Span,
    Startable,
    WeighRequest,
    weigh,
)
from aligner_proxy.errors import EngineOverloaded, QuotaSpent, ReadingLost, Shed
from aligner_proxy.types import Correction, Quota, SegmentScore

if TYPE_CHECKING:
    from aligner_proxy.engine.complete import Completion, CompletionRequest
    from aligner_proxy.engine.load import Load

_SMOOTHING = 0.2
_SHORTEST_WAIT_S = 0.1
_MINUTE_S = 60.0
_NOBODY = "-"
"""The tenant of whoever does not say for whom it asks."""

_T = TypeVar("_T")


@dataclass(slots=True, eq=False)
class _Guest:
    """Who has a place. `work` ends when the place is free; `shed` is set when it was given to another."""

    tenant: str
    since: float
    reading: Reading | None = None
    """An answer that is only read ahead: nobody waits for it yet."""
    work: asyncio.Future[Any] | None = None
    shed: bool = False
    awaited: bool = False
    """Somebody waits for the verdicts on what is read: its place is as good as any other."""

    def gave_way(self) -> bool:
        """Whether its place was given to another, also while it is being served."""
        return self.shed


@dataclass(slots=True)
class Accounts:
    """Engine time used, by account. What was used is forgotten evenly: within a minute, one minute's quota."""

    clock: Callable[[], float] = time.monotonic
    _used: dict[str, tuple[float, float]] = field(default_factory=dict)

    def spent(self, quota: Quota) -> bool:
        """Whether nothing is left. What is worked on counts when it is done, so a burst may run into debt."""
        return self._used_now(quota) >= quota.seconds

    def charge(self, quota: Quota, seconds: float) -> None:
        """Count what was used."""
        used = self._used_now(quota) + seconds
        self._used[quota.account] = (used, self.clock())

    def _used_now(self, quota: Quota) -> float:
        used, at = self._used.get(quota.account, (0.0, 0.0))
        return max(0.0, used - (self.clock() - at) * quota.seconds / _MINUTE_S)


class Admission:
    """Satisfies `Engine` for a server. `seats` bounds the requests in the house, waiting and worked on."""

    def __init__(self, engine: Startable, *, seats: int = 64, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine, self._seats, self._clock = engine, seats, clock
        self._guests: list[_Guest] = []
        self._accounts = Accounts(clock)
        self._cost_s = self._stay_s = 1.0  # what a correction takes of the engine, and how long it is in the house

    async def start(self) -> AlignerInfo:
        """Load the aligner."""
        return await self._engine.start()

    async def info(self) -> AlignerInfo:
        """The aligner served."""
        return await self._engine.info()

    async def aclose(self) -> None:
        """Close the engine."""
        await self._engine.aclose()

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, if there is a place and time for it."""
        return await self._admitted(request.tenant, request.quota, lambda: self._engine.align(request))

    async def weigh(self, request: WeighRequest) -> tuple[float, ...]:
        """Weigh objectives, if there is a place and time for it."""
        return await self._admitted(request.tenant, request.quota, lambda: weigh(self._engine, request))

    async def read(self, request: AlignRequest) -> Reading:
        """Read ahead, if there is a place that nobody needs more; an answer may lose it any time until it is whole."""
        self._check(request.quota)
        if self._places().total() >= self._seats:
            raise self._overloaded()
        guest = _Guest(request.tenant, self._clock(), await self._engine.read(request))
        self._guests.append(guest)
        return _Placed(self, guest, request.quota)

    async def finish(self, guest: _Guest, request: AlignRequest) -> Correction:
        """An answer that was read ahead is whole: from now on its place is as good as any other."""
        reading, guest.reading, guest.since = guest.reading, None, self._clock()
        if reading is None or guest.gave_way():
            raise ReadingLost("its place was needed")
        try:
            self._check(request.quota)
            return await self._served(guest, request.quota, lambda: reading.finish(request))
        finally:
            self._guests.remove(guest)
            await reading.aclose()

    async def let_go(self, guest: _Guest, quota: Quota | None) -> None:
        """Nobody wants what was read ahead; what it cost is charged."""
        reading, guest.reading = guest.reading, None
        if reading is None or guest.gave_way():
            return
        self._guests.remove(guest)
        self.charge(quota, self._clock() - guest.since, None)
        await reading.aclose()

    async def _admitted(self, tenant: str, quota: Quota | None, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        self._check(quota)
        self._make_room(tenant)
        guest = _Guest(tenant, self._clock())
        leaving = {one.work for one in self._guests if one.shed and one.work}
        self._guests.append(guest)
        try:
            if leaving:
                await asyncio.wait(leaving)  # there are never more in the house than places
            return await self._served(guest, quota, work)
        finally:
            self._guests.remove(guest)

    async def _served(self, guest: _Guest, quota: Quota | None, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Work on the request; what it cost is charged however it ends."""
        if guest.gave_way():
            raise self._shed()
        began, cost = self._clock(), None
        guest.work = working = asyncio.ensure_future(work())
        try:
            done = await working
        except asyncio.CancelledError:
            if guest.gave_way() and not _cancelled():
                raise self._shed() from None
            raise
        else:
            self._stay_s += _SMOOTHING * (self._clock() - guest.since - self._stay_s)
            if isinstance(done, Correction):
                cost = done.ms / 1000
                self._cost_s += _SMOOTHING * (cost - self._cost_s)
            return done
        finally:
            self.charge(quota, self._clock() - began, cost)

    def _check(self, quota: Quota | None) -> None:
        if quota and self._accounts.spent(quota):
            raise QuotaSpent(f"the tenant's {quota.seconds:g} s of engine time a minute are used up")

    def charge(self, quota: Quota | None, elapsed: float, cost: float | None) -> None:
        """How long the engine worked on what did not end is not known; waiting for others must cost nothing."""
        if quota:
            self._accounts.charge(quota, min(elapsed, self._cost_s) if cost is None else cost)

    def _places(self) -> Counter[str]:
        return Counter(one.tenant for one in self._guests if not one.shed)

    def _make_room(self, tenant: str) -> None:
        """See that there is a place for one more of `tenant`; raises when it is this one that has to go."""
        places = self._places()
        if places.total() < self._seats:
            return
        guests = [one for one in reversed(self._guests) if not one.shed]
        readers = [one for one in guests if one.reading and not one.awaited]
        if readers:
            self._stop_reading(max(readers, key=lambda one: places[one.tenant]))
            return
        mine, share = places[tenant], self._seats / len({*places, tenant})
        if mine + 1 > share:
            first_or_only = not mine or mine == self._seats
            raise self._overloaded() if first_or_only else self._shed()
        leaving = max(guests, key=lambda one: places[one.tenant])
        if leaving.reading:
            self._stop_reading(leaving)
            return
        leaving.shed = True
        if leaving.work:
            leaving.work.cancel()

    def _stop_reading(self, guest: _Guest) -> None:
        """Whoever is heard here has to be read as a whole at its end."""
        guest.shed = True
        if guest.reading is not None:
            guest.work = asyncio.ensure_future(guest.reading.aclose())
            guest.work.add_done_callback(lambda _: self._guests.remove(guest))

    def _overloaded(self) -> EngineOverloaded:
        refused(EngineOverloaded.reason)
        return EngineOverloaded(self._full(), self._wait_s())

    def _shed(self) -> Shed:
        refused(Shed.reason)
        return Shed(f"{self._full()}, and this tenant has its share of them", self._wait_s())

    def _full(self) -> str:
        return f"all {self._seats} places are taken"

    def _wait_s(self) -> float:
        """Until those who are in the house now have left it, as long as it lately took."""
        return max(_SHORTEST_WAIT_S, self._stay_s)


class LocalAdmission(Admission):
    """Before an engine with a model of its own: completions take places, too."""

    def __init__(self, engine: Local, *, seats: int = 64) -> None:
        super().__init__(engine, seats=seats)
        self._local = engine

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt, if there is a place for it."""
        return await self._admitted(_NOBODY, None, lambda: self._local.complete(request, name, deadline_s))

    def load(self) -> Load:
        """What the engine is busy with."""
        return self._local.load()

    def stalled_s(self) -> float:
        """How long the step that runs now has been running."""
        return self._local.stalled_s()


class _Placed:
    """Satisfies `Reading`: an answer that is read ahead as long as its place is not needed."""

    def __init__(self, admission: Admission, guest: _Guest, quota: Quota | None) -> None:
        self._admission, self._guest, self._quota = admission, guest, quota

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """More of the answer."""
        return await self._there().feed(text)

    async def end(self) -> None:
        """There is no more."""
        await self._there().end()

    async def judged(self, known: int) -> tuple[SegmentScore, ...] | None:
        """Its verdicts; from now on somebody waits for it."""
        self._guest.awaited = True
        return await self._there().judged(known)

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch, charged as it is made."""
        made = await self._there().replace(span)
        self._admission.charge(self._quota, 0.0, made.ms / 1000)
        return made

    async def finish(self, request: AlignRequest) -> Correction:
        """Its correction."""
        return await self._admission.finish(self._guest, request)

    async def aclose(self) -> None:
        """Give the place back."""
        await self._admission.let_go(self._guest, self._quota)

    def _there(self) -> Reading:
        reading = self._guest.reading
        if reading is None or self._guest.gave_way():
            raise ReadingLost("its place was needed")
        return reading


def _cancelled() -> bool:
    """Whether it is we who are cancelled, and not only the work that we wait for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
