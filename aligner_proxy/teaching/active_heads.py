"""Active heads: lookup of the taught head for an objective of a request; the only part of teaching in the gateway.

A head applies only to the exact text that it was taught for. The engine refuses a head that was taught on another
aligner than it serves; then the general head judges.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.schema import PolicyFile, Tenant
from aligner_proxy.teaching.store import HeadStore, Index, Version, scope_of
from aligner_proxy.types import Objective, Policy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActiveHeads:
    """The taught heads of one policies file, according to the store's index when it was read."""

    store: HeadStore = field(compare=False)
    index: Index

    @classmethod
    def read(cls, file: PolicyFile) -> ActiveHeads:
        """Read the index; raises `ConfigError` if it is damaged."""
        store = HeadStore.for_file(file)
        return cls(store, store.index())

    @classmethod
    def read_or_empty(cls, file: PolicyFile) -> ActiveHeads:
        """Read the index; if it is damaged, log an error and use no heads, so that the gateway still starts."""
        try:
            return cls.read(file)
        except ConfigError as error:
            _log_fault_once(str(error))
            return cls(HeadStore.for_file(file), Index())

    def version_of(self, tenant: Tenant | None, objective: Objective, aligner: str) -> Version | None:
        """The active head of an objective for one aligner; None if there is none that was taught for its present text.

        `tenant` is the owner of the objective; None: the policies file itself.
        """
        version = self.index.objective(scope_of(tenant), objective.name).active_version(aligner)
        return version if version is not None and version.text == objective.text else None

    def head_of(self, tenant: Tenant | None, objective: Objective, aligner: str) -> str:
        """The content hash of the active head, empty if there is none; satisfies the resolver's `HeadLookup`."""
        version = self.version_of(tenant, objective, aligner)
        return version.head if version else ""

    def versions(self) -> dict[str, Version]:
        """Every version by the hash of its head."""
        return self.index.heads()


@lru_cache(maxsize=64)
def _log_fault_once(fault: str) -> None:
    log.error("%s; until then the general head judges every objective", fault)


def taught_versions(policy: Policy, versions: Mapping[str, Version]) -> dict[str, Version]:
    """The versions of a policy's taught objectives, by objective name; `versions` are those by the hash of the head."""
    if not versions:
        return {}
    pairs = ((objective.name, versions.get(objective.head)) for objective in policy.objectives if objective.head)
    return {name: version for name, version in pairs if version is not None}
