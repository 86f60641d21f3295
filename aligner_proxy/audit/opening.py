"""Opening of an audit store at its location; the library of PostgreSQL is loaded only where one is opened."""

from __future__ import annotations

from pathlib import Path

from aligner_proxy.audit.location import Place
from aligner_proxy.audit.store import Seal, Store


def open_store(place: Place, seal: Seal | None = None, *, durable: bool = False) -> Store:
    """The store at a place; raises what its kind of store raises."""
    if isinstance(place, Path):
        return Store(place, seal, durable=durable)
    from aligner_proxy.audit.database import DatabaseStore  # brings psycopg, which the extra `fleet` installs

    return DatabaseStore(place, seal, durable=durable)
