"""Heads in force: which taught head judges an objective of a request. All of teaching that the gateway needs.

A head counts only for the very text that it was taught for. Whether the engine still serves the aligner that it was
taught on, only the engine knows: it refuses the head of another one, and the general head judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.teaching.store import HeadStore, Index, Version, scope_of
from aligner_proxy.types import Objective, Policy


@dataclass(frozen=True)
class HeadsInForce:
    """The heads of one policies file, as its index says."""

    store: HeadStore = field(compare=False)
    index: Index

    @classmethod
    def of(cls, file: PolicyFile) -> HeadsInForce:
        """Read the index; raises `ConfigError` where it is damaged."""
        store = HeadStore.of(file)
        return cls(store, store.index())

    def version_of(self, tenant: Tenant | None, objective: Objective, aligner: str) -> Version | None:
        """The head in force for an objective of this tenant (None: of the file), None without one."""
        version = self.index.objective(scope_of(tenant), objective.name).in_force(aligner)
        return version if version is not None and version.text == objective.text else None

    def head_of(self, tenant: Tenant | None, objective: Objective, aligner: str) -> str:
        """Its content hash; satisfies the resolver's `HeadLookup`."""
        version = self.version_of(tenant, objective, aligner)
        return version.head if version else ""

    def versions(self) -> dict[str, Version]:
        """Every version by its head."""
        return self.index.heads()


def taught_in(policy: Policy, versions: Mapping[str, Version]) -> dict[str, Version]:
    """The objectives of a policy that were taught, by name."""
    named = ((objective.name, versions.get(objective.head)) for objective in policy.objectives if objective.head)
    return {name: version for name, version in named if version is not None}
