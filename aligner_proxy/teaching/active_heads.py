"""Active heads: lookup of the taught head for an objective of a request; the only part of teaching in the gateway. A
version is the stored record of a taught head. An objective without a taught head is judged by the general head.

A head applies only to the exact text for which it was taught. The engine refuses a head that was taught on another
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
        """Read the index of the file's store; raises `ConfigError` if it is damaged."""
        store = HeadStore.for_file(file)
        return cls(store, store.index())

    @classmethod
    def read_or_empty(cls, file: PolicyFile) -> ActiveHeads:
        """Read the index; if it is damaged, log an error and use no heads, so that the gateway can start."""
        try:
            return cls.read(file)
        except ConfigError as error:
            _log_fault_once(str(error))
            return cls(HeadStore.for_file(file), Index())

    def head_of(self, tenant: Tenant | None, objective: Objective, aligner: str) -> str:
        """Return the content hash of an objective's active head for an aligner; satisfies the resolver's `HeadLookup`.

        The result is "" if no head is active, or if it was taught for another text than the objective has now.
        `tenant` owns the objective; None for an objective of the whole file.
        """
        version = self.index.objective(scope_of(tenant), objective.name).active_version(aligner)
        return version.head if version is not None and version.text == objective.text else ""

    def versions(self) -> dict[str, Version]:
        """Return every version by the hash of its head."""
        return self.index.heads()


@lru_cache(maxsize=64)
def _log_fault_once(fault: str) -> None:
    log.error("%s; until then the general head judges every objective", fault)


def taught_versions(policy: Policy, versions: Mapping[str, Version]) -> dict[str, Version]:
    """Return the version of each taught objective by its name; `versions` are all, by the hash of the head."""
    return {objective.name: versions[objective.head] for objective in policy.objectives if objective.head in versions}
