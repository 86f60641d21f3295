"""Errors of servers that hosts share; their messages contain neither addresses nor stored data."""

from __future__ import annotations

from aligner_proxy.errors import AlignerProxyError, AuditError


class DatabaseAway(AuditError):
    """The audit database does not answer in time, or refuses; the message gives only the kind of failure."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"the audit database in {name} fails: {kind}")


class RedisAway(AlignerProxyError):
    """The shared Redis does not answer, or not in time; the message is only the kind of failure."""


class RedisRefused(AlignerProxyError):
    """The shared Redis can be read but refuses writes now: its memory is full, or it is a replica."""


class RefusedEntry(AlignerProxyError):
    """An entry of the shared Redis is not used; `reason` is "truncated", "altered" or "foreign"."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"an entry of the shared Redis is {reason}")
        self.reason = reason
