"""Shares of the model by tenant: who has had least of it is served next. No torch.

Tokens are counted by tenant. One that comes back after a pause begins a little before those that were there meanwhile,
so that a few short requests are not behind a long row of another's, and never so far before them that they would wait
long for it.

Equal parts would still make a short request take twice as long beside very long answers of another tenant, which hardly
notice it. So a tenant with little to do goes before one with long work, which is guaranteed a part of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aligner_proxy.engine.scheduling.draft_length import CostCurve

_CREDIT = 1024
"""Tokens by which a tenant that comes back goes before the others."""
_KNOWN = 4096
"""Tenants that are remembered."""
_LITTLE = 1024
"""Tokens of all requests of a tenant up to which it has little to do."""
_LONG = 3072
"""The same from which its work is long."""
_PART = 0.125
"""Time for long work beside each unit of time for tenants with little to do; its true cost may be twice the curve's."""
_CHUNK = 32
"""Tokens of long work that are fed at once at least: fewer cost nearly as much."""


class Shares:
    """Tokens that each tenant was given, as far as that decides who is next."""

    def __init__(self) -> None:
        self._given_tokens: dict[str, int] = {}
        self._present: frozenset[str] = frozenset()

    def see(self, tenants: Iterable[str]) -> None:
        """These have something to do now."""
        present = frozenset(tenants)
        stayed = [self.count_given_tokens(tenant) for tenant in present & self._present]
        if not stayed or len(self._given_tokens) > _KNOWN:
            self._given_tokens = {tenant: self.count_given_tokens(tenant) for tenant in present & self._present}
        least = min(stayed, default=0)
        for tenant in present - self._present:
            self._given_tokens[tenant] = max(least - _CREDIT, min(least, self.count_given_tokens(tenant)))
        self._present = present

    def give(self, tenant: str, tokens: int) -> None:
        """It gets so many tokens of a step."""
        self._given_tokens[tenant] = self._given_tokens.get(tenant, 0) + tokens

    def count_given_tokens(self, tenant: str) -> int:
        """What it was given; only the order of these numbers means anything."""
        return self._given_tokens.get(tenant, 0)


def by_size(tokens: Mapping[str, int]) -> tuple[frozenset[str], frozenset[str]]:
    """Which tenants have little to do, and which long work, by the tokens of their requests."""
    little = frozenset(tenant for tenant, size in tokens.items() if size <= _LITTLE)
    long = frozenset(tenant for tenant, size in tokens.items() if size > _LONG)
    return little, long


class GuaranteedShare:
    """The part of the time that long work gets while other tenants have little to do; times by the cost curve."""

    def __init__(self, costs: CostCurve, budget: int) -> None:
        self._costs = costs
        self._budget = budget
        self._due = 0.0

    def room(self, fed_tokens: int) -> int:
        """Tokens of long work in a step with `fed_tokens` tokens of others; none until enough time is due to it."""
        cost = self._costs.estimate_cost(fed_tokens)
        self._due = min(self._due + _PART * cost, self._costs.estimate_cost(self._budget))
        room = self._costs.count_further_tokens(fed_tokens, 1 + self._due / cost, max(0, self._budget - fed_tokens))
        return room if room >= _CHUNK else 0

    def took(self, fed_tokens: int, given_tokens: int) -> None:
        """A step with `fed_tokens` tokens of others has `given_tokens` tokens of long work."""
        self._due = max(
            0.0,
            self._due - (self._costs.estimate_cost(fed_tokens + given_tokens) - self._costs.estimate_cost(fed_tokens)),
        )

    def overdue(self) -> bool:
        """Whether a whole step is due to it, for want of room beside the others: it shares the next like anybody."""
        if self._due < self._costs.estimate_cost(self._budget):
            return False
        self._due = 0.0
        return True
