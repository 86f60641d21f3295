"""Opening of an audit store at its location."""

from __future__ import annotations

from pathlib import Path

from aligner_proxy.audit.location import StoreLocation
from aligner_proxy.audit.store import AuditStore, Seal


def open_store(location: StoreLocation, seal: Seal | None = None, *, durable: bool = False) -> AuditStore:
    """Open the store at `location`; raises the errors of its kind of store.

    `seal` encrypts its texts; None leaves them readable. With `durable`, entries are on the disk when a call that adds
    them returns.
    """
    if isinstance(location, Path):
        return AuditStore(location, seal, durable=durable)
    return location.open_store(seal, durable=durable)
