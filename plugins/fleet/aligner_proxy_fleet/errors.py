"""Errors of servers that hosts share; their messages quote no address, and nothing that lies there."""

from __future__ import annotations

from aligner_proxy.errors import AlignerProxyError, AuditError


class DatabaseAway(AuditError):
    """The audit database does not answer in time, or refuses; the message quotes nothing but the kind of failure."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(f"the audit database in {name} fails: {kind}")


class RedisAway(AlignerProxyError):
    """The shared Redis does not answer, or not in time; the message is the kind of failure and quotes nothing."""


class RedisRefused(AlignerProxyError):
    """The shared Redis can be read and takes no writes now: its memory is full, or it is a replica."""


class RefusedEntry(AlignerProxyError):
    """An entry of the shared Redis that is not used; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"an entry of the shared Redis is {reason}")
        self.reason = reason
