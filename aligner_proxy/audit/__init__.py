"""What was done to which answer, and how can that be proved later? The only place where text is kept.

Off unless the operator turns it on. `recorder` takes notes behind the requests' backs, `entry` says what is written of
a choice, `seal` encrypts it, `store` keeps it for as long as it may be kept, `sinks` tell plugins. Nothing here can
touch a response.
"""

from __future__ import annotations

from aligner_proxy.audit.entry import AuditEvent
from aligner_proxy.audit.store import Store
from aligner_proxy.audit.writer import AuditWriter, Recorder, Sink, audit_writers, recorder, store
from aligner_proxy.plugins.api import Content, Entry, Flagged

__all__ = [
    "AuditEvent",
    "AuditWriter",
    "Content",
    "Entry",
    "Flagged",
    "Recorder",
    "Sink",
    "Store",
    "audit_writers",
    "recorder",
    "store",
]
