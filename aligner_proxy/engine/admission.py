"""Admission to an engine: places are shared equally among the tenants that use it, engine time by quota.

It stands in the engine's process, before the engine, because only there the requests of all gateway workers are seen,
and nothing behind it has a bound of its own. A full engine first takes places from answers that are only read ahead.
Then it turns away a tenant that has more than an equal share; one that has less gets the place of the latest request of
the tenant that has most. Places that gateways know a tenant to have elsewhere count as if they were here, so that no
tenant gets a share on every host. It knows tenants as digests only and keeps nothing of a request.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from aligner_proxy.engine.api import (
    MAX_PLACES,
    AlignerInfo,
    AlignRequest,
    Asked,
    Completion,
    CompletionRequest,
    Engine,
    ForwardingSession,
    Load,
    Local,
    RowsRequest,
    RowsResponse,
    Session,
    Span,
    Startable,
    StatesRequest,
    text_states,
    with_heads,
)
from aligner_proxy.engine.scheduling.metrics import count_refusal
from aligner_proxy.errors import EngineOverloaded, QuotaSpent, SessionLost, Shed
from aligner_proxy.types import Correction, Quota, SegmentScore

_SMOOTHING = 0.2
_SHORTEST_WAIT_S = 0.1
_MINUTE_S = 60.0
_NOBODY = "-"
"""The tenant of a request that names none."""

_T = TypeVar("_T")
_Request = TypeVar("_Request", bound=Asked)


@dataclass(slots=True, eq=False)
class Ticket:
    """A place in the engine. `work` ends when the place is free; `shed` is set when it was given to another."""

    tenant: str
    since: float
    session: Session | None = None
    """An answer that is only read ahead: no client waits for it yet."""
    work: asyncio.Future[Any] | None = None
    shed: bool = False
    awaited: bool = False
    """A client waits for the verdicts on what is read: its place is as good as any other."""
    tenant_places: int = 0
    """Places of its tenant in all engines and gateways, as the gateway knew when it asked; 0: not known."""

    def gave_way(self) -> bool:
        """Whether its place was given to another; asked anew, because that happens while it is being served."""
        return self.shed


@dataclass(slots=True)
class Accounts:
    """Engine time used, by account. What was used is forgotten evenly: within a minute, one minute's quota."""

    clock: Callable[[], float] = time.monotonic
    _used: dict[str, tuple[float, float]] = field(default_factory=dict)

    def spent(self, quota: Quota) -> bool:
        """Whether nothing is left. What is worked on counts when it is done, so a burst may run into debt."""
        return self._current_use(quota) >= quota.seconds

    def charge(self, quota: Quota, seconds: float) -> None:
        """Count what was used."""
        used = self._current_use(quota) + seconds
        self._used[quota.account] = (used, self.clock())

    def counting(self, places: Callable[[], Counter[str]]) -> None:
        """`places` says how many of the places here each tenant has; for accounts that tell others of it."""

    def elsewhere(self, tenant: str) -> int:
        """Places that this tenant has in other processes, as far as is known."""
        return 0

    def _current_use(self, quota: Quota) -> float:
        used, at = self._used.get(quota.account, (0.0, 0.0))
        return max(0.0, used - (self.clock() - at) * quota.seconds / _MINUTE_S)


OpenAccounts = Callable[[str], Accounts]
"""Opens the accounts of one kind of work by its name, where they are shared with other processes."""


class FairAdmission:
    """Places that are shared equally among tenants, and the time that each may use by its quota."""

    def __init__(
        self, seats: int, clock: Callable[[], float] = time.monotonic, accounts: Accounts | None = None
    ) -> None:
        self._seats = seats
        self._clock = clock
        self._tickets: list[Ticket] = []
        self._accounts = accounts or Accounts(clock)
        self._accounts.counting(self._places)
        self._cost_s = 1.0  # time of a request, lately
        self._stay_s = 1.0  # seconds from its arrival to its end, lately

    async def admit_work(
        self, tenant: str, quota: Quota | None, work: Callable[[], Coroutine[Any, Any, _T]], tenant_places: int = 0
    ) -> _T:
        """The result of `work`, if there is a place and time for it; its `ms`, if it has any, are charged."""
        self._check(quota)
        self._make_room(tenant, tenant_places)
        ticket = Ticket(tenant, self._clock(), tenant_places=tenant_places)
        leaving = {other.work for other in self._tickets if other.shed and other.work}
        self._tickets.append(ticket)
        try:
            if leaving:
                await asyncio.wait(leaving)  # so that there are never more requests than places
            return await self._serve(ticket, quota, work)
        finally:
            self._tickets.remove(ticket)

    async def _serve(self, ticket: Ticket, quota: Quota | None, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Work on the request; what it cost is charged however it ends."""
        if ticket.gave_way():
            raise self._shed_error()
        began = self._clock()
        cost = None
        working = asyncio.ensure_future(work())
        ticket.work = working
        try:
            done = await working
        except asyncio.CancelledError:
            if ticket.gave_way() and not _is_cancelling():
                raise self._shed_error() from None
            raise
        else:
            self._stay_s += _SMOOTHING * (self._clock() - ticket.since - self._stay_s)
            spent_ms = getattr(done, "ms", None)
            if spent_ms is not None:
                cost = spent_ms / 1000
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
        return Counter(ticket.tenant for ticket in self._tickets if not ticket.shed)

    def count_places_everywhere(self, tenant: str) -> int:
        """Places of a tenant here and in other processes; 0 where nothing is known of others."""
        others = self._accounts.elsewhere(tenant)
        return min(MAX_PLACES, others + self._places()[tenant]) if others else 0

    def _count_places(self, tenant: str, tenant_places: int) -> Counter[str]:
        """Places by tenant, one of them about to come: those here, and those that it is known to have elsewhere."""
        here = self._places()
        latest = {ticket.tenant: ticket.tenant_places for ticket in self._tickets if not ticket.shed} | {
            tenant: tenant_places
        }
        counted = Counter[str]()
        for name, places_known in latest.items():
            counted[name] = max(here[name] + self._accounts.elsewhere(name), places_known)
        return counted

    def _make_room(self, tenant: str, tenant_places: int) -> None:
        """See that there is a place for one more of `tenant`; raises when it is this one that has to go."""
        here = self._places()
        if here.total() < self._seats:
            return
        places = self._count_places(tenant, tenant_places)
        tickets = [ticket for ticket in reversed(self._tickets) if not ticket.shed]
        readers = [ticket for ticket in tickets if ticket.session and not ticket.awaited]
        if readers:
            self._stop_reading(max(readers, key=lambda ticket: places[ticket.tenant]))
            return
        if places[tenant] + 1 > places.total() / len(places):
            mine = here[tenant]
            first_or_only = not mine or mine == self._seats
            raise self._overload_error() if first_or_only else self._shed_error()
        leaving = max(tickets, key=lambda ticket: places[ticket.tenant])
        if leaving.session:
            self._stop_reading(leaving)
            return
        leaving.shed = True
        if leaving.work:
            leaving.work.cancel()

    def _stop_reading(self, ticket: Ticket) -> None:
        """An answer that loses its place has to be read as a whole at its end."""
        ticket.shed = True
        if ticket.session is not None:
            ticket.work = asyncio.ensure_future(ticket.session.aclose())
            ticket.work.add_done_callback(lambda _: self._tickets.remove(ticket))

    def _overload_error(self) -> EngineOverloaded:
        count_refusal(EngineOverloaded.reason)
        return EngineOverloaded(self._full(), self._wait_s())

    def _shed_error(self) -> Shed:
        count_refusal(Shed.reason)
        return Shed(f"{self._full()}, and this tenant has its share of them", self._wait_s())

    def _full(self) -> str:
        return f"all {self._seats} places are taken"

    def _wait_s(self) -> float:
        """Until the requests of now are done, as long as that lately took."""
        return max(_SHORTEST_WAIT_S, self._stay_s)


class AdmittedEngine(FairAdmission):
    """An engine with a bound on the requests that it takes: `seats`, waiting and worked on."""

    def __init__(
        self,
        engine: Engine,
        *,
        seats: int = 64,
        clock: Callable[[], float] = time.monotonic,
        accounts: Accounts | None = None,
    ) -> None:
        super().__init__(seats, clock, accounts)
        self._engine = engine

    async def info(self) -> AlignerInfo:
        """The aligner served."""
        return await self._engine.info()

    async def aclose(self) -> None:
        """Close the engine."""
        await self._engine.aclose()

    async def align(self, request: AlignRequest) -> Correction:
        """Correct one answer, if there is a place and time for it."""
        engine_request = self._add_tenant_places(request)
        return await self.admit_work(
            request.tenant, request.quota, lambda: self._engine.align(engine_request), request.places
        )

    async def states(self, request: StatesRequest) -> list[list[float]]:
        """Hidden states of texts, if there is a place and time for it."""
        engine_request = self._add_tenant_places(request)
        work = partial(text_states, self._engine, engine_request)
        return await self.admit_work(request.tenant, request.quota, work, request.places)

    async def put_head(self, data: bytes) -> str:
        """Let the engine keep a taught head: that takes no place."""
        return await with_heads(self._engine).put_head(data)

    async def rows(self, request: RowsRequest) -> RowsResponse:
        """Rows of segments, if there is a place and time for it."""
        engine_request = self._add_tenant_places(request)
        work = partial(with_heads(self._engine).rows, engine_request)
        return await self.admit_work(request.tenant, request.quota, work, request.places)

    def _add_tenant_places(self, request: _Request) -> _Request:
        """The request, with what is known here of its tenant's places in other processes."""
        places = self.count_places_everywhere(request.tenant)
        return request.model_copy(update={"places": places}) if places else request

    async def read(self, request: AlignRequest) -> Session:
        """Read ahead, if there is a place to spare; an answer may lose it any time until it is whole."""
        self._check(request.quota)
        if self._places().total() >= self._seats:
            raise self._overload_error()
        session = await self._engine.read(self._add_tenant_places(request))
        ticket = Ticket(request.tenant, self._clock(), session, tenant_places=request.places)
        self._tickets.append(ticket)
        return _AdmittedSession(self, ticket, request.quota, session)

    async def finish(self, ticket: Ticket, request: AlignRequest) -> Correction:
        """An answer that was read ahead is whole: from now on its place is as good as any other."""
        session = ticket.session
        ticket.session = None
        ticket.since = self._clock()
        ticket.tenant_places = request.places
        engine_request = self._add_tenant_places(request)
        if session is None or ticket.gave_way():
            raise SessionLost("its place was needed")
        try:
            self._check(request.quota)
            return await self._serve(ticket, request.quota, lambda: session.finish(engine_request))
        finally:
            self._tickets.remove(ticket)
            await session.aclose()

    async def let_go(self, ticket: Ticket, quota: Quota | None) -> None:
        """What was read ahead is given up; what it cost is charged."""
        session = ticket.session
        ticket.session = None
        if session is None or ticket.gave_way():
            return
        self._tickets.remove(ticket)
        self.charge(quota, self._clock() - ticket.since, None)
        await session.aclose()


class Admission(AdmittedEngine):
    """Admission to an engine that is loaded here."""

    def __init__(
        self,
        engine: Startable,
        *,
        seats: int = 64,
        clock: Callable[[], float] = time.monotonic,
        accounts: Accounts | None = None,
    ) -> None:
        super().__init__(engine, seats=seats, clock=clock, accounts=accounts)
        self._startable = engine

    async def start(self) -> AlignerInfo:
        """Load the aligner."""
        return await self._startable.start()


class LocalAdmission(Admission):
    """Before an engine with a model of its own: completions take places, too."""

    def __init__(self, engine: Local, *, seats: int = 64) -> None:
        super().__init__(engine, seats=seats)
        self._local = engine

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        """Complete one prompt, if there is a place for it."""
        return await self.admit_work(_NOBODY, None, lambda: self._local.complete(request, name, deadline_s))

    def load(self) -> Load:
        """What the engine is busy with."""
        return self._local.load()

    def stalled_s(self) -> float:
        """How long the step that runs now has been running."""
        return self._local.stalled_s()


class _AdmittedSession(ForwardingSession):
    """A session that lasts as long as no other request needs its place."""

    def __init__(self, admission: AdmittedEngine, ticket: Ticket, quota: Quota | None, session: Session) -> None:
        super().__init__(session)
        self._admission = admission
        self._ticket = ticket
        self._quota = quota

    def inner(self) -> Session:
        """The engine's session; raises `SessionLost` once its place was given to another."""
        if self._ticket.session is None or self._ticket.gave_way():
            raise SessionLost("its place was needed")
        return self._ticket.session

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """Its verdicts; from now on a client waits for it."""
        self._ticket.awaited = True
        return await super().wait_for_verdicts(known_count)

    async def replace(self, span: Span) -> Correction:
        """What stands in place of a flagged stretch, charged as it is made."""
        replacement = await super().replace(span)
        self._admission.charge(self._quota, 0.0, replacement.ms / 1000)
        return replacement

    async def finish(self, request: AlignRequest) -> Correction:
        """The correction of the whole answer, whose place is from now on as good as any other."""
        return await self._admission.finish(self._ticket, request)

    async def aclose(self) -> None:
        """Give the place back."""
        await self._admission.let_go(self._ticket, self._quota)


def _is_cancelling() -> bool:
    """Whether this task is cancelled, and not only the work that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
