"""Shares of the model's time by tenant: the tenant that was given fewest tokens so far is served next. No torch.

A tenant that comes back after a pause gets a small credit over tenants that had work all the time, so that its few
short requests do not wait behind another tenant's long queue. The credit is limited, so that others do not wait long.

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
"""Time that long work is owed per unit of time of other work; its true cost may be twice what the cost curve says."""
_RETURN_S = 5.0
"""Seconds within which a tenant with little work is expected to come back."""
_MIN_CHUNK_TOKENS = 32
"""Fewest tokens of long work to feed at once, because fewer cost nearly as much."""


class Shares:
    """Counts of tokens given to each tenant, which decide who is served next."""

    def __init__(self) -> None:
        self._given_tokens: dict[str, int] = {}  # by tenant; relative numbers, see `count_given_tokens`
        self._active_tenants: frozenset[str] = frozenset()  # tenants that had work at the last `note_tenants`

    def note_tenants(self, tenants: Iterable[str]) -> None:
        """Record which tenants have work now, and give a credit to tenants that had no work at the last call."""
        active_tenants = frozenset(tenants)
        staying_counts = {tenant: self.count_given_tokens(tenant) for tenant in active_tenants & self._active_tenants}
        # forget tenants without work; if no tenant stayed, there is nobody to compare with, and all begin at 0
        if not staying_counts or len(self._given_tokens) > _MAX_TENANTS:
            self._given_tokens = dict(staying_counts)
        lowest_count = min(staying_counts.values(), default=0)
        for tenant in active_tenants - self._active_tenants:
            # at most the lowest count of a tenant that stayed, and at most `_CREDIT_TOKENS` below it
            count_before_pause = self.count_given_tokens(tenant)
            self._given_tokens[tenant] = max(lowest_count - _CREDIT_TOKENS, min(lowest_count, count_before_pause))
        self._active_tenants = active_tenants

    def give(self, tenant: str, tokens: int) -> None:
        """Count `tokens` of a step as given to `tenant`."""
        self._given_tokens[tenant] = self._given_tokens.get(tenant, 0) + tokens

    def count_given_tokens(self, tenant: str) -> int:
        """Tokens given to `tenant`; credits change this number, so it is only good for comparing tenants."""
        return self._given_tokens.get(tenant, 0)


class LongWork:
    """Decides which tenants' long work yields to tenants with little work, and how many tokens it gets meanwhile.

    A part of the time of other work is owed to long work as a debt. All times are costs of forward passes, in the unit
    of the cost curve. `budget` is the most tokens of a step.
    """

    def __init__(self, costs: CostCurve, budget: int) -> None:
        self.yielding: frozenset[str] = frozenset()
        """Tenants with long work, which yield to others in this step."""
        self._costs = costs
        self._budget = budget
        self._debt = 0.0
        """Time that is owed to long work; at most that of a full step."""
        self._yields_until = float("-inf")
        """Monotonic seconds until which long work yields, because a tenant with little work may come back."""

    def choose_yielding(self, tokens_by_tenant: Mapping[str, int], now: float) -> None:
        """Set `yielding` for this step, from the tokens of all requests of each tenant and the monotonic time `now`.

        Long work yields while a tenant with little work has a request, and for `_RETURN_S` afterwards, except in a step
        for which it is owed a full step's time.
        """
        long_tenants = frozenset(tenant for tenant, tokens in tokens_by_tenant.items() if tokens > _LONG_WORK_TOKENS)
        if long_tenants and any(tokens <= _LITTLE_WORK_TOKENS for tokens in tokens_by_tenant.values()):
            self._yields_until = now + _RETURN_S
        is_past_return = now >= self._yields_until  # no tenant with little work is expected any more
        if is_past_return or self._claim_full_step():
            self.yielding = frozenset()
        else:
            self.yielding = long_tenants

    def claim_tokens(self, fed_tokens: int) -> int:
        """Add a part of this step's time to the debt, and return how many tokens of long work to feed in the step.

        `fed_tokens` is the number of other tokens in the step. The result is 0 until the debt pays for
        `_MIN_CHUNK_TOKENS` tokens.
        """
        cost = self._costs.estimate_cost(fed_tokens)
        full_step_cost = self._costs.estimate_cost(self._budget)
        # once the debt is a full step, `choose_yielding` lets long work take part in a step like other work
        self._debt = min(self._debt + _LONG_WORK_PART * cost, full_step_cost)
        highest_factor = 1 + self._debt / cost  # by which long work may raise the step's cost
        free_tokens = max(0, self._budget - fed_tokens)
        owed_tokens = self._costs.count_further_tokens(fed_tokens, highest_factor, free_tokens)
        return owed_tokens if owed_tokens >= _MIN_CHUNK_TOKENS else 0

    def pay(self, fed_tokens: int, given_tokens: int) -> None:
        """Subtract from the debt the time that `given_tokens` tokens of long work add to a step of `fed_tokens`."""
        added_cost = self._costs.estimate_cost(fed_tokens + given_tokens) - self._costs.estimate_cost(fed_tokens)
        self._debt = max(0.0, self._debt - added_cost)

    def _claim_full_step(self) -> bool:
        """Return whether long work is owed a full step's time; if so, clear the debt, which this step pays."""
        if self._debt < self._costs.estimate_cost(self._budget):
            return False
        self._debt = 0.0
        return True
