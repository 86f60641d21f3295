"""A PostgreSQL that hosts share as an audit store; its library is loaded only where a store is opened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aligner_proxy import extras
from aligner_proxy.audit.store import Seal
from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins.api import ServerAddress

if TYPE_CHECKING:
    from aligner_proxy_fleet.database import DatabaseLease, DatabaseStore

PATIENCE_S = 5.0
"""How long a call of a database may take."""


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL by its URL; `name` is the variable that holds it. Satisfies `AuditDatabase`."""

    url: str = field(repr=False)
    name: str
    patience_s: float = PATIENCE_S

    @classmethod
    def at(cls, address: ServerAddress) -> Database:
        """The database at an address; raises `ConfigError`, which never quotes the URL."""
        url = address.url
        if url is None or not url.startswith(("postgresql://", "postgres://")):
            fault = "is not set" if url is None else "holds no URL of a PostgreSQL"
            raise ConfigError(
                f"{address.setting}: {address.variable} {fault}; use postgresql://user:password@host[:port]/database"
            )
        extras.require_extra(extras.FLEET, address.setting, ["psycopg"])
        return cls(url, address.variable)

    def open_store(self, seal: Seal | None = None, *, durable: bool = False) -> DatabaseStore:
        """The store in it; raises `AuditError`."""
        from aligner_proxy_fleet.database import DatabaseStore

        return DatabaseStore(self, seal, durable=durable)

    def make_lease(self) -> DatabaseLease:
        """The lease of all hosts, not taken."""
        from aligner_proxy_fleet.database import DatabaseLease

        return DatabaseLease(self)

    def with_patience(self, seconds: float) -> Database:
        """The same database, each call of which may take so long."""
        return replace(self, patience_s=seconds)
