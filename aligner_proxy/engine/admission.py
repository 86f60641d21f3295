"""Admission to an engine: shares request slots ("places" on the wire) equally among tenants, and engine time by quota.

Admission runs in the engine's process, in front of the engine, because only there are the requests of all gateway
workers visible. Nothing else limits the number of requests. When the engine is full, admission first takes slots from
answers that are only read ahead: the upstream still writes them, and no client waits. If there are none, it refuses a
tenant that has more than an equal share. A tenant that has less gets the slot of the latest request of the tenant that
has most. Slots that a gateway reports for a tenant on other hosts count as if they were here, so that no tenant gets a
share on every host. Admission sees tenants only as digests and stores nothing of a request.
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
    Session,
    Span,
    Startable,
)
from aligner_proxy.engine.scheduling.metrics import count_refusal
from aligner_proxy.errors import EngineOverloaded, QuotaSpent, SessionLost, Shed
from aligner_proxy.types import Correction, Quota, SegmentScore

_SMOOTHING = 0.2
"""Weight of the latest request in the moving averages of a request's cost and time."""
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
    tenant_slots: int = 0
    """Slots of its tenant in all engines and gateways, as the gateway reported them; 0 if the gateway knows none."""

    def has_lost_slot(self) -> bool:
        """Whether another request got the slot. A method, because this can change while the request is served."""
        return self.lost_slot


@dataclass(slots=True)
class Accounts:
    """Engine time that counts as used, by account (the name under which a quota is counted). It rises with each request
    and falls by the quota's seconds a minute."""

    clock: Callable[[], float] = time.monotonic
    _used: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By account: the seconds that counted as used after the last charge, and the clock's time of that charge."""

    def is_used_up(self, quota: Quota) -> bool:
        """Whether the quota is used up. Work is charged when it ends, so a burst of requests may exceed the quota."""
        return self._current_use(quota) >= quota.seconds

    def charge(self, quota: Quota, seconds: float) -> None:
        """Add `seconds` of engine time to the account of `quota`."""
        used = self._current_use(quota) + seconds
        self._used[quota.account] = (used, self.clock())

    def register_slots(self, count_slots: Callable[[], Counter[str]]) -> None:
        """Register a function that counts the slots in this process by tenant.

        Does nothing here; accounts that processes share call it to tell the other processes.
        """

    def count_slots_elsewhere(self, tenant: str) -> int:
        """Known number of slots that this tenant has in other processes: 0, unless shared accounts override it."""
        return 0

    def _current_use(self, quota: Quota) -> float:
        """Seconds that count as used now: those after the last charge, less what the quota allows since then."""
        used_s, charged_at = self._used.get(quota.account, (0.0, 0.0))
        regained_s = (self.clock() - charged_at) * quota.seconds / _MINUTE_S
        return max(0.0, used_s - regained_s)


OpenAccounts = Callable[[str], Accounts]
"""Opens, by name, the accounts of one kind of work that are shared with other processes."""


class FairAdmission:
    """Shares `slots` slots equally among tenants, and limits each tenant's engine time to its quota. Each request with
    a slot has a `Ticket`; so has a read-ahead session, although no client waits for its answer yet. `accounts` hold the
    engine time used; None means new accounts, which no other process shares."""

    def __init__(
        self, slots: int, clock: Callable[[], float] = time.monotonic, accounts: Accounts | None = None
    ) -> None:
        self._slots = slots
        self._clock = clock
        self._tickets: list[Ticket] = []  # in order of arrival, with those that lost their slot and have not ended
        self._accounts = accounts or Accounts(clock)
        self._accounts.register_slots(self._count_local_slots)
        self._cost_s = 1.0  # recent average engine time of a request, in seconds
        self._request_s = 1.0  # recent average time from arrival to end, in seconds

    async def admit_work(
        self, tenant: str, quota: Quota | None, work: Callable[[], Coroutine[Any, Any, _T]], tenant_slots: int = 0
    ) -> _T:
        """Call `work` if a slot and quota are free, and return its result; a `quota` of None means no limit.

        The time charged is the result's `ms`, or an estimate if it has none. `tenant_slots` is the number of the
        tenant's slots in all gateways, as the requesting gateway knows it; 0 means unknown.

        Raises `QuotaSpent` if the quota is used up, `Shed` if another tenant needs the slot, now or while the work
        runs, and `EngineOverloaded` if the engine is full.
        """
        self._check_quota(quota)
        self._free_slot(tenant, tenant_slots)
        ticket = Ticket(tenant, self._clock(), tenant_slots=tenant_slots)
        ending_work = {other.work for other in self._tickets if other.lost_slot and other.work}
        self._tickets.append(ticket)
        try:
            if ending_work:
                await asyncio.wait(ending_work)  # so that the engine never has more requests than slots
            return await self._serve(ticket, quota, work)
        finally:
            self._tickets.remove(ticket)

    async def _serve(self, ticket: Ticket, quota: Quota | None, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Call `work` in the ticket's slot and return its result. Its cost is charged even if it fails or is cancelled.

        Raises `Shed` if another request gets the slot.
        """
        if ticket.has_lost_slot():
            raise self._shed_error()
        start = self._clock()
        cost_s = None  # unknown
        # a task of its own, so that a request that gets the slot can cancel it
        running_work = asyncio.ensure_future(work())
        ticket.work = running_work
        try:
            result = await running_work
        except asyncio.CancelledError:
            # cancelled by the request that got the slot, not by our caller
            if ticket.has_lost_slot() and not is_being_cancelled():
                raise self._shed_error() from None
            raise
        else:
            request_s = self._clock() - ticket.since
            self._request_s += _SMOOTHING * (request_s - self._request_s)
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
        """Charge the `cost_s` seconds of a request to the quota's account; without a quota, do nothing.

        If `cost_s` is None, the cost is estimated: it is the elapsed time, but at most the recent average cost, because
        time in which the request waited for other requests must not be charged.
        """
        if quota:
            if cost_s is None:
                cost_s = min(elapsed_s, self._cost_s)
            self._accounts.charge(quota, cost_s)

    def _count_local_slots(self) -> Counter[str]:
        """Slots by tenant in this engine."""
        return Counter(ticket.tenant for ticket in self._tickets if not ticket.lost_slot)

    def count_slots_everywhere(self, tenant: str) -> int:
        """Slots of a tenant here and in other processes; 0 if no other process is known to have slots of the tenant."""
        slots_elsewhere = self._accounts.count_slots_elsewhere(tenant)
        if not slots_elsewhere:
            return 0
        return min(MAX_PLACES, slots_elsewhere + self._count_local_slots()[tenant])

    def _count_slots(self, tenant: str, tenant_slots: int) -> Counter[str]:
        """Number of slots here and in other processes, of each tenant with a slot here and of `tenant`.

        `tenant_slots` is the newest count that a gateway reported for `tenant`; 0 means unknown.
        """
        local_slots = self._count_local_slots()
        # later tickets overwrite earlier ones, so the count of each tenant is its newest
        reported_counts = {ticket.tenant: ticket.tenant_slots for ticket in self._tickets if not ticket.lost_slot}
        reported_counts[tenant] = tenant_slots
        slot_counts = Counter[str]()
        for name, reported_count in reported_counts.items():
            known_count = local_slots[name] + self._accounts.count_slots_elsewhere(name)
            # both numbers count the same slots, and each may miss some of them
            slot_counts[name] = max(known_count, reported_count)
        return slot_counts

    def _free_slot(self, tenant: str, tenant_slots: int) -> None:
        """Make sure that a slot is free for a new request of `tenant`, by taking another request's slot if needed.

        Read-ahead sessions, for which no client waits, lose their slots first. If there are none and `tenant` already
        has an equal share, raises `Shed`, or `EngineOverloaded` if the tenant has no slot here or all of them. Of
        several sessions or requests, the latest of the tenant with most slots loses its slot.
        """
        local_slots = self._count_local_slots()
        if local_slots.total() < self._slots:
            return
        slot_counts = self._count_slots(tenant, tenant_slots)
        # the latest ticket first, because `max` takes the first of several equal tickets
        tickets = [ticket for ticket in reversed(self._tickets) if not ticket.lost_slot]
        reading_tickets = [ticket for ticket in tickets if ticket.session and not ticket.awaited]
        if reading_tickets:
            self._stop_reading(max(reading_tickets, key=lambda ticket: slot_counts[ticket.tenant]))
            return
        equal_share = slot_counts.total() / len(slot_counts)
        if slot_counts[tenant] + 1 > equal_share:
            own_slots = local_slots[tenant]
            # `Shed` says that the tenant has its share of the slots here, which would mislead in these two cases
            if own_slots in (0, self._slots):
                raise self._overload_error()
            raise self._shed_error()
        chosen_ticket = max(tickets, key=lambda ticket: slot_counts[ticket.tenant])
        if chosen_ticket.session:
            self._stop_reading(chosen_ticket)
            return
        chosen_ticket.lost_slot = True
        if chosen_ticket.work:
            chosen_ticket.work.cancel()  # `_serve` then raises `Shed` to the request's caller

    def _stop_reading(self, ticket: Ticket) -> None:
        """Take the slot of a read-ahead session and close the session; its answer is corrected when it is complete."""
        ticket.lost_slot = True
        if ticket.session is not None:
            ticket.work = asyncio.ensure_future(ticket.session.aclose())
            ticket.work.add_done_callback(lambda _: self._tickets.remove(ticket))

    def _overload_error(self) -> EngineOverloaded:
        """Count a request that is refused because the engine is full, and return the error to raise."""
        count_refusal(EngineOverloaded.reason)
        return EngineOverloaded(f"all {self._slots} slots are taken", self._wait_s())

    def _shed_error(self) -> Shed:
        """Count a request that is refused because another tenant needs the slot, and return the error to raise."""
        count_refusal(Shed.reason)
        message = f"all {self._slots} slots are taken, and this tenant already has its share of them"
        return Shed(message, self._wait_s())

    def _wait_s(self) -> float:
        """Seconds to suggest for a retry: the recent average time that a request took."""
        return max(_SHORTEST_WAIT_S, self._request_s)


class AdmittedEngine(FairAdmission, ForwardingEngine, Generic[_Inner]):
    """An engine that runs a request only if one of its `slots` slots is free for it, and only within the request's
    quota. `accounts` hold the engine time used; None means new accounts, which no other process shares."""

    def __init__(
        self,
        engine: _Inner,
        *,
        slots: int = 64,
        clock: Callable[[], float] = time.monotonic,
        accounts: Accounts | None = None,
    ) -> None:
        super().__init__(slots, clock, accounts)
        self.inner: _Inner = engine

    async def forward(self, request: _Request, send: Callable[[_Request], Coroutine[Any, Any, _T]]) -> _T:
        """Forward a request if a slot and quota are free. Raises the errors of `admit_work`."""
        work = partial(send, self._add_slot_count(request))
        return await self.admit_work(request.tenant, request.quota, work, request.places)

    def _add_slot_count(self, request: _Request) -> _Request:
        """The request as the engine gets it: with the number of the tenant's slots everywhere, if it is known.

        The engine may be another process with admission of its own, which then counts these slots.
        """
        slot_count = self.count_slots_everywhere(request.tenant)
        return request.model_copy(update={"places": slot_count}) if slot_count else request

    async def read(self, request: AlignRequest) -> Session:
        """Start reading an answer ahead. Until the answer is complete, another request may get the slot of the session.

        Raises `EngineOverloaded` if no slot is free, and `QuotaSpent` if the quota is used up.
        """
        self._check_quota(request.quota)
        if self._count_local_slots().total() >= self._slots:
            # reading ahead is not worth another request's slot
            raise self._overload_error()
        session = await self.inner.read(self._add_slot_count(request))
        ticket = Ticket(request.tenant, self._clock(), session, tenant_slots=request.places)
        self._tickets.append(ticket)
        return _AdmittedSession(self, ticket, request.quota, session)

    async def finish(self, ticket: Ticket, request: AlignRequest) -> Correction:
        """Correct an answer that was read ahead and is now complete, as its client now waits for it.

        Raises `SessionLost` if another request got the slot, and `QuotaSpent` if the quota is used up.
        """
        session = ticket.session
        ticket.session = None  # from now on it is a request like any other
        ticket.since = self._clock()
        ticket.tenant_slots = request.places
        engine_request = self._add_slot_count(request)
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

        Does nothing if the session has ended (`finish` or `release` was called) or has lost its slot.
        """
        session = ticket.session
        ticket.session = None
        if session is None or ticket.has_lost_slot():
            return
        self._tickets.remove(ticket)
        # a session that is given up does not say how much engine time it took
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
    """A read-ahead session that has a slot; once another request got the slot, every call but `aclose` raises
    `SessionLost`."""

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
        """Return the verdicts; from now on, the slot is not taken before those of other requests, as a client waits."""
        self._ticket.awaited = True
        return await super().wait_for_verdicts(known_count)

    async def replace(self, span: Span) -> Correction:
        """Return the replacement for a flagged range, and charge its time to the quota."""
        replacement = await super().replace(span)
        # the engine said what it cost, so the elapsed time is not needed
        self._admission.charge(self._quota, elapsed_s=0.0, cost_s=replacement.ms / 1000)
        return replacement

    async def finish(self, request: AlignRequest) -> Correction:
        """Return the correction of the whole answer, which is now complete."""
        return await self._admission.finish(self._ticket, request)

    async def aclose(self) -> None:
        await self._admission.release(self._ticket, self._quota)
