"""Audit log: a record of what was done to each answer, and the only place where text is kept.

Off unless the operator turns it on. `writer` records in the background, `entry` is the format of a record, `store`
encrypts and keeps records for a limited time, `replay` runs them again. Nothing here can change a response.
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
