"""Admission to an engine: shares request slots ("places") equally among tenants, and engine time by quota.

Admission runs in the engine's process, in front of the engine, because only there are the requests of all gateway
workers visible. Nothing else limits the number of requests. When the engine is full, admission first takes slots from
answers that are only read ahead: the upstream still writes them, and no client waits. Then it refuses a tenant that has
more than an equal share. A tenant that has less gets the slot of the latest request of the tenant that has most. Slots
that a gateway reports for a tenant on other hosts count as if they were here, so that no tenant gets a share on every
host. Admission sees tenants only as digests and stores nothing of a request.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from aligner_proxy.concurrency import is_being_cancelled
from aligner_proxy.engine.api import (
    MAX_PLACES,
    AlignerInfo,
    AlignRequest,
    Completion,
    CompletionRequest,
    Engine,
    EngineRequest,
    ForwardingEngine,
    ForwardingSession,
    Load,
    Local,
    RowsRequest,
    RowsResponse,
    Session,
    Span,
    Startable,
    StatesRequest,
    TokenLabels,
    TokenLabelsRequest,
    require_judges,
    require_teachable,
    text_states,
)
from aligner_proxy.engine.scheduling.metrics import count_refusal
from aligner_proxy.errors import EngineOverloaded, QuotaSpent, SessionLost, Shed
from aligner_proxy.types import Correction, Quota, SegmentScore

_SMOOTHING = 0.2
"""Weight of the latest request in the moving averages of cost and stay."""
_SHORTEST_WAIT_S = 0.1
"""Fewest seconds to suggest for a retry."""
_MINUTE_S = 60.0
_NOBODY = "-"
"""The tenant name used for requests that name none."""

_T = TypeVar("_T")
_Request = TypeVar("_Request", bound=EngineRequest)
_Inner = TypeVar("_Inner", bound=Engine)
_Loadable = TypeVar("_Loadable", bound=Startable)


@dataclass(slots=True, eq=False)
class Ticket:
    """A slot in the engine. `work` ends when the slot is free; `lost_slot` is set when another request got the slot."""

    tenant: str
    since: float
    """The clock's time when the request arrived. For an answer read ahead, `finish` sets the time when its client began
    to wait."""
    session: Session | None = None
    """The session of an answer that is only read ahead: no client waits for it yet. None for other requests."""
    work: asyncio.Future[Any] | None = None
    """What runs in the slot, or closes its session; None until it has begun."""
    lost_slot: bool = False
    """True once another request got the slot; the ticket stays in the list until `work` has ended."""
    awaited: bool = False
    """True when a client waits for verdicts on the read-ahead: the slot then has normal priority."""
    tenant_places: int = 0
    """Slots of its tenant in all engines and gateways, as the gateway reported them; 0 if the gateway knows none."""

    def has_lost_slot(self) -> bool:
        """Whether another request got the slot. A method, because this can change while the request is served."""
        return self.lost_slot


@dataclass(slots=True)
class Accounts:
    """Engine time used, by account, the name under which a quota is counted. Passing time subtracts its quota."""

    clock: Callable[[], float] = time.monotonic
    _used: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By account: the seconds used at its last charge, and the clock's time of that charge."""

    def is_used_up(self, quota: Quota) -> bool:
        """Whether the quota is used up. Work is charged when it ends, so a burst of requests may exceed the quota."""
        return self._current_use(quota) >= quota.seconds

    def charge(self, quota: Quota, seconds: float) -> None:
        """Add `seconds` of engine time to the account of `quota`."""
        used = self._current_use(quota) + seconds
        self._used[quota.account] = (used, self.clock())

    def register_places(self, places: Callable[[], Counter[str]]) -> None:
        """Register `places`, which counts local slots by tenant. Does nothing here; shared accounts report them."""

    def count_elsewhere(self, tenant: str) -> int:
        """Known number of slots that this tenant has in other processes: 0, unless shared accounts override it."""
        return 0

    def _current_use(self, quota: Quota) -> float:
        """Seconds that count as used now: those of the last charge, less the quota of the time since then."""
        used_s, charged_at = self._used.get(quota.account, (0.0, 0.0))
        regained_s = (self.clock() - charged_at) * quota.seconds / _MINUTE_S
        return max(0.0, used_s - regained_s)


OpenAccounts = Callable[[str], Accounts]
"""Opens, by name, the accounts of one kind of work that are shared with other processes."""


class FairAdmission:
    """Shares slots equally among tenants, each with a `Ticket`, and limits each tenant's engine time to its quota.
    A read-ahead session has a slot, too, although no client waits for its answer yet."""

    def __init__(
        self, seats: int, clock: Callable[[], float] = time.monotonic, accounts: Accounts | None = None
    ) -> None:
        self._seats = seats  # most slots
        self._clock = clock
        self._tickets: list[Ticket] = []  # in order of arrival, with those that lost their slot and have not ended
        self._accounts = accounts or Accounts(clock)
        self._accounts.register_places(self._count_local_places)
        self._cost_s = 1.0  # recent average engine time of a request, in seconds
        self._stay_s = 1.0  # recent average time from arrival to end, in seconds

    async def admit_work(
        self, tenant: str, quota: Quota | None, work: Callable[[], Coroutine[Any, Any, _T]], tenant_places: int = 0
    ) -> _T:
        """Run `work` if a slot and quota are free, and return its result; a `quota` of None means no limit.

        The time charged is the result's `ms`, or an estimate if it has none. `tenant_places` is the number of the
        tenant's slots in all gateways, as the requesting gateway knows it.

        Raises `QuotaSpent` if the quota is used up, `Shed` if another tenant needs the slot, now or while the work
        runs, and `EngineOverloaded` if the engine is full.
        """
        self._check_quota(quota)
        self._make_room(tenant, tenant_places)
        ticket = Ticket(tenant, self._clock(), tenant_places=tenant_places)
        ending_work = {other.work for other in self._tickets if other.lost_slot and other.work}
        self._tickets.append(ticket)
        try:
            if ending_work:
                await asyncio.wait(ending_work)  # so that the engine never has more requests than slots
            return await self._serve(ticket, quota, work)
        finally:
            self._tickets.remove(ticket)

    async def _serve(self, ticket: Ticket, quota: Quota | None, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run the admitted work and return its result. Charge the work's cost even if it fails or is cancelled.

        Raises `Shed` if another request gets the slot.
        """
        if ticket.has_lost_slot():
            raise self._shed_error()
        start = self._clock()
        cost_s = None
        working = asyncio.ensure_future(work())
        ticket.work = working
        try:
            result = await working
        except asyncio.CancelledError:
            # cancelled to make room for other work, not by our caller
            if ticket.has_lost_slot() and not is_being_cancelled():
                raise self._shed_error() from None
            raise
        else:
            self._stay_s += _SMOOTHING * (self._clock() - ticket.since - self._stay_s)
            spent_ms = getattr(result, "ms", None)  # some results do not say what they cost
            if spent_ms is not None:
                cost_s = spent_ms / 1000
                self._cost_s += _SMOOTHING * (cost_s - self._cost_s)
            return result
        finally:
            self.charge(quota, self._clock() - start, cost_s)

    def _check_quota(self, quota: Quota | None) -> None:
        """Raise `QuotaSpent` if the quota is used up."""
        if quota and self._accounts.is_used_up(quota):
            raise QuotaSpent(f"the tenant's {quota.seconds:g} s of engine time a minute are used up")

    def charge(self, quota: Quota | None, elapsed_s: float, cost_s: float | None) -> None:
        """Charge `cost_s` seconds to the quota's account; None means that the cost is unknown and is estimated.

        The estimate is the elapsed time, at most the recent average cost, because waiting for others must be free.
        """
        if quota:
            if cost_s is None:
                cost_s = min(elapsed_s, self._cost_s)
            self._accounts.charge(quota, cost_s)

    def _count_local_places(self) -> Counter[str]:
        """Slots by tenant in this engine."""
        return Counter(ticket.tenant for ticket in self._tickets if not ticket.lost_slot)

    def count_places_everywhere(self, tenant: str) -> int:
        """Slots of a tenant here and in other processes; 0, which means unknown, if only this process has any."""
        places_elsewhere = self._accounts.count_elsewhere(tenant)
        if not places_elsewhere:
            return 0
        return min(MAX_PLACES, places_elsewhere + self._count_local_places()[tenant])

    def _count_places(self, tenant: str, tenant_places: int) -> Counter[str]:
        """Slots by tenant, here and in other processes, of all tenants with a slot here and of `tenant`.

        `tenant_places` is the newest count that a gateway reported for `tenant`.
        """
        local_places = self._count_local_places()
        # later tickets overwrite earlier ones, so the count of each tenant is its newest
        reported_places = {ticket.tenant: ticket.tenant_places for ticket in self._tickets if not ticket.lost_slot}
        reported_places[tenant] = tenant_places
        places = Counter[str]()
        for name, reported_count in reported_places.items():
            own_count = local_places[name] + self._accounts.count_elsewhere(name)
            # both numbers count the same slots, and either may miss some
            places[name] = max(own_count, reported_count)
        return places

    def _make_room(self, tenant: str, tenant_places: int) -> None:
        """Make sure that a slot is free for a new request of `tenant`, by taking another request's slot if needed.

        Read-ahead sessions, for which no client waits, lose their slots first. Of several requests, the latest one of
        the tenant with most slots loses its slot. If `tenant` already has an equal share, raises `Shed`, or
        `EngineOverloaded` where the tenant has no slot here or all of them.
        """
        local_places = self._count_local_places()
        if local_places.total() < self._seats:
            return
        places = self._count_places(tenant, tenant_places)
        # the latest first, because `max` takes the first of several equal tickets
        tickets = [ticket for ticket in reversed(self._tickets) if not ticket.lost_slot]
        reading_tickets = [ticket for ticket in tickets if ticket.session and not ticket.awaited]
        if reading_tickets:
            self._stop_reading(max(reading_tickets, key=lambda ticket: places[ticket.tenant]))
            return
        equal_share = places.total() / len(places)
        if places[tenant] + 1 > equal_share:
            own_places = local_places[tenant]
            # the message of `Shed` would be untrue for a tenant without a slot here, and useless to the only tenant
            has_none_or_all = own_places in (0, self._seats)
            raise self._overload_error() if has_none_or_all else self._shed_error()
        chosen_ticket = max(tickets, key=lambda ticket: places[ticket.tenant])
        if chosen_ticket.session:
            self._stop_reading(chosen_ticket)
            return
        chosen_ticket.lost_slot = True
        if chosen_ticket.work:
            chosen_ticket.work.cancel()

    def _stop_reading(self, ticket: Ticket) -> None:
        """Take the slot of a read-ahead session and close the session; its answer is corrected when it is complete."""
        ticket.lost_slot = True
        if ticket.session is not None:
            ticket.work = asyncio.ensure_future(ticket.session.aclose())
            ticket.work.add_done_callback(lambda _: self._tickets.remove(ticket))

    def _overload_error(self) -> EngineOverloaded:
        """Count a refusal because the engine is full, and return its error."""
        count_refusal(EngineOverloaded.reason)
        return EngineOverloaded(f"all {self._seats} slots are taken", self._wait_s())

    def _shed_error(self) -> Shed:
        """Count a refusal because the tenant has its share, and return its error."""
        count_refusal(Shed.reason)
        message = f"all {self._seats} slots are taken, and this tenant already has its share of them"
        return Shed(message, self._wait_s())

    def _wait_s(self) -> float:
        """Seconds to suggest for a retry: the recent average time that a request took."""
        return max(_SHORTEST_WAIT_S, self._stay_s)


class AdmittedEngine(FairAdmission, ForwardingEngine, Generic[_Inner]):
    """An engine that runs a request only if admission gives it one of `seats` slots."""

    def __init__(
        self,
        engine: _Inner,
        *,
        seats: int = 64,
        clock: Callable[[], float] = time.monotonic,
        accounts: Accounts | None = None,
    ) -> None:
        super().__init__(seats, clock, accounts)
        self.inner: _Inner = engine

    async def info(self) -> AlignerInfo:
        return await self.inner.info()

    async def align(self, request: AlignRequest) -> Correction:
        return await self._admit_request(request, self.inner.align)

    async def states(self, request: StatesRequest) -> list[list[float]]:
        return await self._admit_request(request, partial(text_states, self.inner))

    async def rows(self, request: RowsRequest) -> RowsResponse:
        return await self._admit_request(request, require_teachable(self.inner).rows)

    async def label_tokens(self, request: TokenLabelsRequest) -> TokenLabels:
        return await self._admit_request(request, require_judges(self.inner).label_tokens)

    async def _admit_request(self, request: _Request, work: Callable[[_Request], Coroutine[Any, Any, _T]]) -> _T:
        """Run `work` with the request if a slot and quota are free; raises the errors of `admit_work`."""
        engine_work = partial(work, self._add_tenant_places(request))
        return await self.admit_work(request.tenant, request.quota, engine_work, request.places)

    def _add_tenant_places(self, request: _Request) -> _Request:
        """The request for the engine; its `places` are the tenant's slots everywhere if other processes report any."""
        places = self.count_places_everywhere(request.tenant)
        return request.model_copy(update={"places": places}) if places else request

    async def read(self, request: AlignRequest) -> Session:
        """Start reading an answer ahead; while the answer is not complete, its slot may be taken.

        Raises `EngineOverloaded` if no slot is free, and `QuotaSpent` if the quota is used up.
        """
        self._check_quota(request.quota)
        if self._count_local_places().total() >= self._seats:
            # reading ahead is not worth another request's slot
            raise self._overload_error()
        session = await self.inner.read(self._add_tenant_places(request))
        ticket = Ticket(request.tenant, self._clock(), session, tenant_places=request.places)
        self._tickets.append(ticket)
        return _AdmittedSession(self, ticket, request.quota, session)

    async def finish(self, ticket: Ticket, request: AlignRequest) -> Correction:
        """Correct an answer that was read ahead and is now complete; its slot gets normal priority.

        Raises `SessionLost` if another request got the slot.
        """
        session = ticket.session
        ticket.session = None
        ticket.since = self._clock()  # the client waits from now on
        ticket.tenant_places = request.places
        engine_request = self._add_tenant_places(request)
        if session is None or ticket.has_lost_slot():
            raise SessionLost("its place was needed")
        try:
            self._check_quota(request.quota)
            return await self._serve(ticket, request.quota, lambda: session.finish(engine_request))
        finally:
            self._tickets.remove(ticket)
            await session.aclose()

    async def release(self, ticket: Ticket, quota: Quota | None) -> None:
        """Give up a read-ahead session: free its slot, charge its time and close it.

        Does nothing if the session has ended or lost its slot.
        """
        session = ticket.session
        ticket.session = None
        if session is None or ticket.has_lost_slot():
            return
        self._tickets.remove(ticket)
        # a reading that is given up does not report its engine time
        self.charge(quota, self._clock() - ticket.since, cost_s=None)
        await session.aclose()


class Admission(AdmittedEngine[_Loadable]):
    """Admission to an engine that this process loads."""

    async def start(self) -> AlignerInfo:
        return await self.inner.start()


class LocalAdmission(Admission[Local]):
    """Admission to an engine with its own model, where completions take slots, too."""

    async def complete(self, request: CompletionRequest, name: str, deadline_s: float) -> Completion:
        return await self.admit_work(_NOBODY, quota=None, work=lambda: self.inner.complete(request, name, deadline_s))

    def load(self) -> Load:
        return self.inner.load()

    def stalled_s(self) -> float:
        return self.inner.stalled_s()


class _AdmittedSession(ForwardingSession):
    """A session on a slot; once another request got the slot, every call raises `SessionLost`."""

    def __init__(self, admission: AdmittedEngine[Any], ticket: Ticket, quota: Quota | None, session: Session) -> None:
        super().__init__(session)
        self._admission = admission
        self._ticket = ticket
        self._quota = quota

    def inner(self) -> Session:
        """The engine's session; raises `SessionLost` once another request got the slot."""
        if self._ticket.session is None or self._ticket.has_lost_slot():
            raise SessionLost("its place was needed")
        return self._ticket.session

    async def wait_for_verdicts(self, known_count: int) -> tuple[SegmentScore, ...] | None:
        """Return the verdicts, and give the slot normal priority because a client now waits."""
        self._ticket.awaited = True
        return await super().wait_for_verdicts(known_count)

    async def replace(self, span: Span) -> Correction:
        """Return the replacement for a flagged range, and charge its time to the quota."""
        replacement = await super().replace(span)
        self._admission.charge(self._quota, elapsed_s=0.0, cost_s=replacement.ms / 1000)
        return replacement

    async def finish(self, request: AlignRequest) -> Correction:
        """Return the correction of the whole answer; its slot gets normal priority."""
        return await self._admission.finish(self._ticket, request)

    async def aclose(self) -> None:
        await self._admission.release(self._ticket, self._quota)
