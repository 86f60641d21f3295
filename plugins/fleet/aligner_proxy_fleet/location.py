"""A PostgreSQL database that hosts share as an audit store; psycopg is loaded only when a store is opened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aligner_proxy import extras
from aligner_proxy.audit.store import Seal
from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins.api import ServerAddress

if TYPE_CHECKING:
    from aligner_proxy_fleet.database import DatabaseLease, DatabaseStore

WAIT_S = 5.0
"""Default timeout of a database call, in seconds."""


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL database by its URL; `name` is the variable that holds the URL. Satisfies `AuditDatabase`."""

    url: str = field(repr=False)
    name: str
    wait_s: float = WAIT_S

    @classmethod
    def from_address(cls, address: ServerAddress) -> Database:
        """Return the database at an address; raises `ConfigError`, which never quotes the URL, if it is invalid."""
        url = address.url
        if url is None or not url.startswith(("postgresql://", "postgres://")):
            fault = "is not set" if url is None else "holds no URL of a PostgreSQL"
            raise ConfigError(
                f"{address.setting}: {address.variable} {fault}; use postgresql://user:password@host[:port]/database"
            )
        extras.require_extra(extras.FLEET, address.setting, ["psycopg"])
        return cls(url, address.variable)

    def open_store(self, seal: Seal | None = None, *, durable: bool = False) -> DatabaseStore:
        from aligner_proxy_fleet.database import DatabaseStore

        return DatabaseStore(self, seal, durable=durable)

    def make_lease(self) -> DatabaseLease:
        from aligner_proxy_fleet.database import DatabaseLease

        return DatabaseLease(self)

    def with_wait_limit(self, seconds: float) -> Database:
        return replace(self, wait_s=seconds)
