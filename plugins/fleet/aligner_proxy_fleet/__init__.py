"""Gateway plugin by which gateways on several hosts share state, through Redis and PostgreSQL (README.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aligner_proxy.plugins.api import Kind, ServerAddress, hookimpl
from aligner_proxy_fleet import metrics as metrics  # imported so that every gateway with the plugin exports them

if TYPE_CHECKING:
    from aligner_proxy.audit.location import AuditDatabase
    from aligner_proxy.gateway.shared_server import SharedServer


def _make_redis(address: ServerAddress) -> SharedServer:
    # imported here, because this module imports others that import the plugin API, which loads this plugin
    from aligner_proxy_fleet.shared_redis import SharedRedis

    return SharedRedis(address)


def _make_database(address: ServerAddress) -> AuditDatabase:
    from aligner_proxy_fleet.location import Database

    return Database.from_address(address)


@hookimpl
def shared_servers() -> Sequence[Kind[SharedServer]]:
    """The servers for shared state that this plugin offers: a Redis."""
    return [Kind("redis", "corrections, quotas and taught heads for all hosts", _make_redis)]


@hookimpl
def audit_databases() -> Sequence[Kind[AuditDatabase]]:
    """The audit databases that this plugin offers: PostgreSQL."""
    return [Kind("postgresql", "one audit store for all hosts", _make_database)]
