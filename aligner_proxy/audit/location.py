"""Location of an audit store: a file of SQLite, or a PostgreSQL whose library is loaded only where one is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from aligner_proxy.audit.store import AuditStore, Seal

PATIENCE_S = 5.0
"""How long a call of a database may take."""


@dataclass(frozen=True, slots=True)
class Database:
    """A PostgreSQL by its URL; `name` is the variable that holds it."""

    url: str = field(repr=False)
    name: str
    patience_s: float = PATIENCE_S


StoreLocation = Path | Database
"""Where an audit store is: a file of SQLite, or a PostgreSQL."""


def open_store(place: StoreLocation, seal: Seal | None = None, *, durable: bool = False) -> AuditStore:
    """The store at a place; raises what its kind of store raises."""
    if isinstance(place, Path):
        return AuditStore(place, seal, durable=durable)
    from aligner_proxy.audit.database import DatabaseStore  # brings psycopg, which the extra `fleet` installs

    return DatabaseStore(place, seal, durable=durable)
