"""Address of a server that hosts share, as a policies file and the environment name it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """What a plugin gets of such a server. No error quotes `url`, which may hold a password, or `key`."""

    setting: str
    """The key of the policies file with its line, as errors begin."""
    variable: str
    """The environment variable that holds the URL."""
    url: str | None = field(repr=False)
    """None: the variable is not set."""
    key: bytes | None = field(default=None, repr=False)
    """The key that encrypts what lies there, 32 bytes; None without encryption."""
