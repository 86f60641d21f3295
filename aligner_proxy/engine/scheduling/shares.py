"""Shares of the model's time by tenant: the tenant that has had least is served next. No torch.

Tokens are counted by tenant. A tenant that comes back after a pause gets a small credit over those that stayed, so that
its few short requests do not wait behind another's long queue. The credit is limited, so that the others do not wait
long either.

With equal shares, a short request would still take twice as long next to another tenant's very long answers, which
would gain little from it. So a tenant with little work goes before a tenant with long work, and long work is guaranteed
a part of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aligner_proxy.engine.scheduling.draft_length import CostCurve

_CREDIT_TOKENS = 1024
"""Most tokens of credit for a tenant that comes back after a pause."""
_MAX_TENANTS = 4096
"""Most tenants whose counts are stored."""
_LITTLE_WORK_TOKENS = 1024
"""A tenant whose requests have at most this many tokens together has little work."""
_LONG_WORK_TOKENS = 3072
"""A tenant whose requests have more than this many tokens together has long work."""
_LONG_WORK_PART = 0.125
"""Time for long work per unit of time for tenants with little work; its true cost may be twice the curve's."""
_RETURN_S = 5.0
"""Seconds within which a tenant with little work is expected to come back."""
_LEAST_CHUNK = 32
"""Fewest tokens of long work to feed at once, because fewer cost nearly as much."""


class Shares:
    """Counts of tokens given to each tenant, which decide who is served next."""

    def __init__(self) -> None:
        self._given_tokens: dict[str, int] = {}  # by tenant; a relative number, see `count_given_tokens`
        self._present: frozenset[str] = frozenset()  # tenants that had work at the last `note_tenants`

    def note_tenants(self, tenants: Iterable[str]) -> None:
        """Record which tenants have work now, give returning ones their credit, and forget old counts."""
        present = frozenset(tenants)
        stayed_tokens = [self.count_given_tokens(tenant) for tenant in present & self._present]
        # forget tenants that are away: if nobody stayed, there is nobody to compare with, and all begin at 0
        if not stayed_tokens or len(self._given_tokens) > _MAX_TENANTS:
            self._given_tokens = {tenant: self.count_given_tokens(tenant) for tenant in present & self._present}
        least = min(stayed_tokens, default=0)
        for tenant in present - self._present:
            # what it had before the pause does not count against it, and counts for it only up to the credit
            self._given_tokens[tenant] = max(least - _CREDIT_TOKENS, min(least, self.count_given_tokens(tenant)))
        self._present = present

    def give(self, tenant: str, tokens: int) -> None:
        """Count `tokens` of a step as given to `tenant`."""
        self._given_tokens[tenant] = self._given_tokens.get(tenant, 0) + tokens

    def count_given_tokens(self, tenant: str) -> int:
        """Tokens given to `tenant`, as a relative number; only the order of tenants means anything."""
        return self._given_tokens.get(tenant, 0)


class LongWork:
    """Which tenants' long work yields to tenants with little work, and the part of the time that it gets meanwhile.

    Times come from the cost curve.
    """

    def __init__(self, costs: CostCurve, budget: int) -> None:
        self.yielding: frozenset[str] = frozenset()
        """Tenants with long work, which yield to others in this step."""
        self._costs = costs
        self._budget = budget  # most tokens in a step
        self._debt = 0.0
        """Time that is owed to long work, in units of the cost curve."""
        self._yields_until = float("-inf")
        """Time until which long work yields, as a tenant with little work may come back; monotonic seconds."""

    def choose_yielding(self, sizes: Mapping[str, int], now: float) -> None:
        """Decide who yields in this step, by the tokens of each tenant's requests.

        Long work yields while a tenant with little work is here or was a moment ago.
        """
        long = frozenset(tenant for tenant, size in sizes.items() if size > _LONG_WORK_TOKENS)
        if long and any(size <= _LITTLE_WORK_TOKENS for size in sizes.values()):
            self._yields_until = now + _RETURN_S
        # long work that is owed a full step does not yield in this one
        yields_none = now >= self._yields_until or self._claim_full_step()
        self.yielding = frozenset() if yields_none else long

    def claim_tokens(self, fed_tokens: int) -> int:
        """Add this step's time to the debt to long work, and return how many tokens of it to feed in the step.

        `fed_tokens` are the other tokens in the step. The result is 0 until the debt covers `_LEAST_CHUNK` tokens.
        """
        cost = self._costs.estimate_cost(fed_tokens)
        # at most a full step is owed; `choose_yielding` then lets long work share a step equally
        self._debt = min(self._debt + _LONG_WORK_PART * cost, self._costs.estimate_cost(self._budget))
        room = self._costs.count_further_tokens(fed_tokens, 1 + self._debt / cost, max(0, self._budget - fed_tokens))
        return room if room >= _LEAST_CHUNK else 0

    def pay(self, fed_tokens: int, given_tokens: int) -> None:
        """Subtract from the debt the time that `given_tokens` tokens of long work add to a step of `fed_tokens`."""
        self._debt = max(
            0.0,
            self._debt - (self._costs.estimate_cost(fed_tokens + given_tokens) - self._costs.estimate_cost(fed_tokens)),
        )

    def _claim_full_step(self) -> bool:
        """Whether long work is owed a full step's time; if so, cancel the debt: it shares this step equally instead."""
        if self._debt < self._costs.estimate_cost(self._budget):
            return False
        self._debt = 0.0
        return True
