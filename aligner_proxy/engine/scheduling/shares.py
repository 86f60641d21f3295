"""Shares of the model's time by tenant: the tenant that has had least is served next. No torch.

Tokens are counted by tenant. A tenant that comes back after a pause gets a small credit over tenants that had work all
the time, so that its few short requests do not wait behind another tenant's long queue. The credit is limited, so that
other tenants do not wait long either.

With equal shares, a short request would still take twice as long next to another tenant's very long answers, which
would hardly be ready sooner. So tenants with long work yield to tenants with little work, and meanwhile get only a part
of the time, which they are owed as a debt until it is enough for a chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aligner_proxy.engine.scheduling.draft_length import CostCurve

_CREDIT_TOKENS = 1024
"""Most tokens of credit for a tenant that comes back after a pause."""
_MAX_TENANTS = 4096
"""Number of stored counts above which the counts of tenants without work are forgotten."""
_LITTLE_WORK_TOKENS = 1024
"""A tenant whose requests have at most this many tokens together has little work."""
_LONG_WORK_TOKENS = 3072
"""A tenant whose requests have more than this many tokens together has long work."""
_LONG_WORK_PART = 0.125
"""Time for long work per unit of time for other work; its true cost may be twice what the cost curve says."""
_RETURN_S = 5.0
"""Seconds within which a tenant with little work is expected to come back."""
_LEAST_CHUNK = 32
"""Fewest tokens of long work to feed at once, because fewer cost nearly as much."""


class Shares:
    """Counts of tokens given to each tenant, which decide who is served next."""

    def __init__(self) -> None:
        self._given_tokens: dict[str, int] = {}  # by tenant; a relative number, see `count_given_tokens`
        self._active_tenants: frozenset[str] = frozenset()  # tenants that had work at the last `note_tenants`

    def note_tenants(self, tenants: Iterable[str]) -> None:
        """Record which tenants have work now, and give tenants that come back their credit."""
        active_tenants = frozenset(tenants)
        staying_counts = {tenant: self.count_given_tokens(tenant) for tenant in active_tenants & self._active_tenants}
        # forget tenants without work; if no tenant stayed, there is nobody to compare with, and all begin at 0
        if not staying_counts or len(self._given_tokens) > _MAX_TENANTS:
            self._given_tokens = dict(staying_counts)
        least_count = min(staying_counts.values(), default=0)
        for tenant in active_tenants - self._active_tenants:
            # a high count from before the pause is lowered to the least, and a low one raised to the credit
            earlier_count = min(least_count, self.count_given_tokens(tenant))
            self._given_tokens[tenant] = max(least_count - _CREDIT_TOKENS, earlier_count)
        self._active_tenants = active_tenants

    def give(self, tenant: str, tokens: int) -> None:
        """Count `tokens` of a step as given to `tenant`."""
        self._given_tokens[tenant] = self._given_tokens.get(tenant, 0) + tokens

    def count_given_tokens(self, tenant: str) -> int:
        """Tokens given to `tenant`, as a relative number, which means something only next to that of another tenant."""
        return self._given_tokens.get(tenant, 0)


class LongWork:
    """Decides which tenants' long work yields to tenants with little work, and how many tokens it gets meanwhile.

    Times are costs of forward passes, in the unit of the cost curve.
    """

    def __init__(self, costs: CostCurve, budget: int) -> None:
        self.yielding: frozenset[str] = frozenset()
        """Tenants with long work, which yield to others in this step."""
        self._costs = costs
        self._budget = budget  # most tokens in a step
        self._debt = 0.0
        """Time that is owed to long work."""
        self._yields_until = float("-inf")
        """Monotonic seconds until which long work yields, because a tenant with little work may come back."""

    def choose_yielding(self, sizes: Mapping[str, int], now: float) -> None:
        """Decide whose work yields in this step; `sizes` are the tokens of all requests of each tenant.

        Long work yields while a tenant with little work has a request, and for `_RETURN_S` afterwards. `now` is the
        monotonic time.
        """
        long_tenants = frozenset(tenant for tenant, size in sizes.items() if size > _LONG_WORK_TOKENS)
        if long_tenants and any(size <= _LITTLE_WORK_TOKENS for size in sizes.values()):
            self._yields_until = now + _RETURN_S
        if now >= self._yields_until or self._claim_full_step():
            self.yielding = frozenset()
        else:
            self.yielding = long_tenants

    def claim_tokens(self, fed_tokens: int) -> int:
        """Add a part of this step's time to the debt, and return how many tokens of long work to feed in the step.

        `fed_tokens` are the other tokens in the step. The result is 0 until the debt covers `_LEAST_CHUNK` tokens.
        """
        cost = self._costs.estimate_cost(fed_tokens)
        # the debt is at most a full step; `choose_yielding` then lets long work take part in a step like other work
        self._debt = min(self._debt + _LONG_WORK_PART * cost, self._costs.estimate_cost(self._budget))
        highest_factor = 1 + self._debt / cost  # by which long work may raise the step's cost
        free_tokens = max(0, self._budget - fed_tokens)
        owed_tokens = self._costs.count_further_tokens(fed_tokens, highest_factor, free_tokens)
        return owed_tokens if owed_tokens >= _LEAST_CHUNK else 0

    def pay(self, fed_tokens: int, given_tokens: int) -> None:
        """Subtract from the debt the time that `given_tokens` tokens of long work add to a step of `fed_tokens`."""
        added_cost = self._costs.estimate_cost(fed_tokens + given_tokens) - self._costs.estimate_cost(fed_tokens)
        self._debt = max(0.0, self._debt - added_cost)

    def _claim_full_step(self) -> bool:
        """Whether long work is owed a full step's time; if so, clear the debt, as it does not yield in this step."""
        if self._debt < self._costs.estimate_cost(self._budget):
            return False
        self._debt = 0.0
        return True
