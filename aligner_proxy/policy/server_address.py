"""Address of a server that several hosts share (Redis, PostgreSQL), from the policies file and the environment."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """What opens a connection to a shared server. Errors must not quote `url`, which may hold a password, or `key`."""

    setting: str
    """The setting in the policies file with its file and line; error messages begin with it."""
    variable: str
    """The environment variable that holds the URL."""
    url: str | None = field(repr=False)
    """The URL; None if the variable is not set."""
    key: bytes | None = field(default=None, repr=False)
    """The key that encrypts the data on the server, 32 bytes; None without encryption."""
