"""Shares of the model by tenant: who has had least of it is served next. No torch.

Tokens are counted by tenant. One that comes back after a pause begins a little before those that were there meanwhile,
so that a few short requests are not behind a long row of another's, and never so far before them that they would wait
long for it.
"""

from __future__ import annotations

from collections.abc import Iterable

_CREDIT = 1024
"""Tokens by which a tenant that comes back goes before the others."""
_KNOWN = 4096
"""Tenants that are remembered."""


class Shares:
    """Tokens that each tenant was given, as far as that decides who is next."""

    def __init__(self) -> None:
        self._given: dict[str, int] = {}
        self._present: frozenset[str] = frozenset()

    def see(self, tenants: Iterable[str]) -> None:
        """These have something to do now."""
        present = frozenset(tenants)
        stayed = [self.had(tenant) for tenant in present & self._present]
        if not stayed or len(self._given) > _KNOWN:
            self._given = {tenant: self.had(tenant) for tenant in present & self._present}
        least = min(stayed, default=0)
        for tenant in present - self._present:
            self._given[tenant] = max(least - _CREDIT, min(least, self.had(tenant)))
        self._present = present

    def give(self, tenant: str, tokens: int) -> None:
        """It gets so many tokens of a step."""
        self._given[tenant] = self._given.get(tenant, 0) + tokens

    def had(self, tenant: str) -> int:
        """What it was given; only the order of these numbers means anything."""
        return self._given.get(tenant, 0)
