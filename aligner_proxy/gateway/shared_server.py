"""The server through which gateways of several hosts share corrections, quotas and taught heads; a plugin brings it.

A gateway without one counts quotas for itself alone, so a policies file that names a server which no plugin can open
is refused.
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
    """This process as one of those that share a server: it tells what is in force here, in the background."""

    def start(self) -> None:
        """Start; raises `RuntimeError` if no loop runs."""
        ...

    async def aclose(self) -> None:
        """End."""
        ...


class SharedServer(Protocol):
    """A server that gateways share. While it is away each goes on alone, and no request waits for it."""

    def open_cache(self, directory: Path, ttl_s: float, max_mb: int) -> CorrectionCache:
        """The cache of corrections there; `directory` and `max_mb` are of the disk, for while it is away."""
        ...

    def open_accounts(self, work: str) -> Accounts:
        """The accounts of one kind of work, apart from those of others."""
        ...

    def join(self, policies: Policies) -> Membership:
        """The membership of this process, which goes by these policies; not started."""
        ...

    def examine(self, file: PolicyFile) -> Iterator[DoctorFinding]:
        """What `aligner-proxy doctor` says of it, and of the gateways that share it."""
        ...


def open_shared_server(file: PolicyFile) -> SharedServer | None:
    """The server that this file names; None without one. Raises `ConfigError`, and does not connect."""
    address = config.redis_address(file)
    if address is None:
        return None
    server: SharedServer = registry.make_server(file, "shared_servers", address)
    return server
