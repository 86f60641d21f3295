"""The server through which gateways on several hosts share corrections, quotas and taught heads; a plugin provides it.

A gateway without a shared server counts quotas only for itself. A policies file that names a server for which no plugin
is installed is therefore refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from aligner_proxy.engine.admission import Accounts
from aligner_proxy.gateway.reload import Policies
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.findings import DoctorFinding
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile


class Membership(Protocol):
    """This process's membership of a shared server: a background task that reports the active configuration."""

    def start(self) -> None:
        """Start the background work; raises `RuntimeError` if no event loop runs."""

    async def aclose(self) -> None:
        """Stop the background work."""


class SharedServer(Protocol):
    """A server that gateways share; while it is unreachable, each gateway continues alone and no request waits."""

    def open_cache(self, directory: Path, ttl_s: float, max_mb: int) -> CorrectionCache:
        """The shared correction cache; `directory` and `max_mb` are for the disk cache used while it is unreachable."""

    def open_accounts(self, work: str) -> Accounts:
        """Counts each tenant's use of one kind of work (such as "engine") for its quota, apart from other kinds."""

    def join(self, policies: Policies) -> Membership:
        """The membership of this process with these policies; not started yet."""

    def examine(self, file: PolicyFile) -> Iterator[DoctorFinding]:
        """Findings for `aligner-proxy doctor` about the server and the gateways that share it."""


def open_shared_server(file: PolicyFile) -> SharedServer | None:
    """The shared server that this file names, not connected yet; None without one. Raises `ConfigError`."""
    address = config.redis_address(file)
    if address is None:
        return None
    server: SharedServer = registry.make_server(file, "shared_servers", address)
    return server
