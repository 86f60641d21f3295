"""Check of the URL of the Redis that gateways share.

The faults never quote the URL, because it may contain a password.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

REDIS_FORMS = "redis://[user:password@]host[:port][/database], rediss://... over TLS, or unix:///path/to/socket"
_DATABASE = re.compile(r"/?|/\d{1,5}")
_TLS = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_OPTIONS = {"redis": frozenset[str](), "rediss": _TLS, "unix": frozenset({"db", "username", "password"})}
"""Allowed query options for each scheme; none can turn off the check of the server's certificate."""


def redis_fault(url: str) -> str | None:
    """A text that says what is wrong with a URL; None if it is valid."""
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query, keep_blank_values=True).keys()
        # Only reading the port checks it.
        port = parts.port
    except ValueError:
        return "it cannot be taken apart"
    allowed = _OPTIONS.get(parts.scheme)
    if allowed is None:
        return "its scheme is none of redis, rediss and unix"
    if options - allowed:
        return f"the options it may have are: {', '.join(sorted(allowed)) or 'none'}"
    if parts.scheme == "unix":
        return None if url.startswith("unix:///") else "it names no absolute path"
    if not parts.hostname or port == 0:
        return "it names no host, or no port"
    return None if _DATABASE.fullmatch(parts.path) else "the database behind the host is no number"
